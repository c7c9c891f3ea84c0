"""Why a connect failed, told from what libpq, asyncpg and the server say, and what to do about it."""

from __future__ import annotations

from dsql_connectors.core.errors import (
    CertificateError,
    ConnectFailedError,
    ConnectorError,
    DriverErrors,
    EndpointUnreachableError,
    SessionRefusedError,
    SettingsError,
    TokenRefusedError,
)
from dsql_connectors.core.settings import Settings

#: Parts of messages, in lower case; the first that fits decides. libpq gives its own failures no SQLSTATE.
_SIGNS: tuple[tuple[str, type[ConnectorError]], ...] = (
    ("access denied", TokenRefusedError),
    ("iam authentication failed", TokenRefusedError),
    ("password authentication failed", TokenRefusedError),
    ("certificate verify failed", CertificateError),
    ("does not match host name", CertificateError),
    ("hostname mismatch", CertificateError),
    ("root certificate file", CertificateError),
    ("could not load system root certificate", CertificateError),
    ("connection refused", EndpointUnreachableError),
    ("connect call failed", EndpointUnreachableError),
    ("could not translate host name", EndpointUnreachableError),
    ("name or service not known", EndpointUnreachableError),
    ("failed to resolve host", EndpointUnreachableError),
    ("no route to host", EndpointUnreachableError),
    ("network is unreachable", EndpointUnreachableError),
    ("connection timeout expired", EndpointUnreachableError),
    ("timeout expired", EndpointUnreachableError),
    ('database "', SessionRefusedError),
    ("ssl is mandatory", SessionRefusedError),
    ("sni was not received", SessionRefusedError),
    ("configuration parameter", SessionRefusedError),
    ("invalid value for parameter", SessionRefusedError),
    # What libpq and psycopg say of values that they can't read.
    (' value: "', SettingsError),
    ("for connection option", SettingsError),
    ("bad value for", SettingsError),
)


def explain_connect_failure(error: BaseException, settings: Settings, errors: DriverErrors) -> ConnectorError:
    """The driver's ``error`` with its kind and remedy, still of the driver's class."""
    text = _server_text(error)
    if isinstance(error, TimeoutError) and not text:
        text = "connection timeout expired"
    lowered = text.lower()
    kind = next((kind for sign, kind in _SIGNS if sign in lowered), ConnectFailedError)
    return errors.wrap(kind, f"{text.rstrip()}\n{_remedy(kind, settings)}", error)


def _server_text(error: BaseException) -> str:
    hint = getattr(error, "hint", None)  # asyncpg keeps the server's hint apart
    text = str(error)
    return f"{text} (HINT: {hint})" if isinstance(hint, str) and hint and hint not in text else text


def _remedy(kind: type[ConnectorError], settings: Settings) -> str:
    token = settings.token
    if kind is TokenRefusedError:
        return (
            f"The token was for user {token.user!r} ({token.action}), host {token.signing_host}, region "
            f"{token.region}, valid {token.duration_secs} s: check that the AWS identity may use "
            f"dsql:{token.action} on this cluster, that a database role other than admin is mapped to it "
            "(AWS IAM GRANT), and this machine's clock."
        )
    if kind is CertificateError:
        return (
            "Give the certificate authority that signed the server's certificate as sslrootcert=<file> (a local server "
            "prints its own), connect by the endpoint's name and give an address as hostaddr=<address>."
        )
    if kind is SessionRefusedError:
        return (
            "Aurora DSQL has one database, postgres, takes few session parameters (options, server_settings, "
            "client_encoding UTF8 only), and only connections with TLS and a server name: leave out dbname, what sets "
            f"the parameter named, sslmode=disable or sslsni=0. The database was {settings.dbname!r}."
        )
    if kind is SettingsError:
        return "Correct the connection parameter's value, in the URL, the arguments or the environment (PG…)."
    address = settings.parameters.get("hostaddr")
    reached = f"{settings.host} (hostaddr {address})" if address else settings.host
    return (
        f"Tried {reached}, port {settings.parameters.get('port', '5432 or PGPORT')}: check the endpoint's name, that "
        "the cluster is ACTIVE, and that the network lets this machine reach it."
    )
