"""A storage node: all versions of the keys it owns, on RocksDB, read as of a timestamp.

A physical key is the key followed by the 8-byte inverted commit timestamp, so the newest version of a key comes
first. Keys are never a prefix of one another (:mod:`dsql_server.encoding.keys`), therefore the versions of one key
are contiguous and keys keep their order whatever the appended bytes are. A stored value is one tag byte (row or
tombstone) and the value.

The journal is the durability. A batch and the journal positions it came from are one atomic write; after a crash the
node holds a prefix of what it applied and says by its positions where to resume. Applying a batch again is harmless.

Not thread-safe: one thread calls.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING

from rocksdict import Rdict

from dsql_server import compiled
from dsql_server.encoding import keys as key_encoding
from dsql_server.encoding.rows import projector
from dsql_server.interfaces.commit_path import (
    Aggregate,
    GroupColumn,
    GroupSteps,
    ScanRequest,
    ScanResult,
    Steps,
    run_to_end,
)
from dsql_server.interfaces.messages import Mutation, Timestamp
from dsql_server.storage import garbage, rocks
from dsql_server.storage.column_cache import BlockCache
from dsql_server.storage.packed_rows import PACK_ROWS_MIN, PackedRows
from dsql_server.storage.predicates import compile_predicate
from dsql_server.storage.recent_versions import RecentVersions

if TYPE_CHECKING:
    from dsql_server.storage.aggregation import Aggregator
    from dsql_server.storage.packing import Packer

VERSION_BYTES = 8
TIMESTAMP_MAX = 2**64 - 1
ROW, TOMBSTONE = 1, 0
_ROW_TAG, _TOMBSTONE_VALUE = bytes((ROW,)), bytes((TOMBSTONE,))

#: Sorts behind every version of the key it is appended to.
_BEHIND_ALL_VERSIONS = b"\xff" * (VERSION_BYTES + 1)
#: A scan steps over this many versions it does not want, then seeks past the rest.
VERSIONS_STEPPED_MAX = 16

_RESERVED = key_encoding.prefix(key_encoding.RELATION_ID_RESERVED)
_POSITION_PREFIX = _RESERVED + b"position/"
_HORIZON_KEY = _RESERVED + b"garbage/horizon"
_NOTE_PREFIX = _RESERVED + b"note/"

_INTEGER = Struct(">Q")
_POSITION = Struct(">qQ")  #: journal position, greatest timestamp applied
_pack = _INTEGER.pack


def _put_versions(put: Callable[[bytes, bytes], None], mutations: Sequence[Mutation], version: bytes) -> int:
    """Put all of them under the same version; how many are deletions."""
    deletions = 0
    for key, value in mutations:
        if value is None:
            deletions += 1
            put(key + version, _TOMBSTONE_VALUE)
        else:
            put(key + version, _ROW_TAG + value)
    return deletions


put_versions = _put_versions if compiled.storage is None else compiled.storage.put_versions


class SnapshotTooOld(Exception):
    """A read at a timestamp whose versions may have been collected as garbage."""


class StorageNode:
    """One node's versions. Create with a directory of its own; ``close`` it.

    Implements :class:`dsql_server.interfaces.commit_path.StorageReader` for the keys it was given.
    """

    def __init__(
        self, path: Path, cache_bytes: int = rocks.BLOCK_CACHE_BYTES, recent: RecentVersions | None = None
    ) -> None:
        """``recent``: what nodes with other keys remember, too."""
        self.path = path
        self._database = rocks.open_database(path, cache_bytes)
        self._items = self._database.items
        self._iterator = self._database.iter
        self._write = self._database.write
        #: Among what the last batch left. To make one takes as long as to seek with it. None: the node is closed.
        self._cursor: rocks.Cursor | None = self._iterator()
        self._blocks = BlockCache()
        self._recent = RecentVersions() if recent is None else recent
        self._find_recent = self._recent.find
        self._packs = PackedRows(self._database, _RESERVED, _ROW_TAG)
        self._aggregator: Aggregator | None = None
        self._packer: Packer | None = None
        self._closed = False
        self._applied_up_to: Timestamp = 0
        self._positions = self._load_positions()
        horizon = self._database.get(_HORIZON_KEY)
        self._horizon: Timestamp = 0 if horizon is None else _INTEGER.unpack(horizon)[0]
        self._sweep = garbage.Sweep()
        #: T_commit and mutations, what they come to, and how many delete
        self._prepared: tuple[tuple[Timestamp, tuple[Mutation, ...]], rocks.Batch, int] | None = None
        self._gets = self._scans = self._examined = 0
        self._rows_applied = self._tombstones_applied = self._batches_applied = self._versions_collected = 0

    # Reading -----------------------------------------------------------------------------------------------------

    def get(self, key: bytes, t: Timestamp) -> bytes | None:
        """The value of the key as of ``t``, or None. Raises SnapshotTooOld."""
        if t < self._horizon:
            raise self._too_old(t)
        self._gets += 1
        recent = self._find_recent(key)
        if recent is not None and recent[0] <= t:
            return recent[1]
        cursor = self._cursor
        assert cursor is not None, "the node is closed"
        cursor.seek(key + _pack(TIMESTAMP_MAX - t))
        if not cursor.valid():
            cursor.status()
        elif cursor.key()[:-8] == key:
            stored = cursor.value()
            return stored[1:] if stored[0] else None
        return None

    def get_many(self, keys: Sequence[bytes], t: Timestamp) -> list[bytes | None]:
        """The values of the keys as of ``t``, in their order. Raises SnapshotTooOld."""
        if t < self._horizon:
            raise self._too_old(t)
        self._gets += len(keys)
        values, unread = self._recent.values(keys, t)
        if unread:
            wanted = [keys[at] for at in unread]
            found = self._read_many(wanted, t)
            for at, value in zip(unread, found, strict=True):
                values[at] = value
            if t >= self._applied_up_to:
                self._recent.note_read(wanted, found, self._applied_up_to)
        return values

    def _read_many(self, keys: Sequence[bytes], t: Timestamp) -> list[bytes | None]:
        version = _pack(TIMESTAMP_MAX - t)
        iterator = self._cursor
        assert iterator is not None, "the node is closed"
        if compiled.storage is not None:
            values: list[bytes | None] = compiled.storage.read_versions(iterator, keys, version)
            return values
        seek, valid, read_key, read_value = iterator.seek, iterator.valid, iterator.key, iterator.value
        found: list[bytes | None] = []
        add = found.append
        for key in keys:
            seek(key + version)
            if valid() and read_key()[:-8] == key:
                stored = read_value()
                add(stored[1:] if stored[0] else None)
            else:
                add(None)
        return found

    def scan(self, request: ScanRequest) -> ScanResult:
        """Rows with start <= key < end as of t, in key order or in reverse. Raises SnapshotTooOld."""
        if request.t < self._horizon:
            raise self._too_old(request.t)
        self._scans += 1
        if request.limit is not None and request.limit <= 0:
            return ScanResult([], 0, 0)
        # Nobody reads the node's own notes through a scan.
        if request.end > _RESERVED:
            request = request._replace(end=_RESERVED)
        result = self._scan_backward(request) if request.reverse else self._scan_forward(request)
        self._examined += result.examined
        return result

    def values(self, start: bytes, end: bytes, t: Timestamp) -> list[bytes]:
        """What is stored under start <= key < end as of ``t``, in key order. Raises SnapshotTooOld."""
        if compiled.storage is None or end > _RESERVED:
            return [value for _, value in self.scan(ScanRequest(start, end, t)).rows]
        if t < self._horizon:
            raise self._too_old(t)
        self._scans += 1
        found: list[bytes]
        found, examined = compiled.storage.scan_values(
            self._cursor, start, end, _pack(TIMESTAMP_MAX - t), VERSIONS_STEPPED_MAX
        )
        self._examined += examined
        return found

    @property
    def horizon(self) -> Timestamp:
        """Reads below it fail."""
        return self._horizon

    def _scan_forward(self, request: ScanRequest) -> ScanResult:
        start, end, t, predicate, projection, limit, _ = request
        test = compile_predicate(predicate) if predicate else None
        project = None if projection is None else projector(projection)
        remaining = -1 if limit is None else limit
        newest = _pack(TIMESTAMP_MAX - t)
        if compiled.storage is not None and test is None and project is None:
            whole, seen = compiled.storage.scan_versions(
                self._items, start, end, newest, -1 if limit is None else limit, VERSIONS_STEPPED_MAX
            )
            return ScanResult(whole, seen, 0)
        rows: list[tuple[bytes, bytes]] = []
        add = rows.append
        examined = filtered = 0
        current = None
        position = start
        while True:
            stepped = 0
            for physical, stored in self._items(False, position):
                key = physical[:-8]
                if key == current:  # older than the version that was taken
                    examined += 1
                    stepped += 1
                    if stepped == VERSIONS_STEPPED_MAX:
                        position = key + _BEHIND_ALL_VERSIONS
                        break
                    continue
                if key >= end:
                    return ScanResult(rows, examined, filtered)
                examined += 1
                if physical[-8:] < newest:  # committed after t
                    stepped += 1
                    if stepped == VERSIONS_STEPPED_MAX:
                        position = key + newest
                        break
                    continue
                if key < start:  # a key that ``start`` prolongs: its versions may sort behind ``start``
                    continue
                current = key
                if not stored[0]:
                    continue
                value = stored[1:]
                if test is not None and not test(value):
                    filtered += 1
                    continue
                add((key, value if project is None else project(value)))
                remaining -= 1
                if not remaining:
                    return ScanResult(rows, examined, filtered)
            else:
                return ScanResult(rows, examined, filtered)

    def _scan_backward(self, request: ScanRequest) -> ScanResult:
        start, end, t, predicate, projection, limit, _ = request
        test = compile_predicate(predicate) if predicate else None
        project = None if projection is None else projector(projection)
        newest = _pack(TIMESTAMP_MAX - t)
        rows: list[tuple[bytes, bytes]] = []
        examined = filtered = 0

        def take(key: bytes | None, stored: bytes | None) -> bool:
            """Take in the visible version of a key; says whether the limit is reached."""
            nonlocal filtered
            if key is None or stored is None or not stored[0]:
                return False
            value = stored[1:]
            if test is not None and not test(value):
                filtered += 1
                return False
            rows.append((key, value if project is None else project(value)))
            return len(rows) == limit

        position = self._last_position_below(end)
        while True:
            # Backwards the oldest version of a key comes first: the last one that is old enough is the visible one.
            current: bytes | None = None
            visible: bytes | None = None
            stepped = 0
            for physical, stored in self._items(True, position):
                key = physical[:-8]
                if key != current:
                    if take(current, visible) or key < start:
                        return ScanResult(rows, examined, filtered)
                    current, visible, stepped = key, None, 0
                examined += 1
                stepped += 1
                if stepped == VERSIONS_STEPPED_MAX:
                    if take(key, self._stored_at(key, newest)):
                        return ScanResult(rows, examined, filtered)
                    position = key  # sorts before all versions of the key
                    break
                if physical[-8:] >= newest:
                    visible = stored
            else:
                take(current, visible)
                return ScanResult(rows, examined, filtered)

    def _stored_at(self, key: bytes, newest: bytes) -> bytes | None:
        for physical, stored in self._items(False, key + newest):
            return stored if physical[:-8] == key else None
        return None

    def _last_position_below(self, end: bytes) -> bytes:
        """Where to start backwards: at ``end``, or behind the versions of a key that ``end`` prolongs."""
        for physical, _ in self._items(False, end):
            key = physical[:-8]
            return key + _BEHIND_ALL_VERSIONS if key < end else end
        return end

    def aggregate(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> list[object]:
        """Partial aggregates over the rows the scan would return, without a limit.

        An int for ``count``; int, Decimal or float for ``sum``, and for ``min`` and ``max`` over numbers; the stored
        bytes for ``min`` and ``max`` over other types; None where no value was found. Raises SnapshotTooOld.
        """
        return run_to_end(self.aggregate_steps(request, aggregates))

    def aggregate_steps(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> Steps:
        """As :meth:`aggregate`, but a step at a time: what the generator returns is the result."""
        assert request.limit is None, "an aggregate takes in the whole range"
        if request.t < self._horizon:
            raise self._too_old(request.t)
        self._scans += 1
        return (yield from self.aggregator().steps(request, aggregates))

    def group_steps(
        self,
        requests: Sequence[ScanRequest],
        columns: Sequence[GroupColumn],
        aggregates: Sequence[Aggregate],
        groups_max: int,
    ) -> GroupSteps:
        """As :meth:`aggregate_steps`, for each group of the rows of all requests. Raises TooManyGroups."""
        for request in requests:
            assert request.limit is None, "an aggregate takes in the whole range"
            if request.t < self._horizon:
                raise self._too_old(request.t)
        self._scans += len(requests)
        return (yield from self.aggregator().group_steps(requests, columns, aggregates, groups_max))

    def aggregator(self) -> Aggregator:
        """What computes aggregates; the first call takes a tenth of a second, and may be made by another thread."""
        if self._aggregator is None:
            from dsql_server.storage.aggregation import Aggregator  # with numpy, which no start waits for

            self._aggregator = Aggregator(self._database, self._blocks, self._packs, _RESERVED)
        return self._aggregator

    # Applying ----------------------------------------------------------------------------------------------------

    def apply_batch(self, batch: Sequence[tuple[Timestamp, Sequence[Mutation]]], positions: Mapping[str, int]) -> None:
        """Apply transactions (commit timestamp, mutations) in commit order, with the journal positions they end at.

        ``positions`` names each journal's position from which a replay would have to go on. They are one atomic write
        with the last transaction, and mostly with all of them.
        """
        has_large = any(len(mutations) >= PACK_ROWS_MIN for _, mutations in batch)
        if has_large and len(batch) > 1:
            # Each large one by itself, so that it sees what is stored before it.
            for transaction in batch[:-1]:
                self.apply_batch([transaction], {})
            batch = batch[-1:]
        applied_up_to = self._applied_up_to
        mutations_applied = tombstones = 0
        remaining: Sequence[tuple[Timestamp, Sequence[Mutation]]] = batch
        prepared, self._prepared = self._prepared, None
        if prepared is not None and len(batch) == 1 and batch[0] == prepared[0]:
            _, write, tombstones = prepared
            remaining, mutations_applied, applied_up_to = (), len(batch[0][1]), max(applied_up_to, batch[0][0])
        else:
            write = rocks.new_batch()
        if has_large:
            self._packs.pack(*batch[0], write)
        elif len(self._packs):
            for t, mutations in batch:
                self._packs.note_writes(t, mutations, write)
        for t, mutations in remaining:
            mutations_applied += len(mutations)
            tombstones += put_versions(write.put, mutations, _pack(TIMESTAMP_MAX - t))
            if t > applied_up_to:
                applied_up_to = t
        for journal, position in positions.items():
            write.put(_POSITION_PREFIX + journal.encode(), _POSITION.pack(position, applied_up_to))
        self._write(write)
        self._cursor = self._iterator()
        self._recent.note(batch, self._applied_up_to)
        if len(self._blocks):
            for t, mutations in batch:
                self._blocks.note_changes(t, mutations)
        self._positions.update(positions)
        self._applied_up_to = applied_up_to
        self._batches_applied += 1
        self._rows_applied += mutations_applied - tombstones
        self._tombstones_applied += tombstones

    def prepare(self, t: Timestamp, mutations: Sequence[Mutation]) -> None:
        """Write down what :meth:`apply_batch` will write for a transaction that is about to commit at ``t``, by itself.

        Nothing is stored: what doesn't commit after all is forgotten with the next batch.
        """
        if len(mutations) >= PACK_ROWS_MIN:
            return
        write = rocks.new_batch()
        self._prepared = (t, tuple(mutations)), write, put_versions(write.put, mutations, _pack(TIMESTAMP_MAX - t))

    def applied_positions(self) -> dict[str, int]:
        """For each journal the last position applied; right after opening: where a replay must go on."""
        return dict(self._positions)

    @property
    def applied_up_to(self) -> Timestamp:
        """The greatest commit timestamp applied; 0 before the first."""
        return self._applied_up_to

    def checkpoint(self) -> dict[str, int]:
        """Make everything applied so far durable; the journals need not keep what lies before these positions."""
        positions = dict(self._positions)
        self._database.flush(True)
        return positions

    def collect_garbage(self, older_than: Timestamp, budget: int) -> int:
        """Look at up to ``budget`` versions, going on where the last call stopped, and drop what no read at or above
        ``older_than`` can see. Returns how many were dropped. Reads below ``older_than`` fail from now on.
        """
        assert older_than <= TIMESTAMP_MAX, "the horizon is a timestamp"
        if older_than > self._horizon:
            self._horizon = older_than
        if self._sweep.is_needless(self._applied_up_to):
            return 0
        horizon = _pack(TIMESTAMP_MAX - self._horizon)
        batch = self._sweep.collect(self._database, _RESERVED, horizon, self._horizon, budget)
        dropped = len(batch)
        if dropped:
            batch.put(_HORIZON_KEY, _INTEGER.pack(self._horizon))
            self._write(batch)
            self._cursor = self._iterator()
            self._versions_collected += dropped
        return dropped

    def pack_rows(self, boundaries: Sequence[bytes]) -> None:
        """Pack a few of the rows that nobody writes to, once aggregates were prepared; see :meth:`Packer.work`."""
        if self._aggregator is None:
            return
        if self._packer is None:
            from dsql_server.storage.packing import Packer  # with numpy, as the aggregator

            self._packer = Packer(self._database, self._packs, _RESERVED, ROW)
        self._packer.work(self._applied_up_to, boundaries)

    # Keeping -----------------------------------------------------------------------------------------------------

    def put_note(self, name: str, value: bytes) -> None:
        """Keep a value beside the data (the range map); durable when this returns, though no journal carries it."""
        self._database.put(_NOTE_PREFIX + name.encode(), value, rocks.logged_write())

    def get_note(self, name: str) -> bytes | None:
        """A value kept by :meth:`put_note`, or None."""
        return self._database.get(_NOTE_PREFIX + name.encode())

    def relation_prefixes(self) -> list[bytes]:
        """The prefixes of all relations of which the node holds a version; costs one seek a relation."""
        found: list[bytes] = []
        position = b""
        while True:
            for physical, _ in self._items(False, position):
                relation = physical[: key_encoding.RELATION_PREFIX_BYTES]
                break
            else:
                return found
            if relation == _RESERVED:
                return found
            found.append(relation)
            position = key_encoding.prefix_end(relation)

    def holds_nothing_from(self, start: bytes, end: bytes) -> bool:
        """Whether no version of any key in start <= key < end is stored, deletions included."""
        for physical, _ in self._items(False, start):
            return physical[:-8] >= end
        return True

    def metrics(self) -> dict[str, int]:
        """Counters since the node was opened, and what it holds (an estimate of RocksDB's)."""
        return {
            "rows_applied": self._rows_applied,
            "tombstones_applied": self._tombstones_applied,
            "batches_applied": self._batches_applied,
            "gets": self._gets,
            "scans": self._scans,
            "versions_examined": self._examined + (self._aggregator.examined if self._aggregator is not None else 0),
            "versions_collected": self._versions_collected,
            "versions_estimate": self._database.property_int_value("rocksdb.estimate-num-keys") or 0,
            "bytes_on_disk": self._database.property_int_value("rocksdb.total-sst-files-size") or 0,
        }

    @property
    def size_bytes(self) -> int:
        """What the node holds on disk and in memory that is yet to be written; an estimate of RocksDB's."""
        names = ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")
        return sum(self._database.property_int_value(name) or 0 for name in names)

    def close(self) -> None:
        """Write out what is in memory and give the directory free; harmless when repeated."""
        if not self._closed:
            self._closed = True
            self._blocks.clear()
            self._cursor = None
            self._database.flush(True)
            self._database.close()

    @staticmethod
    def destroy(path: Path) -> None:
        """Delete a closed node's data and its directory."""
        Rdict.destroy(str(path))
        shutil.rmtree(path, ignore_errors=True)

    def _load_positions(self) -> dict[str, int]:
        positions: dict[str, int] = {}
        for physical, stored in self._items(False, _POSITION_PREFIX):
            if not physical.startswith(_POSITION_PREFIX):
                break
            position, applied_up_to = _POSITION.unpack(stored)
            positions[physical[len(_POSITION_PREFIX) :].decode()] = position
            self._applied_up_to = max(self._applied_up_to, applied_up_to)
        return positions

    def _too_old(self, t: Timestamp) -> SnapshotTooOld:
        return SnapshotTooOld(
            f"storage node {self.path.name} no longer keeps versions below {self._horizon}, but a transaction reads at"
            f" {t}: transactions must end before the garbage horizon passes their start"
        )
