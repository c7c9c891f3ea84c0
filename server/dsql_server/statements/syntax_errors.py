"""Parser errors with PostgreSQL's SQLSTATE, wording and position."""

from __future__ import annotations

import re

from pglast import parser

from dsql_server.statements.model import SqlSyntaxError

#: Beginnings of the messages of PostgreSQL's scanner and grammar that aren't 42601 (syntax_error).
_SQLSTATES = (
    ("stack depth limit exceeded", "54001"),
    ("memory exhausted", "42601"),
    ("invalid byte sequence for encoding", "22021"),
    ("invalid Unicode escape", "42601"),
    ("invalid Unicode code point", "42601"),
    ("unsafe use of \\' in a string literal", "22P06"),
    ("unsafe use of string constant with Unicode escapes", "0A000"),
    ("conversion between", "42883"),
    ("current database cannot be changed", "0A000"),
    ("CREATE ASSERTION is not yet implemented", "0A000"),
    ("MATCH PARTIAL not yet implemented", "0A000"),
    ("WITH CHECK OPTION not supported on recursive views", "0A000"),
    ("specifying a subscript range", "0A000"),
    ("SQL/JSON QUOTES behavior", "42601"),
    ("LIMIT #,# syntax is not supported", "42601"),
    ("aggregates cannot have output arguments", "0A000"),
    ("argument name", "42601"),
    ("CREATE EXTENSION ... FROM is no longer supported", "0A000"),
    ("unrecognized role option", "42601"),
    ("GLOBAL is deprecated", "01000"),
    ("tables declared WITH OIDS are not supported", "42601"),
    ("SETOF", "42601"),
    ("column COMPRESSION", "42601"),
    ("number of columns does not match number of values", "42601"),
    ('option "', "42601"),
)
_NOT_SUPPORTED = re.compile(
    r"(constraints cannot be marked (NOT VALID|DEFERRABLE|NO INHERIT|ENFORCED|NOT ENFORCED)"
    r"|is only supported|is not supported|not yet implemented|cannot be deferred)"
)
_NEAR = re.compile(r' at or near ".*"$', re.DOTALL)


def translate(error: parser.ParseError, sql: str, parsed: str) -> SqlSyntaxError:
    """PostgreSQL's error for a pglast error. ``parsed`` is ``sql`` with DSQL's words replaced, of the same length."""
    message = str(error.args[0])
    index = error.args[1] if len(error.args) > 1 else None
    if message.startswith("stack depth limit exceeded"):
        return SqlSyntaxError(
            "54001",
            "stack depth limit exceeded",
            hint="Split the statement into smaller ones, or nest its expressions less deeply.",
        )
    if message.endswith("at end of input"):
        index = len(sql)
    if index is not None and sql != parsed:
        message = _with_clients_word(message, index, sql)
    return SqlSyntaxError(_sqlstate(message), message, None if index is None else index + 1)


def _sqlstate(message: str) -> str:
    for beginning, sqlstate in _SQLSTATES:
        if message.startswith(beginning):
            return sqlstate
    return "0A000" if _NOT_SUPPORTED.search(message) else "42601"


def _with_clients_word(message: str, index: int, sql: str) -> str:
    """Name the token as the client wrote it, not its stand-in."""
    if not _NEAR.search(message):
        return message
    word = next((sql[t.start : t.end + 1] for t in parser.scan(sql) if t.start == index), None)
    return message if word is None else _NEAR.sub("", message) + f' at or near "{word}"'
