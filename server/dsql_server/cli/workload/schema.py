"""Make, fill and drop the workload's tables, on DSQL or on PostgreSQL."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING, Any

from dsql_server.cli.workload.orders import ITEMS_PER_ORDER, Order, Seed, Tables

if TYPE_CHECKING:
    import psycopg

#: DSQL takes 3,000 changed rows a transaction; a third of it keeps the seeding responsive.
SEED_ROWS_PER_TRANSACTION = 1_000
SEED_ORDERS_PER_TRANSACTION = SEED_ROWS_PER_TRANSACTION // (1 + ITEMS_PER_ORDER)


def create_tables(connection: psycopg.Connection[Any], tables: Tables, *, dsql: bool) -> None:
    """Two tables and two indexes, ready for queries on return; the connection is in autocommit mode."""
    from psycopg import sql

    assert connection.autocommit, "DSQL takes one DDL statement a transaction"
    connection.execute(
        f"CREATE TABLE {tables.orders} (order_id uuid PRIMARY KEY, customer text NOT NULL, status text NOT NULL,"
        " total numeric(18, 6) NOT NULL, created_at timestamptz NOT NULL)"
    )
    connection.execute(
        f"CREATE TABLE {tables.items} (item_id uuid PRIMARY KEY, order_id uuid NOT NULL, product text NOT NULL,"
        " quantity integer NOT NULL, price numeric(18, 6) NOT NULL)"
    )
    for index, table, column in (
        (f"{tables.items}_by_order", tables.items, "order_id"),
        (f"{tables.orders}_by_time", tables.orders, "created_at"),
    ):
        if dsql:
            job = connection.execute(f"CREATE INDEX ASYNC {index} ON {table} ({column})").fetchone()
            assert job is not None
            connection.execute(sql.SQL("CALL sys.wait_for_job({})").format(job[0]))
        else:
            connection.execute(f"CREATE INDEX {index} ON {table} ({column})")


def drop_tables(connection: psycopg.Connection[Any], tables: Tables) -> None:
    """Drop what :func:`create_tables` made, or the part of it that is there."""
    assert connection.autocommit, "DSQL takes one DDL statement a transaction"
    for table in tables:
        connection.execute(f"DROP TABLE IF EXISTS {table}")


def insert_seed(connection: psycopg.Connection[Any], tables: Tables, seed: Seed) -> None:
    """Insert the seeded orders with their items, in transactions of bounded size."""
    orders = seed.orders()
    while batch := tuple(itertools.islice(orders, SEED_ORDERS_PER_TRANSACTION)):
        with connection.transaction():
            insert_orders(connection, tables, batch)


def insert_orders(connection: psycopg.Connection[Any], tables: Tables, orders: tuple[Order, ...]) -> None:
    """Insert many orders at once, in the caller's transaction."""
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {tables.orders} (order_id, customer, status, total, created_at) VALUES (%s, %s, %s, %s, %s)",
            [(order.order_id, order.customer, "seeded", order.total, order.created_at) for order in orders],
        )
        cursor.executemany(
            f"INSERT INTO {tables.items} (item_id, order_id, product, quantity, price) VALUES (%s, %s, %s, %s, %s)",
            [
                (item.item_id, order.order_id, item.product, item.quantity, item.price)
                for order in orders
                for item in order.items
            ],
        )


def incomplete_orders(connection: psycopg.Connection[Any], tables: Tables) -> dict[uuid.UUID, int]:
    """Orders without exactly two items, and how many each has: none, if every transaction was whole."""
    rows = connection.execute(
        f"SELECT o.order_id, count(i.item_id) FROM {tables.orders} o"
        f" LEFT JOIN {tables.items} i ON i.order_id = o.order_id GROUP BY o.order_id"
        f" HAVING count(i.item_id) <> {ITEMS_PER_ORDER}"
    ).fetchall()
    return dict(rows)
