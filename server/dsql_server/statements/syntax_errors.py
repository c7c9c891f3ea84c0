"""Parser errors with PostgreSQL's SQLSTATE, wording, hints and position."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from pglast import parser

from dsql_server.statements.model import SqlSyntaxError


class _Fields(NamedTuple):
    """What PostgreSQL 16 reports beside a message that isn't a plain 42601 with a position."""

    sqlstate: str = "42601"
    detail: str | None = None
    hint: str | None = None
    has_position: bool = True


_NOT_SUPPORTED = _Fields("0A000")
_NOT_SUPPORTED_ANYWHERE = _Fields("0A000", has_position=False)

#: By beginning of the message.
_SPECIAL = (
    (
        "stack depth limit exceeded",
        _Fields("54001", hint="Split the statement, or nest its expressions less deeply.", has_position=False),
    ),
    ("invalid byte sequence for encoding", _Fields("22021")),
    ("unsafe use of \\' in a string literal", _Fields("22P06")),
    ("LIMIT #,# syntax is not supported", _Fields(hint="Use separate LIMIT and OFFSET clauses.")),
    ("missing argument", _Fields(hint="Use NONE to denote the missing argument of a unary operator.")),
    (
        "invalid publication object list",
        _Fields(detail="One of TABLE or TABLES IN SCHEMA must be specified before a standalone table or schema name."),
    ),
    ("unrecognized partitioning strategy", _Fields("22023", has_position=False)),
    ("remainder for hash partition must be specified", _Fields(has_position=False)),
    ("modulus for hash partition must be specified", _Fields(has_position=False)),
    ("CREATE ASSERTION is not yet implemented", _NOT_SUPPORTED_ANYWHERE),
    ("CHECK constraints cannot be marked DEFERRABLE", _NOT_SUPPORTED_ANYWHERE),
    ("UNIQUE constraints cannot be marked", _NOT_SUPPORTED_ANYWHERE),
    ("PRIMARY KEY constraints cannot be marked", _NOT_SUPPORTED_ANYWHERE),
    ("EXCLUDE constraints cannot be marked", _NOT_SUPPORTED_ANYWHERE),
    ("FOREIGN KEY constraints cannot be marked", _NOT_SUPPORTED_ANYWHERE),
    ("NOT NULL constraints cannot be marked", _NOT_SUPPORTED),
    ("MATCH PARTIAL not yet implemented", _NOT_SUPPORTED),
    ("WITH CHECK OPTION not supported on recursive views", _NOT_SUPPORTED),
    ("CREATE SCHEMA IF NOT EXISTS cannot include schema elements", _NOT_SUPPORTED),
    ("CREATE EXTENSION ... FROM is no longer supported", _NOT_SUPPORTED),
    ("CREATE OR REPLACE CONSTRAINT TRIGGER is not supported", _NOT_SUPPORTED_ANYWHERE),
    ("aggregates cannot have output arguments", _NOT_SUPPORTED),
    ("current database cannot be changed", _NOT_SUPPORTED),
    ("UNIQUE predicate is not yet implemented", _NOT_SUPPORTED),
    ("a column list with SET ", _NOT_SUPPORTED),
    (
        "UNENCRYPTED PASSWORD is no longer supported",
        _Fields("0A000", hint="Remove UNENCRYPTED to store the password in encrypted form instead."),
    ),
    ("precision for type float must be", _Fields("22023")),
    ("frame start", _Fields("42P20")),  # "frame starting from …" too
    ("frame end", _Fields("42P20")),
    ("WITH TIES cannot be specified without ORDER BY clause", _Fields(has_position=False)),
    ("SKIP LOCKED and WITH TIES options cannot be used together", _Fields(has_position=False)),
    ("OUT and INOUT arguments aren't allowed in TABLE functions", _Fields(has_position=False)),
)
#: These have the position of the clause's value, which is where its next token begins.
_AT_THE_VALUE = ("multiple LIMIT clauses not allowed", "multiple OFFSET clauses not allowed")
#: The scanner refuses E'…', the parser U&'…'.
_ESCAPE_IN_E_STRING = _Fields("22025", hint="Unicode escapes must be \\uXXXX or \\UXXXXXXXX.")
_ESCAPE_IN_U_STRING = _Fields(hint="Unicode escapes must be \\XXXX or \\+XXXXXX.")

_IDENTIFIER = re.compile(r"[A-Za-z_\x80-\U0010ffff]")
_NEAR = re.compile(r' at or near ".*"$', re.DOTALL)


def translate(error: parser.ParseError, sql: str, parsed: str) -> SqlSyntaxError:
    """PostgreSQL's error for a pglast error. ``parsed`` is ``sql`` with DSQL's words replaced, of the same length."""
    message = str(error.args[0])
    index = error.args[1] if len(error.args) > 1 else None
    if message.endswith("at end of input"):
        index = len(sql)
    try:
        tokens = parser.scan(sql)
    except parser.ParseError:
        tokens = None
    if tokens is not None and index is not None:
        junk = _junk_after_parameter(sql, tokens, index)
        if junk is not None:
            return junk
        if message in _AT_THE_VALUE:
            index = next((token.start for token in tokens if token.start > index), index)
        if sql != parsed:
            message = _with_clients_word(message, sql, tokens, index)
    if message == "invalid Unicode escape":
        fields = _ESCAPE_IN_E_STRING if tokens is None else _ESCAPE_IN_U_STRING
    else:
        fields = next((f for beginning, f in _SPECIAL if message.startswith(beginning)), _Fields())
    position = index + 1 if index is not None and fields.has_position else None
    return SqlSyntaxError(fields.sqlstate, message, position, fields.detail, fields.hint)


def _junk_after_parameter(sql: str, tokens: list[parser.Token], index: int) -> SqlSyntaxError | None:
    """PostgreSQL's scanner doesn't take ``$1where``; pglast's reads two tokens."""
    for token, following in pairwise(tokens):
        if token.start > index:
            break
        if token.name == "PARAM" and following.start == token.end + 1 and _IDENTIFIER.match(sql, following.start):
            word = sql[token.start : following.end + 1]
            message = f'trailing junk after parameter at or near "{word}"'
            return SqlSyntaxError("42601", message, token.start + 1)
    return None


def _with_clients_word(message: str, sql: str, tokens: list[parser.Token], index: int) -> str:
    """Name the token as the client wrote it, not its stand-in."""
    if not _NEAR.search(message):
        return message
    word = next((sql[t.start : t.end + 1] for t in tokens if t.start == index), None)
    return message if word is None else _NEAR.sub("", message) + f' at or near "{word}"'
