"""``manage.py dbshell``: psql with a token, verified TLS and the connector's application name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from django.db.backends.postgresql.client import DatabaseClient as PostgresqlClient

from dsql_connectors.core.credentials import region_of_profile
from dsql_connectors.core.settings import resolve
from dsql_connectors.core.tls import apply_tls_defaults
from dsql_connectors.core.tokens import generate_token

#: libpq's parameters that psql takes from the environment, and from nowhere else on its command line.
_ENVIRONMENT = {
    "hostaddr": "PGHOSTADDR",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "application_name": "PGAPPNAME",
    "options": "PGOPTIONS",
    "client_encoding": "PGCLIENTENCODING",
    "passfile": "PGPASSFILE",
    "service": "PGSERVICE",
    "gssencmode": "PGGSSENCMODE",
}

#: psql's version isn't known: ask for nothing that an old one doesn't know.
_LIBPQ_VERSION_MIN = 0

#: What is the backend's or the driver's, or can't be said to psql.
_NOT_PSQLS = frozenset(
    {
        "schema",
        "identity_cache",
        "isolation_level",
        "assume_role",
        "pool",
        "server_side_binding",
        "retry",
        "credentials_provider",
        "custom_credentials_provider",
        "session",
        "prepare_threshold",
        "cursor_factory",
        "connection_factory",
        "row_factory",
        "context",
        "autocommit",
    }
)


class DatabaseClient(PostgresqlClient):
    """psql."""

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Sequence[str]
    ) -> tuple[list[str], dict[str, str] | None]:
        """The command and what to add to its environment. The token is signed now and good for connecting once or more
        often until it expires.

        :raises dsql_connectors.errors.SettingsError: if the settings don't say where to connect.
        :raises dsql_connectors.errors.CredentialsError: without usable AWS credentials.
        """
        options = settings_dict["OPTIONS"]
        given = {name: value for name, value in options.items() if name not in _NOT_PSQLS}
        names = {"HOST": "host", "PORT": "port", "USER": "user", "NAME": "dbname", "PASSWORD": "password"}
        given.update({name: settings_dict[key] for key, name in names.items() if settings_dict.get(key)})
        settings = resolve("", given, driver="psql", region_of_profile=region_of_profile)
        parameters_of_libpq = settings.libpq_parameters()
        apply_tls_defaults(parameters_of_libpq, libpq_version=_LIBPQ_VERSION_MIN, environ=os.environ)
        environment = {_ENVIRONMENT[name]: value for name, value in parameters_of_libpq.items() if name in _ENVIRONMENT}
        if options.get("schema"):
            search_path = f"-c search_path={options['schema']}"
            environment["PGOPTIONS"] = f"{environment.get('PGOPTIONS', '')} {search_path}".strip()
        environment["PGPASSWORD"] = settings.password or generate_token(
            settings.token,
            provider=options.get("credentials_provider") or options.get("custom_credentials_provider"),
            session=options.get("session"),
        )
        arguments = [cls.executable_name, "-U", settings.user, "-h", settings.host]
        if "port" in parameters_of_libpq:
            arguments += ["-p", parameters_of_libpq["port"]]
        return [*arguments, *parameters, settings.dbname], environment
