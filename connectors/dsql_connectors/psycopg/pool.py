"""psycopg pools for Aurora DSQL: connections replaced before they are too old, transactions that are replayed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

from dsql_connectors.core.drivers import require_driver

require_driver("psycopg_pool", "psycopg")

import psycopg_pool  # noqa: E402

from dsql_connectors.core.pooling import MAX_LIFETIME_S, PoolLease, bounded_lifetime_s, closed_by_peer  # noqa: E402
from dsql_connectors.core.retry import RetryLoop, RetryPolicy, policy_of  # noqa: E402
from dsql_connectors.core.transaction import (  # noqa: E402
    AsyncAttempt,
    SyncAttempt,
    attempts,
    attempts_async,
    replay_steps,
    run,
    run_async,
)
from dsql_connectors.psycopg.connection import AsyncConnection, Connection  # noqa: E402
from dsql_connectors.psycopg.failures import ERRORS  # noqa: E402

T = TypeVar("T")


def _stale(connection: Connection[Any] | AsyncConnection[Any], max_lifetime_s: float) -> bool:
    """Whether an idle connection is too old to hand out, or was closed by the server while nobody looked."""
    if time.monotonic() - connection._dsql_connected_s > max_lifetime_s:
        return True
    return connection._dsql_lost() or closed_by_peer(connection.pgconn.socket)


def _pool_options(
    kwargs: Any, retry: RetryPolicy | bool | None, max_lifetime: float, options: dict[str, Any]
) -> dict[str, Any]:
    if retry is not None and not callable(kwargs):
        kwargs = {**(kwargs or {}), "retry": retry}
    return {**options, "kwargs": kwargs, "max_lifetime": bounded_lifetime_s(max_lifetime)}


class ConnectionPool(psycopg_pool.ConnectionPool[Connection[Any]]):
    """``psycopg_pool.ConnectionPool`` of :class:`~dsql_connectors.psycopg.Connection`, each with a token of its own.

    A connection that is over its lifetime or was closed by the server is replaced when it is asked for, so that the
    application never sees it. That is told from the socket, without a round trip.
    """

    def __init__(
        self,
        conninfo: str | Callable[[], str] = "",
        *,
        connection_class: type[Connection[Any]] = Connection,
        kwargs: dict[str, Any] | Callable[[], dict[str, Any]] | None = None,
        retry: RetryPolicy | bool | None = None,
        max_lifetime: float = MAX_LIFETIME_S,
        **options: Any,
    ) -> None:
        """As psycopg_pool's.

        :param kwargs: parameters of each connect, as for ``connect``.
        :param retry: the policy of the pool's connections and of :meth:`run_transaction`; False replays nothing.
        :param max_lifetime: seconds; at most 3300, because DSQL closes connections after 3600.
        """
        self._dsql_policy = policy_of(retry)
        super().__init__(
            conninfo, connection_class=connection_class, **_pool_options(kwargs, retry, max_lifetime, options)
        )

    def getconn(self, timeout: float | None = None) -> Connection[Any]:
        """A live connection; see ``psycopg_pool.ConnectionPool.getconn``."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            connection = super().getconn(deadline - time.monotonic())
            if not _stale(connection, self.max_lifetime):
                return connection
            connection._dsql_discard()
            self.putconn(connection)

    def run_transaction(
        self,
        function: Callable[[Connection[Any]], T],
        *,
        retry: RetryPolicy | bool | None = None,
        idempotent: bool = False,
    ) -> T:
        """Call ``function(connection)`` in a transaction on a connection of the pool, commit, return what it returned.

        The whole function runs again, perhaps on another connection, after SQLSTATE 40001, OC000 or OC001 from a
        statement or from COMMIT, within the policy's attempts and seconds. So it must have no side effects outside the
        database. Any other error rolls back and is raised at once.

        :param retry: instead of the pool's policy; False runs it once.
        :param idempotent: the function may be committed twice without harm: it is replayed also after a connection
            lost during COMMIT.
        :raises RetriesExhausted: with the history, when the policy allows no further attempt.
        :raises CommitOutcomeUnknown: if the connection is lost during COMMIT, unless ``idempotent``.
        :raises NestedTransactionError: inside another retried transaction on this pool.
        :raises psycopg_pool.PoolTimeout: if no connection is free in time.
        """
        loop = self._dsql_loop(retry, idempotent)
        result: T = run(replay_steps(self._dsql_lease(), self, loop, ERRORS, function))
        return result

    def transactions(
        self, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
    ) -> Iterator[SyncAttempt[Connection[Any]]]:
        """``for attempt in pool.transactions(): with attempt as connection: …``; the contract of run_transaction."""
        return attempts(self._dsql_lease(), self, self._dsql_loop(retry, idempotent), ERRORS)

    def _dsql_lease(self) -> PoolLease:
        return PoolLease(self.getconn, self.putconn)

    def _dsql_loop(self, retry: RetryPolicy | bool | None, idempotent: bool) -> RetryLoop:
        policy = self._dsql_policy if retry is None else policy_of(retry)
        return RetryLoop(policy, ERRORS, idempotent=idempotent, reconnects=True)


