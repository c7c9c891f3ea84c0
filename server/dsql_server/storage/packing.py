"""Packs rows that lie still: what came row by row, in any order, or was changed since it was packed.

A walk over all keys, a little at a time while nothing is written; ranges that are packed are stepped over. A walk that
came to the end begins again only after something was written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from dsql_server.encoding.keys import RELATION_PREFIX_BYTES, prefix_end
from dsql_server.interfaces.messages import Timestamp
from dsql_server.storage import rocks
from dsql_server.storage.columns import visible_places
from dsql_server.storage.entries import VERSION_BYTES, Entries, Run
from dsql_server.storage.packed_rows import PACK_ROWS_MIN, PackedRows, is_row

#: Calls without a write before, after which rows count as lying still.
QUIET_CALLS_MIN = 4
#: Versions that one call reads, and of which a pack is made: about a millisecond.
STEP_ENTRIES = 1000
TIMESTAMP_MAX = 2**64 - 1
_NEWEST = bytes(VERSION_BYTES)


class Packer:
    """Packs the rows of one node's database; ``reserved`` and the keys above it are none of rows."""

    def __init__(self, database: rocks.Database, packs: PackedRows, reserved: bytes, row_tag: int) -> None:
        self._database = database
        self._packs = packs
        self._reserved = reserved
        self._row_tag = row_tag
        self._position = b""
        self._walked_up_to: Timestamp = -1  #: the walk that ended last has seen everything up to here
        self._seen: Timestamp = -1
        self._quiet_calls = 0

    def work(self, applied_up_to: Timestamp, boundaries: Sequence[bytes]) -> None:
        """Take one step, if nothing was applied for a while. Meant to be called again and again.

        ``boundaries``, in order, are where reads may begin: no pack goes across one.
        """
        if applied_up_to != self._seen:
            self._seen, self._quiet_calls = applied_up_to, 0
            self._position = b""
            return
        self._quiet_calls += 1
        if self._quiet_calls >= QUIET_CALLS_MIN and self._walked_up_to != applied_up_to:
            self._step(boundaries)
            if self._position >= self._reserved:
                self._walked_up_to = applied_up_to

    def _step(self, boundaries: Sequence[bytes]) -> None:
        start = self._packs.end_of_packs_from(self._position)
        if start >= self._reserved:
            self._position = start
            return
        at = bisect_right(boundaries, start)
        behind = (self._packs.next_low(start), boundaries[at] if at < len(boundaries) else None)
        limit = min([self._reserved, *(key for key in behind if key is not None)])
        run, self._position = Entries(self._database, self._reserved).take(start, limit, STEP_ENTRIES)
        if not len(run):
            return
        relation_end = prefix_end(run.keys[:RELATION_PREFIX_BYTES])
        if self._position > relation_end:
            # Of one relation at a time, and of none that has something else than rows.
            run, self._position = Entries(self._database, self._reserved).take(start, relation_end, None)
        if not is_row(run.values(b"")[1:]):
            self._position = relation_end
            return
        self._pack(start, run)

    def _pack(self, start: bytes, run: Run) -> None:
        places, _ = visible_places(run.keys, run.key_lengths, _NEWEST)
        stored, keys, tag = run.values(b""), run.keys, self._row_tag
        ends = list(accumulate(run.value_lengths, initial=0))
        visible = [(ends[place], ends[place + 1]) for place in places.tolist()]
        values = [stored[begin + 1 : end] for begin, end in visible if stored[begin] == tag]
        if len(values) >= PACK_ROWS_MIN:
            newest = min([keys[end - VERSION_BYTES : end] for end in accumulate(run.key_lengths)])
            batch = rocks.new_batch()
            first = keys[: run.key_lengths[0] - VERSION_BYTES]
            # Up to there only, so that a read that ends behind it finds all of the pack; the next pack begins there.
            end = self._position = keys[-run.key_lengths[-1] : -VERSION_BYTES] + b"\0"
            self._packs.add((start, first, end), TIMESTAMP_MAX - int.from_bytes(newest, "big"), values, batch)
            self._database.write(batch)
