"""Scans as Aurora DSQL shows them: what the query processor does, and below it what storage does for it.

DSQL keeps a table's rows in its primary key, which so covers all columns; secondary indexes lead to it by a look-up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dsql_server.catalog.state import CatalogState, Index, Table
from dsql_server.processor.explain_conditions import (
    columns_of,
    equal_columns,
    is_pushed,
    join_conditions,
    names_others,
    selectivity,
    split_condition,
)
from dsql_server.processor.explain_costs import scan_cost
from dsql_server.processor.explain_reads import Reads
from dsql_server.processor.explain_tree import Estimate, StorageNode

FULL_SCAN = "Full Scan (btree-table)"
_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[^\s".]+)'
#: A scan of a relation by its title: kind, direction, index, and what it is on.
SCAN_TITLE = re.compile(
    rf"(?P<kind>Seq Scan|Index Only Scan|Index Scan|Bitmap Heap Scan)(?P<backward> Backward)?"
    rf"(?: using (?P<index>{_IDENTIFIER}))? on (?P<target>{_IDENTIFIER}(?:\.{_IDENTIFIER})?(?: {_IDENTIFIER})?)$"
)
#: Nodes that want nothing but what their input's output list says.
_PASSING_ON = frozenset(
    {"Subquery Scan", "Append", "Merge Append", "LockRows", "ModifyTable", "Limit", "Unique", "SetOp"}
)
#: How a plan hangs below a node that isn't fed by it: what it puts out is what is wanted of it.
_SUBPLANS = frozenset({"InitPlan", "SubPlan"})
#: Properties of a plan node, in EXPLAIN (VERBOSE, FORMAT JSON), that hold expressions.
_EXPRESSIONS = ("Output", "Sort Key", "Group Key", "Presorted Key", "Hash Cond", "Merge Cond", "Join Filter", "Filter",
                "Index Cond", "Recheck Cond", "Conflict Filter", "One-Time Filter", "Function Call")  # fmt: skip


@dataclass(frozen=True)
class ScanFacts:
    """A scan of a stored table in a plan that EXPLAIN (VERBOSE, FORMAT JSON) printed."""

    table: Table
    alias: str
    index: Index | None
    index_condition: tuple[str, ...]
    filter: tuple[str, ...]
    needed: tuple[str, ...]  #: columns that go on from the scan, or are used in conditions of the query processor


@dataclass
class TableSizes:
    """How many rows a table has, and how many the engine takes it to have."""

    stored: int
    assumed: int


@dataclass
class Context:
    """What is known besides the plans."""

    state: CatalogState
    is_executed: bool
    sizes: dict[int, TableSizes] = field(default_factory=dict)  #: by the table's relation id
    reads: dict[str, Reads] = field(default_factory=dict)  #: by alias
    limits: dict[str, int] = field(default_factory=dict)  #: rows that storage is asked for at most, by alias


@dataclass
class ScanShape:
    """A scan as it is to be shown. ``filter`` is what remains for the query processor."""

    kind: str
    index: str | None
    filter: str | None
    is_filtered_by_processor: bool
    estimate: Estimate | None
    storage: list[StorageNode]


def scan_facts(document: dict[str, Any], state: CatalogState) -> list[ScanFacts | None]:
    """All scans of relations in the order of the plan; None for those that aren't of stored tables."""
    nodes: list[tuple[dict[str, Any], dict[str, Any] | None]] = []

    def collect(node: dict[str, Any], parent: dict[str, Any] | None) -> None:
        nodes.append((node, parent))
        for child in node.get("Plans", ()):
            collect(child, node)

    collect(document, None)
    found: list[ScanFacts | None] = []
    for node, parent in nodes:
        if "Relation Name" in node and "Scan" in node["Node Type"]:
            table = state.by_name.get((node["Schema"], node["Relation Name"]))
            others = [other for other, _ in nodes if other is not node]
            found.append(None if table is None else _facts(node, parent, others, table))
    return found


