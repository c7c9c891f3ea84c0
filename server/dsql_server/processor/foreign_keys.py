"""The rows that foreign keys make a write look at: parents of new values, children of changed parents.

PostgreSQL's own triggers do the checks and the cascading; they must find in the engine whatever they would find in a
database that held all rows. What must be there follows from the rows that the statement may change:

- A row that is deleted, or whose referenced columns change, needs the rows that name it, and what their action does
  to those may go on from there.
- A row that the transaction has changed before, or that an action changes, needs the parents it names: PostgreSQL
  checks the transaction's own rows again at every update, even where the key columns stay.

Rows that the transaction wrote itself brought their parents along when they were written, and no stored row can name a
key that isn't stored; so stored rows decide, those found by the statement's scan and, where the transaction changed the
table before, all those loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dsql_server.catalog.state import CatalogState, ForeignKey, Table
from dsql_server.interfaces.commit_path import StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import NOT_EXACT, Bound, Row, comparable
from dsql_server.processor.key_lookup import KeyLookup, KeyValues, values_reader, whole_table
from dsql_server.processor.operands import Getter

_CASCADE, _SET_DEFAULT = "c", "d"
_KEEPS_CHILDREN = frozenset({"a", "r"})  #: NO ACTION and RESTRICT
#: How an action or a statement treats a row: None deletes it, a set of attribute numbers updates these.
Change = frozenset[int] | None

#: Values of a foreign key's columns that a statement writes, read when it is bound.
KeyReader = Callable[[Bound], Iterable[KeyValues]]


@dataclass
class _Changed:
    """Rows of ``table`` that the statement's own scan ``alias`` finds."""

    table: Table
    alias: str
    change: Change


class ForeignKeyLoads:
    """What one statement's foreign keys need. Built with the load plan, run at each execution."""

    def __init__(self, state: CatalogState) -> None:
        self._state = state
        self._changed: list[_Changed] = []
        self._named: list[tuple[_Reference, KeyReader | None]] = []
        self._references: dict[tuple[int, str], _Reference] = {}
        #: tables that actions may change, and how: relation id → the table and the union of the changed columns
        self.acted_on: dict[int, tuple[Table, Change]] = {}
        #: tables whose rows are locked FOR KEY SHARE by the checks of new values
        self.key_shared: dict[int, Table] = {}

    def __bool__(self) -> bool:
        return bool(self._changed or self._named)

    # -- at planning -----------------------------------------------------------------------------------------

    def reference(self, child: Table, key: ForeignKey) -> _Reference:
        """The look-ups of one foreign key, compiled once."""
        found = self._references.get((child.relation_id, key.name))
        if found is None:
            found = _Reference(child, key, self._state.tables[key.referenced_id])
            self._references[child.relation_id, key.name] = found
        return found

    def note_new_values(self, child: Table, key: ForeignKey, reader: KeyReader | None) -> None:
        """The statement gives the key's columns values: those that ``reader`` reads, or any (None)."""
        reference = self.reference(child, key)
        self.key_shared[reference.parent.relation_id] = reference.parent
        self._named.append((reference, reader))

    def note_changed(self, table: Table, alias: str, change: Change) -> None:
        """The statement deletes (None) or updates rows that its scan ``alias`` finds."""
        if not table.foreign_keys and table.relation_id not in self._state.referencing:
            return
        needs_children = self._follow(table, change, set())
        if needs_children or (change is not None and table.foreign_keys):
            self._changed.append(_Changed(table, alias, change))

    def _follow(self, table: Table, change: Change, seen: set[tuple[int, Change]]) -> bool:
        """Note what actions may change. Returns whether any foreign key refers to what changes."""
        if (table.relation_id, change) in seen:
            return True
        seen.add((table.relation_id, change))
        concerned = False
        for child, key in self._state.referencing.get(table.relation_id, ()):
            if not _concerns(key, change):
                continue
            concerned = True
            then = _action(key, change)
            if not isinstance(then, _Stays):
                self._note_action(child, then)
                if _letter(key, change) == _SET_DEFAULT:
                    self.key_shared[table.relation_id] = table
                self._follow(child, then, seen)
        return concerned

    def _note_action(self, child: Table, change: Change) -> None:
        known = self.acted_on.get(child.relation_id)
        if known is not None and known[1] is not None and change is not None:
            change = known[1] | change
        elif known is not None and known[1] is None and change is not None:
            change = frozenset(range(1, child.arity + 1))
        self.acted_on[child.relation_id] = (child, change)

    # -- at execution ----------------------------------------------------------------------------------------

    def rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[tuple[Table, list[Row]]]:
        """Stored rows by table, as of ``t``; ``bound.found`` has what the statement's scans found."""
        run = _Run(self, self._state, bound, storage, t)
        for reference, reader in self._named:
            run.load_named(reference, reader)
        for changed in self._changed:
            found = bound.found.get(changed.alias)
            rows = whole_table(changed.table, storage, t) if found is None else found
            run.pending.append((changed.table, rows, changed.change, changed.table.relation_id in bound.dirty))
        while run.pending:
            run.change(*run.pending.pop())
        return run.groups


class _Stays:
    """The action leaves the referencing row as it is."""


_STAYS = _Stays()


def _concerns(key: ForeignKey, change: Change) -> bool:
    return change is None or not change.isdisjoint(key.referenced_columns)


def _letter(key: ForeignKey, change: Change) -> str:
    return key.on_delete if change is None else key.on_update


