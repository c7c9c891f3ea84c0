"""Create an order, get it, list orders: what a synchronous application does.

Every write goes through ``run_transaction`` with a sessionmaker. Of two transactions that take from the same stock, the
first COMMIT wins; the other one runs again from its beginning, with a new session. So the functions load what they
change themselves, and do nothing but SQL.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from decimal import Decimal

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from dsql_dialects.sqlalchemy import run_transaction
from pizza_orm.models import Base, Item, Order, Stock

PRICES: Mapping[str, Decimal] = {"Margherita": Decimal("8.50"), "Diavola": Decimal("10.00")}


def create_schema(engine: Engine) -> None:
    """Create what isn't there yet; returns when the indexes are usable."""
    Base.metadata.create_all(engine)


def fill_stock(sessions: sessionmaker[Session], pizzas_each: int) -> None:
    """Set what is left of each pizza."""

    def fill(session: Session) -> None:
        for product in PRICES:
            session.merge(Stock(product=product, left_over=pizzas_each))

    run_transaction(sessions, fill)


def create_order(sessions: sessionmaker[Session], customer: str, quantities: Mapping[str, int]) -> Order:
    """Store an order with all its items and take them from the stock, or nothing."""

    def order(session: Session) -> Order:
        for product, quantity in quantities.items():
            session.get_one(Stock, product).left_over -= quantity
        items = [Item(product=p, quantity=n, price=PRICES[p]) for p, n in quantities.items()]
        created = Order(customer=customer, items=items)
        session.add(created)
        session.flush()
        session.refresh(created)  # what the server filled in
        return created

    return run_transaction(sessions, order)


def get_order(sessions: sessionmaker[Session], order_id: uuid.UUID) -> Order | None:
    """An order with its items, both from one snapshot; None if there is no such order."""
    return run_transaction(sessions, lambda session: session.get(Order, order_id))


def list_orders(sessions: sessionmaker[Session], since: dt.datetime) -> list[Order]:
    """The orders created from ``since`` on, oldest first."""
    query = select(Order).where(Order.created_at >= since).order_by(Order.created_at)
    return run_transaction(sessions, lambda session: list(session.scalars(query)))
