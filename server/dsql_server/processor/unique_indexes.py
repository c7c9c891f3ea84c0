"""Unique indexes whose entries can't be told from a row alone: what must be loaded for PostgreSQL to check them.

For an index with a predicate but plain columns, the rows with the same columns are enough, whatever the predicate says
of them. For one with expressions it takes the whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsql_server.catalog.state import Index, Table
from dsql_server.interfaces.commit_path import StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import NOT_EXACT, Bound, Row
from dsql_server.processor.key_lookup import KeyLookup, KeyValues, values_reader, whole_table
from dsql_server.processor.operands import Getter


@dataclass
class Neighbours:
    """Rows that agree with written rows in the columns of a partial unique index.

    The written rows' columns are read from ``getters`` (one list a row), or are those of the rows that the scans
    ``aliases`` found.
    """

    table: Table
    lookup: KeyLookup
    getters: Sequence[Sequence[Getter]] = ()
    aliases: tuple[str, ...] = ()

    def rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        """Stored rows as of ``t``."""
        try:
            return self.lookup.by_values(self._values(bound), storage, t)
        except NOT_EXACT:
            return whole_table(self.table, storage, t)

    def _values(self, bound: Bound) -> list[KeyValues]:
        found: list[KeyValues] = []
        for row in self.getters:
            values = [getter(bound) for getter in row]
            if None not in values:
                found.append(tuple(v for v in values if v is not None))
        for alias in self.aliases:
            if self.table.relation_id in bound.dirty or alias not in bound.found:
                raise ValueError("the written rows aren't all known to storage")
            read = values_reader(self.table, self.lookup.columns)
            assert read is not None, "is_partial_plain saw to the types"
            found += [key for _, value in bound.found[alias] if (key := read(value)) is not None]
        return found


def is_partial_plain(index: Index) -> bool:
    """Whether a unique index has a predicate, but columns only, and no two NULLs count as equal."""
    return index.predicate is not None and 0 not in index.columns and not index.nulls_not_distinct


def partial_lookup(table: Table, index: Index) -> KeyLookup | None:
    """The look-up of rows by the columns of a partial index; None: the whole table must be loaded."""
    if not is_partial_plain(index):
        return None
    lookup = KeyLookup(table, index.columns)
    return lookup if lookup.is_possible else None
