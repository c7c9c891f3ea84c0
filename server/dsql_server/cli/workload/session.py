"""One client's connection to DSQL or to PostgreSQL, with whole transactions replayed on a conflict."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
Work = Callable[["psycopg.Connection[Any]"], T]

DSQL_SCHEMES = ("aws-dsql", "aws-dsql:postgresql")
POSTGRESQL_SCHEMES = ("postgresql", "postgres")
ATTEMPTS_MAX = 20
BACKOFF_S_FIRST = 0.002
BACKOFF_S_MAX = 0.2


class UnsupportedUrl(Exception):
    """The URL names no database that can be measured."""


class Session(Protocol):
    """A connection, and how its transactions are replayed."""

    conflicts: int  #: serialization failures met so far; each was followed by another attempt
    connection: psycopg.Connection[Any]  #: in autocommit mode

    def transaction(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction and commit it, as often as conflicts make it necessary.

        :raises psycopg.Error: any other failure, or the last conflict when the attempts are used up.
        """
        ...

    def close(self) -> None: ...


def is_dsql(url: str) -> bool:
    """Whether the URL names a DSQL cluster.

    :raises UnsupportedUrl: it names neither that nor a PostgreSQL database.
    """
    if url.startswith(tuple(scheme + "://" for scheme in DSQL_SCHEMES)):
        return True
    if url.startswith(tuple(scheme + "://" for scheme in POSTGRESQL_SCHEMES)):
        return False
    raise UnsupportedUrl(f"{without_password(url)!r} is not an aws-dsql:// or postgresql:// URL")


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    prefix, separator, rest = url.partition("://")
    parts = urlsplit("//" + rest)
    if parts.password is None:
        return url
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    address = parts.netloc.rpartition("@")[2]
    return f"{prefix}{separator}{user}@{address}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def open_session(url: str) -> Session:
    """Connect.

    :raises UnsupportedUrl: neither DSQL nor PostgreSQL.
    :raises psycopg.Error: no connection.
    """
    return DsqlSession(url) if is_dsql(url) else PostgresSession(url)


class DsqlSession:
    """Through the psycopg connector, whose own retry replays the transactions."""

    def __init__(self, url: str) -> None:
        import dsql_connectors.psycopg as dsql

        def count(_: dsql.RetryEvent) -> None:
            self.conflicts += 1

        self.conflicts = 0
        self._connection = dsql.connect(url, autocommit=True, retry=dsql.RetryPolicy(on_retry=count))
        self.connection: psycopg.Connection[Any] = self._connection

    def transaction(self, work: Work[T]) -> T:
        return self._connection.run_transaction(work)

    def close(self) -> None:
        self._connection.close()


class PostgresSession:
    """Plain psycopg under REPEATABLE READ, DSQL's isolation level, with the same kind of retry."""

    def __init__(self, url: str) -> None:
        import psycopg

        self.connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self.conflicts = 0

    def transaction(self, work: Work[T]) -> T:
        from psycopg.errors import SerializationFailure

        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                with self.connection.transaction():
                    return work(self.connection)
            except SerializationFailure:
                self.conflicts += 1
                if attempt == ATTEMPTS_MAX:
                    raise
            # Full jitter: whoever collided shall not collide again.
            time.sleep(random.uniform(0, min(BACKOFF_S_MAX, BACKOFF_S_FIRST * 2**attempt)))  # noqa: S311
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        self.connection.close()