def _action(key: ForeignKey, change: Change) -> Change | _Stays:
    """What the key's action does to a row that names a changed one."""
    letter = _letter(key, change)
    if letter in _KEEPS_CHILDREN:
        return _STAYS
    return None if letter == _CASCADE and change is None else frozenset(key.columns)


class _Reference:
    """One foreign key with its look-ups in both directions."""

    def __init__(self, child: Table, key: ForeignKey, parent: Table) -> None:
        self.child, self.key, self.parent = child, key, parent
        self.parents = KeyLookup(parent, key.referenced_columns)
        self.children = KeyLookup(child, key.columns)
        self.key_of_child = values_reader(child, key.columns)
        self.key_of_parent = values_reader(parent, key.referenced_columns)
        types = zip(self.children.type_oids, self.parents.type_oids, strict=True)
        #: False: look-ups by value aren't exact, so the other side is loaded whole
        self.is_exact = self.key_of_child is not None and all(comparable(a, b) for a, b in types)


class _Run:
    """One execution: follows references from row to row until nothing new is found."""

    def __init__(
        self, loads: ForeignKeyLoads, state: CatalogState, bound: Bound, storage: StorageReader, t: Timestamp
    ) -> None:
        self._loads, self._state = loads, state
        self._bound, self._storage, self._t = bound, storage, t
        self._whole: dict[int, list[Row]] = {}
        #: keys followed, by reference and by the way it was gone
        self._seen: dict[tuple[int, str, object], set[KeyValues]] = {}
        self.groups: list[tuple[Table, list[Row]]] = []
        self.pending: list[tuple[Table, Sequence[Row], Change, bool]] = []

    def load_named(self, reference: _Reference, reader: KeyReader | None) -> None:
        """Load the parents that new values name."""
        if reader is not None and reference.is_exact:
            try:
                self._load_parents(reference, reader(self._bound))
                return
            except NOT_EXACT:
                pass
        self._load_whole(reference.parent)

    def change(self, table: Table, rows: Sequence[Row], change: Change, again: bool) -> None:
        """Load what a change of these rows of ``table`` makes PostgreSQL look at.

        ``again``: the transaction may have changed some of them before.
        """
        rows = self._with_loaded(table, rows)
        if change is not None and again:
            for key in table.foreign_keys:
                reference = self._loads.reference(table, key)
                if reference.is_exact and reference.key_of_child is not None:
                    self._load_parents(reference, _keys(reference.key_of_child, rows))
                else:
                    self._load_whole(reference.parent)
        for child, key in self._state.referencing.get(table.relation_id, ()):
            if _concerns(key, change):
                self._follow(self._loads.reference(child, key), rows, change)

    def _follow(self, reference: _Reference, rows: Sequence[Row], change: Change) -> None:
        """Load the rows that name ``rows``, and go on with what the key's action does to them."""
        key, child = reference.key, reference.child
        if reference.is_exact and key.validated and reference.key_of_parent is not None:
            wanted = self._unseen(reference, change, _keys(reference.key_of_parent, rows))
            if not wanted:
                return
            children = reference.children.by_values(wanted, self._storage, self._t)
            self.groups.append((child, children))
        else:
            if not self._unseen(reference, change, [()]):
                return
            children = self._load_whole(child)
        then = _action(key, change)
        if isinstance(then, _Stays):
            return
        if _letter(key, change) == _SET_DEFAULT:
            self._load_whole(reference.parent)
        self.pending.append((child, children, then, True))

    def _load_parents(self, reference: _Reference, keys: Iterable[KeyValues]) -> None:
        wanted = self._unseen(reference, _STAYS, keys)
        if wanted:
            self.groups.append((reference.parent, reference.parents.by_values(wanted, self._storage, self._t)))

    def _load_whole(self, table: Table) -> list[Row]:
        rows = self._whole.get(table.relation_id)
        if rows is None:
            rows = self._whole[table.relation_id] = whole_table(table, self._storage, self._t)
            self.groups.append((table, rows))
        return rows

    def _with_loaded(self, table: Table, rows: Sequence[Row]) -> Sequence[Row]:
        """With the rows that the transaction may have changed since: their stored version needn't match any more."""
        loaded = self._bound.loaded.get(table.relation_id)
        if not loaded or table.relation_id not in self._bound.dirty:
            return rows
        return [*rows, *loaded.items()]

    def _unseen(self, reference: _Reference, way: object, keys: Iterable[KeyValues]) -> set[KeyValues]:
        seen = self._seen.setdefault((reference.child.relation_id, reference.key.name, way), set())
        fresh = set(keys) - seen
        seen |= fresh
        return fresh


def _keys(reader: Callable[[bytes], KeyValues | None], rows: Iterable[Row]) -> list[KeyValues]:
    found = (reader(value) for _, value in rows)
    return [key for key in found if key is not None]


def bound_keys(getters: Sequence[Sequence[Getter]]) -> KeyReader:
    """A reader of one key for each row of getters; a row with a NULL has none."""

    def read(bound: Bound) -> Iterable[KeyValues]:
        for row in getters:
            values = [getter(bound) for getter in row]
            if None not in values:
                yield tuple(v for v in values if v is not None)

    return read


def scanned_keys(source: Table, alias: str, columns: Sequence[int]) -> KeyReader | None:
    """A reader of the keys in the rows that a scan of the same statement found; None if it can't be known."""
    read_row = values_reader(source, columns)
    if read_row is None:
        return None

    def read(bound: Bound) -> Iterable[KeyValues]:
        if source.relation_id in bound.dirty or alias not in bound.found:
            raise ValueError("the rows aren't all known to storage")
        return _keys(read_row, bound.found[alias])

    return read
