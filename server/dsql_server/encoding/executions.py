"""Requests that bind and execute one prepared statement: what a driver sends again and again."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, error

from dsql_server import compiled

_BIND = ord("B")
_DESCRIBE = b"D\x00\x00\x00\x06P\x00"
_EXECUTE_AND_SYNC = b"E\x00\x00\x00\x09\x00\x00\x00\x00\x00S\x00\x00\x00\x04"
_HEAD_BYTES = 5
_unpack_i32 = Struct(">i").unpack_from
_unpack_i16 = Struct(">h").unpack_from


#: One statement, bound to the unnamed portal and executed to its end: the name of the prepared statement, the values,
#: their formats (one for each), the result formats as Bind has them (their number in front), and whether a Describe of
#: the portal stands between Bind and Execute.
RawExecution = tuple[bytes, "list[bytes | None]", "tuple[int, ...]", bytes, bool]


def _split_execution(data: bytes) -> RawExecution | None:
    """What ``data`` asks for: Bind, perhaps Describe, Execute and Sync, all of them and nothing else. None for anything
    else, for what is not well-formed, and for formats other than text (0) and binary (1)."""
    if not data or data[0] != _BIND or not data.endswith(_EXECUTE_AND_SYNC):
        return None
    try:
        end = 1 + _unpack_i32(data, 1)[0]
        rest = data[end : len(data) - len(_EXECUTE_AND_SYNC)]
        if end < _HEAD_BYTES or end > len(data) - len(_EXECUTE_AND_SYNC) or rest not in (b"", _DESCRIBE):
            return None
        bind = data[:end]
        if bind[_HEAD_BYTES] != 0:
            return None
        at = bind.index(b"\0", _HEAD_BYTES + 1) + 1
        name = bind[_HEAD_BYTES + 1 : at - 1]
        count = _unpack_i16(bind, at)[0]
        given = at + 2
        at = given + 2 * count
        number = _unpack_i16(bind, at)[0]
        at += 2
        if count < 0 or number < 0 or (count > 1 and count != number):
            return None
        values: list[bytes | None] = []
        for _ in range(number):
            length = _unpack_i32(bind, at)[0]
            at += 4
            if length == -1:
                values.append(None)
                continue
            if length < 0 or length > end - at:
                return None
            values.append(bind[at : at + length])
            at += length
        results = _unpack_i16(bind, at)[0]
        if results < 0 or at + 2 + 2 * results != end:
            return None
        formats = tuple([_unpack_i16(bind, given + 2 * i)[0] for i in range(count)])
        if not {0, 1}.issuperset(formats):
            return None
    except (ValueError, IndexError, error):
        return None
    if count != number:
        formats = formats * number if count else (0,) * number
    return name, values, formats, bind[at:], bool(rest)


split_execution: Callable[[bytes], RawExecution | None] = (
    _split_execution if compiled.encoding is None else compiled.encoding.split_execution
)
