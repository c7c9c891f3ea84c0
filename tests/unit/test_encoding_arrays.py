"""Array parameters, binary and text."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.encoding import type_oids as oid
from dsql_server.encoding.arrays import array_elements, array_elements_from_text, array_of
from dsql_server.encoding.parameters import NotUnderstood


def binary_array(element_oid: int, sizes: list[int], elements: list[bytes | None]) -> bytes:
    array = struct.pack(">iii", len(sizes), int(None in elements), element_oid)
    array += b"".join(struct.pack(">ii", size, 1) for size in sizes)
    for element in elements:
        array += struct.pack(">i", -1) if element is None else struct.pack(">i", len(element)) + element
    return array


@given(st.lists(st.none() | st.binary(max_size=9), max_size=6))
def test_binary_elements(elements: list[bytes | None]) -> None:
    sizes = [len(elements)] if elements else []
    whole = binary_array(oid.BYTEA, sizes, elements)
    assert array_elements(whole) == (oid.BYTEA, elements)
    assert array_of(oid.BYTEA, elements) == whole


def test_dimensions_are_flattened() -> None:
    elements: list[bytes | None] = [b"a", b"b", b"c", b"d"]
    assert array_elements(binary_array(oid.TEXT, [2, 2], elements)) == (oid.TEXT, elements)


@given(st.binary(max_size=40))
def test_damaged_arrays_are_not_understood(garbage: bytes) -> None:
    whole = binary_array(oid.TEXT, [2], [b"ab", None])
    with pytest.raises(NotUnderstood):
        array_elements(whole[:-1])
    with pytest.raises(NotUnderstood):
        array_elements(whole + b"\0")
    with pytest.raises(NotUnderstood):
        array_elements(struct.pack(">i", 7) + garbage)


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("{}", []),
        ("{ }", []),
        ("{a,b c , NULL,null}", [b"a", b"b c", None, None]),
        ('{"NULL","a,b","q\\"\\\\","",é}', [b"NULL", b"a,b", b'q"\\', b"", "é".encode()]),
        (' {"a" , b} ', [b"a", b"b"]),
    ],
)
def test_text_elements(text: str, elements: list[bytes | None]) -> None:
    assert array_elements_from_text(oid.TEXT, text) == elements
    assert array_elements_from_text(oid.TEXT, text.encode()) == elements


def test_text_elements_take_the_element_type() -> None:
    assert array_elements_from_text(oid.INT4, "{1,-2}") == [b"\0\0\0\x01", b"\xff\xff\xff\xfe"]


@pytest.mark.parametrize(
    "text", ["", "a", "{a", "{a,}", "{,a}", "{{a},{b}}", "[1:2]={a,b}", '{"a}', "{a}}", '{"a"b}', "{a\\b}"]
)
def test_other_texts_are_not_understood(text: str) -> None:
    with pytest.raises(NotUnderstood):
        array_elements_from_text(oid.TEXT, text)
