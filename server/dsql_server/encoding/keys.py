"""Keys that sort, as bytes, the way PostgreSQL sorts the values (C collation).

A key is a 4-byte big-endian relation id, then for each column a marker and, unless it is NULL, the column's
encoding. Encodings of one type are never a prefix of one another, so columns can follow each other, keys of one
relation are never a prefix of one another either, and storage may append a version to them
(:mod:`dsql_server.storage.node` relies on it). Whatever is not a row or an index entry gets such a key from
:func:`literal_key`.

``int2``, ``int4`` and ``int8`` of equal value encode equally. Values that PostgreSQL holds equal encode equally:
``0.0`` and ``-0.0``, ``1.0`` and ``1.00``, ``char(n)`` with and without trailing blanks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from struct import Struct

from dsql_server import compiled
from dsql_server.encoding import numeric, rows
from dsql_server.encoding import type_oids as oid

ValueEncoder = Callable[[bytes], bytes]

NOT_NULL = b"\x01"
NULL_LAST = b"\x02"  #: NULL sorts behind all values: the default, as in PostgreSQL
NULL_FIRST = b"\x00"  #: for NULLS FIRST

#: The relation id that storage keeps for itself; no key of any table or index may carry it.
RELATION_ID_RESERVED = 0xFFFF_FFFF
RELATION_PREFIX_BYTES = 4

_pack_prefix = Struct(">I").pack

#: Maps a first byte to the same byte with its top bit flipped: two's complement into unsigned order.
_FLIPPED = tuple(bytes([byte ^ 0x80]) for byte in range(256))


def _encode_int2(binary: bytes) -> bytes:
    return (b"\x80\0\0\0\0\0" if binary[0] < 0x80 else b"\x7f\xff\xff\xff\xff\xff") + binary


def _encode_int4(binary: bytes) -> bytes:
    return (b"\x80\0\0\0" if binary[0] < 0x80 else b"\x7f\xff\xff\xff") + binary


def _encode_signed(binary: bytes) -> bytes:
    """Two's complement of fixed width: int8, date, time, timestamp, timestamptz (infinities are the extremes)."""
    return _FLIPPED[binary[0]] + binary[1:]


def _encode_as_is(binary: bytes) -> bytes:
    """Fixed width and unsigned: bool, "char", oid, uuid."""
    return binary


def _float_encoder(bytes_of_float: int, infinity: int) -> ValueEncoder:
    bits = 8 * bytes_of_float
    sign, everything = 1 << (bits - 1), (1 << bits) - 1
    nan_key = b"\xff" * bytes_of_float

    def encode(binary: bytes) -> bytes:
        number = int.from_bytes(binary, "big")
        magnitude = number & ~sign
        if magnitude > infinity:
            return nan_key  # all NaNs are equal and above everything
        if number & sign and magnitude:
            return (number ^ everything).to_bytes(bytes_of_float, "big")
        return (magnitude | sign).to_bytes(bytes_of_float, "big")  # -0.0 lands here and becomes 0.0

    return encode


def _encode_variable(binary: bytes) -> bytes:
    """Text and bytea: 0x00 becomes 0x00 0xFF, and 0x00 0x00 ends it."""
    return binary.replace(b"\0", b"\0\xff") + b"\0\0"


def _encode_bpchar(binary: bytes) -> bytes:
    return binary.rstrip(b" ").replace(b"\0", b"\0\xff") + b"\0\0"


_TIMETZ = Struct(">qi")
_TIMETZ_KEY = Struct(">QI")
_INTERVAL = Struct(">qii")
_USECS_PER_SEC = 1_000_000
_USECS_PER_DAY = 86_400 * _USECS_PER_SEC
_DAYS_PER_MONTH = 30  # PostgreSQL's own convention for comparing intervals


def _encode_timetz(binary: bytes) -> bytes:
    """By the instant (local time plus seconds west of Greenwich), then by zone."""
    local_us, west_s = _TIMETZ.unpack(binary)
    return _TIMETZ_KEY.pack(local_us + west_s * _USECS_PER_SEC + (1 << 63), west_s + (1 << 31))


