"""Which tables a statement writes to, and in what order tables are emptied and filled."""

from __future__ import annotations

from collections import Counter

import pytest

from dsql_dialects.django.isolation import Change, Snapshot, _difference, tables_written
from dsql_dialects.django.tables import Columns, ForeignKey, affected_by, referencing, referencing_first


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        ('INSERT INTO "orders" ("id") VALUES (1)', {"orders"}),
        ("insert into Orders values (1)", {"orders"}),
        ('UPDATE "a ""b" SET x = 1', {'a "b'}),
        ("/* why */ -- so\n DELETE FROM orders;", {"orders"}),
        ('COPY "orders" ("id") FROM STDIN', {"orders"}),
        ("SELECT 'INSERT INTO x' FROM orders", set()),
        ("WITH a AS (SELECT 1) SELECT * FROM a", set()),
        ("EXPLAIN DELETE FROM orders", set()),
        ("SET CONSTRAINTS ALL IMMEDIATE", set()),
    ],
)
def test_tables_written(statement: str, tables: set[str]) -> None:
    assert tables_written(statement) == tables


@pytest.mark.parametrize(
    "statement",
    [
        'INSERT INTO "shop"."orders" VALUES (1)',
        "INSERT INTO shop.orders VALUES (1)",
        "UPDATE ONLY orders SET x = 1",
        "WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone",
        "EXPLAIN ANALYZE DELETE FROM orders",
        "SELECT 1; DELETE FROM orders",
        "DO $$ BEGIN END $$",
    ],
)
def test_statements_that_may_write_anywhere(statement: str) -> None:
    assert tables_written(statement) is None


KEYS = [ForeignKey("item", "order", True), ForeignKey("order", "customer", False), ForeignKey("node", "node", False)]


def test_referencing_tables_come_first() -> None:
    order = referencing_first(["customer", "node", "order", "item"], KEYS)
    assert sorted(order) == ["customer", "item", "node", "order"]
    assert order.index("item") < order.index("order") < order.index("customer")


def test_tables_that_change_with_others() -> None:
    assert affected_by({"order"}, KEYS) == {"order", "item"}
    assert affected_by({"customer"}, KEYS) == {"customer"}
    assert referencing(["customer"], KEYS) == {"order", "item"}


def test_only_the_difference_is_put_back() -> None:
    columns = Columns(("id", "name"), ("id",))
    now = Snapshot(columns, Counter([("1", "a"), ("2", "new"), ("4", "added")]))
    then = Snapshot(columns, Counter([("1", "a"), ("2", "b"), ("3", None)]))
    difference = _difference("t", now, then)
    assert difference.removed == [Change('DELETE FROM "t" WHERE "id" = %s', ("4",))]
    assert sorted(difference.put_back) == [
        Change('INSERT INTO "t" ("id", "name") OVERRIDING SYSTEM VALUE VALUES (%s, %s)', ("3", None)),
        Change('UPDATE "t" SET "id" = %s, "name" = %s WHERE "id" = %s', ("2", "b", "2")),
    ]


def test_a_table_without_a_key() -> None:
    columns = Columns(("a",), ())
    difference = _difference("t", Snapshot(columns, Counter({("x",): 2})), Snapshot(columns, Counter({("y",): 2})))
    assert difference.removed == [Change('DELETE FROM "t" WHERE "a"::text IS NOT DISTINCT FROM %s', ("x",))] * 2
    assert [change.values for change in difference.put_back] == [("y",), ("y",)]
