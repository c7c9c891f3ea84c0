"""What every engine database holds before the first catalog change: roles, the ``sys`` schema, DSQL's own answers."""

from __future__ import annotations

from dsql_server.catalog.concealment import CONCEALMENT_SQL
from dsql_server.catalog.foreign_key_checks import FOREIGN_KEY_CHECKS_SQL

#: Version that Aurora DSQL reported in September 2026.
SERVER_VERSION = "16.15"
SERVER_VERSION_NUM = "160015"

#: Parameters that the engine has another value for, by the name under which PostgreSQL shows them.
ANSWERED_PARAMETERS = {
    "server_version": SERVER_VERSION,
    "server_version_num": SERVER_VERSION_NUM,
    "max_connections": "20",
}


def _answered(name: str, otherwise: str) -> str:
    """SQL for the value of the parameter that the expression ``name`` names."""
    cases = " ".join(f"WHEN '{parameter}' THEN '{value}'" for parameter, value in ANSWERED_PARAMETERS.items())
    return f"CASE lower({name}) {cases} ELSE {otherwise} END"


_SETTINGS_COLUMNS = (
    "unit, category, short_desc, extra_desc, context, vartype, source, min_val, max_val, enumvals, boot_val, "
    "reset_val, sourcefile, sourceline, pending_restart"
)

BOOTSTRAP_SQL = (
    # Roles. The loader is reached by SET ROLE around the machinery's own statements only.
    "CREATE ROLE dsql_loader NOLOGIN",
    "GRANT pg_read_all_data, pg_write_all_data TO dsql_loader",
    "GRANT SET ON PARAMETER session_replication_role TO dsql_loader",
    "CREATE ROLE dsql_planner LOGIN",
    "GRANT pg_read_all_data, pg_write_all_data TO dsql_planner",
    "CREATE ROLE admin LOGIN CREATEROLE",
    "GRANT dsql_loader TO admin WITH INHERIT TRUE, SET TRUE",
    "GRANT CREATE ON SCHEMA public TO admin",
    # Functions that reach files, other sessions or the network never run for a session.
    """DO $$ DECLARE f regprocedure; BEGIN
      FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'pg_catalog' AND (p.proname IN ('pg_terminate_backend', 'pg_cancel_backend',
          'pg_reload_conf', 'pg_rotate_logfile', 'query_to_xml', 'cursor_to_xml', 'database_to_xml', 'pg_notify')
          OR p.proname LIKE 'pg\\_read\\_%' OR p.proname LIKE 'pg\\_ls\\_%' OR p.proname LIKE 'lo\\_%'
          OR p.proname LIKE 'pg\\_advisory%' OR p.proname LIKE 'pg\\_try\\_advisory%' OR p.proname LIKE 'pg\\_file\\_%'
          OR p.proname LIKE '%\\_to\\_xml%' OR p.proname LIKE 'loread' OR p.proname LIKE 'lowrite')
      LOOP EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || f || ' FROM PUBLIC'; END LOOP; END $$""",
    # DSQL's answers.
    "SET allow_system_table_mods = on",
    "CREATE OR REPLACE FUNCTION pg_catalog.version() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE "
    "AS $$SELECT 'PostgreSQL 16'::text$$",
    "CREATE OR REPLACE FUNCTION pg_catalog.current_database() RETURNS name LANGUAGE sql STABLE PARALLEL SAFE "
    "AS $$SELECT 'postgres'::name$$",
    # Functions of PostgreSQL that have another body here. PostgreSQL runs its own code whatever the body says, unless
    # its planner puts the body in the call's place; so they aren't STRICT, and use an argument once if they can.
    "CREATE FUNCTION pg_catalog.engine_setting(text, boolean) RETURNS text LANGUAGE internal STABLE PARALLEL SAFE "
    "STRICT AS 'show_config_by_name_missing_ok'",
    "CREATE OR REPLACE FUNCTION pg_catalog.current_setting(text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE "
    f"AS $${'SELECT ' + _answered('$1', 'pg_catalog.engine_setting($1, false)')}$$",
    "CREATE OR REPLACE FUNCTION pg_catalog.current_setting(text, boolean) RETURNS text LANGUAGE sql STABLE "
    f"PARALLEL SAFE AS $${'SELECT ' + _answered('$1', 'pg_catalog.engine_setting($1, $2)')}$$",
    f"CREATE OR REPLACE VIEW pg_catalog.pg_settings AS SELECT name, {_answered('name', 'setting')} AS setting, "
    f"{_SETTINGS_COLUMNS} FROM pg_catalog.pg_show_all_settings() a",
    # Whoever calls setval leaves a note, for the machinery to make the new value global.
    "CREATE FUNCTION pg_catalog.engine_setval(regclass, bigint, boolean) RETURNS bigint LANGUAGE internal VOLATILE "
    "STRICT AS 'setval3_oid'",
    "CREATE FUNCTION pg_catalog.engine_note(regclass) RETURNS regclass LANGUAGE sql VOLATILE "
    "AS $$SELECT CASE WHEN pg_catalog.set_config('dsqlkit.setval', pg_catalog.concat_ws(',', "
    "NULLIF(pg_catalog.engine_setting('dsqlkit.setval', true), ''), $1::pg_catalog.oid::text), false) IS NOT NULL "
    "THEN $1 END$$",
    "CREATE OR REPLACE FUNCTION pg_catalog.setval(regclass, bigint, boolean) RETURNS bigint LANGUAGE sql VOLATILE "
    "AS $$SELECT pg_catalog.engine_setval(pg_catalog.engine_note($1), $2, $3)$$",
    "CREATE OR REPLACE FUNCTION pg_catalog.setval(regclass, bigint) RETURNS bigint LANGUAGE sql VOLATILE "
    "AS $$SELECT pg_catalog.engine_setval(pg_catalog.engine_note($1), $2, true)$$",
    # Loads rows that violate a constraint which is not valid yet: without any, its table checks nothing.
    "CREATE FUNCTION pg_catalog.engine_checks(regclass, boolean) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER "
    "AS $$UPDATE pg_catalog.pg_class SET relchecks = CASE WHEN $2 THEN (SELECT pg_catalog.count(*) "
    "FROM pg_catalog.pg_constraint WHERE conrelid = $1 AND contype = 'c') ELSE 0 END WHERE oid = $1$$",
    "REVOKE EXECUTE ON FUNCTION pg_catalog.engine_checks(regclass, boolean) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION pg_catalog.engine_checks(regclass, boolean) TO dsql_loader",
    *FOREIGN_KEY_CHECKS_SQL,
    "CREATE SCHEMA sys",
    "GRANT USAGE ON SCHEMA sys TO PUBLIC",
    "CREATE TABLE sys.jobs (job_id text PRIMARY KEY, status text, details text, job_type text, class_id oid, "
    "object_id oid, object_name text, start_time timestamptz, update_time timestamptz)",
    "GRANT SELECT ON sys.jobs TO PUBLIC",
    "CREATE FUNCTION sys.dsql_major_version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
    "CREATE PROCEDURE sys.wait_for_job(INOUT job_id text) LANGUAGE plpgsql AS $$BEGIN "
    "RAISE EXCEPTION 'answered by the front end'; END$$",
    *CONCEALMENT_SQL,
    "RESET allow_system_table_mods",
)
