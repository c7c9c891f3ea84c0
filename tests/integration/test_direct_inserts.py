"""Rows that are inserted without an engine are the rows that the engine would have inserted, or refused."""

from __future__ import annotations

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

from dsql_server.testing import LocalCluster

Connection = psycopg.Connection[tuple[Any, ...]]

COLUMNS = {
    "b": "boolean", "i2": "smallint", "i4": "integer NOT NULL", "i8": "bigint", "f4": "real", "f8": "double precision",
    "t": "text", "v": "varchar(5)", "w": "varchar", "n": "numeric(9, 4)", "m": "numeric", "u": "uuid", "y": "bytea",
    "d": "date", "ts": "timestamp", "tz": "timestamptz",
}  # fmt: skip
_NUMBERS = [0, 1, -1, 32767, 32768, -32769, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 99999, 100000]
_DECIMALS = [Decimal(x) for x in ("0", "0.00", "-1.50", "99999.9999", "99999.99995", "1e20", "1e-9", "NaN", "10000")]
#: Values that the column takes, and some that it refuses, rounds or cuts.
VALUES: dict[str, list[Any]] = {
    "b": [True, False],
    "i2": _NUMBERS,
    "i4": _NUMBERS,
    "i8": [*_NUMBERS, Decimal("1.5"), Decimal(7)],
    "f4": [0.0, -0.0, 1.5, 1e39, float("nan"), 7],
    "f8": [0.0, -0.0, 0.1, 1e300, float("inf"), 7, Decimal("0.1")],
    "t": ["", "a", "ä日本", "it's", "x" * 300],
    "v": ["", "abcde", "abcdef", "abcde  ", "日本日本日"],
    "w": ["", "w" * 300],
    "n": [*_NUMBERS, *_DECIMALS],
    "m": [*_NUMBERS, *_DECIMALS, Decimal("Infinity")],
    "u": [UUID(int=0), UUID(int=2**128 - 1)],
    "y": [b"", b"\0\xff", b"y" * 100],
    "d": [date(1, 1, 1), date(2024, 2, 29), date(9999, 12, 31)],
    "ts": [datetime(1, 1, 1), datetime(2024, 2, 29, 12, 30, 0, 1)],
    "tz": [datetime(1970, 1, 1, tzinfo=timezone.utc), datetime(2024, 2, 29, 1, tzinfo=timezone(timedelta(hours=3)))],
}
ROUNDS = 250
#: As text, which the server reads, and as psycopg likes it, which is binary for most types.
MARKS = ("%t", "%s")


def direct_inserts(cluster: LocalCluster) -> int:
    counted: int = cluster.metrics()["planner"]["direct_inserts"]
    return counted


@pytest.fixture
def connection(dsql_cluster: LocalCluster, dsql_url: str) -> Iterator[Connection]:
    with dsql_cluster.connect(autocommit=True) as connected:
        yield connected


