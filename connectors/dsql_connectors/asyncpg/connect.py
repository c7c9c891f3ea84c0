"""Connecting with asyncpg: libpq's parameters in asyncpg's terms."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

import asyncpg

from dsql_connectors.asyncpg.connection import Connection
from dsql_connectors.asyncpg.failures import ERRORS
from dsql_connectors.asyncpg.refused import let_go
from dsql_connectors.asyncpg.tls import TlsChoice
from dsql_connectors.core import telemetry
from dsql_connectors.core.connect import explain_connect_failure
from dsql_connectors.core.credentials import AwsSession, CredentialsProvider, region_of_profile
from dsql_connectors.core.errors import ConnectorError, MissingRegionError, SettingsError
from dsql_connectors.core.retry import RetryPolicy, policy_of
from dsql_connectors.core.settings import Settings, resolve
from dsql_connectors.core.tokens import generate_token_async

#: asyncpg's own parameters, and what a URL's text becomes.
_CONVERSIONS: dict[str, Any] = {
    "timeout": float,
    "command_timeout": float,
    "statement_cache_size": int,
    "max_cached_statement_lifetime": int,
    "max_cacheable_statement_size": int,
}
DRIVER_PARAMETERS = frozenset({*_CONVERSIONS, "loop", "ssl", "direct_tls", "record_class", "server_settings"})

#: libpq's parameters that asyncpg takes by the same name.
_SAME_NAME = frozenset({"port", "target_session_attrs", "krbsrvname", "gsslib"})
_TRANSLATED = frozenset(
    {"hostaddr", "application_name", "options", "connect_timeout", "sslmode", "sslrootcert", "sslnegotiation"}
)
#: Without effect on a connection to DSQL by asyncpg.
_IGNORED = frozenset({"gssencmode", "fallback_application_name", "passfile", "sslsni", "client_encoding"})

_CONNECT_FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of which target_session_attrs that nobody has is one
    OSError,
    asyncio.TimeoutError,
)


async def connect(
    dsn: str | None = None,
    *,
    connection_class: type[Connection] = Connection,
    credentials_provider: CredentialsProvider | None = None,
    custom_credentials_provider: CredentialsProvider | None = None,
    session: AwsSession | None = None,
    retry: RetryPolicy | bool | None = None,
    **kwargs: Any,
) -> Connection:
    """Connect with a new token. A connect is never retried. Nothing in it blocks the event loop.

    :param dsn: a URL such as ``aws-dsql://admin@<endpoint>/postgres``, ``name=value`` pairs, an endpoint or a cluster
        id. ``kwargs`` override it; they are libpq's parameters and those of ``asyncpg.connect``.
    :param credentials_provider: a botocore credential provider to ask before the default chain;
        ``custom_credentials_provider`` is another name for it.
    :param session: a botocore or boto3 session to take AWS credentials from.
    :param retry: the policy of this connection's statements and transactions; False replays nothing.
    :raises asyncpg.InterfaceError: for settings that don't say how to connect.
    :raises asyncpg.PostgresConnectionError: for credentials, token, certificate and network failures.
        Both are also one of :mod:`dsql_connectors.errors`, with the remedy in the text.
    """
    try:
        settings = await _resolve(dsn or "", kwargs)
        arguments = await _driver_arguments(settings, os.environ)
        password = settings.password or await generate_token_async(
            settings.token, provider=credentials_provider or custom_credentials_provider, session=session
        )
    except ConnectorError as error:
        raise ERRORS.translate(error) from error.__cause__
    try:
        connection = await asyncpg.connect(connection_class=connection_class, password=password, **arguments)
    except _CONNECT_FAILURES as error:
        await let_go(error)
        raise explain_connect_failure(error, settings, ERRORS) from error
    except asyncio.CancelledError as cancelled:
        await let_go(cancelled)
        raise
    connection._dsql_policy = policy_of(retry)
    connection._dsql_connected_s = time.monotonic()
    telemetry.connected(settings.host)
    connected: Connection = connection
    return connected


async def _resolve(dsn: str, parameters: Mapping[str, object]) -> Settings:
    try:
        return resolve(dsn, parameters, driver="asyncpg", driver_parameters=DRIVER_PARAMETERS)
    except MissingRegionError:
        # Only the AWS configuration files are left to look at, and opening files is for a thread.
        return await asyncio.to_thread(
            resolve,
            dsn,
            parameters,
            driver="asyncpg",
            driver_parameters=DRIVER_PARAMETERS,
            region_of_profile=region_of_profile,
        )


async def _driver_arguments(settings: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    parameters = settings.parameters
    unsupported = sorted(set(parameters) - _SAME_NAME - _TRANSLATED - _IGNORED)
    if unsupported:
        raise SettingsError(f"asyncpg has nothing like libpq's {', '.join(unsupported)}; leave it out")
    arguments: dict[str, Any] = {name: parameters[name] for name in _SAME_NAME & set(parameters)}
    arguments.update(_converted(settings.driver_parameters))
    if "connect_timeout" in parameters and "timeout" not in arguments:
        arguments["timeout"] = _number("connect_timeout", parameters["connect_timeout"], float)
    announced = {"application_name": parameters["application_name"]}
    if "options" in parameters:
        announced["options"] = parameters["options"]
    arguments["server_settings"] = {**announced, **(arguments.get("server_settings") or {})}

    tls = TlsChoice(arguments.pop("ssl", None), parameters, environ)
    address = parameters.get("hostaddr") or environ.get("PGHOSTADDR")
    name = settings.host if address else None
    arguments["ssl"] = tls.load(name) if tls.loaded() else await asyncio.to_thread(tls.load, name)
    if arguments.get("direct_tls") is None:
        arguments["direct_tls"] = tls.direct
    return {**arguments, "host": address or settings.host, "user": settings.user, "database": settings.dbname}


def _converted(given: Mapping[str, object]) -> dict[str, Any]:
    """asyncpg's own parameters; those that came as text from a URL as numbers."""
    return {
        name: _number(name, value, _CONVERSIONS[name]) if isinstance(value, str) and name in _CONVERSIONS else value
        for name, value in given.items()
    }


def _number(name: str, text: str, kind: Any) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise SettingsError(f"{name} {text!r} is not a number") from None
