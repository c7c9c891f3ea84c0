"""Blocks of rows, seen by column, that aggregates have read: kept as long as nobody writes to their keys.

Tables are read from end to end, again and again. So a full cache keeps what it has as long as that is used, instead of
giving up each block just before it would be wanted again.

A block has the visible rows of all keys from its start up to its end as of one timestamp, and so they are at every
later one below the first change of such a key. Blocks never overlap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsql_server.interfaces.messages import Mutation, Timestamp

if TYPE_CHECKING:
    from dsql_server.storage.columns import RowBatch

CACHE_BYTES = 96 * 1024 * 1024
#: A full cache gives up blocks that so many requests haven't used.
UNUSED_REQUESTS_MIN = 16
_NEVER: Timestamp = 2**64 - 1


@dataclass(eq=False)
class Block:
    """The rows of start <= key < end, as they are from ``since`` on and before ``changed``."""

    start: bytes
    end: bytes
    since: Timestamp
    batch: RowBatch
    changed: Timestamp = _NEVER
    counted_bytes: int = 0
    last_use: int = 0  #: number of the request

    def holds_at(self, t: Timestamp) -> bool:
        return self.since <= t < self.changed


class BlockCache:
    """The blocks of one node, within ``CACHE_BYTES``."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache_bytes = cache_bytes
        self._starts: list[bytes] = []
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()  #: by start, the one used last at the end
        self._bytes = 0
        self._requests = 0

    def begin_use(self) -> None:
        """A request begins."""
        self._requests += 1

    def __len__(self) -> int:
        return len(self._starts)

    def around(self, key: bytes) -> Block | None:
        """The block whose range has the key."""
        at = bisect_right(self._starts, key) - 1
        if at < 0:
            return None
        block = self._blocks[self._starts[at]]
        return block if key < block.end else None

    def next_start(self, key: bytes) -> bytes | None:
        """Where the first block behind the key begins."""
        at = bisect_right(self._starts, key)
        return self._starts[at] if at < len(self._starts) else None

    def use(self, block: Block) -> None:
        """Note that the block was used, and what it takes by now."""
        if self._blocks.get(block.start) is not block:
            return
        self._blocks.move_to_end(block.start)
        block.last_use = self._requests
        self._count(block)
        if self._bytes > self._cache_bytes:
            self._shrink(block)

    def _count(self, block: Block) -> None:
        size = block.batch.bytes_held
        self._bytes += size - block.counted_bytes
        block.counted_bytes = size

    def _shrink(self, newest: Block) -> None:
        """Give up what nobody uses any more; failing that, the columns found last, and then the block used last."""
        while self._bytes > self._cache_bytes:
            oldest = next(iter(self._blocks.values()))
            if self._requests - oldest.last_use < UNUSED_REQUESTS_MIN:
                break
            self.drop(oldest)
        if self._bytes > self._cache_bytes:
            newest.batch.forget_columns()
            self._count(newest)
        if self._bytes > self._cache_bytes:
            self.drop(newest)

    def put(self, block: Block) -> None:
        """Keep a block; its range is free, or that of one block, which it replaces."""
        before = self._blocks.get(block.start)
        if before is not None:
            self.drop(before)
        self._starts.insert(bisect_right(self._starts, block.start), block.start)
        self._blocks[block.start] = block
        self.use(block)

    def drop(self, block: Block) -> None:
        del self._blocks[block.start]
        self._starts.pop(bisect_right(self._starts, block.start) - 1)
        self._bytes -= block.counted_bytes

    def note_changes(self, t: Timestamp, mutations: Sequence[Mutation]) -> None:
        """Keys were written at ``t``."""
        for key, _ in mutations:
            block = self.around(key)
            if block is not None and t < block.changed:
                block.changed = t

    def clear(self) -> None:
        """Give the memory free."""
        self._starts.clear()
        self._blocks.clear()
        self._bytes = 0
