"""Client parameters and SQL constants as PostgreSQL binary values of a wanted type.

Only forms with one possible reading are understood; everything else raises :class:`NotUnderstood`, and the caller
then loads more rows instead of narrowing by a value it is not sure of. What is understood is exactly what
PostgreSQL itself would make of it.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from decimal import Decimal
from struct import Struct

from dsql_server.encoding import numeric
from dsql_server.encoding import type_oids as oid


class NotUnderstood(ValueError):
    """The value may be valid for PostgreSQL, but its meaning is not certain here: do not narrow by it."""


class OutOfRange(ValueError):
    """The value is exact but does not fit the wanted type: no value of that type equals it."""


_INT2, _INT4, _INT8, _OID = Struct(">h"), Struct(">i"), Struct(">q"), Struct(">I")
_FLOAT4, _FLOAT8 = Struct(">f"), Struct(">d")

_INTEGER_BOUNDS = {
    oid.INT2: (_INT2, 2),
    oid.INT4: (_INT4, 4),
    oid.INT8: (_INT8, 8),
}
_TEXT_TYPES = frozenset({oid.TEXT, oid.VARCHAR, oid.BPCHAR, oid.UNKNOWN})

NAME_BYTES_MAX = 63
#: Longer numbers in a text are left to PostgreSQL.
NUMBER_CHARACTERS_MAX = 2_000
NUMBER_EXPONENT_MAX = 2_000

#: Up to here float8 holds every integer, so that rounding to float4 rounds once.
_EXACT_AS_FLOAT8_MAX = 2**53
_FLOAT4_SMALLEST_NORMAL = 2.0**-126
_FLOAT4_HALF_STEP_MASK = 0x1FFF_FFFF
_FLOAT4_HALF_STEP = 0x1000_0000

_WHITESPACE = " \t\n\r\v\f"
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,5}))?")
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")
_BYTEA = re.compile(r"\\x((?:[0-9a-fA-F]{2})*)")
_DATE_FORM = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_TIME_FORM = r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?"
_ZONE_FORM = r"(?:(Z)|([+-])([0-9]{2})(?::?([0-9]{2})(?::([0-9]{2}))?)?)"
_DATE = re.compile(_DATE_FORM)
_TIME = re.compile(_TIME_FORM)
_TIMESTAMP = re.compile(rf"{_DATE_FORM}(?:[ T]{_TIME_FORM}{_ZONE_FORM}?)?")

_ZONE_HOURS_MAX = 15  # PostgreSQL refuses zones of 16 hours and more
_USECS_PER_SEC = 1_000_000
_USECS_PER_DAY = 86_400 * _USECS_PER_SEC
_ORDINAL_2000_01_01 = datetime.date(2000, 1, 1).toordinal()

_DATE_INFINITY, _DATE_MINUS_INFINITY = 2**31 - 1, -(2**31)
_TIMESTAMP_INFINITY, _TIMESTAMP_MINUS_INFINITY = 2**63 - 1, -(2**63)
#: PostgreSQL's last representable timestamp is before the year 294277; dates reach further.
_TIMESTAMP_DAYS_MIN, _TIMESTAMP_DAYS_MAX = -2_451_545, 106_751_982

#: Bytes of a value in binary format.
_WIDTHS = {
    oid.BOOL: 1, oid.INT2: 2, oid.INT4: 4, oid.INT8: 8, oid.FLOAT4: 4, oid.FLOAT8: 8, oid.UUID: 16, oid.DATE: 4,
    oid.TIMESTAMP: 8, oid.TIMESTAMPTZ: 8,
}  # fmt: skip
#: The lowest value, the end of the range, and the two infinities: PostgreSQL's IS_VALID_DATE and IS_VALID_TIMESTAMP.
_TIMESTAMPS = (-211_813_488_000_000_000, 9_223_371_331_200_000_000, (_TIMESTAMP_INFINITY, _TIMESTAMP_MINUS_INFINITY))
_FINITE = {
    oid.DATE: (-2_451_545, 2_145_031_949, (_DATE_INFINITY, _DATE_MINUS_INFINITY)),
    oid.TIMESTAMP: _TIMESTAMPS,
    oid.TIMESTAMPTZ: _TIMESTAMPS,
}

_TRUE_TEXTS = frozenset({"t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"})
_FALSE_TEXTS = frozenset({"f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"})
_INFINITY_SIGNS = {"infinity": 1, "+infinity": 1, "-infinity": -1}


def _refuse(type_oid: int) -> NotUnderstood:
    # The value itself stays out of the message: it is the user's data.
    return NotUnderstood(f"this text has no certain meaning as a value of type OID {type_oid}; load without it")


def binary_from_text(type_oid: int, text: str | bytes, zone_is_utc: bool = True) -> bytes:
    """The binary send format of a value given in PostgreSQL's text format (bytes are UTF-8).

    A ``timestamptz`` without a zone is read in the session's zone; ``zone_is_utc`` says that it is UTC.
    Raises NotUnderstood for unknown types and for every form that is not certain.
    """
    reader = _READERS.get(type_oid)
    if reader is None:
        raise NotUnderstood(f"texts of type OID {type_oid} are not read here; load without it")
    if not isinstance(text, str):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise _refuse(type_oid) from None
    if type_oid == oid.TIMESTAMPTZ:
        return _timestamptz_from_text(text, zone_is_utc)
    return reader(text)


def _integer_reader(type_oid: int, layout: Struct, low: int, high: int) -> Callable[[str], bytes]:
    def read(text: str) -> bytes:
        text = text.strip(_WHITESPACE)
        if not _INTEGER.fullmatch(text):
            raise _refuse(type_oid)
        number = int(text)
        if not low <= number <= high:
            raise _refuse(type_oid)
        return layout.pack(number)

    return read


def _decimal_from_text(type_oid: int, text: str) -> Decimal | float:
    """A finite value as Decimal; NaN and the infinities as float."""
    text = text.strip(_WHITESPACE)
    match = _DECIMAL.fullmatch(text)
    if match:
        exponent = match[1]
        if len(text) > NUMBER_CHARACTERS_MAX or (exponent and abs(int(exponent)) > NUMBER_EXPONENT_MAX):
            raise _refuse(type_oid)
        return Decimal(text)
    lowered = text.lower()
    if lowered == "nan":
        return math.nan
    sign = _INFINITY_SIGNS.get(lowered)
    if sign is None:
        raise _refuse(type_oid)
    return sign * math.inf


def _float8_from_text(text: str) -> bytes:
    number = _decimal_from_text(oid.FLOAT8, text)
    if isinstance(number, float):
        return _FLOAT8.pack(number)
    as_float = float(text)
    if math.isinf(as_float) or (as_float == 0.0 and number != 0):
        raise _refuse(oid.FLOAT8)  # PostgreSQL raises "out of range"
    return _FLOAT8.pack(as_float)


def _float4_from_text(text: str) -> bytes:
    number = _decimal_from_text(oid.FLOAT4, text)
    if isinstance(number, float):
        return _FLOAT4.pack(number)
    as_float = float(text)
    if as_float != 0.0 and abs(as_float) < _FLOAT4_SMALLEST_NORMAL:
        raise _refuse(oid.FLOAT4)
    if as_float == 0.0 and number != 0:
        raise _refuse(oid.FLOAT4)
    # Rounding the text to 64 bits and then to 32 errs only where the first rounding hits the middle of two floats.
    (bits,) = _INT8.unpack(_FLOAT8.pack(as_float))
    if bits & _FLOAT4_HALF_STEP_MASK == _FLOAT4_HALF_STEP and Decimal(as_float) != number:
        raise _refuse(oid.FLOAT4)
    try:
        return _FLOAT4.pack(as_float)
    except OverflowError:
        raise _refuse(oid.FLOAT4) from None


def _numeric_from_text(text: str) -> bytes:
    number = _decimal_from_text(oid.NUMERIC, text)
    return numeric.from_decimal(number if isinstance(number, Decimal) else Decimal(number))


def _bool_from_text(text: str) -> bytes:
    lowered = text.strip(_WHITESPACE).lower()
    if lowered in _TRUE_TEXTS:
        return b"\x01"
    if lowered in _FALSE_TEXTS:
        return b"\x00"
    raise _refuse(oid.BOOL)


def _text_from_text(text: str) -> bytes:
    if "\0" in text:
        raise _refuse(oid.TEXT)
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates
        raise _refuse(oid.TEXT) from None


def _name_from_text(text: str) -> bytes:
    binary = _text_from_text(text)
    if len(binary) > NAME_BYTES_MAX:
        raise _refuse(oid.NAME)
    return binary


def _uuid_from_text(text: str) -> bytes:
    if not _UUID.fullmatch(text):
        raise _refuse(oid.UUID)
    return bytes.fromhex(text.replace("-", ""))


def _bytea_from_text(text: str) -> bytes:
    match = _BYTEA.fullmatch(text)
    if match:
        return bytes.fromhex(match[1])
    if "\\" in text:
        raise _refuse(oid.BYTEA)
    return _text_from_text(text)


def _days(type_oid: int, year: str, month: str, day: str) -> int:
    """Days since 2000-01-01. Raises NotUnderstood for a day that does not exist."""
    try:
        return datetime.date(int(year), int(month), int(day)).toordinal() - _ORDINAL_2000_01_01
    except ValueError:
        raise _refuse(type_oid) from None


def _usecs(type_oid: int, hour: str, minute: str, second: str | None, fraction: str | None) -> int:
    h, m, s = int(hour), int(minute), int(second or 0)
    if h > 23 or m > 59 or s > 59:
        raise _refuse(type_oid)
    return ((h * 60 + m) * 60 + s) * _USECS_PER_SEC + (int(fraction.ljust(6, "0")) if fraction else 0)


def _date_from_text(text: str) -> bytes:
    text = text.strip(_WHITESPACE)
    match = _DATE.fullmatch(text)
    if match:
        return _INT4.pack(_days(oid.DATE, match[1], match[2], match[3]))
    sign = _INFINITY_SIGNS.get(text.lower())
    if sign is None:
        raise _refuse(oid.DATE)
    return _INT4.pack(_DATE_INFINITY if sign > 0 else _DATE_MINUS_INFINITY)


def _time_from_text(text: str) -> bytes:
    match = _TIME.fullmatch(text.strip(_WHITESPACE))
    if not match:
        raise _refuse(oid.TIME)
    return _INT8.pack(_usecs(oid.TIME, match[1], match[2], match[3], match[4]))


def _instant(type_oid: int, text: str) -> tuple[int, int | None] | None:
    """Local microseconds since 2000-01-01 and the zone in seconds east; None for a text that is no ISO timestamp."""
    match = _TIMESTAMP.fullmatch(text)
    if not match:
        return None
    year, month, day, hour, minute, second, fraction, zulu, sign, zone_h, zone_m, zone_s = match.groups()
    local = _days(type_oid, year, month, day) * _USECS_PER_DAY
    if hour is not None:
        local += _usecs(type_oid, hour, minute, second, fraction)
    if zulu:
        return local, 0
    if sign is None:
        return local, None
    h, m, s = int(zone_h), int(zone_m or 0), int(zone_s or 0)
    if h > _ZONE_HOURS_MAX or m > 59 or s > 59:
        raise _refuse(type_oid)
    east = (h * 60 + m) * 60 + s
    return local, -east if sign == "-" else east


def _infinite_timestamp(type_oid: int, text: str) -> bytes:
    sign = _INFINITY_SIGNS.get(text.lower())
    if sign is None:
        raise _refuse(type_oid)
    return _INT8.pack(_TIMESTAMP_INFINITY if sign > 0 else _TIMESTAMP_MINUS_INFINITY)


def _timestamp_from_text(text: str) -> bytes:
    text = text.strip(_WHITESPACE)
    instant = _instant(oid.TIMESTAMP, text)
    if instant is None:
        return _infinite_timestamp(oid.TIMESTAMP, text)
    local, zone = instant
    if zone is not None:  # PostgreSQL ignores it, which is rarely what was meant
        raise _refuse(oid.TIMESTAMP)
    return _INT8.pack(local)


def _timestamptz_from_text(text: str, zone_is_utc: bool = True) -> bytes:
    text = text.strip(_WHITESPACE)
    instant = _instant(oid.TIMESTAMPTZ, text)
    if instant is None:
        return _infinite_timestamp(oid.TIMESTAMPTZ, text)
    local, zone = instant
    if zone is None:
        if not zone_is_utc:
            raise _refuse(oid.TIMESTAMPTZ)
        zone = 0
    return _INT8.pack(local - zone * _USECS_PER_SEC)


_READERS: dict[int, Callable[[str], bytes]] = {
    oid.INT2: _integer_reader(oid.INT2, _INT2, -(2**15), 2**15 - 1),
    oid.INT4: _integer_reader(oid.INT4, _INT4, -(2**31), 2**31 - 1),
    oid.INT8: _integer_reader(oid.INT8, _INT8, -(2**63), 2**63 - 1),
    oid.OID: _integer_reader(oid.OID, _OID, 0, 2**32 - 1),
    oid.FLOAT4: _float4_from_text,
    oid.FLOAT8: _float8_from_text,
    oid.NUMERIC: _numeric_from_text,
    oid.BOOL: _bool_from_text,
    oid.TEXT: _text_from_text,
    oid.VARCHAR: _text_from_text,
    oid.BPCHAR: _text_from_text,
    oid.UNKNOWN: _text_from_text,
    oid.NAME: _name_from_text,
    oid.UUID: _uuid_from_text,
    oid.BYTEA: _bytea_from_text,
    oid.DATE: _date_from_text,
    oid.TIME: _time_from_text,
    oid.TIMESTAMP: _timestamp_from_text,
    oid.TIMESTAMPTZ: _timestamptz_from_text,
}


def check_binary(type_oid: int, value: bytes) -> None:
    """Raises NotUnderstood unless PostgreSQL certainly takes the bytes for a value of the type, and keeps them so."""
    width = _WIDTHS.get(type_oid)
    if width is not None:
        is_valid = len(value) == width
        if is_valid and type_oid in _FINITE:
            low, high, infinities = _FINITE[type_oid]
            number = int.from_bytes(value, "big", signed=True)
            is_valid = low <= number < high or number in infinities
        elif type_oid == oid.BOOL:
            is_valid = value in (b"\0", b"\1")
    elif type_oid == oid.NUMERIC:
        is_valid = numeric.is_canonical(value)
    elif type_oid in _TEXT_TYPES:
        value.decode()
        is_valid = b"\0" not in value
    else:
        is_valid = type_oid == oid.BYTEA
    if not is_valid:
        raise NotUnderstood("the engine has to look at the value")


def convert(from_oid: int, to_oid: int, binary: bytes, zone_is_utc: bool = True) -> bytes:
    """A binary value of one type as the equal value of another, as PostgreSQL's cast would make it.

    Understood: among int2, int4 and int8; numeric to and from those; these to float8, and integers that float8 holds
    exactly to float4; among text, varchar, bpchar and unknown; date to timestamp, and to timestamptz if the session's
    zone is UTC. Raises OutOfRange where an integer does not fit,
    NotUnderstood for everything else, fractions and NaN to an integer included.
    """
    if from_oid == to_oid:
        return binary
    target = _INTEGER_BOUNDS.get(to_oid)
    if from_oid in _INTEGER_BOUNDS:
        number = int.from_bytes(binary, "big", signed=True)
        if target is not None:
            return _pack_integer(number, target)
        if to_oid == oid.NUMERIC:
            return numeric.from_integer(number)
        if to_oid == oid.FLOAT8:
            return _FLOAT8.pack(number)
        if to_oid == oid.FLOAT4 and abs(number) <= _EXACT_AS_FLOAT8_MAX:
            return _FLOAT4.pack(number)
    elif from_oid == oid.NUMERIC and to_oid == oid.FLOAT8:
        return _float8_from_text(str(numeric.to_decimal(binary)))
    elif from_oid == oid.NUMERIC and target is not None:
        value = numeric.to_decimal(binary)
        if value.is_finite() and value == value.to_integral_value():
            return _pack_integer(int(value), target)
    elif from_oid in _TEXT_TYPES and to_oid in _TEXT_TYPES:
        # As values of char(n), trailing blanks mean nothing; PostgreSQL drops them when it leaves the type.
        return binary.rstrip(b" ") if from_oid == oid.BPCHAR else binary
    elif from_oid == oid.DATE and (to_oid == oid.TIMESTAMP or (to_oid == oid.TIMESTAMPTZ and zone_is_utc)):
        return _timestamp_from_date(binary)
    raise NotUnderstood(f"a value of type OID {from_oid} is not converted to type OID {to_oid} here; load without it")


def _pack_integer(number: int, target: tuple[Struct, int]) -> bytes:
    layout, size = target
    bound = 1 << (8 * size - 1)
    if not -bound <= number < bound:
        raise OutOfRange(f"the value does not fit an integer of {size} bytes")
    return layout.pack(number)


def _timestamp_from_date(binary: bytes) -> bytes:
    (days,) = _INT4.unpack(binary)
    if days == _DATE_INFINITY:
        return _INT8.pack(_TIMESTAMP_INFINITY)
    if days == _DATE_MINUS_INFINITY:
        return _INT8.pack(_TIMESTAMP_MINUS_INFINITY)
    if not _TIMESTAMP_DAYS_MIN <= days <= _TIMESTAMP_DAYS_MAX:
        raise NotUnderstood("this date is outside of what a timestamp can hold; load without it")
    return _INT8.pack(days * _USECS_PER_DAY)
