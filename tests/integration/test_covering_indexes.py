"""Covering indexes over values that no page of PostgreSQL's would hold: Aurora DSQL's indexes have no pages."""

from __future__ import annotations

import random
import string

import psycopg
import pytest
from two_sessions import Session

LONG_BYTES = 100_000


def long_value(seed: int) -> str:
    """Text that doesn't compress to what fits into an index."""
    return "".join(random.Random(seed).choices(string.ascii_letters + string.digits, k=LONG_BYTES))


@pytest.fixture
def covered(one: Session) -> Session:
    one.run("CREATE TABLE t (id int PRIMARY KEY, a int, v text)")
    assert one.finish("CREATE INDEX ASYNC covering ON t (a) INCLUDE (v)")
    return one


@pytest.mark.parametrize(
    "insert",
    ["INSERT INTO t VALUES (%s, %s, %s)", "INSERT INTO t SELECT %s, %s, %s", "INSERT INTO t VALUES (%s, %s, %s || '')"],
)
def test_long_values_are_included(covered: Session, other: Session, insert: str) -> None:
    for id_ in range(3):
        covered.run(insert, id_, id_, long_value(id_))
    for session in (covered, other):
        assert session.rows("SELECT id, v FROM t WHERE a = 1") == [(1, long_value(1))]
        assert session.column("SELECT id FROM t WHERE right(v, 5) = right(%s, 5)", long_value(2)) == [2]
        assert session.column("SELECT t.id FROM t JOIN (VALUES (0), (2)) x (a) ON x.a = t.a ORDER BY 1") == [0, 2]
        assert session.value("SELECT count(*) FROM t x JOIN t y ON x.a = y.a AND x.v = y.v") == 3


def test_updates_make_values_long_and_short_again(covered: Session, other: Session) -> None:
    covered.run("INSERT INTO t VALUES (1, 1, 'x'), (2, 2, 'y')")
    with covered.connection.transaction():
        assert covered.rows("SELECT id FROM t WHERE a = 2") == [(2,)]
        covered.run("UPDATE t SET v = %s WHERE a = 2", long_value(1))
        assert covered.rows("SELECT id, a FROM t WHERE a >= 1 ORDER BY a") == [(1, 1), (2, 2)]
        covered.run("UPDATE t SET a = a + 1")
        assert covered.column("SELECT id FROM t WHERE a = 3") == [2]
    assert other.rows("SELECT id, length(v) FROM t ORDER BY id") == [(1, 1), (2, LONG_BYTES)]
    other.run("UPDATE t SET v = 'z' WHERE a = 3")
    assert covered.rows("SELECT a, v FROM t ORDER BY a") == [(2, "x"), (3, "z")]
    covered.run("DELETE FROM t WHERE a = 3")
    assert other.column("SELECT id FROM t") == [1]


def test_an_index_that_comes_later_leaves_rows_readable(one: Session, other: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY, a int, v text)")
    one.run("INSERT INTO t VALUES (1, 1, %s)", long_value(1))
    assert one.finish("CREATE INDEX ASYNC covering ON t (a) INCLUDE (v)")
    for session in (one, other):
        assert session.value("SELECT length(v || '') FROM t WHERE a = 1") == LONG_BYTES
    assert one.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'covering'::regclass") is True


def test_a_unique_index_over_long_rows_stays_unique(one: Session, other: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY, a int, v text)")
    for id_ in (1, 2):
        one.run("INSERT INTO t VALUES (%s, %s, %s)", id_, id_, long_value(id_))
    assert one.finish("CREATE UNIQUE INDEX ASYNC only_a ON t (a) INCLUDE (v)")
    for session in (one, other):
        assert session.rows("SELECT id, length(v || '') FROM t ORDER BY id") == [(1, LONG_BYTES), (2, LONG_BYTES)]
        assert session.column("SELECT id FROM t WHERE a = 2 AND v <> ''") == [2]
    for duplicate in (
        "UPDATE t SET a = 1 WHERE id = 2",
        "UPDATE t SET a = 5",
        "INSERT INTO t VALUES (3, 2, 'x')",
        "INSERT INTO t SELECT id + 2, a, 'x' FROM t",
        "INSERT INTO t SELECT id + 2, 7, 'x' FROM t",
    ):
        with pytest.raises(psycopg.errors.UniqueViolation, match='"only_a"'):
            other.run(duplicate)
    other.run("UPDATE t SET a = a + 2")
    other.run("INSERT INTO t VALUES (3, 2, 'x')")
    other.run("DELETE FROM t WHERE a = 4")
    other.run("INSERT INTO t VALUES (4, 4, 'x')")
    assert one.column("SELECT a FROM t ORDER BY id") == [3, 2, 4]


def test_copied_rows_may_be_long(covered: Session, other: Session) -> None:
    with covered.connection.cursor().copy("COPY t FROM STDIN") as copy:
        for id_ in range(3):
            copy.write_row((id_, id_, long_value(id_)))
    assert other.column("SELECT id FROM t WHERE a = 2") == [2]


def test_prepared_statements_see_rows_of_any_length(covered: Session) -> None:
    """Their plans use the index in one transaction and must not in the next."""
    covered.run("INSERT INTO t VALUES (1, 1, 'x')")
    for id_ in range(2, 6):
        for _ in range(3):
            found = covered.connection.execute("SELECT length(v || '') FROM t WHERE a = %s", [1], prepare=True)
            assert found.fetchone() == (1,)
        covered.run("INSERT INTO t VALUES (%s, 1, %s)", id_, long_value(id_))
        found = covered.connection.execute("SELECT length(v || '') FROM t WHERE a = %s", [1], prepare=True)
        assert sorted(found.fetchall()) == [(1,), (LONG_BYTES,)]
        covered.run("DELETE FROM t WHERE id = %s", id_)


def test_jobs_read_long_rows(covered: Session) -> None:
    covered.run("INSERT INTO t VALUES (1, 1, %s)", long_value(1))
    covered.run("ALTER TABLE t ADD CONSTRAINT long CHECK (length(v) > 9) NOT VALID")
    assert covered.finish("ALTER TABLE ASYNC t VALIDATE CONSTRAINT long")
    assert covered.finish("CREATE UNIQUE INDEX ASYNC by_end ON t ((right(v, 9)))")
    assert covered.finish("CREATE INDEX ASYNC partial ON t (a) WHERE v LIKE '%x%'")
    assert covered.value("SELECT length(v) FROM t WHERE a = 1") == LONG_BYTES


def test_foreign_keys_act_on_long_rows(covered: Session, other: Session) -> None:
    covered.run("CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t ON DELETE SET NULL, v text)")
    assert covered.finish("CREATE INDEX ASYNC by_t ON c (t) INCLUDE (v)")
    covered.run("INSERT INTO t VALUES (1, 1, 'x')")
    covered.run("INSERT INTO c VALUES (1, 1, %s)", long_value(1))
    other.run("DELETE FROM t")
    assert covered.rows("SELECT t, length(v) FROM c") == [(None, LONG_BYTES)]


def test_plans_show_the_index(covered: Session) -> None:
    covered.run("INSERT INTO t VALUES (1, 1, %s)", long_value(1))
    (line, *_) = covered.column("EXPLAIN (COSTS OFF) SELECT v FROM t WHERE a = 1")
    assert line == "Index Only Scan using covering on t"