def _encode_interval(binary: bytes) -> bytes:
    usecs, days, months = _INTERVAL.unpack(binary)
    span: int = (months * _DAYS_PER_MONTH + days) * _USECS_PER_DAY + usecs
    return (span + (1 << 127)).to_bytes(16, "big")


_ENCODERS: dict[int, ValueEncoder] = {
    oid.BOOL: _encode_as_is,
    oid.BYTEA: _encode_variable,
    oid.CHAR: _encode_as_is,
    oid.NAME: _encode_variable,
    oid.INT8: _encode_signed,
    oid.INT2: _encode_int2,
    oid.INT4: _encode_int4,
    oid.TEXT: _encode_variable,
    oid.OID: _encode_as_is,
    oid.FLOAT4: _float_encoder(4, 0x7F80_0000),
    oid.FLOAT8: _float_encoder(8, 0x7FF0_0000_0000_0000),
    oid.BPCHAR: _encode_bpchar,
    oid.VARCHAR: _encode_variable,
    oid.DATE: _encode_signed,
    oid.TIME: _encode_signed,
    oid.TIMESTAMP: _encode_signed,
    oid.TIMESTAMPTZ: _encode_signed,
    oid.INTERVAL: _encode_interval,
    oid.TIMETZ: _encode_timetz,
    oid.NUMERIC: numeric.encode_key,
    oid.UUID: _encode_as_is,
}

#: How the extension modules know these functions; what they don't know they call.
_BY_CALL = 0
_KINDS: dict[ValueEncoder, int] = {
    _encode_as_is: 1,
    _encode_int2: 2,
    _encode_int4: 3,
    _encode_signed: 4,
    _encode_variable: 5,
}
#: It keeps the places of so many fields.
_COMPILED_FIELDS_MAX = 64

#: The types whose order is known here.
KEY_TYPE_OIDS = frozenset(_ENCODERS)


class UnsupportedKeyType(ValueError):
    """A type that has no order-preserving encoding here."""


def value_encoder(type_oid: int) -> ValueEncoder:
    """The function that encodes binary values of this type (look it up once, call it often).

    Raises UnsupportedKeyType.
    """
    encoder = _ENCODERS.get(type_oid)
    if encoder is None:
        raise UnsupportedKeyType(f"type with OID {type_oid} has no key encoding; do not use it in a key or a condition")
    return encoder


def compiled_kind(encoder: ValueEncoder) -> int:
    """How the extension modules know a function that encodes values; 0: they call it."""
    return _KINDS.get(encoder, _BY_CALL)


def encode_value(type_oid: int, binary: bytes) -> bytes:
    """One value in binary send format as an order-preserving encoding, without a marker.

    Raises UnsupportedKeyType.
    """
    return value_encoder(type_oid)(binary)


def prefix(relation_id: int) -> bytes:
    """What every key of the relation starts with."""
    return _pack_prefix(relation_id)


def prefix_end(start: bytes) -> bytes:
    """The smallest key greater than every key that starts with ``start``.

    Raises ValueError if there is none (``start`` is empty or all 0xFF).
    """
    trimmed = start.rstrip(b"\xff")
    if not trimmed:
        raise ValueError(
            f"no key is greater than all keys that start with {start!r}; keys carry a relation id below 2^32-1"
        )
    return trimmed[:-1] + bytes((trimmed[-1] + 1,))


def literal_key(relation_id: int, *parts: bytes) -> bytes:
    """A key from parts that are not PostgreSQL values (catalog entries, counters); sorts by part after part."""
    return _pack_prefix(relation_id) + b"".join([NOT_NULL + _encode_variable(part) for part in parts])


