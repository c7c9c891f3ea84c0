"""Parameter texts become what PostgreSQL makes of them, or are not understood."""

from __future__ import annotations

import datetime
import struct
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.encoding import numeric
from dsql_server.encoding import type_oids as oid
from dsql_server.encoding.parameters import NotUnderstood, OutOfRange, binary_from_text, check_binary, convert

#: What PostgreSQL 16 sends for these texts.
UNDERSTOOD = [
    (oid.INT2, "-3", "fffd"),
    (oid.INT4, " +5 ", "00000005"),
    (oid.INT8, "007", "0000000000000007"),
    (oid.OID, "4294967295", "ffffffff"),
    (oid.FLOAT8, "  .5", "3fe0000000000000"),
    (oid.FLOAT8, "-Infinity", "fff0000000000000"),
    (oid.FLOAT8, "5e-324", "0000000000000001"),
    (oid.FLOAT4, "0.1", "3dcccccd"),
    (oid.FLOAT4, "1.000000059604644775390625", "3f800000"),
    (oid.NUMERIC, "1.50e-2", "0001 ffff 0000 0004 0096"),
    (oid.NUMERIC, "-0.00", "0000 0000 0000 0002"),
    (oid.BOOL, " oFf ", "00"),
    (oid.BOOL, "tru", "01"),
    (oid.TEXT, " a b ", "20612062 20"),
    (oid.UUID, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc999c0b4ef8bb6d6bb9bd380a11"),
    (oid.UUID, "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc999c0b4ef8bb6d6bb9bd380a11"),
    (oid.BYTEA, "\\xDEad", "dead"),
    (oid.BYTEA, "abc", "616263"),
    (oid.DATE, "2000-01-02", "00000001"),
    (oid.DATE, "infinity", "7fffffff"),
    (oid.DATE, "-INFINITY", "80000000"),
    (oid.TIME, "10:00:00.5", struct.pack(">q", 36_000_500_000).hex()),
    (oid.TIMESTAMP, "1999-12-31T23:59:59.999999", "ffffffffffffffff"),
    (oid.TIMESTAMP, "2000-01-02", "000000141dd76000"),
    (oid.TIMESTAMPTZ, "2026-11-23 05:09:04.123456+00", struct.pack(">q", 848_725_744_123_456).hex()),
    (oid.TIMESTAMPTZ, "2026-11-23T10:39:04.123456+05:30", struct.pack(">q", 848_725_744_123_456).hex()),
    (oid.TIMESTAMPTZ, "2026-11-23 05:09:04.123456", struct.pack(">q", 848_725_744_123_456).hex()),
    (oid.TIMESTAMPTZ, "2000-01-01 00:00Z", "0000000000000000"),
    (oid.TIMESTAMPTZ, "infinity", "7fffffffffffffff"),
]

NOT_UNDERSTOOD = [
    (oid.INT2, "32768"),
    (oid.INT4, "0x1F"),
    (oid.INT4, "1_000"),
    (oid.INT4, "5.0"),
    (oid.INT4, ""),
    (oid.INT4, "٣"),
    (oid.FLOAT8, "1e400"),
    (oid.FLOAT8, "1e-400"),
    (oid.FLOAT8, "0x1p3"),
    (oid.FLOAT4, "1e39"),
    (oid.FLOAT4, "1.00000005960464477540"),  # rounding twice would be wrong
    (oid.NUMERIC, "1e99999"),
    (oid.NUMERIC, "1_0"),
    (oid.BOOL, "o"),
    (oid.TEXT, "a\0b"),
    (oid.NAME, "n" * 64),
    (oid.UUID, "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"),
    (oid.BYTEA, "\\001"),
    (oid.BYTEA, "\\x1"),
    (oid.DATE, "2026-02-30"),
    (oid.DATE, "0000-01-01"),
    (oid.DATE, "today"),
    (oid.DATE, "20260101"),
    (oid.DATE, "01/02/2026"),
    (oid.TIME, "24:00"),
    (oid.TIMESTAMP, "2026-01-01 10:00+01"),
    (oid.TIMESTAMP, "2026-01-01 10:00:00.1234567"),
    (oid.TIMESTAMP, "2026-01-01 10:00:60"),
    (oid.TIMESTAMPTZ, "2026-11-23 05:09+16"),
    (oid.TIMESTAMPTZ, "2026-11-23 05:09:04 UTC"),
    (oid.TIMESTAMPTZ, "now"),
    (3802, "{}"),
]


@pytest.mark.parametrize(("type_oid", "text", "binary"), UNDERSTOOD)
def test_texts_with_one_meaning(type_oid: int, text: str, binary: str) -> None:
    assert binary_from_text(type_oid, text) == bytes.fromhex(binary)
    assert binary_from_text(type_oid, text.encode()) == bytes.fromhex(binary)


@pytest.mark.parametrize(("type_oid", "text"), NOT_UNDERSTOOD)
def test_texts_left_to_postgresql(type_oid: int, text: str) -> None:
    with pytest.raises(NotUnderstood):
        binary_from_text(type_oid, text)


def test_bytes_that_are_no_utf8_are_left_to_postgresql() -> None:
    with pytest.raises(NotUnderstood):
        binary_from_text(oid.TEXT, b"\xff")


def test_a_text_without_a_zone_needs_a_session_in_utc() -> None:
    with pytest.raises(NotUnderstood):
        binary_from_text(oid.TIMESTAMPTZ, "2026-11-23 05:09:04", zone_is_utc=False)
    zoned = "2026-11-23 05:09:04+02"
    assert binary_from_text(oid.TIMESTAMPTZ, zoned, zone_is_utc=False) == binary_from_text(oid.TIMESTAMPTZ, zoned)


def test_a_refusal_keeps_the_users_data_to_itself() -> None:
    with pytest.raises(NotUnderstood) as refusal:
        binary_from_text(oid.INT4, "secret-4711")
    assert "4711" not in str(refusal.value)


zones = st.integers(-15 * 60, 15 * 60).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))
EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)


