"""Rows that one transaction inserted side by side, kept once more as a whole: aggregates read them a pack at a time.

RocksDB hands out a million entries in half a second, one call each under the interpreter's lock; a pack is one entry.
So the first aggregate over a table that was filled by large transactions needn't wait for all those calls.

A pack has all rows of ``first`` <= key < ``end``, and no other key is stored from ``low`` on: as of the transaction's
timestamp, and of every later one as long as no such key is written. Whoever writes one drops the pack, in the same
atomic write. Packs never overlap. Their positions are kept in memory, their rows are not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import eq
from struct import Struct, pack

from dsql_server.encoding.keys import RELATION_PREFIX_BYTES, prefix_end
from dsql_server.encoding.rows import FIELD_COUNT_BYTES
from dsql_server.interfaces.messages import Mutation, Timestamp
from dsql_server.storage import rocks
from dsql_server.storage.layered_rows import LayeredRows

#: Transactions that wrote fewer rows of a relation leave them single.
PACK_ROWS_MIN = 32
#: A pack of fewer rows grows by what is inserted right behind it.
GROWN_ROWS_MAX = 1000
#: Packs that are read together have together no more bytes than this, unless it is only one.
READ_BYTES_MAX = 8 * 1024 * 1024
VERSION_BYTES = 8
LENGTH_BYTES = 4  #: of each row, little-endian, in front of all of them; each row then has its tag in front
#: An index entry's value is the key of its row: it begins with an id below 65,536 where a row has its number of fields.
#: The entries of indexes with ids above that are packed for nothing.
_NO_FIELDS = bytes(FIELD_COUNT_BYTES)
#: timestamp, number of rows, bytes of all of them, bytes of ``low`` and of ``first``, which follow
_EXTENT = Struct(">QIIHH")


@dataclass(frozen=True)
class Pack:
    """Where a pack's rows are, without the rows."""

    low: bytes
    first: bytes
    end: bytes
    since: Timestamp
    rows: int
    size_bytes: int


