"""psycopg connections to Aurora DSQL: a signed token at each connect, verified TLS, transactions that are replayed."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import psycopg
from psycopg import pq
from psycopg.rows import AsyncRowFactory, Row, RowFactory

from dsql_connectors.core import telemetry
from dsql_connectors.core.connect import explain_connect_failure
from dsql_connectors.core.credentials import AwsSession, CredentialsProvider, region_of_profile
from dsql_connectors.core.errors import (
    ConnectorError,
    FailedTransactionError,
    MissingRegionError,
    NestedTransactionError,
)
from dsql_connectors.core.retry import DEFAULT_POLICY, RetryLoop, RetryPolicy, policy_of
from dsql_connectors.core.settings import Settings, resolve
from dsql_connectors.core.tls import apply_tls_defaults
from dsql_connectors.core.tokens import generate_token, generate_token_async
from dsql_connectors.core.transaction import (
    AsyncAttempt,
    Command,
    OwnLease,
    SyncAttempt,
    attempts,
    attempts_async,
    replay_steps,
    run,
    run_async,
)
from dsql_connectors.psycopg.cursor import AsyncCursor, Cursor
from dsql_connectors.psycopg.failures import ERRORS

if TYPE_CHECKING:
    from psycopg.abc import AdaptContext, ConnParam
    from typing_extensions import Self

T = TypeVar("T")

IDLE = pq.TransactionStatus.IDLE
IN_ERROR = pq.TransactionStatus.INERROR


class ReplayableConnection:
    """What synchronous and asynchronous connections share: the retry policy and the state of the attempt under way."""

    pgconn: pq.abc.PGconn
    closed: Any
    _dsql_policy: RetryPolicy = DEFAULT_POLICY
    _dsql_attempt_held = False
    _dsql_connected_s = 0.0  #: on the monotonic clock

    def _dsql_connected(self, settings: Settings, policy: RetryPolicy) -> None:
        self._dsql_policy = policy
        self._dsql_connected_s = time.monotonic()
        telemetry.connected(settings.host)

    def _dsql_in_transaction(self) -> bool:
        return self.pgconn.transaction_status != IDLE

    def _dsql_lost(self) -> bool:
        return bool(self.closed) or self.pgconn.status != pq.ConnStatus.OK

    def _dsql_discard(self) -> None:
        """Close for good, also where ``close`` gives the connection back to its pool."""
        self.pgconn.finish()

    def _dsql_hold(self, held: bool) -> None:
        self._dsql_attempt_held = held

    def _dsql_refuse_if_held(self, what: str) -> None:
        if self._dsql_attempt_held:
            raise ERRORS.translate(
                NestedTransactionError(
                    f"{what} inside a retried transaction: it is committed at its end and rolled back by an exception; "
                    "leave both to it"
                )
            )

    def _dsql_refuse_failed(self) -> None:
        if self.pgconn.transaction_status == IN_ERROR:
            raise ERRORS.translate(
                FailedTransactionError(
                    "a statement in the retried transaction failed and its error was swallowed, so there is nothing to "
                    "commit; let the error leave the block"
                )
            )

    def _dsql_loop(self, policy: RetryPolicy | None, idempotent: bool) -> RetryLoop:
        return RetryLoop(policy or self._dsql_policy, ERRORS, idempotent=idempotent)


class Connection(ReplayableConnection, psycopg.Connection[Row]):
    """A psycopg connection to Aurora DSQL.

    A statement run by ``execute`` in autocommit mode, alone in its transaction, is run again when it loses to a
    concurrent transaction (SQLSTATE 40001, OC000, OC001): such a statement has changed nothing. Everything else is
    replayed only where the application says so, by :meth:`run_transaction` or :meth:`transactions`.
    """

    def __init__(self, pgconn: pq.abc.PGconn, *args: Any, **kwargs: Any) -> None:
        super().__init__(pgconn, *args, **kwargs)
        self.cursor_factory = Cursor

    @classmethod
    def connect(  # type: ignore[override]  # psycopg takes any keyword, but only as text or number
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: RowFactory[Row] | None = None,
        cursor_factory: type[psycopg.Cursor[Row]] | None = None,
        credentials_provider: CredentialsProvider | None = None,
        custom_credentials_provider: CredentialsProvider | None = None,
        session: AwsSession | None = None,
        retry: RetryPolicy | bool | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect with a new token. A connect is never retried.

        :param conninfo: a URL such as ``aws-dsql://admin@<endpoint>/postgres``, ``name=value`` pairs, an endpoint or a
            cluster id. ``kwargs`` override it and take the same names.
        :param credentials_provider: a botocore credential provider to ask before the default chain;
            ``custom_credentials_provider`` is another name for it.
        :param session: a botocore or boto3 session to take AWS credentials from.
        :param retry: the policy of this connection's statements and transactions; False replays nothing.
        :raises psycopg.InterfaceError: for settings that don't say how to connect.
        :raises psycopg.OperationalError: for credentials, token, certificate and network failures.
            Both are also one of :mod:`dsql_connectors.errors`, with the remedy in the text.
        """
        try:
            settings = _resolve(conninfo, kwargs, profile_region=True)
            password = settings.password or generate_token(
                settings.token, provider=credentials_provider or custom_credentials_provider, session=session
            )
        except ConnectorError as error:
            raise ERRORS.translate(error) from error.__cause__
        try:
            connection = super().connect(
                "",
                autocommit=autocommit,
                prepare_threshold=prepare_threshold,
                context=context,
                row_factory=row_factory,
                cursor_factory=cursor_factory,
                **libpq_parameters(settings, os.environ),
                password=password,
            )
        except psycopg.Error as error:
            _raise_explained(error, settings)
        connection._dsql_connected(settings, policy_of(retry))
        return connection

    def run_transaction(
        self,
        function: Callable[[Self], T],
        *,
        retry: RetryPolicy | bool | None = None,
        idempotent: bool = False,
    ) -> T:
        """Call ``function(connection)`` in a transaction, commit, and return what it returned.

        The whole function runs again after SQLSTATE 40001, OC000 or OC001, from a statement or from COMMIT, within the
        policy's attempts and seconds. So it must have no side effects outside the database: no mail, no file, no
        mutated argument. Any other error rolls back and is raised at once.

        :param retry: instead of the connection's policy; False runs it once.
        :param idempotent: of no effect on a single connection: a lost one can't be replayed (a pool can).
        :raises RetriesExhausted: with the history, when the policy allows no further attempt.
        :raises CommitOutcomeUnknown: if the connection is lost during COMMIT.
        :raises NestedTransactionError: if a transaction is under way already.
        """
        loop = self._dsql_loop(None if retry is None else policy_of(retry), idempotent)
        result: T = run(replay_steps(OwnLease(self), self, loop, ERRORS, function))
        return result

    def transactions(
        self, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
    ) -> Iterator[SyncAttempt[Self]]:
        """Attempts of one transaction: ``for attempt in connection.transactions(): with attempt: …``.

        The ``with`` block is what is replayed; what holds for the function of :meth:`run_transaction` holds for it.
        """
        loop = self._dsql_loop(None if retry is None else policy_of(retry), idempotent)
        return attempts(OwnLease(self), self, loop, ERRORS)

    def commit(self) -> None:
        """Commit, as in psycopg; never replayed.

        :raises NestedTransactionError: inside a retried transaction, which ends by itself.
        """
        self._dsql_refuse_if_held("commit()")
        super().commit()

    def rollback(self) -> None:
        """Roll back, as in psycopg; never replayed.

        :raises NestedTransactionError: inside a retried transaction, which ends by itself.
        """
        self._dsql_refuse_if_held("rollback()")
        super().rollback()

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """A psycopg transaction block, never replayed.

        :raises NestedTransactionError: inside a retried transaction, which ends by itself.
        """
        self._dsql_refuse_if_held("transaction()")
        with super().transaction(savepoint_name, force_rollback) as block:
            yield block

    def _dsql_perform(self, command: Command) -> None:
        if command is Command.COMMIT:
            self._dsql_refuse_failed()
            super().commit()
        elif command is Command.ROLLBACK:
            super().rollback()
        elif self.autocommit:  # otherwise psycopg begins with the first statement
            self.execute("BEGIN", prepare=False)