@pytest.fixture(params=["extended", "simple"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(connection: Connection, text: str, values: tuple[Any, ...], protocol: str | None) -> Any:
    """The statement's outcome.

    ``protocol``: "extended" prepares the statement, "simple" sends a text with literals, "unnamed" the same text as a
    statement without a name, which the engine answers each time.
    """
    if protocol in ("simple", "unnamed"):
        literal = psycopg.ClientCursor(connection).mogrify(sql.SQL(text.replace("%t", "%s")), values)
        cursor = connection.cursor(binary=protocol == "unnamed")
        return outcome(lambda: cursor.execute(sql.SQL(literal)))
    return outcome(lambda: connection.execute(sql.SQL(text), values, prepare=protocol is not None))


def both(direct: Connection, protocol: str, engine: Connection, text: str, values: tuple[Any, ...] = ()) -> Any:
    """Run it here, and there, on the twin of its table, so that the engine answers: the answers are the same."""
    found = run(direct, text, values, protocol)
    reference = "unnamed" if protocol == "simple" else None
    said, told = run(engine, text.replace("one", "twin"), values, reference)
    expected = (said, told.replace("twin", "one") if isinstance(told, str) else told)
    assert found == expected, (text, values)
    return found


def same_tables(connection: Connection) -> int:
    """How many rows both tables have, byte for byte."""
    columns = ", ".join(COLUMNS)
    rows = [
        connection.execute(sql.SQL(f"SELECT id, {columns} FROM {name} ORDER BY id"), binary=binary).fetchall()
        for name in ("one", "twin")
        for binary in (False, True)
    ]
    assert list(map(repr, rows[0])) == list(map(repr, rows[2])) and list(map(repr, rows[1])) == list(map(repr, rows[3]))
    return len(rows[0])


def test_random_rows_are_stored_as_by_the_engine(
    dsql_cluster: LocalCluster, connection: Connection, protocol: str
) -> None:
    rng = random.Random(7)
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    for name in ("one", "twin"):
        connection.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, {columns})")
    before = direct_inserts(dsql_cluster)
    subsets = [rng.sample(list(COLUMNS), rng.randint(1, len(COLUMNS))) for _ in range(6)]
    with dsql_cluster.connect(autocommit=True) as engine:
        for at in range(ROUNDS):
            names = subsets[at % len(subsets)]
            mark = MARKS[at // len(subsets) % 2]
            row = []
            for name in names:
                # Mostly the first two, which most columns take: else no row would get through.
                choice = VALUES[name] if rng.random() < 0.1 else VALUES[name][:2]
                row.append(None if rng.random() < 0.02 else rng.choice(choice))
            marks = ", ".join([mark] * len(row))
            text = f"INSERT INTO one (id, {', '.join(names)}) VALUES (%s, {marks})"
            both(connection, protocol, engine, text, (at - rng.randint(0, 1), *row))
        assert same_tables(connection) > ROUNDS // 10
    assert direct_inserts(dsql_cluster) - before > ROUNDS // 10


def statement(rng: random.Random) -> tuple[str, tuple[Any, ...]]:
    key = rng.randint(0, 30)
    if rng.random() < 0.7:
        return "INSERT INTO one VALUES (%s, %s, %s)", (key, rng.randint(0, 9), rng.choice([None, "x", "y"]))
    return rng.choice(
        [
            ("SELECT * FROM one WHERE id = %s", (key,)),
            ("SELECT count(*), sum(v) FROM one", ()),
            ("SELECT * FROM one WHERE v = %s", (rng.randint(0, 9),)),
            ("UPDATE one SET v = v + 1 WHERE id < %s", (key,)),
            ("UPDATE one SET id = id + 100 WHERE id = %s", (key,)),
            ("DELETE FROM one WHERE id = %s", (key,)),
            ("INSERT INTO one VALUES (%s, 1, 'z') ON CONFLICT (id) DO UPDATE SET t = one.t || 'z'", (key,)),
            ("INSERT INTO one VALUES (%s, 2, 'r') RETURNING v", (key,)),
            ("INSERT INTO one (id) VALUES (%s)", (key,)),
            ("SELECT 1 / 0", ()),
            ("SELECT * FROM one WHERE id = %s FOR UPDATE", (key,)),
        ]
    )


def test_random_transactions_end_as_on_the_engine(
    dsql_cluster: LocalCluster, connection: Connection, protocol: str
) -> None:
    rng = random.Random(3)
    for name in ("one", "twin"):
        connection.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, v int DEFAULT 5, t text)")
        connection.execute(f"CREATE INDEX ASYNC ON {name} (v)")
    dsql_cluster.wait_for_jobs()
    before = direct_inserts(dsql_cluster)
    with dsql_cluster.connect(autocommit=True) as engine:
        for _ in range(60):
            both(connection, protocol, engine, "BEGIN")
            for _ in range(rng.randint(1, 6)):
                both(connection, protocol, engine, *statement(rng))
            both(connection, protocol, engine, rng.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]))
            for _ in range(rng.randint(0, 2)):
                both(connection, protocol, engine, *statement(rng))
            if rng.random() < 0.2:
                both(connection, protocol, engine, "DELETE FROM one")
        rows = [connection.execute(sql.SQL(f"SELECT * FROM {name} ORDER BY id")).fetchall() for name in ("one", "twin")]
        assert rows[0] == rows[1]
        by_index = connection.execute("SELECT count(*) FROM one WHERE v BETWEEN 0 AND 1000").fetchall()
        assert by_index == connection.execute("SELECT count(v) FROM twin").fetchall()
    assert direct_inserts(dsql_cluster) - before > 40


INSERT = "INSERT INTO one VALUES (%s, %s)"


@pytest.fixture
def writer(dsql_cluster: LocalCluster, connection: Connection) -> Connection:
    """A session in which INSERT is direct."""
    connection.execute("CREATE TABLE one (id int PRIMARY KEY, t text)")
    before = direct_inserts(dsql_cluster)
    for key in (-1, -2, -3):
        connection.execute(INSERT, (key, "old"), prepare=True)
    assert direct_inserts(dsql_cluster) > before
    return connection


def put(connection: Connection, key: int, text: str = "new") -> None:
    connection.execute(INSERT, (key, text), prepare=True)


def keys(connection: Connection) -> list[int]:
    return [key for (key,) in connection.execute("SELECT id FROM one WHERE id >= 0 ORDER BY id")]


