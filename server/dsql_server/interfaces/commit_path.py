"""What the query processor sees of everything below it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from dsql_server.interfaces.messages import CommitOutcome, CommitRequest, Timestamp


class Comparison(NamedTuple):
    """One pushed-down condition on one column of a stored row (a COPY BINARY tuple).

    ``column`` counts from 0 over the stored fields. ``operator`` is one of ``= <> < <= > >= in isnull notnull``.
    ``operands`` are order-preserving encodings (no NULL among them) of the column's type ``type_oid``: one for the
    six orderings, any number for ``in``, none for the NULL tests. A NULL field satisfies only ``isnull``.
    """

    column: int
    type_oid: int
    operator: str
    operands: tuple[bytes, ...] = ()


class Aggregate(NamedTuple):
    """A partial aggregate: ``function`` is ``count`` (of rows when column is None), ``sum``, ``min`` or ``max``."""

    function: str
    column: int | None
    type_oid: int


class ScanRequest(NamedTuple):
    """Rows with start <= key < end as of ``t``, in key order (``reverse``: the other way round)."""

    start: bytes
    end: bytes
    t: Timestamp
    predicate: tuple[Comparison, ...] = ()  #: all must hold
    projection: tuple[int, ...] | None = None  #: stored fields to return, in this order; None: the value as stored
    limit: int | None = None
    reverse: bool = False


class ScanResult(NamedTuple):
    rows: list[tuple[bytes, bytes]]  #: key, value
    examined: int  #: versions looked at
    filtered: int  #: rows that the predicate refused


class StorageReader(Protocol):
    """Multi-version reads over all shards. Every answer is exactly the state as of ``t``."""

    def get(self, key: bytes, t: Timestamp) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes], t: Timestamp) -> list[bytes | None]:
        """Values in the order of the keys."""
        ...

    def scan(self, request: ScanRequest) -> ScanResult: ...

    def aggregate(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> list[object]:
        """One Python value per aggregate: int for count, int/Decimal/float or None for the others."""
        ...


class CommitPath(Protocol):
    """The way into the adjudicators and the snapshot to read at."""

    storage: StorageReader

    def begin(self) -> Timestamp:
        """T_start: every acknowledged commit is at or below it, and storage answers reads at it at once."""
        ...

    def commit(self, request: CommitRequest, on_outcome: Callable[[CommitOutcome], None]) -> None:
        """Decide and make durable; ``on_outcome`` is called exactly once, on the event loop's thread."""
        ...

    def lease_sequence(self, key: bytes, count: int, on_lease: Callable[[int], None]) -> None:
        """Durably reserve ``count`` values of the counter at ``key``; calls back with the first (counters start at 0)."""
        ...
