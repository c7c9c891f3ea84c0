"""Transactions that are replayed as a whole, written once for synchronous and asynchronous drivers.

Everything that decides is a generator that yields what is to be done, a :class:`Call` or a :class:`Sleep`, and is sent
the result. :func:`run` does it at once; :func:`run_async` awaits it.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextvars import ContextVar
from enum import Enum
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from dsql_connectors.core import telemetry
from dsql_connectors.core.errors import (
    CommitOutcomeUnknown,
    ConnectorError,
    DriverErrors,
    NestedTransactionError,
    TransactionUseError,
    first_line,
)
from dsql_connectors.core.leaving import leads_to_next_attempt
from dsql_connectors.core.retry import RetryLoop, conflict_sqlstate

#: The server itself doesn't know what became of a COMMIT.
STATEMENT_COMPLETION_UNKNOWN = "40003"

T = TypeVar("T")
C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)
P = TypeVar("P", bound="TransactionPort")


class Command(Enum):
    """What a connection is asked to do."""

    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"


class Call(NamedTuple):
    """Call a function of the application or the driver; await what it returns where the driver is asynchronous."""

    function: Callable[[], Any]


class Sleep(NamedTuple):
    """Wait before the next step."""

    seconds: float


Steps = Generator["Call | Sleep", Any, T]


class TransactionPort(Protocol):
    """What a driver's connection must tell and do so that its transactions can be replayed."""

    _dsql_attempt_held: bool  #: an attempt is under way, perhaps in another thread or task

    def _dsql_perform(self, command: Command) -> Any:
        """Begin, commit or roll back; awaitable where the driver is asynchronous.

        Committing a transaction in which a statement failed raises FailedTransactionError.
        """

    def _dsql_in_transaction(self) -> bool: ...

    def _dsql_lost(self) -> bool:
        """Whether the connection is gone."""

    def _dsql_hold(self, held: bool) -> None:
        """An attempt begins or is over. In between, the application's own BEGIN, COMMIT and ROLLBACK are refused."""


class Lease(Protocol[C_contra]):
    """Where an attempt gets its connection: a pool, or the connection itself."""

    @property
    def reconnects(self) -> bool:
        """Whether the next attempt gets another connection if this one is lost."""

    def acquire(self) -> Any:
        """A connection; awaitable where the driver is asynchronous."""

    def port(self, connection: C_contra) -> TransactionPort:
        """How to speak to it; still good when the connection was taken from it."""

    def release(self, connection: C_contra) -> Any:
        """Give it back."""


class OwnLease(Generic[P]):
    """Attempts on one connection that the application holds."""

    reconnects = False

    def __init__(self, connection: P) -> None:
        self._connection = connection

    def acquire(self) -> P:
        return self._connection

    def port(self, connection: P) -> TransactionPort:
        return connection

    def release(self, connection: P) -> None:
        assert connection is self._connection


#: What this thread or task replays right now, by the identity of pool or connection.
_replaying: ContextVar[frozenset[int]] = ContextVar("dsql_replaying", default=frozenset())


