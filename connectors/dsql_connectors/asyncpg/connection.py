"""asyncpg connections to Aurora DSQL: a signed token at each connect, verified TLS, transactions that are replayed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from dsql_connectors.asyncpg.failures import ERRORS
from dsql_connectors.core.errors import FailedTransactionError, NestedTransactionError
from dsql_connectors.core.pooling import closed_by_peer
from dsql_connectors.core.retry import DEFAULT_POLICY, RetryLoop, RetryPolicy, is_occ_error, policy_of
from dsql_connectors.core.statements import is_single_statement
from dsql_connectors.core.transaction import (
    AsyncAttempt,
    Command,
    OwnLease,
    attempts_async,
    replay_steps,
    run_async,
    statement_steps,
)

T = TypeVar("T")


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """An asyncpg connection to Aurora DSQL.

    ``execute``, ``fetch``, ``fetchrow`` and ``fetchval`` outside of a transaction run their statement again when it
    loses to a concurrent transaction (SQLSTATE 40001, OC000, OC001): such a statement has changed nothing. Everything
    else is replayed only where the application says so, by :meth:`run_transaction` or :meth:`transactions`.
    """

    _dsql_policy: RetryPolicy = DEFAULT_POLICY
    _dsql_attempt_held = False
    _dsql_connected_s = 0.0  #: on the monotonic clock
    _dsql_lifetime_s = float("inf")

    async def run_transaction(
        self,
        function: Callable[[Any], Awaitable[T]],
        *,
        retry: RetryPolicy | bool | None = None,
        idempotent: bool = False,
    ) -> T:
        """Await ``function(connection)`` in a transaction, commit, and return what it returned.

        The whole function runs again after SQLSTATE 40001, OC000 or OC001, from a statement or from COMMIT, within the
        policy's attempts and seconds. So it must have no side effects outside the database: no mail, no file, no
        mutated argument. Any other error rolls back and is raised at once.

        :param retry: instead of the connection's policy; False runs it once.
        :param idempotent: of no effect on a single connection: a lost one can't be replayed (a pool can).
        :raises RetriesExhausted: with the history, when the policy allows no further attempt.
        :raises CommitOutcomeUnknown: if the connection is lost, or a time-out strikes, during COMMIT.
        :raises NestedTransactionError: if a transaction is under way already.
        """
        loop = self._dsql_loop(retry, idempotent)
        result: T = await run_async(replay_steps(OwnLease(self), self, loop, ERRORS, function))
        return result

    def transactions(
        self, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
    ) -> AsyncIterator[AsyncAttempt[Connection]]:
        """Attempts of one transaction: ``async for attempt in connection.transactions(): async with attempt: …``.

        The ``async with`` block is what is replayed; what holds for the function of :meth:`run_transaction` holds for
        it.
        """
        return attempts_async(OwnLease(self), self, self._dsql_loop(retry, idempotent), ERRORS)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """As in asyncpg; see the class for what is run again."""
        result: str = await self._dsql_replayed(super().execute, query, args, {"timeout": timeout})
        return result

    async def fetch(self, query: str, *args: Any, **options: Any) -> list[Any]:
        """As in asyncpg; see the class for what is run again."""
        result: list[Any] = await self._dsql_replayed(super().fetch, query, args, options)
        return result

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        """As in asyncpg; see the class for what is run again."""
        return await self._dsql_replayed(super().fetchrow, query, args, options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        """As in asyncpg; see the class for what is run again."""
        return await self._dsql_replayed(super().fetchval, query, args, options)

    def transaction(self, **options: Any) -> Any:
        """An asyncpg transaction block, never replayed.

        :raises NestedTransactionError: inside a retried transaction, which ends by itself.
        """
        if self._dsql_attempt_held:
            raise ERRORS.translate(
                NestedTransactionError(
                    "transaction() inside a retried transaction would need a savepoint, which DSQL doesn't have; the "
                    "retried transaction is committed at its end and rolled back by an exception"
                )
            )
        return super().transaction(**options)

    def get_reset_query(self) -> str:
        """What a pool runs when a connection comes back: DSQL has no advisory locks and no LISTEN."""
        return "RESET ALL"

    async def _dsql_replayed(
        self, method: Callable[..., Awaitable[Any]], query: str, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        alone = not self.is_in_transaction()
        try:
            return await method(query, *args, **options)
        except asyncpg.PostgresError as error:
            if not (alone and is_occ_error(error) and is_single_statement(query)):
                raise
            lost = error
        loop = RetryLoop(self._dsql_policy, ERRORS)
        steps = statement_steps(
            loop, lost, lambda: method(query, *args, **options), lambda: not self.is_in_transaction()
        )
        return await run_async(steps)

    def _dsql_in_transaction(self) -> bool:
        return bool(self.is_in_transaction())

    def _dsql_lost(self) -> bool:
        return bool(self.is_closed())

    def _dsql_stale(self) -> bool:
        """Whether an idle connection is too old to hand out, or was closed by the server while nobody looked."""
        if time.monotonic() - self._dsql_connected_s > self._dsql_lifetime_s or self._dsql_lost():
            return True
        # A process that was frozen (AWS Lambda) finds the end of file before its event loop does.
        socket = self._transport.get_extra_info("socket")
        return socket is not None and closed_by_peer(socket.fileno())

    def _dsql_hold(self, held: bool) -> None:
        self._dsql_attempt_held = held

    async def _dsql_perform(self, command: Command) -> None:
        if command is Command.COMMIT and not self.is_in_transaction():
            raise ERRORS.translate(
                NestedTransactionError("the retried transaction was ended by a COMMIT or ROLLBACK of its own block")
            )
        status = await super().execute(command.name)
        if command is Command.COMMIT and status == "ROLLBACK":
            raise ERRORS.translate(
                FailedTransactionError(
                    "a statement in the retried transaction failed and its error was swallowed, so there was nothing "
                    "to commit; let the error leave the block"
                )
            )

    def _dsql_loop(self, retry: RetryPolicy | bool | None, idempotent: bool) -> RetryLoop:
        policy = self._dsql_policy if retry is None else policy_of(retry)
        return RetryLoop(policy, ERRORS, idempotent=idempotent)
