"""What scans cost in Aurora DSQL's planner.

Read off published plans: a trip to storage costs 100, each row that is to come 0.125, and the descent 0.0025 for each
halving of the table, all before the first row; then 4 for each 111 rows, 0.01 a row, and 0.0025 a row and condition.
An index scan that looks up the rest of its rows makes a second trip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from dsql_server.processor.explain_tree import Estimate, PlanNode

TRIP_COST = 100.0
ROW_STARTUP_COST = 0.125
DESCENT_COST = 0.0025
PAGE_COST = 4.0
PAGE_ROWS = 111
ROW_COST = 0.01
CONDITION_COST = 0.0025
LOOKUP_ROW_COST = 0.005

#: PostgreSQL's selectivities where it knows nothing of the values.
EQUALITY_SELECTIVITY = 0.005
INEQUALITY_SELECTIVITY = 1 / 3


def scan_cost(rows: int, table_rows: int, conditions: int, looks_up: bool) -> tuple[float, float]:
    """Startup and total cost of a scan that storage answers with ``rows`` rows of a table of ``table_rows``."""
    startup = TRIP_COST + ROW_STARTUP_COST * rows + DESCENT_COST * math.ceil(math.log2(max(table_rows, 1)))
    pages = max(1.0, rows / PAGE_ROWS)
    run = PAGE_COST * pages + rows * (ROW_COST + CONDITION_COST * conditions)
    if looks_up:
        startup += TRIP_COST + ROW_STARTUP_COST * rows
        run += PAGE_COST * pages + LOOKUP_ROW_COST * rows
    return startup, startup + run


def carry_up(node: PlanNode, before: dict[int, Estimate]) -> None:
    """Let nodes above the scans expect the rows and costs that their inputs have now.

    ``before`` are the estimates as the engine made them, by node identity; scans have their new ones already.
    """
    for child in node.children:
        carry_up(child, before)
    old = before.get(id(node))
    if old is None or node.storage or not node.children:
        return
    inputs = [(before[id(c)], c.estimate) for c in node.children if id(c) in before and c.estimate is not None]
    if not inputs:
        return
    startup, total = old.startup, old.total
    for was, now in inputs:
        blocks = old.startup >= was.total > 0
        startup += (now.total - was.total) if blocks else (now.startup - was.startup)
        total += now.total - was.total
    rows = _rows(node.title, old.rows, inputs)
    if node.title == "Limit":
        was, now = inputs[-1]
        total = startup + (now.total - now.startup) * min(1.0, rows / max(now.rows, 1))
    node.estimate = Estimate(max(startup, 0.0), max(total, startup, 0.0), rows, old.width)


def _rows(title: str, rows: int, inputs: Iterable[tuple[Estimate, Estimate]]) -> int:
    pairs = list(inputs)
    if title == "Aggregate" or rows == 0:
        return rows
    if title == "Limit":
        return min(rows, pairs[-1][1].rows)
    grown = max(now.rows / max(was.rows, 1) for was, now in pairs)
    return max(1, round(rows * grown))
