"""Keeps the machinery's databases, roles and prepared statements out of what clients list, e.g. with psql's ``\\l``.

Nothing here protects anything: privileges do. It spares clients and their tools the sight.
"""

from __future__ import annotations

from dsql_server.catalog.answers import INDEX_METHOD

_ROLES = "('dsql_engine', 'dsql_loader', 'dsql_planner')"


def _filtered(view: str, condition: str) -> str:
    """Replace a system view by itself with one more condition."""
    quoted = condition.replace("'", "''")
    return (
        f"DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW pg_catalog.{view} AS SELECT * FROM (' || "
        f"rtrim(pg_get_viewdef('pg_catalog.{view}'::regclass), ';') || ') v WHERE {quoted}'; END $$"
    )


def _replaced(table: str, columns: str, rest: str = "") -> tuple[str, ...]:
    """Put a view in a system table's place. The engine itself finds the table by its number.

    The last column is one that every table has and that catalog queries of tools name.
    """
    return (
        f"ALTER TABLE pg_catalog.{table} RENAME TO engine_{table.removeprefix('pg_')}",
        f"CREATE VIEW pg_catalog.{table} AS SELECT {columns}, t.tableoid "
        f"FROM pg_catalog.engine_{table.removeprefix('pg_')} t {rest}",
        f"GRANT SELECT ON pg_catalog.{table} TO PUBLIC",
    )


#: Run as the superuser while system tables may be changed. The superuser itself still sees everything.
CONCEALMENT_SQL = (
    # One database is all that there is; the engine keeps one for each query processor. The engine itself finds the
    # table by its number, so the view can have its name.
    "ALTER TABLE pg_catalog.pg_database RENAME TO engine_database",
    "CREATE VIEW pg_catalog.pg_database AS SELECT d.oid, d.datname, a.oid AS datdba, "
    "d.encoding, d.datlocprovider, d.datistemplate, d.datallowconn, d.datconnlimit, d.datfrozenxid, d.datminmxid, "
    "d.dattablespace, d.datcollate, d.datctype, d.daticulocale, d.daticurules, d.datcollversion, d.datacl "
    "FROM pg_catalog.engine_database d, pg_catalog.pg_authid a WHERE d.datname = 'postgres' AND a.rolname = 'admin'",
    "GRANT SELECT ON pg_catalog.pg_database TO PUBLIC",
    "REVOKE SELECT ON pg_catalog.engine_database FROM PUBLIC",
    # Aurora DSQL has SQL functions only, no triggers, no extensions, and a name of its own for its indexes.
    *_replaced(
        "pg_language",
        "t.oid, t.lanname, t.lanowner, t.lanispl, t.lanpltrusted, t.lanplcallfoid, t.laninline, t.lanvalidator, "
        "t.lanacl",
        "WHERE t.lanname <> 'plpgsql'",
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
    "DELETE FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_extension'::regclass",
    "DELETE FROM pg_catalog.pg_extension WHERE extname = 'plpgsql'",
    _filtered("pg_stat_database", "datname = 'postgres'"),
    _filtered("pg_roles", f"rolname NOT IN {_ROLES}"),
    _filtered("pg_shadow", f"usename NOT IN {_ROLES}"),
    _filtered("pg_group", f"groname NOT IN {_ROLES}"),
    _filtered("pg_prepared_statements", "name NOT LIKE 'dsqlkit\\_%'"),
)
