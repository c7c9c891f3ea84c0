"""Lifted literals give the same statement when they are put back, and the same text for other values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pglast import parser

from dsql_server.statements import Lifted, Literal, LiteralKind, lift_literals

_I, _B, _N, _S = LiteralKind.INTEGER, LiteralKind.BIGINT, LiteralKind.NUMERIC, LiteralKind.STRING


def _lift(sql: str) -> Lifted:
    lifted = lift_literals(sql)
    assert lifted is not None
    return lifted


def _shape(sql: str) -> Any:
    """A parse tree without its locations."""

    def strip(node: Any) -> Any:
        if isinstance(node, list):
            return [strip(item) for item in node]
        if isinstance(node, dict):
            return {k: strip(v) for k, v in node.items() if not k.endswith(("location", "_len", "_start", "_end"))}
        return node

    return strip(json.loads(parser.parse_sql_json(sql)))


def _put_back(lifted: Lifted, first: int = 1) -> str:
    parts = []
    for token in parser.scan(lifted.sql):
        text = lifted.sql[token.start : token.end + 1]
        if token.name == "PARAM" and int(text[1:]) >= first:
            text = _written(lifted.literals[int(text[1:]) - first])
        parts.append(text)
    return " ".join(parts)


def _written(literal: Literal) -> str:
    if literal.text is None:
        return "NULL"
    if literal.kind is not LiteralKind.STRING:
        return literal.text
    return "'" + literal.text.replace("'", "''") + "'"


_NULL, _TRUE = (LiteralKind.NULL, None), (LiteralKind.BOOLEAN, "true")


@pytest.mark.parametrize(
    ("sql", "normalized", "literals"),
    [
        ("SELECT * FROM t WHERE a = 5", "SELECT * FROM t WHERE a = $1 ", [(_I, "5")]),
        ("SELECT * FROM t WHERE a = -5", "SELECT * FROM t WHERE a = $1 ", [(_I, "-5")]),
        ("SELECT a - 5 FROM t", "SELECT a - $1 FROM t ", [(_I, "5")]),
        ("SELECT a FROM t WHERE b='it''s'-- c", "SELECT a FROM t WHERE b = $1 ", [(_S, "it's")]),
        ("SELECT a FROM t WHERE b = E'x\\ny'", "SELECT a FROM t WHERE b = $1 ", [(_S, "x\ny")]),
        ("SELECT a FROM t WHERE b = 'x'\n'y'", "SELECT a FROM t WHERE b = $1 ", [(_S, "xy")]),
        ("SELECT a FROM t WHERE b = 'é💥' AND c = $2", "SELECT a FROM t WHERE b = $3 AND c = $2 ", [(_S, "é💥")]),
        ("SELECT 3000000000, 0x1F", "SELECT $1 , $2 ", [(_B, "3000000000"), (_I, "31")]),
        ("SELECT 1.50, 1e3, 1_0", "SELECT $1 , $2 , $3 ", [(_N, "1.50"), (_N, "1e3"), (_I, "10")]),
        ("SELECT -2147483648, -2147483649", "SELECT $1 , $2 ", [(_I, "-2147483648"), (_B, "-2147483649")]),
        ("SELECT 9223372036854775808", "SELECT $1 ", [(_N, "9223372036854775808")]),
        ("SELECT a FROM t WHERE d > 'x'::date", "SELECT a FROM t WHERE d > $1 :: date ", [(_S, "x")]),
        ("SELECT a FROM t LIMIT 10 OFFSET 5", "SELECT a FROM t LIMIT $1 OFFSET $2 ", [(_I, "10"), (_I, "5")]),
        ("SELECT a FROM t WHERE x IN (1, 2)", "SELECT a FROM t WHERE x IN ( $1 , $2 ) ", [(_I, "1"), (_I, "2")]),
        ("INSERT INTO t VALUES (1, NULL)", "INSERT INTO t VALUES ( $1 , $2 ) ", [(_I, "1"), _NULL]),
        ("INSERT INTO t VALUES (true)", "INSERT INTO t VALUES ( $1 ) ", [_TRUE]),
        ("UPDATE t SET a = a + 1, b = NULL", "UPDATE t SET a = a + $1 , b = $2 ", [(_I, "1"), _NULL]),
        ("DELETE FROM t WHERE a LIKE 'x%'", "DELETE FROM t WHERE a LIKE $1 ", [(_S, "x%")]),
    ],
)
def test_lifted(sql: str, normalized: str, literals: list[tuple[LiteralKind, str | None]]) -> None:
    lifted = _lift(sql)
    assert lifted.sql == normalized
    assert [tuple(literal) for literal in lifted.literals] == literals


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t WHERE b ->> 'k' = $1",  # an expression index
        "SELECT date '2020-01-01'",
        "SELECT interval '1' year",
        "SELECT a::varchar(10) FROM t",
        "SELECT extract('year' FROM a) FROM t",
        "SELECT a FROM t ORDER BY 1",
        "SELECT a, 'x' FROM t GROUP BY 1, 'x'",
        "SELECT DISTINCT a, 1 FROM t",
        "SELECT concat('a', b) FROM t",
        "SELECT ROW('a')",
        "SELECT a FROM t WHERE b IS NULL AND c = true",
        "SELECT 'pg_class'::regclass",
        "SELECT B'101', X'1F', $$x$$",
        "SELECT current_timestamp(3)",
        "SELECT a FROM t",
        "SELECT 1; SELECT 2",
        "CREATE TABLE t (a int DEFAULT 5)",
        "SET enable_sort = 'off'",
        "EXPLAIN SELECT 1",
        "SELECT 1 FROM",
        "SELECT 'a",
        "",
    ],
)
def test_not_lifted(sql: str) -> None:
    assert lift_literals(sql) is None


def test_what_stays_is_part_of_the_text() -> None:
    first, second = _lift("SELECT lower('a') FROM t WHERE b = 1"), _lift("SELECT lower('c') FROM t WHERE b = 2")
    assert first.sql == "SELECT lower ( 'a' ) FROM t WHERE b = $1 "
    assert second.sql == "SELECT lower ( 'c' ) FROM t WHERE b = $1 "


def test_blanks_comments_and_values_do_not_matter() -> None:
    assert _lift("SELECT a FROM t WHERE b = 1").sql == _lift("SELECT a /* x */\nFROM t  WHERE b=22222 -- y").sql


_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
_values = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    _text.map(lambda s: "'" + s.replace("'", "''") + "'"),
    st.sampled_from(["NULL", "true", "FALSE", "E'\\'\\n'", "'x'::text", "- 5", "'1'::int", "1_000"]),
    st.sampled_from(["'--'", "'/*'", "'$1'", "date 'x'", "(1)", "-a", "$$x$$", "B'1'"]),
)
_TEMPLATES = [
    "SELECT {0}, a + {1} FROM t WHERE b = {2} AND (c < {3} OR d IN ({4}, {5})) LIMIT 5",
    "SELECT f({0}, {1}), coalesce(a, {2}), CASE WHEN a = {3} THEN {4} ELSE {5} END FROM t",
    "INSERT INTO t VALUES ({0}, {1}, $1), ({2}, $2, {3}) ON CONFLICT (a) DO UPDATE SET b = {4} WHERE t.c <> {5}",
    "UPDATE t SET a = {0}, b = b || {1} FROM u WHERE t.id = u.id AND u.x BETWEEN {2} AND {3} RETURNING {4}, {5}",
    "DELETE FROM t WHERE a = ANY (ARRAY[{0}, {1}]) AND EXISTS (SELECT {2} FROM u WHERE a = {3} AND b->>{4} = {5})",
    "WITH x AS (SELECT {0} AS n FROM t WHERE a = {1}) SELECT n FROM x WHERE n <> {2} UNION SELECT {3} OFFSET {4}",
    "SELECT a, count(*) FILTER (WHERE b = {0}), {1} FROM t WHERE c = {2} GROUP BY a, {3} HAVING count(*) > {4}",
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(_TEMPLATES), st.lists(_values, min_size=6, max_size=6))
def test_putting_the_literals_back_gives_the_same_statement(template: str, values: list[str]) -> None:
    sql = template.format(*values)
    lifted = lift_literals(sql)
    if lifted is None:
        return
    own = template.count("$")
    assert _shape(_put_back(lifted, own + 1)) == _shape(sql)
    numbers = sorted(int(lifted.sql[t.start + 1 : t.end + 1]) for t in parser.scan(lifted.sql) if t.name == "PARAM")
    assert numbers == list(range(1, own + len(lifted.literals) + 1))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 2**31 - 1), min_size=3, max_size=3),
    st.text(st.characters(exclude_characters="\0'", exclude_categories=["Cs"])),
)
def test_one_text_for_all_values(numbers: list[int], string: str) -> None:
    sql = "UPDATE t SET a = {}, b = '{}' WHERE c = {} AND d > {}"
    lifted = _lift(sql.format(numbers[0], string, numbers[1], numbers[2]))
    assert lifted.sql == _lift(sql.format(1, "x", 2, 3)).sql
    assert [literal.text for literal in lifted.literals] == [str(numbers[0]), string, str(numbers[1]), str(numbers[2])]
