"""Types of columns and random values of them: few enough to meet each other, with the extremes among them."""

from __future__ import annotations

import random
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from two_servers import Parameter

#: How often a value is an extreme one, and how often NULL where it may be.
EXTREME_SHARE = 0.06
NULL_SHARE = 0.15


@dataclass(frozen=True)
class Kind:
    """A type by its SQL name. Columns of one ``family`` are compared with each other."""

    sql: str
    family: str
    oid: int
    common: tuple[str, ...]  #: in text format
    extreme: tuple[str, ...] = ()
    is_key: bool = True  #: may stand in a key
    to_binary: Callable[[str], bytes] | None = None


def _integers(size: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    high = 2 ** (8 * size - 1)
    return tuple(str(n) for n in range(-2, 12)), (str(high - 1), str(-high), "100", "255", "256", "-129")


def _packer(layout: str) -> Callable[[str], bytes]:
    return lambda text: struct.pack(layout, int(text))


_TEXTS = ("", "a", "b", "ab", "A", "a ", "Ab", "é", "o'clock", "back\\slash", "b%", "_x", "zz")
_LONG_TEXTS = ("a" * 300, "日本語", "\t\n", "~", '"', "{1,2}", "NULL", "$1")
_UUIDS = tuple(str(uuid.UUID(int=n << 64 | n)) for n in range(10))

SMALLINT = Kind("smallint", "number", 21, *_integers(2), to_binary=_packer(">h"))
INT = Kind("int", "number", 23, *_integers(4), to_binary=_packer(">i"))
BIGINT = Kind("bigint", "number", 20, *_integers(8), to_binary=_packer(">q"))
NUMERIC = Kind(
    "numeric(14,3)", "number", 1700,
    ("0", "1", "1.0", "1.500", "-1", "2", "2.25", "3", "10", "-0.001"),
    ("99999999999.999", "-99999999999.999", "NaN", "0.001", "1e3"),
)  # fmt: skip
DOUBLE = Kind(
    "double precision", "number", 701, ("0", "1", "1.5", "-1", "2", "2.25", "3", "10"),
    ("-0", "NaN", "Infinity", "-Infinity", "1e308", "1e-300", "0.1"), to_binary=lambda t: struct.pack(">d", float(t)),
)  # fmt: skip
REAL = Kind(
    "real", "number", 700, ("0", "1", "1.5", "-1", "2", "2.25", "3"), ("-0", "NaN", "Infinity", "0.1", "1e30"),
    to_binary=lambda t: struct.pack(">f", float(t)),
)  # fmt: skip
TEXT = Kind("text", "string", 25, _TEXTS, _LONG_TEXTS, to_binary=str.encode)
VARCHAR = Kind("varchar(400)", "string", 1043, _TEXTS, _LONG_TEXTS, to_binary=str.encode)
CHAR = Kind("char(4)", "string", 1042, ("", "a", "b", "ab", "A", "a ", "zz", "é"), ("abcd", "%"), to_binary=str.encode)
UUID = Kind(
    "uuid", "uuid", 2950, _UUIDS, ("ffffffff-ffff-ffff-ffff-ffffffffffff",), to_binary=lambda t: uuid.UUID(t).bytes
)
BOOLEAN = Kind("boolean", "boolean", 16, ("t", "f"), to_binary=lambda t: b"\x01" if t == "t" else b"\x00")
DATE = Kind(
    "date", "moment", 1082, ("2000-01-01", "2024-02-29", "2024-03-01", "1999-12-31", "2025-01-01"),
    ("infinity", "-infinity", "0001-01-01", "9999-12-31", "4713-01-01 BC"),
)  # fmt: skip
TIMESTAMP = Kind(
    "timestamp", "moment", 1114,
    ("2000-01-01 00:00:00", "2024-02-29 12:30:00", "2024-03-01 00:00:00", "1999-12-31 23:59:59.999999"),
    ("infinity", "-infinity", "0001-01-01 00:00:00", "4713-01-01 00:00:00 BC"),
)  # fmt: skip
TIMESTAMPTZ = Kind(
    "timestamptz", "moment", 1184,
    ("2000-01-01 00:00:00+00", "2024-02-29 12:30:00+02", "2024-03-01 00:00:00", "1999-12-31 23:59:59.999999Z"),
    ("infinity", "-infinity", "2024-02-29 16:00:00+05:30"),
)  # fmt: skip
BYTEA = Kind("bytea", "bytes", 17, ("\\x", "\\x00", "\\x61", "\\xff00"), ("\\x0000", "\\xffff"), is_key=False)
INTERVAL = Kind(
    "interval", "interval", 1186, ("1 day", "24 hours", "1 mon", "30 days", "-1 day", "0"), ("10 years",), is_key=False
)
JSONB = Kind("jsonb", "json", 3802, ("{}", '{"a": 1}', '{"a": [1, "x"]}', "[]", "1", "null"), (), is_key=False)
TIME = Kind("time", "time", 1083, ("00:00:00", "12:30:00", "23:59:59.999999"), ("24:00:00",))

KINDS = (
    SMALLINT, INT, INT, BIGINT, BIGINT, NUMERIC, DOUBLE, REAL, TEXT, TEXT, VARCHAR, CHAR, UUID, BOOLEAN, DATE,
    TIMESTAMP, TIMESTAMPTZ, BYTEA, INTERVAL, JSONB, TIME,
)  # fmt: skip
KEY_KINDS = (INT, INT, BIGINT, UUID, TEXT, NUMERIC, VARCHAR, SMALLINT, DATE, TIMESTAMPTZ, CHAR, DOUBLE, BOOLEAN)


def random_text(rng: random.Random, kind: Kind) -> str:
    """A value in text format, never NULL."""
    return rng.choice(kind.extreme if kind.extreme and rng.random() < EXTREME_SHARE else kind.common)


@dataclass(frozen=True)
class LiteralStyle:
    """How a value is written into a text."""

    bare: bool  #: without quotes, where it may be
    parenthesised: bool
    typed: bool  #: a string with its type

    @classmethod
    def random(cls, rng: random.Random) -> LiteralStyle:
        return cls(rng.random() < 0.7, rng.random() < 0.5, rng.random() < 0.4)


def literal(kind: Kind, text: str | None, style: LiteralStyle) -> str:
    """The value as SQL: a bare number, a string of unknown type, or one with its type."""
    if text is None:
        return "NULL"
    if style.bare and kind.family == "number" and text.replace(".", "").replace("-", "").isdigit():
        return f"({text})" if style.parenthesised and text.startswith("-") else text
    if style.bare and kind is BOOLEAN:
        return "true" if text == "t" else "false"
    quoted = "'" + text.replace("'", "''") + "'"
    return f"{quoted}::{kind.sql}" if style.typed else quoted


def parameter_form(kind: Kind, text: str | None, rng: random.Random) -> tuple[int, bool]:
    """The declared type of a parameter (0: none) and whether it goes in binary format."""
    if text is not None and kind.to_binary is not None and rng.random() < 0.4:
        return kind.oid, True
    return (kind.oid if rng.random() < 0.5 else 0), False


def parameter(kind: Kind, text: str | None, oid: int, binary: bool) -> Parameter:
    """The value as a bound parameter."""
    if text is None:
        return Parameter(None, oid, binary)
    if binary:
        assert kind.to_binary is not None, "parameter_form saw to that"
        return Parameter(kind.to_binary(text), oid, True)
    return Parameter(text.encode(), oid)
