"""psycopg for Aurora DSQL: change the import and the URL, and nothing else.

``import dsql_connectors.psycopg as psycopg`` gives everything that ``import psycopg`` gives; ``connect``,
``Connection``, ``AsyncConnection`` and the cursors are the connector's. Pools are in
:mod:`dsql_connectors.psycopg.pool` (``create_pool``, ``create_async_pool`` …) and are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsql_connectors.core.drivers import require_driver

require_driver("psycopg", "psycopg")

import psycopg as _driver  # noqa: E402
from psycopg import (  # noqa: E402
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    AsyncCopy,
    AsyncPipeline,
    AsyncRawServerCursor,
    AsyncServerCursor,
    AsyncTransaction,
    BaseConnection,
    Binary,
    Capabilities,
    Column,
    ConnectionInfo,
    Copy,
    DatabaseError,
    DataError,
    Date,
    DateFromTicks,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    IsolationLevel,
    Notify,
    NotSupportedError,
    OperationalError,
    Pipeline,
    ProgrammingError,
    RawServerCursor,
    Rollback,
    ServerCursor,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
    Transaction,
    Warning,
    Xid,
    apilevel,
    capabilities,
    errors,
    paramstyle,
    rows,
    sql,
    threadsafety,
)

from dsql_connectors.core.official import OCCRetryConfig  # noqa: E402
from dsql_connectors.core.retry import RetryEvent, RetryPolicy, is_occ_error  # noqa: E402
from dsql_connectors.core.transactional import transactional  # noqa: E402
from dsql_connectors.psycopg.connection import AsyncConnection, Connection  # noqa: E402
from dsql_connectors.psycopg.cursor import (  # noqa: E402
    AsyncClientCursor,
    AsyncCursor,
    AsyncRawCursor,
    ClientCursor,
    Cursor,
    RawCursor,
)

if TYPE_CHECKING:
    from dsql_connectors.psycopg.pool import AsyncConnectionPool, ConnectionPool, create_async_pool, create_pool

connect = Connection.connect
connect_async = AsyncConnection.connect

_POOL_NAMES = frozenset({"AsyncConnectionPool", "ConnectionPool", "create_async_pool", "create_pool"})


#: What the official connector calls them.
_OFFICIAL_NAMES = {
    "AuroraDSQLAsyncPool": "AsyncConnectionPool",
    "AuroraDSQLPool": "ConnectionPool",
    "DSQLAsyncConnection": "AsyncConnection",
    "DSQLConnection": "Connection",
}


def __getattr__(name: str) -> Any:
    """Pools on first use (psycopg_pool may not be installed), and what else psycopg has."""
    name = _OFFICIAL_NAMES.get(name, name)
    if name in globals():
        return globals()[name]
    if name in _POOL_NAMES:
        from dsql_connectors.psycopg import pool

        return getattr(pool, name)
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
    "AsyncClientCursor",
    "AsyncConnection",
    "AsyncConnectionPool",
    "AsyncCopy",
    "AsyncCursor",
    "AsyncPipeline",
    "AsyncRawCursor",
    "AsyncRawServerCursor",
    "AsyncServerCursor",
    "AsyncTransaction",
    "BaseConnection",
    "Binary",
    "Capabilities",
    "ClientCursor",
    "Column",
    "Connection",
    "ConnectionInfo",
    "ConnectionPool",
    "Copy",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "IsolationLevel",
    "NotSupportedError",
    "Notify",
    "OCCRetryConfig",
    "OperationalError",
    "Pipeline",
    "ProgrammingError",
    "RawCursor",
    "RawServerCursor",
    "RetryEvent",
    "RetryPolicy",
    "Rollback",
    "ServerCursor",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Transaction",
    "Warning",
    "Xid",
    "apilevel",
    "capabilities",
    "connect",
    "connect_async",
    "create_async_pool",
    "create_pool",
    "errors",
    "is_occ_error",
    "paramstyle",
    "rows",
    "sql",
    "threadsafety",
    "transactional",
]
