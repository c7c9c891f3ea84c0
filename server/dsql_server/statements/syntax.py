"""From a query text to parse trees: PostgreSQL's grammar, and the words that Aurora DSQL adds to it.

DSQL adds ``CREATE [UNIQUE] INDEX ASYNC``, ``ALTER TABLE ASYNC`` and ``AWS IAM GRANT|REVOKE``, and ASYNC is a reserved
word. Its own words are found in the token stream and blanked out, so that every position stays true.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pglast import parser

from dsql_server.statements.model import SqlSyntaxError
from dsql_server.statements.own_database import without_own_database
from dsql_server.statements.syntax_errors import translate
from dsql_server.statements.tree import COMMENTS, Node, load

#: Stands in for the reserved word ASYNC where it isn't DSQL's own: as reserved, as long, and as a label allowed.
_RESERVED_LIKE_ASYNC = "USING"
assert len(_RESERVED_LIKE_ASYNC) == len("ASYNC")


@dataclass(frozen=True, slots=True)
class Parsed:
    """One statement: its parse tree and where it stands."""

    name: str  #: node type, e.g. "SelectStmt"
    tree: Node
    start: int  #: first character
    end: int  #: behind the last character, without semicolon, comments and blanks
    engine_sql: str
    is_async: bool = False
    arns: tuple[str, ...] | None = None  #: of AWS IAM GRANT and REVOKE
    encoded: bytes = b""  #: the whole query text

    def index(self, location: int) -> int:
        """The character of ``engine_sql`` at a location of the tree, which counts bytes of the whole query text."""
        return len(self.encoded[:location].decode()) - self.start


@dataclass(slots=True)
class _Rewritten:
    """A text in PostgreSQL's grammar, of the same length as the client's."""

    text: str
    engine_text: str  #: without DSQL's own words, but with ASYNC as it stood wherever else it may stand: as a label
    async_at: list[int] = field(default_factory=list)  #: positions of DSQL's own ASYNC
    iam_at: list[int] = field(default_factory=list)  #: positions of AWS
    arns: dict[int, str] = field(default_factory=dict)  #: position of the string: its value


def parse(sql: str) -> list[Parsed]:
    """Parse a query text into its statements; an empty text has none.

    Raises SqlSyntaxError, never anything else.
    """
    if "\0" in sql:
        raise SqlSyntaxError("22021", 'invalid byte sequence for encoding "UTF8": 0x00')
    try:
        encoded = sql.encode()
    except UnicodeEncodeError as e:
        raise SqlSyntaxError("22021", 'invalid byte sequence for encoding "UTF8"', e.start + 1) from None
    lowered = sql.lower()
    rewritten = _rewrite(sql) if "async" in lowered or "aws" in lowered else _Rewritten(sql, sql)
    try:
        tree = load(parser.parse_sql_json(rewritten.text))
    except parser.ParseError as e:
        raise translate(e, sql, rewritten.text) from None
    ascii_only = len(encoded) == len(sql)
    found = []
    for raw in tree.get("stmts", ()):
        start = raw.get("stmt_location", 0)
        length = raw.get("stmt_len", 0)
        end = start + length if length else len(encoded)
        if not ascii_only:
            start, end = len(encoded[:start].decode()), len(encoded[:end].decode())
        found.append(_statement(raw["stmt"], rewritten, sql, encoded, start, end))
    return found


def _statement(node: Node, rewritten: _Rewritten, sql: str, encoded: bytes, start: int, end: int) -> Parsed:
    name, tree = next(iter(node.items()))
    start, end = _trim(sql, start, end)
    is_async = any(start <= p < end for p in rewritten.async_at)
    iam_at = [p for p in rewritten.iam_at if p <= start and not sql[p:start].count(";")]
    arns: tuple[str, ...] | None = None
    if iam_at and name == "GrantRoleStmt":
        start = iam_at[-1]
        arns = tuple(value for position, value in sorted(rewritten.arns.items()) if start <= position < end)
    found = Parsed(name, tree, start, end, rewritten.engine_text[start:end], is_async, arns, encoded)
    own = without_own_database(found.engine_sql, name, tree, found.index)
    return found if own is found.engine_sql else replace(found, engine_sql=own)


def explained_text(text: str, has_options: bool) -> int:
    """Where the statement of an EXPLAIN begins in its text."""
    tokens = [t for t in parser.scan(text) if t.name not in COMMENTS]
    i = 1
    if has_options and tokens[i].name == "ASCII_40":
        depth = 1
        while depth:
            i += 1
            depth += (tokens[i].name == "ASCII_40") - (tokens[i].name == "ASCII_41")
        i += 1
    while tokens[i].name in ("ANALYZE", "ANALYSE", "VERBOSE"):
        i += 1
    return tokens[i].start


def _trim(sql: str, start: int, end: int) -> tuple[int, int]:
    """Cut blanks and comments off both ends; PostgreSQL's statement locations include some of them."""
    text = sql[start:end]
    if "--" not in text and "*/" not in text:
        return start + len(text) - len(text.lstrip()), end - (len(text) - len(text.rstrip()))
    tokens = [t for t in parser.scan(text) if t.name not in COMMENTS]
    assert tokens, "a statement has a token"
    return start + tokens[0].start, start + tokens[-1].end + 1