def _facts(
    node: dict[str, Any], parent: dict[str, Any] | None, others: Sequence[dict[str, Any]], table: Table
) -> ScanFacts:
    alias, name = node["Alias"], node.get("Index Name")
    keys = (*((table.primary_key,) if table.primary_key is not None else ()), *table.indexes)
    index = next((key for key in keys if key.name == name), None)
    columns = [c.name for c in table.columns if not c.dropped]
    wanted = _columns(node.get("Output", ()), table, alias)
    is_whole = wanted == set(columns) and node.get("Parent Relationship") not in _SUBPLANS
    if is_whole and parent is not None and parent["Node Type"] not in _PASSING_ON:
        # The engine hands on whole rows where that costs it nothing; who really wants what is said above.
        above = _columns([text for other in others for text in _expressions(other)], table, alias)
        wanted = wanted if above is None else above
    condition, conjuncts = split_condition(node.get("Index Cond")), split_condition(node.get("Filter"))
    kept = [text for text in conjuncts if not is_pushed(text, table, alias)]
    # What a batch of outer rows asked for is told apart by the rows that come back.
    kept += [text for text in condition if names_others(text, alias)]
    used = _columns(kept, table, alias)
    needed = set(columns) if wanted is None or used is None else wanted | used
    return ScanFacts(
        table, alias, index, tuple(condition), tuple(conjuncts), tuple(name for name in columns if name in needed)
    )


