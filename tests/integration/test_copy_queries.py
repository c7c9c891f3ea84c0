"""COPY reads what its query means, whatever it names: tables behind views, and those that functions read."""

from __future__ import annotations

import psycopg
import pytest
from two_sessions import Session

DEFINITIONS = (
    "CREATE TABLE t (id int PRIMARY KEY, v int)",
    "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
    "CREATE TABLE u (id int PRIMARY KEY)",
    "INSERT INTO u VALUES (1), (7)",
    "CREATE VIEW seen AS SELECT * FROM t",
    "CREATE VIEW seen_again AS SELECT * FROM seen WHERE id > 1",
    "CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t'",
    "CREATE FUNCTION is_there(x int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM t WHERE id = x)'",
)


@pytest.fixture
def defined(one: Session, other: Session) -> Session:
    """A session that has nothing of it in memory."""
    for sql in DEFINITIONS:
        one.run(sql)
    return other


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM t ORDER BY id",
        "SELECT * FROM seen_again ORDER BY id",
        "SELECT counted()",
        "SELECT counted(), id FROM u ORDER BY id",
        "SELECT public.counted() FROM u",
        "SELECT seen.id, u.id FROM seen JOIN u ON u.id = seen.id",
        "SELECT count(*) FROM u, seen_again",
        "SELECT id FROM u WHERE id IN (SELECT id FROM seen)",
        "WITH x AS (SELECT * FROM t) SELECT count(*) FROM x, u",
        "SELECT id FROM u WHERE is_there(id)",
    ],
)
def test_a_copied_query_answers_as_the_query(defined: Session, query: str) -> None:
    with defined.connection.cursor().copy(f"COPY ({query}) TO STDOUT".encode()) as copy:
        copied = b"".join(bytes(part) for part in copy).decode().splitlines()
    assert copied == ["\t".join(map(str, row)) for row in defined.rows(query)] != []


def test_rules_of_copied_rows_read_tables(defined: Session) -> None:
    defined.run("CREATE TABLE checked (id int PRIMARY KEY, n int CHECK (is_there(n)), d bigint DEFAULT counted())")
    copy_into = b"COPY checked (id, n) FROM STDIN"
    with defined.connection.cursor().copy(copy_into) as copy:
        copy.write("1\t2\n2\t3\n")
    assert defined.rows("SELECT id, n, d FROM checked ORDER BY id") == [(1, 2, 3), (2, 3, 3)]
    with pytest.raises(psycopg.errors.CheckViolation), defined.connection.cursor().copy(copy_into) as copy:
        copy.write("3\t4\n")


def test_defaults_of_copied_rows_read_tables(defined: Session) -> None:
    defined.run("CREATE TABLE d (id int PRIMARY KEY, n bigint DEFAULT counted())")
    with defined.connection.cursor().copy("COPY d (id) FROM STDIN") as copy:
        copy.write("1\n2\n")
    assert defined.rows("SELECT id, n FROM d ORDER BY id") == [(1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("query", "loses"),
    [
        ("SELECT * FROM t WHERE id = 1 FOR UPDATE", True),
        ("SELECT * FROM t WHERE id = 1 FOR KEY SHARE", False),
        ("SELECT * FROM held WHERE id = 1", True),
        ("SELECT * FROM shared WHERE id = 1", False),
        ("SELECT * FROM seen WHERE id = 1", False),
    ],
)
def test_a_copied_query_locks_as_the_query(defined: Session, one: Session, query: str, loses: bool) -> None:
    one.run("CREATE VIEW held AS SELECT * FROM t FOR UPDATE")
    one.run("CREATE VIEW shared AS SELECT * FROM seen FOR KEY SHARE")
    defined.run("BEGIN")
    with defined.connection.cursor().copy(f"COPY ({query}) TO STDOUT".encode()) as copy:
        assert b"".join(bytes(part) for part in copy) == b"1\t1\n"
    one.run("UPDATE t SET v = 5 WHERE id = 1")
    if loses:
        with pytest.raises(psycopg.errors.SerializationFailure, match="OC000"):
            defined.run("COMMIT")
    else:
        defined.run("COMMIT")
