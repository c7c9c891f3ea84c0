"""The crossbar actor: takes the journals' records, delivers each storage node its part in order of T_commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dsql_server.crossbar.merge import Merge
from dsql_server.interfaces.environment import Environment
from dsql_server.interfaces.messages import (
    CatalogAt,
    CatalogRequest,
    CommittedTransaction,
    Delivery,
    Mutation,
    PromiseRequest,
    Resend,
    Stream,
    Subscribe,
    Timestamp,
    Watermark,
)

#: Deliveries kept for a subscriber that misses one. Where nothing gets lost, none are kept.
DELIVERIES_KEPT_MAX = 4096

#: Cuts a transaction: (index of the subscriber, its mutations), each subscriber at most once.
Cut = Callable[[Sequence[Mutation]], list[tuple[int, list[Mutation]]]]


class Crossbar:
    """Merges all journals and cuts the stream.

    With ``adjudicators`` (journal to the adjudicator that leads it) the crossbar asks for promises as soon as a
    transaction waits for one, and nobody needs to beat; without, it relies on heartbeats.
    """

    def __init__(
        self,
        address: str,
        environment: Environment,
        positions: Mapping[str, int],
        subscribers: Sequence[str],
        cut: Cut,
        adjudicators: Mapping[str, str] | None = None,
        watchers: Sequence[str] = (),
        keep_deliveries: bool = False,
        catalog_version: int = 0,
    ) -> None:
        """``positions``: for each journal, the last sequence that all subscribers have; ``catalog_version`` is that
        of then. ``watchers`` get every new watermark, behind all deliveries up to it."""
        self.address = address
        self._environment = environment
        self._send = environment.send
        self._merge = Merge(positions)
        self._streams = self._merge.streams
        self._subscribers = tuple(subscribers)
        self._cut = cut
        self._adjudicators = dict(adjudicators or {})
        self._asked = dict.fromkeys(self._adjudicators, 0)  # journal to the promise that we wait for
        self._watchers = tuple(watchers)
        self._numbers = [0] * len(subscribers)
        self._kept: list[deque[Delivery]] | None = (
            [deque(maxlen=DELIVERIES_KEPT_MAX) for _ in subscribers] if keep_deliveries else None
        )
        self._catalog_version = catalog_version
        self._catalog_requests: list[tuple[str, Timestamp]] = []
        self._newest: Timestamp = 0  # T_commit of the last transaction that came
        self.watermark: Timestamp = 0
        self.delivered = 0
        self.handlers: dict[type, Any] = {
            Stream: self._on_stream,
            Watermark: self._on_watermark,
            Resend: self._on_resend,
            CatalogRequest: self._on_catalog_request,
        }

    def subscribe(self, journals: Mapping[str, str]) -> None:
        """Ask the journals (name to address) for every record that hasn't come yet."""
        for journal, address in journals.items():
            self._send(self.address, address, Subscribe(self._streams[journal].received + 1))

    def _on_stream(self, sender: str, record: Stream) -> None:
        stream = self._streams[record.journal]
        stream.add(record)
        if stream.low > self._newest:
            self._newest = stream.low
        if record.journal in self._asked:
            self._asked[record.journal] = 0
        self._advance()

    def _on_watermark(self, sender: str, watermark: Watermark) -> None:
        journal = watermark.journal
        self._streams[journal].raise_low(watermark)
        if journal in self._asked and watermark.t >= self._asked[journal]:
            # A lower answer means that a record is on its way: its arrival asks again.
            self._asked[journal] = 0
        self._advance()

    def _advance(self) -> None:
        merge = self._merge
        low = merge.low()
        if low < self._newest and self._adjudicators:
            self._ask_for_promises(self._newest)
        if low <= self.watermark:
            return
        self.watermark = low
        transactions = merge.take(low)
        if transactions or self._kept is not None:
            self._deliver(transactions)
        for watcher in self._watchers:
            self._send(self.address, watcher, Watermark("", 0, low))
        if self._catalog_requests:
            self._answer_catalog_requests()

    def _ask_for_promises(self, wanted: Timestamp) -> None:
        asked = self._asked
        for journal, adjudicator in self._adjudicators.items():
            if self._streams[journal].low < wanted and not asked[journal]:
                asked[journal] = wanted
                self._send(self.address, adjudicator, PromiseRequest(wanted))

    def _deliver(self, transactions: Sequence[CommittedTransaction]) -> None:
        self.delivered += len(transactions)
        batches: list[list[tuple[Timestamp, tuple[Mutation, ...]]]] = [[] for _ in self._subscribers]
        cut = self._cut
        for transaction in transactions:
            t_commit = transaction.t_commit
            if transaction.catalog_change is not None:
                self._catalog_version = transaction.catalog_version + 1
            for index, mutations in cut(transaction.mutations):
                batches[index].append((t_commit, tuple(mutations)))
        for index, batch in enumerate(batches):
            if batch or self._kept is not None:
                self._deliver_to(index, tuple(batch), ())

    def _deliver_to(
        self,
        index: int,
        batch: tuple[tuple[Timestamp, tuple[Mutation, ...]], ...],
        positions: tuple[tuple[str, int], ...],
    ) -> None:
        self._numbers[index] += 1
        delivery = Delivery(self._numbers[index], batch, positions, self.watermark)
        if self._kept is not None:
            self._kept[index].append(delivery)
        self._send(self.address, self._subscribers[index], delivery)

    def deliver_positions(self) -> None:
        """Tell every subscriber how far the journals are merged: to be called before a checkpoint.

        Positions travel by themselves, as applying a transaction again changes nothing: one that lags costs a longer
        replay, and one with every transaction would cost a write with every transaction.
        """
        positions = tuple([(journal, stream.merged) for journal, stream in self._streams.items()])
        for index in range(len(self._subscribers)):
            self._deliver_to(index, (), positions)

    def _on_catalog_request(self, sender: str, message: CatalogRequest) -> None:
        self._catalog_requests.append((sender, message.t))
        self._answer_catalog_requests()

    def _answer_catalog_requests(self) -> None:
        early = []
        for sender, t in self._catalog_requests:
            if t <= self.watermark:
                self._send(self.address, sender, CatalogAt(t, self._catalog_version))
            else:
                early.append((sender, t))
        self._catalog_requests = early

    def _on_resend(self, sender: str, message: Resend) -> None:
        assert self._kept is not None, "deliveries get lost, but none are kept"
        for delivery in self._kept[self._subscribers.index(sender)]:
            if delivery.number >= message.number:
                self._send(self.address, sender, delivery)

    def metrics(self) -> dict[str, object]:
        return {
            "delivered": self.delivered,
            "watermark": self.watermark,
            "waiting": sum(len(stream.queue) for stream in self._streams.values()),
            "merged": {journal: stream.merged for journal, stream in self._streams.items()},
        }
