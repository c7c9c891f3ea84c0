"""What a statement's ModifyTable nodes and its text say about its writes, for the load plan.

Two questions decide what a write costs. Can rows that it doesn't see collide with what it writes? Then they are loaded
before it, or looked up after it. Can loaded rows vanish? Then COMMIT must look for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pglast import ast

from dsql_server.catalog.state import CatalogState, ForeignKey, Index, Table
from dsql_server.encoding import type_oids as oids
from dsql_server.processor.access import comparable
from dsql_server.processor.errors import system_entity
from dsql_server.processor.foreign_keys import ForeignKeyLoads, KeyReader, bound_keys, scanned_keys
from dsql_server.processor.inserts import InsertedRows
from dsql_server.processor.key_lookup import KeyLookup
from dsql_server.processor.operands import Getter, scalar_getter
from dsql_server.processor.parse_tree import Node, is_a
from dsql_server.processor.plan import LoadPlan, conflict_alias
from dsql_server.processor.targets import Certain, Targets, is_unmodified, written_value
from dsql_server.processor.unique_indexes import Neighbours, partial_lookup

#: Columns that a statement sets, with the values that its text gives them.
Assignments = dict[str, Node]


class WriteReader:
    """Completes ``plan`` with what the statement writes. ``sources`` are the scanned tables by alias, as far
    as a name that the plan prints for one of their columns means nothing else.
    """

    def __init__(
        self,
        plan: LoadPlan,
        state: CatalogState,
        targets: Targets,
        views: frozenset[str],
        parameter_oids: tuple[int, ...],
        not_parameters: frozenset[int],
        sources: dict[str, Table],
    ) -> None:
        self._plan = plan
        self._state = state
        self._targets = targets
        self._views = views
        self._oids = parameter_oids
        self._not_parameters = not_parameters
        self._sources = sources
        self._foreign = ForeignKeyLoads(state)
        self._verified: dict[int, Table] = {}
        self._whole: dict[int, Table] = {t.relation_id: t for t in plan.whole}
        #: tables that several nodes write: the text may name them by different names
        self._repeated: set[int] = set()

    def read(self, nodes: Sequence[dict[str, Any]], root: dict[str, Any]) -> None:
        """All nodes of a plan and its root. Raises SqlError if one of them writes a table of the machinery."""
        writing = [node for node in nodes if node["Node Type"] == "ModifyTable"]
        for node in writing:
            table = self._state.by_name.get((node["Schema"], node["Relation Name"]))
            if table is None:
                continue
            if table.is_system:
                raise system_entity()
            if table in self._plan.written:
                self._repeated.add(table.relation_id)
            else:
                self._plan.written.append(table)
        for node in writing:
            self._node(node, alone=node is root)
        self._finish()

    def _node(self, node: dict[str, Any], alone: bool) -> None:
        table = self._state.by_name.get((node["Schema"], node["Relation Name"]))
        if table is None:
            return
        if node["Operation"] == "Insert":
            self._insert(table, node, alone)
        elif node["Operation"] == "Update":
            self._update(table, self._assignments(table, self._targets.updated), node["Alias"])
        else:
            self._plan.losing.add(table.relation_id)
            self._foreign.note_changed(table, node["Alias"], None)

    def _finish(self) -> None:
        """Put together what all nodes asked for."""
        plan = self._plan
        for table, change in self._foreign.acted_on.values():
            plan.side_effects.append(table)
            if change is not None:
                self._note_keys(table, change, None, ())
        plan.key_shared = list(self._foreign.key_shared.values())
        plan.foreign_keys = self._foreign if self._foreign else None
        plan.whole = list(self._whole.values())
        plan.neighbours = [n for n in plan.neighbours if n.table.relation_id not in self._whole]
        plan.may_defer_checks = any(
            key.deferrable
            for table in (*plan.written, *plan.side_effects)
            for key in (*table.foreign_keys, *(k for _, k in self._state.referencing.get(table.relation_id, ())))
        )
        if plan.insert is not None and plan.insert.table.relation_id in self._whole:
            plan.insert = None  # all rows are in the engine, which then checks every key itself
        plan.verified = [t for t in self._verified.values() if t.relation_id not in self._whole]
        plan.single_insert_only = plan.insert is not None and plan.insert.complete and not plan.verified

    # -- UPDATE ----------------------------------------------------------------------------------------------

    def _assignments(self, table: Table, by_name: dict[str, Assignments]) -> Assignments | None:
        """The columns that the statement sets in the table; None: any, for the text names a view or is unclear."""
        name = table.name
        if name in self._views or name in self._targets.repeated or table.relation_id in self._repeated:
            return None
        return by_name.get(name)

    def _changed(self, table: Table, assignments: Assignments | None) -> frozenset[int]:
        """Attribute numbers that an UPDATE may change; generated columns follow the others."""
        if assignments is None or not assignments.keys() <= table.by_name.keys():
            return frozenset(c.number for c in table.columns)
        return frozenset(c.number for c in table.columns if not c.dropped and (c.generated or c.name in assignments))

    def _update(self, table: Table, assignments: Assignments | None, alias: str) -> None:
        changed = self._changed(table, assignments)
        if table.primary_key is None or not changed.isdisjoint(table.primary_key.columns):
            self._plan.losing.add(table.relation_id)
        self._note_keys(table, changed, assignments, (alias,))
        self._foreign.note_changed(table, alias, changed)
        for key in table.foreign_keys:
            if not changed.isdisjoint(key.columns):
                self._foreign.note_new_values(table, key, self._assigned_reader(table, key, assignments))

    def _note_keys(
        self, table: Table, changed: frozenset[int], assignments: Assignments | None, aliases: tuple[str, ...]
    ) -> None:
        """Rows that an update of these columns may collide with: loaded, or looked up after the statement."""
        for index in (table.primary_key, *table.indexes):
            if index is None or not index.unique or changed.isdisjoint(table.deciding_columns(index)):
                continue
            if index.plain:
                getters = None if index.nulls_not_distinct else self._assigned_values(table, index.columns, assignments)
                if getters is None:
                    self._verified[table.relation_id] = table
                else:
                    self._plan.neighbours.append(Neighbours(table, KeyLookup(table, index.columns), getters))
            elif not self._note_partial(table, index, changed, assignments, aliases):
                self._whole[table.relation_id] = table

    def _note_partial(
        self,
        table: Table,
        index: Index,
        changed: frozenset[int],
        assignments: Assignments | None,
        aliases: tuple[str, ...],
    ) -> bool:
        """Whether the rows that a partial index compares with the updated ones can be named."""
        lookup = partial_lookup(table, index)
        if lookup is None or not aliases:
            return False
        if changed.isdisjoint(index.columns):
            if any(alias not in self._sources and alias != conflict_alias(table) for alias in aliases):
                return False
            self._plan.neighbours.append(Neighbours(table, lookup, aliases=aliases))
            return True
        getters = self._assigned_values(table, index.columns, assignments)
        if getters is None:
            return False
        self._plan.neighbours.append(Neighbours(table, lookup, getters))
        return True

    def _assigned_values(
        self, table: Table, numbers: Sequence[int], assignments: Assignments | None
    ) -> list[list[Getter]] | None:
        """Readers of the values that all of these columns are set to: none where one is NULL; None: not known."""
        row: list[Getter] = []
        for number in numbers:
            column = table.columns[number - 1]
            if assignments is None or column.name not in assignments or column.generated:
                return None
            written = written_value(assignments[column.name], column, self._oids)
            if isinstance(written, Certain):
                return []
            scalar = scalar_getter(written, self._oids) if written is not None else None
            if scalar is None or not comparable(column.type_oid, scalar[0]):
                return None
            row.append(scalar[1])
        return [row]

    def _assigned_reader(self, table: Table, key: ForeignKey, assignments: Assignments | None) -> KeyReader | None:
        getters = self._assigned_values(table, key.columns, assignments)
        return None if getters is None else bound_keys(getters)

    # -- INSERT ----------------------------------------------------------------------------------------------

    def _insert(self, table: Table, node: dict[str, Any], alone: bool) -> None:
        targets = Targets() if table.relation_id in self._repeated else self._targets
        rows = InsertedRows(table, node, targets, self._oids, self._not_parameters)
        keys = rows.keys()
        on_conflict = "Conflict Resolution" in node
        self._plan.has_conflict_clause = self._plan.has_conflict_clause or on_conflict
        for index in table.indexes:
            if index.unique and not index.plain and not self._insert_neighbours(table, index, rows):
                self._whole[table.relation_id] = table
        if on_conflict and keys.drawn:
            keys.complete = False  # what it may meet must be known before
        if on_conflict and not (alone and keys.complete):
            self._whole[table.relation_id] = table
        elif not (alone and keys.complete):
            self._verified[table.relation_id] = table
        if alone:
            several = sum(i is not None and i.unique for i in (table.primary_key, *table.indexes)) > 1
            # With all of them there PostgreSQL itself finds the first error of several, in its own order.
            keys.preloaded = on_conflict or several or bool(table.foreign_keys) or _has_odd_equals(table)
            self._plan.insert = keys
        for key in table.foreign_keys:
            self._foreign.note_new_values(table, key, self._inserted_reader(rows, key))
        if node.get("Conflict Resolution") == "UPDATE":
            self._update_on_conflict(table)

    def _insert_neighbours(self, table: Table, index: Index, rows: InsertedRows) -> bool:
        lookup = partial_lookup(table, index)
        getters = rows.columns(index.columns) if lookup is not None else None
        if lookup is None or getters is None:
            return False
        self._plan.neighbours.append(Neighbours(table, lookup, getters))
        return True

    def _inserted_reader(self, rows: InsertedRows, key: ForeignKey) -> KeyReader | None:
        getters = rows.columns(key.columns)
        if getters is not None:
            return bound_keys(getters)
        named = rows.source_columns(key.columns)
        source = self._sources.get(named[0]) if named is not None else None
        if named is None or source is None or self._targets.is_renamed(named[0]):
            return None
        columns = [source.by_name.get(name) for name in named[1]]
        numbers = []
        for column, number in zip(columns, key.columns, strict=True):
            own = rows.table.columns[number - 1]
            if column is None or not comparable(own.type_oid, column.type_oid) or not is_unmodified(own):
                return None
            numbers.append(column.number)
        return scanned_keys(source, named[0], numbers)

    def _update_on_conflict(self, table: Table) -> None:
        """ON CONFLICT DO UPDATE: the rows met are those that hold a key, loaded before."""
        assignments = self._assignments(table, self._targets.upserted)
        changed = self._changed(table, assignments)
        alias = conflict_alias(table)
        if table.primary_key is None or not changed.isdisjoint(table.primary_key.columns):
            self._plan.losing.add(table.relation_id)
        self._note_keys(table, changed, assignments, (alias,))
        self._foreign.note_changed(table, alias, changed)
        for key in table.foreign_keys:
            names = {table.columns[n - 1].name for n in key.columns}
            if changed.isdisjoint(key.columns) or (assignments is not None and _takes_excluded(assignments, names)):
                continue
            self._foreign.note_new_values(table, key, self._assigned_reader(table, key, assignments))


def _has_odd_equals(table: Table) -> bool:
    """Whether equal keys may look different (0 and -0), so that PostgreSQL must see both to name the right one."""
    key = table.primary_key
    return key is not None and not {oids.FLOAT4, oids.FLOAT8}.isdisjoint(key.key_type_oids)


def _takes_excluded(assignments: Assignments, names: set[str]) -> bool:
    """Whether all of these columns get what the INSERT would have put there."""
    return all(_is_excluded(assignments.get(name), name) for name in names)


def _is_excluded(node: Node, name: str) -> bool:
    if not is_a(node, ast.ColumnRef) or len(node.fields) != 2:
        return False
    return [getattr(f, "sval", None) for f in node.fields] == ["excluded", name]
