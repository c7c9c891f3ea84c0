"""Writes that a statement's plan doesn't show: in functions that it calls, and of values that domains check."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.pq import ExecStatus
from two_sessions import Session

INSERTS = "CREATE FUNCTION put(i int) RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (i, i) RETURNING id'"


@pytest.fixture
def writers(one: Session) -> Session:
    """A table, one that refers to it, and functions that write the former, lock it, or call one that does."""
    one.run("CREATE TABLE t (id int PRIMARY KEY, v int UNIQUE)")
    one.run("CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE)")
    one.run(INSERTS)
    one.run("CREATE FUNCTION take(i int) RETURNS void LANGUAGE sql AS 'DELETE FROM t WHERE id = i'")
    one.run("CREATE FUNCTION put_next(i int) RETURNS int LANGUAGE sql AS 'SELECT put(i + 1)'")
    one.run("CREATE FUNCTION keep(i int) RETURNS int LANGUAGE sql AS 'SELECT v FROM t WHERE id = i FOR UPDATE'")
    one.run("CREATE VIEW putting AS SELECT put(100) AS id")
    return one


@pytest.mark.parametrize(
    ("sql", "ids"),
    [
        ("SELECT put(1)", [1]),
        ("SELECT put_next(1)", [2]),
        ("SELECT put(i) FROM generate_series(1, 3) AS i", [1, 2, 3]),
        ("SELECT id FROM putting", [100]),
        ("SELECT * FROM put(1)", [1]),
        ("VALUES (put(1))", [1]),
        ("INSERT INTO child SELECT 1, put(7)", [7]),
        ("SELECT count(*), put(1) FROM child", [1]),
        ("SELECT put(count(*)::int) FROM child", [0]),
        ("SELECT count(*) FROM child HAVING put(1) > 0", [1]),
        ("EXPLAIN ANALYZE SELECT put(1)", [1]),
        ("EXPLAIN SELECT put(1)", []),
    ],
)
def test_what_a_function_writes_is_committed(writers: Session, other: Session, sql: str, ids: list[int]) -> None:
    writers.run(sql)
    assert other.rows("SELECT id FROM t ORDER BY id") == [(i,) for i in ids]


def test_copy_commits_what_its_query_writes(writers: Session, other: Session) -> None:
    for query in (
        "SELECT put(1)",
        "SELECT id FROM putting",
        "INSERT INTO t VALUES (2, 2), (3, 3) RETURNING id",
        "UPDATE t SET v = 20 WHERE id = 2 RETURNING id",
        "DELETE FROM t WHERE id = 3 RETURNING id",
    ):
        with writers.connection.cursor().copy(f"COPY ({query}) TO STDOUT") as copy:
            assert list(copy)
    assert other.rows("SELECT id, v FROM t ORDER BY id") == [(1, 1), (2, 20), (100, 100)]


def test_functions_write_in_blocks_as_statements_do(writers: Session, other: Session) -> None:
    writers.run("BEGIN")
    writers.run("SELECT put(1), put(2)")
    assert writers.value("SELECT count(*) FROM t") == 2
    writers.run("UPDATE t SET v = v + 10 WHERE id = 1")
    writers.run("SELECT take(2)")
    writers.run("COMMIT")
    assert other.rows("SELECT id, v FROM t") == [(1, 11)]
    writers.run("BEGIN")
    writers.run("SELECT put(3)")
    writers.run("ROLLBACK")
    assert other.value("SELECT count(*) FROM t") == 1


def test_a_functions_writes_are_checked_and_cascade(writers: Session, other: Session) -> None:
    writers.run("SELECT put(1)")
    with pytest.raises(psycopg.errors.UniqueViolation, match="t_pkey"):
        other.run("SELECT put(1)")
    writers.run("INSERT INTO child VALUES (5, 1)")
    other.run("SELECT take(1)")
    assert writers.value("SELECT count(*) FROM child") == 0


def test_names_are_not_calls(writers: Session) -> None:
    """A column that is called as a function that writes makes no statement a write."""
    writers.run("CREATE TABLE posts (put int PRIMARY KEY, output text)")
    writers.run("BEGIN READ ONLY")
    assert writers.rows("SELECT put, output FROM posts AS putting_off WHERE put > 0") == []
    writers.run("COMMIT")


def test_any_name_and_any_way_to_write_it(writers: Session, other: Session) -> None:
    name = '"Pu""t \\ ü"'
    writers.run(INSERTS.replace("put(", f"{name}("))
    writers.run(f"SELECT {name}(1)")
    writers.run(f"INSERT INTO child VALUES (1, {name} /* ( */ (2)), (2, {name} -- x\n (3))")
    writers.run("SELECT PUT (4)")
    writers.run('SELECT public . "put"(5)')
    writers.run("CREATE FUNCTION rows_of_t() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t'")
    assert writers.value("SELECT public.rows_of_t()") == 5
    assert other.column("SELECT id FROM t ORDER BY id") == [1, 2, 3, 4, 5]


def test_relations_that_are_called_like_postgresqls_own(one: Session, other: Session) -> None:
    one.run("CREATE TABLE pg_things (id int PRIMARY KEY)")
    one.run("CREATE VIEW pg_shown AS SELECT id FROM pg_things")
    one.run("INSERT INTO pg_things VALUES (1)")
    one.run("INSERT INTO pg_shown VALUES (2)")
    for relation in ("pg_things", "pg_shown", "public.pg_things"):
        assert other.value(f"SELECT count(*) FROM {relation}") == 2
        assert other.column(f"SELECT id FROM {relation} ORDER BY id") == [1, 2]


def test_defaults_may_write(writers: Session, other: Session) -> None:
    writers.run("CREATE TABLE noted (id int PRIMARY KEY, t int DEFAULT put(9))")
    writers.run("INSERT INTO noted VALUES (1)")
    assert other.rows("SELECT id FROM t") == [(9,)]


def test_a_functions_locks_conflict(writers: Session, other: Session) -> None:
    writers.run("SELECT put(1)")
    other.run("BEGIN")
    assert other.value("SELECT keep(1)") == 1
    writers.run("UPDATE t SET v = 2 WHERE id = 1")
    with pytest.raises(psycopg.errors.SerializationFailure, match="OC000"):
        other.run("COMMIT")


def test_functions_that_write_are_refused_where_only_reads_may_be(writers: Session) -> None:
    writers.run("BEGIN READ ONLY")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        writers.run("SELECT put(1)")
    writers.run("ROLLBACK")


def test_the_row_limit_counts_what_a_query_writes_not_what_it_answers(one: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY)")
    one.run("BEGIN")
    found = one.rows("WITH w AS (INSERT INTO t VALUES (0) RETURNING id) SELECT g FROM w, generate_series(1, 3500) g")
    assert len(found) == 3500
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="transaction row limit exceeded"):
        one.run("WITH w AS (INSERT INTO t SELECT generate_series(1, 3000) RETURNING id) SELECT count(*) FROM w")
    one.run("ROLLBACK")
    assert one.value("SELECT count(*) FROM t") == 0


def test_functions_that_only_their_owner_may_call(writers: Session, other: Session) -> None:
    """The machinery can't plan their calls, and what they and the statements around them do counts all the same."""
    writers.run("CREATE TABLE numbered (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY, v int)")
    writers.run("CREATE FUNCTION next(i int) RETURNS int LANGUAGE sql AS 'SELECT i + 1'")
    for function in ("next", "put"):
        writers.run(f"REVOKE EXECUTE ON FUNCTION {function}(int) FROM PUBLIC")
    for session in (writers, other, writers):
        session.run("INSERT INTO numbered (v) VALUES (next(1))")
    writers.run("UPDATE numbered SET v = next(v) WHERE id = 2")
    assert other.rows("SELECT id, v FROM numbered ORDER BY id") == [(1, 2), (2, 3), (3, 2)]
    writers.run("DELETE FROM numbered WHERE id = next(0)")
    assert other.column("SELECT id FROM numbered ORDER BY id") == [2, 3]
    writers.run("SELECT put(5)")
    assert other.column("SELECT id FROM t") == [5]
    with pytest.raises(psycopg.errors.UniqueViolation):
        other.run("SELECT put(5)")


