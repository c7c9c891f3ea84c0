"""Compare what the tables hold with what the database acknowledged."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dsql_server.cli.workload.client import Result, WrongAnswer
from dsql_server.cli.workload.orders import ITEMS_PER_ORDER, Seed, Tables, read_total
from dsql_server.cli.workload.schema import incomplete_orders

if TYPE_CHECKING:
    import psycopg


def verify_orders(
    connection: psycopg.Connection[Any], tables: Tables, seed: Seed, result: Result, shared_total_before: Decimal
) -> list[str]:
    """What holds, in sentences.

    :param shared_total_before: total of the order that all clients share, before the run.
    :raises WrongAnswer: an acknowledged order is missing, an unknown one is there, an order is not whole, or an
        acknowledged update is lost.
    """
    stored = {row[0] for row in connection.execute(f"SELECT order_id FROM {tables.orders}").fetchall()}
    expected = set(result.acknowledged) | {seed.order_id(number) for number in range(seed.size)}
    if missing := expected - stored:
        raise WrongAnswer(f"{len(missing)} acknowledged orders are missing, {min(missing)} among them")
    if surplus := stored - expected:
        raise WrongAnswer(f"{len(surplus)} orders are there that nobody acknowledged, {min(surplus)} among them")
    if torn := incomplete_orders(connection, tables):
        example, items = min(torn.items())
        raise WrongAnswer(f"{len(torn)} orders are not whole: {example} has {items} of {ITEMS_PER_ORDER} items")
    added = read_total(connection, tables, seed.order_id(0)) - shared_total_before
    if added != result.increments:
        raise WrongAnswer(f"{result.increments} updates of one row were acknowledged, {added} are there")
    return [
        f"{len(result.acknowledged)} acknowledged orders: every one is there, with both its items",
        f"{result.increments} contended updates of one row: none is lost",
    ]
