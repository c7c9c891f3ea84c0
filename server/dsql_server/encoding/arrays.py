"""The elements of an array parameter, for conditions like ``= ANY ($1)``; and arrays for the engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from struct import Struct, error

from dsql_server.encoding import type_oids as oid
from dsql_server.encoding.parameters import NotUnderstood, binary_from_text

_HEADER = Struct(">iii")
_DIMENSION = Struct(">ii")
_LENGTH = Struct(">i")

#: The types of one-dimensional arrays that :func:`array_of` makes, by the type of their elements.
ARRAY_OIDS = {
    oid.BOOL: 1000, oid.INT2: 1005, oid.INT4: 1007, oid.TEXT: 1009, oid.VARCHAR: 1015, oid.INT8: 1016,
    oid.TIMESTAMP: 1115, oid.DATE: 1182, oid.TIME: 1183, oid.TIMESTAMPTZ: 1185, oid.NUMERIC: 1231, oid.UUID: 2951,
}  # fmt: skip

ARRAY_DIMENSIONS_MAX = 6  #: PostgreSQL's MAXDIM

#: One element: quoted with backslash escapes, or bare characters without any that mean something.
_ELEMENT = re.compile(r'[ \t\n\r\v\f]*(?:"((?:[^"\\]|\\.)*)"|([^"\\{},]+))[ \t\n\r\v\f]*', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_WHITESPACE = " \t\n\r\v\f"


def array_elements(binary: bytes) -> tuple[int, list[bytes | None]]:
    """The element type's OID and all elements of an array in binary send format, dimensions flattened; None is NULL.

    Raises NotUnderstood if the bytes are no complete array.
    """
    try:
        dimensions, _flags, element_oid = _HEADER.unpack_from(binary)
        if not 0 <= dimensions <= ARRAY_DIMENSIONS_MAX:
            raise NotUnderstood(f"an array parameter claims {dimensions} dimensions")
        at = _HEADER.size
        count = 1 if dimensions else 0
        for _ in range(dimensions):
            count *= _DIMENSION.unpack_from(binary, at)[0]
            at += _DIMENSION.size
        elements: list[bytes | None] = []
        for _ in range(count):
            length = _LENGTH.unpack_from(binary, at)[0]
            at += 4
            if length < 0:
                elements.append(None)
            else:
                elements.append(binary[at : at + length])
                at += length
    except error as cut_off:
        raise NotUnderstood("an array parameter is cut off") from cut_off
    if at != len(binary):
        raise NotUnderstood("an array parameter has the wrong length")
    return element_oid, elements


def array_elements_from_text(element_oid: int, text: str | bytes, zone_is_utc: bool = True) -> list[bytes | None]:
    """The elements, in binary send format, of a one-dimensional array given as text like ``{a,"b c",NULL}``.

    Raises NotUnderstood for other forms and where :func:`~dsql_server.encoding.parameters.binary_from_text` does.
    """
    if not isinstance(text, str):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise NotUnderstood("an array parameter is not UTF-8") from None
    text = text.strip(_WHITESPACE)
    if len(text) < 2 or text[0] != "{" or text[-1] != "}":
        raise NotUnderstood("an array parameter does not read {…}")
    elements: list[bytes | None] = []
    end = len(text) - 1
    if not text[1:end].strip(_WHITESPACE):
        return elements
    at = 1
    while True:
        match = _ELEMENT.match(text, at, end)
        if match is None:
            raise NotUnderstood("an array parameter has an element that is not understood")
        elements.append(_element(element_oid, match[1], match[2], zone_is_utc))
        at = match.end()
        if at == end:
            return elements
        if text[at] != ",":
            raise NotUnderstood("an array parameter has something other than a comma between its elements")
        at += 1


def _element(element_oid: int, quoted: str | None, bare: str | None, zone_is_utc: bool) -> bytes | None:
    if quoted is not None:
        return binary_from_text(element_oid, _ESCAPED.sub(r"\1", quoted), zone_is_utc)
    assert bare is not None, "an element is either quoted or bare"
    bare = bare.strip(_WHITESPACE)
    if not bare:
        raise NotUnderstood("an array parameter has an empty element")
    if bare.lower() == "null":
        return None
    return binary_from_text(element_oid, bare, zone_is_utc)


def array_of(element_oid: int, elements: Sequence[bytes | None]) -> bytes:
    """A one-dimensional array in binary send format, of elements in theirs; None is NULL."""
    if not elements:
        return _HEADER.pack(0, 0, element_oid)
    parts = [_HEADER.pack(1, int(None in elements), element_oid), _DIMENSION.pack(len(elements), 1)]
    for element in elements:
        if element is None:
            parts.append(_LENGTH.pack(-1))
        else:
            parts += (_LENGTH.pack(len(element)), element)
    return b"".join(parts)
