"""What the query processor sees of everything below it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from dsql_server.interfaces.messages import CommitOutcome, CommitRequest, Mutation, Timestamp

_Result = TypeVar("_Result")


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
    predicate: tuple[Comparison, ...] = ()  #: FILTER: of the scan's rows only those for which all hold


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


class GroupColumn(NamedTuple):
    """A stored field, from 0, that GROUP BY names; of a type whose equal values have equal bytes."""

    column: int
    type_oid: int


class TooManyGroups(Exception):
    """Storage doesn't gather so many groups; the query processor has to."""


#: Something long, done a step at a time so that others can work in between; the generator returns the result.
Steps = Generator[None, None, list[object]]
#: As Steps. For each group: the stored bytes of its columns, None for NULL, and the values of its aggregates.
GroupSteps = Generator[None, None, dict[tuple["bytes | None", ...], list[object]]]


def run_to_end(steps: Generator[None, None, _Result]) -> _Result:
    """The result of the steps, taken one after the other."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result


class StorageReader(Protocol):
    """Multi-version reads over all shards. Every answer is exactly the state as of ``t``."""

    def get(self, key: bytes, t: Timestamp) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes], t: Timestamp) -> list[bytes | None]:
        """Values in the order of the keys."""
        ...

    def scan(self, request: ScanRequest) -> ScanResult: ...

    def look_up(self, start: bytes, end: bytes, t: Timestamp) -> list[bytes]:
        """The rows that index entries with start <= key < end point to, each once, in the order of the entries.

        An entry's value is its row's key. Entries may be stale: of another row than the conditions ask for, or of none.
        """
        ...

    def aggregate(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> list[object]:
        """One Python value per aggregate: int for count, int/Decimal/float or None for the others."""
        ...

    def aggregate_steps(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> Steps:
        """As :meth:`aggregate`, a step at a time."""
        ...

    def group_steps(
        self, request: ScanRequest, columns: Sequence[GroupColumn], aggregates: Sequence[Aggregate], groups_max: int
    ) -> GroupSteps:
        """The aggregates of each group of rows, a step at a time. Raises TooManyGroups above ``groups_max``."""
        ...

    def estimate_rows(self, start: bytes, end: bytes, t: Timestamp) -> int:
        """About how many rows or entries there are with start <= key < end; cheap, and exact where they are few."""
        ...


def look_up(storage: StorageReader, start: bytes, end: bytes, t: Timestamp) -> list[bytes]:
    """:meth:`StorageReader.look_up` in terms of the other reads."""
    keys = dict.fromkeys(key for _, key in storage.scan(ScanRequest(start, end, t)).rows)
    return [row for row in storage.get_many(list(keys), t) if row is not None]


class StorageApplier(Protocol):
    """The writing side of a storage node. The journals are the durability: it syncs at checkpoints only."""

    def apply_batch(self, batch: Sequence[tuple[Timestamp, Sequence[Mutation]]], positions: Mapping[str, int]) -> None:
        """Apply transactions in T_commit order, and with them, atomically, how far each journal has been applied.

        ``positions`` names only journals that moved on. Applying a transaction again changes nothing.
        """
        ...

    def applied_positions(self) -> dict[str, int]:
        """Journal name to the last sequence applied; what is missing here is replayed at a start."""
        ...

    def checkpoint(self) -> dict[str, int]:
        """Make everything applied durable; returns the positions up to which it is. May take long, on any thread."""
        ...


class StorageRouter(Protocol):
    """Knows which storage node owns a key."""

    def appliers(self) -> Sequence[StorageApplier]: ...

    def prepare(self, t: Timestamp, mutations: Sequence[Mutation], is_over: Callable[[], bool]) -> bool:
        """A transaction is about to commit at ``t``: do what can be done of :meth:`split` and ``apply_batch``.

        ``is_over`` is to be asked every ten microseconds or so: if it says True, nothing more is to be done, and it is
        to be said, too.
        """
        ...

    def split(self, mutations: Sequence[Mutation]) -> list[tuple[int, list[Mutation]]]:
        """Cut a transaction: (index of the applier, its mutations), each applier at most once."""
        ...


#: What :meth:`CommitPath.lease_sequence` calls back with if nothing could be leased.
LEASE_FAILED = -1


class CommitPath(Protocol):
    """The way into the adjudicators and the snapshot to read at."""

    storage: StorageReader

    def begin(self, session: int = 0) -> Timestamp:
        """T_start: every acknowledged commit is at or below it, and storage answers reads at it at once.

        ``session``: a number for whoever is served with it; 0: none.
        """
        ...

    def commit(self, request: CommitRequest, on_outcome: Callable[[CommitOutcome], None]) -> None:
        """Decide and make durable; ``on_outcome`` is called exactly once, on the event loop's thread, perhaps before
        this returns."""
        ...

    def lease_sequence(self, key: bytes, count: int, on_lease: Callable[[int], None]) -> None:
        """Durably reserve ``count`` values of the counter at ``key``; calls back with the first (counters start at 0).

        Calls back with ``LEASE_FAILED`` when the commit path can't make the lease durable.
        """
        ...
