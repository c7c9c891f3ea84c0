"""What a transaction comes to at COMMIT: the rows of its tables as claims and mutations."""

from __future__ import annotations

import os
from collections import Counter
from itertools import islice
from struct import Struct

from dsql_server.catalog.state import Index, Table
from dsql_server.encoding.keys import NOT_NULL, KeyEncoder, prefix, prefix_end
from dsql_server.encoding.rows import fields
from dsql_server.interfaces.commit_path import ScanRequest, StorageReader
from dsql_server.interfaces.limits import Limits
from dsql_server.interfaces.messages import Claim, LockMode, Mutation, Timestamp
from dsql_server.processor.access import Row
from dsql_server.processor.loading import full_row
from dsql_server.processor.row_limits import check_row
from dsql_server.processor.unbuilt_indexes import check_unbuilt

_pack_count = Struct("!h").pack
_OWN_ROW = "pg_catalog.pg_current_xact_id_if_assigned()::xid"
#: Offset of the image in an answer row: field count, then two booleans with their lengths.
_IMAGE_AT = 2 + 5 + 5
_HIDDEN_KEY_BYTES = 16


class DuplicateInSnapshot(Exception):
    """A key that the transaction wrote was taken already when it began. ``rows`` are the rows that hold it."""

    def __init__(self, table: Table, rows: list[Row]) -> None:
        self.table = table
        self.rows = rows


class TableWork:
    """One table's part of the workspace."""

    __slots__ = ("loaded", "locked", "may_lose_rows", "strong_among", "table", "verified", "whole", "written")

    def __init__(self, table: Table) -> None:
        self.table = table
        self.loaded: dict[bytes, bytes] = {}
        self.written = False
        self.locked = False
        self.may_lose_rows = False  #: a DELETE or a key update ran
        self.strong_among = 0  #: so many of the rows loaded first may be locked FOR UPDATE, the others not
        self.verified: set[bytes] = set()  #: new keys known to be free in the snapshot
        self.whole = False

    def note_lock(self, mode: LockMode) -> None:
        """A statement locks rows, all of which are loaded."""
        self.locked = True
        if mode > LockMode.KEY_SHARE:
            self.strong_among = len(self.loaded)

    def weakly_locked(self) -> set[bytes]:
        """Keys of loaded rows that can't be locked but FOR KEY SHARE."""
        return set(islice(self.loaded, self.strong_among, None))


def extraction_sql(table: Table, everything: bool) -> str:
    """The query for a table's own and locked rows; with ``everything`` also the loaded ones that are left."""
    where = "" if everything else f" WHERE xmin = {_OWN_ROW} OR xmax = {_OWN_ROW}"
    separator = ", " if table.image_list else ""
    return (
        f"SELECT coalesce(xmin = {_OWN_ROW}, false), coalesce(xmax = {_OWN_ROW}, false){separator}{table.image_list} "
        f"FROM ONLY {table.mark} {table.qualified_name}{where}"
    )


