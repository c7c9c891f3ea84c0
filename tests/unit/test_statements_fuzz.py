"""Any text is a list of statements or a syntax error."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pglast import parser

from dsql_server.statements import SqlSyntaxError, StatementKind, classify, lift_literals

_DATA = Path(__file__).parent / "data"
_CORPUS = [
    json.loads(line)["sql"]
    for name in ("statements_accepted.jsonl", "statements_refused.jsonl")
    for line in (_DATA / name).read_text(encoding="utf-8").splitlines()
]
_CORPUS = [sql for sql in _CORPUS if len(sql) < 1000]
_TOKENS = sorted({sql[t.start : t.end + 1] for sql in _CORPUS for t in parser.scan(sql)})
_JUNK = st.sampled_from(
    ["'", '"', "$", "$1", "$$", "\\", "E'", "U&'", "é", "💥", "/*", "*/", "--", ";", ":", "\0", "\ud800", "0x"]
)
_FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


def _check(sql: str) -> None:
    lift_literals(sql)
    try:
        found = classify(sql)
    except SqlSyntaxError as e:
        assert len(e.sqlstate) == 5
        assert e.message
        assert e.position is None or 1 <= e.position <= len(sql) + 1
        return
    for statement in found:
        assert sql[statement.offset :].startswith(statement.text)
        assert statement.text == statement.text.strip() != ""
        assert statement.kind is not StatementKind.OTHER or statement.refusals
        assert statement.tag or statement.refusals
        assert statement.is_ddl == (statement.kind is StatementKind.DDL)
        assert not (statement.is_read_only and statement.is_dml)


@_FUZZ
@given(st.text())
def test_any_text(sql: str) -> None:
    _check(sql)


@_FUZZ
@given(st.lists(st.one_of(st.sampled_from(_TOKENS), _JUNK), max_size=30), st.sampled_from([" ", ""]))
def test_any_tokens(tokens: list[str], separator: str) -> None:
    _check(separator.join(tokens))


@_FUZZ
@given(st.data())
def test_mutated_statements(data: st.DataObject) -> None:
    sql = data.draw(st.sampled_from(_CORPUS))
    parts = [sql[t.start : t.end + 1] for t in parser.scan(sql)]
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(parts)))
        match data.draw(st.sampled_from(["delete", "insert", "swap", "junk"])):
            case "delete":
                del parts[i : i + 1]
            case "insert":
                parts.insert(i, data.draw(st.sampled_from(_TOKENS)))
            case "swap" if parts:
                j = data.draw(st.integers(0, len(parts) - 1))
                parts[i % len(parts)], parts[j] = parts[j], parts[i % len(parts)]
            case _:
                parts.insert(i, data.draw(_JUNK))
    _check(" ".join(parts))


@_FUZZ
@given(st.lists(st.sampled_from(_CORPUS), max_size=4))
def test_statements_in_a_row(statements: list[str]) -> None:
    sql = ";".join(statements)
    assert [s.text for s in classify(sql)] == statements
