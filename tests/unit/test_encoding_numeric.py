"""PostgreSQL's binary numeric against known bytes and against Decimal."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.encoding import numeric

finite = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40)

#: As PostgreSQL 16 sends them.
KNOWN = {
    "0": "0000 0000 0000 0000",
    "0.00": "0000 0000 0000 0002",
    "1": "0001 0000 0000 0000 0001",
    "-7": "0001 0000 4000 0000 0007",
    "10000": "0001 0001 0000 0000 0001",
    "0.0001": "0001 ffff 0000 0004 0001",
    "12345.678": "0003 0001 0000 0003 0001 0929 1a7c",
    "NaN": "0000 0000 c000 0000",
    "Infinity": "0000 0000 d000 0020",
    "-Infinity": "0000 0000 f000 0020",
}


@pytest.mark.parametrize(("text", "binary"), KNOWN.items())
def test_known_values(text: str, binary: str) -> None:
    assert numeric.from_decimal(Decimal(text)) == bytes.fromhex(binary)
    assert str(numeric.to_decimal(bytes.fromhex(binary))) == text


@given(finite)
def test_a_decimal_comes_back_with_its_display_scale(value: Decimal) -> None:
    back = numeric.to_decimal(numeric.from_decimal(value))
    assert back == value
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    assert back.as_tuple().exponent == min(exponent, 0)


@given(finite, finite)
def test_keys_sort_as_the_values_do(a: Decimal, b: Decimal) -> None:
    key_a, key_b = (numeric.encode_key(numeric.from_decimal(value)) for value in (a, b))
    assert (key_a < key_b) == (a < b)
    assert (key_a == key_b) == (a == b)
    assert key_a == key_b or not (key_a.startswith(key_b) or key_b.startswith(key_a))


def test_special_values_sort_as_in_postgresql() -> None:
    ascending = ["-Infinity", "-1e30", "-1", "-0.5", "0", "0.5", "1", "1e30", "Infinity", "NaN"]
    keys = [numeric.encode_key(numeric.from_decimal(Decimal(text))) for text in ascending]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("equal", [("1.0", "1.00"), ("0", "0.000"), ("-5", "-5.0"), ("1e5", "100000")])
def test_equal_values_have_equal_keys(equal: tuple[str, str]) -> None:
    a, b = (numeric.encode_key(numeric.from_decimal(Decimal(text))) for text in equal)
    assert a == b


def test_zero_digits_around_a_client_value_do_not_matter() -> None:
    padded = bytes.fromhex("0003 0001 0000 0000 0000 0001 0000")
    assert numeric.encode_key(padded) == numeric.encode_key(numeric.from_decimal(Decimal(1)))


def test_a_long_number_sorts_beyond_the_precomputed_lanes() -> None:
    shorter, longer = Decimal("1" * 99), Decimal("1" * 100)
    keys = [numeric.encode_key(numeric.from_decimal(value)) for value in (-longer, -shorter, shorter, longer)]
    assert keys == sorted(keys)


@pytest.mark.parametrize("text", ["1e131073", "1e-16384"])
def test_what_numeric_cannot_hold_overflows(text: str) -> None:
    with pytest.raises(OverflowError):
        numeric.from_decimal(Decimal(text))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
def test_what_is_written_here_is_canonical(value: Decimal) -> None:
    binary = numeric.from_decimal(value)
    assert numeric.is_canonical(binary)
    assert numeric.to_decimal(numeric.fitted(binary, 38, 9)) == value


@pytest.mark.parametrize(
    "binary",
    [
        "0001 0000 0000",  # cut off
        "0001 0000 0000 0000 0001 00",
        "0001 0000 0000 0000 2710",  # no digit in base 10,000
        "0002 0001 0000 0000 0000 0001",  # zeroes around the digits
        "0002 0000 0000 0004 0001 0000",
        "0000 0000 4000 0000",  # minus zero
        "0001 ffff 0000 0001 0064",  # 0.01 shown with one decimal place
        "0000 0000 c000 0000",  # NaN
        "ffff 0000 0000 0000",
    ],
)
def test_other_bytes_are_not_canonical(binary: str) -> None:
    assert not numeric.is_canonical(bytes.fromhex(binary))


@pytest.mark.parametrize(
    ("text", "precision", "scale"), [("100", 4, 2), ("0.001", 4, 2), ("NaN", 4, 2), ("1.50", 4, 1), ("0.1", 2, 3)]
)
def test_values_that_a_column_refuses_or_rounds_do_not_fit(text: str, precision: int, scale: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        numeric.fitted(numeric.from_decimal(Decimal(text)), precision, scale)


def test_a_column_shows_all_of_its_decimal_places() -> None:
    fitted = numeric.fitted(numeric.from_decimal(Decimal("99.5")), 4, 2)
    assert str(numeric.to_decimal(fitted)) == "99.50"
