"""From a connection string, parameters and the environment to everything that one connect needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from dsql_connectors.core.conninfo import parse_conninfo
from dsql_connectors.core.endpoint import resolve_endpoint
from dsql_connectors.core.errors import SettingsError
from dsql_connectors.core.parameters import LIBPQ_PARAMETERS, OWN_PARAMETERS, canonical_parameters
from dsql_connectors.core.version import VERSION

ADMIN_USER = "admin"
DATABASE = "postgres"

#: Valid long enough for a slow connect and a clock that is minutes off; the AWS SDKs' default.
TOKEN_DURATION_SECS = 900
TOKEN_DURATION_SECS_MIN = 1

#: PostgreSQL cuts longer ones off.
APPLICATION_NAME_BYTES_MAX = 63

PORT_MAX = 65535


class TokenRequest(NamedTuple):
    """What a token must say, and whose credentials sign it."""

    signing_host: str
    region: str
    user: str
    duration_secs: int
    profile: str | None = None
    role_arn: str | None = None

    @property
    def action(self) -> str:
        """Only ``admin`` connects by the admin action."""
        return "DbConnectAdmin" if self.user == ADMIN_USER else "DbConnect"


class Settings(NamedTuple):
    """What one connect needs, but for the token."""

    token: TokenRequest
    host: str
    user: str
    dbname: str
    parameters: dict[str, str]  #: libpq's other parameters, ``port`` and ``hostaddr`` among them if they were given
    driver_parameters: dict[str, object]  #: what only the driver in use knows, untouched
    password: str | None  #: a ready token that the caller brought; None: to be signed

    def libpq_parameters(self) -> dict[str, str]:
        """All parameters for libpq but the password."""
        return {"host": self.host, "user": self.user, "dbname": self.dbname, **self.parameters}


def resolve(
    conninfo: str = "",
    parameters: Mapping[str, object] | None = None,
    *,
    driver: str,
    driver_parameters: Collection[str] = (),
    environ: Mapping[str, str] | None = None,
    region_of_profile: Callable[[str | None], str | None] | None = None,
) -> Settings:
    """Resolve a connection string, overridden by ``parameters``, completed from libpq's and AWS's environment.

    :param driver: the name to announce in ``application_name``: ``psycopg``, ``psycopg2``, ``asyncpg`` …
    :param driver_parameters: further names to accept and hand back in :attr:`Settings.driver_parameters`.
    :param environ: instead of ``os.environ``.
    :param region_of_profile: reads the region of a profile from the AWS configuration files, as the last resort.
        It opens files: leave it out on an event loop, and resolve again in a thread after a MissingRegionError.
    :raises SettingsError: one of its subclasses, naming what is wrong and the remedy.
    """
    environ = os.environ if environ is None else environ
    given = canonical_parameters(parse_conninfo(conninfo), driver_parameters)
    given.update(canonical_parameters(parameters or {}, driver_parameters))
    extra = {name: given.pop(name) for name in driver_parameters if name in given}
    texts = {name: _text(value) for name, value in given.items()}

    profile = texts.get("profile")
    user = texts.get("user") or environ.get("PGUSER") or ADMIN_USER
    endpoint = resolve_endpoint(
        texts.get("host") or environ.get("PGHOST"),
        texts.get("cluster_id"),
        texts.get("region"),
        environ=environ,
        profile=profile,
        region_of_profile=region_of_profile,
    )
    return Settings(
        token=TokenRequest(
            signing_host=endpoint.signing_host,
            region=endpoint.region,
            user=user,
            duration_secs=_token_duration(texts.get("token_duration_secs")),
            profile=profile,
            role_arn=texts.get("role_arn"),
        ),
        host=endpoint.host,
        user=user,
        dbname=texts.get("dbname") or environ.get("PGDATABASE") or DATABASE,
        parameters=_passed_on(texts, environ, driver, endpoint.cluster_id),
        driver_parameters=extra,
        password=texts.get("password"),
    )


def _passed_on(
    texts: Mapping[str, str], environ: Mapping[str, str], driver: str, cluster_id: str | None
) -> dict[str, str]:
    """libpq's parameters but for those that Settings names itself."""
    own_fields = {"host", "user", "dbname", "password"}
    found = {name: value for name, value in texts.items() if name in LIBPQ_PARAMETERS - own_fields}
    _check_port(found.get("port"))
    found["application_name"] = announced_name(texts.get("application_name") or environ.get("PGAPPNAME"), driver)
    if cluster_id is not None:
        options = found.get("options") or environ.get("PGOPTIONS") or ""
        found["options"] = f"{options} -c amzn-cluster-id={cluster_id}".strip()
    assert not set(found) & OWN_PARAMETERS
    return found


def announced_name(application_name: str | None, driver: str) -> str:
    """The application's own name first, then ours, as ``orders:dsqlkit-psycopg/0.1.0``; ours is never cut off."""
    ours = f"dsqlkit-{driver}/{VERSION}"
    if not application_name or application_name.endswith(ours):
        return application_name or ours
    room = APPLICATION_NAME_BYTES_MAX - len(ours) - 1
    prefix = application_name.encode()[:room].decode(errors="ignore")
    return f"{prefix}:{ours}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return str(value)


def _check_port(port: str | None) -> None:
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) <= PORT_MAX):
        raise SettingsError(f"port {port!r} is not a number between 1 and {PORT_MAX}")


def _token_duration(text: str | None) -> int:
    """Seconds. The upper limit is the server's to check: it is a week today, and its refusal says so."""
    if text is None:
        return TOKEN_DURATION_SECS
    if not (text.isascii() and text.isdigit() and int(text) >= TOKEN_DURATION_SECS_MIN):
        raise SettingsError(
            f"token_duration_secs {text!r} is not a whole number of seconds, {TOKEN_DURATION_SECS_MIN} or more"
        )
    return int(text)
