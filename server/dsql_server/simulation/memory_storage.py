"""Storage in memory: all versions of all keys, for simulations and tests of the commit path."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from zlib import crc32

from dsql_server.interfaces.commit_path import (
    Aggregate,
    GroupColumn,
    GroupSteps,
    ScanRequest,
    ScanResult,
    Steps,
    look_up,
)
from dsql_server.interfaces.messages import Mutation, Timestamp


class MemoryNode:
    """One storage node. Implements StorageReader without aggregates and predicates, and StorageApplier.

    ``checkpoint`` remembers a state and ``crash`` goes back to it, as a node does that loses its memory.
    """

    def __init__(self) -> None:
        self.versions: dict[bytes, tuple[list[Timestamp], list[bytes | None]]] = {}
        self._positions: dict[str, int] = {}
        self.applied_up_to: Timestamp = 0
        self._durable: list[tuple[bytes, Timestamp, bytes | None]] = []
        self._durable_positions: dict[str, int] = {}

    def get(self, key: bytes, t: Timestamp) -> bytes | None:
        found = self.versions.get(key)
        if found is None:
            return None
        at = bisect_right(found[0], t)
        return found[1][at - 1] if at else None

    def get_many(self, keys: Sequence[bytes], t: Timestamp) -> list[bytes | None]:
        return [self.get(key, t) for key in keys]

    def scan(self, request: ScanRequest) -> ScanResult:
        assert not request.predicate and request.projection is None, "this storage returns whole rows only"
        keys = sorted(key for key in self.versions if request.start <= key < request.end)
        if request.reverse:
            keys.reverse()
        found = [(key, self.get(key, request.t)) for key in keys]
        rows = [(key, value) for key, value in found if value is not None]
        return ScanResult(rows[: request.limit], len(found), 0)

    def look_up(self, start: bytes, end: bytes, t: Timestamp) -> list[bytes]:
        return look_up(self, start, end, t)

    def aggregate(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> list[object]:
        raise NotImplementedError("storage in memory has no aggregates")

    def aggregate_steps(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> Steps:
        raise NotImplementedError("storage in memory has no aggregates")

    def group_steps(
        self, request: ScanRequest, columns: Sequence[GroupColumn], aggregates: Sequence[Aggregate], groups_max: int
    ) -> GroupSteps:
        raise NotImplementedError("storage in memory has no aggregates")

    def estimate_rows(self, start: bytes, end: bytes, t: Timestamp) -> int:
        return len(self.scan(ScanRequest(start, end, t)).rows)

    def apply_batch(self, batch: Sequence[tuple[Timestamp, Sequence[Mutation]]], positions: Mapping[str, int]) -> None:
        for t_commit, mutations in batch:
            for key, value in mutations:
                self._put(key, t_commit, value)
            if t_commit > self.applied_up_to:
                self.applied_up_to = t_commit
        self._positions.update(positions)

    def applied_positions(self) -> dict[str, int]:
        return dict(self._positions)

    def checkpoint(self) -> dict[str, int]:
        self._durable = [
            (key, t, value)
            for key, (times, values) in self.versions.items()
            for t, value in zip(times, values, strict=True)
        ]
        self._durable_positions = dict(self._positions)
        return dict(self._positions)

    def crash(self) -> None:
        """Forget everything since the last checkpoint."""
        self.versions = {}
        self.applied_up_to = 0
        for key, t, value in self._durable:
            self._put(key, t, value)
            self.applied_up_to = max(self.applied_up_to, t)
        self._positions = dict(self._durable_positions)

    def _put(self, key: bytes, t: Timestamp, value: bytes | None) -> None:
        times, values = self.versions.setdefault(key, ([], []))
        at = bisect_left(times, t)
        if at < len(times) and times[at] == t:
            values[at] = value
        else:
            times.insert(at, t)
            values.insert(at, value)


class MemoryRouter:
    """Deals keys to nodes by hash. Implements StorageRouter and StorageReader."""

    def __init__(self, nodes: int = 2) -> None:
        self.nodes = [MemoryNode() for _ in range(nodes)]

    def appliers(self) -> list[MemoryNode]:
        return self.nodes

    def prepare(self, t: Timestamp, mutations: Sequence[Mutation], is_over: Callable[[], bool]) -> bool:
        """Nothing is worth preparing in memory."""
        return is_over()

    def split(self, mutations: Sequence[Mutation]) -> list[tuple[int, list[Mutation]]]:
        parts: dict[int, list[Mutation]] = {}
        for mutation in mutations:
            parts.setdefault(self.index(mutation.key), []).append(mutation)
        return list(parts.items())

    def index(self, key: bytes) -> int:
        return crc32(key) % len(self.nodes)

    def get(self, key: bytes, t: Timestamp) -> bytes | None:
        return self.nodes[self.index(key)].get(key, t)

    def get_many(self, keys: Sequence[bytes], t: Timestamp) -> list[bytes | None]:
        return [self.get(key, t) for key in keys]

    def scan(self, request: ScanRequest) -> ScanResult:
        results = [node.scan(request) for node in self.nodes]
        rows = sorted((row for result in results for row in result.rows), reverse=request.reverse)
        return ScanResult(rows[: request.limit], sum(result.examined for result in results), 0)

    def look_up(self, start: bytes, end: bytes, t: Timestamp) -> list[bytes]:
        return look_up(self, start, end, t)

    def aggregate(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> list[object]:
        raise NotImplementedError("storage in memory has no aggregates")

    def aggregate_steps(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> Steps:
        raise NotImplementedError("storage in memory has no aggregates")

    def group_steps(
        self, request: ScanRequest, columns: Sequence[GroupColumn], aggregates: Sequence[Aggregate], groups_max: int
    ) -> GroupSteps:
        raise NotImplementedError("storage in memory has no aggregates")

    def estimate_rows(self, start: bytes, end: bytes, t: Timestamp) -> int:
        return len(self.scan(ScanRequest(start, end, t)).rows)
