"""Merges journals into one order of T_commit, with low watermarks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from dsql_server.interfaces.messages import CommittedTransaction, Stream, Timestamp, Watermark


class JournalStream:
    """One journal's records, in order of sequence, and how far its order of time is known."""

    __slots__ = ("early", "early_watermark", "low", "merged", "queue", "received")

    def __init__(self, received: int) -> None:
        self.received = received  #: sequence up to which all records have come
        self.merged = received  #: sequence up to which all transactions have been merged
        self.low: Timestamp = 0  #: nothing at or below it is still to come
        #: (sequence, transaction, whether it is the last one of its record), in order of T_commit
        self.queue: deque[tuple[int, CommittedTransaction, bool]] = deque()
        self.early: dict[int, Stream] = {}  #: records that came before one of their predecessors
        self.early_watermark: Watermark | None = None  #: likewise

    def add(self, record: Stream) -> None:
        """Take a record; ignores a repeated one, keeps an early one."""
        if record.sequence <= self.received:
            return
        if record.sequence != self.received + 1:
            self.early[record.sequence] = record
            return
        self._append(record)
        while self.early and (following := self.early.pop(self.received + 1, None)) is not None:
            self._append(following)
        if self.early_watermark is not None:
            self.raise_low(self.early_watermark)

    def raise_low(self, watermark: Watermark) -> None:
        """Take a promise; it holds only behind the records that were in the journal when it was given."""
        if watermark.sequence > self.received:
            if self.early_watermark is None or watermark.t > self.early_watermark.t:
                self.early_watermark = watermark
            return
        if watermark.t > self.low:
            self.low = watermark.t

    def _append(self, record: Stream) -> None:
        _, sequence, transactions = record
        self.received = sequence
        if not transactions:
            if not self.queue:
                self.merged = sequence
            return
        assert transactions[0].t_commit > self.low, "a transaction at or below a promised watermark"
        last = len(transactions) - 1
        for i, transaction in enumerate(transactions):
            self.queue.append((sequence, transaction, i == last))
        self.low = transactions[-1].t_commit


class Merge:
    """All journals in one order."""

    def __init__(self, positions: Mapping[str, int]) -> None:
        """``positions``: for each journal, the last sequence that needs no merging any more."""
        self.streams = {journal: JournalStream(position) for journal, position in positions.items()}
        self._list = list(self.streams.values())

    def low(self) -> Timestamp:
        """Everything at or below it has come, from every journal."""
        return min([stream.low for stream in self._list])

    def take(self, up_to: Timestamp) -> list[CommittedTransaction]:
        """All waiting transactions at or below ``up_to``, in order of T_commit."""
        waiting = [stream for stream in self._list if stream.queue and stream.queue[0][1].t_commit <= up_to]
        if len(waiting) == 1:
            return list(_take(waiting[0], up_to))
        merged: list[CommittedTransaction] = []
        for stream in waiting:
            merged.extend(_take(stream, up_to))
        # Sorting runs that are sorted is a merge. T_commit of two journals may be equal: their claims don't conflict.
        merged.sort(key=_t_commit)
        return merged


def _take(stream: JournalStream, up_to: Timestamp) -> Iterable[CommittedTransaction]:
    queue = stream.queue
    taken = []
    while queue and queue[0][1].t_commit <= up_to:
        sequence, transaction, is_last = queue.popleft()
        if is_last:
            stream.merged = sequence
        taken.append(transaction)
    if not queue:
        stream.merged = stream.received
    return taken


def _t_commit(transaction: CommittedTransaction) -> Timestamp:
    return transaction.t_commit
