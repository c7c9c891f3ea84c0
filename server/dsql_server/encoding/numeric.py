"""PostgreSQL's binary ``numeric``: to and from :class:`~decimal.Decimal`, and as an order-preserving key.

Binary layout, all big-endian: int16 number of digits, int16 weight (of the first digit, in powers of 10,000),
uint16 sign, uint16 display scale, then the digits in base 10,000.
"""

from __future__ import annotations

from decimal import Context, Decimal
from struct import Struct

_HEADER = Struct(">hhHH")
_unpack_header = _HEADER.unpack_from
_HEADER_BYTES = 8

_POSITIVE = 0x0000
_NEGATIVE = 0x4000
_NAN = 0xC000
_PLUS_INFINITY = 0xD000
_MINUS_INFINITY = 0xF000

_INFINITY_SCALE = 32  #: what PostgreSQL sends as the display scale of an infinity; it means nothing

_SPECIAL_DECIMALS = {
    _NAN: Decimal("NaN"),
    _PLUS_INFINITY: Decimal("Infinity"),
    _MINUS_INFINITY: Decimal("-Infinity"),
}

#: PostgreSQL's own bounds of the format (digits before and after the decimal point).
INTEGER_DIGITS_MAX = 131_072
SCALE_MAX = 16_383

#: Precise enough that no numeric is ever rounded.
_EXACT = Context(prec=INTEGER_DIGITS_MAX + SCALE_MAX)

# First byte of a key, in PostgreSQL's order: -Infinity, negative, zero, positive, Infinity, NaN.
_KEY_MINUS_INFINITY = b"\x08"
_KEY_NEGATIVE = 0x10
_KEY_ZERO = b"\x18"
_KEY_POSITIVE = 0x20
_KEY_PLUS_INFINITY = b"\x28"
_KEY_NAN = b"\x30"
_SPECIAL_KEYS = {_NAN: _KEY_NAN, _PLUS_INFINITY: _KEY_PLUS_INFINITY, _MINUS_INFINITY: _KEY_MINUS_INFINITY}

_WEIGHT_BIAS = 0x8000
#: 1 in each 16-bit lane, for that many digits; longer numbers compute theirs.
_ONES = tuple(int.from_bytes(b"\x00\x01" * count, "big") for count in range(16))


def encode_key(binary: bytes) -> bytes:
    """The order-preserving encoding; equal values encode equally whatever their display scale (1.0 and 1.00).

    A class byte; for finite values other than zero the biased weight, each digit plus one, and a zero digit as the
    end, so that no encoding is a prefix of another. Negative values have everything after the class complemented.
    """
    count, weight, sign, _scale = _unpack_header(binary)
    if sign not in (_POSITIVE, _NEGATIVE):
        return _SPECIAL_KEYS[sign]
    digits = binary[8:]
    if count and (digits[:2] == b"\0\0" or digits[-2:] == b"\0\0"):
        digits, weight = _without_outer_zeros(digits, weight)
        count = len(digits) // 2
    if not count:
        return _KEY_ZERO
    bits = 16 * count
    # Digits stay below 10,000, so adding one to each lane never carries into the next.
    lanes = int.from_bytes(digits, "big") + (_ONES[count] if count < 16 else int.from_bytes(b"\0\1" * count, "big"))
    body: int = (((weight + _WEIGHT_BIAS) << bits) | lanes) << 16
    bits += 32
    if sign:
        body = (_KEY_NEGATIVE << bits) | (body ^ ((1 << bits) - 1))
    else:
        body |= _KEY_POSITIVE << bits
    return body.to_bytes(5 + 2 * count, "big")


def _without_outer_zeros(digits: bytes, weight: int) -> tuple[bytes, int]:
    start, end = 0, len(digits)
    while start < end and digits[start : start + 2] == b"\0\0":
        start += 2
        weight -= 1
    while end > start and digits[end - 2 : end] == b"\0\0":
        end -= 2
    return digits[start:end], weight


