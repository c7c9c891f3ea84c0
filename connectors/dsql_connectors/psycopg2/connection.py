"""psycopg2 connections to Aurora DSQL: a signed token at each connect, verified TLS, transactions that are replayed."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg2
from psycopg2 import extensions

from dsql_connectors.core import telemetry
from dsql_connectors.core.connect import explain_connect_failure
from dsql_connectors.core.credentials import AwsSession, CredentialsProvider, region_of_profile
from dsql_connectors.core.errors import ConnectorError, FailedTransactionError, NestedTransactionError
from dsql_connectors.core.pooling import closed_by_peer
from dsql_connectors.core.retry import DEFAULT_POLICY, RetryLoop, RetryPolicy, policy_of
from dsql_connectors.core.settings import resolve
from dsql_connectors.core.tls import apply_tls_defaults
from dsql_connectors.core.tokens import generate_token
from dsql_connectors.core.transaction import Command, OwnLease, SyncAttempt, attempts, replay_steps, run
from dsql_connectors.psycopg2.cursor import Cursor, replaying
from dsql_connectors.psycopg2.failures import ERRORS

T = TypeVar("T")


class ReplayableConnection:
    """Mixed into psycopg2's connection classes.

    A statement run by ``execute`` in autocommit mode, alone in its transaction, is run again when it loses to a
    concurrent transaction (SQLSTATE 40001, OC000, OC001): such a statement has changed nothing. Everything else is
    replayed only where the application says so, by :meth:`run_transaction` or :meth:`transactions`.
    """

    autocommit: Any
    closed: int  #: 0 while open
    cursor_factory: Any
    _dsql_policy: RetryPolicy = DEFAULT_POLICY
    _dsql_attempt_held = False
    _dsql_restore_autocommit = False
    _dsql_connected_s = 0.0  #: on the monotonic clock

    def run_transaction(
        self,
        function: Callable[[Any], T],
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
        loop = self._dsql_loop(retry, idempotent)
        result: T = run(replay_steps(OwnLease(self), self, loop, ERRORS, function))
        return result

    def transactions(
        self, *, retry: RetryPolicy | bool | None = None, idempotent: bool = False
    ) -> Iterator[SyncAttempt[ReplayableConnection]]:
        """Attempts of one transaction: ``for attempt in connection.transactions(): with attempt: …``.

        The ``with`` block is what is replayed; what holds for the function of :meth:`run_transaction` holds for it.
        """
        return attempts(OwnLease(self), self, self._dsql_loop(retry, idempotent), ERRORS)

    def cursor(self, name: str | None = None, cursor_factory: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in psycopg2; cursors without a name replay lost autocommit statements."""
        factory = cursor_factory or self.cursor_factory or Cursor
        if name is None and isinstance(factory, type):
            factory = replaying(factory)
        return super().cursor(name, factory, *args, **kwargs)  # type: ignore[misc]

    def commit(self) -> None:
        """Commit, as in psycopg2; never replayed.

        :raises NestedTransactionError: inside a retried transaction, which ends by itself.
        """
        self._dsql_refuse_if_held("commit()")
        super().commit()  # type: ignore[misc]

    def rollback(self) -> None:
        """Roll back, as in psycopg2; never replayed.

        :raises NestedTransactionError: inside a retried transaction, which ends by itself.
        """
        self._dsql_refuse_if_held("rollback()")
        super().rollback()  # type: ignore[misc]

    def _dsql_status(self) -> int:
        return int(super().get_transaction_status())  # type: ignore[misc]

    def _dsql_in_transaction(self) -> bool:
        idle: int = extensions.TRANSACTION_STATUS_IDLE
        return self._dsql_status() != idle

    def _dsql_lost(self) -> bool:
        unknown: int = extensions.TRANSACTION_STATUS_UNKNOWN
        return self.closed != 0 or self._dsql_status() == unknown

    def _dsql_stale(self, max_lifetime_s: float) -> bool:
        """Whether an idle connection is too old to hand out, or was closed by the server while nobody looked."""
        if time.monotonic() - self._dsql_connected_s > max_lifetime_s or self._dsql_lost():
            return True
        file_descriptor: int = super().fileno()  # type: ignore[misc]
        return closed_by_peer(file_descriptor)

    def _dsql_hold(self, held: bool) -> None:
        self._dsql_attempt_held = held
        if not held and self._dsql_restore_autocommit:
            self._dsql_restore_autocommit = False
            if not self._dsql_lost():
                self.autocommit = True

    def _dsql_perform(self, command: Command) -> None:
        if command is Command.BEGIN:
            # psycopg2 itself begins with the first statement; in autocommit mode its commit() would do nothing.
            if self.autocommit:
                self.autocommit = False
                self._dsql_restore_autocommit = True
        elif command is Command.COMMIT:
            if self._dsql_status() == extensions.TRANSACTION_STATUS_INERROR:
                raise ERRORS.translate(
                    FailedTransactionError(
                        "a statement in the retried transaction failed and its error was swallowed, so there is "
                        "nothing to commit; let the error leave the block"
                    )
                )
            super().commit()  # type: ignore[misc]
        else:
            super().rollback()  # type: ignore[misc]

    def _dsql_refuse_if_held(self, what: str) -> None:
        if self._dsql_attempt_held:
            raise ERRORS.translate(
                NestedTransactionError(
                    f"{what} inside a retried transaction: it is committed at its end and rolled back by an exception; "
                    "leave both to it"
                )
            )

    def _dsql_loop(self, retry: RetryPolicy | bool | None, idempotent: bool) -> RetryLoop:
        policy = self._dsql_policy if retry is None else policy_of(retry)
        return RetryLoop(policy, ERRORS, idempotent=idempotent)


