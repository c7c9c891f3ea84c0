"""The asyncpg pool for Aurora DSQL: connections replaced before they are too old, transactions that are replayed."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from dsql_connectors.asyncpg.connect import connect
from dsql_connectors.asyncpg.connection import Connection
from dsql_connectors.asyncpg.failures import ERRORS
from dsql_connectors.core.pooling import MAX_LIFETIME_S, PoolLease, bounded_lifetime_s, lifetime_s
from dsql_connectors.core.retry import RetryLoop, RetryPolicy, policy_of
from dsql_connectors.core.transaction import AsyncAttempt, attempts_async, replay_steps, run_async

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class Pool(asyncpg.Pool):  # type: ignore[misc]
    """``asyncpg.Pool`` of :class:`Connection`, each with a token of its own. Made by :func:`create_pool`.

    A connection that is over its lifetime or was closed by the server is replaced when it is asked for.
    """

    def __init__(self, *args: Any, retry: RetryPolicy | bool | None, max_lifetime: float, **options: Any) -> None:
        self._dsql_policy = policy_of(retry)
        self._dsql_max_lifetime_s = bounded_lifetime_s(max_lifetime)
        super().__init__(*args, connect=self._dsql_connect, retry=retry, **options)

    # asyncpg says nothing about types, so these two say what the pool is once it is open.

    def __await__(self) -> Generator[Any, None, Self]:
        opened: Generator[Any, None, Self] = super().__await__()
        return opened

    async def __aenter__(self) -> Self:
        opened: Self = await super().__aenter__()
        return opened

    async def run_transaction(
        self,
        function: Callable[[Any], Awaitable[T]],
        *,
        retry: RetryPolicy | bool | None = None,
        idempotent: bool = False,
    ) -> T:
        """Await ``function(connection)`` in a transaction on a connection of the pool, commit, return what it returned.

        The whole function runs again, perhaps on another connection, after SQLSTATE 40001, OC000 or OC001 from a
        statement or from COMMIT, within the policy's attempts and seconds. So it must have no side effects outside the
        database. Any other error rolls back and is raised at once.

        :param retry: instead of the pool's policy; False runs it once.
        :param idempotent: the function may be committed twice without harm: it is replayed also after a connection
            lost, or a time-out, during COMMIT.
        :raises RetriesExhausted: with the history, when the policy allows no further attempt.
        :raises CommitOutcomeUnknown: if the connection is lost during COMMIT, unless ``idempotent``.
        :raises NestedTransactionError: inside another retried transaction on this pool.
        """
        loop = self._dsql_loop(retry, idempotent)
        result: T = await run_async(replay_steps(self._dsql_lease(), self, loop, ERRORS, function))
        return result

    def transactions(
        self, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
    ) -> AsyncIterator[AsyncAttempt[Any]]:
        """``async for attempt in pool.transactions(): async with attempt as connection: …``; as run_transaction."""
        return attempts_async(self._dsql_lease(), self, self._dsql_loop(retry, idempotent), ERRORS)

    async def _dsql_connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await connect(*args, **kwargs)
        connection._dsql_lifetime_s = lifetime_s(self._dsql_max_lifetime_s, random.random())  # noqa: S311
        return connection

    async def _acquire(self, timeout: float | None) -> Any:
        # asyncpg's pool recycles by idle time and use only, and has no other place to refuse an old connection.
        while True:
            proxy = await super()._acquire(timeout)
            if not proxy._dsql_stale():
                return proxy
            proxy.terminate()
            await self.release(proxy)

    def _dsql_lease(self) -> PoolLease:
        # The pool hands out proxies, and takes the connection away from one when it is lost.
        return PoolLease(self.acquire, self.release, lambda proxy: proxy._con)

    def _dsql_loop(self, retry: RetryPolicy | bool | None, idempotent: bool) -> RetryLoop:
        policy = self._dsql_policy if retry is None else policy_of(retry)
        return RetryLoop(policy, ERRORS, idempotent=idempotent, reconnects=True)


def create_pool(
    dsn: str | None = None,
    *,
    retry: RetryPolicy | bool | None = None,
    max_lifetime: float = MAX_LIFETIME_S,
    min_size: int = 10,
    max_size: int = 10,
    max_queries: int = 50_000,
    max_inactive_connection_lifetime: float = 300.0,
    connection_class: type[Connection] = Connection,
    record_class: type = asyncpg.Record,
    loop: Any = None,
    **options: Any,
) -> Pool:
    """A :class:`Pool`, for ``await`` or ``async with``, as ``asyncpg.create_pool``.

    :param retry: the policy of the pool's connections and of ``run_transaction``; False replays nothing.
    :param max_lifetime: seconds; at most 3300, because DSQL closes connections after 3600.
    """
    if not issubclass(connection_class, Connection):
        raise TypeError("connection_class must derive from dsql_connectors.asyncpg.Connection, which brings the token")
    return Pool(
        dsn,
        retry=retry,
        max_lifetime=max_lifetime,
        min_size=min_size,
        max_size=max_size,
        max_queries=max_queries,
        max_inactive_connection_lifetime=max_inactive_connection_lifetime,
        connection_class=connection_class,
        record_class=record_class,
        loop=loop,
        **options,
    )
