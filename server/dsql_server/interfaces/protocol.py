"""PostgreSQL wire protocol v3: message types and builders that front end and query processor share."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

_I32 = Struct("!i")
_I16 = Struct("!h")

#: A message may not be longer than this (Aurora DSQL's limit on one protocol message), in bytes.
MESSAGE_SIZE_MAX_BYTES: Final = 10 * 1024 * 1024

# Backend messages, as the integer that indexing bytes yields.
AUTHENTICATION: Final = ord("R")
BACKEND_KEY_DATA: Final = ord("K")
BIND_COMPLETE: Final = ord("2")
CLOSE_COMPLETE: Final = ord("3")
COMMAND_COMPLETE: Final = ord("C")
COPY_DATA: Final = ord("d")
COPY_DONE: Final = ord("c")
COPY_IN_RESPONSE: Final = ord("G")
COPY_OUT_RESPONSE: Final = ord("H")
DATA_ROW: Final = ord("D")
EMPTY_QUERY: Final = ord("I")
ERROR: Final = ord("E")
NO_DATA: Final = ord("n")
NOTICE: Final = ord("N")
PARAMETER_DESCRIPTION: Final = ord("t")
PARAMETER_STATUS: Final = ord("S")
PARSE_COMPLETE: Final = ord("1")
PORTAL_SUSPENDED: Final = ord("s")
READY_FOR_QUERY: Final = ord("Z")
ROW_DESCRIPTION: Final = ord("T")

# Frontend messages.
BIND: Final = ord("B")
CLOSE: Final = ord("C")
COPY_FAIL: Final = ord("f")
DESCRIBE: Final = ord("D")
EXECUTE: Final = ord("E")
FLUSH_TYPE: Final = ord("H")
FUNCTION_CALL: Final = ord("F")
PARSE: Final = ord("P")
PASSWORD: Final = ord("p")
QUERY: Final = ord("Q")
SYNC_TYPE: Final = ord("S")
TERMINATE: Final = ord("X")

FLUSH: Final = b"H\x00\x00\x00\x04"
SYNC: Final = b"S\x00\x00\x00\x04"
COPY_DONE_MESSAGE: Final = b"c\x00\x00\x00\x04"
EXECUTE_UNNAMED: Final = b"E\x00\x00\x00\x09\x00\x00\x00\x00\x00"
PARSE_COMPLETE_MESSAGE: Final = b"1\x00\x00\x00\x04"
BIND_COMPLETE_MESSAGE: Final = b"2\x00\x00\x00\x04"
CLOSE_COMPLETE_MESSAGE: Final = b"3\x00\x00\x00\x04"
NO_DATA_MESSAGE: Final = b"n\x00\x00\x00\x04"
EMPTY_QUERY_MESSAGE: Final = b"I\x00\x00\x00\x04"

BOOL_OID: Final = 16
TEXT_OID: Final = 25

pack_i32 = _I32.pack
pack_i16 = _I16.pack
unpack_i32 = _I32.unpack_from
unpack_i16 = _I16.unpack_from


def message(kind: bytes, body: bytes) -> bytes:
    """One typed message."""
    return kind + pack_i32(len(body) + 4) + body


def cstring(data: bytes, start: int) -> tuple[bytes, int]:
    """The zero-terminated string at ``start`` and the offset behind it. ValueError if it isn't terminated."""
    end = data.index(b"\x00", start)
    return data[start:end], end + 1


def query(sql: str) -> bytes:
    return message(b"Q", sql.encode() + b"\x00")


def parse(name: bytes, sql: bytes, parameter_oids: Sequence[int] = ()) -> bytes:
    oids = b"".join(_I32.pack(o if o < 1 << 31 else o - (1 << 32)) for o in parameter_oids)
    return message(b"P", name + b"\x00" + sql + b"\x00" + pack_i16(len(parameter_oids)) + oids)


def bind_statement(name: bytes, binary_results: bool = False) -> bytes:
    """Bind the unnamed portal to a statement without parameters."""
    body = b"\x00" + name + b"\x00\x00\x00\x00\x00" + (b"\x00\x01\x00\x01" if binary_results else b"\x00\x00")
    return message(b"B", body)