@given(st.datetimes(timezones=zones), st.sampled_from([" ", "T"]))
def test_iso_timestamps_are_exact(moment: datetime.datetime, separator: str) -> None:
    (usecs,) = struct.unpack(">q", binary_from_text(oid.TIMESTAMPTZ, moment.isoformat(separator)))
    assert usecs == (moment - EPOCH) // datetime.timedelta(microseconds=1)


@given(st.floats(allow_nan=False))
def test_floats_are_exact(number: float) -> None:
    text = repr(number).replace("inf", "infinity")
    assert binary_from_text(oid.FLOAT8, text) == struct.pack(">d", number)


def integer(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big", signed=True)


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_convert_or_are_out_of_range(value: int) -> None:
    for type_oid, size in ((oid.INT2, 2), (oid.INT4, 4), (oid.INT8, 8)):
        for binary, from_oid in ((integer(value, 8), oid.INT8), (numeric.from_decimal(Decimal(value)), oid.NUMERIC)):
            if -(2 ** (8 * size - 1)) <= value < 2 ** (8 * size - 1):
                assert convert(from_oid, type_oid, binary) == integer(value, size)
            else:
                with pytest.raises(OutOfRange):
                    convert(from_oid, type_oid, binary)
    assert convert(oid.INT8, oid.NUMERIC, integer(value, 8)) == numeric.from_decimal(Decimal(value))


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_become_floats_as_postgresql_rounds_them(value: int) -> None:
    assert convert(oid.INT8, oid.FLOAT8, integer(value, 8)) == struct.pack(">d", value)
    if abs(value) <= 2**53:
        assert convert(oid.INT8, oid.FLOAT4, integer(value, 8)) == struct.pack(">f", value)
    else:
        with pytest.raises(NotUnderstood):
            convert(oid.INT8, oid.FLOAT4, integer(value, 8))


@pytest.mark.parametrize("text", ["0", "-1.5", "0.1", "1e300", "NaN", "Infinity", "-Infinity"])
def test_numerics_become_floats(text: str) -> None:
    found = convert(oid.NUMERIC, oid.FLOAT8, numeric.from_decimal(Decimal(text)))
    assert found == struct.pack(">d", float(text))


@pytest.mark.parametrize("text", ["0.5", "NaN", "Infinity"])
def test_what_is_no_integer_does_not_become_one(text: str) -> None:
    with pytest.raises(NotUnderstood):
        convert(oid.NUMERIC, oid.INT4, numeric.from_decimal(Decimal(text)))


def test_char_loses_its_blanks_when_it_becomes_text() -> None:
    assert convert(oid.BPCHAR, oid.TEXT, b"a  ") == b"a"
    assert convert(oid.TEXT, oid.BPCHAR, b"a  ") == b"a  "
    assert convert(oid.UNKNOWN, oid.VARCHAR, b"a  ") == b"a  "


@pytest.mark.parametrize(
    ("days", "usecs"), [(1, 86_400_000_000), (2**31 - 1, 2**63 - 1), (-(2**31), -(2**63))], ids=["day", "inf", "-inf"]
)
def test_dates_become_timestamps(days: int, usecs: int) -> None:
    assert convert(oid.DATE, oid.TIMESTAMP, integer(days, 4)) == integer(usecs, 8)
    assert convert(oid.DATE, oid.TIMESTAMPTZ, integer(days, 4)) == integer(usecs, 8)


@pytest.mark.parametrize(
    ("from_oid", "to_oid", "binary", "utc"),
    [
        (oid.DATE, oid.TIMESTAMPTZ, integer(1, 4), False),
        (oid.DATE, oid.TIMESTAMP, integer(2**31 - 2, 4), True),
        (oid.TIMESTAMP, oid.DATE, integer(1, 8), True),
        (oid.TEXT, oid.UUID, b"a", True),
        (oid.FLOAT8, oid.INT4, bytes(8), True),
    ],
)
def test_conversions_left_to_postgresql(from_oid: int, to_oid: int, binary: bytes, utc: bool) -> None:
    with pytest.raises(NotUnderstood):
        convert(from_oid, to_oid, binary, zone_is_utc=utc)


@pytest.mark.parametrize(
    ("type_oid", "binary"),
    [
        (oid.INT4, "000001"),
        (oid.BOOL, "02"),
        (oid.UUID, "00"),
        (oid.TEXT, "6100"),
        (oid.TEXT, "ff"),
        (oid.NUMERIC, "00"),
        (oid.DATE, "7ffffffe"),
        (oid.TIMESTAMP, "7ffffffffffffffe"),
        (oid.TIMESTAMPTZ, "8000000000000001"),
        (114, "7b7d"),  # json
    ],
)
def test_bytes_that_postgresql_may_refuse_or_change(type_oid: int, binary: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_binary(type_oid, bytes.fromhex(binary))


@pytest.mark.parametrize(
    ("type_oid", "text", "binary"), [case for case in UNDERSTOOD if case[0] not in (oid.OID, oid.TIME)]
)
def test_what_postgresql_sends_it_takes(type_oid: int, text: str, binary: str) -> None:
    check_binary(type_oid, bytes.fromhex(binary))
