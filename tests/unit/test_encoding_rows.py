"""Stored rows split, read, projected and joined without losing a byte."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.encoding import rows

some_fields = st.lists(st.none() | st.binary(max_size=300), max_size=8)


@given(some_fields)
def test_fields_and_join_are_inverse(row: list[bytes | None]) -> None:
    value = rows.join(row)
    assert rows.fields(value) == row
    assert rows.field_count(value) == len(row)


@given(some_fields.filter(bool), st.data())
def test_every_reader_sees_the_same_field(row: list[bytes | None], data: st.DataObject) -> None:
    value = rows.join(row)
    index = data.draw(st.integers(0, len(row) - 1))
    assert rows.field_at(value, index) == row[index]
    assert rows.field_reader(index)(value) == row[index]
    assert rows.fields_reader(index)(value) == row[: index + 1]


@given(some_fields.filter(bool), st.data())
def test_a_projection_keeps_the_wanted_fields_in_the_wanted_order(row: list[bytes | None], data: st.DataObject) -> None:
    indexes = data.draw(st.lists(st.integers(0, len(row) - 1), max_size=6))
    assert rows.fields(rows.projector(indexes)(rows.join(row))) == [row[index] for index in indexes]


def test_a_row_is_a_copy_binary_tuple() -> None:
    assert rows.join([b"\0\0\0\x05", None, b""]) == bytes.fromhex("0003 00000004 00000005 ffffffff 00000000")


@given(some_fields, st.integers(0, 9))
def test_a_row_from_before_a_column_was_added_has_null_there(row: list[bytes | None], index: int) -> None:
    value = rows.join(row)
    wanted = (row + [None] * 10)[: index + 1]
    assert rows.fields_reader(index)(value) == wanted
    assert rows.field_reader(index)(value) == wanted[index]
    assert rows.fields(rows.projector([index, 0])(value)) == [wanted[index], wanted[0]]


@pytest.mark.parametrize("read", [rows.field_reader(1), rows.fields_reader(1), rows.projector([1])])
def test_a_row_cut_off_is_an_error_and_not_null(read: Callable[[bytes], object]) -> None:
    with pytest.raises(struct.error):
        read(rows.join([b"a", b"b"])[:-5])


@pytest.mark.parametrize("index", [-1, 2])
def test_a_field_the_row_does_not_have_is_an_error(index: int) -> None:
    with pytest.raises(IndexError):
        rows.field_at(rows.join([b"a", b"b"]), index)
