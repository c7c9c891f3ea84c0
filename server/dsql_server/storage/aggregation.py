"""Partial aggregates over a node's versions of a key range, as of a timestamp, block by block."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from struct import Struct

from dsql_server.interfaces.commit_path import Aggregate, ScanRequest, Steps
from dsql_server.interfaces.messages import Timestamp
from dsql_server.storage import rocks
from dsql_server.storage.aggregates import PartialAggregates
from dsql_server.storage.column_cache import Block, BlockCache
from dsql_server.storage.column_tests import BatchTest
from dsql_server.storage.columns import VERSION_BYTES, RowBatch, visible_places

TIMESTAMP_MAX = 2**64 - 1
#: Versions that are read together, and of which a block is made.
BLOCK_ENTRIES = 16_384
#: Read before that: many ranges end soon.
FIRST_ENTRIES = 256
#: A block from the cache takes so little time that others have their turn only after some.
CACHED_BLOCKS_PER_STEP = 16
#: A range of fewer rows is read again sooner than kept.
CACHED_ROWS_MIN = 512
_ROW_TAG = 1
_pack = Struct(">Q").pack


class Aggregator:
    """Aggregates over the versions in a database. ``reserved`` and the keys above it are none of rows."""

    def __init__(self, database: rocks.Database, cache: BlockCache, reserved: bytes) -> None:
        self._database = database
        self._cache = cache
        self._reserved = reserved
        self.examined = 0  #: versions read

    def steps(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> Steps:
        """The aggregates' values; see :meth:`PartialAggregates.results`."""
        test = BatchTest(request.predicate) if request.predicate else None
        partial = PartialAggregates(aggregates)
        position, end = request.start, min(request.end, self._reserved)
        used = 0
        self._cache.begin_use()
        while position < end:
            block, is_cached = self._block(position, end, request)
            batch = block.batch.view()
            if test is not None:
                test.apply(batch)
            partial.add_batch(batch)
            self._cache.use(block)
            position = block.end
            used += 1 if is_cached else CACHED_BLOCKS_PER_STEP
            if used >= CACHED_BLOCKS_PER_STEP and position < end:
                used = 0
                yield
        return partial.results()

    def _block(self, position: bytes, end: bytes, request: ScanRequest) -> tuple[Block, bool]:
        """Rows from ``position`` on, and whether the cache had them."""
        t = request.t
        known = self._cache.around(position)
        if known is not None:
            if known.start == position and known.end <= end:
                if known.holds_at(t):
                    return known, True
                if t >= known.since:
                    block = self._read(position, known.end, t, is_whole=True)
                    self._cache.put(block)
                    return block, False
            return self._read(position, min(known.end, end), t, is_whole=True), False
        behind = self._cache.next_start(position)
        block = self._read(position, end if behind is None else min(behind, end), t, is_whole=False)
        if len(block.batch) >= CACHED_ROWS_MIN or position != request.start:
            self._cache.put(block)
        return block, False

    def _read(self, start: bytes, limit: bytes, t: Timestamp, is_whole: bool) -> Block:
        """The rows from ``start`` up to ``limit``; unless ``is_whole``, of so many versions as make a block."""
        keys: list[bytes] = []
        stored: list[bytes] = []
        end = limit
        for more_keys, more_stored in self._pieces(start):
            keys += more_keys
            stored += more_stored
            last = keys[-1][:-VERSION_BYTES]
            if last >= limit:
                end = limit
                break
            if not is_whole and len(keys) >= BLOCK_ENTRIES and last != keys[0][:-VERSION_BYTES]:
                end = last  # whose versions may go on
                break
        self.examined += len(keys)
        first, size = 0, bisect_left(keys, end, key=_without_version)
        # A key that the start prolongs: its versions may sort behind the start.
        while first < size and keys[first][:-VERSION_BYTES] < start:
            first += 1
        if first or size < len(keys):
            keys, stored = keys[first:size], stored[first:size]
        places, later = visible_places(keys, _pack(TIMESTAMP_MAX - t))
        changed = TIMESTAMP_MAX if later is None else TIMESTAMP_MAX - later
        return Block(start, end, t, RowBatch(stored, places, _ROW_TAG), changed)

    def _pieces(self, start: bytes) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Physical keys and stored values from ``start`` on, many at a time."""
        options = rocks.sweeping_read()
        # Two iterators over one state of the database: cheaper than one that makes a pair of each entry.
        keys, values = self._database.keys(False, start, options), self._database.values(False, start, options)
        size = FIRST_ENTRIES
        while piece := list(islice(keys, size)):
            yield piece, list(islice(values, size))
            size = BLOCK_ENTRIES


def _without_version(physical: bytes) -> bytes:
    return physical[:-VERSION_BYTES]