def _expressions(node: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name in _EXPRESSIONS:
        value = node.get(name, ())
        found += [value] if isinstance(value, str) else value
    return found


def _columns(expressions: Sequence[str], table: Table, alias: str) -> set[str] | None:
    found: set[str] = set()
    for text in expressions:
        if text in ("ctid", f"{alias}.ctid", f"{alias}.*"):
            return None
        named = columns_of(_without_order(text), table, alias)
        if named is None:
            return None
        found |= named
    return found


def _without_order(text: str) -> str:
    return re.sub(r"( COLLATE \S+)?( DESC| USING \S+)?( NULLS (FIRST|LAST))?$", "", text)


def shape_scan(
    title: re.Match[str],
    facts: ScanFacts,
    condition: str | None,
    conjuncts: str | None,
    estimate: Estimate | None,
    context: Context,
) -> ScanShape:
    """The scan with this title, index condition and filter, as they were printed for the client."""
    printed = split_condition(conjuncts)
    if len(printed) != len(facts.filter):
        pushed: list[int] = []
    else:
        pushed = [i for i, text in enumerate(facts.filter) if is_pushed(text, facts.table, facts.alias)]
    kept = [text for i, text in enumerate(printed) if i not in pushed]
    key = facts.table.primary_key
    kind, index_name = title["kind"], title["index"]
    if kind == "Seq Scan":
        is_full = key is None or bool(printed)
        kind = FULL_SCAN if is_full else "Index Only Scan"
        index_name = None if is_full or key is None else _quoted(key.name)
    elif facts.index is not None and facts.index.primary:
        kind = "Index Only Scan"
    rows = _Rows.estimate(facts, pushed, context, estimate)
    looks_up = kind == "Index Scan"
    numbers: _Numbers | None = None
    if estimate is not None:
        count = len(facts.index_condition) + len(printed)
        cost = scan_cost(rows.read, rows.table, count, looks_up)
        numbers = _Numbers(
            Estimate(*cost, rows.shown, estimate.width),
            Estimate(*cost, rows.stored, estimate.width),
            Estimate(*cost, rows.read, estimate.width),
        )
    storage = _Storage(title["target"], index_name, facts, condition, numbers, context, looks_up)
    nodes = storage.nodes([printed[i] for i in pushed], [facts.filter[i] for i in pushed])
    return ScanShape(
        kind, index_name, join_conditions(kept), bool(kept), numbers.scan if numbers is not None else None, nodes
    )


@dataclass
class _Rows:
    """Rows that are expected: of the table, read, left by storage, left by the query processor."""

    table: int
    read: int
    stored: int
    shown: int

    @staticmethod
    def estimate(facts: ScanFacts, pushed: list[int], context: Context, estimate: Estimate | None) -> _Rows:
        sizes = context.sizes.get(facts.table.relation_id)
        if estimate is None or sizes is None:
            return _Rows(1, 1, 1, 1)
        table = max(sizes.stored, 1)
        shown = estimate.rows
        equal = equal_columns(facts.index_condition, facts.table, facts.alias)
        is_one = facts.index is not None and facts.index.unique and set(facts.index.columns) <= equal
        if not is_one:
            shown = max(1, round(estimate.rows * table / max(sizes.assumed, 1)))
        shown = min(shown, table)
        kept = [text for i, text in enumerate(facts.filter) if i not in pushed]
        stored, read = float(shown), float(shown)
        for text in kept:
            stored /= selectivity(text, facts.alias)
        read = stored
        for i in pushed:
            read /= selectivity(facts.filter[i], facts.alias)
        if not facts.index_condition:
            read = table
            stored = stored if kept or pushed else table
        if is_one:
            stored = read = 1
        return _Rows(table, min(round(read), table), min(max(round(stored), 1), table), shown)


@dataclass
class _Numbers:
    scan: Estimate
    storage: Estimate
    tree: Estimate


@dataclass
class _Storage:
    """Makes the nodes below a scan."""

    target: str
    index_name: str | None
    facts: ScanFacts
    condition: str | None
    numbers: _Numbers | None
    context: Context
    looks_up: bool

    def nodes(self, pushed: list[str], verbose: list[str]) -> list[StorageNode]:
        facts, on = self.facts, self.index_name or self.target
        reads = self.context.reads.get(facts.alias)
        is_executed = self.context.is_executed
        returned = (reads.rows if reads is not None else 0) if is_executed else None
        filtered = (reads.filtered if reads is not None else 0) if is_executed else None
        limit = self.context.limits.get(facts.alias)
        projections = [] if self.looks_up else [("Projections", self._projections())]
        if not self.looks_up:
            if reads is not None and facts.index is not None and not facts.index.primary:
                # The rows are read here as well, whatever the index includes: Aurora DSQL reads its entries only.
                returned = reads.by_relation.get(facts.table.relation_id, returned) if is_executed else None
            return [self._scan(on, projections, pushed, returned, filtered, limit)]
        # Conditions on the index's own columns are met before the look-up.
        keys = {c.name for c in facts.table.columns if facts.index is not None and c.number in facts.index.columns}
        early: list[str] = []
        late: list[str] = []
        for text, full in zip(pushed, verbose, strict=True):
            named = columns_of(full, facts.table, facts.alias)
            (early if named is not None and named <= keys else late).append(text)
        entries, rows = returned, returned
        if is_executed and reads is not None:
            rows = reads.by_relation.get(facts.table.relation_id, 0)
            index_id = facts.index.relation_id if facts.index is not None else 0
            entries = reads.by_relation.get(index_id, rows)
        scan = self._scan(on, [], early, entries, 0 if is_executed else None, limit)
        lookup = StorageNode(
            f"Storage Lookup on {self.target}", self._number("storage"), rows, [("Projections", self._projections())]
        )
        if late:
            lookup.properties.append(("Filters", join_conditions(late) or ""))
            if is_executed:
                lookup.properties.append(("Rows Filtered", str(filtered)))
        lookup.properties = [p for p in lookup.properties if p[1]]
        lookup.children = [StorageNode(f"B-Tree Lookup on {self.target}", self._number("storage"), rows)]
        return [scan, lookup]

    def _projections(self) -> str:
        names = list(self.facts.needed)
        index = self.facts.index
        if index is not None and not index.primary and not self.looks_up:
            order = {number: place for place, number in enumerate(index.columns)}
            by_name = self.facts.table.by_name
            names.sort(key=lambda name: order.get(by_name[name].number, len(order)))
        return ", ".join(_quoted(name) for name in names)

    def _scan(
        self,
        on: str,
        projections: list[tuple[str, str]],
        pushed: list[str],
        returned: int | None,
        filtered: int | None,
        limit: int | None,
    ) -> StorageNode:
        node = StorageNode(f"Storage Scan on {on}", self._number("storage"), returned)
        node.properties = [p for p in projections if p[1]]
        if pushed:
            node.properties.append(("Filters", join_conditions(pushed) or ""))
            if filtered is not None:
                node.properties.append(("Rows Filtered", str(filtered)))
        if limit is not None:
            node.properties.append(("Limit", str(limit)))
        read = None if returned is None else returned + (filtered or 0)
        tree = StorageNode(f"B-Tree Scan on {on}", self._number("tree"), read)
        if self.condition is not None:
            tree.properties.append(("Index Cond", self.condition))
        node.children = [tree]
        return node

    def _number(self, of: str) -> Estimate | None:
        if self.numbers is None:
            return None
        return self.numbers.tree if of == "tree" else self.numbers.storage


def _quoted(name: str) -> str:
    """The name as EXPLAIN prints it."""
    plain = re.fullmatch(r"[a-z_][a-z0-9_$]*", name) is not None
    return name if plain else '"' + name.replace('"', '""') + '"'
