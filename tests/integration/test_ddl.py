"""Definitions: seen by every session, replayed at a restart, and what they do to rows that are there."""

from __future__ import annotations

import base64
import os
import threading
import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import ExecStatus
from two_sessions import Session

from dsql_server.testing import LocalCluster

DEFINING_SESSIONS = 3
DEFINITIONS_A_SESSION = 8
DEFINING_ROUNDS = 30 if os.environ.get("DSQLKIT_FULL") == "1" else 3
ARN = "arn:aws:iam::123456789012:role/example"


# -- who sees what ----------------------------------------------------------------------------------------------------


def test_an_idle_session_meets_the_new_catalog(one: Session, other: Session) -> None:
    assert other.value("SELECT 1") == 1
    one.run("CREATE TABLE t (id int PRIMARY KEY, v text)")
    other.run("INSERT INTO t VALUES (1, 'a')")
    one.run("ALTER TABLE t RENAME COLUMN v TO w")
    assert other.rows("SELECT w FROM t") == [("a",)]
    one.run("ALTER TABLE t RENAME TO u")
    with pytest.raises(psycopg.errors.UndefinedTable):
        other.run("SELECT * FROM t")
    one.run("DROP TABLE u")
    with pytest.raises(psycopg.errors.UndefinedTable):
        other.run("SELECT * FROM u")


def test_an_idle_session_prepares_by_the_new_catalog(one: Session, other: Session) -> None:
    """Drivers that ask for a statement's parameters first send it, and wait, before they bind anything."""
    assert other.value("SELECT 1") == 1
    one.run("CREATE TABLE t (id int PRIMARY KEY)")
    pgconn = other.connection.pgconn
    assert pgconn.prepare(b"kept", b"SELECT * FROM t").status == ExecStatus.COMMAND_OK
    one.run("ALTER TABLE t ADD COLUMN v text")
    assert pgconn.prepare(b"later", b"SELECT * FROM t").status == ExecStatus.COMMAND_OK
    assert pgconn.describe_prepared(b"later").nfields == 2
    assert "cached plan must not change result type" in pgconn.exec_prepared(b"kept", None).get_error_message()
    one.run("DROP TABLE t")
    assert pgconn.prepare(b"gone", b"SELECT * FROM t").status == ExecStatus.FATAL_ERROR


@pytest.mark.parametrize("redefine", ["drop table", "drop column"])
def test_a_name_may_come_back_with_another_type(one: Session, other: Session, redefine: str) -> None:
    for session in (one, other):
        session.run("SET timezone = 'Asia/Tokyo'")
    for type_ in ("timestamp", "timestamptz", "date"):
        if redefine == "drop table" or type_ == "timestamp":
            one.run(f"CREATE TABLE t (id int PRIMARY KEY, v {type_})")
        else:
            one.run(f"ALTER TABLE t ADD COLUMN v {type_}")
        one.run("INSERT INTO t VALUES (1, '2012-10-15')")
        for session in (one, other):
            session.run("UPDATE t SET id = id + 1")
            assert str(session.value("SELECT v FROM t")).startswith("2012-10-15")
        assert one.value("SELECT v = '2012-10-15' FROM t") is True
        if redefine == "drop table":
            one.run("DROP TABLE t")
        else:
            one.run("ALTER TABLE t DROP COLUMN v")
            one.run("DELETE FROM t")


@pytest.mark.parametrize("statement", ["SELECT * FROM t", "INSERT INTO t VALUES (2)", "COMMIT"])
def test_a_transaction_on_an_older_catalog_fails(one: Session, other: Session, statement: str) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY)")
    other.run("BEGIN")
    other.run("INSERT INTO t VALUES (1)")
    one.run("CREATE TABLE unrelated (id int)")
    with pytest.raises(psycopg.errors.SerializationFailure, match=r"\(OC001\)"):
        other.run(statement)
    other.run("ROLLBACK")
    assert other.rows("SELECT * FROM t") == []


def test_a_table_made_after_the_transaction_began_is_not_there(one: Session, other: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY)")
    other.run("BEGIN")
    one.run("CREATE TABLE later (id int)")
    with pytest.raises(psycopg.errors.UndefinedTable):
        other.run("SELECT * FROM later")
    other.run("ROLLBACK")
    assert other.rows("SELECT * FROM later") == []


