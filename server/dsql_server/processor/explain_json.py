"""Plans as EXPLAIN (FORMAT JSON) prints them, with scans and joins as Aurora DSQL makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsql_server.processor.explain_conditions import join_conditions, names_others, split_condition
from dsql_server.processor.explain_costs import carry_up
from dsql_server.processor.explain_scans import SCAN_TITLE, Context, ScanFacts, shape_scan
from dsql_server.processor.explain_tree import Estimate, PlanNode

BATCHED_JOIN = "Nested Loop (Batched Join)"
#: Of the engine's own storage, which DSQL doesn't have.
_ENGINE_KEYS = ("Heap Fetches", "Rows Removed by Index Recheck")


class PlainPlan:
    """Changes one document in place. ``facts`` are those of its scans, in order."""

    def __init__(self, context: Context, facts: Sequence[ScanFacts | None], batches_joins: bool) -> None:
        self._context = context
        self._facts = iter(facts)
        self._batches_joins = batches_joins
        self._before: dict[int, Estimate] = {}
        self._mirrored: list[tuple[PlanNode, dict[str, Any]]] = []
        self._known: dict[int, ScanFacts] = {}  #: by the identity of a scan's node

    def show(self, root: dict[str, Any]) -> None:
        """Change the plan."""
        top = self._show(root)
        carry_up(top, self._before)
        for mirror, node in self._mirrored:
            if mirror.estimate is not None:
                node |= mirror.estimate.plain()

    def _show(self, node: dict[str, Any]) -> PlanNode:
        """Change the node and those below it; returns what costs are carried up in."""
        for name in _ENGINE_KEYS:
            node.pop(name, None)
        estimate = None
        if "Plan Rows" in node:
            estimate = Estimate(node["Startup Cost"], node["Total Cost"], node["Plan Rows"], node["Plan Width"])
        mirror = PlanNode(node["Node Type"], 0, estimate)
        if estimate is not None:
            self._before[id(mirror)] = estimate
        self._mirrored.append((mirror, node))
        children = list(node.get("Plans", ()))
        facts = next(self._facts, None) if "Relation Name" in node and "Scan" in node["Node Type"] else None
        if facts is not None:
            self._show_scan(node, mirror, facts)
        mirror.body = [self._show(child) for child in children]
        if self._batches_joins and node["Node Type"] == "Nested Loop":
            self._batch(node)
        return mirror

    def _show_scan(self, node: dict[str, Any], mirror: PlanNode, facts: ScanFacts) -> None:
        direction = " Backward" if node.get("Scan Direction") == "Backward" else ""
        index = f" using {node['Index Name']}" if "Index Name" in node else ""
        title = SCAN_TITLE.match(f"{node['Node Type']}{direction}{index} on {node['Relation Name']}")
        if title is None:
            return
        self._known[id(node)] = facts
        shape = shape_scan(title, facts, node.get("Index Cond"), node.get("Filter"), mirror.estimate, self._context)
        node["Node Type"] = shape.kind
        if shape.index is not None:
            node["Index Name"] = shape.index
        node.pop("Filter", None)
        if shape.filter is None:
            node.pop("Rows Removed by Filter", None)
        else:
            node["Filter"] = shape.filter
        mirror.estimate, mirror.storage = shape.estimate, shape.storage
        node["Plans"] = [*(child.plain() for child in shape.storage), *node.pop("Plans", [])]

    def _batch(self, join: dict[str, Any]) -> None:
        inner = next((child for child in join["Plans"] if child.get("Parent Relationship") == "Inner"), None)
        facts = self._known.get(id(inner))
        if inner is None or facts is None:
            return
        join["Node Type"] = BATCHED_JOIN
        printed = split_condition(inner.get("Index Cond"))
        joining = [
            t for t, full in zip(printed, facts.index_condition, strict=False) if names_others(full, facts.alias)
        ]
        recheck = join_conditions(joining)
        if recheck is not None:
            join["Recheck Cond"] = recheck