def _rewrite(sql: str) -> _Rewritten:
    """Blank out DSQL's own words and make ASYNC a reserved word everywhere else."""
    try:
        tokens = [t for t in parser.scan(sql) if t.name not in COMMENTS]
    except parser.ParseError as e:
        raise translate(e, sql, sql) from None
    words = [sql[t.start : t.end + 1].lower() if t.name not in ("SCONST", "UIDENT") else "" for t in tokens]
    result = _Rewritten(sql, sql)
    labels: list[int] = []
    chars = list(sql)
    starts_statement = True
    i = 0
    while i < len(tokens):
        if starts_statement and words[i] == "aws":
            i = _rewrite_iam(sql, tokens, words, i, result, chars)
        elif starts_statement and (at := _async_place(words, i)) is not None:
            position = tokens[at].start
            result.async_at.append(position)
            chars[position : position + len("async")] = " " * len("async")
            words[at] = ""
        elif words[i] == "async":
            position = tokens[i].start
            chars[position : position + len("async")] = _RESERVED_LIKE_ASYNC
            labels.append(position)
        starts_statement = i < len(tokens) and tokens[i].name == "ASCII_59"
        i += 1
    result.text = "".join(chars)
    for position in labels:
        chars[position : position + len("async")] = sql[position : position + len("async")]
    result.engine_text = "".join(chars)
    return result


def _async_place(words: list[str], i: int) -> int | None:
    """Index of DSQL's own ASYNC in the statement that begins at ``i``."""
    for command in (["create", "index"], ["create", "unique", "index"], ["alter", "table"]):
        at = i + len(command)
        if words[i:at] == command and words[at : at + 1] == ["async"]:
            return at
    return None


def _rewrite_iam(
    sql: str,
    tokens: list[parser.Token],
    words: list[str],
    i: int,
    result: _Rewritten,
    chars: list[str],
) -> int:
    """Turn ``AWS IAM GRANT r TO 'arn'`` into ``GRANT r TO a`` of the same length; returns the last token looked at."""
    for offset, expected in ((1, ("iam",)), (2, ("grant", "revoke"))):
        if i + offset >= len(tokens):
            raise SqlSyntaxError("42601", "syntax error at end of input", len(sql) + 1)
        if words[i + offset] not in expected:
            raise _error_at(sql, tokens[i + offset])
    start, end = tokens[i].start, tokens[i + 1].end + 1
    result.iam_at.append(start)
    chars[start:end] = " " * (end - start)
    i += 3
    while i < len(tokens) and words[i] not in ("to", "from"):
        if tokens[i].name in ("SCONST", "ASCII_59") or words[i] == "on":
            raise _error_at(sql, tokens[i])
        i += 1
    return _replace_arns(sql, tokens, i + 1, result, chars)


def _replace_arns(sql: str, tokens: list[parser.Token], i: int, result: _Rewritten, chars: list[str]) -> int:
    """Put names for the strings of ``TO 'arn', 'arn'``; returns the semicolon or the end."""
    is_string = True
    while i < len(tokens) and tokens[i].name != "ASCII_59":
        token = tokens[i]
        if token.name != ("SCONST" if is_string else "ASCII_44"):
            raise _error_at(sql, token)
        if is_string:
            length = token.end + 1 - token.start
            result.arns[token.start] = string_value(sql[token.start : token.end + 1])
            chars[token.start : token.end + 1] = "a".ljust(length)
        is_string = not is_string
        i += 1
    return i


def _error_at(sql: str, token: parser.Token) -> SqlSyntaxError:
    word = sql[token.start : token.end + 1]
    return SqlSyntaxError("42601", f'syntax error at or near "{word}"', token.start + 1)


def string_value(literal: str) -> str:
    """The value of a string token, by PostgreSQL's own rules for quotes and escapes."""
    tree = load(parser.parse_sql_json("SELECT " + literal))
    target = tree["stmts"][0]["stmt"]["SelectStmt"]["targetList"][0]["ResTarget"]
    return str(target["val"]["A_Const"].get("sval", {}).get("sval", ""))