class PackedRows:
    """The packs of one node's database, under ``reserved``, a prefix above all keys of rows."""

    def __init__(self, database: rocks.Database, reserved: bytes, row_tag: bytes) -> None:
        self._database = database
        self._row_tag = row_tag
        #: Rows that transactions wrote among others.
        self.layers = LayeredRows(database, reserved, row_tag)
        self._extent_prefix = reserved + b"pack/"
        self._rows_prefix = reserved + b"packed/"
        self._packs: list[Pack] = []
        self._ends: list[bytes] = []
        for physical, stored in database.items(False, self._extent_prefix):
            if not physical.startswith(self._extent_prefix):
                break
            self._ends.append(physical[len(self._extent_prefix) :])
            self._packs.append(_extent(self._ends[-1], stored))

    def __len__(self) -> int:
        return len(self._ends) + len(self.layers)

    # Writing -----------------------------------------------------------------------------------------------------

    def note_writes(self, t: Timestamp, mutations: Sequence[Mutation], batch: rocks.Batch) -> None:
        """Keys are about to be written by the batch: drop the packs that have them, and add them to their slots."""
        if len(self.layers):
            self.layers.note(t, mutations, batch)
        self._drop_packs(mutations, batch)

    def _drop_packs(self, mutations: Sequence[Mutation], batch: rocks.Batch) -> None:
        ends = self._ends
        for key, _ in mutations:
            at = bisect_right(ends, key)
            if at == len(ends) or key < self._packs[at].low:
                continue
            found = self._packs[at]
            if key < found.first:
                self._put(at, replace(found, low=key + b"\0"), batch)
                continue
            self._drop(at, batch)

    def _drop(self, at: int, batch: rocks.Batch) -> None:
        batch.delete(self._extent_prefix + self._ends[at])
        batch.delete(self._rows_prefix + self._ends[at])
        del self._packs[at], self._ends[at]

    def pack(self, t: Timestamp, mutations: Sequence[Mutation], batch: rocks.Batch) -> None:
        """As :meth:`note_writes`, and pack what is about to be written where it is rows side by side in an empty range.

        Call it when the database has all earlier transactions.
        """
        in_order = sorted(mutations)
        begin = 0
        while begin < len(in_order):
            relation = in_order[begin][0][:RELATION_PREFIX_BYTES]
            behind = bisect_left(in_order, prefix_end(relation), begin, key=_key)
            written = in_order[begin:behind]
            at = bisect_right(self._ends, written[0][0])
            if at < len(self._packs) and self._packs[at].low <= written[-1][0]:
                self._drop_packs(written, batch)
            others = sorted(self.layers.note(t, written, batch)) if len(self.layers) else written
            if len(others) >= PACK_ROWS_MIN:
                self._pack_relation(t, relation, others, batch)
            begin = behind

    def _pack_relation(self, t: Timestamp, relation: bytes, written: Sequence[Mutation], batch: rocks.Batch) -> None:
        keys, values = zip(*written, strict=True)
        if None in values or not is_row(values[0]):
            return
        assert not any(map(eq, keys, keys[1:])), "a transaction writes a key once"
        first, end = keys[0], keys[-1] + b"\0"
        at = bisect_right(self._ends, first)
        low = max(relation, self._ends[at - 1] if at else b"")
        if not self._is_empty(low, end):
            low = first
            if not self._is_empty(low, end):
                self._begin_layers(t, relation, written, batch)
                return
        if at and self._ends[at - 1] == low and self._packs[at - 1].rows < GROWN_ROWS_MAX:
            self._grow(at - 1, end, t, values, batch)
        else:
            self.add((low, first, end), t, values, batch)

    def _grow(self, at: int, end: bytes, t: Timestamp, values: Sequence[bytes], batch: rocks.Batch) -> None:
        """Put rows behind those of a pack, which then ends at ``end``."""
        before = self._packs[at]
        (stored,) = self.read([before])
        self._drop(at, batch)
        lengths, rows = stored[: before.rows * LENGTH_BYTES], stored[before.rows * LENGTH_BYTES :]
        self._store((before.low, before.first, end), t, bytes(lengths), bytes(rows), values, batch)

    def _begin_layers(self, t: Timestamp, relation: bytes, written: Sequence[Mutation], batch: rocks.Batch) -> None:
        ranges = self.layers.begin(relation, written, batch)
        for low, end in ranges:
            at = bisect_right(self._ends, low)
            while at < len(self._packs) and self._packs[at].low < end:
                self._drop(at, batch)
        if ranges:
            self.layers.note(t, written, batch)

    def add(
        self, place: tuple[bytes, bytes, bytes], since: Timestamp, values: Sequence[bytes], batch: rocks.Batch
    ) -> None:
        """Pack all rows of a range of which none is packed, and where nothing was written after ``since``.

        ``place`` is as in :class:`Pack`: where the range begins, its first row's key, where it ends.
        """
        _, first, end = place
        self.layers.drop_within(first, end, batch)
        self._store(place, since, b"", b"", values, batch)

    def _store(
        self,
        place: tuple[bytes, bytes, bytes],
        since: Timestamp,
        lengths: bytes,
        stored: bytes,
        values: Sequence[bytes],
        batch: rocks.Batch,
    ) -> None:
        """Pack rows behind others, whose lengths and tagged rows are given as they are stored."""
        low, first, end = place
        lengths += pack(f"<{len(values)}I", *map(len, values))
        stored += self._row_tag + self._row_tag.join(values)
        at = bisect_right(self._ends, first)
        self._ends.insert(at, end)
        self._packs.insert(at, Pack(low, first, end, since, len(lengths) // LENGTH_BYTES, len(stored)))
        self._put(at, self._packs[at], batch)
        batch.put(self._rows_prefix + end, lengths + stored)

    def _put(self, at: int, extent: Pack, batch: rocks.Batch) -> None:
        self._packs[at] = extent
        sizes = _EXTENT.pack(extent.since, extent.rows, extent.size_bytes, len(extent.low), len(extent.first))
        batch.put(self._extent_prefix + extent.end, sizes + extent.low + extent.first)

    def _is_empty(self, start: bytes, end: bytes) -> bool:
        """Whether no version of any key in start <= key < end is stored."""
        for physical, _ in self._database.items(False, start):
            key = physical[:-VERSION_BYTES]
            if key >= start:  # below are the versions of a key that ``start`` prolongs
                return key >= end
        return True

    # Reading -----------------------------------------------------------------------------------------------------

    def next_low(self, position: bytes) -> bytes | None:
        """Where the first pack behind the position begins."""
        at = bisect_right(self._packs, position, key=_low)
        return self._packs[at].low if at < len(self._packs) else None

    def end_of_packs_from(self, position: bytes) -> bytes:
        """Where the packs end that follow one another from the position on."""
        for at in range(bisect_right(self._ends, position), len(self._packs)):
            if self._packs[at].low > position:
                break
            position = self._packs[at].end
        return position

    def run(self, position: bytes, limit: bytes, t: Timestamp, rows_max: int) -> list[Pack]:
        """Packs that together have all rows as of ``t`` from the position on up to the end of the last of them.

        They are up to ``limit``, and as many as ``rows_max`` and ``READ_BYTES_MAX`` allow, but for the first.
        """
        found: list[Pack] = []
        rows = size_bytes = 0
        for at in range(bisect_right(self._ends, position), len(self._packs)):
            following = self._packs[at]
            rows += following.rows
            size_bytes += following.size_bytes
            if not following.low <= position <= following.first or following.end > limit or following.since > t:
                break
            if found and (rows > rows_max or size_bytes > READ_BYTES_MAX):
                break
            found.append(following)
            position = following.end
        return found

    def read(self, run: Sequence[Pack]) -> list[memoryview]:
        """What is stored for each pack: the lengths of its rows, ``LENGTH_BYTES`` each, and the tagged rows."""
        key = self._rows_prefix + run[0].end
        stored: list[memoryview] = []
        for physical, value in self._database.items(False, key, rocks.sweeping_read()):
            assert physical == self._rows_prefix + run[len(stored)].end, "a pack's rows are stored beside its extent"
            stored.append(memoryview(value))
            if len(stored) == len(run):
                break
        return stored


def _extent(end: bytes, stored: bytes) -> Pack:
    since, rows, size_bytes, low_bytes, first_bytes = _EXTENT.unpack_from(stored)
    at = _EXTENT.size + low_bytes
    return Pack(stored[_EXTENT.size : at], stored[at : at + first_bytes], end, since, rows, size_bytes)


def is_row(value: bytes) -> bool:
    """Whether the value of a key is a row, not the key of one, as entries of indexes have it."""
    return value[:FIELD_COUNT_BYTES] != _NO_FIELDS


def _low(extent: Pack) -> bytes:
    return extent.low


def _key(mutation: Mutation) -> bytes:
    return mutation[0]