READ_THEN_WRITE = ("SELECT count(*) FROM t WHERE v <> chr(97)", "INSERT INTO t VALUES ('new')")


def test_rows_read_by_one_statement_of_a_request_are_not_written_by_the_next(one: Session, other: Session) -> None:
    """What a request reads isn't the transaction's own, whatever comes later in its implicit transaction."""
    one.run("CREATE TABLE t (v text)")
    one.run("INSERT INTO t VALUES ('b'), ('c')")
    one.connection.pgconn.exec_("; ".join(READ_THEN_WRITE).encode())
    assert other.column("SELECT v FROM t ORDER BY v") == ["b", "c", "new"]
    with one.connection.pipeline():
        for sql in READ_THEN_WRITE:
            one.run(sql)
    assert other.column("SELECT v FROM t ORDER BY v") == ["b", "c", "new", "new"]
    pgconn = one.connection.pgconn
    pgconn.enter_pipeline_mode()
    for sql in READ_THEN_WRITE:
        pgconn.send_query_params(sql.encode(), None)
        pgconn.send_flush_request()
        pgconn.flush()
        assert pgconn.get_result() is not None, "answered before the next statement is sent"
        assert pgconn.get_result() is None
    pgconn.pipeline_sync()
    assert pgconn.get_result() is not None
    pgconn.exit_pipeline_mode()
    assert other.column("SELECT v FROM t ORDER BY v") == ["b", "c", "new", "new", "new"]


