"""Partial aggregates over a node's versions of a key range, as of a timestamp."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from struct import Struct

from dsql_server.interfaces.commit_path import Aggregate, ScanRequest
from dsql_server.storage.aggregates import PartialAggregates
from dsql_server.storage.column_tests import BatchTest
from dsql_server.storage.columns import VERSION_BYTES, RowBatch, VersionSieve

TIMESTAMP_MAX = 2**64 - 1
_ROW_TAG = 1
_pack = Struct(">Q").pack


class Aggregation:
    """Takes in physical keys and stored values in key order, from the range's start on, until :meth:`add` has enough.

    No key at or above ``reserved`` is looked at.
    """

    def __init__(self, request: ScanRequest, aggregates: Sequence[Aggregate], reserved: bytes) -> None:
        self._start, self._end = request.start, min(request.end, reserved)
        self._sieve = VersionSieve(_pack(TIMESTAMP_MAX - request.t))
        self._test = BatchTest(request.predicate) if request.predicate else None
        self._partial = PartialAggregates(aggregates)

    def add(self, keys: Sequence[bytes], stored: Sequence[bytes]) -> bool:
        """Take in a piece; False: its end lies behind the range's."""
        size = len(keys)
        first = 0
        # A key that the start prolongs: its versions may sort behind the start.
        while first < size and keys[first][:-VERSION_BYTES] < self._start:
            first += 1
        is_last = keys[-1][:-VERSION_BYTES] >= self._end
        if is_last:
            size = bisect_left(keys, self._end, first, key=_without_version)
        if first or is_last:
            keys, stored = keys[first:size], stored[first:size]
        if keys:
            batch = RowBatch(stored, self._sieve.visible(keys), _ROW_TAG)
            if self._test is not None:
                self._test.apply(batch)
            self._partial.add_batch(batch)
        return not is_last

    def results(self) -> list[object]:
        """One value per aggregate; see :meth:`PartialAggregates.results`."""
        return self._partial.results()


def _without_version(physical: bytes) -> bytes:
    return physical[:-VERSION_BYTES]
