"""Pushed-down conditions against PostgreSQL's meaning of them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.encoding import numeric, rows
from dsql_server.encoding import type_oids as oid
from dsql_server.encoding.keys import UnsupportedKeyType, encode_value
from dsql_server.interfaces.commit_path import Comparison
from dsql_server.storage.predicates import compile_predicate

ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
#: type OID → values, their binary form, and what PostgreSQL compares them by.
VALUES: dict[int, tuple[st.SearchStrategy[Any], Callable[[Any], bytes], Callable[[Any], Any]]] = {
    oid.INT4: (st.integers(-3, 3), lambda value: struct.pack(">i", value), int),
    oid.TEXT: (st.text("ab\x01", max_size=3), str.encode, str.encode),
    oid.BYTEA: (st.binary(max_size=3), bytes, bytes),
    oid.BPCHAR: (st.text("ab ", max_size=3), str.encode, lambda value: value.rstrip(" ")),
    oid.UUID: (st.binary(min_size=16, max_size=16), bytes, bytes),
    oid.NUMERIC: (st.sampled_from(["1", "1.0", "-2", "0"]).map(Decimal), numeric.from_decimal, Decimal),
}


@pytest.mark.parametrize("type_oid", sorted(VALUES))
@pytest.mark.parametrize("operator", sorted(ORDERINGS))
@given(data=st.data())
def test_orderings(type_oid: int, operator: str, data: st.DataObject) -> None:
    values, pack, compared_by = VALUES[type_oid]
    stored, operand = data.draw(st.none() | values), data.draw(values)
    test = compile_predicate((Comparison(1, type_oid, operator, (encode_value(type_oid, pack(operand)),)),))
    row = rows.join([b"x", None if stored is None else pack(stored)])
    expected = stored is not None and ORDERINGS[operator](compared_by(stored), compared_by(operand))
    assert test(row) is expected


@pytest.mark.parametrize("type_oid", sorted(VALUES))
@given(data=st.data())
def test_in(type_oid: int, data: st.DataObject) -> None:
    values, pack, compared_by = VALUES[type_oid]
    stored, operands = data.draw(st.none() | values), data.draw(st.lists(values, max_size=4))
    encoded = tuple(encode_value(type_oid, pack(operand)) for operand in operands)
    test = compile_predicate((Comparison(0, type_oid, "in", encoded),))
    expected = stored is not None and compared_by(stored) in [compared_by(operand) for operand in operands]
    assert test(rows.join([None if stored is None else pack(stored)])) is expected


def test_all_conditions_must_hold_and_nulls_satisfy_only_isnull() -> None:
    one = encode_value(oid.INT8, struct.pack(">q", 1))
    test = compile_predicate(
        (Comparison(0, oid.INT2, "=", (one,)), Comparison(1, oid.TEXT, "isnull"), Comparison(2, oid.TEXT, "notnull"))
    )
    int_one = struct.pack(">h", 1)
    assert test(rows.join([int_one, None, b"a"]))
    assert not test(rows.join([struct.pack(">h", 2), None, b"a"]))
    assert not test(rows.join([int_one, b"", b"a"]))
    assert not test(rows.join([int_one, None, None]))


def test_unknown_operators_and_types_are_refused() -> None:
    with pytest.raises(ValueError, match="~~"):
        compile_predicate((Comparison(0, oid.TEXT, "~~", (b"a\0\0",)),))
    with pytest.raises(UnsupportedKeyType):
        compile_predicate((Comparison(0, 3802, "=", (b"",)),))
