"""Reads that need no engine: columns of stored rows, found by conditions that storage knows exactly.

The engine has planned such a statement and has run it once in the session before (which checked the role's privileges
and gave the row description). What it would do from then on is to take the loaded rows and send their columns back;
:mod:`dsql_server.processor.direct_answer` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pglast import ast
from pglast.enums import SetOperation, SortByDir, SortByNulls

from dsql_server.catalog.state import Table
from dsql_server.encoding.keys import KEY_TYPE_OIDS
from dsql_server.encoding.output import Output, binary_field, text_field
from dsql_server.processor.conditions import OtherColumn, Parameter, count_conjuncts
from dsql_server.processor.direct_answer import Column, DirectAnswer, Order
from dsql_server.processor.parse_tree import Node, is_a, parse_expression, walk
from dsql_server.processor.plan import LoadPlan, Scan
from dsql_server.processor.targets import UNKNOWN_MODIFIER, Targets

_SCANS = frozenset({"Index Scan", "Index Only Scan", "Seq Scan"})
_CONDITIONS = ("Index Cond", "Filter")


@dataclass(frozen=True)
class DirectRead:
    """A statement that can be answered from storage. Scans find rows each by itself; the answer is their product."""

    scans: tuple[Scan, ...]
    columns: tuple[Column, ...]
    parameter_oids: tuple[int, ...]
    order: tuple[Order, ...] = ()
    _answers: dict[tuple[object, ...], DirectAnswer | None] = field(default_factory=dict, compare=False)

    def answering(self, formats: Sequence[int], *, iso_dates: bool, zone_is_utc: bool) -> DirectAnswer | None:
        """What answers executions with these result formats (0 text, 1 binary; none: text, one: for all).

        None where some column's text can't be told here, or the formats aren't valid. Sessions share it, and with it
        the rows that it has shown before.
        """
        key = (*formats, iso_dates, zone_is_utc)
        if key not in self._answers:
            self._answers[key] = self._answering(formats, iso_dates=iso_dates, zone_is_utc=zone_is_utc)
        return self._answers[key]

    def _answering(self, formats: Sequence[int], *, iso_dates: bool, zone_is_utc: bool) -> DirectAnswer | None:
        width = len(self.columns)
        each = list(formats) * width if len(formats) == 1 else list(formats) or [0] * width
        if len(each) != width or not set(each) <= {0, 1}:
            return None
        outputs: list[Output] = []
        for column, result_format in zip(self.columns, each, strict=True):
            if result_format:
                outputs.append(binary_field)
                continue
            output = text_field(column.type_oid, iso_dates=iso_dates, zone_is_utc=zone_is_utc)
            if output is None:
                return None
            outputs.append(output)
        return DirectAnswer(self, outputs, zone_is_utc)


# -- which statements ------------------------------------------------------------------------------------------


def read_directly(
    targets: Targets, document: dict[str, Any], plan: LoadPlan, width: int | None = None
) -> DirectRead | None:
    """The direct read that a statement is, or None: a plain SELECT of columns, all of its conditions understood.

    ``targets`` is what its text says, ``document`` the engine's plan for it, ``plan`` all that was read off that.
    ``width`` is the number of the answer's columns: behind them a plan has those that it only sorts by.
    """
    statement = targets.statement
    if targets.renamed or not plan.plain_read or not is_plain_select(statement):
        return None
    is_sorted = document["Node Type"] == "Sort" and statement.sortClause
    nodes = _scans_below(document["Plans"][0] if is_sorted else document)
    by_alias = {scan.alias: scan for scan in plan.scans}
    if nodes is None or sorted(node["Alias"] for node in nodes) != sorted(by_alias):
        return None
    if sorted(t.relname for t in _tables_named(statement)) != sorted(scan.table.name for scan in plan.scans):
        return None  # some are views
    used: set[int] = set()
    for node in nodes:
        scan = by_alias[node["Alias"]]
        if scan.also or not _is_exact(scan, node, used):
            return None
    if used != set(range(1, len(plan.parameter_oids) + 1)):
        return None
    order = [node["Alias"] for node in nodes]
    columns = [_column(parse_expression(output), by_alias, order) for output in document.get("Output", ())[:width]]
    known = [column for column in columns if column is not None]
    sorts = _orders(statement, by_alias, order)
    if not known or len(known) != len(columns) or sorts is None:
        return None
    return DirectRead(tuple(by_alias[alias] for alias in order), tuple(known), plan.parameter_oids, sorts)


def _orders(statement: Node, scans: dict[str, Scan], aliases: list[str]) -> tuple[Order, ...] | None:
    """What ORDER BY says, if it names nothing but columns of the tables; else None."""
    renamed = {target.name for target in statement.targetList or () if target.name is not None}
    found: list[Order] = []
    for item in statement.sortClause or ():
        if item.useOp or item.sortby_nulls != SortByNulls.SORTBY_NULLS_DEFAULT or not is_a(item.node, ast.ColumnRef):
            return None
        names = [getattr(part, "sval", None) for part in item.node.fields]
        among = list(scans)
        if len(names) == 1:
            # An output column comes first; without a name of its own it is a table's.
            among = [alias for alias, scan in scans.items() if names[0] in scan.table.by_name]
        if len(among) < 1 or (len(names) == 1 and (len(among) > 1 or names[0] in renamed)):
            return None
        column = _column(item.node, scans, aliases, among[0])
        if column is None or column.type_oid not in KEY_TYPE_OIDS:
            return None
        found.append(Order(column, item.sortby_dir == SortByDir.SORTBY_DESC))
    return tuple(found)


def is_plain_select(statement: Node) -> bool:
    """Whether it is one SELECT from tables that has conditions and nothing else."""
    if not is_a(statement, ast.SelectStmt) or not statement.fromClause or statement.op != SetOperation.SETOP_NONE:
        return False
    clauses = (
        statement.distinctClause, statement.groupClause, statement.havingClause, statement.windowClause,
        statement.limitCount, statement.limitOffset, statement.lockingClause,
        statement.withClause, statement.intoClause, statement.valuesLists,
    )  # fmt: skip
    if any(clauses):
        return False
    return sum(is_a(node, ast.SelectStmt) for node in walk(statement)) == 1


def _tables_named(statement: Node) -> list[Node]:
    return [node for node in walk(statement) if is_a(node, ast.RangeVar)]


def _scans_below(node: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The scans whose rows a plan pairs each with each; None if it does anything else."""
    if node["Node Type"] in _SCANS and "Plans" not in node and "Relation Name" in node:
        return [node]
    if node["Node Type"] != "Nested Loop" or node.get("Join Type") != "Inner" or "Join Filter" in node:
        return None
    found = []
    for child in node["Plans"]:
        below = _scans_below(child)
        if below is None:
            return None
        found += below
    return found