class Attempt(Generic[C]):
    """One attempt of a replayed transaction, as steps. Shared by the context managers and ``run_transaction``."""

    def __init__(self, lease: Lease[C], owner: object, loop: RetryLoop, errors: DriverErrors) -> None:
        self.number = loop.attempt  #: counts from 1
        self._lease = lease
        self._owner_id = id(owner)
        self._loop = loop
        self._errors = errors
        self._connection: C | None = None
        self._port: TransactionPort | None = None
        self._entered = False
        self._again = False

    def _enter_steps(self) -> Steps[C]:
        if self._entered:
            raise self._nested("an attempt was entered twice; take the next one from the loop")
        self._entered = True
        if self._owner_id in _replaying.get():
            raise self._nested(
                "a retried transaction inside another one: replaying the outer one would run what the inner one has "
                "committed a second time; pass the outer one's connection down instead"
            )
        connection: C = yield Call(self._lease.acquire)
        port = self._lease.port(connection)
        try:
            if port._dsql_attempt_held or port._dsql_in_transaction():
                raise self._nested(
                    "a retried transaction on a connection that is inside a transaction already: only what began it "
                    "can replay it; commit or roll back first, or replay the outer one"
                )
            port._dsql_hold(True)
            try:
                yield Call(lambda: port._dsql_perform(Command.BEGIN))
            except BaseException:
                port._dsql_hold(False)
                raise
        except BaseException:
            yield Call(lambda: self._lease.release(connection))
            raise
        self._connection, self._port = connection, port
        _replaying.set(_replaying.get() | {self._owner_id})
        return connection

    def _exit_steps(self, error: BaseException | None, replayable: Callable[[], bool] = lambda: True) -> Steps[bool]:
        """Commit, or roll back; wait if it is to be replayed. Answers whether ``error`` is dealt with.

        :param replayable: asked when a COMMIT has lost: whether another attempt can follow.
        """
        connection, port = self._connection, self._port
        assert connection is not None and port is not None, "an attempt is left that was never entered"
        self._connection = self._port = None
        committing = error is None
        try:
            yield from self._end_steps(port, error)
        except Exception as failure:
            error = failure
        finally:
            port._dsql_hold(False)
            _replaying.set(_replaying.get() - {self._owner_id})
            yield Call(lambda: self._lease.release(connection))
        if not isinstance(error, Exception):
            return False
        delay_s = self._loop.delay_s_after(error)
        if delay_s is not None:
            if committing and not replayable():
                raise self._left(error) from error
            self._again = True
            yield Sleep(delay_s)
            return True
        if committing:
            raise error
        return False

    def _end_steps(self, port: TransactionPort, error: BaseException | None) -> Steps[None]:
        if error is None:
            try:
                yield Call(lambda: port._dsql_perform(Command.COMMIT))
            except Exception as failure:
                yield from self._rollback_steps(port)
                # An ORM's port may fail in front of the COMMIT, when it writes what is pending.
                sent = getattr(port, "_dsql_commit_sent", True)
                if sent and _is_outcome_unknown(failure, port._dsql_lost()):
                    raise self._outcome_unknown(failure) from failure
                raise
            telemetry.counters.add("commits")
        else:
            yield from self._rollback_steps(port)

    def _rollback_steps(self, port: TransactionPort) -> Steps[None]:
        if port._dsql_lost() or not port._dsql_in_transaction():
            return
        try:
            yield Call(lambda: port._dsql_perform(Command.ROLLBACK))
        except Exception as failure:
            # What made us roll back matters more, and a connection that can't is closed by its pool.
            telemetry.logger.debug("rollback failed: %s", failure)

    def _outcome_unknown(self, failure: Exception) -> Exception:
        telemetry.counters.add("commit_outcome_unknown")
        telemetry.emit("dsql.commit_outcome_unknown", {"db.system.name": "aurora-dsql", "dsql.attempt": self.number})
        return self._errors.translate(
            CommitOutcomeUnknown(
                "the connection was lost, or timed out, during COMMIT, so the transaction may or may not have been "
                f"committed ({first_line(failure)}); look for its effect "
                "before running it again, or run it through a pool and declare it idempotent=True to have it replayed"
            )
        )

    def _left(self, error: Exception) -> Exception:
        return self._errors.translate(
            TransactionUseError(
                f"the transaction lost ({first_line(error)}) and can't be replayed, because its 'with attempt:' block "
                "was left by return or break; nothing was committed; keep the result in a variable and return after "
                "the loop, or use run_transaction"
            )
        )

    def _nested(self, text: str) -> Exception:
        return self._errors.translate(NestedTransactionError(text))

    def _proceed(self) -> bool:
        """Whether the loop goes on after this attempt."""
        if not self._entered:
            raise self._nested("an attempt was not entered; write 'for attempt in …transactions(): with attempt: …'")
        again, self._again = self._again, False
        return again


def _is_outcome_unknown(failure: Exception, lost: bool) -> bool:
    """Whether a failed COMMIT may have committed: the server didn't answer, or not to the question."""
    if isinstance(failure, ConnectorError) or conflict_sqlstate(failure) is not None:
        return False
    original = getattr(failure, "orig", None) or failure  # SQLAlchemy wraps the driver's
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    return lost or state in (None, STATEMENT_COMPLETION_UNKNOWN)


