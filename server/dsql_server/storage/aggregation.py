"""Partial aggregates over a node's versions of a key range, as of a timestamp, block by block."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from dsql_server.interfaces.commit_path import Aggregate, GroupColumn, GroupSteps, ScanRequest, Steps
from dsql_server.interfaces.messages import Timestamp
from dsql_server.storage import rocks
from dsql_server.storage.aggregates import PartialAggregates
from dsql_server.storage.column_cache import Block, BlockCache
from dsql_server.storage.column_tests import BatchTest
from dsql_server.storage.columns import PADDING, RowBatch, newest_places
from dsql_server.storage.groups import Groups
from dsql_server.storage.packed_rows import LENGTH_BYTES, PackedRows
from dsql_server.storage.visible_rows import VisibleRows

TIMESTAMP_MAX = 2**64 - 1
#: Versions that are read together, and of which a block is made.
BLOCK_ENTRIES = 16_384
#: A block from the cache takes so little time that others have their turn only after some.
CACHED_BLOCKS_PER_STEP = 16
#: A range of fewer rows is read again sooner than kept.
CACHED_ROWS_MIN = 512
_ROW_TAG = 1


class Aggregator:
    """Aggregates over the versions in a database. ``reserved`` and the keys above it are none of rows."""

    def __init__(self, database: rocks.Database, cache: BlockCache, packs: PackedRows, reserved: bytes) -> None:
        self._database = database
        self._packs = packs
        self._cache = cache
        self._reserved = reserved
        self.examined = 0  #: versions read

    def steps(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> Steps:
        """The aggregates' values; see :meth:`PartialAggregates.results`."""
        partial = PartialAggregates(aggregates)
        yield from self._take_in(request, partial)
        return partial.results()

    def group_steps(
        self,
        requests: Sequence[ScanRequest],
        columns: Sequence[GroupColumn],
        aggregates: Sequence[Aggregate],
        groups_max: int,
    ) -> GroupSteps:
        """The aggregates' values of each group of the rows of all requests. Raises TooManyGroups."""
        groups = Groups(columns, aggregates, groups_max)
        for request in requests:
            yield from self._take_in(request, groups)
        return groups.results()

    def _take_in(self, request: ScanRequest, partial: PartialAggregates | Groups) -> Generator[None, None, None]:
        """Hand the rows of the request over, a step at a time."""
        test = BatchTest(request.predicate) if request.predicate else None
        position, end = request.start, min(request.end, self._reserved)
        rows = VisibleRows(self._database, self._reserved)
        used = 0
        is_long = isinstance(partial, Groups)  # each block takes long, wherever it comes from
        self._cache.begin_use()
        while position < end:
            block, is_cached = self._block(rows, position, end, request)
            batch = block.batch.view()
            if test is not None:
                test.apply(batch)
            partial.add_batch(batch)
            self._cache.use(block)
            position = block.end
            used += CACHED_BLOCKS_PER_STEP if is_long or not is_cached else 1
            if used >= CACHED_BLOCKS_PER_STEP and position < end:
                used = 0
                yield

    def _block(self, rows: VisibleRows, position: bytes, end: bytes, request: ScanRequest) -> tuple[Block, bool]:
        """Rows from ``position`` on, and whether the cache had them."""
        t = request.t
        known = self._cache.around(position)
        if known is not None:
            is_wanted = known.start == position and known.end <= end
            if is_wanted and known.holds_at(t):
                return known, True
            limit = min(known.end, end)
            block = self._layered(position, limit, t) or self._read(rows, position, limit, t, is_whole=True)
            if is_wanted and t >= known.since:
                self._cache.put(block)
            return block, False
        limit = min(end, self._cache.next_start(position) or end)
        kept = self._packed(position, limit, t) or self._layered(position, limit, t)
        if kept is None:
            behind = (self._packs.next_low(position), self._packs.layers.next_low(position))
            limit = min([limit, *(low for low in behind if low is not None)])
        block = kept or self._read(rows, position, limit, t, is_whole=False)
        if len(block.batch) >= CACHED_ROWS_MIN or position != request.start:
            self._cache.put(block)
        return block, False

    def _packed(self, position: bytes, limit: bytes, t: Timestamp) -> Block | None:
        """Rows from ``position`` on as they are packed, if they are."""
        run = self._packs.run(position, limit, t, BLOCK_ENTRIES)
        if not run:
            return None
        lengths, values = [], []
        for pack, stored in zip(run, self._packs.read(run), strict=True):
            lengths.append(np.frombuffer(stored, "<u4", pack.rows))
            values.append(stored[pack.rows * LENGTH_BYTES :])
        of_all = np.concatenate(lengths) + 1  # with their tags
        self.examined += len(of_all)
        batch = RowBatch(b"".join((*values, PADDING)), of_all, np.arange(len(of_all)), _ROW_TAG)
        return Block(position, run[-1].end, max(pack.since for pack in run), batch)

    def _layered(self, position: bytes, limit: bytes, t: Timestamp) -> Block | None:
        """The rows of a slot that begins at ``position``, if there is one."""
        layers = self._packs.layers
        slot = layers.slot_at(position, limit, t)
        if slot is None:
            return None
        found = layers.read(slot, t, PADDING)
        key_lengths = np.frombuffer(found.key_lengths, np.dtype(np.uint32).newbyteorder("<"))
        lengths = np.frombuffer(found.value_lengths, key_lengths.dtype)
        self.examined += len(lengths)
        batch = RowBatch(found.values, lengths, newest_places(found.keys, key_lengths), _ROW_TAG)
        changed = TIMESTAMP_MAX if found.changed is None else found.changed
        return Block(position, slot.end, found.since, batch, changed)

    def _read(self, rows: VisibleRows, start: bytes, limit: bytes, t: Timestamp, is_whole: bool) -> Block:
        """The rows from ``start`` up to ``limit``; unless ``is_whole``, of so many versions as make a block."""
        run, end = rows.take(start, limit, None if is_whole else BLOCK_ENTRIES, t)
        self.examined += run.examined
        batch = RowBatch(run.stored, run.lengths, run.places, _ROW_TAG)
        return Block(start, end, t, batch, TIMESTAMP_MAX if run.changed is None else run.changed)
