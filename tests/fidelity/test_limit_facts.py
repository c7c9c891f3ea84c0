"""Every limit of Aurora DSQL: what it is, and what is answered to whoever reaches it.

Limits that only much data or much time would reach are tried on a cluster on which they are lower.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator

import psycopg
import pytest
from facts import Fact, Witness, fact, parametrized, refused, rows, says, settled

from dsql_server.frontend.connection_rate import ConnectionRate
from dsql_server.interfaces.limits import DSQL_LIMITS, KIB, MIB, TIB
from dsql_server.interfaces.protocol import MESSAGE_SIZE_MAX_BYTES
from dsql_server.processor import definition_rules, row_limits
from dsql_server.processor.errors import SqlError
from dsql_server.statements import datatypes, objects, tables
from dsql_server.testing import LocalCluster

#: What a test can reach soon.
LOWER = {
    "query_memory_kb": 1000,
    "tables": 3,
    "views": 2,
    "sequences": 2,
    "schemas": 1,
    "transaction_size_bytes": 2 * MIB,
}
#: Each where nothing else has to be done in this time, however busy the machine is.
FEW_CONNECTIONS = {"connections": 4, "transaction_age_s": 1}
SHORT_CONNECTIONS = {"connection_age_s": 2}
CONNECTION_END_S_MAX = 60
WIDE = "CREATE TABLE t (id int PRIMARY KEY, v text, b bytea, j jsonb, d json, c varchar, p bpchar)"
KEYED = "CREATE TABLE t (k text PRIMARY KEY, u text UNIQUE, v text)"
LARGE = "repeat('x', 1048577)"
NOISE_OF_3_KIB = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 100) g)"
#: More than 1 MiB even where it is compressed.
NOISE = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 60000) g)"


def _columns(count: int) -> str:
    return ", ".join(f"c{n} int" for n in range(count))


def _too_large(shown: str, limit: int = MIB) -> object:
    return refused(f"datatype limit greater than {limit} bytes not supported for {shown}", "54000")


TOO_LARGE_KEY = refused("key size too large", "54000")

SIZES = [
    fact(
        "column-size",
        "a column holds 1 MiB, and not a byte more",
        says(f"INSERT INTO t (id, v) VALUES (1, {LARGE})", _too_large("text")),
        says(f"INSERT INTO t (id, b) VALUES (1, {LARGE}::bytea)", _too_large("bytea")),
        says(f"INSERT INTO t (id, j) VALUES (1, to_jsonb({NOISE}))", _too_large("jsonb")),
        says("INSERT INTO t (id, j) VALUES (2, jsonb_build_object('a', repeat('x', 3145728)))", "INSERT 0 1"),
        says("SELECT length(j ->> 'a') FROM t", rows("3145728")),
        says(f"INSERT INTO t (id, d) VALUES (1, to_json({NOISE}))", _too_large("json")),
        says("INSERT INTO t (id, c) VALUES (1, repeat('x', 65536))", _too_large("varchar", 65535)),
        says("INSERT INTO t (id, p) VALUES (1, repeat('x', 4097))", _too_large("char", 4096)),
        says("INSERT INTO t (id, v, c) VALUES (1, repeat('x', 1048576), repeat('x', 65535))", "INSERT 0 1"),
        says("UPDATE t SET v = v || 'x'", _too_large("text")),
        given=[WIDE],
    ),
    fact(
        "column-size-in-a-block",
        "the statement is refused that makes the column too large",
        says("BEGIN", "BEGIN"),
        says(f"INSERT INTO t (id, v) VALUES (1, {LARGE})", _too_large("text")),
        says("COMMIT", "ROLLBACK"),
        says("INSERT INTO t (id, v) VALUES (1, 'x')", "INSERT 0 1"),
        says("BEGIN", "BEGIN"),
        says(f"UPDATE t SET v = {LARGE}", _too_large("text")),
        says("COMMIT", "ROLLBACK"),
        says("SELECT v FROM t", rows("x")),
        says("UPDATE t SET v = repeat('x', 1048576)", "UPDATE 1"),
        says("BEGIN", "BEGIN"),
        says("UPDATE t SET v = v || 'x'", _too_large("text")),
        says("COMMIT", "ROLLBACK"),
        given=[WIDE],
    ),
    fact(
        "row-size",
        "a row holds 2 MiB",
        says(
            "INSERT INTO t (id, v, b, c) "
            "VALUES (1, repeat('x', 1048000), convert_to(repeat('x', 1048000), 'UTF8'), repeat('x', 1200))",
            refused("maximum row size exceeded", "54000"),
        ),
        says("INSERT INTO t (id, v, j) VALUES (1, repeat('x', 1048000), to_jsonb(repeat('x', 1048000)))", "INSERT 0 1"),
        given=[WIDE],
    ),
    fact(
        "key-size",
        "the values of a key are no longer than the longest that was seen",
        says("INSERT INTO t (k) VALUES (repeat('k', 1982))", TOO_LARGE_KEY),
        says("INSERT INTO t (k) VALUES (repeat('k', 1981))", "INSERT 0 1"),
        says("INSERT INTO t (k, u) VALUES ('a', repeat('k', 1982))", TOO_LARGE_KEY),
        says("UPDATE t SET u = repeat('u', 1982)", TOO_LARGE_KEY),
        says("INSERT INTO t (k, v) VALUES ('a', repeat('k', 1982))", "INSERT 0 1"),
        says(f"INSERT INTO t (k) VALUES ('{'k' * 1982}')", TOO_LARGE_KEY),
        says("BEGIN", "BEGIN"),
        says(f"INSERT INTO t (k) VALUES ('{'k' * 1982}')", TOO_LARGE_KEY),
        says("COMMIT", "ROLLBACK"),
        given=[KEYED],
    ),
    fact(
        "much-larger-keys",
        "so it is said of keys of any size, and of those that an expression makes",
        says(f"INSERT INTO t (k) VALUES ({NOISE_OF_3_KIB})", TOO_LARGE_KEY),
        says(f"INSERT INTO t (k, u) VALUES ('a', {NOISE})", TOO_LARGE_KEY),
        says("INSERT INTO t (k) VALUES (repeat('k', 1000000))", TOO_LARGE_KEY),
        says("CREATE INDEX ASYNC ON t ((v || '!'))", "CREATE INDEX"),
        settled(),
        says(f"INSERT INTO t (k, v) VALUES ('a', {NOISE_OF_3_KIB})", TOO_LARGE_KEY),
        says("INSERT INTO t (k, v) VALUES ('a', 'x')", "INSERT 0 1"),
        says(f"UPDATE t SET v = {NOISE_OF_3_KIB}", TOO_LARGE_KEY),
        given=[KEYED],
    ),
    fact(
        "declared-key-size",
        "a key column may not be declared longer than 2,000 bytes",
        says(
            "CREATE TABLE k (v varchar(2001) PRIMARY KEY)",
            refused("key size greater than 2000 bytes not supported", "54000"),
        ),
        says(
            "CREATE TABLE k (v char(2001) UNIQUE)", refused("key size greater than 2000 bytes not supported", "54000")
        ),
        says("CREATE TABLE k (v varchar(2000) PRIMARY KEY, w varchar(3000))", "CREATE TABLE"),
        says("CREATE INDEX ASYNC ON k (w)", refused("key size greater than 2000 bytes not supported", "54000")),
    ),
    fact(
        "key-columns",
        "a key has up to 8 columns",
        says(
            f"CREATE TABLE k ({_columns(9)}, PRIMARY KEY (c0, c1, c2, c3, c4, c5, c6, c7, c8))",
            refused("more than 8 column keys in an index are not supported", "54011"),
        ),
        says(f"CREATE TABLE k ({_columns(9)}, PRIMARY KEY (c0, c1, c2, c3, c4, c5, c6, c7))", "CREATE TABLE"),
        says(
            "CREATE INDEX ASYNC ON k (c0, c1, c2, c3, c4, c5, c6, c7, c8)",
            refused("more than 8 column keys in an index are not supported", "54011"),
        ),
    ),
    fact(
        "columns",
        "a table has up to 255 columns",
        says(f"CREATE TABLE w ({_columns(256)})", refused("tables can have at most 255 columns", "54011")),
        says(f"CREATE TABLE w ({_columns(255)}, PRIMARY KEY (c0))", "CREATE TABLE"),
        says("ALTER TABLE w ADD COLUMN one_more int", refused("tables can have at most 255 columns", "54011")),
    ),
    fact(
        "columns-over-time",
        "dropped columns count: a table has had up to 1,600",
        says(f"CREATE TABLE w ({_columns(255)})", "CREATE TABLE"),
        *(
            says(f"ALTER TABLE w {', '.join(changes)}", "ALTER TABLE")
            for until in range(255, 1531, 255)
            for changes in (
                [f"DROP COLUMN c{n}" for n in range(until - 255, until)],
                [f"ADD COLUMN c{n} int" for n in range(until, min(until + 255, 1600))],
            )
        ),
        says("ALTER TABLE w ADD COLUMN one_more int", refused("tables can have at most 1600 columns", "54011")),
    ),
    fact(
        "statistics",
        "a table has up to 5 extended statistics",
        *(says(f"CREATE STATISTICS s{n} ON k, v FROM t", "CREATE STATISTICS") for n in range(5)),
        says(
            "CREATE STATISTICS s5 ON u, v FROM t",
            refused("more than 5 extended statistics per table are not allowed", "54000"),
        ),
        given=[KEYED],
    ),
    fact(
        "schemas",
        "there are up to 10 schemas",
        *(says(f"CREATE SCHEMA s{n}", "CREATE SCHEMA") for n in range(10)),
        says("CREATE SCHEMA s10", refused("more than 10 schemas not allowed", "54000")),
    ),
    fact(
        "view-definition",
        "a view's definition is limited",
        says(f"CREATE VIEW v AS SELECT '{'x' * 2 * MIB}' AS a", refused("view definition too large", "54000")),
        says(f"CREATE VIEW v AS SELECT '{'x' * MIB}' AS a", "CREATE VIEW"),
    ),
    fact(
        "stack-depth",
        "what nests too deep is refused in PostgreSQL's words",
        says("CREATE FUNCTION deep(n int) RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE FUNCTION"),
        says(
            "CREATE OR REPLACE FUNCTION deep(n int) RETURNS int LANGUAGE sql AS 'SELECT deep(n + 1)'",
            "CREATE FUNCTION",
        ),
        says("SELECT deep(1)", refused("stack depth limit exceeded", "54001")),
    ),
]


@parametrized(SIZES)
def test_sizes_and_counts(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact)


def test_a_table_has_up_to_24_indexes(witness: Witness) -> None:
    uniques = ", ".join(f"UNIQUE (c{n})" for n in range(1, 24))
    one_more = refused("more than 24 indexes per table are not allowed", "54000")
    steps = (
        says(f"CREATE TABLE t ({_columns(25)}, PRIMARY KEY (c0), {uniques}, UNIQUE (c24))", one_more),
        says(f"CREATE TABLE t ({_columns(25)}, PRIMARY KEY (c0), {uniques})", "CREATE TABLE"),
        says("CREATE INDEX ASYNC ON t (c24)", one_more),
    )
    witness.confirm(Fact("indexes", "a table has up to 24 indexes, its primary key's included", steps))


def test_a_message_has_up_to_10_mib(dsql_cluster: LocalCluster) -> None:
    """What is longer ends the connection."""
    with dsql_cluster.connect(autocommit=True) as connection:
        assert connection.execute(b"SELECT 1 -- " + b"x" * (MESSAGE_SIZE_MAX_BYTES - 100)).fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            connection.execute(b"SELECT 1 -- " + b"x" * MESSAGE_SIZE_MAX_BYTES)
        assert connection.closed


# -- lower limits ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lower() -> Iterator[LocalCluster]:
    with LocalCluster(limits=LOWER) as cluster:
        yield cluster


@pytest.fixture
def lowered(lower: LocalCluster) -> Iterator[Witness]:
    found = Witness(lower)
    yield found
    found.close()


AGE = refused("transaction age limit of 1s exceeded", "54000")
OLD = fact(
    "age",
    "a transaction that is too old runs its statement to the end, and fails at the next one or at COMMIT",
    says("BEGIN", "BEGIN"),
    says("SELECT pg_sleep(1.1)", "SELECT 1"),
    says("SELECT 1", AGE),
    says("COMMIT", "ROLLBACK"),
    says("BEGIN", "BEGIN"),
    says("CREATE TABLE t (id int)", "CREATE TABLE"),
    says("SELECT pg_sleep(1.1)", "SELECT 1"),
    says("COMMIT", AGE),
    says("SELECT to_regclass('t')", rows(None)),
    says("BEGIN", "BEGIN"),
    says("SELECT pg_sleep(1.1)", "SELECT 1"),
    says("COMMIT", AGE),
)
LOWERED = [
    fact(
        "size",
        "the size of a transaction counts rows and index entries",
        says("CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE TABLE"),
        says("BEGIN", "BEGIN"),
        says("INSERT INTO t SELECT g, repeat('x', 1000000) FROM generate_series(1, 3) g", "INSERT 0 3"),
        says("COMMIT", refused("transaction size limit 2mb exceeded", "54000", "Current transaction size 3mb > 2mb")),
    ),
    fact(
        "size-of-one-statement",
        "a statement on its own is as large a transaction as a block may be; nothing of it stays",
        says("CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE TABLE"),
        says(
            "INSERT INTO t SELECT g, repeat('x', 1000000) FROM generate_series(1, 3) g",
            refused("transaction size limit 2mb exceeded", "54000", "Current transaction size 3mb > 2mb"),
        ),
        says("SELECT count(*) FROM t", rows("0")),
    ),
    fact(
        "size-of-index-entries",
        "entries of indexes count for a transaction's size, and not for its number of rows",
        says("CREATE TABLE bare (id int PRIMARY KEY, v text)", "CREATE TABLE"),
        says("CREATE TABLE indexed (id int PRIMARY KEY, v text UNIQUE)", "CREATE TABLE"),
        *(
            says(f"INSERT INTO {table} SELECT g, g || repeat('x', 700) FROM generate_series(1, 2000) g", answer)
            for table, answer in (
                ("bare", "INSERT 0 2000"),
                (
                    "indexed",
                    refused("transaction size limit 2mb exceeded", "54000", "Current transaction size 3mb > 2mb"),
                ),
            )
        ),
        says("INSERT INTO indexed SELECT g, g::text FROM generate_series(1, 3000) g", "INSERT 0 3000"),
    ),
    fact(
        "memory",
        "a query that needs more memory than it may have is refused",
        says(
            "SELECT count(*) FROM (SELECT g FROM generate_series(1, 300000) g ORDER BY md5(g::text)) x",
            refused("query requires more than allowed temp space of 1000 KB to execute", "54000"),
        ),
        says("SELECT count(*) FROM generate_series(1, 300) g", rows("300")),
    ),
    fact(
        "objects",
        "tables, views, sequences and schemas are counted",
        *(says(f"CREATE TABLE t{n} (id int)", "CREATE TABLE") for n in range(3)),
        says("CREATE TABLE t3 (id int)", refused("creating more than 3 tables not allowed", "54000")),
        says("CREATE VIEW v0 AS SELECT 1 AS a", "CREATE VIEW"),
        says("CREATE VIEW v1 AS SELECT 1 AS a", "CREATE VIEW"),
        says("CREATE VIEW v2 AS SELECT 1 AS a", refused("creating more than 2 views not allowed", "54000")),
        says("CREATE SEQUENCE s0 CACHE 1", "CREATE SEQUENCE"),
        says("CREATE SEQUENCE s1 CACHE 1", "CREATE SEQUENCE"),
        says("CREATE SEQUENCE s2 CACHE 1", refused("creating more than 2 sequences is not allowed", "54000")),
        says("CREATE SCHEMA a", "CREATE SCHEMA"),
        says("CREATE SCHEMA b", refused("more than 1 schemas not allowed", "54000")),
    ),
]


@parametrized(LOWERED)
def test_lowered(fact: Fact, lowered: Witness) -> None:
    witness = lowered
    witness.confirm(fact)


@pytest.fixture(scope="module")
def crowded() -> Iterator[LocalCluster]:
    with LocalCluster(limits=FEW_CONNECTIONS) as cluster:
        yield cluster


@parametrized([OLD])
def test_transactions_are_young(fact: Fact, crowded: LocalCluster) -> None:
    with contextlib.closing(Witness(crowded)) as witness:
        witness.confirm(fact)


def test_an_old_transaction_is_told_its_age(crowded: LocalCluster) -> None:
    with contextlib.closing(crowded.connect()) as connection:
        connection.execute("SELECT pg_sleep(1.1)")
        with pytest.raises(psycopg.OperationalError) as refusal:
            connection.execute("SELECT 1")
    assert refusal.value.sqlstate == "54000"
    age = re.fullmatch(r"Current transaction age (\d+)s exceeds 1s", refusal.value.diag.message_detail or "")
    assert age is not None and int(age[1]) >= 1


def test_connections_are_counted(crowded: LocalCluster) -> None:
    """There are only so many at a time."""
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(contextlib.closing(crowded.connect(autocommit=True)))
        with pytest.raises(psycopg.OperationalError) as refusal:
            crowded.connect()
        assert "FATAL:  Unable to accept connection, too many open connections." in str(refusal.value)


def test_connections_end() -> None:
    """None is open for longer than its time."""
    with LocalCluster(limits=SHORT_CONNECTIONS) as cluster:
        began = time.monotonic()
        with contextlib.closing(cluster.connect(autocommit=True)) as opened, pytest.raises(psycopg.OperationalError):
            while time.monotonic() - began < CONNECTION_END_S_MAX:
                opened.execute("SELECT pg_sleep(0.1)")
        assert time.monotonic() - began >= SHORT_CONNECTIONS["connection_age_s"] - 1


def test_connections_are_let_in_at_a_rate() -> None:
    """1,000 at once, then 100 a second."""
    seconds = 0.0
    rate = ConnectionRate(DSQL_LIMITS, clock=lambda: seconds)
    for connected in range(1, 1001):
        rate.admit(connected)
    with pytest.raises(SqlError, match=r"^Unable to accept connection, rate exceeded\.$") as refusal:
        rate.admit(1001)
    assert refusal.value.sqlstate == "53400"
    seconds = 0.5
    for _ in range(50):
        rate.admit(1)
    with pytest.raises(SqlError):
        rate.admit(1)
    seconds = 1000.0
    with pytest.raises(SqlError, match="too many open connections") as refusal:
        rate.admit(10_001)
    assert refusal.value.sqlstate == "53300"


def test_a_full_cluster_takes_no_rows_but_gives_some_away() -> None:
    with LocalCluster(limits={"cluster_size_bytes": 1}) as cluster:
        witness = Witness(cluster)
        try:
            witness.confirm(
                fact(
                    "full",
                    "a cluster whose storage is full refuses writes",
                    says("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE"),
                    says(
                        "INSERT INTO t VALUES (1)",
                        refused("Current cluster size exceeds cluster size limit.", "53100"),
                    ),
                    says("DELETE FROM t", "DELETE 0"),
                    says("SELECT count(*) FROM t", rows("0")),
                    says("SELECT sys.cluster_size_limit()", rows("1")),
                )
            )
        finally:
            witness.close()


def test_the_limits_are_aurora_dsqls() -> None:
    """Their values, in one place: a changed one has to be changed here."""
    assert dataclasses.asdict(DSQL_LIMITS) == {
        "transaction_rows": 3000,
        "transaction_size_bytes": 10 * MIB,
        "transaction_age_s": 300,
        "row_size_bytes": 2 * MIB,
        "column_size_bytes": MIB,
        "key_size_bytes": 1981,
        "query_memory_kb": 128 * KIB,
        "connections": 10_000,
        "connections_per_s": 100,
        "connection_burst": 1000,
        "connection_age_s": 60 * 60,
        "cluster_size_bytes": 10 * TIB,
        "schemas": 10,
        "tables": 1000,
        "views": 5000,
        "sequences": 5000,
        "indexes_per_table": 24,
        "columns_per_table": 255,
        "statistics_per_table": 5,
    }
    assert MESSAGE_SIZE_MAX_BYTES == 10 * MIB
    assert (tables.KEY_COLUMNS_MAX, tables.COLUMNS_MAX, tables.SEQUENCE_CACHE_MIN) == (8, 255, 65536)
    assert (datatypes.CHAR_LENGTH_MAX, datatypes.VARCHAR_LENGTH_MAX) == (4096, 65535)
    assert (row_limits.CHAR_SIZE_MAX_BYTES, row_limits.VARCHAR_SIZE_MAX_BYTES) == (4096, 65535)
    assert definition_rules.DECLARED_KEY_SIZE_MAX_BYTES == 2000
    assert objects.STATISTICS_TARGET_MAX == 100


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"nosuch": 1}, 'there is no limit "nosuch"'),
        ({"tables": 0}, 'the limit "tables" can be from 1'),
        ({"transaction_age_s": 301}, 'the limit "transaction_age_s" can be from 1 to 300, not 301'),
    ],
)
def test_a_limit_that_cannot_be_is_told(given: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DSQL_LIMITS.changed(given)
