"""The stored value of a row: the body of a COPY BINARY tuple, byte for byte.

Layout: int16 number of fields, then for each field an int32 length (-1 for NULL) and that many bytes in the type's
binary send format; all integers big-endian. A DataRow message with binary results has the same body, so rows pass
between storage, engine and client without being rewritten.

A row written before a column was added has fewer fields than its table has columns. The readers made by
:func:`field_reader`, :func:`fields_reader` and :func:`projector` find NULL there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct, error

FIELD_COUNT_BYTES = 2  #: in front of the fields
_COUNT = Struct(">h")
_LENGTH = Struct(">i")
_unpack_length = _LENGTH.unpack_from
_unpack_count = _COUNT.unpack_from
_pack_length = _LENGTH.pack
_pack_count = _COUNT.pack

_NULL_FIELD = _LENGTH.pack(-1)

FieldsReader = Callable[[bytes], list["bytes | None"]]
FieldReader = Callable[[bytes], "bytes | None"]


def field_count(value: bytes) -> int:
    """How many fields the tuple has."""
    count: int = _unpack_count(value)[0]
    return count


def fields(value: bytes) -> list[bytes | None]:
    """Split a tuple into its fields in binary send format; None is NULL.

    Raises ``struct.error`` if the tuple is cut off inside a length.
    """
    found: list[bytes | None] = []
    add = found.append
    unpack_length = _unpack_length
    at = 2
    for _ in range(_unpack_count(value)[0]):
        length = unpack_length(value, at)[0]
        at += 4
        if length < 0:
            add(None)
        else:
            end = at + length
            add(value[at:end])
            at = end
    return found


def field_at(value: bytes, index: int) -> bytes | None:
    """The field number ``index`` (from 0); None is NULL.

    Raises IndexError if the tuple has no such field.
    """
    if not 0 <= index < _unpack_count(value)[0]:
        raise IndexError(f"field {index} asked of a row with {_unpack_count(value)[0]} fields")
    unpack_length = _unpack_length
    at = 2
    for _ in range(index):
        length = unpack_length(value, at)[0]
        at += 4 + length if length > 0 else 4
    length = unpack_length(value, at)[0]
    return None if length < 0 else value[at + 4 : at + 4 + length]


def join(row: Sequence[bytes | None]) -> bytes:
    """The tuple made of these fields: the inverse of :func:`fields`."""
    pack_length = _pack_length
    parts = [_pack_count(len(row))]
    add = parts.append
    for field in row:
        if field is None:
            add(_NULL_FIELD)
        else:
            add(pack_length(len(field)))
            add(field)
    return b"".join(parts)


def field_reader(index: int) -> FieldReader:
    """A function that returns field ``index`` of a row; NULL where the row has fewer fields."""
    before = range(index)
    unpack_length = _unpack_length

    def read(value: bytes) -> bytes | None:
        at = 2
        try:  # costs nothing as long as the row has the field
            for _ in before:
                length = unpack_length(value, at)[0]
                at += 4 + length if length > 0 else 4
            length = unpack_length(value, at)[0]
        except error:
            if field_count(value) > index:
                raise
            return None
        at += 4
        return None if length < 0 else value[at : at + length]

    return read


def fields_reader(last: int) -> FieldsReader:
    """A function that returns fields 0 to ``last`` of a row, NULL where it has fewer, and reads no further."""
    wanted = range(last + 1)
    unpack_length = _unpack_length

    def read(value: bytes) -> list[bytes | None]:
        found: list[bytes | None] = []
        add = found.append
        at = 2
        try:
            for _ in wanted:
                length = unpack_length(value, at)[0]
                at += 4
                if length < 0:
                    add(None)
                else:
                    end = at + length
                    add(value[at:end])
                    at = end
        except error:
            if field_count(value) > last:
                raise
            return found + [None] * (last + 1 - len(found))
        return found

    return read


def projector(indexes: Sequence[int]) -> Callable[[bytes], bytes]:
    """A function that makes the tuple of only these fields, in this order; NULL where a row has fewer fields."""
    if not indexes:
        empty = _pack_count(0)
        return lambda value: empty
    head = _pack_count(len(indexes))
    walked = range(max(indexes) + 1)
    wanted = tuple(indexes)
    unpack_length = _unpack_length

    def project(value: bytes) -> bytes:
        found: list[bytes] = []  # each field with its length in front, as stored
        add = found.append
        at = 2
        try:
            for _ in walked:
                length = unpack_length(value, at)[0]
                end = at + 4 + length if length > 0 else at + 4
                add(value[at:end])
                at = end
        except error:
            if field_count(value) >= len(walked):
                raise
            found += [_NULL_FIELD] * (len(walked) - len(found))
        return head + b"".join([found[index] for index in wanted])

    return project
