"""Ways out that were tried on a running server: to its superuser, files, network, and to what is the machinery's.

Those that a statement's text gives away are tested without a server, in tests/unit/test_statements_escapes.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection

from dsql_server.testing import LocalCluster

ARN = "arn:aws:iam::123456789012:role/escape"
#: True for roles that could read the server's files: the engine's superuser and nobody else.
POWERFUL = (
    "has_function_privilege(session_user, 'pg_catalog.pg_read_file(text)', 'execute') "
    "OR has_function_privilege(current_user, 'pg_catalog.pg_read_file(text)', 'execute')"
)


@pytest.fixture
def admin(dsql_cluster: LocalCluster, dsql_url: str) -> Iterator[Connection]:
    with dsql_cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE ROLE escape_clerk WITH LOGIN")
        connection.execute(f"AWS IAM GRANT escape_clerk TO '{ARN}'")
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        connection.execute("INSERT INTO t VALUES (1, 'kept')")
        yield connection
        connection.execute("RESET ALL")
        connection.execute("DROP TABLE t")
        connection.execute(f"AWS IAM REVOKE escape_clerk FROM '{ARN}'")
        connection.execute("DROP ROLE escape_clerk")


#: Each fails for the role admin, whatever the reason.
ATTEMPTS = (
    # other identities
    "SET ROLE dsql_loader",
    "SET ROLE dsql_engine",
    "SET SESSION AUTHORIZATION dsql_engine",
    "SELECT set_config('role', 'dsql_engine', false)",
    "SELECT set_config('session_authorization', 'dsql_engine', false)",
    "GRANT dsql_engine TO admin",
    "GRANT dsql_loader TO escape_clerk",
    "GRANT dsql_planner TO escape_clerk",
    "GRANT pg_read_server_files TO admin",
    "GRANT pg_write_server_files TO escape_clerk",
    "GRANT pg_execute_server_program TO admin",
    "GRANT pg_signal_backend TO admin",
    "GRANT pg_write_all_data TO escape_clerk",
    "CREATE ROLE escape_child IN ROLE dsql_engine",
    "CREATE ROLE escape_child IN ROLE pg_read_server_files",
    "CREATE ROLE escape_child SUPERUSER",
    "CREATE ROLE escape_child REPLICATION",
    "CREATE ROLE escape_child BYPASSRLS",
    "CREATE ROLE dsql_engine",
    "ALTER ROLE admin SUPERUSER",
    "ALTER ROLE dsql_loader LOGIN",
    "ALTER ROLE dsql_engine RENAME TO nobody",
    "ALTER ROLE dsql_engine SET search_path = public",
    "ALTER ROLE escape_clerk SET session_preload_libraries = 'x'",
    "ALTER ROLE ALL SET search_path = public",
    "DROP ROLE dsql_loader",
    "DROP ROLE dsql_planner",
    "COMMENT ON ROLE dsql_engine IS 'x'",
    "DROP OWNED BY dsql_loader",
    "REASSIGN OWNED BY dsql_engine TO admin",
    "ALTER DEFAULT PRIVILEGES FOR ROLE dsql_engine GRANT ALL ON TABLES TO admin",
    "AWS IAM GRANT dsql_engine TO 'arn:aws:iam::123456789012:role/x'",
    "AWS IAM GRANT dsql_planner TO 'arn:aws:iam::123456789012:role/x'",
    # the machinery's functions, tables and databases
    "SELECT pg_catalog.engine_checks('t', false)",
    "SELECT engine_setval('pg_class', 1, true)",
    "SELECT engine_note('t'::regclass)",
    "SELECT * FROM pg_dsqlkit_database",
    "SELECT * FROM pg_catalog.pg_authid",
    "SELECT * FROM pg_shadow WHERE pg_read_file('x') = ''",
    "UPDATE pg_catalog.pg_authid SET rolsuper = true",
    "UPDATE pg_proc SET prosrc = 'pg_read_file' WHERE proname = 'lower'",
    "DELETE FROM pg_class",
    "INSERT INTO pg_catalog.pg_dsqlkit_jobs (job_id) VALUES ('x')",
    "UPDATE pg_dsqlkit_iam_pg_role_mappings SET arn = 'x'",
    "DROP TABLE pg_catalog.pg_dsqlkit_jobs",
    "ALTER TABLE pg_catalog.pg_dsqlkit_jobs ADD COLUMN x int",
    "CREATE INDEX ASYNC ON pg_catalog.pg_dsqlkit_jobs (status)",
    "GRANT ALL ON pg_catalog.pg_dsqlkit_jobs TO escape_clerk",
    "CREATE TABLE pg_catalog.mine (id int)",
    "CREATE FUNCTION pg_catalog.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION pg_catalog.version() RETURNS text LANGUAGE sql AS 'SELECT ''mine'''",
    "ALTER FUNCTION pg_catalog.engine_checks(regclass, boolean) OWNER TO admin",
    "ALTER FUNCTION pg_catalog.lower(text) RENAME TO upper_too",
    "DROP FUNCTION pg_catalog.engine_note(regclass)",
    "DROP EVENT TRIGGER engine_condition_foreign_keys",
    "ALTER EVENT TRIGGER engine_condition_foreign_keys DISABLE",
    "ALTER DATABASE postgres OWNER TO admin",
    "DROP DATABASE template1",
    "PREPARE dsqlkit_own_0 AS SELECT 1",
    "EXECUTE dsqlkit_own_0",
    "SET dsqlkit.setval = '1'",
    "SELECT set_config('dsqlkit.setval', '1259', false)",
    # files, programs, libraries
    "COPY t TO '/tmp/t'",
    "COPY t FROM PROGRAM 'id'",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT lo_import('/etc/passwd')",
    "LOAD 'plpgsql'",
    "DO $$ BEGIN PERFORM 1; END $$",
    "CREATE FUNCTION c() RETURNS int LANGUAGE c AS 'x', 'y'",
    "CREATE FUNCTION c() RETURNS text LANGUAGE internal AS 'pg_read_file'",
    "CREATE FUNCTION c() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
    "CREATE EXTENSION dblink",
    "CREATE SERVER s FOREIGN DATA WRAPPER x",
    "CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p",
    # other sessions
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT * FROM pg_stat_activity WHERE pg_cancel_backend(pid)",
    "SELECT pg_advisory_lock(1)",
    "NOTIFY x",
)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_refused(admin: Connection, attempt: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        admin.execute(attempt)  # type: ignore[call-overload]
    assert (refused.value.sqlstate or "") < "XX", attempt
    assert admin.execute("SELECT v FROM t").fetchone() == ("kept",)


def test_no_search_path_leads_to_the_machinery_s_tables(admin: Connection) -> None:
    for path in ("pg_catalog", "sys", "public"):
        admin.execute(f"SET search_path = {path}")
        for attempt in ("DELETE FROM pg_dsqlkit_jobs", "UPDATE pg_dsqlkit_iam_pg_role_mappings SET arn = 'mine'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table"):
                admin.execute(attempt)  # type: ignore[call-overload]
    admin.execute("RESET search_path")
    assert admin.execute("SELECT arn FROM sys.iam_pg_role_mappings WHERE arn = 'mine'").fetchall() == []


def test_no_function_writes_the_machinery_s_tables(admin: Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        admin.execute(
            "CREATE FUNCTION forge() RETURNS void LANGUAGE sql "
            "AS 'DELETE FROM pg_catalog.pg_dsqlkit_iam_pg_role_mappings'"
        )
    admin.execute("CREATE VIEW seen AS SELECT job_id, status FROM sys.jobs")
    before = admin.execute("SELECT * FROM sys.iam_pg_role_mappings").fetchall()
    for attempt in ("DELETE FROM seen", "UPDATE seen SET status = 'failed'"):
        with pytest.raises(psycopg.Error) as refused:
            admin.execute(attempt)  # type: ignore[call-overload]
        assert (refused.value.sqlstate or "") < "XX"
    assert admin.execute("SELECT * FROM sys.iam_pg_role_mappings").fetchall() == before != []


def test_functions_in_constraints_never_run_for_the_superuser(admin: Connection) -> None:
    """A constraint is validated in the background, by the machinery, with functions that anybody may have written."""
    admin.execute(f"CREATE FUNCTION harmless(id int) RETURNS boolean LANGUAGE sql AS $$ SELECT NOT ({POWERFUL}) $$")
    admin.execute("ALTER TABLE t ADD CONSTRAINT watched CHECK (harmless(id)) NOT VALID")
    (job,) = admin.execute("ALTER TABLE ASYNC t VALIDATE CONSTRAINT watched").fetchone() or ("",)
    ended = admin.execute(f"CALL sys.wait_for_job('{job}')").fetchone()
    assert ended == (True,), admin.execute("SELECT * FROM sys.jobs WHERE job_id = %s", [job]).fetchone()
    admin.execute("INSERT INTO t VALUES (2, 'checked')")
    admin.execute("DELETE FROM t WHERE id = 2")


def test_functions_in_indexes_never_run_for_the_superuser(admin: Connection) -> None:
    admin.execute(
        f"CREATE FUNCTION telling(id int) RETURNS int IMMUTABLE LANGUAGE sql "
        f"AS $$ SELECT CASE WHEN {POWERFUL} THEN 0 ELSE id END $$"
    )
    admin.execute("INSERT INTO t VALUES (2, 'another')")
    (job,) = admin.execute("CREATE UNIQUE INDEX ASYNC told ON t (telling(id))").fetchone() or ("",)
    assert admin.execute(f"CALL sys.wait_for_job('{job}')").fetchone() == (True,), "no two rows look the same"
    admin.execute("DELETE FROM t WHERE id = 2")


@pytest.mark.parametrize(
    "attempt",
    [
        "SELECT * FROM t",
        "INSERT INTO t VALUES (2, 'x')",
        "DELETE FROM t",
        "CREATE TABLE public.mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE ROLE escape_child",
        "GRANT SELECT ON t TO escape_clerk",
        "ALTER TABLE t OWNER TO escape_clerk",
        "DROP TABLE t",
        "SET ROLE admin",
        "SET ROLE dsql_loader",
        "GRANT dsql_loader TO escape_clerk WITH INHERIT TRUE",
        "GRANT admin TO escape_clerk",
        f"AWS IAM GRANT escape_clerk TO '{ARN}2'",
        "DELETE FROM pg_catalog.pg_dsqlkit_jobs",
        "SELECT pg_catalog.engine_checks('t', false)",
    ],
)
def test_refused_to_others(dsql_cluster: LocalCluster, admin: Connection, attempt: str) -> None:
    with dsql_cluster.connect("escape_clerk", autocommit=True) as clerk, pytest.raises(psycopg.Error) as refused:
        clerk.execute(attempt)  # type: ignore[call-overload]
    assert refused.value.sqlstate in ("42501", "0A000"), attempt
    assert admin.execute("SELECT * FROM t").fetchall() == [(1, "kept")]