class KeyEncoder:
    """Makes the keys of one relation; compiled once per key description.

    ``columns`` are pairs of the field index in the stored row and the type OID. ``nulls_first`` says for each column
    whether NULL sorts first; left out, NULL sorts last everywhere.

    ``from_row(value)`` makes the key of a stored row (:mod:`dsql_server.encoding.rows`), ``from_fields(fields)`` that
    of a row already split, which must have the fields. Raises UnsupportedKeyType when built.
    """

    __slots__ = (
        "_encoders",
        "_null_markers",
        "columns",
        "from_fields",
        "from_row",
        "prefix",
        "prefix_end",
        "relation_id",
    )

    def __init__(
        self,
        relation_id: int,
        columns: Sequence[tuple[int, int]],
        nulls_first: Sequence[bool] = (),
    ) -> None:
        assert 0 <= relation_id < RELATION_ID_RESERVED, f"relation id {relation_id} is reserved or out of range"
        assert not nulls_first or len(nulls_first) == len(columns), "nulls_first must say something for every column"
        self.relation_id = relation_id
        self.columns = tuple(columns)
        self.prefix = prefix(relation_id)
        self.prefix_end = prefix_end(self.prefix)
        self._encoders = tuple(value_encoder(type_oid) for _, type_oid in self.columns)
        self._null_markers = tuple(
            NULL_FIRST if nulls_first and nulls_first[at] else NULL_LAST for at in range(len(self.columns))
        )
        self.from_fields: Callable[[Sequence[bytes | None]], bytes] = self._compile_from_fields()
        self.from_row: Callable[[bytes], bytes] = self._compile_from_row()

    def _compile_from_fields(self) -> Callable[[Sequence[bytes | None]], bytes]:
        start = self.prefix
        if len(self.columns) == 1:
            index, encode, null_key = self.columns[0][0], self._encoders[0], start + self._null_markers[0]
            start_not_null = start + NOT_NULL

            def from_fields_single(row: Sequence[bytes | None]) -> bytes:
                field = row[index]
                return null_key if field is None else start_not_null + encode(field)

            return from_fields_single

        plan = [
            (index, encode, null)
            for (index, _), encode, null in zip(self.columns, self._encoders, self._null_markers, strict=True)
        ]

        def from_fields(row: Sequence[bytes | None]) -> bytes:
            key = start
            for index, encode, null in plan:
                field = row[index]
                key += null if field is None else NOT_NULL + encode(field)
            return key

        return from_fields

    def _compile_from_row(self) -> Callable[[bytes], bytes]:
        if not self.columns:
            start = self.prefix
            return lambda value: start
        columns = self.compiled_columns()
        if compiled.encoding is not None and columns is not None:
            from_row: Callable[[bytes], bytes] = compiled.encoding.RowKey(self.prefix, columns)
            return from_row
        if len(self.columns) == 1:
            read_one, encode = rows.field_reader(self.columns[0][0]), self._encoders[0]
            null_key, start_not_null = self.prefix + self._null_markers[0], self.prefix + NOT_NULL

            def from_row_single(value: bytes) -> bytes:
                field = read_one(value)
                return null_key if field is None else start_not_null + encode(field)

            return from_row_single

        read, from_fields = rows.fields_reader(max(index for index, _ in self.columns)), self.from_fields
        return lambda value: from_fields(read(value))

    def compiled_columns(self) -> list[tuple[int, int, ValueEncoder, bytes]] | None:
        """What the compiled twins of :attr:`from_row` need: of each column the field, how it is encoded, and how a NULL
        in it is. None where they don't reach, or there are no columns."""
        if not self.columns or max(index for index, _ in self.columns) >= _COMPILED_FIELDS_MAX:
            return None
        return [
            (index, compiled_kind(encode), encode, null)
            for (index, _), encode, null in zip(self.columns, self._encoders, self._null_markers, strict=True)
        ]

    def from_encoded(self, encoded: Iterable[bytes | None]) -> bytes:
        """The key from values that are encoded already (None: NULL); with fewer values than columns, its beginning."""
        key = self.prefix
        for value, null in zip(encoded, self._null_markers, strict=False):
            key += null if value is None else NOT_NULL + value
        return key
