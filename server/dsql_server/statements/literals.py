"""Lifting literals out of a query, so that texts that differ in their literals only share one plan.

psycopg2, Django and many others send values as literals: every text is new, though the statement isn't. The text is
cut into tokens, constants are masked, and what is left looks up a template. Only for a new template the parse tree is
asked which constants may become parameters (:mod:`dsql_server.statements.liftable`).
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from itertools import accumulate
from typing import NamedTuple

from pglast import parser

from dsql_server.statements.liftable import liftable_locations
from dsql_server.statements.syntax import string_value
from dsql_server.statements.tree import COMMENTS, load

LITERALS_MAX = 1024  #: constants of one text; a larger one is run as it is
TEMPLATES_MAX = 1024  #: templates remembered

_INT4_MAX = 2**31 - 1
_INT8_MAX = 2**63 - 1
#: Tokens that are constants, by the letter that stands for them in the key of a template.
_CONSTANTS = {"ICONST": "i", "FCONST": "f", "SCONST": "s", "TRUE_P": "b", "FALSE_P": "b", "NULL_P": "n"}
_NUMBERS = "if"
_QUERIES = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt"})
_MASK = "\0"  #: can't be in a text


class LiteralKind(Enum):
    """What PostgreSQL takes a literal for; bind the parameter with this type."""

    INTEGER = "integer"  #: int4
    BIGINT = "bigint"  #: int8
    NUMERIC = "numeric"
    STRING = "string"  #: unknown: the context decides
    BOOLEAN = "boolean"
    NULL = "null"  #: unknown


class Literal(NamedTuple):
    kind: LiteralKind
    text: str | None  #: in PostgreSQL's text format; None for NULL


class Lifted(NamedTuple):
    """``sql`` with the literals replaced by parameters that follow the text's own, in order of appearance."""

    sql: str
    literals: tuple[Literal, ...]


class _Template(NamedTuple):
    """How to rebuild the query: ``pieces`` with a gap for each constant that stays."""

    pieces: tuple[str, ...]
    kept: tuple[int, ...]  #: constants that fill the gaps
    lifted: tuple[int, ...]  #: constants that become parameters
    negated: frozenset[int]  #: of those, the ones that take the minus before them along


def lift_literals(sql: str) -> Lifted | None:
    """Replace the literals of a SELECT, INSERT, UPDATE or DELETE by parameters.

    None if there is nothing to lift, or if it isn't sure that the result means the same; then run the exact text.
    The parameters have the types that their kinds say. If the engine refuses the result or a value of it, run the
    exact text too: it gives the error that the client expects, with the right position.
    """
    try:
        tokens = [t for t in parser.scan(sql) if t.name not in COMMENTS]
    except (parser.ParseError, UnicodeEncodeError):
        return None
    texts = [sql[t.start : t.end + 1] for t in tokens]
    constants = [i for i, token in enumerate(tokens) if token.name in _CONSTANTS]
    if not constants or len(constants) > LITERALS_MAX or _MASK in sql:
        return None
    kinds = "".join([_CONSTANTS[tokens[i].name] for i in constants])
    template = _template(texts, constants, kinds)
    if template is None:
        return None
    literals = []
    for n in template.lifted:
        literal = _literal(kinds[n], texts[constants[n]], n in template.negated)
        if literal is None:
            return None
        literals.append(literal)
    return Lifted(_fill(template, texts, constants), tuple(literals))


def _fill(template: _Template, texts: list[str], constants: list[int]) -> str:
    if not template.kept:
        return template.pieces[0]
    filled = [template.pieces[0]]
    for n, piece in zip(template.kept, template.pieces[1:], strict=True):
        filled += (texts[constants[n]], piece)
    return "".join(filled)


def _literal(kind: str, text: str, negated: bool) -> Literal | None:
    if kind in _NUMBERS:
        return _number(text, negated)
    if kind == "n":
        return Literal(LiteralKind.NULL, None)
    if kind == "b":
        return Literal(LiteralKind.BOOLEAN, text.lower())
    if text[0] == "'":
        inner = text[1:-1].replace("''", "\0")
        if "'" not in inner:  # not continued on the next line
            return Literal(LiteralKind.STRING, inner.replace("\0", "'"))
    elif text[0] not in "eE":
        return None
    return Literal(LiteralKind.STRING, string_value(text))


def _number(text: str, negated: bool) -> Literal:
    sign = "-" if negated else ""
    plain = text.replace("_", "")
    if plain.isdecimal():
        value = int(plain)
    elif plain[:2].lower() in ("0x", "0o", "0b"):
        value = int(plain, 0)
    else:
        return Literal(LiteralKind.NUMERIC, sign + plain)
    if value <= _INT4_MAX + negated:
        return Literal(LiteralKind.INTEGER, f"{sign}{value}")
    if value <= _INT8_MAX + negated:
        return Literal(LiteralKind.BIGINT, f"{sign}{value}")
    return Literal(LiteralKind.NUMERIC, f"{sign}{value}")


def _template(texts: list[str], constants: list[int], kinds: str) -> _Template | None:
    """The template of a text, decided once for all texts that differ in their constants only."""
    masked = texts.copy()
    for i in constants:
        masked[i] = _MASK
    key = " ".join(masked), kinds
    if key in _templates:
        _templates.move_to_end(key)
        return _templates[key]
    template = _templates[key] = _make_template(texts, constants, kinds)
    if len(_templates) > TEMPLATES_MAX:
        _templates.popitem(last=False)
    return template


_templates: OrderedDict[tuple[str, str], _Template | None] = OrderedDict()


def _make_template(texts: list[str], constants: list[int], kinds: str) -> _Template | None:
    try:
        tree = load(parser.parse_sql_json(" ".join(texts)))
    except parser.ParseError:
        return None
    statements = tree.get("stmts", ())
    if len(statements) != 1 or next(iter(statements[0]["stmt"])) not in _QUERIES:
        return None
    locations = liftable_locations(statements[0]["stmt"])
    starts = [0, *accumulate(len(text.encode()) + 1 for text in texts)]
    parameter = max((int(t[1:]) for t in texts if t[0] == "$" and t[1:].isdecimal()), default=0)
    written: list[str | int] = list(texts)
    lifted, negated = [], set()
    for n, i in enumerate(constants):
        is_negated = i > 0 and texts[i - 1] == "-" and starts[i - 1] in locations and kinds[n] in _NUMBERS
        if is_negated or starts[i] in locations:
            parameter += 1
            written[i] = f"${parameter}"
            lifted.append(n)
        else:
            written[i] = n
        if is_negated:
            negated.add(n)
            written[i - 1] = ""
    if not lifted:
        return None
    return _Template(*_pieces(written), tuple(lifted), frozenset(negated))


def _pieces(written: list[str | int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Join the tokens to the pieces between the constants that stay."""
    pieces, kept = [""], []
    for token in written:
        if isinstance(token, int):
            kept.append(token)
            pieces.append(" ")
        elif token:
            pieces[-1] += token + " "
    return tuple(pieces), tuple(kept)
