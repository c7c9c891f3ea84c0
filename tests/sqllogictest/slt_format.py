"""The sqllogictest file format: statements and queries, each with the answer that any SQL database owes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

SortMode = Literal["nosort", "rowsort", "valuesort"]
SORT_MODES = ("nosort", "rowsort", "valuesort")
#: Of a query's type string: integer, floating point, text.
VALUE_TYPES = frozenset("IRT")


class FormatError(ValueError):
    """A file isn't in the format; the text names the line and what is wrong there."""


@dataclass(frozen=True)
class Statement:
    """A statement without rows, and whether it has to fail."""

    line: int
    sql: str
    fails: bool


@dataclass(frozen=True)
class Query:
    """A query, and its values: one a line, or their number and hash in a single line."""

    line: int
    sql: str
    types: str
    sort_mode: SortMode
    label: str | None  #: queries of one label have the same values
    expected: tuple[str, ...]


Record = Statement | Query


@dataclass(frozen=True)
class Script:
    """What one database runs of a file."""

    records: tuple[Record, ...]
    skipped: int  #: records that are for other databases only
    hash_threshold: int  #: longer results are hashed in the file; 0: none is


def parse(text: str, database: str) -> Script:
    """Read a file as ``database`` (the name that ``skipif`` and ``onlyif`` know it by) has to run it.

    :raises FormatError: something is neither a record nor a comment.
    """
    records: list[Record] = []
    skipped = hash_threshold = 0
    for line, head, body in _paragraphs(text):
        is_wanted, head_at = _conditions(head, database)
        words = head[head_at].split("#")[0].split() if head_at < len(head) else []
        match words:
            case [] | ["hash-threshold" | "halt" | "statement" | "query", *_] if not is_wanted:
                skipped += bool(body)
            case ["halt"]:
                break
            case ["hash-threshold", number] if number.isdecimal():
                hash_threshold = int(number)
            case ["statement", "ok" | "error" as outcome] if body:
                records.append(Statement(line + head_at, "\n".join(body), outcome == "error"))
            case ["query", types, *options] if body and set(types) <= VALUE_TYPES:
                records.append(_query(line + head_at, types, options, body))
            case _:
                raise FormatError(f"line {line + head_at}: {' '.join(words)!r} is no record of this format")
    return Script(tuple(records), skipped, hash_threshold)


def _paragraphs(text: str) -> Iterator[tuple[int, list[str], list[str]]]:
    """Line number, control lines and body of each paragraph; comments between them are left out."""
    head: list[str] = []
    body: list[str] = []
    first = 0
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.strip() == "" and (head or body):
            yield first, head, body
            head, body = [], []
        elif head and _has_body(head[-1]):
            body.append(line)
        elif line.strip() and not line.startswith("#"):
            first = first if head else number
            head.append(line)


def _has_body(line: str) -> bool:
    return line.split()[0] in ("statement", "query")


def _conditions(head: list[str], database: str) -> tuple[bool, int]:
    """Whether the record is for this database, and where in ``head`` the record itself begins."""
    is_wanted, at = True, 0
    for words in (line.split() for line in head):
        if words[0] not in ("skipif", "onlyif"):
            break
        is_wanted = is_wanted and (words[1] == database) == (words[0] == "onlyif")
        at += 1
    return is_wanted, at


def _query(line: int, types: str, options: list[str], body: list[str]) -> Query:
    sort_mode, label = (*options, None, None)[:2]
    if sort_mode not in (*SORT_MODES, None) or len(options) > 2:
        raise FormatError(f"line {line}: {' '.join(options)!r} is no sort mode with a label")
    end = body.index("----") if "----" in body else len(body)
    mode = cast(SortMode, sort_mode or "nosort")
    return Query(line, "\n".join(body[:end]), types, mode, label, tuple(body[end + 1 :]))
