"""Transactions of engines and sessions that are replayed when they lose to a concurrent one.

The loop is the connectors': what is replayed when, how long it waits, and what it raises when it gives up is told in
:mod:`dsql_connectors.core.retry`. What is SQLAlchemy's is here: each attempt has a connection or session of its own, so
that nothing of a lost attempt is left in the next one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar, overload

from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dsql_connectors.core.errors import ConnectorError, FailedTransactionError, NestedTransactionError
from dsql_connectors.core.retry import RetryLoop, RetryPolicy, policy_of
from dsql_connectors.core.transaction import (
    AsyncAttempt,
    Command,
    SyncAttempt,
    attempts,
    attempts_async,
    replay_steps,
    run,
    run_async,
)
from dsql_dialects.sqlalchemy.base import ERRORS, has_failed

T = TypeVar("T")
S = TypeVar("S", bound=Session)
A = TypeVar("A", bound=AsyncSession)

_HELD = "dsql_attempt_held"  #: key of a session's ``info``


@overload
def run_transaction(
    source: Engine,
    function: Callable[[Connection], T],
    *,
    retry: RetryPolicy | bool | None = None,
    idempotent: bool = False,
) -> T: ...
@overload
def run_transaction(
    source: sessionmaker[S] | scoped_session[S] | S,
    function: Callable[[S], T],
    *,
    retry: RetryPolicy | bool | None = None,
    idempotent: bool = False,
) -> T: ...
@overload
def run_transaction(
    source: AsyncEngine,
    function: Callable[[AsyncConnection], Awaitable[T]],
    *,
    retry: RetryPolicy | bool | None = None,
    idempotent: bool = False,
) -> Awaitable[T]: ...
@overload
def run_transaction(
    source: async_sessionmaker[A] | A,
    function: Callable[[A], Awaitable[T]],
    *,
    retry: RetryPolicy | bool | None = None,
    idempotent: bool = False,
) -> Awaitable[T]: ...
def run_transaction(
    source: Any,
    function: Callable[[Any], Any],
    *,
    retry: RetryPolicy | bool | None = None,
    idempotent: bool = False,
) -> Any:
    """Call ``function`` with a connection of an engine, or a session of a sessionmaker, in a transaction; commit, and
    return what it returned. With an asynchronous engine or sessionmaker, ``await`` it, with a coroutine function.

    The whole function runs again after SQLSTATE 40001, OC000 or OC001, from a statement, a flush or from COMMIT. So it
    must have no side effects outside the database, and load what it changes itself. A sessionmaker's sessions are new
    for each attempt and closed afterwards; what the function returns stays readable, as loaded. A session of the
    caller's must have nothing pending; a lost attempt's objects are expunged or expired as rollback() does it.

    :param retry: the policy, instead of the default one; False runs it once.
    :param idempotent: running the function twice does no harm: it is replayed also after a connection lost during
        COMMIT, on another connection.
    :raises RetriesExhausted: with the history, when the policy allows no further attempt.
    :raises CommitOutcomeUnknown: if the connection is lost during COMMIT, unless ``idempotent``.
    :raises NestedTransactionError: inside another transaction, or if the function ends its own.
    :raises FailedTransactionError: if the function swallowed an error of the database.
    """
    lease = _lease_of(source)
    steps = replay_steps(lease, source, _loop(retry, idempotent), ERRORS, function)
    return run_async(steps) if lease.is_async else run(steps)


@overload
def retrying(
    source: Engine, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
) -> Iterator[SyncAttempt[Connection]]: ...
@overload
def retrying(
    source: sessionmaker[S] | scoped_session[S] | S,
    *,
    retry: RetryPolicy | bool | None = None,
    idempotent: bool = False,
) -> Iterator[SyncAttempt[S]]: ...
@overload
def retrying(
    source: AsyncEngine, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
) -> AsyncIterator[AsyncAttempt[AsyncConnection]]: ...
@overload
def retrying(
    source: async_sessionmaker[A] | A, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
) -> AsyncIterator[AsyncAttempt[A]]: ...
def retrying(source: Any, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False) -> Any:
    """Attempts of one transaction: ``for attempt in retrying(Session): with attempt as session: …``.

    The ``with`` block is what is replayed; what holds for the function of :func:`run_transaction` holds for it.
    Asynchronous sources are for ``async for`` and ``async with``.
    """
    lease = _lease_of(source)
    loop = _loop(retry, idempotent)
    return attempts_async(lease, source, loop, ERRORS) if lease.is_async else attempts(lease, source, loop, ERRORS)


def _loop(retry: RetryPolicy | bool | None, idempotent: bool) -> RetryLoop:
    return RetryLoop(policy_of(retry), ERRORS, idempotent=idempotent, reconnects=True)


class _ConnectionPort:
    """How the loop speaks to an engine's connection."""

    def __init__(self, connection: Any) -> None:
        self._dsql_attempt_held = False
        self._dsql_commit_sent = False
        self._connection = connection
        self._transaction: Any = None

    def _dsql_perform(self, command: Command) -> Any:
        if command is Command.BEGIN:
            self._transaction = self._connection.begin()
            return self._transaction
        if command is Command.ROLLBACK:
            return self._connection.rollback()
        if not self._transaction.is_active:
            raise _ended()
        if has_failed(_synchronous(self._connection)):
            raise _failed()
        self._dsql_commit_sent = True
        return self._connection.commit()

    def _dsql_in_transaction(self) -> bool:
        return bool(self._connection.in_transaction())

    def _dsql_lost(self) -> bool:
        return bool(self._connection.closed or self._connection.invalidated)

    def _dsql_hold(self, held: bool) -> None:
        self._dsql_attempt_held = held


