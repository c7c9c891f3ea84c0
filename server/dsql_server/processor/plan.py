"""Load plans: which stored rows a statement may need, read off PostgreSQL's own plan for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dsql_server.catalog.state import CatalogState, Index, Table
from dsql_server.interfaces.commit_path import StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import (
    Access,
    Bound,
    Conditions,
    Getter,
    Row,
    choose_access,
    comparable,
    scalar_getter,
)
from dsql_server.processor.conditions import Conjunct, OtherColumn, conjuncts, initplan_outputs, operand_of

#: Join types under a nested loop whose inner side needs only rows that meet the join's condition.
_INNER_SIDE_FILTERED = frozenset({"Inner", "Left", "Semi", "Anti"})
_CONDITIONS = ("Index Cond", "Recheck Cond", "Filter", "Order By")


@dataclass
class Scan:
    """One base scan of the plan."""

    alias: str
    table: Table
    access: Access


@dataclass
class InsertKeys:
    """Readers of the unique keys that a one-row INSERT … VALUES will write, where they can be known before it runs."""

    table: Table
    #: index, readers of its columns in order
    keys: list[tuple[Index, list[Getter]]]
    #: False: some unique key is only known after the statement (a default, an expression, many rows)
    complete: bool
    #: every key not in ``keys`` is a fresh random UUID, checked at COMMIT
    deferred_only: bool = False


@dataclass
class LoadPlan:
    """What to load before a statement runs, and what it may write."""

    version: int
    parameter_oids: tuple[int, ...] = ()
    scans: list[Scan] = field(default_factory=list)
    whole: list[Table] = field(default_factory=list)  #: tables to load completely
    written: list[Table] = field(default_factory=list)
    insert: InsertKeys | None = None
    has_conflict_clause: bool = False
    #: rows that ON CONFLICT may meet can't be told before it runs
    conflict_unknown: bool = False
    deletes_or_updates: bool = False
    inserts: bool = False
    single_insert_only: bool = False
    #: tables that foreign key actions of the statement may change
    side_effects: list[Table] = field(default_factory=list)
    #: tables whose rows foreign key checks lock FOR KEY SHARE
    key_shared: list[Table] = field(default_factory=list)

    @property
    def verify_keys(self) -> bool:
        """Whether written rows must be asked for their unique keys after the statement."""
        return not (self.inserts and self.insert is not None and self.insert.deferred_only) or self.deletes_or_updates

    @cached_property
    def plain_read(self) -> bool:
        """Nothing but scans of tables that each occur once, so that no row can be loaded twice."""
        tables = [s.table.relation_id for s in self.scans]
        return not self.whole and not self.written and len(set(tables)) == len(tables)

    @property
    def loads(self) -> bool:
        return bool(self.scans or self.whole)

    def rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[tuple[Table, list[Row]]]:
        """The stored rows by table, as of ``t``."""
        found: list[tuple[Table, list[Row]]] = []
        for table in self.whole:
            found.append((table, Access(table, Conditions(table, [], (), {})).rows(bound, storage, t)))
        many = len(self.scans) > 1
        for scan in self.scans:
            rows = scan.access.rows(bound, storage, t)
            if many:
                bound.found[scan.alias] = rows
            found.append((scan.table, rows))
        return found


def plan_nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """All nodes of an EXPLAIN (FORMAT JSON) plan, top down."""
    nodes = [plan]
    for child in plan.get("Plans", ()):
        nodes += plan_nodes(child)
    return nodes


class PlanReader:
    """Builds a load plan from one EXPLAIN document."""

    def __init__(self, plan: dict[str, Any], state: CatalogState, parameter_oids: Sequence[int]) -> None:
        self._plan = plan
        self._state = state
        self._oids = tuple(parameter_oids)
        nodes = plan_nodes(plan)
        outputs: set[int] = set()
        for node in nodes:
            outputs |= initplan_outputs(node.get("Subplan Name", ""))
        self._not_parameters = frozenset(outputs)
        self._extra: dict[str, list[Conjunct]] = {}
        self.result = LoadPlan(state.version, self._oids)

    def read(self) -> LoadPlan:
        """The load plan."""
        self._attach_join_filters(self._plan)
        sources: dict[str, Table] = {}
        pending: list[tuple[str, Table, list[Conjunct]]] = []
        for node in plan_nodes(self._plan):
            if node["Node Type"] == "ModifyTable":
                self._modify(node)
            elif "Relation Name" in node and "Scan" in node["Node Type"]:
                table = self._state.by_name.get((node["Schema"], node["Relation Name"]))
                if table is not None:
                    pending.append((node["Alias"], table, self._conjuncts(node)))
        for alias, table, found in self._ordered(pending):
            usable = [c for c in found if not isinstance(c.operand, OtherColumn) or c.operand.alias in sources]
            access = choose_access(table, usable, self._oids, sources)
            self.result.scans.append(Scan(alias, table, access))
            sources[alias] = table
        self._foreign_keys()
        self.result.scans = _without_duplicates(self.result.scans)
        return self.result

    def _foreign_keys(self) -> None:
        """Parents that new rows may name, and children that actions on their parents may reach."""
        result = self.result
        whole: dict[int, Table] = {t.relation_id: t for t in result.whole}
        reached = list(result.written) if result.deletes_or_updates else []
        seen: set[int] = set()
        while reached:
            parent = reached.pop()
            for child, _ in self._state.referencing.get(parent.relation_id, ()):
                if child.relation_id not in seen:
                    seen.add(child.relation_id)
                    whole[child.relation_id] = child
                    result.side_effects.append(child)
                    reached.append(child)
        for table in (*result.written, *result.side_effects):
            for key in table.foreign_keys:
                parent = self._state.tables[key.referenced_id]
                result.key_shared.append(parent)
                whole[parent.relation_id] = parent
        result.whole = list(whole.values())

    def _ordered(self, pending: list[tuple[str, Table, list[Conjunct]]]) -> list[tuple[str, Table, list[Conjunct]]]:
        """Scans with conditions of their own first, then those that only joins restrict; never twice an alias."""
        aliases = [alias for alias, _, _ in pending]
        if len(set(aliases)) != len(aliases):
            # Aliases are unique in EXPLAIN; should they not be, no scan may lean on another.
            pending = [(a, t, [c for c in found if not isinstance(c.operand, OtherColumn)]) for a, t, found in pending]

        def joined_only(entry: tuple[str, Table, list[Conjunct]]) -> bool:
            return not any(c.operand is not None and not isinstance(c.operand, OtherColumn) for c in entry[2])

        return sorted(pending, key=joined_only)

    def _conjuncts(self, node: dict[str, Any]) -> list[Conjunct]:
        found: list[Conjunct] = list(self._extra.get(node["Alias"], ()))
        for name in _CONDITIONS[:3]:
            if name in node:
                found += conjuncts(node[name], node["Alias"], self._not_parameters)
        return found

    def _attach_join_filters(self, node: dict[str, Any]) -> None:
        children = node.get("Plans", ())
        if (
            node["Node Type"] == "Nested Loop"
            and node.get("Join Type") in _INNER_SIDE_FILTERED
            and "Join Filter" in node
        ):
            for child in children:
                if child.get("Parent Relationship") == "Inner" and "Relation Name" in child:
                    alias = child["Alias"]
                    found = conjuncts(node["Join Filter"], alias, self._not_parameters)
                    self._extra.setdefault(alias, []).extend(found)
        for child in children:
            self._attach_join_filters(child)

    def _modify(self, node: dict[str, Any]) -> None:
        table = self._state.by_name.get((node["Schema"], node["Relation Name"]))
        if table is None:
            return
        result = self.result
        result.written.append(table)
        if node["Operation"] in ("Update", "Delete"):
            result.deletes_or_updates = True
            return
        result.inserts = True
        if "Conflict Resolution" in node:
            result.has_conflict_clause = True
        source = node["Plans"][-1]
        single = source["Node Type"] == "Result" and "Plans" not in source and "One-Time Filter" not in source
        self._insert(table, source if single else None, "Conflict Resolution" in node)
        result.single_insert_only = single and self._plan is node

    def _insert(self, table: Table, source: dict[str, Any] | None, on_conflict: bool) -> None:
        unique = [i for i in (table.primary_key, *table.indexes) if i is not None and i.unique]
        keys: list[tuple[Index, list[Getter]]] = []
        complete = True
        for index in unique:
            getters = self._key_getters(table, index, source["Output"]) if source is not None else None
            if getters is not None:
                keys.append((index, getters))
            elif not _random_key(table, index, source) or on_conflict:
                complete = False
        if on_conflict and not complete:
            self.result.conflict_unknown = True
            self.result.whole.append(table)
        self.result.insert = InsertKeys(table, keys, complete, deferred_only=complete)

    def _key_getters(self, table: Table, index: Index, outputs: list[str]) -> list[Getter] | None:
        if not index.plain or len(outputs) < table.arity:
            return None
        getters = []
        for number, oid in zip(index.columns, index.key_type_oids, strict=True):
            operand = operand_of(outputs[number - 1], self._not_parameters)
            scalar = scalar_getter(operand, self._oids) if operand is not None else None
            if scalar is None or not comparable(oid, scalar[0]):
                return None
            getters.append(scalar[1])
        return getters


def _random_key(table: Table, index: Index, source: dict[str, Any] | None) -> bool:
    """Whether the key is a fresh random UUID: checked at COMMIT, for it can't be in the snapshot but by a miracle."""
    if source is None or not index.plain:
        return False
    outputs = source["Output"]
    return len(outputs) >= table.arity and any(outputs[n - 1] == "gen_random_uuid()" for n in index.columns)


def _without_duplicates(scans: list[Scan]) -> list[Scan]:
    """Full scans of one table are one scan; nothing else of that table need be looked up then."""
    full = {s.table.relation_id for s in scans if type(s.access) is Access and not s.access.restricted}
    kept: list[Scan] = []
    seen: set[int] = set()
    for scan in scans:
        table_id = scan.table.relation_id
        if table_id in full:
            if table_id in seen or type(scan.access) is not Access or scan.access.restricted:
                continue
            seen.add(table_id)
        kept.append(scan)
    return kept
