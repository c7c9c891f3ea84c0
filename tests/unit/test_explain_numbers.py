"""Conditions, costs and DPU of EXPLAIN, against what Aurora DSQL was seen to print."""

from __future__ import annotations

import pytest
from plan_scene import USERS

from dsql_server.processor.explain import query_identifier
from dsql_server.processor.explain_conditions import (
    columns_of,
    equal_columns,
    is_pushed,
    join_conditions,
    names_others,
    split_condition,
)
from dsql_server.processor.explain_costs import scan_cost
from dsql_server.processor.explain_dpu import Work, estimate_dpu


@pytest.mark.parametrize(
    ("condition", "parts"),
    [
        (None, []),
        ("flag", ["flag"]),
        ("(a = 1)", ["(a = 1)"]),
        ("((a = 1) AND (b > 2))", ["(a = 1)", "(b > 2)"]),
        ("(flag AND (NOT other) AND (t = ' AND ('::text))", ["flag", "(NOT other)", "(t = ' AND ('::text)"]),
        ("((a = 1) OR ((b = 2) AND (c = 3)))", ["((a = 1) OR ((b = 2) AND (c = 3)))"]),
        ("(a = 1) AND (b = 2)", ["(a = 1) AND (b = 2)"]),
        ("(\"x) AND (y\" = 'it''s'::text)", ["(\"x) AND (y\" = 'it''s'::text)"]),
    ],
)
def test_conditions_are_cut_where_and_joins_them(condition: str | None, parts: list[str]) -> None:
    assert split_condition(condition) == parts
    assert join_conditions(parts) == condition


def test_storage_gets_comparisons_with_constants_and_parameters() -> None:
    pushed = (
        "(u.id = 1)",
        "(u.id = $1)",
        "(u.email = 'x'::text)",
        "(u.age IS NULL)",
        "(u.id = ANY ('{1,2}'::integer[]))",
    )
    assert all(is_pushed(text, USERS, "u") for text in pushed)
    kept = (
        "(lower(u.email) = 'x'::text)",
        "(u.email ~~ 'x%'::text)",
        "((u.age + 1) > 2)",
        "(u.id = o.id)",
        "(v.id = 1)",
    )
    assert not any(is_pushed(text, USERS, "u") for text in kept)


def test_columns_of_expressions() -> None:
    assert columns_of("(u.age + (lower(email))::integer)", USERS, "u") == {"age", "email"}
    assert columns_of("(o.id = 1)", USERS, "u") == set()
    assert columns_of("u.*", USERS, "u") is None
    assert columns_of("(SubPlan 1)", USERS, "u") is None
    assert equal_columns(["(u.id = 3)", "(u.age > 3)"], USERS, "u") == {1}
    assert names_others("(u.id = o.id)", "u") and not names_others("(u.id = 3)", "u")


@pytest.mark.parametrize(
    ("rows", "table_rows", "conditions", "looks_up", "cost"),
    [
        (1_000_000, 1_000_000, 0, False, ("125100.05", "171100.05")),
        (6, 6, 1, False, ("100.76", "104.84")),
        (869, 16_413, 5, False, ("208.66", "260.73")),
        (869, 16_413, 5, True, ("417.28", "505.53")),
        (66, 16_413, 8, False, ("108.28", "114.00")),
        (6, 16_413, 5, True, ("201.53", "209.64")),
        (1, 1, 0, False, ("100.12", "104.13")),
    ],
)
def test_costs_are_near_the_recorded_ones(
    rows: int, table_rows: int, conditions: int, looks_up: bool, cost: tuple[str, str]
) -> None:
    startup, total = scan_cost(rows, table_rows, conditions, looks_up)
    assert startup == pytest.approx(float(cost[0]), abs=0.02)
    assert total == pytest.approx(float(cost[1]), rel=0.01)


def test_dpu_lines() -> None:
    lines = estimate_dpu(Work(0.001, rows_read=1, bytes_read=100, mutations=0)).lines()
    assert lines == [
        "Statement DPU Estimate:",
        "  Compute: 0.00100 DPU",
        "  Read: 0.00035 DPU (Transaction minimum: 0.00375)",
        "  Write: 0.00000 DPU",
        "  Total: 0.00135 DPU",
    ]
    # As recorded: three rows inserted, and one updated with an entry of one index.
    assert estimate_dpu(Work(mutations=3)).lines()[3] == "  Write: 0.01875 DPU (Transaction minimum: 0.05000)"
    assert estimate_dpu(Work(mutations=9)).lines()[3] == "  Write: 0.05625 DPU"


def test_query_identifiers_leave_constants_out() -> None:
    one = query_identifier("SELECT * FROM t WHERE a = 1")
    assert len(one) == 13 and one.isalnum() and one == one.lower()
    assert one == query_identifier("select * from t where a = 2") != query_identifier("SELECT * FROM t WHERE b = 1")
    assert len(query_identifier("not SQL")) == 13
