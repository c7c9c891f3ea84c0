"""Group commit: what an adjudicator has decided goes to its journal, one record at a time."""

from __future__ import annotations

from typing import NamedTuple

from dsql_server.interfaces.environment import Environment
from dsql_server.interfaces.messages import Append, Appended, CommittedTransaction, Timestamp

#: A record holds at most this many transactions, so that what is in memory twice is bounded (10 MiB a transaction).
RECORD_TRANSACTIONS_MAX = 64
#: An append that isn't answered for this long is sent again: it or its answer may be lost.
APPEND_RESEND_S = 0.5


class Decided(NamedTuple):
    """A committed transaction and who asked for it."""

    transaction: CommittedTransaction
    client: str


class Appender:
    """Appends decided transactions in order of T_commit.

    While a record is on its way, further transactions queue and go out as the next record. One record at a time also
    means that a refused one has nothing behind it that would need to be taken back.
    """

    __slots__ = ("_environment", "_in_flight", "_journal", "_me", "_queue", "_sent_at", "_sequence", "epoch")

    def __init__(self, me: str, journal: str, environment: Environment, epoch: int, sequence: int) -> None:
        """``sequence`` is the journal's last record."""
        self._me = me
        self._journal = journal
        self._environment = environment
        self.epoch = epoch
        self._sequence = sequence
        self._queue: list[Decided] = []
        self._in_flight: list[Decided] = []
        self._sent_at: Timestamp = 0

    @property
    def sequence(self) -> int:
        """Of the last record that is durable."""
        return self._sequence

    @property
    def oldest(self) -> Timestamp | None:
        """T_commit of the first transaction that isn't known to be durable, or None if all are."""
        if self._in_flight:
            return self._in_flight[0].transaction.t_commit
        return None

    def add(self, transaction: CommittedTransaction, client: str) -> None:
        self._queue.append(Decided(transaction, client))
        if not self._in_flight:
            self._flush()

    def appended(self, message: Appended) -> list[Decided]:
        """The record is durable: send the next one; returns what is durable now (nothing if the message is old)."""
        if message.sequence != self._sequence + 1 or message.epoch != self.epoch or not self._in_flight:
            return []
        self._sequence = message.sequence
        durable = self._in_flight
        self._in_flight = []
        if self._queue:
            self._flush()
        return durable

    def abandon(self) -> list[Decided]:
        """The journal takes no more from us; returns all transactions whose outcome is unknown."""
        lost = self._in_flight + self._queue
        self._in_flight = []
        self._queue = []
        return lost

    def resend(self, now: Timestamp) -> None:
        """Send the record in flight again if it has been on its way for long."""
        if self._in_flight and now - self._sent_at > APPEND_RESEND_S * 1e9:
            self._send()

    def _flush(self) -> None:
        queue = self._queue
        if len(queue) <= RECORD_TRANSACTIONS_MAX:
            self._in_flight = queue
            self._queue = []
        else:
            self._in_flight = queue[:RECORD_TRANSACTIONS_MAX]
            self._queue = queue[RECORD_TRANSACTIONS_MAX:]
        self._send()

    def _send(self) -> None:
        environment = self._environment
        self._sent_at = environment.clock.now()[1]
        transactions = tuple([decided[0] for decided in self._in_flight])
        environment.send(self._me, self._journal, Append(self.epoch, self._sequence + 1, transactions))
