"""Plans in text format, read and printed again."""

from __future__ import annotations

import pytest

from dsql_server.processor.explain_tree import Estimate, StorageNode, read_plan

PLAN = (
    "Sort  (cost=105.00..105.01 rows=2 width=8) (actual time=0.050..0.052 rows=3 loops=1)\n"
    "  Sort Key: c.x, (lower(t.name)) DESC\n"
    "  Sort Method: quicksort  Memory: 25kB\n"
    "  InitPlan 1 (returns $0)\n"
    "    ->  Aggregate  (cost=1.00..1.01 rows=1 width=4) (never executed)\n"
    "          ->  Seq Scan on a  (cost=0.00..1.00 rows=1 width=4) (actual rows=3 loops=2)\n"
    "  CTE c\n"
    "    ->  Result  (cost=0.00..0.01 rows=1 width=4)\n"
    "          One-Time Filter: false\n"
    "  ->  Nested Loop  (cost=100.00..104.00 rows=2 width=8)\n"
    "        Join Filter: (c.x = t.id)\n"
    "        ->  CTE Scan on c  (cost=0.00..0.02 rows=1 width=4)\n"
    "        ->  Seq Scan on t  (cost=0.00..2.00 rows=1 width=4)\n"
    "              Filter: (hashed SubPlan 2)\n"
    "              SubPlan 2\n"
    "                ->  Seq Scan on b  (cost=0.00..1.00 rows=1 width=4)\n"
    "Settings: enable_seqscan = 'off'\n"
    "Planning Time: 0.1 ms\n"
).splitlines()


def test_a_plan_is_printed_as_it_was_read() -> None:
    root, rest = read_plan(PLAN)
    assert [*root.printed(), *rest] == PLAN
    assert rest == PLAN[-2:]
    titles = [node.title for node in root.walk()]
    assert titles == ["Sort", "Aggregate", "Seq Scan on a", "Result", "Nested Loop", "CTE Scan on c", "Seq Scan on t",
                      "Seq Scan on b"]  # fmt: skip
    join = root.children[2]
    assert join.properties == ["Join Filter: (c.x = t.id)"]
    assert join.estimate == Estimate(100.0, 104.0, 2, 8)
    assert [node.actual_rows for node in root.walk()][:3] == [3, 0, 6]


def test_plans_without_costs() -> None:
    lines = ["Limit (actual rows=1 loops=1)", "  ->  Seq Scan on t (never executed)", "        Filter: x"]
    root, rest = read_plan(lines)
    assert (root.title, root.actual, root.estimate, rest) == ("Limit", " (actual rows=1 loops=1)", None, [])
    assert list(root.printed()) == lines


def test_literals_with_line_breaks_are_one_property() -> None:
    root, rest = read_plan(
        ["Seq Scan on t", "  Filter: (a = 'it''s", "->  Seq Scan on u", "'::text)", "Planning Time: 1 ms"]
    )
    assert root.properties == ["Filter: (a = 'it''s\n->  Seq Scan on u\n'::text)"]
    assert (root.children, rest) == ([], ["Planning Time: 1 ms"])


@pytest.mark.parametrize("lines", [[], [""], ["  Seq Scan on t"]])
def test_no_plan(lines: list[str]) -> None:
    with pytest.raises(ValueError, match="no plan"):
        read_plan(lines)


def test_properties_are_changed_in_their_places() -> None:
    root, _ = read_plan(["Seq Scan on t", "  Output: a", "  Filter: (b)", "  SubPlan 1", "    ->  Result"])
    root.put("Filter", "(c)")
    root.insert(1, "Join Type: Left")
    root.put("Output", None)
    assert list(root.printed()) == [
        "Seq Scan on t",
        "  Join Type: Left",
        "  Filter: (c)",
        "  SubPlan 1",
        "    ->  Result",
    ]


def test_storage_stands_behind_the_scans_properties() -> None:
    root, _ = read_plan(["Index Scan on t", "  Filter: (b)", "  SubPlan 1", "    ->  Result"])
    estimate = Estimate(100.0, 104.127, 3, 4)
    below = StorageNode("B-Tree Scan on i", estimate, None, [("Index Cond", "(a = 1)")])
    root.storage = [StorageNode("Storage Scan on i", estimate, 7, [("Projections", "a")], [below])]
    assert list(root.printed()) == [
        "Index Scan on t",
        "  Filter: (b)",
        "  -> Storage Scan on i  (cost=100.00..104.13 rows=3 width=4 loops=1) (actual rows=7 loops=1)",
        "      Projections: a",
        "      -> B-Tree Scan on i  (cost=100.00..104.13 rows=3 width=4 loops=1)",
        "          Index Cond: (a = 1)",
        "  SubPlan 1",
        "    ->  Result",
    ]
    assert root.storage[0].plain()["Plans"][0]["Index Cond"] == "(a = 1)"