def _is_exact(scan: Scan, node: dict[str, Any], used: set[int]) -> bool:
    """Whether storage knows all conditions of the scan's node; adds the parameters that they name to ``used``."""
    if {"Recheck Cond", "One-Time Filter", "Order By"} & node.keys():
        return False
    if "Index Name" in node and node["Index Name"] not in _complete_indexes(scan.table):
        return False  # conditions that the predicate of a partial index implies aren't printed
    counts = [count_conjuncts(node[name]) for name in _CONDITIONS if name in node]
    total = 0
    for count in counts:
        if count is None:
            return False
        total += count
    if scan.access.pushed_count != total or len(scan.conjuncts) != total:
        return False
    for conjunct in scan.conjuncts:
        if isinstance(conjunct.operand, OtherColumn):
            return False
        if isinstance(conjunct.operand, Parameter):
            used.add(conjunct.operand.number)
    return True


def _complete_indexes(table: Table) -> set[str]:
    indexes = (*table.indexes, *((table.primary_key,) if table.primary_key is not None else ()))
    return {index.name for index in indexes if index.predicate is None}


def _column(node: Node, scans: dict[str, Scan], order: list[str], alias_of_bare: str | None = None) -> Column | None:
    """An expression as a column of one of the scans, or None. ``alias_of_bare``: the scan of names without one."""
    if node is None or not is_a(node, ast.ColumnRef) or not all(is_a(f, ast.String) for f in node.fields):
        return None
    *alias, name = [field.sval for field in node.fields]
    if not alias and (alias_of_bare is not None or len(order) == 1):
        alias = [alias_of_bare or order[0]]  # with one relation, PostgreSQL prints bare names
    if len(alias) != 1 or alias[0] not in scans:
        return None
    column = scans[alias[0]].table.by_name.get(name)
    if column is None or column.modifier == UNKNOWN_MODIFIER:
        return None
    return Column(order.index(alias[0]), column.number - 1, column.type_oid)
