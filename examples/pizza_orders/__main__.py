"""``python -m pizza_orders URL``: order two pizzas and show what was stored."""

from __future__ import annotations

import datetime as dt
import sys
from decimal import Decimal

import dsql_connectors.psycopg as psycopg
from pizza_orders.orders import Item, create_order, create_schema, get_order, list_orders


def main(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        create_schema(connection)
        started = dt.datetime.now(dt.timezone.utc) - dt.timedelta(minutes=1)
        order_id = create_order(
            connection, "Ada", [Item("Margherita", 1, Decimal("8.50")), Item("Diavola", 2, Decimal("10.00"))]
        )
        print(get_order(connection, order_id))
        for order in list_orders(connection, started, dt.datetime.now(dt.timezone.utc) + dt.timedelta(minutes=1)):
            print(order)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m pizza_orders aws-dsql://admin@<endpoint>/postgres")
    main(sys.argv[1])
