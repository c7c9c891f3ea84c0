"""What a definition has changed, told from listings before and after it: work that doesn't grow with the catalog."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from dsql_server.catalog.introspection import Listing

TABLES = 1000
FIRST_INDEX = 50_000


def listing(
    *, touched: Sequence[int] = (), foreign_keys: dict[int, int] | None = None, more: Sequence[Any] = ()
) -> Listing:
    """A catalog of many tables with a key each."""
    relations: list[Any] = [[number, "r", "public", f"t{number}", 0] for number in range(1, TABLES + 1)]
    relations += [[FIRST_INDEX + number, "i", "public", f"t{number}_pkey", number] for number in range(1, TABLES + 1)]
    keys = [[key, table] for key, table in (foreign_keys or {}).items()]
    return Listing.read(json.dumps({"touched": list(touched), "foreign_keys": keys, "relations": [*relations, *more]}))


@pytest.mark.parametrize(
    ("after", "changed"),
    [
        (listing(), set()),
        (listing(touched=[7]), {7}),
        (listing(touched=[FIRST_INDEX + 7]), {7}),
        (listing(more=[[90_001, "i", "public", "i", 7]]), {7}),
        (listing(more=[[90_001, "r", "public", "new", 0]]), {90_001}),
        (listing(foreign_keys={90_001: 7}), {7}),
    ],
    ids=["nothing", "a column", "an index's name", "a new index", "a new table", "a foreign key"],
)
def test_only_the_tables_that_a_definition_changed_are_read(after: Listing, changed: set[int]) -> None:
    assert after.tables_changed_since(listing()) == changed
