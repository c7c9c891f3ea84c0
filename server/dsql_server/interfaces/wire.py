"""Messages as bytes, for whatever carries them between processes.

A message is the version, the type's number, and its fields as self-describing values. Numbers of types and the order of
fields never change; fields are only ever added at the end, with a default. So a receiver can read an older sender's
message, and refuses what it doesn't know instead of guessing.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from dsql_server.interfaces import messages
from dsql_server.interfaces.messages import MESSAGE_VERSION

#: Type numbers. A number is never used again for anything else.
TYPES: dict[int, type] = {
    1: messages.CommitRequest,
    2: messages.Committed,
    3: messages.Conflict,
    4: messages.Unavailable,
    5: messages.Unknown,
    6: messages.CommittedTransaction,
    7: messages.Claim,
    8: messages.Mutation,
    10: messages.Hold,
    11: messages.Vote,
    12: messages.Release,
    13: messages.Inquire,
    20: messages.PromiseRequest,
    21: messages.Watermark,
    22: messages.CatalogRequest,
    23: messages.CatalogAt,
    30: messages.Append,
    31: messages.Appended,
    32: messages.AppendRefused,
    33: messages.JournalFailed,
    34: messages.SetLeader,
    35: messages.LeaderSet,
    36: messages.LookUp,
    37: messages.LookedUp,
    38: messages.Subscribe,
    39: messages.Stream,
    40: messages.Delivery,
    41: messages.Resend,
    42: messages.Get,
    43: messages.Got,
}
_NUMBERS = {kind: number for number, kind in TYPES.items()}

_NONE, _FALSE, _TRUE, _INT, _BYTES, _STR, _TUPLE, _MESSAGE = range(8)
_INT_VALUE = Struct("<Bq")
_SIZED = Struct("<BI")
_TYPED = Struct("<BHB")


class NotUnderstood(Exception):
    """Bytes that aren't a message of a version and type known here; the peer runs another release, or isn't one."""


def encode_message(message: Any) -> bytes:
    """Raises :class:`TypeError` for a value that no message may hold."""
    parts = [bytes((MESSAGE_VERSION,))]
    _encode(message, parts.append)
    return b"".join(parts)


def decode_message(data: bytes) -> Any:
    """Raises :class:`NotUnderstood`."""
    if not data or data[0] != MESSAGE_VERSION:
        raise NotUnderstood(
            f"a message of version {data[0] if data else 'none'}, this process speaks {MESSAGE_VERSION}"
        )
    try:
        message, end = _decode(data, 1)
    except (IndexError, ValueError) as error:
        raise NotUnderstood(f"a message is cut short or damaged: {error}") from error
    if end != len(data):
        raise NotUnderstood(f"{len(data) - end} bytes behind the end of a {type(message).__name__}")
    return message


def _encode(value: Any, part: Callable[[bytes], None]) -> None:
    kind = type(value)
    if kind is int:
        part(_INT_VALUE.pack(_INT, value))
    elif kind is bytes:
        part(_SIZED.pack(_BYTES, len(value)))
        part(value)
    elif kind is tuple:
        part(_SIZED.pack(_TUPLE, len(value)))
        for item in value:
            _encode(item, part)
    elif kind in _NUMBERS:
        part(_TYPED.pack(_MESSAGE, _NUMBERS[kind], len(value)))
        for item in value:
            _encode(item, part)
    elif kind is str:
        data = value.encode()
        part(_SIZED.pack(_STR, len(data)))
        part(data)
    elif value is None:
        part(bytes((_NONE,)))
    elif kind is bool:
        part(bytes((_TRUE if value else _FALSE,)))
    elif isinstance(value, int):  # an enum
        part(_INT_VALUE.pack(_INT, value))
    else:
        raise TypeError(f"a message can't hold a {kind.__name__}")


def _decode(data: bytes, at: int) -> tuple[Any, int]:
    """(the value at ``at``, where the next one starts)."""
    tag = data[at]
    at += 1
    if tag == _INT:
        return int.from_bytes(_slice(data, at, 8), "little", signed=True), at + 8
    if tag in (_BYTES, _STR, _TUPLE):
        size = int.from_bytes(_slice(data, at, 4), "little")
        at += 4
        if tag == _TUPLE:
            items, at = _decode_items(data, at, size)
            return tuple(items), at
        content = _slice(data, at, size)
        return content if tag == _BYTES else content.decode(), at + size
    if tag == _MESSAGE:
        return _decode_fields(data, at)
    if tag == _NONE:
        return None, at
    if tag in (_FALSE, _TRUE):
        return tag == _TRUE, at
    raise NotUnderstood(f"a value of kind {tag}")


def _decode_fields(data: bytes, at: int) -> tuple[Any, int]:
    number, count = int.from_bytes(_slice(data, at, 2), "little"), data[at + 2]
    kind: Any = TYPES.get(number)
    if kind is None:
        raise NotUnderstood(f"a message of type {number}; the peer runs a newer release")
    fields, at = _decode_items(data, at + 3, count)
    required = len(kind._fields) - len(kind._field_defaults)
    if not required <= count <= len(kind._fields):
        raise NotUnderstood(f"a {kind.__name__} of {count} fields; the peer runs another release")
    return kind(*fields), at


def _decode_items(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(count):
        item, at = _decode(data, at)
        items.append(item)
    return items, at


def _slice(data: bytes, at: int, size: int) -> bytes:
    content = data[at : at + size]
    if len(content) != size:
        raise ValueError(f"{size} bytes wanted at {at} of {len(data)}")
    return content
