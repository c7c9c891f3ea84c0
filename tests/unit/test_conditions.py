"""Conditions as EXPLAIN prints them, and what is read out of them. Whatever isn't certain must be left out."""

from __future__ import annotations

import pytest

from dsql_server.encoding import type_oids as oids
from dsql_server.processor.conditions import (
    Conjunct,
    Constant,
    OtherColumn,
    Parameter,
    conjuncts,
    initplan_outputs,
    operand_of,
)

NO_OUTPUTS: frozenset[int] = frozenset()


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("(t.a = 5)", Conjunct("a", "=", Constant("5", oids.INT4))),
        ("(t.a = '-5'::integer)", Conjunct("a", "=", Constant("-5", oids.INT4))),
        ("(5 < t.a)", Conjunct("a", ">", Constant("5", oids.INT4))),
        ("(t.a >= '7'::bigint)", Conjunct("a", ">=", Constant("7", oids.INT8))),
        ("(t.a = 1.50)", Conjunct("a", "=", Constant("1.50", oids.NUMERIC))),
        ("(t.a = '3'::numeric)", Conjunct("a", "=", Constant("3", oids.NUMERIC))),
        ("(t.a = 1.500::numeric(14,3))", Conjunct("a", "=", Constant("1.500", oids.NUMERIC))),
        ("(t.a = '1.5'::numeric(14,3))", Conjunct("a", "=", Constant("1.5", oids.NUMERIC))),
        ("(t.a = $2)", Conjunct("a", "=", Parameter(2))),
        ("(t.a = ($1)::numeric)", Conjunct("a", "=", Parameter(1, oids.NUMERIC))),
        ("(t.a = ($1)::character varying(5))", Conjunct("a", "=", Parameter(1, oids.VARCHAR, 9))),
        ("(t.a = ($1)::numeric(14,3))", Conjunct("a", "=", Parameter(1, oids.NUMERIC, (14 << 16 | 3) + 4))),
        ("(t.a = o.b)", Conjunct("a", "=", OtherColumn("o", "b"))),
        ("(o.b = t.a)", Conjunct("a", "=", OtherColumn("o", "b"))),
        ("((t.a)::text = 'x'::text)", Conjunct("a", "=", Constant("x", oids.TEXT), as_text=True)),
        ("(t.a = ANY ('{1,2}'::integer[]))", Conjunct("a", "in", Constant("{1,2}", oids.INT4))),
        ("(t.a = ANY ($1))", Conjunct("a", "in", Parameter(1))),
        ("(t.a IS NULL)", Conjunct("a", "isnull")),
        ("(t.a IS NOT NULL)", Conjunct("a", "notnull")),
        ("t.a", Conjunct("a", "=", Constant("true", oids.BOOL))),
        ("(NOT t.a)", Conjunct("a", "=", Constant("false", oids.BOOL))),
        ('(t."A b" = true)', Conjunct("A b", "=", Constant("true", oids.BOOL))),
    ],
)
def test_certain_conditions_are_read(condition: str, expected: Conjunct) -> None:
    assert conjuncts(condition, "t", NO_OUTPUTS) == [expected]


@pytest.mark.parametrize(
    "condition",
    [
        "(t.a <> 5)",
        "(t.a ~~ 'x%'::text)",
        "((t.a + 1) = 5)",
        "((t.a)::numeric = 1.5)",
        "((t.a)::integer = 1)",  # a domain
        "(t.a = '1'::public.int4)",  # a domain that is called like a type
        "(t.a = (SubPlan 1))",
        "(hashed SubPlan 1)",
        "(t.a = random())",
        "(t.a = now())",
        "(t.a < o.b)",
        "(t.a = t.b)",
        "((t.a = 1) OR (t.a = 2))",
        "(ROW(t.a, t.b) = ROW(1, 2))",
        "(NOT (t.a = 1))",
        "(t.a <> ALL ('{1,2}'::integer[]))",
        "(t.a = ANY (($1)::text[]))",
        "(t.a = ($1)::timestamp(0) without time zone)",
        "(t.a = ('x'::text COLLATE \"C\"))",
        "(t.a = NULL::integer)",
        "(o.b = 5)",
        "(t.a OPERATOR(public.=) 5)",
        "(lower(t.a) = 'x'::text)",
        "(t.a[1] = 5)",
        "(CASE WHEN t.a THEN true ELSE false END)",
    ],
)
def test_everything_else_is_left_out(condition: str) -> None:
    assert conjuncts(condition, "t", NO_OUTPUTS) == []


def test_only_the_conjuncts_that_are_certain_are_read() -> None:
    found = conjuncts("((t.a = 5) AND (random() < 0.5) AND ((t.b IS NULL) AND (t.c > $1)))", "t", NO_OUTPUTS)
    assert [c.column for c in found] == ["a", "b", "c"]


def test_outputs_of_an_init_plan_are_not_parameters() -> None:
    outputs = initplan_outputs("InitPlan 1 (returns $0,$2)")
    assert outputs == {0, 2}
    assert conjuncts("((t.a = $2) AND (t.b = $1))", "t", frozenset(outputs)) == [Conjunct("b", "=", Parameter(1))]
    assert initplan_outputs("CTE w") == set()


def test_output_expressions() -> None:
    assert operand_of("$1", NO_OUTPUTS) == Parameter(1)
    assert operand_of("'x'::text", NO_OUTPUTS) == Constant("x", oids.TEXT)
    assert operand_of("o.a", NO_OUTPUTS) is None
    assert operand_of("o.a", NO_OUTPUTS, columns=True) == OtherColumn("o", "a")
    assert operand_of("nextval('s'::regclass)", NO_OUTPUTS) is None
    assert operand_of("(SubPlan 1)", NO_OUTPUTS) is None
