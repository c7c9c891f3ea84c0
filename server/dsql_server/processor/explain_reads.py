"""What a statement reads from storage, noted for EXPLAIN ANALYZE."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dsql_server.encoding.keys import RELATION_PREFIX_BYTES
from dsql_server.interfaces.commit_path import (
    Aggregate,
    GroupColumn,
    GroupSteps,
    ScanRequest,
    ScanResult,
    Steps,
    StorageReader,
    look_up,
)
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import Access, Bound, Row
from dsql_server.processor.plan import LoadPlan, Scan


@dataclass
class Reads:
    """What storage did for one scan, or for all of them."""

    rows: int = 0  #: that it returned, index entries among them
    filtered: int = 0  #: that it left out by the pushed-down conditions
    size_bytes: int = 0  #: keys and values returned
    seconds: float = 0.0
    #: rows returned, by the id of the relation that was read: a table or an index
    by_relation: dict[int, int] = field(default_factory=dict)

    def note(self, key: bytes, rows: Sequence[Row], filtered: int, seconds: float) -> None:
        relation = int.from_bytes(key[:RELATION_PREFIX_BYTES], "big")
        self.rows += len(rows)
        self.filtered += filtered
        self.size_bytes += sum(len(k) + len(v) for k, v in rows)
        self.seconds += seconds
        self.by_relation[relation] = self.by_relation.get(relation, 0) + len(rows)


class MeteredStorage:
    """Storage as it is, with notes of what it was asked. Implements StorageReader."""

    def __init__(self, storage: StorageReader, *notes: Reads) -> None:
        self._storage = storage
        self._notes = notes

    def _note(self, key: bytes, rows: Sequence[Row], filtered: int, began: float) -> None:
        took = time.perf_counter() - began
        for notes in self._notes:
            notes.note(key, rows, filtered, took)

    def get(self, key: bytes, t: Timestamp) -> bytes | None:
        began = time.perf_counter()
        value = self._storage.get(key, t)
        self._note(key, [] if value is None else [(key, value)], 0, began)
        return value

    def get_many(self, keys: Sequence[bytes], t: Timestamp) -> list[bytes | None]:
        began = time.perf_counter()
        values = self._storage.get_many(keys, t)
        if keys:
            self._note(keys[0], [(k, v) for k, v in zip(keys, values, strict=True) if v is not None], 0, began)
        return values

    def scan(self, request: ScanRequest) -> ScanResult:
        began = time.perf_counter()
        result = self._storage.scan(request)
        self._note(request.start, result.rows, result.filtered, began)
        return result

    def look_up(self, start: bytes, end: bytes, t: Timestamp) -> list[bytes]:
        return look_up(self, start, end, t)

    def aggregate(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> list[object]:
        return self._storage.aggregate(request, aggregates)

    def aggregate_steps(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> Steps:
        return self._storage.aggregate_steps(request, aggregates)

    def group_steps(
        self, request: ScanRequest, columns: Sequence[GroupColumn], aggregates: Sequence[Aggregate], groups_max: int
    ) -> GroupSteps:
        return self._storage.group_steps(request, columns, aggregates, groups_max)

    def estimate_rows(self, start: bytes, end: bytes, t: Timestamp) -> int:
        return self._storage.estimate_rows(start, end, t)


class _MeteredAccess(Access):
    """Another access, whose reads are noted."""

    def __init__(self, access: Access, notes: tuple[Reads, ...]) -> None:
        super().__init__(access.table, access.conditions)
        self._access = access
        self._reads = notes

    def rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        return self._access.rows(bound, MeteredStorage(storage, *self._reads), t)


class ReadMeter:
    """The reads of one execution: of all, and by the alias of the scan that they are for."""

    def __init__(self) -> None:
        self.total = Reads()
        self.by_alias: dict[str, Reads] = {}

    def metered(self, plan: LoadPlan) -> LoadPlan:
        """The plan with scans that are noted here; what else it loads isn't."""
        found: LoadPlan = object.__new__(LoadPlan)
        found.__dict__ = {
            **plan.__dict__,
            "scans": [self._scan(scan) for scan in plan.scans],
            "aggregates": None,
            "direct": None,
        }
        return found

    def _scan(self, scan: Scan) -> Scan:
        reads = Reads()
        for alias in (scan.alias, *scan.also):
            self.by_alias[alias] = reads
        return replace(scan, access=_MeteredAccess(scan.access, (reads, self.total)))