class SyncAttempt(Attempt[C]):
    """``with attempt as connection:`` commits at its end; an error in it rolls back, a lost transaction is replayed.

    Leave the block by its end: a ``return`` or ``break`` in it can't be undone when COMMIT loses, which then raises
    TransactionUseError.
    """

    def __enter__(self) -> C:
        return run(self._enter_steps())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        caller = sys._getframe(1)
        return run(self._exit_steps(error, lambda: leads_to_next_attempt(caller.f_code, caller.f_lasti)))


class AsyncAttempt(Attempt[C]):
    """``async with attempt as connection:`` as :class:`SyncAttempt`."""

    async def __aenter__(self) -> C:
        return await run_async(self._enter_steps())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        caller = sys._getframe(1)
        code, offset = caller.f_code, caller.f_lasti
        return await run_async(self._exit_steps(error, lambda: leads_to_next_attempt(code, offset)))


def attempts(lease: Lease[C], owner: object, loop: RetryLoop, errors: DriverErrors) -> Iterator[SyncAttempt[C]]:
    """Attempts until one commits or fails for good. The loop's body must consist of ``with attempt:``."""
    proceed = True
    while proceed:
        attempt = SyncAttempt(lease, owner, loop, errors)
        yield attempt
        proceed = attempt._proceed()


async def attempts_async(
    lease: Lease[C], owner: object, loop: RetryLoop, errors: DriverErrors
) -> AsyncIterator[AsyncAttempt[C]]:
    """As :func:`attempts`, for ``async for``."""
    proceed = True
    while proceed:
        attempt = AsyncAttempt(lease, owner, loop, errors)
        yield attempt
        proceed = attempt._proceed()


def replay_steps(
    lease: Lease[C], owner: object, loop: RetryLoop, errors: DriverErrors, function: Callable[[C], Any]
) -> Steps[Any]:
    """Run ``function(connection)`` in a transaction, again and again until it commits or fails for good."""
    while True:
        attempt = Attempt(lease, owner, loop, errors)
        connection = yield from attempt._enter_steps()
        result = None
        try:
            result = yield Call(lambda connection=connection: function(connection))  # type: ignore[misc]
        except BaseException as error:
            if not (yield from attempt._exit_steps(error)):
                raise
        else:
            yield from attempt._exit_steps(None)
        if not attempt._proceed():
            return result


def statement_steps(
    loop: RetryLoop, error: Exception, execute: Callable[[], Any], replayable: Callable[[], bool]
) -> Steps[Any]:
    """After ``error``: run a statement that is a transaction of its own again, until it no longer loses.

    :param replayable: asked after each failure: whether the statement was alone in its transaction.
    """
    while True:
        delay_s = loop.delay_s_after(error) if replayable() else None
        if delay_s is None:
            raise error
        yield Sleep(delay_s)
        try:
            return (yield Call(execute))
        except Exception as failure:
            error = failure


def run(steps: Steps[T], sleep: Callable[[float], object] = time.sleep) -> T:
    """Do the steps in this thread."""
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                step = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as finished:
                result: T = finished.value
                return result
            value = error = None
            try:
                value = step.function() if isinstance(step, Call) else sleep(step.seconds)
            except BaseException as failure:
                error = failure
            if inspect.iscoroutine(value):
                value.close()
                error = TypeError("a coroutine function in a synchronous transaction; use an asynchronous connection")
    finally:
        error = None  # its traceback holds this frame


async def run_async(steps: Steps[T], sleep: Callable[[float], Any] | None = None) -> T:
    """Do the steps in this task."""
    if sleep is None:
        import asyncio

        sleep = asyncio.sleep
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                step = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as finished:
                result: T = finished.value
                return result
            value = error = None
            try:
                value = step.function() if isinstance(step, Call) else sleep(step.seconds)
                if inspect.isawaitable(value):
                    value = await value
            except BaseException as failure:
                error = failure
    finally:
        error = None  # its traceback holds this frame
