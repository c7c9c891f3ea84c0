"""Values in PostgreSQL's text format, from its binary one, as the types' output functions write them.

Only types whose text depends on nothing but TimeZone and DateStyle, and on these in a known way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from struct import Struct

from dsql_server import compiled
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.parameters import NotUnderstood
from dsql_server.encoding.rows import fields

#: From a value's binary format to the field of a DataRow: the length in front.
Output = Callable[[bytes], bytes]

_INT2, _INT4, _INT8 = Struct(">h").unpack, Struct(">i").unpack, Struct(">q").unpack
_pack_length = Struct(">i").pack
_SHORT = tuple(_pack_length(length) for length in range(256))
_NUMERIC_HEADER = Struct(">hhHH").unpack_from
_NUMERIC_NEGATIVE = 0x4000
_NUMERIC_SPECIAL = {0xC000: b"NaN", 0xD000: b"Infinity", 0xF000: b"-Infinity"}
_EPOCH = datetime(2000, 1, 1)
_EPOCH_DAY = date(2000, 1, 1).toordinal()
_UUID_HEAD = _pack_length(36).decode()
_TRUE, _FALSE = _pack_length(1) + b"t", _pack_length(1) + b"f"
_SECONDS_LENGTH = len("2000-01-01 00:00:00")


def binary_field(value: bytes) -> bytes:
    """A value as it is: in binary format, and for types whose two formats are one."""
    return _pack_length(len(value)) + value


def _short_field(text: bytes) -> bytes:
    return _SHORT[len(text)] + text


def _int2(binary: bytes) -> bytes:
    return _short_field(b"%d" % _INT2(binary)[0])


def _int4(binary: bytes) -> bytes:
    return _short_field(b"%d" % _INT4(binary)[0])


def _int8(binary: bytes) -> bytes:
    return _short_field(b"%d" % _INT8(binary)[0])


def _bool(binary: bytes) -> bytes:
    return _TRUE if binary == b"\x01" else _FALSE


def _uuid(binary: bytes) -> bytes:
    digits = binary.hex()
    return f"{_UUID_HEAD}{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}".encode()


def _numeric(binary: bytes) -> bytes:
    count, weight, sign, scale = _NUMERIC_HEADER(binary)
    if sign not in (0, _NUMERIC_NEGATIVE):
        if sign not in _NUMERIC_SPECIAL:
            raise NotUnderstood("a number with an unknown sign")
        return binary_field(_NUMERIC_SPECIAL[sign])
    unscaled = 0
    for at in range(8, 8 + 2 * count, 2):
        unscaled = unscaled * 10_000 + (binary[at] << 8 | binary[at + 1])
    # The last digit stands for 10,000 ** (weight - count + 1); bring the unit to 10 ** -scale.
    shift = 4 * (weight - count + 1) + scale
    if shift >= 0:
        unscaled *= 10**shift
    else:
        unscaled //= 10**-shift
    text = str(unscaled)
    if scale:
        text = text.rjust(scale + 1, "0")
        text = f"{text[:-scale]}.{text[-scale:]}"
    return binary_field((f"-{text}" if sign else text).encode())


def _instant(binary: bytes) -> str:
    """A timestamp in ISO style. Raises NotUnderstood before the year 1 and after 9999."""
    try:
        text = (_EPOCH + timedelta(0, 0, _INT8(binary)[0])).isoformat(" ")
    except OverflowError:
        raise NotUnderstood("a timestamp out of the calendar's range") from None
    return text.rstrip("0") if len(text) > _SECONDS_LENGTH else text


def _timestamp(binary: bytes) -> bytes:
    return _short_field(_instant(binary).encode())


def _timestamptz(binary: bytes) -> bytes:
    return _short_field(f"{_instant(binary)}+00".encode())


def _date(binary: bytes) -> bytes:
    try:
        return _short_field(date.fromordinal(_EPOCH_DAY + _INT4(binary)[0]).isoformat().encode())
    except (ValueError, OverflowError):
        raise NotUnderstood("a date out of the calendar's range") from None


_OUTPUTS: dict[int, Output] = {
    oids.BOOL: _bool,
    oids.INT2: _int2,
    oids.INT4: _int4,
    oids.INT8: _int8,
    oids.TEXT: binary_field,
    oids.VARCHAR: binary_field,
    oids.BPCHAR: binary_field,
    oids.UUID: _uuid,
    oids.NUMERIC: _numeric,
}
_ISO_OUTPUTS: dict[int, Output] = {oids.TIMESTAMP: _timestamp, oids.DATE: _date}


def text_field(type_oid: int, *, iso_dates: bool, zone_is_utc: bool) -> Output | None:
    """The function that writes a value of the type in text format, or None where its text can't be told here.

    What it returns raises NotUnderstood for single values, struct.error for bytes that are no value of the type.
    """
    if iso_dates:
        if zone_is_utc and type_oid == oids.TIMESTAMPTZ:
            return _timestamptz
        if type_oid in _ISO_OUTPUTS:
            return _ISO_OUTPUTS[type_oid]
    return _OUTPUTS.get(type_oid)


# -- rows ------------------------------------------------------------------------------------------------------

_NULL = b"\xff\xff\xff\xff"
_pack_head = Struct(">Bih").pack
_DATA_ROW = ord("D")
#: How the extension modules know the functions above; what they don't know they call.
_BY_CALL = 0
_KINDS: dict[Output, int] = {
    binary_field: 1, _uuid: 2, _int2: 3, _int4: 4, _int8: 5, _bool: 6, _numeric: 7, _timestamp: 8, _timestamptz: 9,
}  # fmt: skip


def compiled_kind(output: Output) -> int:
    """How the extension modules know a function that writes values; 0: they call it."""
    return _KINDS.get(output, _BY_CALL)


def row_writer(columns: Sequence[tuple[int, Output]]) -> Callable[[bytes], bytes]:
    """A function that writes these fields (by position, from 0) of stored rows one after the other, each as its output
    function does; NULL where a row has fewer fields. It raises what they raise, ValueError or struct.error for bytes
    that are no row."""
    if compiled.encoding is not None:
        writer: Callable[[bytes], bytes] = compiled.encoding.RowWriter(
            [(position, compiled_kind(output), output) for position, output in columns]
        )
        return writer
    return _RowWriter(columns)


class _RowWriter:
    """See :func:`row_writer`."""

    def __init__(self, columns: Sequence[tuple[int, Output]]) -> None:
        self._columns = tuple(columns)

    def __call__(self, row: bytes) -> bytes:
        found = fields(row)
        count = len(found)
        return b"".join(
            [_NULL if at >= count or (value := found[at]) is None else output(value) for at, output in self._columns]
        )


def _data_row(width: int, segments: list[bytes]) -> bytes:
    """A DataRow message of so many columns, which the segments hold one after the other."""
    body = segments[0] if len(segments) == 1 else b"".join(segments)
    return _pack_head(_DATA_ROW, len(body) + 6, width) + body


data_row: Callable[[int, list[bytes]], bytes] = _data_row if compiled.encoding is None else compiled.encoding.data_row
