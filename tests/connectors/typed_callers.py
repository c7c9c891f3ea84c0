"""What applications write, for ``mypy --strict``: nothing here runs. An unused ``type: ignore`` is an error, too."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

import dsql_connectors.asyncpg
import dsql_connectors.psycopg
import dsql_connectors.psycopg2
from dsql_connectors import errors
from dsql_connectors.psycopg import AsyncConnection, Connection, RetryPolicy, transactional


def stock(connection: Connection[Any], item: int = 1) -> int:
    cursor = connection.execute("SELECT n FROM stock WHERE id = %s", (item,))
    row = cursor.fetchone()
    return int(row[0]) if row else 0


@transactional(retry=RetryPolicy(attempts_max=3))
def sell(connection: Connection[Any], item: int) -> str:
    connection.execute("UPDATE stock SET n = n - 1 WHERE id = %s", (item,))
    return "sold"


@transactional(idempotent=True)
async def sell_async(connection: AsyncConnection[Any], item: int) -> str:
    await connection.execute("UPDATE stock SET n = n - 1 WHERE id = %s", (item,))
    return "sold"


def with_psycopg(url: str) -> None:
    with dsql_connectors.psycopg.connect(url, region="us-east-1") as connection:
        assert_type(connection.run_transaction(stock), int)
        for attempt in connection.transactions():
            with attempt as begun:
                begun.execute("SELECT 1")
        assert_type(sell(connection, 1), str)
    with dsql_connectors.psycopg.create_pool(url, min_size=1) as pool:
        assert_type(pool.run_transaction(stock, idempotent=True), int)
        assert_type(sell(pool, 1), str)
        sell(pool, "1")  # type: ignore[arg-type]
        sell(url, 1)  # type: ignore[arg-type]


async def with_psycopg_async(url: str) -> None:
    async with dsql_connectors.psycopg.create_async_pool(url) as pool:
        assert_type(await sell_async(pool, 1), str)
        async for attempt in pool.transactions():
            async with attempt as begun:
                await begun.execute("SELECT 1")
    async with await dsql_connectors.psycopg.connect_async(url) as connection:
        assert_type(await sell_async(connection, item=1), str)


def with_psycopg2(url: str) -> None:
    connection = dsql_connectors.psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except errors.RetriesExhausted as error:
        assert_type(error.attempts, int)
        print([failure.message for failure in error.history])


async def with_asyncpg(url: str) -> None:
    async def read(connection: Any) -> int:
        return int(await connection.fetchval("SELECT 1"))

    async with dsql_connectors.asyncpg.create_pool(url) as pool:
        assert_type(await pool.run_transaction(read), int)
    assert_type(await (await dsql_connectors.asyncpg.create_pool(url)).run_transaction(read), int)
    connection = await dsql_connectors.asyncpg.connect(url)
    assert_type(await connection.run_transaction(read), int)
