"""asyncpg: prepared statements, row-limited cursors, types, transactions, COPY, its pool."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import ssl
import uuid
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from dsql_server.testing import LocalCluster

asyncpg = pytest.importorskip("asyncpg")
refused_connections = pytest.importorskip("dsql_connectors.asyncpg.refused")
pytestmark = pytest.mark.usefixtures("name_resolves")

Work = Callable[[Any], Awaitable[None]]


def options(cluster: LocalCluster, **more: Any) -> dict[str, Any]:
    given = {
        "host": cluster.endpoint,
        "port": cluster.port,
        "user": "admin",
        "database": "postgres",
        "password": cluster.token(),
        "ssl": ssl.create_default_context(cafile=cluster.ca_file),
        "timeout": 20,
    }
    return {**given, **more}


@pytest.fixture
def run(cluster: LocalCluster) -> Callable[[Work], None]:
    """Runs a coroutine function with a connection and a table ``t``."""

    async def connected(work: Work) -> None:
        connection = await asyncpg.connect(**options(cluster))
        try:
            await connection.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
            await work(connection)
        finally:
            await connection.close()

    return lambda work: asyncio.run(connected(work))


def test_settings(run: Callable[[Work], None]) -> None:
    async def work(conn: Any) -> None:
        assert str(conn.get_server_version().major) == "16"
        assert conn.get_settings().client_encoding.lower() == "utf8"
        assert conn.get_settings().TimeZone == "UTC"
        await conn.execute("SET timezone TO 'Asia/Tokyo'")
        assert conn.get_settings().TimeZone == "Asia/Tokyo"

    run(work)


def test_direct_tls(cluster: LocalCluster) -> None:
    async def work() -> None:
        conn = await asyncpg.connect(**options(cluster, direct_tls=True))
        assert await conn.fetchval("SELECT 1") == 1
        await conn.close()

    asyncio.run(work())


def test_types_in_binary(run: Callable[[Work], None]) -> None:
    async def work(conn: Any) -> None:
        await conn.execute(
            "CREATE TABLE e (id int PRIMARY KEY, a smallint, b bigint, c real, d float8, f numeric, g boolean,"
            " h varchar(9), i date, j time, k timestamp, l timestamptz, m interval, n bytea, o uuid, p jsonb)"
        )
        at = dt.datetime(2026, 2, 3, 4, 5, 6, 789000)
        row = (
            1, -7, 1 << 60, 1.5, 2.25, Decimal("-1234.567800"), True, "é😀", dt.date(1999, 12, 31),
            dt.time(23, 59, 59), at,
            at.replace(tzinfo=dt.timezone.utc), dt.timedelta(days=3), b"\x00\xff", uuid.UUID(int=5), '{"a": [1, null]}',
        )  # fmt: skip
        places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
        await conn.execute(f"INSERT INTO e VALUES ({places})", *row)
        assert tuple(await conn.fetchrow("SELECT * FROM e")) == row
        await conn.execute("INSERT INTO e (id) VALUES (2)")
        assert tuple(await conn.fetchrow("SELECT * FROM e WHERE id = 2")) == (2, *[None] * 15)
        for column, value in zip("abfghijklo", (row[i] for i in (1, 2, 5, 6, 7, 8, 9, 10, 11, 14)), strict=True):
            assert await conn.fetchval(f"SELECT id FROM e WHERE {column} = $1", value) == 1, column
        assert await conn.fetch("SELECT id FROM e WHERE id = ANY($1::int[]) ORDER BY id", [2, 1, 9]) == [(1,), (2,)]

    run(work)


def test_prepared_statements(run: Callable[[Work], None]) -> None:
    async def work(conn: Any) -> None:
        await conn.executemany("INSERT INTO t VALUES ($1, $2)", [(n, f"v{n}") for n in range(100)])
        statement = await conn.prepare("SELECT v FROM t WHERE id = $1")
        assert [str(p.name) for p in statement.get_parameters()] == ["int4"]
        assert [a.name for a in statement.get_attributes()] == ["v"]
        for n in range(10):
            assert await statement.fetchval(n) == f"v{n}"
        plan = await statement.explain(1)
        assert plan
        del statement
        with pytest.raises(asyncpg.UniqueViolationError):
            await conn.executemany("INSERT INTO t VALUES ($1, $2)", [(1000, "x"), (1, "x")])
        assert await conn.fetchval("SELECT count(*) FROM t") == 100
        # The table changes under a statement that is prepared.
        kept = await conn.prepare("SELECT * FROM t WHERE id = $1")
        await conn.execute("ALTER TABLE t ADD COLUMN w int")
        with pytest.raises(asyncpg.PostgresError):
            await kept.fetchrow(1)
        assert tuple(await conn.fetchrow("SELECT * FROM t WHERE id = 1")) == (1, "v1", None)

    run(work)


def test_jobs_are_awaited_in_binary(run: Callable[[Work], None]) -> None:
    async def work(connection: Any) -> None:
        job_id = await connection.fetchval("CREATE INDEX ASYNC i ON t (v)")
        assert await connection.fetchval(f"CALL sys.wait_for_job('{job_id}')") is True
        await connection.execute("INSERT INTO t VALUES (1, 'twice'), (2, 'twice')")
        job_id = await connection.fetchval("CREATE UNIQUE INDEX ASYNC u ON t (v)")
        assert await connection.fetchval("CALL sys.wait_for_job($1)", job_id) is False

    run(work)


def test_cursors_fetch_part_by_part(run: Callable[[Work], None]) -> None:
    """They are portals with row limits, not DECLARE CURSOR: these work."""

    async def work(conn: Any) -> None:
        await conn.execute("INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 100) g")
        async with conn.transaction():
            seen = [row["id"] async for row in conn.cursor("SELECT id FROM t ORDER BY id", prefetch=7)]
            assert seen == list(range(1, 101))
            cursor = await conn.cursor("SELECT id FROM t WHERE id > $1 ORDER BY id", 90)
            assert [r["id"] for r in await cursor.fetch(3)] == [91, 92, 93]
            await conn.execute("DELETE FROM t WHERE id = 95")
            assert await cursor.fetchrow() == (94,)
            assert len(await cursor.fetch(100)) == 6

    run(work)


def test_transactions(run: Callable[[Work], None], cluster: LocalCluster) -> None:
    async def work(conn: Any) -> None:
        async with conn.transaction():
            await conn.execute("INSERT INTO t VALUES (1, 'a')")
        with pytest.raises(ZeroDivisionError):
            async with conn.transaction():
                await conn.execute("INSERT INTO t VALUES (2, 'b')")
                raise ZeroDivisionError
        assert await conn.fetch("SELECT id FROM t") == [(1,)]
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await conn.execute("DELETE FROM t")
        other = await asyncpg.connect(**options(cluster))
        try:
            transaction = conn.transaction()
            await transaction.start()
            await conn.execute("UPDATE t SET v = 'mine' WHERE id = 1")
            assert await other.execute("UPDATE t SET v = 'theirs' WHERE id = 1") == "UPDATE 1"
            with pytest.raises(asyncpg.SerializationError, match="OC000"):
                await transaction.commit()
        finally:
            await other.close()
        assert await conn.fetchval("SELECT v FROM t") == "theirs"
        with pytest.raises(asyncpg.FeatureNotSupportedError):
            await conn.transaction(isolation="serializable").start()

    run(work)


def test_copy(run: Callable[[Work], None]) -> None:
    async def work(conn: Any) -> None:
        assert (
            await conn.copy_records_to_table("t", records=[(n, None if n % 2 else "é") for n in range(50)]) == "COPY 50"
        )
        out = io.BytesIO()
        assert await conn.copy_from_query("SELECT * FROM t WHERE id < $1 ORDER BY id", 2, output=out) == "COPY 2"
        assert out.getvalue() == "0\té\n1\t\\N\n".encode()
        assert await conn.copy_to_table("t", source=io.BytesIO(b"100,x\n"), format="csv") == "COPY 1"
        with pytest.raises(asyncpg.PostgresError):
            await conn.copy_to_table("t", source=io.BytesIO(b"nonsense\n"))
        assert await conn.fetchval("SELECT count(*) FROM t") == 51

    run(work)


def test_a_timeout_ends_the_wait_only(run: Callable[[Work], None]) -> None:
    """asyncpg cancels on a timeout, which Aurora DSQL ignores: the connection is busy until the statement ends."""

    async def work(conn: Any) -> None:
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            await conn.fetchval("SELECT pg_sleep(0.5)", timeout=0.1)
        assert await conn.fetchval("SELECT 7") == 7

    run(work)


def test_pool(run: Callable[[Work], None], cluster: LocalCluster) -> None:
    async def work(conn: Any) -> None:
        # asyncpg's own way of resetting a connection unlocks advisory locks and unlistens, which DSQL refuses.
        async def reset(returned: Any) -> None:
            await returned.execute("RESET ALL")

        async with asyncpg.create_pool(**options(cluster), min_size=1, max_size=4, reset=reset) as pool:

            async def insert(n: int) -> None:
                await pool.execute("INSERT INTO t VALUES ($1, 'p')", n)

            await asyncio.gather(*(insert(n) for n in range(20)))
            assert await pool.fetchval("SELECT count(*) FROM t") == 20
        with pytest.raises(asyncpg.FeatureNotSupportedError, match="pg_advisory_unlock_all"):
            await conn.reset()

    run(work)


def test_errors(run: Callable[[Work], None], cluster: LocalCluster) -> None:
    async def work(conn: Any) -> None:
        await conn.execute("INSERT INTO t VALUES (1, 'a')")
        with pytest.raises(asyncpg.UniqueViolationError) as caught:
            await conn.execute("INSERT INTO t VALUES (1, 'b')")
        assert (caught.value.constraint_name, caught.value.detail) == ("t_pkey", "Key (id)=(1) already exists.")
        with pytest.raises(asyncpg.UndefinedColumnError) as undefined:
            await conn.fetch("SELECT id, nope FROM t WHERE id = $1", 1)
        assert undefined.value.position == "12"
        with pytest.raises(asyncpg.DataError):
            await conn.fetch("SELECT * FROM t WHERE id = $1", "no number")
        notices: list[str] = []
        conn.add_log_listener(lambda _, notice: notices.append(notice.message))
        await conn.execute("DROP TABLE IF EXISTS not_there")
        await asyncio.sleep(0)
        assert notices == ['table "not_there" does not exist, skipping']

    run(work)


def test_refused_connections(cluster: LocalCluster) -> None:
    async def refused(**changed: Any) -> Exception:
        with pytest.raises(Exception) as caught:
            await asyncpg.connect(**options(cluster, **changed))
        # asyncpg leaves closing the connection to an event loop that ends here before a busy server has said goodbye.
        await refused_connections.let_go(caught.value)
        return caught.value

    async def work() -> None:
        assert isinstance(await refused(ssl=False), asyncpg.ProtocolViolationError)
        assert isinstance(
            await refused(user="nobody", password=cluster.token("nobody")), asyncpg.ProtocolViolationError
        )
        assert "access denied" in str(await refused(password="guess"))
        assert isinstance(await refused(database="other"), asyncpg.InvalidCatalogNameError)

    asyncio.run(work())