def is_canonical(binary: bytes) -> bool:
    """Whether these are the bytes that PostgreSQL itself would send for their value."""
    if len(binary) < _HEADER_BYTES:
        return False
    count, weight, sign, scale = _unpack_header(binary)
    if sign not in (_POSITIVE, _NEGATIVE) or scale > SCALE_MAX or len(binary) != _HEADER_BYTES + 2 * count:
        return False  # NaN and the infinities have several forms
    if count <= 0:
        return bool(count == 0 and weight == 0 and sign == _POSITIVE)
    digits = [binary[at] << 8 | binary[at + 1] for at in range(_HEADER_BYTES, len(binary), 2)]
    places = 4 * (count - 1 - weight)  # decimal places of the last base-10,000 digit
    hidden = 10 ** min(max(places - scale, 0), 4)  # what of it would lie behind the display scale
    return bool(digits[0] and digits[-1] and max(digits) < 10_000 and digits[-1] % hidden == 0)


def fitted(binary: bytes, precision: int, scale: int) -> bytes:
    """A canonical value as a column numeric(precision, scale) stores it: with that display scale.

    Raises ValueError where the value would have to be rounded or doesn't fit.
    """
    count, weight, sign, shown = _unpack_header(binary)
    if sign not in (_POSITIVE, _NEGATIVE) or shown > scale or scale > precision:
        raise ValueError("rounded, too large, or no number")
    if count and weight >= 0 and 4 * weight + len(str(binary[8] << 8 | binary[9])) > precision - scale:
        raise ValueError("too large")
    return binary[:6] + scale.to_bytes(2, "big") + binary[_HEADER_BYTES:]


def to_decimal(binary: bytes) -> Decimal:
    """The value with its display scale kept (``1.00`` stays ``1.00``); NaN and ±Infinity as Decimal's."""
    count, weight, sign, scale = _unpack_header(binary)
    if sign not in (_POSITIVE, _NEGATIVE):
        return _SPECIAL_DECIMALS[sign]
    unscaled = 0
    for at in range(_HEADER_BYTES, _HEADER_BYTES + 2 * count, 2):
        unscaled = unscaled * 10_000 + (binary[at] << 8 | binary[at + 1])
    # The last digit stands for 10,000 ** (weight - count + 1); bring the unit to 10 ** -scale.
    shift = 4 * (weight - count + 1) + scale
    if shift >= 0:
        unscaled *= 10**shift
    else:
        unscaled, dropped = divmod(unscaled, 10**-shift)
        assert dropped == 0, "a numeric has no digits beyond its display scale"
    return _EXACT.scaleb(Decimal(-unscaled if sign else unscaled), -scale)


def from_integer(value: int) -> bytes:
    """The binary form of an integer."""
    if 0 < value < 10_000:
        return _HEADER.pack(1, 0, _POSITIVE, 0) + value.to_bytes(2, "big")
    return from_decimal(Decimal(value))


def from_decimal(value: Decimal) -> bytes:
    """The binary form, with as many display digits as the Decimal has.

    Raises OverflowError beyond what ``numeric`` holds.
    """
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, str):
        if exponent != "F":
            return _HEADER.pack(0, 0, _NAN, 0)
        return _HEADER.pack(0, 0, _MINUS_INFINITY if sign else _PLUS_INFINITY, _INFINITY_SCALE)
    if len(digits) + exponent > INTEGER_DIGITS_MAX or -exponent > SCALE_MAX:
        raise OverflowError(
            f"numeric holds at most {INTEGER_DIGITS_MAX} digits before and {SCALE_MAX} after the decimal point"
        )
    scale = max(-exponent, 0)
    places = -(-scale // 4)  # base-10,000 digits behind the decimal point
    rest = int(_EXACT.scaleb(value.copy_abs(), 4 * places))
    groups: list[int] = []
    while rest:
        rest, group = divmod(rest, 10_000)
        groups.append(group)
    weight = len(groups) - places - 1
    while groups and groups[0] == 0:
        del groups[0]
    if not groups:
        return _HEADER.pack(0, 0, _POSITIVE, scale)
    header = _HEADER.pack(len(groups), weight, _NEGATIVE if sign else _POSITIVE, scale)
    return header + b"".join([group.to_bytes(2, "big") for group in reversed(groups)])