class _SessionPort:
    """How the loop speaks to a session."""

    def __init__(self, session: Any) -> None:
        self._dsql_commit_sent = False
        self._session = session
        self._begun: Any = None

    @property
    def _dsql_attempt_held(self) -> bool:
        return bool(self._session.info.get(_HELD))

    def _dsql_hold(self, held: bool) -> None:
        self._session.info[_HELD] = held

    def _dsql_in_transaction(self) -> bool:
        return bool(self._session.in_transaction())

    def _dsql_lost(self) -> bool:
        return False  # a session connects anew

    def _dsql_perform(self, command: Command) -> Any:
        if isinstance(self._session, AsyncSession):
            return self._perform_async(command)
        if command is Command.BEGIN:
            self._refuse_pending(self._session)
            self._session.begin()
            self._begun = self._session.get_transaction()
        elif command is Command.ROLLBACK:
            self._session.rollback()
        else:
            self._check_own(self._session)
            self._session.flush()
            self._check_failed(self._session)
            self._dsql_commit_sent = True
            self._session.commit()
        return None

    async def _perform_async(self, command: Command) -> None:
        session = self._session
        if command is Command.BEGIN:
            self._refuse_pending(session.sync_session)
            await session.begin()
            self._begun = session.sync_session.get_transaction()
        elif command is Command.ROLLBACK:
            await session.rollback()
        else:
            self._check_own(session.sync_session)
            await session.flush()
            await session.run_sync(self._check_failed)
            self._dsql_commit_sent = True
            await session.commit()

    def _refuse_pending(self, session: Session) -> None:
        if session.new or session.dirty or session.deleted:
            raise ERRORS.translate(
                NestedTransactionError(
                    "the session has changes from before the retried transaction, which a replay would lose; commit "
                    "them, make them in the block, or give a sessionmaker"
                )
            )

    def _check_own(self, session: Session) -> None:
        if session.get_transaction() is not self._begun:
            raise _ended()

    def _check_failed(self, session: Session) -> None:
        try:
            connection = session.connection()
        except exc.UnboundExecutionError:  # a bind for each class: there is no one connection to ask
            return
        if has_failed(connection):
            raise _failed()


def _ended() -> ConnectorError:
    return ERRORS.translate(
        NestedTransactionError(
            "the retried transaction was ended by a commit() or rollback() of its own block; it is committed at its "
            "end and rolled back by an exception; leave both to it"
        )
    )


def _failed() -> ConnectorError:
    return ERRORS.translate(
        FailedTransactionError(
            "a statement in the retried transaction failed and its error was swallowed, so there is nothing to "
            "commit; let the error leave the block"
        )
    )


def _synchronous(connection: Any) -> Connection:
    found = connection.sync_connection if isinstance(connection, AsyncConnection) else connection
    assert isinstance(found, Connection), "an attempt's connection is open"
    return found


class _Lease:
    """Where an attempt gets its connection or session."""

    reconnects = True

    def __init__(
        self,
        acquire: Callable[[], Any],
        release: Callable[[Any], Any],
        port: Callable[[Any], Any],
        *,
        is_async: bool,
    ) -> None:
        self.acquire = acquire
        self.release = release
        self.port = port
        self.is_async = is_async


def _lease_of(source: Any) -> _Lease:
    if isinstance(source, (Engine, AsyncEngine)):
        is_async = isinstance(source, AsyncEngine)
        return _Lease(source.connect, lambda c: c.close(), _ConnectionPort, is_async=is_async)
    if isinstance(source, (sessionmaker, async_sessionmaker)):
        is_async = isinstance(source, async_sessionmaker)
        # The session is closed right after its COMMIT: what it loaded stays readable instead of expiring.
        return _Lease(lambda: source(expire_on_commit=False), lambda s: s.close(), _SessionPort, is_async=is_async)
    session = source() if isinstance(source, scoped_session) else source
    if isinstance(session, (Session, AsyncSession)):
        is_async = isinstance(session, AsyncSession)
        return _Lease(lambda: session, lambda s: None, _SessionPort, is_async=is_async)
    raise TypeError(
        f"run_transaction() and retrying() take an engine, a sessionmaker or a session, not {type(source).__name__}"
    )
