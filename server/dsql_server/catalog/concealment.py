"""Keeps the machinery's databases, roles and prepared statements out of what clients list, e.g. with psql's ``\\l``.

Nothing here protects anything: privileges do. It spares clients and their tools the sight.
"""

from __future__ import annotations

from dsql_server.catalog.sys_schema import TLS_PARAMETER
from dsql_server.statements.dump import DUMP_APPLICATION
from dsql_server.statements.indexes import INDEX_METHOD
from dsql_server.statements.settings import OWN_TABLES_PREFIX

_ROLES = "('dsql_engine', 'dsql_loader', 'dsql_planner')"


def _filtered(view: str, condition: str) -> str:
    """Replace a system view by itself with one more condition."""
    quoted = condition.replace("'", "''")
    return (
        f"DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW pg_catalog.{view} AS SELECT * FROM (' || "
        f"rtrim(pg_get_viewdef('pg_catalog.{view}'::regclass), ';') || ') v WHERE {quoted}'; END $$"
    )


def _own(table: str) -> str:
    """The name of a system table that a view stands in for."""
    return OWN_TABLES_PREFIX + table.removeprefix("pg_")


def _replaced(table: str, columns: str, rest: str = "") -> tuple[str, ...]:
    """Put a view in a system table's place. The engine itself finds the table by its number.

    The last column is one that every table has and that catalog queries of tools name.
    """
    own = _own(table)
    return (
        f"ALTER TABLE pg_catalog.{table} RENAME TO {own}",
        f"CREATE VIEW pg_catalog.{table} AS SELECT {columns}, t.tableoid FROM pg_catalog.{own} t {rest}",
        f"GRANT SELECT ON pg_catalog.{table} TO PUBLIC",
    )


#: True in sessions of pg_dump. It wants an owner for everything, and an extension behind what is not to be dumped.
_DUMPING = f"pg_catalog.current_setting('application_name') = '{DUMP_APPLICATION}'"

#: Privileges that pg_dump takes for those of a new database, by catalog and column.
_PRIVILEGES = (("pg_proc", "proacl"), ("pg_class", "relacl"), ("pg_namespace", "nspacl"))

#: Makes pg_dump pass over the schema ``sys`` and over what was granted and revoked so far. The extension's catalog is
#: the one that sessions find by its name.
_BUILT_IN_FOR_DUMPS = (
    *(
        f"INSERT INTO pg_catalog.pg_depend SELECT '{catalog}'::regclass, o.oid, 0, 'pg_extension'::regclass, e.oid, 0, "
        f"'e' FROM pg_catalog.{catalog} o, pg_catalog.{_own('pg_extension')} e WHERE {condition}"
        for catalog, condition in (
            ("pg_namespace", "o.nspname = 'sys'"),
            ("pg_class", "o.relnamespace = 'sys'::regnamespace AND o.relkind = 'v'"),
            ("pg_proc", "o.pronamespace = 'sys'::regnamespace"),
        )
    ),
    *(
        statement
        for catalog, column in _PRIVILEGES
        for statement in (
            f"DELETE FROM pg_catalog.pg_init_privs WHERE classoid = '{catalog}'::regclass AND objsubid = 0",
            f"INSERT INTO pg_catalog.pg_init_privs SELECT o.oid, '{catalog}'::regclass, 0, 'i', o.{column} "
            f"FROM pg_catalog.{catalog} o WHERE o.{column} IS NOT NULL",
        )
    ),
)

#: TLS ends at the front end; the engine's own connection has none.
_STAT_SSL = (
    "CREATE OR REPLACE VIEW pg_catalog.pg_stat_ssl AS SELECT pg_catalog.pg_backend_pid() AS pid, true AS ssl, "
    "t.parts[1] AS version, t.parts[2] AS cipher, t.parts[3]::int AS bits, NULL::text AS client_dn, "
    "NULL::numeric AS client_serial, NULL::text AS issuer_dn FROM (SELECT pg_catalog.string_to_array("
    f"NULLIF(pg_catalog.current_setting('{TLS_PARAMETER}', true), ''), ' ') AS parts) t"
)

#: Run as the superuser while system tables may be changed. The superuser itself still sees everything.
CONCEALMENT_SQL = (
    # One database is all that there is; the engine keeps one for each query processor. The engine itself finds the
    # table by its number, so the view can have its name.
    f"ALTER TABLE pg_catalog.pg_database RENAME TO {_own('pg_database')}",
    "CREATE VIEW pg_catalog.pg_database AS SELECT d.oid, d.datname, a.oid AS datdba, "
    "d.encoding, d.datlocprovider, d.datistemplate, d.datallowconn, d.datconnlimit, d.datfrozenxid, d.datminmxid, "
    "d.dattablespace, d.datcollate, d.datctype, d.daticulocale, d.daticurules, d.datcollversion, d.datacl "
    f"FROM pg_catalog.{_own('pg_database')} d, pg_catalog.pg_authid a "
    "WHERE d.datname = 'postgres' AND a.rolname = 'admin'",
    "GRANT SELECT ON pg_catalog.pg_database TO PUBLIC",
    f"REVOKE SELECT ON pg_catalog.{_own('pg_database')} FROM PUBLIC",
    # Aurora DSQL has SQL functions only, no triggers, no extensions but PostgreSQL's own, and another name for its
    # indexes' method.
    *_replaced(
        "pg_language",
        "t.oid, t.lanname, t.lanowner, t.lanispl, t.lanpltrusted, t.lanplcallfoid, t.laninline, t.lanvalidator, "
        "t.lanacl",
        f"WHERE t.lanname <> 'plpgsql' OR {_DUMPING}",
    ),
    *_replaced(
        "pg_event_trigger",
        "t.oid, t.evtname, t.evtevent, t.evtowner, t.evtfoid, t.evtenabled, t.evttags",
        "WHERE false",
    ),
    *_replaced(
        "pg_am",
        f"t.oid, CASE t.amname WHEN 'btree' THEN '{INDEX_METHOD}'::name ELSE t.amname END AS amname, t.amhandler, "
        "t.amtype",
    ),
    *_replaced(
        "pg_extension",
        "t.oid, t.extname, t.extowner, t.extnamespace, t.extrelocatable, t.extversion, t.extconfig, t.extcondition",
        "WHERE t.extname = 'plpgsql'",
    ),
    *_BUILT_IN_FOR_DUMPS,
    _filtered("pg_available_extensions", "false"),
    _filtered("pg_available_extension_versions", "false"),
    _STAT_SSL,
    _filtered("pg_stat_database", "datname = 'postgres'"),
    _filtered("pg_roles", f"rolname NOT IN {_ROLES} OR {_DUMPING}"),
    _filtered("pg_shadow", f"usename NOT IN {_ROLES}"),
    _filtered("pg_group", f"groname NOT IN {_ROLES}"),
    # Of the sessions a client sees its own, in the database that it is told of.
    _filtered("pg_locks", "pid = pg_catalog.pg_backend_pid()"),
    "DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW pg_catalog.pg_stat_activity AS SELECT * FROM (' || "
    "replace(rtrim(pg_get_viewdef('pg_catalog.pg_stat_activity'::regclass), ';'), 'd.datname', "
    "quote_literal('postgres') || '::pg_catalog.name AS datname') "
    "|| ') v WHERE pid = pg_catalog.pg_backend_pid()'; END $$",
    _filtered("pg_prepared_statements", "name NOT LIKE 'dsqlkit\\_%'"),
)