def test_rows_are_seen_by_the_block_and_by_nobody_else_before_its_commit(
    dsql_cluster: LocalCluster, writer: Connection
) -> None:
    with dsql_cluster.connect(autocommit=True) as other:
        writer.execute("BEGIN")
        put(writer, 1)
        put(writer, 2)
        assert keys(other) == []
        assert keys(writer) == [1, 2]
        put(writer, 3)
        assert keys(writer) == [1, 2, 3]
        writer.execute("COMMIT")
        assert keys(other) == [1, 2, 3]


def test_rows_of_a_block_that_is_rolled_back_are_gone(writer: Connection) -> None:
    writer.execute("BEGIN")
    put(writer, 1)
    writer.execute("ROLLBACK")
    assert keys(writer) == []
    put(writer, 1)
    assert keys(writer) == [1]


def test_the_first_of_two_equal_keys_wins(dsql_cluster: LocalCluster, writer: Connection) -> None:
    with dsql_cluster.connect(autocommit=True) as other:
        other.execute("BEGIN")
        put(other, 5, "slower")
        put(writer, 5, "faster")
        with pytest.raises(psycopg.errors.SerializationFailure, match="OC000"):
            other.execute("COMMIT")
        with pytest.raises(psycopg.errors.UniqueViolation, match="one_pkey"):
            put(other, 5, "again")
    assert writer.execute("SELECT t FROM one WHERE id = 5").fetchall() == [("faster",)]


def test_a_block_that_only_reads_inserts_nothing(writer: Connection) -> None:
    writer.execute("BEGIN READ ONLY")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        put(writer, 1)
    writer.execute("ROLLBACK")


def test_a_definition_needs_a_transaction_without_rows(writer: Connection) -> None:
    writer.execute("BEGIN")
    put(writer, 1)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="ddl and dml"):
        writer.execute("CREATE TABLE other (id int PRIMARY KEY)")
    writer.execute("ROLLBACK")


def test_a_catalog_that_moved_on_ends_the_block(dsql_cluster: LocalCluster, writer: Connection) -> None:
    with dsql_cluster.connect(autocommit=True) as other:
        writer.execute("BEGIN")
        put(writer, 1)
        other.execute("ALTER TABLE one ADD COLUMN more int")
        with pytest.raises(psycopg.errors.SerializationFailure, match="OC001"):
            writer.execute("COMMIT")
        assert keys(writer) == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("ALTER TABLE one ADD CONSTRAINT small CHECK (id < 10) NOT VALID", psycopg.errors.CheckViolation),
        ("CREATE UNIQUE INDEX ASYNC small ON one (t)", psycopg.errors.UniqueViolation),
    ],
)
def test_rules_that_come_later_are_kept(
    dsql_cluster: LocalCluster, writer: Connection, change: str, error: type[psycopg.Error]
) -> None:
    writer.execute("DELETE FROM one")
    put(writer, 1, "same")
    changed = writer.execute(sql.SQL(change))
    if changed.description:
        writer.execute("CALL sys.wait_for_job(%s)", changed.fetchone())
    for _ in range(3):
        with pytest.raises(error):
            put(writer, 11, "same")


def test_a_privilege_that_is_taken_away_is_gone(dsql_cluster: LocalCluster, writer: Connection) -> None:
    role = "direct_writer"
    writer.execute(f"CREATE ROLE {role} WITH LOGIN")
    try:
        writer.execute(f"GRANT INSERT ON one TO {role}")
        writer.execute(f"AWS IAM GRANT {role} TO 'arn:aws:iam::123456789012:role/{role}'")
        with dsql_cluster.connect(role, autocommit=True) as other:
            before = direct_inserts(dsql_cluster)
            for key in range(4):
                put(other, key)
            assert direct_inserts(dsql_cluster) > before
            other.execute("BEGIN")
            put(other, 10)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute("SELECT * FROM one")
            other.execute("ROLLBACK")
            writer.execute(f"REVOKE INSERT ON one FROM {role}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                put(other, 11)
    finally:
        writer.execute(f"REVOKE ALL ON one FROM {role}")
        writer.execute(f"AWS IAM REVOKE {role} FROM 'arn:aws:iam::123456789012:role/{role}'")
        writer.execute(f"DROP ROLE {role}")


def test_the_row_limit_counts_them(writer: Connection) -> None:
    writer.execute("BEGIN")
    writer.execute("INSERT INTO one SELECT i, 'many' FROM generate_series(0, 2997) i")
    put(writer, 5000)
    put(writer, 5001)
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="row limit"):
        put(writer, 5002)
    writer.execute("ROLLBACK")


def test_statements_that_the_client_forgets_have_been_executed(writer: Connection) -> None:
    """What the engine hasn't been told yet doesn't depend on the client's own prepared statement."""
    writer.execute("BEGIN")
    put(writer, 1)
    writer.execute("DEALLOCATE ALL")
    assert keys(writer) == [1]
    writer.execute("COMMIT")
    assert keys(writer) == [1]
