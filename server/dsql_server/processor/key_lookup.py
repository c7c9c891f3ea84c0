"""Stored rows by the values of some of their columns: through a key or an index where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dsql_server.catalog.state import Index, Table
from dsql_server.encoding.keys import KEY_TYPE_OIDS, NOT_NULL, prefix, prefix_end, value_encoder
from dsql_server.encoding.rows import fields
from dsql_server.interfaces.commit_path import Comparison, ScanRequest, StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import POINTS_MAX, Row, fetch_entries

#: Encoded values of the columns, in the order in which they were named; none of them NULL.
KeyValues = tuple[bytes, ...]


class KeyLookup:
    """Finds the rows of ``table`` whose ``columns`` (attribute numbers) have given values.

    ``by_values`` returns a superset of the wanted rows: all those that have the values, and perhaps others.
    """

    def __init__(self, table: Table, columns: Sequence[int]) -> None:
        assert columns, "a look-up needs columns"
        self.table = table
        self.columns = tuple(columns)
        self.type_oids = tuple(table.columns[n - 1].type_oid for n in self.columns)
        self.is_possible = all(oid in KEY_TYPE_OIDS for oid in self.type_oids)
        self._index = self._covering_index()
        #: positions in ``columns`` in the order in which the index has them
        self._order = [self.columns.index(n) for n in self._index.columns[: len(self.columns)]] if self._index else []

    def _covering_index(self) -> Index | None:
        wanted = set(self.columns)
        for index in (self.table.primary_key, *self.table.indexes):
            usable = index is not None and index.plain and (index.valid or index.primary)
            if usable and index is not None and set(index.columns[: len(wanted)]) == wanted:
                return index
        return None

    def by_values(self, wanted: Iterable[KeyValues], storage: StorageReader, t: Timestamp) -> list[Row]:
        """Rows as of ``t`` with one of the combinations of values."""
        keys = sorted(set(wanted))
        if not keys:
            return []
        if not self.is_possible:
            return whole_table(self.table, storage, t)
        if self._index is None or len(keys) > POINTS_MAX:
            return self._filtered(keys, storage, t)
        start = prefix(self.table.relation_id if self._index.primary else self._index.relation_id)
        points = [start + b"".join([NOT_NULL + key[at] for at in self._order]) for key in keys]
        if self._index.primary and len(self._index.columns) == len(self.columns):
            found = storage.get_many(points, t)
            return [(k, v) for k, v in zip(points, found, strict=True) if v is not None]
        entries: list[Row] = []
        for point in points:
            entries += storage.scan(ScanRequest(point, prefix_end(point), t)).rows
        return entries if self._index.primary else fetch_entries(entries, storage, t)

    def _filtered(self, keys: list[KeyValues], storage: StorageReader, t: Timestamp) -> list[Row]:
        start = prefix(self.table.relation_id)
        predicate = tuple(
            Comparison(number - 1, oid, "in", tuple(sorted({key[at] for key in keys})))
            for at, (number, oid) in enumerate(zip(self.columns, self.type_oids, strict=True))
        )
        return storage.scan(ScanRequest(start, prefix_end(start), t, predicate)).rows


def whole_table(table: Table, storage: StorageReader, t: Timestamp) -> list[Row]:
    """All rows as of ``t``."""
    start = prefix(table.relation_id)
    return storage.scan(ScanRequest(start, prefix_end(start), t)).rows


def values_reader(table: Table, columns: Sequence[int]) -> Callable[[bytes], KeyValues | None] | None:
    """A function from a stored row to the values of ``columns``, None where one is NULL.

    None if a column's type has no encoding.
    """
    type_oids = [table.columns[n - 1].type_oid for n in columns]
    if not all(oid in KEY_TYPE_OIDS for oid in type_oids):
        return None
    encoders = [(n - 1, value_encoder(oid)) for n, oid in zip(columns, type_oids, strict=True)]

    def read(value: bytes) -> KeyValues | None:
        row = fields(value)
        found = []
        for position, encode in encoders:
            field = row[position] if position < len(row) else None
            if field is None:
                return None
            found.append(encode(field))
        return tuple(found)

    return read
