"""The same for an asynchronous application: ``await`` and coroutine functions, nothing else differs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from dsql_dialects.sqlalchemy import run_transaction
from pizza_orm.models import Base, Item, Order, Stock
from pizza_orm.orders import PRICES


async def create_schema(engine: AsyncEngine) -> None:
    """Create what isn't there yet; returns when the indexes are usable."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def create_order(
    sessions: async_sessionmaker[AsyncSession], customer: str, quantities: Mapping[str, int]
) -> Order:
    """Store an order with all its items and take them from the stock, or nothing."""

    async def order(session: AsyncSession) -> Order:
        for product, quantity in quantities.items():
            stock = await session.get_one(Stock, product)
            stock.left_over -= quantity
        items = [Item(product=p, quantity=n, price=PRICES[p]) for p, n in quantities.items()]
        created = Order(customer=customer, items=items)
        session.add(created)
        await session.flush()
        await session.refresh(created)
        return created

    return await run_transaction(sessions, order)


async def get_order(sessions: async_sessionmaker[AsyncSession], order_id: uuid.UUID) -> Order | None:
    """An order with its items, both from one snapshot; None if there is no such order."""

    async def get(session: AsyncSession) -> Order | None:
        return await session.get(Order, order_id)

    return await run_transaction(sessions, get)