class Connection(ReplayableConnection, extensions.connection):  # type: ignore[misc]
    """A psycopg2 connection to Aurora DSQL."""


@functools.lru_cache(maxsize=64)
def _replayable(factory: Any) -> Any:
    if factory is None:
        return Connection
    if not isinstance(factory, type) or issubclass(factory, ReplayableConnection):
        return factory
    return type(factory.__name__, (ReplayableConnection, factory), {"__module__": factory.__module__})


def connect(
    dsn: str | None = None,
    connection_factory: Any = None,
    cursor_factory: Any = None,
    *,
    credentials_provider: CredentialsProvider | None = None,
    custom_credentials_provider: CredentialsProvider | None = None,
    session: AwsSession | None = None,
    retry: RetryPolicy | bool | None = None,
    **kwargs: Any,
) -> Connection:
    """Connect with a new token. A connect is never retried. The result is a :class:`Connection`, or derives from
    ``connection_factory`` if that is given, and from :class:`ReplayableConnection`.

    :param dsn: a URL such as ``aws-dsql://admin@<endpoint>/postgres``, ``name=value`` pairs, an endpoint or a cluster
        id. ``kwargs`` override it and take the same names.
    :param credentials_provider: a botocore credential provider to ask before the default chain;
        ``custom_credentials_provider`` is another name for it.
    :param session: a botocore or boto3 session to take AWS credentials from.
    :param retry: the policy of this connection's statements and transactions; False replays nothing.
    :raises psycopg2.InterfaceError: for settings that don't say how to connect.
    :raises psycopg2.OperationalError: for credentials, token, certificate and network failures.
        Both are also one of :mod:`dsql_connectors.errors`, with the remedy in the text.
    """
    asynchronous = {name: kwargs.pop(name) for name in ("async", "async_") if name in kwargs}
    try:
        settings = resolve(dsn or "", kwargs, driver="psycopg2", region_of_profile=region_of_profile)
        password = settings.password or generate_token(
            settings.token, provider=credentials_provider or custom_credentials_provider, session=session
        )
    except ConnectorError as error:
        raise ERRORS.translate(error) from error.__cause__
    parameters = settings.libpq_parameters()
    apply_tls_defaults(parameters, libpq_version=extensions.libpq_version(), environ=os.environ)
    try:
        connection = psycopg2.connect(
            connection_factory=_replayable(connection_factory),
            cursor_factory=cursor_factory,
            **asynchronous,
            **parameters,
            password=password,
        )
    except psycopg2.Error as error:
        raise explain_connect_failure(error, settings, ERRORS) from error
    connection._dsql_policy = policy_of(retry)
    connection._dsql_connected_s = time.monotonic()
    telemetry.connected(settings.host)
    connected: Connection = connection
    return connected
