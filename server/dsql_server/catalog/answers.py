"""Functions of PostgreSQL that answer as Aurora DSQL's do, and hooks of the machinery behind others.

PostgreSQL runs its own code for its own functions whatever body they are given, unless its planner puts the body in
the call's place. So bodies given here are of the kind that it does: not STRICT, without sub-queries, and with each
argument used once as far as possible. What they call is new, and so runs as written.
"""

from __future__ import annotations

from dsql_server.statements.indexes import INDEX_METHOD
from dsql_server.statements.settings import BLOCK_READS_ONLY_NOTE, READS_ONLY_NOTE

#: Version that Aurora DSQL reported in September 2026.
SERVER_VERSION = "16.15"
SERVER_VERSION_NUM = "160015"

#: What PostgreSQL has by default where the engine is configured otherwise: that is the machinery's own affair.
_POSTGRESQL_DEFAULTS = {
    "autovacuum": "on",
    "bgwriter_lru_maxpages": "100",
    "checkpoint_timeout": "5min",
    "dynamic_shared_memory_type": "posix",
    "fsync": "on",
    "full_page_writes": "on",
    "huge_pages": "try",
    "jit": "on",
    "listen_addresses": "localhost",
    "log_checkpoints": "on",
    "log_line_prefix": "%m [%p] ",
    "log_min_error_statement": "error",
    "log_min_messages": "warning",
    "max_logical_replication_workers": "4",
    "max_parallel_maintenance_workers": "2",
    "max_parallel_workers_per_gather": "2",
    "max_pred_locks_per_transaction": "64",
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "max_wal_size": "1GB",
    "max_worker_processes": "8",
    "min_dynamic_shared_memory": "0",
    "plan_cache_mode": "auto",
    "random_page_cost": "4",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "temp_file_limit": "-1",
    "track_activities": "on",
    "track_counts": "on",
    "unix_socket_permissions": "0777",
    "update_process_title": "on",
    "wal_init_zero": "on",
    "wal_level": "replica",
}
#: Parameters that the engine has another value for, by the name under which PostgreSQL shows them.
ANSWERED_PARAMETERS = {
    **_POSTGRESQL_DEFAULTS,
    "server_version": SERVER_VERSION,
    "server_version_num": SERVER_VERSION_NUM,
    "max_connections": "20",
}


def _noted(*notes: str) -> str:
    """SQL for the first of these notes that a session has made."""
    values = ", ".join(f"NULLIF(pg_catalog.engine_setting('{note}', true), '')" for note in notes)
    return f"coalesce({values}, 'off')"


#: Parameters of which the engine's own values mean nothing, and SQL for those of the client's session.
_NOTED_PARAMETERS = {
    "transaction_read_only": _noted(BLOCK_READS_ONLY_NOTE, READS_ONLY_NOTE),
    "default_transaction_read_only": _noted(READS_ONLY_NOTE),
}


def _answered(name: str, otherwise: str) -> str:
    """SQL for the value of the parameter that the expression ``name`` names."""
    values = {parameter: f"'{value}'" for parameter, value in ANSWERED_PARAMETERS.items()} | _NOTED_PARAMETERS
    cases = " ".join(f"WHEN '{parameter}' THEN {value}" for parameter, value in values.items())
    return f"CASE lower({name}) {cases} ELSE {otherwise} END"


_DEFAULT_NAMES = ", ".join(f"'{name}'" for name in _POSTGRESQL_DEFAULTS)


def _unless_default(column: str, value: str) -> str:
    """The column of a parameter's setting, but ``value`` for those that pass for PostgreSQL's defaults."""
    return f"CASE WHEN name IN ({_DEFAULT_NAMES}) THEN {value} ELSE {column} END AS {column}"


#: The view has plain numbers of a unit where SHOW puts them in words, so defaults are taken from the view itself.
_SETTINGS_SQL = f"""
CREATE OR REPLACE VIEW pg_catalog.pg_settings AS SELECT name,
  CASE WHEN name IN ({_DEFAULT_NAMES}) THEN boot_val ELSE {_answered("name", "setting")} END AS setting,
  unit, category, short_desc, extra_desc, context, vartype, {_unless_default("source", "'default'")}, min_val, max_val,
  enumvals, boot_val, {_unless_default("reset_val", "boot_val")}, {_unless_default("sourcefile", "NULL")},
  {_unless_default("sourceline", "NULL")}, pending_restart
FROM pg_catalog.pg_show_all_settings() a
"""

#: What follows the columns of the primary key ``i``: it holds all the others.
_INCLUDED = """coalesce((SELECT ' INCLUDE (' || pg_catalog.string_agg(
      pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) || ')'
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attnum <> ALL ((i.indkey::int2[])[0 : i.indnkeyatts - 1])), '')"""
#: INCLUDE as PostgreSQL prints it, at the end.
_WITHOUT_INCLUDED = "' INCLUDE \\(.*\\)$', ''"

#: A constraint's definition; a primary key holds all the other columns as well.
_CONSTRAINT_DEFINITION = f"""
SELECT CASE c.contype WHEN 'p' THEN pg_catalog.regexp_replace($2, {_WITHOUT_INCLUDED}) || {_INCLUDED} ELSE $2 END
FROM pg_catalog.pg_constraint c LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.conindid WHERE c.oid = $1
"""

