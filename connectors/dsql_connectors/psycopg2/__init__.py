"""psycopg2 for Aurora DSQL: change the import and the URL, and nothing else.

``import dsql_connectors.psycopg2 as psycopg2`` gives everything that ``import psycopg2`` gives; ``connect`` and the
pools in :mod:`dsql_connectors.psycopg2.pool` are the connector's.
"""

from __future__ import annotations

from typing import Any

from dsql_connectors.core.drivers import require_driver

require_driver("psycopg2", "psycopg2")

import psycopg2 as _driver  # noqa: E402
from psycopg2 import (  # noqa: E402
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    DatabaseError,
    DataError,
    Date,
    DateFromTicks,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
    Warning,
    apilevel,
    errors,
    extensions,
    paramstyle,
    threadsafety,
)

from dsql_connectors.core.official import OCCRetryConfig  # noqa: E402
from dsql_connectors.core.retry import RetryEvent, RetryPolicy, is_occ_error  # noqa: E402
from dsql_connectors.core.transactional import transactional  # noqa: E402
from dsql_connectors.psycopg2.connection import Connection, ReplayableConnection, connect  # noqa: E402
from dsql_connectors.psycopg2.cursor import Cursor  # noqa: E402
from dsql_connectors.psycopg2.pool import PoolError, SimpleConnectionPool, ThreadedConnectionPool  # noqa: E402

#: What the official connector calls them.
_OFFICIAL_NAMES = {
    "AuroraDSQLThreadedConnectionPool": "ThreadedConnectionPool",
}


def __getattr__(name: str) -> Any:
    """What else psycopg2 has."""
    name = _OFFICIAL_NAMES.get(name, name)
    if name in globals():
        return globals()[name]
    try:
        return getattr(_driver, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OCCRetryConfig",
    "OperationalError",
    "PoolError",
    "ProgrammingError",
    "ReplayableConnection",
    "RetryEvent",
    "RetryPolicy",
    "SimpleConnectionPool",
    "ThreadedConnectionPool",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "apilevel",
    "connect",
    "errors",
    "extensions",
    "is_occ_error",
    "paramstyle",
    "threadsafety",
    "transactional",
]
