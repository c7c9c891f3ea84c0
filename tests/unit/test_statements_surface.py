"""What of SQL is accepted and what is refused, with the words of the refusal. The cases are data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsql_server.statements import classify

_DATA = Path(__file__).parent / "data"


def _cases(name: str) -> list[Any]:
    lines = (_DATA / name).read_text(encoding="utf-8").splitlines()
    return [pytest.param(case, id=case["sql"][:60]) for case in map(json.loads, lines)]


@pytest.mark.parametrize("case", _cases("statements_refused.jsonl"))
def test_refused(case: dict[str, Any]) -> None:
    [statement] = classify(case["sql"])
    refusal = statement.refusal
    assert refusal is not None
    assert (refusal.sqlstate, refusal.message) == (case["sqlstate"], case["message"])
    assert (refusal.detail, refusal.lifted_by) == (case.get("detail"), case.get("lifted_by"))
    assert refusal.position == case.get("position")
    if "hint" in case:
        assert refusal.hint == case["hint"]


@pytest.mark.parametrize("case", _cases("statements_accepted.jsonl"))
def test_accepted(case: dict[str, Any]) -> None:
    [statement] = classify(case["sql"])
    assert statement.refusals == ()
    assert (statement.kind.value, statement.tag) == (case["kind"], case["tag"])
    assert statement.is_ddl == (case["kind"] == "ddl")


@pytest.mark.parametrize("case", _cases("statements_refused.jsonl"))
def test_a_refusal_holds_wherever_the_statement_stands(case: dict[str, Any]) -> None:
    first, second, third = classify(f"/* é */ SELECT 'é'; -- x\n {case['sql']} ; BEGIN")
    assert first.refusals == third.refusals == ()
    assert second.text == case["sql"]
    assert second.refusal is not None and second.refusal.message == case["message"]


def test_refusals_of_create_index_come_in_the_order_of_the_checks() -> None:
    keys = ", ".join(f"c{i}" for i in range(8))
    sql = f"CREATE INDEX CONCURRENTLY i ON t USING btree ({keys}, v text_ops DESC)"
    [statement] = classify(sql)
    assert [r.message.split()[0] for r in statement.refusals] == [
        "CONCURRENTLY",
        "USING",
        "more",
        "unsupported",
        "specifying",
        "opclass",
    ]


def test_the_mode_of_create_index_is_lifted_by_a_parameter_and_nothing_else_is() -> None:
    [statement] = classify("CREATE INDEX i ON t (v DESC)")
    assert [r.lifted_by for r in statement.refusals] == ["disable_sync_create_index", None]
