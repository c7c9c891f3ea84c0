"""The decorator form of a replayed transaction."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from dsql_connectors.core.retry import RetryPolicy

P = ParamSpec("P")
R = TypeVar("R")


class Replaying(Protocol):
    """A connection or a pool."""

    @property
    def run_transaction(self) -> Callable[..., Any]: ...


def transactional(
    *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
) -> Callable[[Callable[Concatenate[Any, P], R]], Callable[Concatenate[Replaying, P], R]]:
    """Make every call of a function one replayed transaction. Its first argument is a connection in the function, and a
    connection or a pool where it is called::

        @transactional()
        def transfer(connection, source, target, amount): ...

        transfer(pool, 1, 2, 100)

    The whole function runs again after SQLSTATE 40001, OC000 or OC001, so it must have no side effects outside the
    database. Coroutine functions take asynchronous connections and pools.

    :param retry: instead of the policy of the connection or pool; False runs it once.
    :param idempotent: replay also after a connection lost during COMMIT (with a pool).
    :raises RetriesExhausted, CommitOutcomeUnknown, NestedTransactionError: as ``run_transaction``.
    """

    def decorate(function: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Replaying, P], R]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(source: Replaying, /, *args: P.args, **kwargs: P.kwargs) -> Any:
                return await source.run_transaction(
                    lambda connection: function(connection, *args, **kwargs), retry=retry, idempotent=idempotent
                )

            return cast("Callable[Concatenate[Replaying, P], R]", call_async)

        @functools.wraps(function)
        def call(source: Replaying, /, *args: P.args, **kwargs: P.kwargs) -> R:
            result: R = source.run_transaction(
                lambda connection: function(connection, *args, **kwargs), retry=retry, idempotent=idempotent
            )
            return result

        return call

    return decorate
