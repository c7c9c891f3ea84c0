"""Test databases: a schema of its own for every run, in the one database that a cluster has."""

from __future__ import annotations

import secrets
import sys
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import DatabaseError
from django.db.backends.postgresql.creation import DatabaseCreation as PostgresqlCreation
from django.utils.module_loading import import_string

from dsql_connectors.core.retry import is_occ_error
from dsql_dialects.django.isolation import Isolation
from dsql_dialects.django.local_server import local_server, local_settings

SCHEMA_PREFIX = "test_"

CREATION_ATTEMPTS_MAX = 5


class DatabaseCreation(PostgresqlCreation):
    """Makes a schema where Django's PostgreSQL backend makes a database.

    ``TEST["NAME"]`` names it; else it is ``test_`` with a random part, or with the alias where it is to be kept.
    Without ``HOST``, or with ``TEST["LOCAL"]``, a local server is started for the run.
    """

    _schema: str | None = None
    _own_settings: dict[str, Any] | None = None  #: of before the run
    _uses_local_server = False

    def create_test_db(
        self, verbosity: int = 1, autoclobber: bool = False, serialize: bool | None = None, keepdb: bool = False
    ) -> str:
        """As Django's; returns the database's name, which stays what it is."""
        self._own_settings = dict(self.connection.settings_dict)
        self._start_local_server(verbosity)
        self._schema = self._schema_name(keepdb)
        # Its default has changed from one version of Django to another.
        given = {} if serialize is None else {"serialize": serialize}
        name = self._create_despite_conflicts(verbosity=verbosity, autoclobber=autoclobber, keepdb=keepdb, **given)
        self.connection.isolation = Isolation(self.connection)
        self.connection.close()  # the next one is watched by it
        self.connection.close_pool()
        self.connection.ensure_connection()
        return name

    def _create_despite_conflicts(self, **options: Any) -> str:
        """Other runs on the cluster change the catalog, too, and what migrations do in a transaction may lose to that.

        What has been migrated stays; the rest is done by the next attempt.
        """
        name: str
        for _ in range(CREATION_ATTEMPTS_MAX - 1):
            try:
                name = super().create_test_db(**options)
                return name
            except DatabaseError as error:
                if not is_occ_error(error):
                    raise
                options["keepdb"] = True
        name = super().create_test_db(**options)
        return name

    def destroy_test_db(
        self,
        old_database_name: str | None = None,
        verbosity: int = 1,
        keepdb: bool = False,
        suffix: str | None = None,
    ) -> None:
        """Drop the run's schema, or one of its copies, unless it is to be kept."""
        self.connection.close()
        self.connection.close_pool()
        if self.connection.isolation is not None:
            self.connection.isolation.close()
            self.connection.isolation = None
        schema = self._schema if suffix is None else f"{self._schema}_{suffix}"
        if verbosity >= 1:
            name = self._get_database_display_str(verbosity, schema)
            self.log(f"{'Preserving' if keepdb else 'Destroying'} test database for alias {name}...")
        if not keepdb and schema is not None:
            self._destroy_test_db(schema, verbosity)
        if suffix is None and self._own_settings is not None:
            self.connection.settings_dict.clear()
            self.connection.settings_dict.update(self._own_settings)
            self._schema = self._own_settings = None
            if self._uses_local_server:
                self._uses_local_server = False
                local_server.release()
        elif suffix is None and old_database_name is not None:  # the run began in another process
            self.connection.settings_dict["NAME"] = old_database_name

    def set_as_test_mirror(self, primary_settings_dict: dict[str, Any]) -> None:
        """Read and write where the primary does."""
        for name in ("HOST", "PORT", "USER", "NAME", "OPTIONS"):
            self.connection.settings_dict[name] = primary_settings_dict[name]

    def get_test_db_clone_settings(self, suffix: str) -> dict[str, Any]:
        """Settings with the schema of the copy."""
        settings = self.connection.settings_dict
        return {**settings, "OPTIONS": {**settings["OPTIONS"], "schema": f"{settings['OPTIONS']['schema']}_{suffix}"}}

    def setup_worker_connection(self, _worker_id: int) -> None:
        """Called in each worker of a parallel run: take that worker's copy."""
        self.connection.close_pool()
        super().setup_worker_connection(_worker_id)
        self.connection.isolation = Isolation(self.connection)

    def test_db_signature(self) -> tuple[Any, ...]:
        """Aliases with one schema of one cluster share a test database."""
        settings = self.connection.settings_dict
        return (*super().test_db_signature(), settings["OPTIONS"].get("schema"), settings["TEST"]["NAME"])

    def mark_expected_failures_and_skips(self) -> None:
        """As Django's, for Django's own suite, without the tests that its version hasn't got."""
        features = self.connection.features
        for names in (features.django_test_expected_failures, *features.django_test_skips.values()):
            names.difference_update([name for name in names if not _is_test_of_installed_app(name)])
        super().mark_expected_failures_and_skips()

    def sql_table_creation_suffix(self) -> str:
        """Nothing: there is no CREATE DATABASE.

        :raises ImproperlyConfigured: for test settings that would need it.
        """
        for name in ("CHARSET", "COLLATION", "TEMPLATE"):
            if self.connection.settings_dict["TEST"].get(name) is not None:
                raise ImproperlyConfigured(
                    f"DATABASES[{self.connection.alias!r}]['TEST'][{name!r}] is not supported: Aurora DSQL has one "
                    "database, in UTF-8 and with the C collation; remove it"
                )
        return ""

    def _get_test_db_name(self) -> str:
        name: str = self.connection.settings_dict["NAME"]
        return name

    def _get_database_display_str(self, verbosity: int, database_name: str | None) -> str:
        name: str = super()._get_database_display_str(verbosity, self._schema or database_name)
        return name

    def _schema_name(self, keepdb: bool) -> str:
        named: str | None = self.connection.settings_dict["TEST"]["NAME"]
        if named:
            return named
        return SCHEMA_PREFIX + (self.connection.alias if keepdb else secrets.token_hex(4))

    def _start_local_server(self, verbosity: int) -> None:
        settings = self.connection.settings_dict
        if settings["HOST"] and not settings["TEST"].get("LOCAL"):
            return
        if verbosity >= 1:
            self.log(f"Starting a local Aurora DSQL server for alias '{self.connection.alias}'...")
        cluster = local_server.acquire()
        self._uses_local_server = True
        settings.update(local_settings(cluster, settings))

    def _create_test_db(self, verbosity: int, autoclobber: bool, keepdb: bool = False) -> str:
        assert self._schema is not None, "create_test_db names it"
        self.sql_table_creation_suffix()
        self._create_schema(self._schema, autoclobber, keepdb)
        self._use_schema(self._schema)
        return self._get_test_db_name()

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        self._execute(f"DROP SCHEMA IF EXISTS {self._quote_name(test_database_name)} CASCADE")

    def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> None:
        """Migrate a schema of its own for a worker: there is nothing to copy one from another with."""
        source = self.connection.settings_dict["OPTIONS"]
        schema = self.get_test_db_clone_settings(suffix)["OPTIONS"]["schema"]
        self._create_schema(schema, True, keepdb)
        self._use_schema(schema)
        try:
            call_command(
                "migrate",
                verbosity=max(verbosity - 1, 0),
                interactive=False,
                database=self.connection.alias,
                run_syncdb=True,
            )
            call_command("createcachetable", database=self.connection.alias)
        finally:
            self._use_schema(source["schema"])

    def _create_schema(self, schema: str, autoclobber: bool, keepdb: bool) -> None:
        quoted = self._quote_name(schema)
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema])
            exists = cursor.fetchone() is not None
        if exists and keepdb:
            return
        if exists:
            if not autoclobber:
                answer = input(
                    f"The test schema '{schema}' exists. Type 'yes' to delete it and what it holds, 'no' to cancel: "
                )
                if answer != "yes":
                    self.log("Tests cancelled.")
                    sys.exit(1)
            self._execute(f"DROP SCHEMA {quoted} CASCADE")
        self._execute(f"CREATE SCHEMA {quoted}")

    def _use_schema(self, schema: str) -> None:
        self.connection.close()
        self.connection.close_pool()
        settings = self.connection.settings_dict
        settings["OPTIONS"] = {**settings["OPTIONS"], "schema": schema}

    def _execute(self, statement: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement)


def _is_test_of_installed_app(name: str) -> bool:
    """Whether a test such as ``queries.tests.Queries1Tests.test_ticket1050`` is there."""
    case, _, method = name.rpartition(".")
    if case.split(".")[0] not in settings.INSTALLED_APPS:
        return False
    try:
        return hasattr(import_string(case), method)
    except ImportError:
        return False
