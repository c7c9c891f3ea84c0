"""Rows that transactions wrote among others, kept once more in layers: aggregates read them a slot at a time.

Keys in random order (UUIDs) fill every range again and again, so that no pack of theirs lasts
(:mod:`dsql_server.storage.packed_rows`). Their range is cut into *slots* instead. From a timestamp on a slot has every
version that is written to its keys: a layer of each transaction, in the same atomic write. What a snapshot sees of
a key is the newest of its versions in the layers up to it.

Slots never overlap, and none goes across a place where a new relation is split. Where they are is kept in memory, their
layers are not. A slot whose layers became many and thin, or too large, is given up.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct, pack
from typing import NamedTuple

from dsql_server.encoding.keys import prefix_end
from dsql_server.interfaces.messages import Mutation, Timestamp
from dsql_server.storage import rocks
from dsql_server.storage.range_map import FIRST_SPLITS

VERSION_BYTES = 8
TIMESTAMP_MAX = 2**64 - 1
#: A range is cut into so many slots, or more: the transaction with which they begin has about so many rows in each.
SLOTS_WANTED = 8
LAYER_ROWS = 94
#: But into fewer, if it had less than so many.
LAYER_ROWS_MIN = 16
#: A range that has more versions is not cut into slots any more: they would all have to be read.
BEGIN_ENTRIES_MAX = 8192
#: A slot may have so many layers whatever they hold; with more, each has to have so many rows on an average.
THIN_LAYERS_MAX = 256
THICK_LAYER_ROWS = 8
SLOT_BYTES_MAX = 64 * 1024 * 1024
#: A slot that grows at its end goes up to there from now on once it has so much.
CLOSED_BYTES_MIN = 2 * 1024 * 1024

_TOMBSTONE = bytes(1)
_NUMBER = Struct(">Q")
#: number, since, rows, layers, bytes of all of them; the slot's first key follows
_EXTENT = Struct(">QQIIQ")
_LAYER = Struct("<II")  #: number of rows, bytes of all keys; lengths of the keys and of the values, keys, values follow
LENGTH_BYTES = 4


@dataclass(eq=False)
class Slot:
    """The keys low <= key < end, of which the layers have everything from ``since`` on."""

    low: bytes
    end: bytes
    number: int
    since: Timestamp
    rows: int = 0
    layers: int = 0
    size_bytes: int = 0
    last_key: bytes = b""  #: the greatest that was ever written; empty: to be looked up

    @property
    def is_worn_out(self) -> bool:
        """Whether reading it would be hardly shorter than reading its keys one by one, or take too much memory."""
        is_thin = self.layers > THIN_LAYERS_MAX and self.rows < THICK_LAYER_ROWS * self.layers
        return is_thin or self.size_bytes > SLOT_BYTES_MAX


class Layers(NamedTuple):
    """Versions of a slot's keys: those of one transaction behind those of another, in the order of time.

    Lengths have ``LENGTH_BYTES`` each, little-endian. Each value has its tag in front, a tombstone nothing else.
    """

    key_lengths: bytes
    value_lengths: bytes
    keys: bytes
    values: bytes  #: with the padding that was asked for
    since: Timestamp  #: the last of them; or of the slot
    changed: Timestamp | None  #: the first timestamp behind the snapshot that has a layer


class LayeredRows:
    """The slots of one node's database, under ``reserved``, a prefix above all keys of rows."""

    def __init__(self, database: rocks.Database, reserved: bytes, row_tag: bytes) -> None:
        self._database = database
        self._row_tag = row_tag
        self._extent_prefix = reserved + b"slot/"
        self._layer_prefix = reserved + b"layer/"
        self._slots: list[Slot] = []
        self._ends: list[bytes] = []
        self._refused: set[bytes] = set()  #: where ranges begin that had too many rows
        for physical, stored in database.items(False, self._extent_prefix):
            if not physical.startswith(self._extent_prefix):
                break
            number, since, rows, layers, size_bytes = _EXTENT.unpack_from(stored)
            end = physical[len(self._extent_prefix) :]
            self._slots.append(Slot(stored[_EXTENT.size :], end, number, since, rows, layers, size_bytes))
            self._ends.append(end)
        self._next_number = self._last_number() + 1

    def _last_number(self) -> int:
        """The greatest number that was ever used and may have left something."""
        numbers = [0, *(slot.number for slot in self._slots)]
        behind_all = self._layer_prefix + b"\xff" * (_NUMBER.size + 1)
        for physical, _ in self._database.items(True, behind_all):
            if physical.startswith(self._layer_prefix):
                numbers += _NUMBER.unpack_from(physical, len(self._layer_prefix))
            break
        return max(numbers)

    def __len__(self) -> int:
        return len(self._slots)

    # Writing -----------------------------------------------------------------------------------------------------

    def note(self, t: Timestamp, mutations: Sequence[Mutation], batch: rocks.Batch) -> list[Mutation]:
        """Take in what is about to be written by the batch; returns what is in none of the slots, in no order."""
        slots, ends = self._slots, self._ends
        written: dict[int, list[Mutation]] = {}
        others: list[Mutation] = []
        for mutation in mutations:
            at = bisect_right(ends, mutation[0])
            if at == len(ends) or mutation[0] < slots[at].low:
                others.append(mutation)
            elif at in written:
                written[at].append(mutation)
            else:
                written[at] = [mutation]
        for slot, of_slot in [(slots[at], of_slot) for at, of_slot in written.items()]:
            if slot.is_worn_out:
                self._drop(slot, batch)
                others += of_slot
            else:
                self._add_layer(slot, t, of_slot, batch)
        return others

    def _add_layer(self, slot: Slot, t: Timestamp, written: list[Mutation], batch: rocks.Batch) -> None:
        written.sort()
        tag = self._row_tag
        keys = [key for key, _ in written]
        values = [_TOMBSTONE if value is None else tag + value for _, value in written]
        all_keys = b"".join(keys)
        sizes = pack(f"<{2 + 2 * len(keys)}I", len(keys), len(all_keys), *map(len, keys), *map(len, values))
        layer = b"".join((sizes, all_keys, *values))
        # The first key tells apart what two transactions wrote at the same time.
        batch.put(self._layer_prefix + _NUMBER.pack(slot.number) + _NUMBER.pack(t) + keys[0], layer)
        slot.rows += len(keys)
        slot.layers += 1
        slot.size_bytes += len(layer)
        last = slot.last_key or self._last_key(slot)
        slot.last_key = max(last, keys[-1])
        if slot.size_bytes > CLOSED_BYTES_MIN and keys[len(keys) // 2] > last:
            self._close(slot, batch)
        elif not slot.layers & (slot.layers - 1):  # now and then: the numbers needn't be exact after a start
            self._put(slot, batch)

    def _last_key(self, slot: Slot) -> bytes:
        """The greatest key that is stored; the slot's first one if there is none."""
        for physical, _ in self._database.items(True, slot.end):
            return max(physical[:-VERSION_BYTES], slot.low)
        return slot.low

    def _close(self, slot: Slot, batch: rocks.Batch) -> None:
        """Let a slot end at its last key, and begin another there."""
        at = bisect_left(self._ends, slot.end)
        end = slot.last_key + b"\0"
        behind = Slot(end, slot.end, self._next_number, slot.since)
        self._next_number += 1
        slot.end = self._ends[at] = end
        self._slots.insert(at + 1, behind)
        self._ends.insert(at + 1, behind.end)
        self._put(slot, batch)
        self._put(behind, batch)

    def _put(self, slot: Slot, batch: rocks.Batch) -> None:
        sizes = _EXTENT.pack(slot.number, slot.since, slot.rows, slot.layers, slot.size_bytes)
        batch.put(self._extent_prefix + slot.end, sizes + slot.low)

    def begin(self, relation: bytes, written: Sequence[Mutation], batch: rocks.Batch) -> list[tuple[bytes, bytes]]:
        """Cut the relation's ranges that are about to be written into slots; returns these ranges.

        ``written``: rows, in order. The slots have what is stored, without what is about to be written.
        """
        found = []
        cuts = [*(relation + split for split in FIRST_SPLITS), prefix_end(relation)]
        for low, end in pairwise(cuts):
            first = bisect_left(written, low, key=_key)
            keys = [key for key, _ in written[first : bisect_left(written, end, first, key=_key)]]
            if not keys or low in self._refused or self._overlaps(low, end):
                continue
            stored = self._stored(low, end)
            if stored is None:
                self._refused.add(low)
                continue
            self._cut(low, end, keys, stored, batch)
            found.append((low, end))
        return found

    def _overlaps(self, low: bytes, end: bytes) -> bool:
        at = bisect_right(self._ends, low)
        return at < len(self._slots) and self._slots[at].low < end

    def _stored(self, low: bytes, end: bytes) -> tuple[Timestamp, list[Mutation]] | None:
        """The newest timestamp and all rows of a range; None if it has too many versions."""
        rows: list[Mutation] = []
        newest = b"\xff" * VERSION_BYTES
        current = None
        examined = 0
        for physical, stored in self._database.items(False, low):
            key, version = physical[:-VERSION_BYTES], physical[-VERSION_BYTES:]
            if key >= end:
                break
            if key < low:  # a key that ``low`` prolongs
                continue
            examined += 1
            if examined > BEGIN_ENTRIES_MAX:
                return None
            newest = min(newest, version)
            if key != current and stored[:1] == self._row_tag:
                rows.append(Mutation(key, stored[1:]))
            current = key
        return TIMESTAMP_MAX - int.from_bytes(newest, "big"), rows

    def _cut(
        self,
        low: bytes,
        end: bytes,
        keys: Sequence[bytes],
        stored: tuple[Timestamp, list[Mutation]],
        batch: rocks.Batch,
    ) -> None:
        since, rows = stored
        count = max(1, len(keys) // LAYER_ROWS, min(SLOTS_WANTED, len(keys) // LAYER_ROWS_MIN))
        known = sorted({*keys, *(key for key, _ in rows)})
        cuts = [known[len(known) * number // count] for number in range(1, count)]
        at = bisect_right(self._ends, low)
        for number, (slot_low, slot_end) in enumerate(pairwise([low, *cuts, end])):
            slot = Slot(slot_low, slot_end, self._next_number, since)
            self._next_number += 1
            self._slots.insert(at + number, slot)
            self._ends.insert(at + number, slot_end)
            self._put(slot, batch)
        self.note(since, rows, batch)

    def drop_within(self, low: bytes, end: bytes, batch: rocks.Batch) -> None:
        """Give up the slots that have some of these keys."""
        while True:
            at = bisect_right(self._ends, low)
            if at == len(self._slots) or self._slots[at].low >= end:
                return
            self._drop(self._slots[at], batch)

    def _drop(self, slot: Slot, batch: rocks.Batch) -> None:
        at = bisect_left(self._ends, slot.end)
        assert self._slots[at] is slot, "a slot is dropped once"
        del self._slots[at], self._ends[at]
        batch.delete(self._extent_prefix + slot.end)
        # A layer that is still in this batch stays behind: nobody will look for it, as no number is used twice.
        for physical, _ in self._entries(slot):
            batch.delete(physical)

    def _entries(self, slot: Slot) -> Iterator[tuple[bytes, bytes]]:
        prefix = self._layer_prefix + _NUMBER.pack(slot.number)
        for physical, stored in self._database.items(False, prefix, rocks.sweeping_read()):
            if not physical.startswith(prefix):
                return
            yield physical, stored

    # Reading -----------------------------------------------------------------------------------------------------

    def next_low(self, position: bytes) -> bytes | None:
        """Where the first slot behind the position begins."""
        at = bisect_right(self._slots, position, key=_low)
        return self._slots[at].low if at < len(self._slots) else None

    def slot_at(self, position: bytes, limit: bytes, t: Timestamp) -> Slot | None:
        """The slot that begins at the position, ends at ``limit`` or before, and has all rows as of ``t``."""
        at = bisect_right(self._ends, position)
        if at == len(self._slots):
            return None
        slot = self._slots[at]
        return slot if slot.low == position and slot.end <= limit and slot.since <= t else None

    def read(self, slot: Slot, t: Timestamp, padding: bytes) -> Layers:
        """The slot's layers up to ``t``."""
        key_lengths: list[memoryview] = []
        value_lengths: list[memoryview] = []
        keys: list[memoryview] = []
        values: list[memoryview | bytes] = []
        since, changed = slot.since, None
        t_at = len(self._layer_prefix) + _NUMBER.size
        for physical, stored in self._entries(slot):
            (written_at,) = _NUMBER.unpack_from(physical, t_at)
            if written_at > t:
                changed = written_at
                break
            since = written_at
            rows, key_bytes = _LAYER.unpack_from(stored)
            content = memoryview(stored)
            lengths_bytes = rows * LENGTH_BYTES
            behind_keys = _LAYER.size + lengths_bytes
            behind_lengths = behind_keys + lengths_bytes
            key_lengths.append(content[_LAYER.size : behind_keys])
            value_lengths.append(content[behind_keys:behind_lengths])
            keys.append(content[behind_lengths : behind_lengths + key_bytes])
            values.append(content[behind_lengths + key_bytes :])
        values.append(padding)
        join = b"".join
        return Layers(join(key_lengths), join(value_lengths), join(keys), join(values), since, changed)


def _low(slot: Slot) -> bytes:
    return slot.low


def _key(mutation: Mutation) -> bytes:
    return mutation[0]
