"""Reads load plans off PostgreSQL's own plans, as EXPLAIN (VERBOSE, FORMAT JSON) prints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dsql_server.catalog.state import CatalogState, Table
from dsql_server.processor.access import Access, choose_access
from dsql_server.processor.conditions import Conjunct, OtherColumn, conjuncts, count_conjuncts, initplan_outputs
from dsql_server.processor.limits import RowCount, limited, one_row, wanted_rows
from dsql_server.processor.plan import LoadPlan, Scan
from dsql_server.processor.targets import Targets
from dsql_server.processor.writes import WriteReader

#: Join types under a nested loop whose inner side needs only rows that meet the join's condition.
_INNER_SIDE_FILTERED = frozenset({"Inner", "Left", "Semi", "Anti"})
_CONDITIONS = ("Index Cond", "Recheck Cond", "Filter")


#: Nodes that put the rows of several inputs into one stream. Seen from above, EXPLAIN calls the stream's columns by
#: those of its first input.
_MERGING = frozenset({"Append", "Merge Append", "Recursive Union"})

#: The inputs of merging nodes that a node lies in, from the top down.
_Branch = tuple[tuple[int, int], ...]


@dataclass
class _Pending:
    alias: str
    table: Table
    conjuncts: list[Conjunct]
    branch: _Branch
    node: dict[str, Any]

    @property
    def has_own_operand(self) -> bool:
        return any(c.operand is not None and not isinstance(c.operand, OtherColumn) for c in self.conjuncts)

    def leans_on(self, placed: dict[str, Table]) -> bool:
        """Whether a join with a scan that comes before it restricts it."""
        return any(isinstance(c.operand, OtherColumn) and c.operand.alias in placed for c in self.conjuncts)


def plan_nodes(plan: dict[str, Any], branch: _Branch = ()) -> list[tuple[dict[str, Any], _Branch]]:
    """All nodes of an EXPLAIN (FORMAT JSON) plan, top down, each with the branch that it lies in."""
    nodes = [(plan, branch)]
    merges = plan["Node Type"] in _MERGING
    for number, child in enumerate(plan.get("Plans", ())):
        nodes += plan_nodes(child, (*branch, (id(plan), number)) if merges else branch)
    return nodes


class PlanReader:
    """Builds a load plan from one EXPLAIN document.

    ``targets`` is what the statement's text says. ``views`` are names of views and ``renamed`` aliases inside of them
    whose columns have other names than the table's.
    """

    def __init__(
        self,
        plan: dict[str, Any],
        state: CatalogState,
        parameter_oids: Sequence[int],
        targets: Targets,
        views: frozenset[str] = frozenset(),
    ) -> None:
        self._plan = plan
        self._nodes = plan_nodes(plan)
        self._state = state
        self._oids = tuple(parameter_oids)
        self._targets = targets
        self._views = views
        outputs: set[int] = set()
        for node, _ in self._nodes:
            outputs |= initplan_outputs(node.get("Subplan Name", ""))
        self._not_parameters = frozenset(outputs)
        self._extra: dict[str, list[Conjunct]] = {}
        self.result = LoadPlan(state.version, self._oids)

    def read(self) -> LoadPlan:
        """The load plan."""
        self._attach_join_filters(self._plan)
        sources: dict[str, Table] = {}
        pending = self._pending()
        for scan in self._ordered(pending):
            usable = [c for c in scan.conjuncts if not isinstance(c.operand, OtherColumn) or c.operand.alias in sources]
            access = self._limited(scan, choose_access(scan.table, usable, self._oids, sources))
            self.result.scans.append(Scan(scan.alias, scan.table, access, usable))
            sources[scan.alias] = scan.table
        self.result.scans = _without_duplicates(self.result.scans)
        unmerged = {scan.alias: scan.table for scan in pending if not scan.branch}
        writes = WriteReader(
            self.result, self._state, self._targets, self._views, self._oids, self._not_parameters, unmerged
        )
        writes.read([node for node, _ in self._nodes], self._plan)
        return self.result

    @cached_property
    def _limits(self) -> dict[int, tuple[RowCount, bool]]:
        """Scans right below a Limit, by their node's identity: how many rows it wants, and whether in order.

        PostgreSQL doesn't print how many. It is the statement's own LIMIT if the Limit is the whole plan; without any
        LIMIT in the text it must be one that PostgreSQL made of ``max`` or ``min``.
        """
        found: dict[int, tuple[RowCount, bool]] = {}
        statement = self._targets.statement
        own = wanted_rows(statement, self._oids)
        for node, _ in self._nodes:
            if node["Node Type"] != "Limit":
                continue
            child = node["Plans"][0]
            if child["Node Type"] == "LockRows":
                child = child["Plans"][0]
            if not self._targets.has_limit:
                found[id(child)] = (one_row, True)
            elif node is self._plan and own is not None:
                found[id(child)] = (own, bool(statement.sortClause))
        return found

    def _limited(self, scan: _Pending, access: Access) -> Access:
        limit = self._limits.get(id(scan.node))
        if limit is None or any(isinstance(c.operand, OtherColumn) for c in scan.conjuncts):
            return access
        counts = [count_conjuncts(scan.node[name]) for name in _CONDITIONS if name in scan.node]
        if None in counts:
            return access
        return limited(access, scan.node, sum(c for c in counts if c is not None), limit[1], limit[0])

    def _pending(self) -> list[_Pending]:
        found: dict[str, _Pending] = {}
        scans = []
        for node, branch in self._nodes:
            if "Relation Name" in node and "Scan" in node["Node Type"]:
                table = self._state.by_name.get((node["Schema"], node["Relation Name"]))
                if table is not None:
                    scan = _Pending(node["Alias"], table, self._conjuncts(node), branch, node)
                    scans.append(scan)
                    found[scan.alias] = scan
        # Aliases are unique in EXPLAIN; should they not be, no scan may lean on another.
        known = found if len(found) == len(scans) else {}
        for scan in scans:
            scan.conjuncts = [c for c in scan.conjuncts if self._is_certain(c, scan, known)]
        return scans

    def _is_certain(self, conjunct: Conjunct, scan: _Pending, known: dict[str, _Pending]) -> bool:
        """Whether a column of another scan that the condition names is that scan's column, and nothing else."""
        if not isinstance(conjunct.operand, OtherColumn):
            return True
        other = known.get(conjunct.operand.alias)
        if other is None or self._targets.is_renamed(other.alias):
            return False
        return other.branch == scan.branch[: len(other.branch)]

    def _ordered(self, pending: list[_Pending]) -> list[_Pending]:
        """Scans with conditions of their own first, then those that joins with earlier ones restrict."""
        rest = list(pending)
        placed: dict[str, Table] = {}
        ordered = []
        while rest:
            best = next((s for s in rest if s.has_own_operand), None) or next(
                (s for s in rest if s.leans_on(placed)), rest[0]
            )
            rest.remove(best)
            placed[best.alias] = best.table
            ordered.append(best)
        return ordered

    def _conjuncts(self, node: dict[str, Any]) -> list[Conjunct]:
        alias = node["Alias"]
        if self._targets.is_renamed(alias):
            return []  # EXPLAIN prints the statement's names for the columns, not the table's
        found: list[Conjunct] = list(self._extra.get(alias, ()))
        for name in _CONDITIONS:
            if name in node:
                found += conjuncts(node[name], alias, self._not_parameters)
        return found

    def _attach_join_filters(self, node: dict[str, Any]) -> None:
        children = node.get("Plans", ())
        is_filtered = node["Node Type"] == "Nested Loop" and node.get("Join Type") in _INNER_SIDE_FILTERED
        if is_filtered and "Join Filter" in node:
            for child in children:
                if child.get("Parent Relationship") == "Inner" and "Relation Name" in child:
                    alias = child["Alias"]
                    found = conjuncts(node["Join Filter"], alias, self._not_parameters)
                    self._extra.setdefault(alias, []).extend(found)
        for child in children:
            self._attach_join_filters(child)


def _without_duplicates(scans: list[Scan]) -> list[Scan]:
    """A full scan of a table serves every other scan of that table."""
    full: dict[int, Scan] = {}
    for scan in scans:
        if type(scan.access) is Access and not scan.access.restricted:
            full.setdefault(scan.table.relation_id, scan)
    kept: list[Scan] = []
    for scan in scans:
        serving = full.get(scan.table.relation_id)
        if serving is None or serving is scan:
            kept.append(scan)
        else:
            serving.also = (*serving.also, scan.alias)
    # Others may lean on what they serve; they themselves lean on nothing.
    return sorted(kept, key=lambda scan: not scan.also)