class TableDelta:
    """Turns one table's rows at COMMIT into claims and mutations."""

    def __init__(
        self, work: TableWork, limits: Limits, t_start: Timestamp, claims: list[Claim], mutations: list[Mutation]
    ) -> None:
        self._limits = limits
        self._t_start = t_start
        self._work = work
        self._table = work.table
        self._claims = claims
        self._mutations = mutations

    def collect(self, rows: list[bytes], storage: StorageReader) -> int:
        """Adds to claims and mutations; returns the number of changed rows."""
        own: list[bytes] = []
        locked: list[bytes] = []
        left: list[bytes] = []
        arity = _pack_count(self._table.arity)
        limits = self._limits
        small = limits.small_row_bytes
        for row in rows:
            image = arity + row[_IMAGE_AT:]
            if row[6]:
                if len(image) > small:
                    check_row(self._table, image, limits)
                own.append(image)
            else:
                left.append(image)
                if row[11]:
                    locked.append(image)
        encoder = self._table.key_encoder
        if encoder is None:
            return self._collect_without_key(own, left, locked, storage)
        return self._collect_keyed(encoder, own, left, locked, storage)

    def _collect_keyed(
        self, encoder: KeyEncoder, own: list[bytes], left: list[bytes], locked: list[bytes], storage: StorageReader
    ) -> int:
        work, claims, mutations = self._work, self._claims, self._mutations
        loaded = work.loaded
        key_of = encoder.from_row
        written = {}
        for image in own:
            key = key_of(image)
            written[key] = image
            before = loaded.get(key)
            if before is None:
                self._check_free(key, storage)
                claims.append(Claim(key, LockMode.UPDATE))
            else:
                same = self._same_keys(before, image)
                claims.append(Claim(key, LockMode.NO_KEY_UPDATE if same else LockMode.UPDATE))
            mutations.append(Mutation(key, image))
            self._index_entries(key, before, image, storage)
        gone = []
        if work.may_lose_rows:
            remaining = {key_of(image) for image in left}
            for key, before in loaded.items():
                if key not in remaining and key not in written:
                    claims.append(Claim(key, LockMode.UPDATE))
                    mutations.append(Mutation(key, None))
                    self._index_entries(key, before, None, storage)
                    gone.append(key)
        weak = work.weakly_locked() if locked else ()
        for image in locked:
            key = key_of(image)
            claims.append(Claim(key, LockMode.KEY_SHARE if key in weak else LockMode.UPDATE))
        if self._table.unbuilt_unique_indexes:
            check_unbuilt(self._table, written, gone, storage, self._t_start)
        return len(own) + len(gone)

    def _collect_without_key(
        self, own: list[bytes], left: list[bytes], locked: list[bytes], storage: StorageReader
    ) -> int:
        """Rows with a hidden key: equal rows are interchangeable, so they are matched by content."""
        loaded = self._work.loaded
        keys: dict[bytes, list[bytes]] = {}
        for key, value in loaded.items():
            keys.setdefault(full_row(self._table, value), []).append(key)
        written, lost = {}, []
        for image in own:
            key = hidden_key(self._table)
            self._claims.append(Claim(key, LockMode.UPDATE))
            self._mutations.append(Mutation(key, image))
            self._plain_entries(key, None, image)
            written[key] = image
        if self._work.may_lose_rows:
            gone = Counter({content: len(found) for content, found in keys.items()})
            gone.subtract(left)
            for content, count in gone.items():
                for key in keys.get(content, [])[: max(count, 0)]:
                    self._claims.append(Claim(key, LockMode.UPDATE))
                    self._mutations.append(Mutation(key, None))
                    self._plain_entries(key, content, None)
                    lost.append(key)
        weak = self._work.weakly_locked() if locked else ()
        for image in locked:
            for key in keys.get(image, []):
                self._claims.append(Claim(key, LockMode.KEY_SHARE if key in weak else LockMode.UPDATE))
        if self._table.unbuilt_unique_indexes:
            check_unbuilt(self._table, written, lost, storage, self._t_start)
        return len(own)

    def _check_free(self, key: bytes, storage: StorageReader) -> None:
        if key not in self._work.verified:
            value = storage.get(key, self._t_start)
            if value is not None:
                raise DuplicateInSnapshot(self._table, [(key, value)])

    def _same_keys(self, before: bytes, after: bytes) -> bool:
        columns = self._table.key_columns
        primary = self._table.primary_key
        assert primary is not None
        beyond = columns.difference(primary.columns)
        if not beyond:
            return True
        old, new = fields(full_row(self._table, before)), fields(after)
        return all(old[n - 1] == new[n - 1] for n in beyond)

    def _index_entries(self, key: bytes, before: bytes | None, after: bytes | None, storage: StorageReader) -> None:
        table = self._table
        if before is not None:
            before = full_row(table, before)
        for index, encoder in table.plain_indexes:
            old = encoder.from_row(before) if before is not None else None
            new = encoder.from_row(after) if after is not None else None
            if old == new:
                continue
            self._move_entry(key, old, new)
            if new is not None and index.unique and (index.nulls_not_distinct or not has_null(index, after)):
                self._claims.append(Claim(new, LockMode.UPDATE))
                if index.valid:
                    self._check_entry_free(new, encoder, storage)
        if after is not None and table.opaque_unique_indexes:
            self._claim_opaque(before, after)

    def _claim_opaque(self, before: bytes | None, after: bytes) -> None:
        """Claim the keys of partial and expression indexes, as far as they can be told without the engine."""
        old, new = fields(before) if before is not None else None, fields(after)
        for index, encoder, columns in self._table.opaque_unique_indexes:
            if old is not None and all(old[n - 1] == new[n - 1] for n in columns):
                continue
            if encoder is None:
                self._claims.append(Claim(prefix(index.relation_id), LockMode.UPDATE))
            elif index.nulls_not_distinct or not has_null(index, after):
                self._claims.append(Claim(encoder.from_row(after), LockMode.UPDATE))

    def _plain_entries(self, key: bytes, before: bytes | None, after: bytes | None) -> None:
        for index, encoder in self._table.plain_indexes:
            old = encoder.from_row(before) if before is not None else None
            new = encoder.from_row(after) if after is not None else None
            self._move_entry(key, old, new)
            if new is not None and index.unique and (index.nulls_not_distinct or not has_null(index, after)):
                self._claims.append(Claim(new, LockMode.UPDATE))
        if after is not None and self._table.opaque_unique_indexes:
            self._claim_opaque(before, after)

    def _move_entry(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        if old is not None:
            self._mutations.append(Mutation(old + key[4:], None))
        if new is not None:
            self._mutations.append(Mutation(new + key[4:], key))

    def _check_entry_free(self, entry: bytes, encoder: KeyEncoder, storage: StorageReader) -> None:
        if entry not in self._work.verified:
            holders = unique_holders(self._table, entry, encoder, storage, self._t_start)
            strangers = [row for row in holders if row[0] not in self._work.loaded]
            if strangers:
                raise DuplicateInSnapshot(self._table, strangers)


def hidden_key(table: Table) -> bytes:
    """A new row's key in a table without a primary key."""
    return prefix(table.relation_id) + NOT_NULL + os.urandom(_HIDDEN_KEY_BYTES)


def has_null(index: Index, image: bytes | None) -> bool:
    """Whether a key column of ``index`` is NULL in the row."""
    row = fields(image) if image is not None else []
    return any(row[n - 1] is None for n in index.columns)


def unique_holders(table: Table, entry: bytes, encoder: KeyEncoder, storage: StorageReader, t: Timestamp) -> list[Row]:
    """Stored rows that hold the unique key ``entry`` as of ``t``. Entries may be stale, so the rows are asked."""
    found = storage.scan(ScanRequest(entry, prefix_end(entry), t)).rows
    holders = []
    for _, row_key in found:
        value = storage.get(row_key, t)
        if value is not None and encoder.from_row(full_row(table, value)) == entry:
            holders.append((row_key, value))
    return holders
