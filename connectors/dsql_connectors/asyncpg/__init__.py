"""asyncpg for Aurora DSQL: change the import and the URL, and nothing else.

``import dsql_connectors.asyncpg as asyncpg`` gives everything that ``import asyncpg`` gives; ``connect``,
``create_pool``, ``Connection`` and ``Pool`` are the connector's.
"""

from __future__ import annotations

from typing import Any

from dsql_connectors.core.drivers import require_driver

require_driver("asyncpg", "asyncpg")

import asyncpg as _driver  # noqa: E402
from asyncpg import InterfaceError, PostgresError, Record, SerializationError  # noqa: E402

from dsql_connectors.asyncpg.connect import connect  # noqa: E402
from dsql_connectors.asyncpg.connection import Connection  # noqa: E402
from dsql_connectors.asyncpg.pool import Pool, create_pool  # noqa: E402
from dsql_connectors.core.official import OCCRetryConfig  # noqa: E402
from dsql_connectors.core.retry import RetryEvent, RetryPolicy, is_occ_error  # noqa: E402
from dsql_connectors.core.transactional import transactional  # noqa: E402

#: What the official connector calls them.
_OFFICIAL_NAMES = {
    "AuroraDSQLPool": "Pool",
}


def __getattr__(name: str) -> Any:
    """What else asyncpg has: its exceptions and types."""
    name = _OFFICIAL_NAMES.get(name, name)
    if name in globals():
        return globals()[name]
    try:
        return getattr(_driver, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


__all__ = [
    "Connection",
    "InterfaceError",
    "OCCRetryConfig",
    "Pool",
    "PostgresError",
    "Record",
    "RetryEvent",
    "RetryPolicy",
    "SerializationError",
    "connect",
    "create_pool",
    "is_occ_error",
    "transactional",
]