def test_domains_that_refuse_null(one: Session, other: Session) -> None:
    """Statements are planned without the values of their parameters, which such a domain doesn't take."""
    one.run("CREATE DOMAIN some_name AS text NOT NULL")
    one.run("CREATE DOMAIN short_name AS some_name CHECK (VALUE IS NOT NULL AND length(VALUE) < 4)")
    one.run("CREATE TABLE t (id int PRIMARY KEY, n some_name, s short_name)")
    one.run("INSERT INTO t VALUES (1, 'a', 'b')")
    one.run("INSERT INTO t VALUES (%s, %s, %s)", 2, "c", "d")
    result = one.connection.pgconn.exec_params(b"INSERT INTO t VALUES ($1, $2, $3)", [b"3", b"e", b"f"])
    assert result.status == ExecStatus.COMMAND_OK
    assert other.rows("SELECT id, n, s FROM t ORDER BY id") == [(1, "a", "b"), (2, "c", "d"), (3, "e", "f")]
    other.run("UPDATE t SET n = 'x', s = 'y' WHERE id = 1")
    other.run("UPDATE t SET n = %s WHERE s = %s", "z", "d")
    assert one.rows("SELECT id, n, s FROM t WHERE id < 3 ORDER BY id") == [(1, "x", "y"), (2, "z", "d")]
    assert one.rows("SELECT id FROM t WHERE s = 'y'") == [(1,)]
    with pytest.raises(psycopg.errors.NotNullViolation, match="domain some_name does not allow null values"):
        one.run("INSERT INTO t VALUES (4, NULL, 'b')")
    with pytest.raises(psycopg.errors.CheckViolation, match="short_name_check"):
        one.run("INSERT INTO t VALUES (4, 'a', %s)", "long")
    one.run("DELETE FROM t WHERE n = %s", "x")
    # Nothing is left behind that a definition would take for a change of rows.
    one.run("DROP TABLE t")
