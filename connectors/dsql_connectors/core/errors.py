"""Every error that the connectors raise themselves, and how each becomes an error of the driver in use.

    ConnectorError
    ├── SettingsError                an InterfaceError of the driver (and a ValueError)
    │   ├── ConninfoError            a URL or connection string that can't be read
    │   ├── UnknownParameterError    a parameter that nobody knows; names the nearest one
    │   ├── HostError                a host that names no cluster
    │   └── MissingRegionError       no region; says what was looked at
    ├── TransactionUseError          an InterfaceError: a retried block that can't be replayed as it is written
    │   ├── NestedTransactionError   … because it is inside another transaction, or ends its own
    │   └── FailedTransactionError   … because it swallowed the error that failed its transaction
    ├── CredentialsError             an OperationalError: no usable AWS credentials; says which sources were tried
    ├── ConnectFailedError           an OperationalError: the driver could not connect, for a reason of its own
    │   ├── TokenRefusedError        … because the cluster refused the token
    │   ├── SessionRefusedError      … because it refused the database, a session parameter, or to go without TLS
    │   ├── CertificateError         … because the server's certificate was not accepted
    │   └── EndpointUnreachableError … because nothing answers at that host and port
    ├── CommitOutcomeUnknown         an OperationalError: the connection was lost during COMMIT
    └── RetriesExhausted             the driver's serialization failure (SQLSTATE 40001), with the history

What reaches an application is always an instance of one of these *and* of the driver's class, so that both
``except dsql_connectors.errors.TokenRefusedError`` and ``except psycopg.OperationalError`` catch it.
No message ever holds a token, a password or a secret key.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, NamedTuple

SERIALIZATION_FAILURE = "40001"


class ConnectorError(Exception):
    """Base of all errors that the connectors raise themselves."""

    def __str__(self) -> str:
        text = self.__dict__.get("text")
        return text if isinstance(text, str) else str(self.args[0] if self.args else "")


class SettingsError(ConnectorError, ValueError):
    """The URL, the parameters or the environment don't say how to connect."""


class ConninfoError(SettingsError):
    """A URL or connection string that can't be read."""


class UnknownParameterError(SettingsError):
    """A connection parameter that neither the connector nor the driver knows."""


class HostError(SettingsError):
    """A host that names no cluster to sign for."""


class MissingRegionError(SettingsError):
    """No AWS region in the arguments, the host, the environment or the profile."""


class TransactionUseError(ConnectorError):
    """A retried transaction is used in a way that can't be replayed."""


class FailedTransactionError(TransactionUseError):
    """The block ended without an error, but a statement in it had failed: there is nothing to commit."""


class NestedTransactionError(TransactionUseError):
    """A retried transaction was begun inside another transaction, or its block tried to end it itself."""


class CredentialsError(ConnectorError):
    """No usable AWS credentials."""


class ConnectFailedError(ConnectorError):
    """The driver could not connect. Where there is no subclass for the reason, the text is the driver's or server's."""


class TokenRefusedError(ConnectFailedError):
    """The cluster refused the authentication token."""


class SessionRefusedError(ConnectFailedError):
    """The cluster refused the database, a session parameter, or a connection without TLS or server name."""


class CertificateError(ConnectFailedError):
    """The server's TLS certificate was not accepted."""


class EndpointUnreachableError(ConnectFailedError):
    """Nothing answers at the host and port."""


class CommitOutcomeUnknown(ConnectorError):
    """The connection was lost during COMMIT: the transaction may or may not have been committed.

    It is never replayed silently. Look for the transaction's effect, or declare the block ``idempotent=True``.
    """


class AttemptFailure(NamedTuple):
    """One attempt that lost."""

    number: int  #: counts from 1
    sqlstate: str  #: 40001, OC000 or OC001
    message: str  #: first line of the server's message
    elapsed_s: float  #: since the first attempt began
    delay_s: float  #: waited before the next attempt; 0.0 after the last one


class RetriesExhausted(ConnectorError):
    """Every attempt that the retry policy allows lost to a concurrent transaction; nothing was committed."""

    history: Sequence[AttemptFailure] = ()
    sqlstate = SERIALIZATION_FAILURE
    pgcode = SERIALIZATION_FAILURE  #: psycopg2's name for it

    @property
    def attempts(self) -> int:
        """How many times the block or statement ran."""
        return len(self.history)


_INTERFACE_KINDS = (SettingsError, TransactionUseError)


def first_line(error: BaseException) -> str:
    """The message's first line; the class's name where there is no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class DriverErrors:
    """The classes of one driver under which the connector's errors are raised."""

    def __init__(
        self,
        *,
        operational: type[Exception],
        interface: type[Exception],
        serialization: type[Exception],
    ) -> None:
        self.operational = operational
        self.interface = interface
        self.serialization = serialization
        self._bound: dict[tuple[type[ConnectorError], type[BaseException]], type[ConnectorError]] = {}

    def translate(self, error: ConnectorError) -> ConnectorError:
        """The same error as an instance of the driver's class too; its cause and attributes stay."""
        kind = type(error)
        base = self._driver_class(kind)
        if isinstance(error, base):
            return error
        return self._build(kind, base, str(error), error.__cause__, vars(error), (str(error),))

    def wrap(self, kind: type[ConnectorError], text: str, error: BaseException) -> ConnectorError:
        """``error`` of the driver as a ``kind``, still an instance of its own class, with ``text`` as message."""
        base = type(error)
        if issubclass(kind, _INTERFACE_KINDS) or not issubclass(base, self._driver_class(kind)):
            base = self._joined(self._driver_class(kind), base)
        # OSError and ssl.SSLError carry (errno, message): callers read both.
        arguments = error.args if error.args and not isinstance(error.args[0], str) else (text,)
        return self._build(kind, base, text, error, vars(error), arguments)

    def _driver_class(self, kind: type[ConnectorError]) -> type[Exception]:
        if issubclass(kind, _INTERFACE_KINDS):
            return self.interface
        if issubclass(kind, RetriesExhausted):
            return self.serialization
        return self.operational

    def _joined(self, driver_class: type[Exception], other: type[BaseException]) -> type[BaseException]:
        # asyncpg lets OSError and ssl.SSLError through; an application may catch either class.
        if issubclass(driver_class, other):
            return driver_class
        return types.new_class(other.__name__, (driver_class, other), {}, _no_body)

    def _build(
        self,
        kind: type[ConnectorError],
        base: type[BaseException],
        text: str,
        cause: BaseException | None,
        attributes: dict[str, Any],
        arguments: tuple[Any, ...],
    ) -> ConnectorError:
        bound = self._bound.get((kind, base))
        if bound is None:
            bound = types.new_class(kind.__name__, (kind, base), {}, _no_body)
            bound.__module__ = kind.__module__
            bound.__qualname__ = kind.__qualname__
            self._bound[kind, base] = bound
        built = bound(*arguments)
        base.__init__(built, *arguments)  # ValueError comes first among the bases and would keep the driver's from it
        built.__dict__.update(attributes)
        built.__dict__["text"] = text
        built.__cause__ = cause
        return built


def _no_body(namespace: dict[str, Any]) -> None:
    """A class that adds nothing to its bases. asyncpg's metaclass asks where it comes from before it exists."""
    namespace["__module__"] = __name__
