"""Orders and their items: the tables' rows and the operations on them, in plain SQL."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import psycopg

ITEMS_PER_ORDER = 2
#: The seeded orders lie this far in the past, so that a time range over them never meets an order of the run.
SEED_AGE = dt.timedelta(days=30)
SEED_STEP = dt.timedelta(milliseconds=1)
PRODUCTS = ("Margherita", "Marinara", "Quattro Stagioni", "Diavola", "Napoli", "Funghi")


class Tables(NamedTuple):
    """Names of the two tables."""

    orders: str = "orders"
    items: str = "order_items"


class Item(NamedTuple):
    item_id: uuid.UUID
    product: str
    quantity: int
    price: Decimal


class Order(NamedTuple):
    order_id: uuid.UUID
    customer: str
    created_at: dt.datetime
    items: tuple[Item, ...]

    @property
    def total(self) -> Decimal:
        return sum((item.quantity * item.price for item in self.items), Decimal(0))


class Seed(NamedTuple):
    """Orders that exist before the run: known by number, so that every client can name them without asking."""

    size: int
    first_created_at: dt.datetime

    def order_id(self, number: int) -> uuid.UUID:
        assert 0 <= number < self.size
        return uuid.UUID(int=random.Random(number).getrandbits(128), version=4)  # noqa: S311 - a name, not a secret

    def created_at(self, number: int) -> dt.datetime:
        return self.first_created_at + number * SEED_STEP

    def orders(self) -> Iterator[Order]:
        for number in range(self.size):
            yield new_order(random.Random(number), self.created_at(number), order_id=self.order_id(number))  # noqa: S311


def new_order(source: random.Random, created_at: dt.datetime, *, order_id: uuid.UUID | None = None) -> Order:
    """An order of two pizzas; ``source`` chooses them."""
    items = tuple(
        Item(uuid.uuid4(), source.choice(PRODUCTS), source.randint(1, 4), Decimal(source.randint(500, 1900)) / 100)
        for _ in range(ITEMS_PER_ORDER)
    )
    return Order(order_id or uuid.uuid4(), f"customer {source.randrange(10_000)}", created_at, items)


def create_order(connection: psycopg.Connection[Any], tables: Tables, order: Order) -> None:
    """Insert an order and its items; belongs into one transaction."""
    connection.execute(
        f"INSERT INTO {tables.orders} (order_id, customer, status, total, created_at) VALUES (%s, %s, %s, %s, %s)",
        (order.order_id, order.customer, "new", order.total, order.created_at),
    )
    for item in order.items:
        connection.execute(
            f"INSERT INTO {tables.items} (item_id, order_id, product, quantity, price) VALUES (%s, %s, %s, %s, %s)",
            (item.item_id, order.order_id, item.product, item.quantity, item.price),
        )


def get_order(connection: psycopg.Connection[Any], tables: Tables, order_id: uuid.UUID) -> list[tuple[Any, ...]]:
    """An order with its items: one row for each item, none if there is no such order."""
    return connection.execute(
        "SELECT o.order_id, o.customer, o.status, o.total, o.created_at, i.item_id, i.product, i.quantity, i.price"
        f" FROM {tables.orders} o JOIN {tables.items} i ON i.order_id = o.order_id WHERE o.order_id = %s",
        (order_id,),
    ).fetchall()


def list_orders(
    connection: psycopg.Connection[Any], tables: Tables, first: dt.datetime, last: dt.datetime
) -> list[tuple[Any, ...]]:
    """The orders created from ``first`` to ``last``, both included, oldest first."""
    return connection.execute(
        f"SELECT order_id, customer, status, total, created_at FROM {tables.orders}"
        " WHERE created_at BETWEEN %s AND %s ORDER BY created_at",
        (first, last),
    ).fetchall()


def read_total(connection: psycopg.Connection[Any], tables: Tables, order_id: uuid.UUID) -> Decimal:
    """The total of an order that exists."""
    row = connection.execute(f"SELECT total FROM {tables.orders} WHERE order_id = %s", (order_id,)).fetchone()
    assert row is not None, f"order {order_id} is gone"
    total: Decimal = row[0]
    return total


def write_total(connection: psycopg.Connection[Any], tables: Tables, order_id: uuid.UUID, total: Decimal) -> None:
    """Set an order's total. After :func:`read_total` in one transaction, it loses no update, or conflicts."""
    connection.execute(f"UPDATE {tables.orders} SET total = %s WHERE order_id = %s", (total, order_id))
