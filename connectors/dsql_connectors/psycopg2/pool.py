"""psycopg2 pools for Aurora DSQL: connections replaced before they are too old, transactions that are replayed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg2.pool
from psycopg2.pool import PoolError

from dsql_connectors.core.pooling import MAX_LIFETIME_S, PoolLease, bounded_lifetime_s, lifetime_s
from dsql_connectors.core.retry import RetryLoop, RetryPolicy, policy_of
from dsql_connectors.core.transaction import SyncAttempt, attempts, replay_steps, run
from dsql_connectors.psycopg2.connection import connect
from dsql_connectors.psycopg2.failures import ERRORS

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class _ReplayingPool:
    """Mixed into psycopg2's pools. As they do, a pool raises PoolError when all its connections are taken."""

    _args: tuple[Any, ...]
    _kwargs: dict[str, Any]
    _pool: list[Any]
    _used: dict[Any, Any]
    _rused: dict[int, Any]

    def __init__(
        self,
        minconn: int,
        maxconn: int,
        *args: Any,
        retry: RetryPolicy | bool | None = None,
        max_lifetime: float = MAX_LIFETIME_S,
        **kwargs: Any,
    ) -> None:
        """As psycopg2's; ``args`` and ``kwargs`` are those of :func:`dsql_connectors.psycopg2.connect`.

        :param retry: the policy of the pool's connections and of :meth:`run_transaction`; False replays nothing.
        :param max_lifetime: seconds; at most 3300, because DSQL closes connections after 3600.
        """
        self._dsql_policy = policy_of(retry)
        self._dsql_max_lifetime_s = bounded_lifetime_s(max_lifetime)
        super().__init__(minconn, maxconn, *args, retry=retry, **kwargs)  # type: ignore[call-arg]

    def _connect(self, key: Any = None) -> Any:
        # psycopg2's pools call psycopg2.connect here, and have no other place to say what to call.
        connection = connect(*self._args, **self._kwargs)
        connection._dsql_lifetime_s = lifetime_s(self._dsql_max_lifetime_s, random.random())  # noqa: S311
        if key is None:
            self._pool.append(connection)
        else:
            self._used[key] = connection
            self._rused[id(connection)] = key
        return connection

    def getconn(self, key: Any = None) -> Any:
        """A live connection: one that is over its lifetime or was closed by the server is replaced."""
        while True:
            connection = super().getconn(key)  # type: ignore[misc]
            in_use = connection._dsql_in_transaction() and not connection._dsql_lost()
            if in_use or not connection._dsql_stale(connection._dsql_lifetime_s):
                return connection
            self.putconn(connection, key, close=True)

    def putconn(self, conn: Any = None, key: Any = None, close: bool = False) -> None:
        """Give a connection back; see psycopg2."""
        super().putconn(conn, key, close)  # type: ignore[misc]

    def run_transaction(
        self,
        function: Callable[[Any], T],
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
        :raises PoolError: if all connections are taken.
        """
        result: T = run(replay_steps(self._dsql_lease(), self, self._dsql_loop(retry, idempotent), ERRORS, function))
        return result

    def transactions(
        self, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
    ) -> Iterator[SyncAttempt[Any]]:
        """``for attempt in pool.transactions(): with attempt as connection: …``; the contract of run_transaction."""
        return attempts(self._dsql_lease(), self, self._dsql_loop(retry, idempotent), ERRORS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.closeall()  # type: ignore[attr-defined]

    def _dsql_lease(self) -> PoolLease:
        return PoolLease(self.getconn, self.putconn)

    def _dsql_loop(self, retry: RetryPolicy | bool | None, idempotent: bool) -> RetryLoop:
        policy = self._dsql_policy if retry is None else policy_of(retry)
        return RetryLoop(policy, ERRORS, idempotent=idempotent, reconnects=True)


class SimpleConnectionPool(_ReplayingPool, psycopg2.pool.SimpleConnectionPool):  # type: ignore[misc]
    """psycopg2's pool for one thread; ``with pool:`` closes all its connections at the end."""


class ThreadedConnectionPool(_ReplayingPool, psycopg2.pool.ThreadedConnectionPool):  # type: ignore[misc]
    """psycopg2's pool for several threads; ``with pool:`` closes all its connections at the end."""


__all__ = ["PoolError", "SimpleConnectionPool", "ThreadedConnectionPool"]
