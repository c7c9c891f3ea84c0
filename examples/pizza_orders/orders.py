"""Create an order with its items, get it by id, list orders by time.

Every write goes through ``run_transaction``: when another transaction changes the same rows and commits first, DSQL
refuses ours at COMMIT, and the connector runs the function again. So the functions given to it do nothing but SQL.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files

from psycopg.rows import class_row

import dsql_connectors.psycopg as psycopg


@dataclass(frozen=True)
class Item:
    product: str
    quantity: int
    price: Decimal


@dataclass(frozen=True)
class Order:
    order_id: uuid.UUID
    customer: str
    status: str
    total: Decimal
    created_at: dt.datetime


def create_schema(connection: psycopg.Connection) -> None:
    """Create tables and indexes that are not there yet; returns when the indexes are usable.

    :param connection: in autocommit mode, because DSQL takes one schema change a transaction.
    """
    for statement in files(__package__).joinpath("schema.sql").read_text().split(";"):
        if statement.strip():
            connection.execute(statement)
    # The indexes are built in the background, both at the same time.
    building = connection.execute("SELECT job_id FROM sys.jobs WHERE status IN ('submitted', 'processing')")
    for (job_id,) in building.fetchall():
        connection.execute("CALL sys.wait_for_job(%s)", (job_id,))


def create_order(connection: psycopg.Connection, customer: str, items: Sequence[Item]) -> uuid.UUID:
    """Store an order with all its items, or nothing; returns its id."""
    total = sum((item.quantity * item.price for item in items), Decimal(0))

    def insert(connection: psycopg.Connection) -> uuid.UUID:
        row = connection.execute(
            "INSERT INTO orders (customer, total) VALUES (%s, %s) RETURNING order_id", (customer, total)
        ).fetchone()
        assert row is not None
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO order_items (order_id, product, quantity, price) VALUES (%s, %s, %s, %s)",
                [(row[0], item.product, item.quantity, item.price) for item in items],
            )
        order_id: uuid.UUID = row[0]
        return order_id

    return connection.run_transaction(insert)


def get_order(connection: psycopg.Connection, order_id: uuid.UUID) -> tuple[Order, list[Item]] | None:
    """An order with its items, both from one snapshot; None if there is no such order."""

    def read(connection: psycopg.Connection) -> tuple[Order, list[Item]] | None:
        with (
            connection.cursor(row_factory=class_row(Order)) as orders,
            connection.cursor(row_factory=class_row(Item)) as items,
        ):
            order = orders.execute(
                "SELECT order_id, customer, status, total, created_at FROM orders WHERE order_id = %s", (order_id,)
            ).fetchone()
            if order is None:
                return None
            items.execute(
                "SELECT product, quantity, price FROM order_items WHERE order_id = %s ORDER BY product", (order_id,)
            )
            return order, items.fetchall()

    return connection.run_transaction(read)


def list_orders(connection: psycopg.Connection, since: dt.datetime, until: dt.datetime) -> list[Order]:
    """The orders created from ``since`` on and before ``until``, oldest first."""
    with connection.cursor(row_factory=class_row(Order)) as cursor:
        return cursor.execute(
            "SELECT order_id, customer, status, total, created_at FROM orders"
            " WHERE created_at >= %s AND created_at < %s ORDER BY created_at",
            (since, until),
        ).fetchall()
