"""Ways out of the sandbox that were tried: every one is refused before an engine sees it."""

from __future__ import annotations

import pytest

from dsql_server.statements import SqlSyntaxError, Statement, classify

#: One or more of each family; the list itself is dsql_server.statements.functions.
_DENIED = [
    "pg_read_file('/etc/passwd')",
    "pg_read_binary_file('/etc/passwd')",
    "pg_ls_dir('/')",
    "pg_stat_file('/')",
    "lo_import('/etc/passwd')",
    "lo_export(1, '/tmp/x')",
    "lo_get(1)",
    "lowrite(1, '')",
    "pg_terminate_backend(1)",
    "pg_cancel_backend(1)",
    "pg_notify('a', 'b')",
    "pg_advisory_lock(1)",
    "pg_try_advisory_xact_lock(1)",
    "pg_export_snapshot()",
    "pg_stat_get_activity(null)",
    "pg_reload_conf()",
    "pg_rotate_logfile()",
    "pg_stat_reset()",
    "pg_switch_wal()",
    "pg_create_restore_point('x')",
    "pg_create_logical_replication_slot('a', 'b')",
    "pg_logical_emit_message(false, 'a', 'b')",
    "pg_replication_origin_create('a')",
    "pg_promote()",
    "pg_hba_file_rules()",
    "binary_upgrade_set_next_pg_type_oid(1)",
    "query_to_xml('DROP TABLE t', true, true, '')",
    "table_to_xml('t', true, true, '')",
    "database_to_xml(true, true, '')",
    "cursor_to_xml('c', 1, true, true, '')",
    "ts_stat('DELETE FROM t')",
    "ts_rewrite('a'::text, 'DELETE FROM t')",
]

#: Places for an expression.
_PLACES = [
    "SELECT {0}",
    "SELECT 1 WHERE {0} IS NULL",
    "SELECT * FROM ROWS FROM ({0}) x",
    "WITH x AS (SELECT {0}) SELECT * FROM x",
    "SELECT 1 UNION ALL (SELECT 1 FROM t ORDER BY {0} LIMIT 1)",
    "SELECT CASE WHEN a THEN ARRAY[ROW(1, {0})] END FROM t",
    "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = {0}",
    "UPDATE t SET a = 1 RETURNING coalesce({0}, 1)",
    "DELETE FROM t USING LATERAL (SELECT {0}) x",
    "EXPLAIN ANALYZE SELECT {0}",
    "COPY (SELECT {0}) TO STDOUT",
    "CREATE TABLE c (a text DEFAULT {0})",
    "CREATE TABLE c (a text, CHECK ({0} IS NULL))",
    "ALTER TABLE t ALTER a SET DEFAULT {0}",
    "CREATE VIEW v AS SELECT {0}",
    "CREATE DOMAIN d AS text CHECK ({0} = VALUE)",
    "CREATE INDEX ASYNC ON t (({0}))",
    "CREATE STATISTICS s ON a, ({0}) FROM t",
    "CREATE SCHEMA s CREATE VIEW v AS SELECT {0}",
    "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $f$ SELECT {0} $f$",
    "CREATE FUNCTION f(a text DEFAULT {0}) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION f() RETURNS text RETURN {0}",
    "CREATE FUNCTION f() RETURNS text BEGIN ATOMIC SELECT 1; SELECT {0}; END",
]


def _refused(sql: str) -> bool:
    return all(statement.refusal is not None for statement in classify(sql))


@pytest.mark.parametrize("call", _DENIED)
def test_functions_that_reach_beyond_the_transaction(call: str) -> None:
    name, _, rest = call.partition("(")
    for written in (
        call,
        f"pg_catalog.{call}",
        f'"{name}"({rest}',
        f'PG_CATALOG."{name}"({rest}',
        f"{name.upper()} ({rest}",
    ):
        assert _refused(f"SELECT {written}"), written


def test_calls_take_no_functions_at_all() -> None:
    assert _refused("CALL sys.wait_for_job(pg_read_file('x'))")
    assert not _refused("CALL sys.wait_for_job('x')")