def test_a_definition_in_a_block_waits_for_its_commit(one: Session, other: Session) -> None:
    one.run("BEGIN")
    one.run("CREATE TABLE t (id int)")
    with pytest.raises(psycopg.errors.UndefinedTable):
        other.run("SELECT * FROM t")
    one.run("COMMIT")
    assert other.rows("SELECT * FROM t") == []
    one.run("BEGIN")
    one.run("DROP TABLE t")
    one.run("ROLLBACK")
    assert other.rows("SELECT * FROM t") == []


def test_of_two_definitions_at_a_time_one_fails(one: Session, other: Session) -> None:
    for session, name in ((one, "a"), (other, "b")):
        session.run("BEGIN")
        session.run(f"CREATE TABLE {name} (id int)")
    one.run("COMMIT")
    with pytest.raises(psycopg.errors.SerializationFailure, match=r"\(OC001\)"):
        other.run("COMMIT")
    assert other.column("SELECT relname FROM pg_class WHERE relname IN ('a', 'b')") == ["a"]


def test_definitions_on_their_own_queue_up(dsql_cluster: LocalCluster, one: Session) -> None:
    failures: list[str] = []

    def define(number: int) -> None:
        with dsql_cluster.connect(autocommit=True) as connection:
            for step in range(DEFINITIONS_A_SESSION):
                try:
                    connection.execute(f"CREATE TABLE t_{number}_{step} (id int PRIMARY KEY)".encode())
                except psycopg.Error as error:
                    failures.append(str(error))

    threads = [threading.Thread(target=define, args=(n,)) for n in range(DEFINING_SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = one.value("SELECT count(*) FROM pg_class WHERE relname LIKE 't\\_%' AND relkind = 'r'")
    assert (failures, made) == ([], DEFINING_SESSIONS * DEFINITIONS_A_SESSION)


def test_sessions_that_define_at_once_all_have_every_change(dsql_cluster: LocalCluster, one: Session) -> None:
    """Changes that arrive while a session catches up, and roles that all engine databases must let go of."""
    failures: list[str] = []

    def come_and_go(opening: str, kind: str, name: str, rest: str) -> None:
        with dsql_cluster.connect(autocommit=True) as connection:
            pending = [f"CREATE {kind} {name} {rest}", f"DROP {kind} {name}"] * DEFINITIONS_A_SESSION
            while pending:
                try:
                    connection.execute(f"{opening} {pending[0]}".encode())
                    del pending[0]
                except psycopg.errors.SerializationFailure:
                    pass  # only what is not alone in its text may lose against another
                except psycopg.Error as error:
                    failures.append(f"{pending[0]}: {error}")
                    return

    definitions = [
        ("", "TABLE", "t_0", "(id int PRIMARY KEY)"),
        ("", "ROLE", "r_0", ""),
        ("SELECT 1;", "TABLE", "t_1", "(id int PRIMARY KEY)"),
        ("SELECT count(*) FROM t;", "TABLE", "t_2", "(id int PRIMARY KEY)"),
    ]
    one.run("CREATE TABLE t (id int PRIMARY KEY)")
    threads = [threading.Thread(target=come_and_go, args=definition) for definition in definitions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert one.column("SELECT relname FROM pg_class WHERE relname LIKE 't\\_%' AND relkind = 'r'") == []


def test_a_defining_session_misses_no_change_that_a_job_makes(one: Session) -> None:
    for _ in range(DEFINING_ROUNDS):
        one.run("CREATE TABLE t (id int PRIMARY KEY, v int)")
        jobs = [one.value(f"CREATE UNIQUE INDEX ASYNC i_{n} ON t (v) WHERE v > {n}") for n in range(8)]
        for job_id in jobs:
            assert one.value(f"CALL sys.wait_for_job('{job_id}')") is True
        assert one.rows("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []
        one.run("DROP TABLE t")


# -- tables and columns -----------------------------------------------------------------------------------------------


def test_columns_come_and_go_around_rows(one: Session, other: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY, a text, b int)")
    one.run("INSERT INTO t VALUES (1, 'one', 10), (2, 'two', 20)")
    one.run("ALTER TABLE t ADD COLUMN c int")
    assert other.rows("SELECT * FROM t ORDER BY id") == [(1, "one", 10, None), (2, "two", 20, None)]
    other.run("UPDATE t SET c = 5 WHERE id = 1")
    one.run("ALTER TABLE t DROP COLUMN a")
    assert other.rows("SELECT * FROM t ORDER BY id") == [(1, 10, 5), (2, 20, None)]
    other.run("INSERT INTO t VALUES (3, 30, 7)")
    one.run("ALTER TABLE t ADD COLUMN a int")
    one.run("ALTER TABLE t ALTER COLUMN a SET DEFAULT 9")
    other.run("INSERT INTO t (id) VALUES (4)")
    expected = [(1, 10, 5, None), (2, 20, None, None), (3, 30, 7, None), (4, None, None, 9)]
    assert one.rows("SELECT * FROM t ORDER BY id") == other.rows("SELECT * FROM t ORDER BY id") == expected
    other.run("DELETE FROM t WHERE b = 10")
    assert one.column("SELECT id FROM t ORDER BY id") == [2, 3, 4]


def test_a_table_may_lose_all_columns(one: Session, other: Session) -> None:
    one.run("CREATE TABLE t (v int)")
    one.run("INSERT INTO t VALUES (1), (2)")
    one.run("ALTER TABLE t DROP COLUMN v")
    assert other.value("SELECT count(*) FROM t") == 2
    other.run("INSERT INTO t DEFAULT VALUES")
    one.run("ALTER TABLE t ADD COLUMN w int")
    assert other.rows("SELECT * FROM t") == [(None,)] * 3


def test_generated_columns_keep_their_values(one: Session, other: Session) -> None:
    one.run("CREATE TABLE t (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) STORED)")
    one.run("INSERT INTO t VALUES (1), (2)")
    assert other.rows("SELECT * FROM t ORDER BY a") == [(1, 2), (2, 4)]
    one.run("ALTER TABLE t ALTER COLUMN b DROP EXPRESSION")
    assert other.rows("SELECT * FROM t ORDER BY a") == [(1, 2), (2, 4)]
    other.run("UPDATE t SET b = 7 WHERE a = 1")
    assert one.rows("SELECT * FROM t ORDER BY a") == [(1, 7), (2, 4)]


def test_everything_can_be_renamed(one: Session, other: Session) -> None:
    one.run("CREATE SCHEMA s")
    one.run("CREATE TABLE t (id int PRIMARY KEY, v int UNIQUE)")
    one.run("INSERT INTO t VALUES (1, 1), (2, 2)")
    one.run("ALTER TABLE t SET SCHEMA s")
    assert other.column("SELECT id FROM s.t WHERE v = 2") == [2]
    one.run("ALTER SCHEMA s RENAME TO renamed")
    one.run("ALTER TABLE renamed.t RENAME TO u")
    one.run("ALTER TABLE renamed.u RENAME COLUMN v TO w")
    one.run("ALTER INDEX renamed.t_v_key RENAME TO w_key")
    assert other.column("SELECT id FROM renamed.u WHERE w = 2") == [2]
    other.run("INSERT INTO renamed.u VALUES (3, 3)")
    with pytest.raises(psycopg.errors.UniqueViolation, match="w_key"):
        other.run("INSERT INTO renamed.u VALUES (4, 2)")
    assert one.column("SELECT id FROM renamed.u ORDER BY id") == [1, 2, 3]


def test_a_dropped_tables_rows_are_gone(dsql_cluster: LocalCluster, one: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY, v int UNIQUE)")
    one.run("INSERT INTO t SELECT g, g FROM generate_series(1, 2500) g")
    one.run("DROP TABLE t")
    (job,) = one.column("SELECT job_id FROM sys.jobs WHERE job_type = 'DROP' ORDER BY start_time DESC, job_id LIMIT 1")
    assert one.wait_for(job)
    one.run("CREATE TABLE t (id int PRIMARY KEY, v int UNIQUE)")
    assert one.rows("SELECT * FROM t") == []
    one.run("INSERT INTO t VALUES (1, 1)")


# -- other objects ----------------------------------------------------------------------------------------------------


def test_views_functions_domains_statistics_and_comments(one: Session, other: Session) -> None:
    one.run("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    one.run("CREATE TABLE t (id positive PRIMARY KEY, a int, b int)")
    other.run("INSERT INTO t VALUES (1, 2, 3)")
    with pytest.raises(psycopg.errors.CheckViolation):
        other.run("INSERT INTO t VALUES (0, 2, 3)")
    one.run("CREATE VIEW sums AS SELECT id, a + b AS sum FROM t")
    one.run("CREATE FUNCTION sum_of(wanted int) RETURNS int LANGUAGE sql AS 'SELECT sum FROM sums WHERE id = wanted'")
    assert other.value("SELECT sum_of(1)") == 5
    one.run("CREATE OR REPLACE VIEW sums AS SELECT id, a * b AS sum FROM t")
    assert other.value("SELECT sum_of(1)") == 6
    one.run("CREATE STATISTICS ab ON a, b FROM t")
    one.run("COMMENT ON TABLE t IS 'rows'")
    assert other.value("SELECT obj_description('t'::regclass)") == "rows"
    assert other.column("SELECT stxname FROM pg_statistic_ext") == ["ab"]
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        one.run("DROP TABLE t")
    one.run("DROP TABLE t CASCADE")
    with pytest.raises(psycopg.errors.UndefinedTable):
        other.run("SELECT * FROM sums")


def test_a_schema_comes_with_its_objects_and_goes_with_them(one: Session, other: Session) -> None:
    one.run("CREATE SCHEMA s CREATE TABLE t (id int PRIMARY KEY) CREATE VIEW v AS SELECT id FROM t")
    other.run("INSERT INTO s.t VALUES (1)")
    assert one.rows("SELECT * FROM s.v") == [(1,)]
    one.run("DROP SCHEMA s CASCADE")
    with pytest.raises(psycopg.errors.UndefinedTable):
        other.run("SELECT * FROM s.t")


def test_definitions_follow_the_authors_search_path(one: Session, other: Session) -> None:
    one.run("CREATE SCHEMA s")
    one.run("SET search_path TO s")
    one.run("CREATE TABLE t (id int PRIMARY KEY)")
    one.run("CREATE VIEW v AS SELECT * FROM t -- ends in a comment")
    other.run("INSERT INTO s.t VALUES (1)")
    assert other.rows("SELECT * FROM s.v") == [(1,)]


def test_roles_and_grants(dsql_cluster: LocalCluster, one: Session, other: Session) -> None:
    one.run("CREATE SCHEMA s")
    one.run("CREATE TABLE s.t (id int PRIMARY KEY)")
    one.run("INSERT INTO s.t VALUES (1)")
    one.run("CREATE ROLE reader WITH LOGIN")
    one.run(f"AWS IAM GRANT reader TO '{ARN}'")
    try:
        one.run("GRANT USAGE ON SCHEMA s TO reader")
        one.run("GRANT SELECT ON s.t TO reader")
        with dsql_cluster.connect("reader", autocommit=True) as connection:
            reader = Session(connection)
            assert reader.rows("SELECT * FROM s.t") == [(1,)]
            for refused in ("INSERT INTO s.t VALUES (2)", "CREATE TABLE public.mine (id int)"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    reader.run(refused)
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for database postgres"):
                reader.run("CREATE SCHEMA mine")
        one.run(f"AWS IAM REVOKE reader FROM '{ARN}'")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist) as kept:
            one.run("DROP ROLE reader")
        assert sorted((kept.value.diag.message_detail or "").splitlines()) == [
            "privileges for schema s",
            "privileges for table s.t",
        ]
    finally:
        one.run("REVOKE SELECT ON s.t FROM reader")
        one.run("REVOKE USAGE ON SCHEMA s FROM reader")
        one.run("DROP ROLE reader")
    assert other.value("SELECT count(*) FROM pg_roles WHERE rolname = 'reader'") == 0
    other.run("DROP TABLE s.t")


def test_renamed_roles_keep_their_grants(one: Session, other: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY)")
    one.run("CREATE ROLE before_it")
    try:
        one.run("GRANT SELECT ON t TO before_it")
        one.run("ALTER ROLE before_it RENAME TO after_it")
        acl = "SELECT array_to_string(relacl, ' ') FROM pg_class WHERE relname = 't'"
        assert "after_it=r/admin" in one.value(acl) and "after_it=r/admin" in other.value(acl)
    finally:
        one.run("DROP TABLE t")
        one.run("DROP ROLE IF EXISTS after_it")


def test_iam_trust_is_recorded_and_keeps_the_role(one: Session, other: Session) -> None:
    one.run("CREATE ROLE trusted WITH LOGIN")
    one.run("CREATE ROLE without_login")
    try:
        one.run(f"AWS IAM GRANT trusted TO '{ARN}'")
        recorded = "SELECT pg_role_name, arn, grantor_pg_role_name FROM sys.iam_pg_role_mappings"
        assert other.rows(recorded) == [("trusted", ARN, "admin")]
        with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="cannot be dropped"):
            other.run("DROP ROLE trusted")
        for refused, reason in (
            ("trusted TO 'somebody'", "IAM role must look like an IAM ARN"),
            (f"without_login TO '{ARN}'", "role without_login must have the LOGIN attribute"),
            (f"admin TO '{ARN}'", "Role admin not supported"),
            (f"missing TO '{ARN}'", 'role "missing" does not exist'),
        ):
            with pytest.raises(psycopg.Error, match=reason):
                one.run(f"AWS IAM GRANT {refused}")
        one.run(f"AWS IAM REVOKE trusted FROM '{ARN}'")
        assert other.rows(recorded) == []
    finally:
        one.run("DROP ROLE trusted")
        one.run("DROP ROLE without_login")


def test_index_definitions_name_dsqls_access_method(one: Session) -> None:
    one.run('CREATE TABLE t (a int, "B c" text, d int, PRIMARY KEY (a, d))')
    assert one.finish('CREATE INDEX ASYNC i ON t ("B c") WHERE d > 3')
    assert one.column("SELECT indexdef FROM pg_indexes WHERE tablename = 't' ORDER BY indexname") == [
        'CREATE INDEX i ON public.t USING btree_index ("B c") WHERE (d > 3)',
        'CREATE UNIQUE INDEX t_pkey ON public.t USING btree_index (a, d) INCLUDE ("B c")',
    ]
    columns = "SELECT pg_get_indexdef('i'::regclass, 1, true), pg_get_indexdef('i'::regclass, 0, true)"
    assert one.rows(columns) == [('"B c"', 'CREATE INDEX i ON t USING btree_index ("B c") WHERE d > 3')]


def test_functions_of_the_sys_schema(one: Session) -> None:
    number = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
    text = base64.b32encode(number.bytes).decode().rstrip("=").lower()
    assert one.value("SELECT sys.uuid_to_base32_str(%s)", number) == text
    assert one.value("SELECT sys.base32_str_to_uuid(%s)", text) == number
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        one.run("SELECT sys.base32_str_to_uuid('no-such-id')")
    one.run("CREATE DOMAIN inner_type AS int")
    one.run("CREATE DOMAIN outer_type AS inner_type")
    assert one.value("SELECT sys.base_type_oid('outer_type'::regtype)::regtype::text") == "integer"


# -- constraints that aren't valid yet --------------------------------------------------------------------------------


def test_rows_that_violate_an_unvalidated_check_can_be_read(one: Session, other: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY, v int)")
    one.run("INSERT INTO t VALUES (1, 1), (2, 200)")
    one.run("ALTER TABLE t ADD CONSTRAINT small CHECK (v < 100) NOT VALID")
    assert other.rows("SELECT * FROM t ORDER BY id") == [(1, 1), (2, 200)]
    for refused in ("INSERT INTO t VALUES (3, 300)", "UPDATE t SET v = 300 WHERE id = 1"):
        with pytest.raises(psycopg.errors.CheckViolation, match="small"):
            other.run(refused)
    other.run("UPDATE t SET v = 20 WHERE id = 2")
    assert one.column("SELECT v FROM t ORDER BY id") == [1, 20]


def test_rows_can_be_read_whose_check_calls_a_function_that_reads(one: Session, other: Session) -> None:
    one.run("CREATE TABLE known (id int PRIMARY KEY)")
    one.run("INSERT INTO known VALUES (1), (2), (3)")
    one.run(
        "CREATE FUNCTION is_known(x int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM known WHERE id = x)'"
    )
    one.run("CREATE TABLE t (id int PRIMARY KEY, n int, CHECK (is_known(n)))")
    one.run("INSERT INTO t VALUES (1, 1), (2, 2)")
    for session in (one, other):
        assert session.rows("SELECT id, n + 0 FROM t ORDER BY n") == [(1, 1), (2, 2)]
        assert session.column("SELECT t.id FROM t JOIN known ON known.id = t.n WHERE abs(n) = 2") == [2]
        for refused in ("UPDATE t SET n = 9 WHERE id = 1", "INSERT INTO t SELECT 3, n + 7 FROM t"):
            with pytest.raises(psycopg.errors.CheckViolation):
                session.run(refused)
    other.run("UPDATE t SET n = 3 WHERE n + 0 = 2")
    assert one.column("SELECT n FROM t ORDER BY id") == [1, 3]


def test_a_constraint_is_validated_in_the_background(one: Session, other: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY, v int)")
    one.run("INSERT INTO t VALUES (1, 1), (2, 200)")
    one.run("ALTER TABLE t ADD CONSTRAINT small CHECK (v < 100) NOT VALID")
    validate = "ALTER TABLE ASYNC t VALIDATE CONSTRAINT small"
    is_valid = "SELECT convalidated FROM pg_constraint WHERE conname = 'small'"
    assert not one.finish(validate)
    details = "SELECT status, details FROM sys.jobs WHERE job_type = 'VALIDATE_CONSTRAINT' ORDER BY start_time DESC"
    assert one.rows(details)[0] == ("failed", 'check constraint "small" of relation "t" is violated by some row')
    assert other.value(is_valid) is False
    other.run("DELETE FROM t WHERE id = 2")
    assert one.finish(validate)
    assert one.value(is_valid) is other.value(is_valid) is True
    assert one.finish(validate)


def test_a_foreign_key_is_validated_in_the_background(one: Session, other: Session) -> None:
    one.run("CREATE TABLE parent (id int PRIMARY KEY, code text UNIQUE)")
    one.run("CREATE TABLE child (id int PRIMARY KEY, parent_id bigint, code text)")
    one.run("INSERT INTO parent VALUES (1, 'a'), (2, 'b')")
    one.run("INSERT INTO child VALUES (1, 1, 'a'), (2, 9, 'b'), (3, NULL, NULL)")
    one.run("ALTER TABLE child ADD CONSTRAINT by_id FOREIGN KEY (parent_id) REFERENCES parent (id) NOT VALID")
    one.run("ALTER TABLE child ADD CONSTRAINT by_code FOREIGN KEY (code) REFERENCES parent (code) NOT VALID")
    assert len(other.rows("SELECT * FROM child")) == 3
    assert one.finish("ALTER TABLE ASYNC child VALIDATE CONSTRAINT by_code")
    assert not one.finish("ALTER TABLE ASYNC child VALIDATE CONSTRAINT by_id")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        other.run("INSERT INTO child VALUES (4, 8, 'a')")
    other.run("UPDATE child SET parent_id = 2 WHERE id = 2")
    assert one.finish("ALTER TABLE ASYNC child VALIDATE CONSTRAINT by_id")
    valid = other.column("SELECT convalidated FROM pg_constraint WHERE conname IN ('by_id', 'by_code')")
    assert valid == [True, True]


def test_validating_an_unknown_constraint_is_refused_at_once(one: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY)")
    with pytest.raises(psycopg.errors.UndefinedObject):
        one.run("ALTER TABLE ASYNC t VALIDATE CONSTRAINT nothing")


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_table_has_no_more_columns_and_indexes_than_allowed(one: Session) -> None:
    one.run(f"CREATE TABLE t ({', '.join(f'c{n} int' for n in range(254))}, PRIMARY KEY (c0))")
    one.run("ALTER TABLE t ADD COLUMN last int")
    with pytest.raises(psycopg.errors.TooManyColumns, match="tables can have at most 255 columns"):
        one.run("ALTER TABLE t ADD COLUMN more int")
    one.run("ALTER TABLE t DROP COLUMN last")
    one.run("ALTER TABLE t ADD COLUMN more int")
    for number in range(1, 24):
        one.run(f"CREATE INDEX ASYNC ON t (c{number})")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="more than 24 indexes per table are not allowed"):
        one.run("CREATE INDEX ASYNC ON t (c100)")


def test_there_are_no_more_schemas_and_statistics_than_allowed(one: Session) -> None:
    for number in range(10):
        one.run(f"CREATE SCHEMA s{number}")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="more than 10 schemas not allowed"):
        one.run("CREATE SCHEMA one_more")
    one.run("CREATE TABLE t (a int, b int)")
    for number in range(5):
        one.run(f"CREATE STATISTICS s{number} ON a, b FROM t")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="more than 5 extended statistics per table"):
        one.run("CREATE STATISTICS one_more ON a, b FROM t")


# -- many, and again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
def test_a_restart_replays_every_definition(tmp_path: Path, crash: bool) -> None:
    cluster = LocalCluster(data_dir=tmp_path / "data")
    with cluster, cluster.connect(autocommit=True) as connection:
        first = Session(connection)
        first.run("CREATE ROLE reader WITH LOGIN")
        first.run(f"AWS IAM GRANT reader TO '{ARN}'")
        first.run("CREATE SCHEMA s")
        first.run("CREATE TABLE s.t (id int PRIMARY KEY, gone text, v int)")
        first.run("INSERT INTO s.t VALUES (1, 'x', 10), (2, 'y', 10)")
        first.run("ALTER TABLE s.t DROP COLUMN gone")
        first.run("ALTER TABLE s.t RENAME TO u")
        first.run("GRANT USAGE ON SCHEMA s TO reader")
        first.run("GRANT SELECT ON s.u TO reader")
        first.run("CREATE VIEW public.v AS SELECT * FROM s.u")
        assert first.finish("CREATE INDEX ASYNC by_v ON s.u (v)")
        assert not first.finish("CREATE UNIQUE INDEX ASYNC unique_v ON s.u (v)")
        first.run("CREATE ROLE renamed_away")
        first.run("GRANT SELECT ON s.u TO renamed_away")
        first.run("REVOKE SELECT ON s.u FROM renamed_away")
        first.run("DROP ROLE renamed_away")
        if crash:
            cluster.kill()
    with cluster, cluster.connect("reader", autocommit=True) as connection:
        reader = Session(connection)
        assert reader.rows("SELECT * FROM s.u ORDER BY id") == [(1, 10), (2, 10)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.run("DELETE FROM s.u")
        valid = (
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 's.u'::regclass ORDER BY 1"
        )
        assert reader.rows(valid) == [("s.by_v", True), ("s.u_pkey", True), ("s.unique_v", False)] or reader.rows(
            valid
        ) == [("s.by_v", True), ("s.t_pkey", True), ("s.unique_v", False)]
        assert reader.rows("SELECT rolname FROM pg_roles WHERE rolname = 'renamed_away'") == []


def test_definitions_pass_notices_on(one: Session) -> None:
    """Also those that answer a job, and those that fail."""
    heard: list[str | None] = []
    one.connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    one.run("CREATE TABLE t (id int PRIMARY KEY, a int)")
    assert one.finish("CREATE INDEX ASYNC i ON t (a)")
    one.run("CREATE INDEX ASYNC IF NOT EXISTS i ON t (a)")
    one.run("ALTER TABLE ASYNC IF EXISTS missing VALIDATE CONSTRAINT c")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        one.run("DROP TABLE IF EXISTS missing, pg_class")
    assert heard == [
        'relation "i" already exists, skipping',
        'relation "missing" does not exist, skipping',
        'table "missing" does not exist, skipping',
    ]
