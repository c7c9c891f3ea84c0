"""Transactions that are replayed when they lose to a concurrent one.

::

    @retry_on_conflict
    def transfer(source, target, amount): ...

    for attempt in retrying():
        with attempt:
            ...

What is replayed runs again from its beginning, so it must have no side effects outside of the database; put those into
``transaction.on_commit``, whose hooks run once, after the attempt that was committed. Only SQLSTATE 40001, OC000 and
OC001 are replayed. An attempt is an ``atomic`` block of its own and can't stand inside another one: only what began a
transaction can replay it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar, overload

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, OperationalError, connections, transaction

from dsql_connectors.core.errors import DriverErrors, TransactionUseError
from dsql_connectors.core.leaving import leads_to_next_attempt
from dsql_connectors.core.retry import RetryLoop, RetryPolicy, policy_of
from dsql_connectors.core.transaction import Command, SyncAttempt, run

F = TypeVar("F", bound=Callable[..., Any])

#: The connectors' errors under Django's classes.
ERRORS = DriverErrors(operational=OperationalError, interface=InterfaceError, serialization=OperationalError)


class AtomicPort:
    """How an attempt begins and ends on Django's connection: by an ``atomic`` block."""

    _dsql_attempt_held = False

    def __init__(self, using: str) -> None:
        self._using = using
        self._block: Any = None
        self._hooks: list[Any] = []

    @property
    def connection(self) -> Any:
        """Of this thread."""
        return connections[self._using]

    def _dsql_hold(self, held: bool) -> None:
        self._dsql_attempt_held = held

    def _dsql_in_transaction(self) -> bool:
        if self._block is not None:
            return True
        connection = self.connection
        if not connection.in_atomic_block:
            return not connection.get_autocommit()
        isolation = getattr(connection, "isolation", None)
        return isolation is None or not isolation.in_test_case_only

    def _dsql_lost(self) -> bool:
        connection = self.connection
        return connection.connection is None or bool(connection.connection.closed)

    def _dsql_perform(self, command: Command) -> None:
        if command is Command.BEGIN:
            self._block = transaction.atomic(using=self._using)
            try:
                self._block.__enter__()
            except BaseException:
                self._block = None
                raise
            return
        block, self._block = self._block, None
        if command is Command.ROLLBACK:
            if block is not None:
                self.connection.needs_rollback = True
                block.__exit__(None, None, None)
            return
        connection = self.connection
        if not connection.savepoint_ids:
            # What a hook raises is no failure of the COMMIT before it. Inside a test case, they are the test case's.
            self._hooks, connection.run_on_commit = connection.run_on_commit, []
        rolls_back = connection.needs_rollback
        try:
            block.__exit__(None, None, None)
        except DatabaseError as error:
            self._hooks = []
            _show_sqlstate(error)
            raise
        if rolls_back:
            self._hooks = []

    def run_hooks(self) -> None:
        """Run ``on_commit`` hooks of the committed attempt."""
        hooks, self._hooks = self._hooks, []
        if hooks:
            self.connection.run_on_commit = hooks
            self.connection.run_and_clear_commit_hooks()


def _show_sqlstate(error: BaseException) -> None:
    """Give Django's error its cause's SQLSTATE: without one, it is not known what became of a COMMIT."""
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if state is not None:
        error.sqlstate = state  # type: ignore[attr-defined]


class AtomicLease:
    """Every attempt finds this thread's connection; a lost one is replaced by Django."""

    reconnects = True

    def __init__(self, port: AtomicPort) -> None:
        self._port = port

    def acquire(self) -> Any:
        """The connection, opened if it isn't."""
        connection = self._port.connection
        connection.ensure_connection()
        return connection

    def port(self, connection: Any) -> AtomicPort:
        """How to speak to it."""
        return self._port

    def release(self, connection: Any) -> None:
        """Nothing: Django keeps it."""


class Attempt(SyncAttempt[Any]):
    """``with attempt:`` is an ``atomic`` block; leave it by its end or by an exception."""

    def __init__(self, port: AtomicPort, loop: RetryLoop) -> None:
        super().__init__(AtomicLease(port), port.connection, loop, ERRORS)
        self._atomic_port = port

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        caller = sys._getframe(1)
        dealt_with = run(self._exit_steps(error, lambda: leads_to_next_attempt(caller.f_code, caller.f_lasti)))
        if not self._again:
            self._atomic_port.run_hooks()
        return dealt_with


def retrying(
    *, using: str = DEFAULT_DB_ALIAS, retry: RetryPolicy | bool | None = None, idempotent: bool = False
) -> Iterator[Attempt]:
    """Attempts of one transaction: ``for attempt in retrying(): with attempt: …``.

    :param using: the database's alias.
    :param retry: instead of the policy in ``OPTIONS["retry"]``; False runs it once.
    :param idempotent: replay also after a connection lost during COMMIT, when it is unknown whether it was committed.
    :raises RetriesExhausted: with the history, when the policy allows no further attempt; a django OperationalError.
    :raises CommitOutcomeUnknown: if the connection is lost during COMMIT; a django OperationalError.
    :raises NestedTransactionError: inside another transaction; a django InterfaceError.
    """
    if retry is None:
        retry = configured_policy(connections[using])
    port = AtomicPort(using)
    loop = RetryLoop(policy_of(retry), ERRORS, idempotent=idempotent, reconnects=True)
    proceed = True
    while proceed:
        attempt = Attempt(port, loop)
        yield attempt
        proceed = attempt._proceed()


def configured_policy(connection: Any) -> RetryPolicy | bool | None:
    """``OPTIONS["retry"]``: a RetryPolicy, its parameters, or a bool; None where it isn't set."""
    retry: Any = connection.settings_dict["OPTIONS"].get("retry")
    return RetryPolicy(**retry) if isinstance(retry, dict) else retry


@overload
def retry_on_conflict(function: F, /) -> F: ...


@overload
def retry_on_conflict(
    *, using: str = ..., retry: RetryPolicy | bool | None = ..., idempotent: bool = ...
) -> Callable[[F], F]: ...


def retry_on_conflict(
    function: Any = None,
    /,
    *,
    using: str = DEFAULT_DB_ALIAS,
    retry: RetryPolicy | bool | None = None,
    idempotent: bool = False,
) -> Any:
    """Run each call of the decorated function in a transaction, and again when that loses; see :func:`retrying`.

    :raises TransactionUseError: for a coroutine function: Django's transactions are synchronous.
    """
    if function is None:
        return functools.partial(retry_on_conflict, using=using, retry=retry, idempotent=idempotent)
    if inspect.iscoroutinefunction(function):
        raise ERRORS.translate(
            TransactionUseError(
                f"{function.__qualname__} is a coroutine function, and Django's transactions are synchronous; decorate "
                "a function and call it by sync_to_async"
            )
        )

    @functools.wraps(function)
    def replayed(*args: Any, **kwargs: Any) -> Any:
        result = None
        for attempt in retrying(using=using, retry=retry, idempotent=idempotent):
            with attempt:
                result = function(*args, **kwargs)
        return result

    return replayed