class AsyncConnectionPool(psycopg_pool.AsyncConnectionPool[AsyncConnection[Any]]):
    """:class:`ConnectionPool` for asyncio."""

    def __init__(
        self,
        conninfo: str | Callable[[], str] = "",
        *,
        connection_class: type[AsyncConnection[Any]] = AsyncConnection,
        kwargs: dict[str, Any] | Callable[[], dict[str, Any]] | None = None,
        retry: RetryPolicy | bool | None = None,
        max_lifetime: float = MAX_LIFETIME_S,
        **options: Any,
    ) -> None:
        """As psycopg_pool's; ``retry`` and ``max_lifetime`` as in :class:`ConnectionPool`."""
        self._dsql_policy = policy_of(retry)
        super().__init__(
            conninfo, connection_class=connection_class, **_pool_options(kwargs, retry, max_lifetime, options)
        )

    async def getconn(self, timeout: float | None = None) -> AsyncConnection[Any]:
        """A live connection; see ``psycopg_pool.AsyncConnectionPool.getconn``."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            connection = await super().getconn(deadline - time.monotonic())
            if not _stale(connection, self.max_lifetime):
                return connection
            connection._dsql_discard()
            await self.putconn(connection)

    async def run_transaction(
        self,
        function: Callable[[AsyncConnection[Any]], Awaitable[T]],
        *,
        retry: RetryPolicy | bool | None = None,
        idempotent: bool = False,
    ) -> T:
        """:meth:`ConnectionPool.run_transaction` for a coroutine function; the same contract."""
        loop = self._dsql_loop(retry, idempotent)
        result: T = await run_async(replay_steps(self._dsql_lease(), self, loop, ERRORS, function))
        return result

    def transactions(
        self, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
    ) -> AsyncIterator[AsyncAttempt[AsyncConnection[Any]]]:
        """``async for attempt in pool.transactions(): async with attempt as connection: …``."""
        return attempts_async(self._dsql_lease(), self, self._dsql_loop(retry, idempotent), ERRORS)

    def _dsql_lease(self) -> PoolLease:
        return PoolLease(self.getconn, self.putconn)

    def _dsql_loop(self, retry: RetryPolicy | bool | None, idempotent: bool) -> RetryLoop:
        policy = self._dsql_policy if retry is None else policy_of(retry)
        return RetryLoop(policy, ERRORS, idempotent=idempotent, reconnects=True)


def create_pool(
    conninfo: str = "",
    *,
    kwargs: dict[str, Any] | None = None,
    open: bool = False,  # psycopg_pool's name
    **options: Any,
) -> ConnectionPool:
    """A :class:`ConnectionPool`, not opened yet: use ``with pool:``, ``pool.open()`` or ``open=True``.

    For a function that holds exactly one connection (AWS Lambda), make it outside of the handler with ``min_size=1,
    max_size=1`` and ``pool.open(wait=True)``: the connection is warm, and one that died while the process was frozen is
    replaced at the next use.
    """
    _check_class(options.get("connection_class"), Connection)
    return ConnectionPool(conninfo, kwargs=kwargs, open=open, **options)


def create_async_pool(
    conninfo: str = "", *, kwargs: dict[str, Any] | None = None, **options: Any
) -> AsyncConnectionPool:
    """An :class:`AsyncConnectionPool`, not opened yet: use ``async with pool:`` or ``await pool.open()``."""
    _check_class(options.get("connection_class"), AsyncConnection)
    options.setdefault("open", False)
    return AsyncConnectionPool(conninfo, kwargs=kwargs, **options)


def _check_class(given: type | None, base: type) -> None:
    if given is not None and not issubclass(given, base):
        raise TypeError(
            f"connection_class must derive from {base.__module__}.{base.__qualname__}, which brings the token"
        )