class AsyncConnection(ReplayableConnection, psycopg.AsyncConnection[Row]):
    """:class:`Connection` for asyncio. Neither signing nor refreshing credentials ever blocks the event loop."""

    def __init__(self, pgconn: pq.abc.PGconn, *args: Any, **kwargs: Any) -> None:
        super().__init__(pgconn, *args, **kwargs)
        self.cursor_factory = AsyncCursor

    @classmethod
    async def connect(  # type: ignore[override]
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[Row] | None = None,
        cursor_factory: type[psycopg.AsyncCursor[Row]] | None = None,
        credentials_provider: CredentialsProvider | None = None,
        custom_credentials_provider: CredentialsProvider | None = None,
        session: AwsSession | None = None,
        retry: RetryPolicy | bool | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect with a new token; parameters and errors are those of :meth:`Connection.connect`."""
        try:
            settings = await _resolve_async(conninfo, kwargs)
            password = settings.password or await generate_token_async(
                settings.token, provider=credentials_provider or custom_credentials_provider, session=session
            )
        except ConnectorError as error:
            raise ERRORS.translate(error) from error.__cause__
        try:
            connection = await super().connect(
                "",
                autocommit=autocommit,
                prepare_threshold=prepare_threshold,
                context=context,
                row_factory=row_factory,
                cursor_factory=cursor_factory,
                **libpq_parameters(settings, os.environ),
                password=password,
            )
        except psycopg.Error as error:
            _raise_explained(error, settings)
        connection._dsql_connected(settings, policy_of(retry))
        return connection

    async def run_transaction(
        self,
        function: Callable[[Self], Awaitable[T]],
        *,
        retry: RetryPolicy | bool | None = None,
        idempotent: bool = False,
    ) -> T:
        """:meth:`Connection.run_transaction` for a coroutine function; the same contract."""
        loop = self._dsql_loop(None if retry is None else policy_of(retry), idempotent)
        result: T = await run_async(replay_steps(OwnLease(self), self, loop, ERRORS, function))
        return result

    def transactions(
        self, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
    ) -> AsyncIterator[AsyncAttempt[Self]]:
        """``async for attempt in connection.transactions(): async with attempt: …``; see Connection.transactions."""
        loop = self._dsql_loop(None if retry is None else policy_of(retry), idempotent)
        return attempts_async(OwnLease(self), self, loop, ERRORS)

    async def commit(self) -> None:
        """Commit, as in psycopg; never replayed.

        :raises NestedTransactionError: inside a retried transaction, which ends by itself.
        """
        self._dsql_refuse_if_held("commit()")
        await super().commit()

    async def rollback(self) -> None:
        """Roll back, as in psycopg; never replayed.

        :raises NestedTransactionError: inside a retried transaction, which ends by itself.
        """
        self._dsql_refuse_if_held("rollback()")
        await super().rollback()

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[psycopg.AsyncTransaction]:
        """A psycopg transaction block, never replayed.

        :raises NestedTransactionError: inside a retried transaction, which ends by itself.
        """
        self._dsql_refuse_if_held("transaction()")
        async with super().transaction(savepoint_name, force_rollback) as block:
            yield block

    async def _dsql_perform(self, command: Command) -> None:
        if command is Command.COMMIT:
            self._dsql_refuse_failed()
            await super().commit()
        elif command is Command.ROLLBACK:
            await super().rollback()
        elif self.autocommit:
            await self.execute("BEGIN", prepare=False)


def libpq_parameters(settings: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    """All parameters for libpq but the password, with TLS verified unless the caller chose otherwise."""
    parameters = settings.libpq_parameters()
    apply_tls_defaults(parameters, libpq_version=pq.version(), environ=environ)
    return parameters


def _resolve(conninfo: str, parameters: Mapping[str, object], *, profile_region: bool) -> Settings:
    return resolve(
        conninfo, parameters, driver="psycopg", region_of_profile=region_of_profile if profile_region else None
    )


async def _resolve_async(conninfo: str, parameters: Mapping[str, object]) -> Settings:
    try:
        return _resolve(conninfo, parameters, profile_region=False)
    except MissingRegionError:
        import asyncio

        # Only the AWS configuration files are left to look at, and opening files is for a thread.
        return await asyncio.to_thread(_resolve, conninfo, parameters, profile_region=True)


def _raise_explained(error: psycopg.Error, settings: Settings) -> NoReturn:
    raise explain_connect_failure(error, settings, ERRORS) from error