#: An index's definition with DSQL's access method.
_INDEX_DEFINITION = f"""
SELECT CASE WHEN i.indisprimary
  THEN pg_catalog.regexp_replace(pg_catalog.regexp_replace($2, ' USING btree ', ' USING {INDEX_METHOD} '),
    {_WITHOUT_INCLUDED}) || {_INCLUDED}
  ELSE pg_catalog.regexp_replace($2, ' USING btree ', ' USING {INDEX_METHOD} ') END
FROM pg_catalog.pg_index i WHERE i.indexrelid = $1
"""

ANSWERS_SQL = (
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
    _SETTINGS_SQL,
    "REVOKE UPDATE ON pg_catalog.pg_settings FROM PUBLIC",
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
    # An entry has to fit into a third of a page, whatever Aurora DSQL's indexes include: a transaction with long rows
    # does without. (Prepared statements are planned again when their table's entry in pg_class changes.)
    "CREATE FUNCTION pg_catalog.engine_narrow(regclass, boolean) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER "
    "SET search_path = pg_catalog AS $$WITH included AS (UPDATE pg_catalog.pg_index "
    "SET indisvalid = false, indisready = false WHERE indrelid = $1 AND indisready AND indnatts > indnkeyatts "
    "AND (NOT indisunique OR $2 AND NOT indisprimary AND indpred IS NULL AND indexprs IS NULL) RETURNING indrelid) "
    "UPDATE pg_catalog.pg_class SET relhasindex = relhasindex WHERE oid IN (SELECT indrelid FROM included)$$",
    "REVOKE EXECUTE ON FUNCTION pg_catalog.engine_narrow(regclass, boolean) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION pg_catalog.engine_narrow(regclass, boolean) TO dsql_loader",
    # VACUUM notes that tables are empty; plans to be shown are made for tables of unknown size.
    "CREATE FUNCTION pg_catalog.engine_sizes() RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER "
    "SET search_path = pg_catalog AS $$UPDATE pg_catalog.pg_class SET reltuples = -1, relpages = 0 "
    "WHERE oid >= 16384 AND relkind = 'r' AND reltuples >= 0$$",
    "REVOKE EXECUTE ON FUNCTION pg_catalog.engine_sizes() FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION pg_catalog.engine_sizes() TO dsql_loader",
    "CREATE FUNCTION pg_catalog.engine_indexdef(oid, integer, boolean) RETURNS text LANGUAGE internal STABLE STRICT "
    "PARALLEL SAFE AS 'pg_get_indexdef_ext'",
    "CREATE FUNCTION pg_catalog.engine_shown_indexdef(oid, text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE "
    f"AS $${_INDEX_DEFINITION}$$",
    "CREATE FUNCTION pg_catalog.engine_shown_indexdef(oid, integer, boolean) RETURNS text LANGUAGE sql STABLE "
    "PARALLEL SAFE AS $$SELECT CASE WHEN $2 = 0 "
    "THEN pg_catalog.engine_shown_indexdef($1, pg_catalog.engine_indexdef($1, 0, $3)) "
    "ELSE pg_catalog.engine_indexdef($1, $2, $3) END$$",
    "CREATE FUNCTION pg_catalog.engine_constraintdef(oid, boolean) RETURNS text LANGUAGE internal STABLE STRICT "
    "PARALLEL SAFE AS 'pg_get_constraintdef_ext'",
    "CREATE FUNCTION pg_catalog.engine_shown_constraintdef(oid, text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE "
    f"AS $${_CONSTRAINT_DEFINITION}$$",
    "CREATE FUNCTION pg_catalog.engine_shown_constraintdef(oid, boolean) RETURNS text LANGUAGE sql STABLE "
    "PARALLEL SAFE "
    "AS $$SELECT pg_catalog.engine_shown_constraintdef($1, pg_catalog.engine_constraintdef($1, $2))$$",
    "CREATE OR REPLACE FUNCTION pg_catalog.pg_get_constraintdef(oid) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE "
    "AS $$SELECT pg_catalog.engine_shown_constraintdef($1, false)$$",
    "CREATE OR REPLACE FUNCTION pg_catalog.pg_get_constraintdef(oid, boolean) RETURNS text LANGUAGE sql STABLE "
    "PARALLEL SAFE AS $$SELECT pg_catalog.engine_shown_constraintdef($1, $2)$$",
    # There is one configuration for text search, and no dictionary for any language.
    "DELETE FROM pg_catalog.pg_ts_config_map WHERE mapcfg <> 'simple'::pg_catalog.regconfig",
    "DELETE FROM pg_catalog.pg_ts_config WHERE cfgname <> 'simple'",
    "DELETE FROM pg_catalog.pg_ts_dict WHERE dictname <> 'simple'",
    "DELETE FROM pg_catalog.pg_ts_template WHERE tmplname = 'snowball'",
    "CREATE OR REPLACE FUNCTION pg_catalog.pg_get_indexdef(oid) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE "
    "AS $$SELECT pg_catalog.engine_shown_indexdef($1, 0, false)$$",
    "CREATE OR REPLACE FUNCTION pg_catalog.pg_get_indexdef(oid, integer, boolean) RETURNS text LANGUAGE sql STABLE "
    "PARALLEL SAFE AS $$SELECT pg_catalog.engine_shown_indexdef($1, $2, $3)$$",
)
