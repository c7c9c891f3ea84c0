"""Stored rows seen by column, many at a time: what makes aggregates over millions of rows bearable.

A *batch* holds some thousands of stored rows in one buffer. Fields are found by walking all rows at once: the length
in front of each row's first field, then of its second, and so on (:mod:`dsql_server.encoding.rows` has the layout).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsql_server.encoding.keys import RELATION_PREFIX_BYTES
from dsql_server.encoding.rows import FIELD_COUNT_BYTES

Integers = NDArray[np.int64]
Places = NDArray[np.int32] | NDArray[np.int64]
Flags = NDArray[np.bool_]

VERSION_BYTES = 8
_LENGTH_BYTES = 4  #: int32 in front of each field
#: Behind the last row of a batch, so that a read of the widest number may begin at any byte of a row.
PADDING = bytes(16)
_NULL_LENGTH = -1
_WORD_BYTES = 8
#: 2^64 divided by the golden ratio, as Fibonacci hashing has it.
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HASH_SHIFT = np.uint64(32)


def visible_places(keys: bytes, lengths: Sequence[int], newest: bytes) -> tuple[Integers, int | None]:
    """The places of the visible version of each key, tombstones among them, among all versions of some keys in order.

    ``keys`` are the physical keys, one behind the other, ``lengths`` those of each. ``newest`` is the inverted
    timestamp of the snapshot: versions with smaller ones were committed after it. Of those, the second value is the
    greatest: the first change behind the snapshot; None where there is none.
    """
    if not lengths:
        return np.empty(0, np.int64), None
    width = lengths[0]
    if lengths.count(width) != len(lengths):
        return _visible_of_any_width(keys, lengths, newest)
    table = np.frombuffer(keys, np.uint8).reshape(len(lengths), width)
    versions = np.ascontiguousarray(table[:, width - VERSION_BYTES :]).view(">u8").ravel()
    is_candidate = versions >= np.uint64(int.from_bytes(newest, "big"))
    later: int | None = None
    candidates: Integers = np.arange(len(lengths))
    if not is_candidate.all():
        later = int(versions[~is_candidate].max())
        candidates = np.flatnonzero(is_candidate)
        table = table[candidates]
    logical = np.ascontiguousarray(table[:, : width - VERSION_BYTES]).view(f"V{width - VERSION_BYTES}").ravel()
    is_first = np.ones(len(candidates), np.bool_)
    is_first[1:] = logical[1:] != logical[:-1]
    return candidates[is_first], later


def _visible_of_any_width(keys: bytes, lengths: Sequence[int], newest: bytes) -> tuple[Integers, int | None]:
    last: bytes | None = None
    found: list[int] = []
    later = b""
    end = 0
    for place, length in enumerate(lengths):
        begin, end = end, end + length
        key, version = keys[begin : end - VERSION_BYTES], keys[end - VERSION_BYTES : end]
        if version < newest:
            later = max(later, version)
        elif key != last:
            last = key
            found.append(place)
    return np.array(found, np.int64), int.from_bytes(later, "big") if later else None


def newest_places(keys: bytes, lengths: NDArray[np.uint32]) -> Integers:
    """The places of the last of all equal keys, of which ``keys`` has one behind the other."""
    everywhere: Integers = np.arange(len(lengths))
    width = int(lengths[0]) if len(lengths) else 0
    ends = np.cumsum(lengths, dtype=np.int64)
    if width < RELATION_PREFIX_BYTES + _WORD_BYTES or not (lengths == width).all():
        candidates = everywhere
    else:
        hashes = _hashes(keys, width, len(lengths))
        in_order = np.sort(hashes)
        repeated = in_order[1:][in_order[1:] == in_order[:-1]]
        if not len(repeated):
            return everywhere
        candidates = np.flatnonzero(np.isin(hashes, repeated))
    last: dict[bytes, int] = {}
    for place, end, length in zip(
        candidates.tolist(), ends[candidates].tolist(), lengths[candidates].tolist(), strict=True
    ):
        last[keys[end - length : end]] = place
    is_newest = np.ones(len(lengths), np.bool_)
    is_newest[candidates] = False
    is_newest[list(last.values())] = True
    return everywhere[is_newest]


def _hashes(keys: bytes, width: int, count: int) -> NDArray[np.uint64]:
    """Of keys of one length and one relation."""
    hashes = np.zeros(count, np.uint64)
    for at in (*range(RELATION_PREFIX_BYTES, width - _WORD_BYTES, _WORD_BYTES), width - _WORD_BYTES):
        words: NDArray[np.uint64] = np.ndarray((count,), "<u8", keys, at, (width,))
        hashes = (hashes ^ words) * _HASH_FACTOR
        hashes ^= hashes >> _HASH_SHIFT
    return hashes


class Column:
    """One field of every row of a batch: where its bytes begin, and how many they are (-1: NULL)."""

    __slots__ = ("at", "batch", "lengths")

    def __init__(self, batch: RowBatch, at: Places, lengths: Places) -> None:
        self.batch = batch
        self.at = at
        self.lengths = lengths

    @property
    def present(self) -> Flags:
        """Which rows have a value here."""
        return self.lengths >= 0

    def values(self) -> Column:
        """The column without the rows where it is NULL."""
        present = self.present
        return self if present.all() else Column(self.batch, self.at[present], self.lengths[present])

    def integers(self, width: int) -> Integers:
        """The fields as signed big-endian integers of ``width`` bytes; meaningless where they are NULL."""
        return self.batch.read(self.at, f">i{width}")

    def fields(self) -> list[bytes]:
        """The fields as bytes; of a column without NULLs."""
        buffer = self.batch.buffer
        return [buffer[at : at + length] for at, length in zip(self.at.tolist(), self.lengths.tolist(), strict=True)]

    def equals(self, value: bytes) -> Flags:
        """Which fields are exactly these bytes."""
        found: Flags = self.lengths == len(value)
        if value and found.any():
            places = np.flatnonzero(found)
            content = self.batch.bytes[self.at[places, None] + np.arange(len(value))]
            found[places] = (content == np.frombuffer(value, np.uint8)).all(axis=1)
        return found


class RowBatch:
    """Rows out of stored values; each value is one tag byte and the row.

    ``buffer`` has the values one behind the other and ``PADDING`` at its end; ``places`` says which ones to take.
    """

    def __init__(self, buffer: bytes, lengths: Sequence[int] | NDArray[Any], places: Integers, row_tag: int) -> None:
        self.buffer = buffer
        self.bytes = np.frombuffer(buffer, np.uint8)
        sizes = np.array(lengths, np.int64)
        ends = np.cumsum(sizes)
        tags = (ends - sizes)[places]
        is_row = self.bytes[tags] == row_tag
        self.starts: Integers = tags[is_row] + 1
        self.ends: Integers = ends[places][is_row]
        self._counts: Integers | None = None
        self._columns: list[Column] = []
        self._whole: RowBatch | None = None  #: what this is a view of, as long as no row is left out

    def __len__(self) -> int:
        return len(self.starts)

    def view(self) -> RowBatch:
        """The same rows, to be filtered; columns that it finds before are found for this batch, too."""
        view: RowBatch = object.__new__(RowBatch)
        view.__dict__ = self.__dict__.copy()
        view._columns = self._columns.copy()
        view._whole = self
        return view

    @property
    def bytes_held(self) -> int:
        """What it takes in memory, about."""
        return len(self.buffer) + len(self.starts) * (16 + 8 * len(self._columns))

    def forget_columns(self) -> None:
        """Give their memory free."""
        self._columns = []

    def read(self, at: Places, kind: str) -> Integers:
        """Numbers of a numpy type at these offsets, wherever they lie."""
        size = np.dtype(kind).itemsize
        everywhere: NDArray[Any] = np.ndarray((len(self.buffer) - size + 1,), kind, self.buffer, 0, (1,))
        numbers: Integers = everywhere[at].astype(np.int64)
        return numbers

    def keep(self, wanted: Flags) -> None:
        """Go on with these rows only."""
        if wanted.all():
            return
        if self._whole is not None:
            self._counts, self._columns = self._whole._counts, self._whole._columns
            self._whole = None
        self.starts, self.ends = self.starts[wanted], self.ends[wanted]
        if self._counts is not None:
            self._counts = self._counts[wanted]
        self._columns = [Column(self, c.at[wanted], c.lengths[wanted]) for c in self._columns]

    def column(self, number: int) -> Column:
        """Field ``number`` (from 0); NULL where a row has fewer fields."""
        if self._whole is not None:
            return self._whole.column(number)
        while len(self._columns) <= number:
            self._columns.append(self._next_column())
        return self._columns[number]

    def _next_column(self) -> Column:
        if self._counts is None:
            self._counts = self.read(self.starts, ">i2")
        number = len(self._columns)
        if number:
            before = self._columns[-1]
            at = before.at + np.maximum(before.lengths, 0)
        else:
            at = self.starts + FIELD_COUNT_BYTES
        is_missing = self._counts <= number
        if is_missing.any():
            # A row ends there; its place stays inside of the buffer for the columns behind.
            at = np.minimum(at, self.ends - _LENGTH_BYTES)
        lengths = self.read(at, ">i4").astype(np.int32)
        lengths[is_missing] = _NULL_LENGTH
        # Batches are small enough for 4 bytes.
        return Column(self, (at + _LENGTH_BYTES).astype(np.int32), lengths)

    def rows(self) -> list[bytes]:
        """The rows as they are stored."""
        buffer = self.buffer
        return [buffer[start:end] for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True)]
