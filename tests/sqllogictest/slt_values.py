"""Results as sqllogictest writes them down: every value one line, sorted as the query says, long ones as a hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from slt_format import Query

BOOL_OID = 16
_HASHED = re.compile(r"(\d+) values hashing to ([0-9a-f]{32})")
_LEADING_INTEGER = re.compile(r"\s*([+-]?\d+)")


@dataclass(frozen=True)
class Answer:
    """What a server says to a statement: rows in the protocol's text format, or an error."""

    rows: tuple[tuple[str | None, ...], ...] = ()
    column_types: tuple[int, ...] = ()  #: OIDs
    sqlstate: str | None = None
    message: str = ""


def formatted(answer: Answer, query: Query) -> list[str] | None:
    """The values of an answer as the file has them; None for an error and for another number of columns."""
    if answer.sqlstate is not None or len(answer.column_types) != len(query.types):
        return None
    rows = [
        [_format(value, wanted, oid) for value, wanted, oid in zip(row, query.types, answer.column_types, strict=True)]
        for row in answer.rows
    ]
    if query.sort_mode == "rowsort":
        rows.sort()
    values = [value for row in rows for value in row]
    return sorted(values) if query.sort_mode == "valuesort" else values


def are_expected(values: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether these are the values, or have the hash, that a file gives."""
    hashed = _HASHED.fullmatch(expected[0]) if len(expected) == 1 else None
    if hashed is None:
        return list(values) == list(expected)
    return len(values) == int(hashed[1]) and digest(values) == hashed[2]


def digest(values: Sequence[str]) -> str:
    """The format's hash of values: MD5 of their lines."""
    return hashlib.md5("".join(value + "\n" for value in values).encode(), usedforsecurity=False).hexdigest()


def _format(value: str | None, wanted: str, oid: int) -> str:
    if value is None:
        return "NULL"
    if oid == BOOL_OID:
        value = str(int(value == "t"))
    if wanted == "I":
        # As C's strtol: 1.5 is 1, and what begins with no digit is 0.
        leading = _LEADING_INTEGER.match(value)
        return str(int(leading[1])) if leading else "0"
    if wanted == "R":
        return f"{float(value):.3f}"
    return "".join(c if " " <= c <= "~" else "@" for c in value) or "(empty)"
