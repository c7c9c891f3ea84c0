"""Partial aggregates, over one shard and combined over several."""

from __future__ import annotations

import struct
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.encoding import numeric, rows
from dsql_server.encoding import type_oids as oid
from dsql_server.interfaces.commit_path import Aggregate
from dsql_server.storage.aggregates import PartialAggregates, combine

EVERYTHING = (
    Aggregate("count", None, 0),
    Aggregate("count", 0, oid.INT4),
    Aggregate("sum", 0, oid.INT4),
    Aggregate("min", 0, oid.INT4),
    Aggregate("max", 0, oid.INT4),
    Aggregate("sum", 1, oid.NUMERIC),
    Aggregate("min", 1, oid.NUMERIC),
    Aggregate("max", 2, oid.TEXT),
)

table = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**31), 2**31 - 1),
        st.none() | st.decimals(-(10**6), 10**6, places=3),
        st.none() | st.text("abc", max_size=3),
    ),
    max_size=12,
)
Row = tuple[int | None, Decimal | None, str | None]


def stored(row: Row) -> tuple[bytes, bytes]:
    number, amount, name = row
    return b"key", rows.join(
        [
            None if number is None else struct.pack(">i", number),
            None if amount is None else numeric.from_decimal(amount),
            None if name is None else name.encode(),
        ]
    )


def partial(aggregates: tuple[Aggregate, ...], table: list[Row]) -> list[object]:
    accumulated = PartialAggregates(aggregates)
    half = len(table) // 2
    accumulated.add([stored(row) for row in table[:half]])
    accumulated.add([stored(row) for row in table[half:]])
    return accumulated.results()


def expected(table: list[Row]) -> list[object]:
    numbers = [row[0] for row in table if row[0] is not None]
    amounts = [row[1] for row in table if row[1] is not None]
    names = [row[2].encode() for row in table if row[2] is not None]
    return [
        len(table),
        len(numbers),
        sum(numbers) if numbers else None,
        min(numbers, default=None),
        max(numbers, default=None),
        sum(amounts, Decimal(0)) if amounts else None,
        min(amounts, default=None),
        max(names, default=None),
    ]


@given(table)
def test_partial_aggregates(table: list[Row]) -> None:
    assert partial(EVERYTHING, table) == expected(table)


@given(st.lists(table, max_size=3))
def test_combined_aggregates(shards: list[list[Row]]) -> None:
    combined = combine(EVERYTHING, [partial(EVERYTHING, shard) for shard in shards])
    assert combined == expected([row for shard in shards for row in shard])


def numerics(aggregate: str, *texts: str) -> str:
    accumulated = PartialAggregates([Aggregate(aggregate, 0, oid.NUMERIC)])
    accumulated.add([(b"", rows.join([numeric.from_decimal(Decimal(text))])) for text in texts])
    return str(accumulated.results()[0])


def test_special_numerics_follow_postgresql() -> None:
    assert numerics("sum", "Infinity", "-Infinity") == "NaN"
    assert numerics("sum", "1", "NaN") == "NaN"
    assert numerics("max", "1", "NaN", "Infinity") == "NaN"
    assert numerics("min", "NaN", "-Infinity") == "-Infinity"
    assert numerics("sum", "1.5", "2.500") == "4.000"
    assert numerics("sum", "1" * 60, "0.1") == "1" * 60 + ".1"


@pytest.mark.parametrize("function", ["min", "max"])
def test_nan_is_the_greatest_float_within_and_across_shards(function: str) -> None:
    aggregates = (Aggregate(function, 0, oid.FLOAT8),)
    shards: list[list[object]] = [[float("nan")], [1.0], [None]]
    (found,) = combine(aggregates, shards)
    assert str(found) == ("nan" if function == "max" else "1.0")


def test_floats_decode() -> None:
    accumulated = PartialAggregates([Aggregate("sum", 0, oid.FLOAT4), Aggregate("max", 1, oid.FLOAT8)])
    accumulated.add([(b"", rows.join([struct.pack(">f", 1.5), struct.pack(">d", -2.5)]))] * 2)
    assert accumulated.results() == [3.0, -2.5]


def test_what_storage_cannot_compute_is_refused() -> None:
    with pytest.raises(ValueError, match="no sum"):
        PartialAggregates([Aggregate("sum", 0, oid.TEXT)])
    with pytest.raises(ValueError, match="avg"):
        PartialAggregates([Aggregate("avg", 0, oid.INT4)])
