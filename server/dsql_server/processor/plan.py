"""Load plans: which stored rows a statement may need, and what it may write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from dsql_server.catalog.state import CatalogState, Table
from dsql_server.interfaces.commit_path import StorageReader
from dsql_server.interfaces.messages import LockMode, Timestamp
from dsql_server.processor.access import NOT_EXACT, Access, Bound, Row
from dsql_server.processor.conditions import Conjunct
from dsql_server.processor.foreign_keys import ForeignKeyLoads
from dsql_server.processor.inserts import InsertKeys
from dsql_server.processor.key_lookup import whole_table
from dsql_server.processor.sequence_uses import SequenceUses, uses_of_copy
from dsql_server.processor.unique_indexes import Neighbours

if TYPE_CHECKING:
    from dsql_server.processor.direct_insert import DirectInsert
    from dsql_server.processor.direct_read import DirectRead
    from dsql_server.processor.pushed_aggregates import Pushed


@dataclass
class Scan:
    """One base scan of the plan."""

    alias: str
    table: Table
    access: Access
    #: the conditions that the access was chosen by
    conjuncts: Sequence[Conjunct] = ()
    #: scans of the same table that this one's rows serve, too
    also: tuple[str, ...] = ()


def conflict_alias(table: Table) -> str:
    """Under this name ``Bound.found`` has the rows that ON CONFLICT may meet. No alias of a query can be it."""
    return f"\0conflict {table.relation_id}"


@dataclass
class LoadPlan:
    """What to load before a statement runs, and what it may write. Built for one catalog version."""

    version: int
    parameter_oids: tuple[int, ...] = ()
    scans: list[Scan] = field(default_factory=list)
    whole: list[Table] = field(default_factory=list)  #: tables to load completely
    written: list[Table] = field(default_factory=list)
    #: relation ids of the written tables that loaded rows may vanish from: deletes, changes of the primary key
    losing: set[int] = field(default_factory=set)
    #: tables whose new rows' unique keys must be asked for after the statement
    verified: list[Table] = field(default_factory=list)
    #: keys that an INSERT on its own will write
    insert: InsertKeys | None = None
    #: nothing but that INSERT writes
    single_insert_only: bool = False
    has_conflict_clause: bool = False
    #: rows that a partial unique index compares with the written ones
    neighbours: list[Neighbours] = field(default_factory=list)
    foreign_keys: ForeignKeyLoads | None = None
    #: tables that foreign key actions of the statement may change
    side_effects: list[Table] = field(default_factory=list)
    #: tables whose rows foreign key checks lock FOR KEY SHARE
    key_shared: list[Table] = field(default_factory=list)
    #: these rows may be locked FOR UPDATE as well, by a function that the statement calls
    locks_unseen: bool = False
    #: tables whose rows the statement may lock by a clause of its own or of a view's, and how strongly
    locked: list[tuple[Table, LockMode]] = field(default_factory=list)
    #: the query's aggregates, where storage can compute them
    aggregates: Pushed | None = None
    #: None for nearly all statements: they neither take values from sequences nor set or read any
    sequences: SequenceUses | None = None
    #: some check may wait until COMMIT
    may_defer_checks: bool = False
    #: the statement is a read that needs no engine once it has run
    direct: DirectRead | None = None
    #: the statement is an INSERT that needs no engine once it has run
    direct_insert: DirectInsert | None = None
    #: values of the parameters that stand for the text's literals; such a text has no other parameters
    literals: Sequence[bytes | None] = ()

    def with_literals(self, literals: Sequence[bytes | None]) -> LoadPlan:
        """The same plan for a text with these literals, in text format."""
        plan = object.__new__(LoadPlan)
        plan.__dict__ = {**self.__dict__, "literals": literals}
        return plan

    def bind_literals(self, bound: Bound) -> None:
        """Give an execution of the literal text the values that the plan's parameters stand for."""
        if self.literals and bound.values is not self.literals:
            # Values that the client bound belong to parameters that it declared and never named.
            bound.values, bound.formats = self.literals, (0,) * len(self.literals)

    @property
    def verify_keys(self) -> bool:
        """Whether written rows must be asked for their unique keys after the statement."""
        return bool(self.verified)

    @cached_property
    def plain_read(self) -> bool:
        """Nothing but scans of tables that each occur once, so that no row can be loaded twice."""
        tables = [s.table.relation_id for s in self.scans]
        return (
            self.sequences is None
            and not self.whole
            and not self.written
            and not self.locked
            and (len(set(tables)) == len(tables))
        )

    @cached_property
    def loads(self) -> bool:
        """Whether any row may have to be loaded."""
        preloads = self.insert is not None and self.insert.preloaded
        return bool(self.scans or self.whole or preloads or self.neighbours or self.foreign_keys)

    @cached_property
    def _remembers(self) -> bool:
        return len(self.scans) > 1 or bool(self.foreign_keys) or bool(self.neighbours)

    def rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[tuple[Table, list[Row]]]:
        """The stored rows by table, as of ``t``; a row may be named more than once."""
        found = [(table, whole_table(table, storage, t)) for table in self.whole]
        remembers = self._remembers
        for scan in self.scans:
            rows = scan.access.rows(bound, storage, t)
            if remembers:
                bound.found[scan.alias] = rows
                for alias in scan.also:
                    bound.found[alias] = rows
            found.append((scan.table, rows))
        insert = self.insert
        if insert is not None and insert.preloaded:
            try:
                rows = insert.holders(bound, storage, t)
            except NOT_EXACT:
                rows = whole_table(insert.table, storage, t)
            bound.found[conflict_alias(insert.table)] = rows
            found.append((insert.table, rows))
        for neighbours in self.neighbours:
            found.append((neighbours.table, neighbours.rows(bound, storage, t)))
        if self.foreign_keys is not None:
            found += self.foreign_keys.rows(bound, storage, t)
        return found


def write_anything(plan: LoadPlan, state: CatalogState, locks: bool = False) -> None:
    """Make it the plan of a statement of which isn't known which rows it reads and writes: any may be.

    ``locks``: nor which ones it locks FOR UPDATE.
    """
    tables = [table for table in state.tables.values() if not table.is_system]
    plan.whole, plan.written, plan.side_effects = list(state.tables.values()), tables, tables
    plan.losing = {table.relation_id for table in tables}
    plan.key_shared, plan.locks_unseen = tables, locks
    plan.may_defer_checks = any(key.deferrable for table in tables for key in table.foreign_keys)
    plan.insert, plan.single_insert_only, plan.neighbours, plan.foreign_keys = None, False, [], None
    plan.aggregates = None  # the query around them would run as a read


def copy_plan(state: CatalogState, readable: Sequence[Table], written: Sequence[Table]) -> LoadPlan:
    """The plan of COPY: from tables, or into one. What is copied in isn't known before, so checks get whole tables."""
    plan = LoadPlan(state.version, whole=[t for t in readable if t not in written], written=list(written))
    plan.sequences = uses_of_copy(state, written)
    for table in written:
        plan.verified.append(table)
        if any(index.unique and not index.plain for index in table.indexes):
            plan.whole.append(table)
        for key in table.foreign_keys:
            parent = state.tables[key.referenced_id]
            plan.whole.append(parent)
            plan.key_shared.append(parent)
            plan.may_defer_checks = plan.may_defer_checks or key.deferrable
    return plan
