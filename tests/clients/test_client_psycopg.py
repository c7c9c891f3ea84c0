"""psycopg 3: sync, async, pipeline, prepared, binary, COPY; plain SQLAlchemy on top of it."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import pq
from psycopg.types.json import Jsonb

from dsql_server.testing import LocalCluster


@pytest.fixture
def conn(cluster: LocalCluster) -> Iterator[psycopg.Connection[Any]]:
    with cluster.connect(autocommit=True) as connection:
        yield connection


@pytest.fixture
def table(conn: psycopg.Connection[Any]) -> str:
    conn.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    return "t"


def test_what_the_connection_knows(conn: psycopg.Connection[Any], cluster: LocalCluster) -> None:
    info = conn.info
    assert (info.user, info.dbname, info.host, info.port) == ("admin", "postgres", cluster.endpoint, cluster.port)
    assert info.server_version == 160015
    assert info.encoding == "utf-8"
    assert info.parameter_status("TimeZone") == "UTC"
    assert conn.pgconn.ssl_in_use


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_tls_negotiation(cluster: LocalCluster, negotiation: str) -> None:
    if pq.version() < 170000:
        pytest.skip("libpq before 17 knows no direct TLS")
    with cluster.connect(sslnegotiation=negotiation) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("version", ["3.0", "3.2", "latest"])
def test_protocol_versions(cluster: LocalCluster, version: str) -> None:
    if pq.version() < 180000:
        pytest.skip("libpq before 18 speaks protocol 3.0 only")
    with cluster.connect(max_protocol_version=version) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("binary", [False, True])
def test_types_both_ways(conn: psycopg.Connection[Any], binary: bool) -> None:
    conn.execute(
        "CREATE TABLE everything (id int PRIMARY KEY, a smallint, b bigint, c real, d float8, e numeric(30,10),"
        " f boolean, g varchar(20), h char(3), i date, j time, k timestamp, l timestamptz, m interval,"
        " n bytea, o uuid, p jsonb)"
    )
    now = dt.datetime(2026, 2, 3, 4, 5, 6, 789000)
    row = (
        1, -7, 1 << 60, 1.5, 2.25, Decimal("12345678901234567890.0123456789"), True, "é😀", "abc",
        dt.date(1999, 12, 31), dt.time(23, 59, 59), now, now.replace(tzinfo=dt.timezone.utc),
        dt.timedelta(days=3, seconds=5), b"\x00\xff", uuid.UUID(int=5), Jsonb({"a": [1, None]}),
    )  # fmt: skip
    cursor = conn.cursor(binary=binary)
    cursor.execute(f"INSERT INTO everything VALUES ({', '.join(['%b' if binary else '%s'] * len(row))})", row)
    expected = (*row[:-1], {"a": [1, None]})
    assert cursor.execute("SELECT * FROM everything").fetchone() == expected
    # Nothing but NULLs, and every value as a condition.
    cursor.execute("INSERT INTO everything (id) VALUES (2)")
    assert cursor.execute("SELECT * FROM everything WHERE id = 2").fetchone() == (2, *[None] * 16)
    for column, value in zip("abefgijklo", (row[i] for i in (1, 2, 5, 6, 7, 9, 10, 11, 12, 15)), strict=True):
        place = "%b" if binary else "%s"
        found = cursor.execute(f"SELECT id FROM everything WHERE {column} = {place}", (value,)).fetchall()
        assert found == [(1,)], column


def test_arrays_are_parameters(conn: psycopg.Connection[Any], table: str) -> None:
    conn.cursor().executemany("INSERT INTO t VALUES (%s, %s)", [(n, str(n)) for n in range(10)])
    assert conn.execute("SELECT id FROM t WHERE id = ANY(%s) ORDER BY id", ([3, 5, 99],)).fetchall() == [(3,), (5,)]
    assert conn.execute("SELECT %s::text[]", (["a", None],)).fetchone() == (["a", None],)


def test_transactions(conn: psycopg.Connection[Any], table: str) -> None:
    with conn.transaction():
        conn.execute("INSERT INTO t VALUES (1, 'a')")
    with pytest.raises(ZeroDivisionError), conn.transaction():
        conn.execute("INSERT INTO t VALUES (2, 'b')")
        raise ZeroDivisionError
    with conn.transaction(force_rollback=True):
        conn.execute("INSERT INTO t VALUES (3, 'c')")
    assert conn.execute("SELECT id FROM t").fetchall() == [(1,)]
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="SAVEPOINT"), conn.transaction(), conn.transaction():
        pass
    conn.autocommit = False
    conn.execute("INSERT INTO t VALUES (4, 'd')")
    assert conn.info.transaction_status == pq.TransactionStatus.INTRANS
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("INSERT INTO t VALUES (4, 'd')")
    assert conn.info.transaction_status == pq.TransactionStatus.INERROR
    conn.rollback()
    assert conn.info.transaction_status == pq.TransactionStatus.IDLE


def test_conflicts_have_their_class(cluster: LocalCluster, conn: psycopg.Connection[Any], table: str) -> None:
    conn.execute("INSERT INTO t VALUES (1, 'a')")
    with cluster.connect() as other:
        other.execute("UPDATE t SET v = 'b' WHERE id = 1")
        conn.execute("UPDATE t SET v = 'c' WHERE id = 1")
        with pytest.raises(psycopg.errors.SerializationFailure, match="OC000"):
            other.commit()


def test_prepared_statements(conn: psycopg.Connection[Any], table: str) -> None:
    for n in range(20):  # prepared by itself after five
        conn.execute("INSERT INTO t VALUES (%s, %s)", (n, "x"))
        assert conn.execute("SELECT v FROM t WHERE id = %s", (n,), prepare=True).fetchone() == ("x",)
    # psycopg lets its statements go after DROP, ALTER and ROLLBACK.
    conn.execute("CREATE TABLE u (id int PRIMARY KEY)")
    conn.execute("DROP TABLE u")
    assert conn.execute("SELECT count(*) FROM t WHERE id < %s", (5,), prepare=True).fetchone() == (5,)
    conn.prepared_max = 2
    for n in range(10):
        assert conn.execute(f"SELECT {n}, count(*) FROM t", prepare=True).fetchone() == (n, 20)


def test_pipelines(conn: psycopg.Connection[Any], table: str) -> None:
    with conn.pipeline() as pipeline:
        cursors = [conn.execute("INSERT INTO t VALUES (%s, 'x') RETURNING id", (n,)) for n in range(50)]
        pipeline.sync()
        read = conn.execute("SELECT count(*) FROM t")
    assert [c.fetchone() for c in cursors] == [(n,) for n in range(50)]
    assert read.fetchone() == (50,)
    with pytest.raises(psycopg.errors.UniqueViolation), conn.pipeline():
        conn.execute("INSERT INTO t VALUES (100, 'x')")
        conn.execute("INSERT INTO t VALUES (1, 'x')")
        conn.execute("INSERT INTO t VALUES (101, 'x')")
    assert conn.execute("SELECT count(*) FROM t WHERE id >= 100").fetchone() == (0,)
    with conn.pipeline(), conn.transaction():
        conn.execute("UPDATE t SET v = 'y' WHERE id = 1")
        seen = conn.execute("SELECT v FROM t WHERE id = 1")
    assert seen.fetchone() == ("y",)


def test_cursors_of_all_kinds(cluster: LocalCluster, conn: psycopg.Connection[Any], table: str) -> None:
    conn.execute("INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 100) g")
    assert len(list(conn.cursor().stream("SELECT * FROM t WHERE id <= %s", (50,)))) == 50
    with cluster.connect(cursor_factory=psycopg.ClientCursor) as client_side:
        assert client_side.execute("SELECT v FROM t WHERE id = %s", (7,)).fetchone() == ("v7",)
    with cluster.connect(cursor_factory=psycopg.RawCursor) as raw:
        assert raw.execute("SELECT v FROM t WHERE id = $1", [7]).fetchone() == ("v7",)
    # Named cursors declare a cursor, which Aurora DSQL refuses.
    with conn.transaction(), conn.cursor("named") as named, pytest.raises(psycopg.errors.FeatureNotSupported):
        named.execute("SELECT * FROM t")
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_copy(conn: psycopg.Connection[Any], table: str) -> None:
    with conn.cursor().copy("COPY t (id, v) FROM STDIN") as copy:
        for n in range(100):
            copy.write_row((n, None if n % 2 else "é\t\n\\"))
    with conn.cursor().copy("COPY t FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "text"])
        for n in range(100, 200):
            copy.write_row((n, "b"))
    with conn.cursor().copy("COPY (SELECT * FROM t WHERE id < %s ORDER BY id) TO STDOUT", (3,)) as copy:
        assert list(copy.rows()) == [("0", "é\t\n\\"), ("1", None), ("2", "é\t\n\\")]
    with conn.cursor().copy("COPY t TO STDOUT (FORMAT binary)") as copy:
        copy.set_types(["int4", "text"])
        assert len(list(copy.rows())) == 200
    with pytest.raises(psycopg.errors.BadCopyFileFormat), conn.cursor().copy("COPY t FROM STDIN") as copy:
        copy.write("1000\n")
    with pytest.raises(ZeroDivisionError), conn.cursor().copy("COPY t FROM STDIN") as copy:
        copy.write_row((1001, "lost"))
        raise ZeroDivisionError
    assert conn.execute("SELECT count(*) FROM t").fetchone() == (200,)


def test_errors_carry_their_fields(conn: psycopg.Connection[Any], table: str) -> None:
    conn.execute("INSERT INTO t VALUES (1, 'a')")
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        conn.execute("INSERT INTO t VALUES (1, 'b')")
    diag = caught.value.diag
    assert (diag.constraint_name, diag.table_name, diag.schema_name) == ("t_pkey", "t", "public")
    assert diag.message_detail == "Key (id)=(1) already exists."
    with pytest.raises(psycopg.errors.UndefinedColumn) as undefined:
        conn.execute("SELECT id, nope FROM t")
    assert undefined.value.diag.statement_position == "12"


def test_notices(conn: psycopg.Connection[Any]) -> None:
    heard: list[str | None] = []
    conn.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    conn.execute("DROP TABLE IF EXISTS not_there")
    conn.execute("COMMIT")
    assert heard == ['table "not_there" does not exist, skipping', "there is no transaction in progress"]


def test_cancel_is_ignored(conn: psycopg.Connection[Any]) -> None:
    assert conn.execute("SELECT 1").fetchone() == (1,)
    conn.cancel_safe(timeout=5)
    assert conn.execute("SELECT pg_sleep(0.1), 2").fetchone() == ("", 2)


def test_async(cluster: LocalCluster, table: str) -> None:
    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(**cluster.libpq_parameters(), autocommit=True) as connection:
            async with connection.pipeline():
                await connection.execute("INSERT INTO t VALUES (1, 'a')")
                await connection.execute("INSERT INTO t VALUES (2, 'b')")
            async with connection.transaction():
                cursor = await connection.execute("SELECT v FROM t ORDER BY id")
                assert await cursor.fetchall() == [("a",), ("b",)]
            async with connection.cursor().copy("COPY t FROM STDIN") as copy:
                await copy.write_row((3, "c"))
            others = await asyncio.gather(*(one(n) for n in range(5)))
            assert others == [(n, 3) for n in range(5)]

    async def one(n: int) -> tuple[int, int] | None:
        async with await psycopg.AsyncConnection.connect(**cluster.libpq_parameters()) as connection:
            cursor = await connection.execute("SELECT %s::int, count(*) FROM t", (n,))
            return await cursor.fetchone()

    asyncio.run(work())


def test_pool(cluster: LocalCluster, table: str) -> None:
    psycopg_pool = pytest.importorskip("psycopg_pool")
    with psycopg_pool.ConnectionPool(kwargs=cluster.libpq_parameters(), min_size=2, max_size=4) as pool:
        for n in range(20):
            with pool.connection() as connection:
                connection.execute("INSERT INTO t VALUES (%s, 'p')", (n,))
        with pool.connection() as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (20,)


def test_plain_sqlalchemy_core(cluster: LocalCluster) -> None:
    """The stock PostgreSQL dialect on psycopg: queries, transactions, reflection."""
    sa = pytest.importorskip("sqlalchemy")
    parameters = cluster.libpq_parameters()
    # Looking for hstore, the dialect would begin a transaction within a transaction.
    engine = sa.create_engine(
        "postgresql+psycopg://", connect_args=parameters, poolclass=sa.pool.NullPool, use_native_hstore=False
    )
    metadata = sa.MetaData()
    people = sa.Table(
        "people",
        metadata,
        sa.Column("id", sa.Uuid, primary_key=True, default=uuid.uuid4),
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("born", sa.Date),
    )
    with engine.connect() as connection:
        people.create(connection)
        connection.commit()
        born = dt.date(1815, 12, 10)
        connection.execute(people.insert(), [{"name": "Ada", "born": born}, {"name": "Bob", "born": None}])
        connection.commit()
        statement = sa.select(people.c.name).where(people.c.born == born)
        assert connection.execute(statement).scalars().all() == ["Ada"]
        with pytest.raises(sa.exc.IntegrityError):
            connection.execute(people.insert(), [{"name": None}])
        connection.rollback()
        inspector = sa.inspect(connection)
        assert inspector.get_table_names() == ["people"]
        columns = {c["name"]: str(c["type"]) for c in inspector.get_columns("people")}
        assert columns == {"id": "UUID", "name": "VARCHAR(50)", "born": "DATE"}
        assert inspector.get_pk_constraint("people")["constrained_columns"] == ["id"]
        assert inspector.get_schema_names() == ["information_schema", "public", "sys"]
        reflected = sa.Table("people", sa.MetaData(), autoload_with=connection)
        assert set(reflected.c.keys()) == {"id", "name", "born"}
    engine.dispose()
