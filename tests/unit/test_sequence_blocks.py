"""Positions and values of sequences, and which sequences a statement's text and plan name."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, takewhile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.catalog.state import Sequence
from dsql_server.processor.sequence_uses import named_uses
from dsql_server.processor.sequences import steps_between, value_at


def sequence(**changed: Any) -> Sequence:
    fields = {"start": 1, "increment": 1, "minimum": 1, "maximum": 2**63 - 1, "cache": 1, "cycle": False}
    return Sequence(relation_id=1000, schema="public", name="s", **{**fields, **changed})


def values_of(made: Sequence, base: int) -> list[int]:
    """What PostgreSQL hands out from ``base`` on: up to the bound, then from the other one again."""

    def endless() -> Any:
        value = base
        while True:
            while made.minimum <= value <= made.maximum:
                yield value
                value += made.increment
            if not made.cycle:
                return
            value = made.minimum if made.increment > 0 else made.maximum

    return list(islice(endless(), 40))


@st.composite
def small_sequences(draw: st.DrawFn) -> tuple[Sequence, int]:
    minimum = draw(st.integers(-20, 20))
    maximum = minimum + draw(st.integers(1, 30))
    increment = draw(st.integers(1, 7)) * draw(st.sampled_from([1, -1]))
    made = sequence(minimum=minimum, maximum=maximum, increment=increment, cycle=draw(st.booleans()))
    return made, draw(st.integers(minimum, maximum))


@given(small_sequences())
def test_positions_have_the_values_that_postgresql_hands_out(made: tuple[Sequence, int]) -> None:
    described, base = made
    expected = values_of(described, base)
    assert [value_at(described, base, n) for n in range(len(expected))] == expected
    if not described.cycle:
        assert value_at(described, base, len(expected)) is None


@given(small_sequences())
def test_steps_lead_from_the_first_value_to_the_last(made: tuple[Sequence, int]) -> None:
    described, base = made
    before_a_cycle = values_of(replace(described, cycle=False), base)
    assert [steps_between(described, base, last) for last in before_a_cycle] == list(range(len(before_a_cycle)))


@pytest.mark.parametrize(
    "made",
    [
        sequence(minimum=0, maximum=10, increment=3, cycle=True),
        sequence(minimum=0, maximum=10, increment=-3, cycle=True),
        sequence(maximum=3, cycle=True),
    ],
)
def test_steps_go_on_behind_the_end_of_a_cycle(made: Sequence) -> None:
    values = values_of(made, 2)
    turn = next(n for n in range(1, len(values)) if (values[n] - values[n - 1]) * made.increment < 0)
    behind = takewhile(lambda value: (value - 2) * made.increment < 0, values[turn:])
    once = [*values[:turn], *behind]
    assert [steps_between(made, 2, last) for last in once] == [values.index(last) for last in once]


def plan(node_type: str = "Result", output: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return {"Node Type": node_type, "Output": list(output), **fields}


@pytest.mark.parametrize(
    ("sql", "document", "counts", "exact"),
    [
        ("SELECT nextval('s')", plan(output=("nextval('s'::regclass)",)), {"s": 1}, True),
        ("SELECT nextval('s'), nextval('s')", plan(output=("nextval('s'::regclass)",) * 2), {"s": 2}, True),
        (
            "INSERT INTO t (v) VALUES (1), (2)",
            plan("ModifyTable", Plans=[plan("Values Scan", ("nextval('public.t_id_seq')", '"*VALUES*".column1'))]),
            {"public.t_id_seq": 2},
            True,
        ),
        (
            "INSERT INTO t VALUES (nextval('s')), (nextval('s'))",
            plan("ModifyTable", Plans=[plan("Values Scan", ('"*VALUES*".column1',))]),
            {"s": 2},
            True,
        ),
        (
            "INSERT INTO t SELECT nextval('s') FROM u",
            plan("ModifyTable", Plans=[plan("Seq Scan", ("nextval('s'::regclass)",))]),
            {"s": 1},
            False,
        ),
        ("SELECT nextval('\"It''s\"')", plan(output=("nextval('\"It''s\"'::regclass)",)), {'"It\'s"': 1}, True),
    ],
)
def test_named_sequences_are_counted(sql: str, document: dict[str, Any], counts: dict[str, int], exact: bool) -> None:
    uses = named_uses(sql, document)
    assert (uses.counts, uses.exact, uses.computed, uses.sets) == (counts, exact, False, False)


@pytest.mark.parametrize("sql", ["SELECT nextval(name) FROM names", "SELECT nextval($1)", "SELECT nextval('a' || 'b')"])
def test_computed_names_are_noticed(sql: str) -> None:
    assert named_uses(sql, plan(output=("nextval((x)::regclass)",))).computed


def test_setval_is_noticed() -> None:
    assert named_uses(
        "SELECT setval('s', 1)", plan(output=("engine_setval(engine_note('s'::regclass), 1, true)",))
    ).sets
