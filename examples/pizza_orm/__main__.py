"""``python -m pizza_orm URL``: many customers at once want the same pizzas, by threads and then by tasks."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

from dsql_connectors.core.telemetry import counters
from dsql_dialects.sqlalchemy import create_async_engine, create_engine
from pizza_orm import async_orders, orders
from pizza_orm.models import Stock

CUSTOMERS = 8


def order_by_threads(url: str) -> None:
    engine = create_engine(url, pool_size=CUSTOMERS)
    sessions = sessionmaker(engine)
    orders.create_schema(engine)
    orders.fill_stock(sessions, 100)
    started = dt.datetime.now(dt.timezone.utc).replace(tzinfo=None) - dt.timedelta(minutes=1)
    with ThreadPoolExecutor(CUSTOMERS) as pool:
        futures = [
            pool.submit(orders.create_order, sessions, f"customer {n}", {"Margherita": 1, "Diavola": 2})
            for n in range(CUSTOMERS)
        ]
        for future in futures:
            created = future.result()
            assert orders.get_order(sessions, created.id) is not None
    for order in orders.list_orders(sessions, started)[-CUSTOMERS:]:
        print(f"{order.customer}: {', '.join(f'{i.quantity} {i.product}' for i in order.items)}, {order.total}")
    with sessions() as session:
        print("left over:", {stock.product: stock.left_over for stock in session.query(Stock).order_by(Stock.product)})
    engine.dispose()


async def order_by_tasks(url: str) -> None:
    engine = create_async_engine(url, pool_size=CUSTOMERS)
    sessions = async_sessionmaker(engine)
    await async_orders.create_schema(engine)
    created = await asyncio.gather(
        *(async_orders.create_order(sessions, f"task {n}", {"Margherita": 1}) for n in range(CUSTOMERS))
    )
    for order in created:
        found = await async_orders.get_order(sessions, order.id)
        assert found is not None and found.total == order.total
    async with sessions() as session:
        margherita = await session.get_one(Stock, "Margherita")
        print("left over:", margherita.left_over)
    await engine.dispose()


def main(url: str) -> None:
    order_by_threads(url)
    asyncio.run(order_by_tasks(url))
    print("transactions that lost and were run again:", counters.snapshot().get("retries", 0))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m pizza_orm aws-dsql://admin@<endpoint>/postgres")
    main(sys.argv[1])
