"""Text output of values, against texts of PostgreSQL 16."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.numeric import from_decimal
from dsql_server.encoding.output import binary_field, text_field
from dsql_server.encoding.parameters import NotUnderstood, binary_from_text

#: type, PostgreSQL's text output, and an input where that differs
KNOWN = [
    (oids.BOOL, "t", "true"),
    (oids.BOOL, "f", "no"),
    (oids.INT2, "-32768", None),
    (oids.INT4, "0", "-0"),
    (oids.INT8, "9223372036854775807", None),
    (oids.TEXT, "", None),
    (oids.VARCHAR, "Zoë\n", None),
    (oids.UUID, "0189f7ad-cc2e-7a3b-8000-00000000000f", "0189F7ADCC2E7A3B800000000000000F"),
    (oids.NUMERIC, "0.00", None),
    (oids.NUMERIC, "-0.0001", None),
    (oids.NUMERIC, "100000000.5000", None),
    (oids.NUMERIC, "12345678901234567890", None),
    (oids.NUMERIC, "NaN", None),
    (oids.NUMERIC, "-Infinity", None),
    (oids.DATE, "0001-01-01", None),
    (oids.DATE, "9999-12-31", None),
    (oids.TIMESTAMP, "1999-12-31 23:59:59.9", None),
    (oids.TIMESTAMP, "2000-01-01 00:00:00", None),
    (oids.TIMESTAMPTZ, "2024-02-29 12:00:00.000001+00", None),
    (oids.TIMESTAMPTZ, "2024-02-29 10:00:00+00", "2024-02-29 12:00:00+02"),
]


def text_of(type_oid: int, binary: bytes) -> str:
    field = text_field(type_oid, iso_dates=True, zone_is_utc=True)
    assert field is not None
    sent = field(binary)
    assert int.from_bytes(sent[:4], "big") == len(sent) - 4
    return sent[4:].decode()


@pytest.mark.parametrize(("type_oid", "text", "given_as"), KNOWN)
def test_texts_of_postgresql(type_oid: int, text: str, given_as: str | None) -> None:
    assert text_of(type_oid, binary_from_text(type_oid, given_as or text)) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40))
def test_numerics_with_their_scale(value: Decimal) -> None:
    scale = max(-int(value.as_tuple().exponent), 0)
    assert text_of(oids.NUMERIC, from_decimal(value)) == f"{abs(value) if value == 0 else value:.{scale}f}"


@pytest.mark.parametrize(
    ("type_oid", "text"),
    [(oids.DATE, "infinity"), (oids.DATE, "-infinity"), (oids.TIMESTAMP, "infinity"), (oids.TIMESTAMPTZ, "-infinity")],
)
def test_what_no_calendar_has_is_left_to_the_engine(type_oid: int, text: str) -> None:
    with pytest.raises(NotUnderstood):
        text_of(type_oid, binary_from_text(type_oid, text))


def test_other_styles_and_zones_are_left_to_the_engine() -> None:
    assert text_field(oids.DATE, iso_dates=False, zone_is_utc=True) is None
    assert text_field(oids.TIMESTAMPTZ, iso_dates=True, zone_is_utc=False) is None
    assert text_field(oids.TIMESTAMP, iso_dates=True, zone_is_utc=False) is not None
    assert text_field(oids.FLOAT8, iso_dates=True, zone_is_utc=True) is None


def test_binary_values_pass_through() -> None:
    assert binary_field(b"abc") == b"\x00\x00\x00\x03abc"