def bind_values(values: Sequence[bytes | None], formats: Sequence[int], statement: bytes = b"") -> bytes:
    """Bind the unnamed portal to a statement with these parameters; results come in text."""
    body = [b"\x00" + statement + b"\x00", pack_i16(len(formats)), *(pack_i16(f) for f in formats)]
    body.append(pack_i16(len(values)))
    body += [b"\xff\xff\xff\xff" if v is None else pack_i32(len(v)) + v for v in values]
    return message(b"B", b"".join(body) + b"\x00\x00")


def describe_statement(name: bytes) -> bytes:
    return message(b"D", b"S" + name + b"\x00")


def close_statement(name: bytes) -> bytes:
    return message(b"C", b"S" + name + b"\x00")


def command_complete(tag: str) -> bytes:
    return message(b"C", tag.encode() + b"\x00")


def ready_for_query(status: bytes) -> bytes:
    """``status``: I idle, T in a transaction block, E in a failed one."""
    return b"Z\x00\x00\x00\x05" + status


def parameter_status(name: str, value: str) -> bytes:
    return message(b"S", name.encode() + b"\x00" + value.encode() + b"\x00")


def row_description(columns: Sequence[tuple[str, int, int]]) -> bytes:
    """``columns``: name, type oid, type size; all in text format."""
    body = b"".join(
        name.encode()
        + b"\x00"
        + b"\x00\x00\x00\x00\x00\x00"
        + _I32.pack(oid)
        + _I16.pack(size)
        + b"\xff\xff\xff\xff\x00\x00"
        for name, oid, size in columns
    )
    return message(b"T", pack_i16(len(columns)) + body)


def without_origins(description: bytes) -> bytes:
    """A RowDescription's body that doesn't say which columns of which tables the columns are."""
    parts = [description[:2]]
    at = 2
    while at < len(description):
        end = description.index(b"\0", at) + 1
        parts += (description[at:end], bytes(6), description[end + 6 : end + 18])
        at = end + 18
    return b"".join(parts)


def data_row(values: Sequence[str | None]) -> bytes:
    """A row in text format."""
    body = b"".join(b"\xff\xff\xff\xff" if v is None else pack_i32(len(e := v.encode())) + e for v in values)
    return message(b"D", pack_i16(len(values)) + body)


def error_response(
    sqlstate: str,
    text: str,
    *,
    severity: str = "ERROR",
    detail: str | None = None,
    hint: str | None = None,
    position: int | None = None,
) -> bytes:
    """An ErrorResponse with the fields of PostgreSQL."""
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", text)]
    if detail:
        fields.append(("D", detail))
    if hint:
        fields.append(("H", hint))
    if position:
        fields.append(("P", str(position)))
    return message(b"E", b"".join(k.encode() + v.encode() + b"\x00" for k, v in fields) + b"\x00")


def error_fields(body: bytes) -> dict[str, str]:
    """Field letters and texts of the body of an ErrorResponse or NoticeResponse."""
    return {f[:1].decode(): f[1:].decode("utf-8", "replace") for f in body.split(b"\x00") if f}


def data_row_fields(body: bytes) -> list[bytes | None]:
    """The fields of the body of a DataRow."""
    found: list[bytes | None] = []
    at = 2
    for _ in range(unpack_i16(body)[0]):
        length = unpack_i32(body, at)[0]
        at += 4
        if length < 0:
            found.append(None)
        else:
            found.append(body[at : at + length])
            at += length
    return found


def notices(messages: bytes) -> bytes:
    """The NoticeResponses among whole messages."""
    found = []
    at = 0
    while at < len(messages):
        end = at + 1 + unpack_i32(messages, at + 1)[0]
        if messages[at] == NOTICE:
            found.append(messages[at:end])
        at = end
    return b"".join(found)


def split_data_rows(messages: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Whole messages cut into what comes before their DataRows, the bodies of these, and what comes behind."""
    rows: list[bytes] = []
    at, first, last = 0, len(messages), len(messages)
    while at < len(messages):
        end = at + 1 + unpack_i32(messages, at + 1)[0]
        if messages[at] == DATA_ROW:
            first = min(first, at)
            last = end
            rows.append(messages[at + 5 : end])
        at = end
    return messages[:first], rows, messages[last:]
