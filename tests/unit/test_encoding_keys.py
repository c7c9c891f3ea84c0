"""Keys sort as PostgreSQL sorts the values, and can be cut apart again."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.encoding import keys, numeric, rows
from dsql_server.encoding import type_oids as oid

Comparable = Any


def packer(layout: str) -> Callable[[Comparable], bytes]:
    return lambda value: struct.pack(layout, value)


def signed(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
#: type OID → values, their binary form, and what PostgreSQL compares them by.
TYPES: dict[int, tuple[st.SearchStrategy[Comparable], Callable[[Comparable], bytes], Callable[[Comparable], Any]]] = {
    oid.BOOL: (st.booleans(), lambda value: bytes([value]), bool),
    oid.INT2: (signed(16), packer(">h"), int),
    oid.INT4: (signed(32), packer(">i"), int),
    oid.INT8: (signed(64), packer(">q"), int),
    oid.OID: (st.integers(0, 2**32 - 1), packer(">I"), int),
    oid.FLOAT4: (st.floats(width=32), packer(">f"), lambda value: (math.isnan(value), 0 if value != value else value)),
    oid.FLOAT8: (st.floats(), packer(">d"), lambda value: (math.isnan(value), 0 if value != value else value)),
    oid.NUMERIC: (st.decimals(allow_nan=False, places=4), numeric.from_decimal, Decimal),
    oid.TEXT: (text, str.encode, str.encode),
    oid.VARCHAR: (text, str.encode, str.encode),
    oid.NAME: (text, str.encode, str.encode),
    oid.BPCHAR: (text, str.encode, lambda value: value.rstrip(" ").encode()),
    oid.BYTEA: (st.binary(max_size=12), bytes, bytes),
    oid.CHAR: (st.integers(0, 255), lambda value: bytes([value]), int),
    oid.DATE: (signed(32), packer(">i"), int),
    oid.TIME: (st.integers(0, 86_400_000_000), packer(">q"), int),
    oid.TIMESTAMP: (signed(64), packer(">q"), int),
    oid.TIMESTAMPTZ: (signed(64), packer(">q"), int),
    oid.UUID: (st.uuids(), lambda value: value.bytes, lambda value: value.bytes),
    oid.TIMETZ: (
        st.tuples(st.integers(0, 86_400_000_000), st.integers(-57_599, 57_599)),
        lambda value: struct.pack(">qi", *value),
        lambda value: (value[0] + value[1] * 1_000_000, value[1]),
    ),
    oid.INTERVAL: (
        st.tuples(signed(64), st.integers(-40, 40), st.integers(-40, 40)),
        lambda value: struct.pack(">qii", *value),
        lambda value: (value[2] * 30 + value[1]) * 86_400_000_000 + value[0],
    ),
}


def test_every_key_type_is_tested() -> None:
    assert set(TYPES) == keys.KEY_TYPE_OIDS


@pytest.mark.parametrize("type_oid", sorted(TYPES))
@given(data=st.data())
def test_encodings_sort_as_values_and_are_no_prefixes(type_oid: int, data: st.DataObject) -> None:
    values, pack, compared_by = TYPES[type_oid]
    a, b = data.draw(values), data.draw(values)
    key_a, key_b = (keys.encode_value(type_oid, pack(value)) for value in (a, b))
    assert (key_a < key_b) == (compared_by(a) < compared_by(b))
    assert (key_a == key_b) == (compared_by(a) == compared_by(b))
    assert key_a == key_b or not (key_a.startswith(key_b) or key_b.startswith(key_a))


@given(signed(16))
def test_integers_of_every_width_encode_equally(value: int) -> None:
    encoded = {
        keys.encode_value(type_oid, struct.pack(layout, value))
        for type_oid, layout in ((oid.INT2, ">h"), (oid.INT4, ">i"), (oid.INT8, ">q"))
    }
    assert len(encoded) == 1


def test_zeros_are_one_value_and_every_nan_is_the_greatest() -> None:
    zeros = {keys.encode_value(oid.FLOAT8, struct.pack(">d", zero)) for zero in (0.0, -0.0)}
    assert len(zeros) == 1
    nans = {keys.encode_value(oid.FLOAT8, bytes.fromhex(nan)) for nan in ("7ff8000000000000", "fff8000000000001")}
    assert len(nans) == 1
    assert nans.pop() > keys.encode_value(oid.FLOAT8, struct.pack(">d", math.inf))


column_types = st.sampled_from(sorted(TYPES))


@st.composite
def rows_of_one_table(draw: st.DrawFn) -> tuple[list[int], list[bool], list[list[Comparable]]]:
    types = draw(st.lists(column_types, min_size=1, max_size=3))
    nulls_first = draw(st.lists(st.booleans(), min_size=len(types), max_size=len(types)))
    row = st.tuples(*(st.none() | TYPES[type_oid][0] for type_oid in types))
    return types, nulls_first, [list(draw(row)) for _ in range(2)]


def sort_key(types: list[int], nulls_first: list[bool], row: list[Comparable]) -> list[tuple[int, Any]]:
    return [
        ((-1 if first else 1), 0) if value is None else (0, TYPES[type_oid][2](value))
        for type_oid, first, value in zip(types, nulls_first, row, strict=True)
    ]


@given(rows_of_one_table(), st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8))
def test_row_keys_sort_by_column_even_with_a_version_appended(
    table: tuple[list[int], list[bool], list[list[Comparable]]], version_a: bytes, version_b: bytes
) -> None:
    types, nulls_first, two = table
    encoder = keys.KeyEncoder(5, list(enumerate(types)), nulls_first)
    binary = [
        [None if value is None else TYPES[t][1](value) for t, value in zip(types, row, strict=True)] for row in two
    ]
    key_a, key_b = (encoder.from_fields(row) for row in binary)
    assert [encoder.from_row(rows.join(row)) for row in binary] == [key_a, key_b]
    encoded = [None if f is None else keys.encode_value(t, f) for t, f in zip(types, binary[0], strict=True)]
    assert encoder.from_encoded(encoded) == key_a
    sort_a, sort_b = (sort_key(types, nulls_first, row) for row in two)
    assert (key_a < key_b) == (sort_a < sort_b)
    assert (key_a == key_b) == (sort_a == sort_b)
    if key_a != key_b:
        assert (key_a + version_a < key_b + version_b) == (key_a < key_b)


def test_a_key_starts_with_its_relation() -> None:
    encoder = keys.KeyEncoder(258, [(1, oid.INT4), (0, oid.BOOL)])
    assert encoder.from_fields([b"\x01", struct.pack(">i", 1)]).hex() == "000001020180000000000000010101"
    assert encoder.prefix.hex() == "00000102"
    assert encoder.prefix_end.hex() == "00000103"
    assert encoder.from_encoded([None]).hex() == "0000010202"


def test_a_relation_without_key_columns_has_one_key() -> None:
    encoder = keys.KeyEncoder(3, [])
    assert encoder.from_row(rows.join([b"x"])) == encoder.from_fields([b"x"]) == keys.prefix(3)


@given(st.binary(min_size=1, max_size=6), st.binary(max_size=6), st.binary(max_size=8))
def test_a_prefix_end_parts_what_has_the_prefix_from_what_is_greater(start: bytes, tail: bytes, other: bytes) -> None:
    if not start.strip(b"\xff"):
        with pytest.raises(ValueError, match="no key is greater"):
            keys.prefix_end(start)
        return
    end = keys.prefix_end(start)
    assert start + tail < end
    if other >= start and not other.startswith(start):
        assert other >= end


@given(st.lists(st.binary(max_size=5), max_size=3), st.lists(st.binary(max_size=5), max_size=3))
def test_literal_keys_sort_part_by_part(a: list[bytes], b: list[bytes]) -> None:
    assert (keys.literal_key(9, *a) < keys.literal_key(9, *b)) == (a < b)


def test_a_type_without_order_is_refused_by_name_of_its_oid() -> None:
    with pytest.raises(keys.UnsupportedKeyType, match="3802"):
        keys.KeyEncoder(1, [(0, 3802)])