@pytest.mark.parametrize("place", _PLACES)
def test_wherever_they_are_called(place: str) -> None:
    assert _refused(place.format("pg_read_file('x')"))
    assert not _refused(place.format("lower('x')"))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT set_config('role', 'postgres', false)",
        "SELECT set_config('ROLE', 'postgres', false)",
        "SELECT set_config(E'r\\x6fle', 'postgres', false)",
        "SELECT set_config(U&'\\0072ole', 'postgres', false)",
        "SELECT set_config('ro' || 'le', 'postgres', false)",
        "SELECT set_config($1, 'postgres', false)",
        "SELECT set_config(name, 'postgres', false) FROM t",
        "SELECT set_config(is_local => true, new_value => 'postgres', setting_name => 'role')",
        "SELECT set_config('session_authorization', 'postgres', false)",
        "SELECT set_config('local_preload_libraries', 'x', false)",
        "CREATE FUNCTION f(n text) RETURNS text LANGUAGE sql AS 'SELECT set_config(n, ''x'', false)'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET session_authorization = 'postgres' AS 'SELECT 1'",
        "ALTER FUNCTION f() SET role = 'postgres'",
        "ALTER ROLE app SET role = 'postgres'",
        "UPDATE pg_settings SET setting = 'postgres' WHERE name = 'role'",
        "WITH x AS (UPDATE pg_catalog.pg_settings SET setting = 'x' RETURNING 1) SELECT * FROM x",
        "SET ROLE postgres",
        "SET LOCAL ROLE postgres",
        'SET "role" = postgres',
        "RESET ROLE",
        "SET SESSION AUTHORIZATION postgres",
        "SET SESSION SESSION AUTHORIZATION 'postgres'",
        "SET local_preload_libraries = 'x'",
        "SET session_replication_role = replica",
        "SET standard_conforming_strings = off",
        "SET check_function_bodies = off",
        "SET backslash_quote = on",
    ],
)
def test_parameters_that_change_who_one_is_or_how_text_is_read(sql: str) -> None:
    assert _refused(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY t FROM '/etc/passwd'",
        "COPY t TO '/tmp/x'",
        "COPY t FROM PROGRAM 'id'",
        "COPY (SELECT 1) TO PROGRAM 'cat > /tmp/x'",
        "LOAD '/tmp/x.so'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE c AS '/tmp/x.so', 'f'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'pg_read_file'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE 'C' AS 'x'",
        "CREATE EXTENSION file_fdw",
        "CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw",
        "CREATE USER MAPPING FOR admin SERVER s",
        "CREATE LANGUAGE plperlu",
        "CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p",
        "CREATE PUBLICATION p FOR ALL TABLES",
        "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()",
        "CREATE RULE r AS ON SELECT TO t DO INSTEAD SELECT 1",
        "CREATE OPERATOR + (leftarg = int, rightarg = int, function = f)",
        "CREATE CAST (int AS text) WITH FUNCTION f(int)",
        "CREATE AGGREGATE a (int) (sfunc = f, stype = int)",
        "CREATE ACCESS METHOD m TYPE TABLE HANDLER h",
        "CREATE CONVERSION c FOR 'UTF8' TO 'LATIN1' FROM f",
        "CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION f(internal))",
        "SECURITY LABEL ON TABLE t IS 'x'",
        "ALTER DATABASE postgres SET role = 'x'",
        "DROP DATABASE postgres",
        "DROP OWNED BY admin",
        "REASSIGN OWNED BY admin TO app",
        "DO 'SELECT 1'",
        "IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y",
        "CREATE ROLE r SUPERUSER",
        "ALTER ROLE app SUPERUSER",
        "ALTER ROLE app WITH REPLICATION",
        "ALTER ROLE app BYPASSRLS",
        "CREATE ROLE r IN ROLE pg_read_server_files",
        "GRANT pg_execute_server_program TO app",
        "GRANT pg_read_all_data, a TO app",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'COPY t FROM ''/etc/passwd'''",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'CREATE ROLE r SUPERUSER'",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'COMMIT'",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'RESET ALL; SELECT 1'",
        "EXPLAIN ANALYZE EXECUTE p",
        "EXPLAIN ANALYZE CREATE TABLE c AS SELECT 1",
        "EXPLAIN ANALYZE DECLARE c CURSOR FOR SELECT 1",
    ],
)
def test_statements_that_lead_out(sql: str) -> None:
    assert _refused(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_sleep(1), pg_backend_pid(), pg_table_size('t'), current_setting('timezone')",
        "SELECT nextval('s'), currval('s'), setval('s', 5), lastval()",
        "SELECT app.pg_read_file('x'), app.set_config(1), app.lo_get(2)",
        "SELECT set_config('search_path', '', false), pg_catalog.set_config('timezone', 'UTC', true)",
        "SELECT pg_get_viewdef('v'), pg_table_is_visible(1), format_type(23, NULL), obj_description(1, 'pg_class')",
        "SELECT * FROM pg_settings, pg_catalog.pg_class",
        "SELECT ts_rewrite('a'::text, 'b', 'c')",
    ],
)
def test_harmless_neighbours_are_not_refused(sql: str) -> None:
    assert classify(sql)[0].refusals == ()


def test_a_hidden_statement_is_seen() -> None:
    """Comments, strings and dollar quotes can't hide a statement, nor make one up."""
    found: list[Statement] = classify("SELECT 'x; TRUNCATE t' /* ; TRUNCATE t */ ; TRUNCATE t -- ; SELECT 1")
    assert [statement.refusal is not None for statement in found] == [False, True]
    assert classify("SELECT $a$; TRUNCATE t; $a$")[0].refusals == ()
    with pytest.raises(SqlSyntaxError):
        classify("SELECT 1 '; TRUNCATE t")
