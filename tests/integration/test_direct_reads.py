"""Reads that storage answers without an engine are the answers that the engine gives."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from outcomes import outcome
from psycopg import sql
from psycopg.rows import tuple_row

from dsql_server.testing import LocalCluster

Connection = psycopg.Connection[tuple[Any, ...]]

COLUMNS = {
    "k": "uuid", "b": "boolean", "i2": "smallint", "i4": "integer", "i8": "bigint", "t": "text", "v": "varchar(20)",
    "c": "char(5)", "n": "numeric(38, 9)", "m": "numeric(12, 4)", "d": "date", "ts": "timestamp", "tz": "timestamptz",
}  # fmt: skip
_ZONE = timezone.utc
#: Few values of each, the ends among them, so that conditions meet rows.
VALUES: dict[str, list[Any]] = {
    "k": [UUID(int=0), UUID(int=2**128 - 1), *(UUID(int=i << 100) for i in range(1, 7))],
    "b": [True, False],
    "i2": [-32768, -1, 0, 1, 32767],
    "i4": [-(2**31), -1, 0, 7, 2**31 - 1],
    "i8": [-(2**63), -1, 0, 7, 2**63 - 1],
    "t": ["", "a", "A", "ab", "ä", "日本", "a\nb", "it's"],
    "v": ["", "x", "y ", "z" * 20],
    "c": ["", "a", "abc", "abcde"],
    "n": [Decimal(x) for x in ("0", "0.00", "-1.50", "1e20", "1e-9", "NaN", "9999.9999")],
    "m": [Decimal(x) for x in ("0", "1.5", "-12345678.1234", "0.0001")],
    "d": [date(1, 1, 1), date(1999, 12, 31), date(2000, 1, 1), date(9999, 12, 31)],
    "ts": [datetime(1, 1, 1), datetime(1999, 12, 31, 23, 59, 59, 999999), datetime(2024, 2, 29, 12, 30)],
    "tz": [datetime(1970, 1, 1, tzinfo=_ZONE), datetime(2024, 2, 29, 1, 2, 3, 40, tzinfo=timezone(timedelta(hours=3)))],
}
ROUNDS = 120
_NUMBERS = itertools.count()


def direct_reads(cluster: LocalCluster) -> int:
    counted: int = cluster.metrics()["planner"]["direct_reads"]
    return counted


@pytest.fixture
def connection(dsql_cluster: LocalCluster, dsql_url: str) -> Iterator[Connection]:
    with dsql_cluster.connect(autocommit=True) as connected:
        yield connected


def ask(connection: Connection, text: str, values: tuple[Any, ...], prepare: bool, binary: bool) -> Any:
    cursor = connection.cursor(binary=binary, row_factory=tuple_row)
    return outcome(lambda: cursor.execute(sql.SQL(text), values, prepare=prepare))


def fresh(text: str) -> str:
    """The same statement in a text that no session has seen: the engine answers it."""
    return f"/* {next(_NUMBERS)} */ {text}"


def filled(cluster: LocalCluster, connection: Connection, rng: random.Random) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    connection.execute(f"CREATE TABLE one (id int PRIMARY KEY, {columns})")
    connection.execute(f"CREATE TABLE two (id int, line int, {columns}, PRIMARY KEY (id, line))")
    for name in ("k", "tz", "n", "t"):
        connection.execute(f"CREATE INDEX ASYNC ON one ({name}, i4)")
        connection.execute(f"CREATE INDEX ASYNC ON two ({name})")
    cluster.wait_for_jobs()
    for i in range(40):
        row = [rng.choice([*VALUES[name], None]) for name in COLUMNS]
        marks = ", ".join(["%s"] * len(row))
        connection.execute(f"INSERT INTO one VALUES ({i}, {marks})", row)
        connection.execute(f"INSERT INTO two VALUES ({i // 3}, {i % 3}, {marks})", row)


def condition(rng: random.Random, alias: str) -> tuple[str, list[str]]:
    """A condition on a column, and the columns that its parameters are values of."""
    name = rng.choice(list(COLUMNS))
    form = rng.choice(
        ["{} = %s", "{} = %s", "{} >= %s", "{} < %s", "{} BETWEEN %s AND %s", "{} IS NOT NULL", "{} IS NULL"]
    )
    return form.format(f"{alias}.{name}"), [name] * form.count("%s")


def query(rng: random.Random) -> tuple[str, list[str]]:
    """A statement that could be direct, and the columns of its parameters."""
    tables = rng.choice([["one o"], ["two w"], ["one o", "two w"]])
    conditions: list[str] = []
    parameters: list[str] = []
    for alias in (table[-1] for table in tables):
        for _ in range(rng.randint(1, 2)):
            text, names = condition(rng, alias)
            conditions.append(text)
            parameters += names
    aliases = [table[-1] for table in tables]
    names = [f"{rng.choice(aliases)}.{name}" for name in rng.sample(list(COLUMNS), rng.randint(1, 5))]
    columns = rng.choice([", ".join(names), "*", ", ".join(f"{alias}.*" for alias in reversed(aliases))])
    return f"SELECT {columns} FROM {', '.join(tables)} WHERE {' AND '.join(conditions)}", parameters


def test_random_reads_are_answered_as_by_the_engine(dsql_cluster: LocalCluster, connection: Connection) -> None:
    rng = random.Random(20)
    filled(dsql_cluster, connection, rng)
    before, found = direct_reads(dsql_cluster), 0
    for _ in range(ROUNDS):
        text, parameters = query(rng)
        for binary in (False, True):
            for _ in range(4):
                values = tuple(
                    rng.choice([*VALUES[name], None]) if rng.random() < 0.1 else rng.choice(VALUES[name])
                    for name in parameters
                )
                expected = ask(connection, fresh(text), values, prepare=False, binary=binary)
                for prepare in (False, True):
                    assert ask(connection, text, values, prepare, binary) == expected, (text, values)
                if not binary:
                    literal = psycopg.ClientCursor(connection).mogrify(sql.SQL(text), values).replace("%", "%%")
                    reference = ask(connection, fresh(literal), (), prepare=False, binary=True)
                    assert ask(connection, literal, (), prepare=False, binary=False) == reference, literal
                found += len(expected)
    # Of each kind one in four is the engine's, to learn from, and others have values that only the engine takes.
    assert direct_reads(dsql_cluster) - before > 4 * ROUNDS
    assert found > 10 * ROUNDS


def test_random_orders_are_those_of_the_engine(dsql_cluster: LocalCluster, connection: Connection) -> None:
    rng = random.Random(21)
    filled(dsql_cluster, connection, rng)
    before = direct_reads(dsql_cluster)
    for _ in range(ROUNDS):
        tables = rng.choice([["one o"], ["two w"], ["one o", "two w"]])
        aliases = [table[-1] for table in tables]
        by = [f"{rng.choice(aliases)}.{name}" for name in rng.sample(list(COLUMNS), rng.randint(1, 3))]
        keys = [f"{alias}.id" for alias in aliases] + (["w.line"] if "w" in aliases else [])
        order = ", ".join(f"{name}{rng.choice(['', ' ASC', ' DESC'])}" for name in (*by, *keys))
        columns = rng.choice(["*", ", ".join(keys), ", ".join(keys + by)])
        where = " AND ".join(f"{alias}.i4 IS NOT NULL AND {alias}.id < %s" for alias in aliases)
        text = f"SELECT {columns} FROM {', '.join(tables)} WHERE {where} ORDER BY {order}"
        for _ in range(3):
            values = tuple(rng.randint(2, 12) for _ in aliases)
            expected = list(map(repr, connection.execute(sql.SQL(fresh(text)), values, prepare=False)))
            for prepare in (False, True):
                found = list(map(repr, connection.execute(sql.SQL(text), values, prepare=prepare)))
                assert found == expected, (text, values)
    assert direct_reads(dsql_cluster) - before > ROUNDS


@pytest.mark.parametrize(
    "text",
    [
        "SELECT i4 AS t, t AS other FROM one WHERE id > %s ORDER BY t, id",
        "SELECT t FROM one WHERE id > %s ORDER BY 1, id",
        "SELECT FROM one WHERE id > %s ORDER BY id",
        "SELECT t FROM one WHERE id > %s ORDER BY i4 NULLS FIRST, id",
        "SELECT t FROM one WHERE id > %s ORDER BY t || 'x', id",
        "SELECT t AS i4 FROM one WHERE id > %s ORDER BY i4, id",
        "SELECT one.t FROM one, two WHERE one.id > %s AND one.id = two.id ORDER BY line, one.id",
    ],
)
def test_orders_that_mean_something_else(dsql_cluster: LocalCluster, connection: Connection, text: str) -> None:
    filled(dsql_cluster, connection, random.Random(22))
    expected = connection.execute(sql.SQL(fresh(text)), (3,), prepare=False).fetchall()
    for _ in range(3):
        assert connection.execute(sql.SQL(text), (3,), prepare=True).fetchall() == expected


def test_values_that_the_engine_refuses(dsql_cluster: LocalCluster, connection: Connection) -> None:
    connection.execute("CREATE TABLE one (id int PRIMARY KEY, k uuid, t text)")
    for column, good, bad in (
        ("id", "7", ("seven", "99999999999", "")),
        ("k", str(UUID(int=5)), ("5", str(UUID(int=5)) + "0")),
    ):
        text = f"SELECT t FROM one WHERE {column} = %s"
        for _ in range(3):
            connection.execute(sql.SQL(text), (good,), prepare=True)
        before = direct_reads(dsql_cluster)
        for value in bad:
            expected = ask(connection, fresh(text), (value,), prepare=False, binary=False)
            assert expected[0][:2] == "22"
            assert ask(connection, text, (value,), prepare=True, binary=False)[0] == expected[0]
        assert direct_reads(dsql_cluster) == before


READ = "SELECT t FROM one WHERE id = %s"


def test_texts_that_were_executed_before(dsql_cluster: LocalCluster, connection: Connection) -> None:
    """What drivers send before they prepare a statement: its text each time."""
    connection.execute("CREATE TABLE one (id int PRIMARY KEY, t text)")
    insert = "INSERT INTO one VALUES (%s, %s)"
    for key in range(3):
        connection.execute(insert, (key, f"row {key}"), prepare=False)
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute(insert, (2, "again"), prepare=False)
    before = direct_reads(dsql_cluster)
    for key in (0, 1, 2, 3):
        expected = [(f"row {key}",)] if key < 3 else []
        assert connection.execute(READ, (key,), prepare=False).fetchall() == expected
    assert direct_reads(dsql_cluster) == before + 3
    with connection.transaction():
        connection.execute("UPDATE one SET t = 'other' WHERE id = 1")
        assert connection.execute(READ, (1,), prepare=False).fetchall() == [("other",)]
    connection.execute("ALTER TABLE one RENAME COLUMN t TO u")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        connection.execute(READ, (1,), prepare=False)


@pytest.fixture
def read(connection: Connection) -> Connection:
    """A session in which READ is answered directly."""
    connection.execute("CREATE TABLE one (id int PRIMARY KEY, t text, at timestamptz)")
    connection.execute("INSERT INTO one VALUES (1, 'one', '2024-01-02 03:04:05+00'), (2, 'two', NULL)")
    for _ in range(3):
        assert connection.execute(READ, (1,), prepare=True).fetchall() == [("one",)]
    return connection


def values(connection: Connection, key: int) -> list[Any]:
    return [value for (value,) in connection.execute(READ, (key,), prepare=True)]


def test_a_block_sees_its_own_writes_and_its_snapshot(dsql_cluster: LocalCluster, read: Connection) -> None:
    with dsql_cluster.connect(autocommit=True) as other:
        read.execute("BEGIN")
        before = direct_reads(dsql_cluster)
        assert values(read, 1) == ["one"]
        assert direct_reads(dsql_cluster) == before + 1
        other.execute("UPDATE one SET t = 'ONE' WHERE id = 1")
        assert values(read, 1) == ["one"]
        read.execute("UPDATE one SET t = 'zwei' WHERE id = 2")
        assert values(read, 2) == ["zwei"]
        assert values(read, 1) == ["one"]
        read.execute("COMMIT")
    assert values(read, 1) == ["ONE"]
    assert values(read, 2) == ["zwei"]


def test_blocks_that_only_read_and_blocks_that_insert_too(dsql_cluster: LocalCluster, read: Connection) -> None:
    with dsql_cluster.connect(autocommit=True) as other:
        for key in range(10, 20):
            read.execute("BEGIN")
            before = direct_reads(dsql_cluster)
            assert values(read, 1) == ["one"]
            other.execute("UPDATE one SET t = %s WHERE id = 2", (str(key),))
            assert values(read, 2) != [str(key)]
            assert values(read, key) == []
            assert direct_reads(dsql_cluster) == before + 3
            if key % 2:
                read.execute("INSERT INTO one VALUES (%s, %s)", (key, "new"), prepare=True)
                assert values(read, key) == ["new"]
            assert values(read, 1) == ["one"]
            read.execute("COMMIT")
            assert read.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            assert values(read, 2) == [str(key)]
            assert other.execute("SELECT t FROM one WHERE id = %s", (key,)).fetchall() == [("new",)] * (key % 2)


def test_a_failed_block_answers_nothing(read: Connection) -> None:
    read.execute("BEGIN")
    with pytest.raises(psycopg.errors.UndefinedTable):
        read.execute("SELECT * FROM nothing")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        values(read, 1)
    read.execute("ROLLBACK")
    assert values(read, 1) == ["one"]


def test_a_catalog_that_moved_on_ends_the_block(dsql_cluster: LocalCluster, read: Connection) -> None:
    read.execute("BEGIN")
    assert values(read, 1) == ["one"]
    with dsql_cluster.connect(autocommit=True) as other:
        other.execute("ALTER TABLE one ADD COLUMN more int")
    with pytest.raises(psycopg.errors.SerializationFailure, match="OC001"):
        values(read, 1)
    read.execute("ROLLBACK")
    assert values(read, 1) == ["one"]


def test_a_privilege_that_is_taken_away_is_gone(dsql_cluster: LocalCluster, read: Connection) -> None:
    role = "direct_reader"
    read.execute(f"CREATE ROLE {role} WITH LOGIN")
    try:
        read.execute(f"GRANT SELECT ON one TO {role}")
        read.execute(f"AWS IAM GRANT {role} TO 'arn:aws:iam::123456789012:role/{role}'")
        with dsql_cluster.connect(role, autocommit=True) as reader:
            before = direct_reads(dsql_cluster)
            for _ in range(3):
                assert values(reader, 2) == ["two"]
            assert direct_reads(dsql_cluster) > before
            read.execute(f"REVOKE SELECT ON one FROM {role}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                values(reader, 2)
    finally:
        read.execute(f"REVOKE ALL ON one FROM {role}")
        read.execute(f"AWS IAM REVOKE {role} FROM 'arn:aws:iam::123456789012:role/{role}'")
        read.execute(f"DROP ROLE {role}")


def test_settings_that_values_texts_depend_on(read: Connection) -> None:
    def at() -> Any:
        cursor = read.cursor()
        cursor.execute("SELECT at FROM one WHERE id = %s", (1,), prepare=True)
        assert cursor.pgresult is not None
        return cursor.pgresult.get_value(0, 0)

    for _ in range(3):
        assert at() == b"2024-01-02 03:04:05+00"
    read.execute("SET TimeZone = 'Asia/Tokyo'")
    for _ in range(4):
        assert at() == b"2024-01-02 12:04:05+09"
    read.execute("SET TimeZone = 'UTC'")
    read.execute("SET DateStyle = 'German'")
    for _ in range(4):
        assert at() == b"02.01.2024 03:04:05 UTC"


def test_a_name_may_come_to_stand_for_another_statement(dsql_cluster: LocalCluster, read: Connection) -> None:
    read.prepare_threshold = None
    for text, expected in ((b"SELECT t FROM one WHERE id = $1", b"one"), (b"SELECT id FROM one WHERE id = $1", b"1")):
        assert read.pgconn.prepare(b"mine", text).status == psycopg.pq.ExecStatus.COMMAND_OK
        before = direct_reads(dsql_cluster)
        for _ in range(5):
            assert read.pgconn.exec_prepared(b"mine", [b"1"]).get_value(0, 0) == expected
            assert read.pgconn.exec_prepared(b"mine", [b"77"]).ntuples == 0
        assert direct_reads(dsql_cluster) == before + 9
        result = read.pgconn.exec_prepared(b"mine", [b"one"])
        assert (result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b"").decode() == "22P02"
        assert read.pgconn.exec_prepared(b"mine", [b"1"], result_format=1).get_value(0, 0) in (b"one", b"\0\0\0\1")
        read.execute("DEALLOCATE ALL")
        gone = read.pgconn.exec_prepared(b"mine", [b"1"])
        assert (gone.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b"").decode() == "26000"


def test_an_acknowledged_write_is_seen(dsql_cluster: LocalCluster, read: Connection) -> None:
    with dsql_cluster.connect(autocommit=True) as writer:
        for i in range(20):
            writer.execute("UPDATE one SET t = %s WHERE id = 1", (str(i),))
            assert values(read, 1) == [str(i)]
