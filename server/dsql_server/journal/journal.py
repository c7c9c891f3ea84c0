"""A journal: takes records from the one adjudicator that leads it, and streams them once two copies have them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from dsql_server.interfaces.environment import Environment, JournalCopies
from dsql_server.interfaces.messages import (
    Append,
    Appended,
    AppendRefused,
    CommittedTransaction,
    JournalFailed,
    LeaderSet,
    LookedUp,
    LookUp,
    SetLeader,
    Stream,
    Subscribe,
)
from dsql_server.journal.record import JournalTail, decode_own_record, encode_record


class Journal:
    """Appends are compare-and-set: a record is taken only as the next one, and only from the current epoch.

    So a new owner that has set itself as leader fences the old one, and a refused record refuses all that was
    pipelined behind it. An append repeated by its sender is answered again and not written again.
    """

    def __init__(
        self,
        address: str,
        environment: Environment,
        copies: JournalCopies,
        tail: JournalTail,
        subscribers: tuple[str, ...] = (),
    ) -> None:
        self.address = address
        self._environment = environment
        self._send = environment.send
        self._copies = copies
        self._epoch = tail.epoch
        self._sequence = tail.sequence
        self._digest = tail.digest
        self._t_last = tail.t_last
        #: The last record with a transaction in it: from that recovery learns the last T_commit and catalog version.
        self.t_last_sequence = tail.t_last_sequence
        self._durable = tail.sequence
        self._waiting_leader: tuple[str, int] | None = None  # answered once everything before it is durable
        self._failure = ""
        self._subscribers = list(subscribers)
        #: (sequence, epoch, transactions, sender) of records not durable yet
        self._in_flight: deque[tuple[int, int, tuple[CommittedTransaction, ...], str]] = deque()
        self.records = 0
        self.transactions = 0
        self.bytes_written = 0
        self.handlers: dict[type, Any] = {
            Append: self._on_append,
            SetLeader: self._on_set_leader,
            Subscribe: self._on_subscribe,
            LookUp: self._on_look_up,
        }
        copies.open(self._on_durable, self._on_failure)

    def _on_append(self, sender: str, message: Append) -> None:
        epoch, expected_sequence, transactions = message
        if self._failure:
            self._send(self.address, sender, JournalFailed(self._failure))
            return
        sequence = self._sequence + 1
        if epoch != self._epoch or expected_sequence != sequence:
            self._answer_unexpected(sender, epoch, expected_sequence)
            return
        if transactions:
            assert transactions[0].t_commit > self._t_last, f"{self.address}: T_commit must rise from record to record"
            self._t_last = transactions[-1].t_commit
            self.t_last_sequence = sequence
        record, self._digest = encode_record(epoch, sequence, self._digest, transactions)
        self._sequence = sequence
        self._in_flight.append((sequence, epoch, transactions, sender))
        self.records += 1
        self.transactions += len(transactions)
        self.bytes_written += len(record)
        self._copies.write(sequence, record)

    def _answer_unexpected(self, sender: str, epoch: int, expected_sequence: int) -> None:
        """A repeated append is answered again; anything else is refused."""
        if epoch == self._epoch and expected_sequence <= self._sequence:
            if expected_sequence <= self._durable:
                self._send(self.address, sender, Appended(epoch, expected_sequence))
            return
        self._send(self.address, sender, AppendRefused(self._epoch, self._sequence + 1))

    def _on_durable(self, sequence: int) -> None:
        """Two copies have everything up to ``sequence``."""
        assert self._durable <= sequence <= self._sequence, f"{self.address}: durable {sequence} of {self._sequence}"
        in_flight = self._in_flight
        send = self._send
        address = self.address
        self._durable = sequence
        while in_flight and in_flight[0][0] <= sequence:
            number, epoch, transactions, sender = in_flight.popleft()
            # The leader first: it has the next record ready, and the disk has nothing to do.
            send(address, sender, Appended(epoch, number))
            for subscriber in self._subscribers:
                send(address, subscriber, Stream(address, number, transactions))
        if self._waiting_leader is not None and self._durable == self._sequence:
            leader, epoch = self._waiting_leader
            self._waiting_leader = None
            send(address, leader, LeaderSet(epoch, self._sequence + 1, self._t_last))

    def _on_failure(self, reason: str) -> None:
        self._failure = reason
        senders = dict.fromkeys(sender for _, _, _, sender in self._in_flight)
        self._in_flight.clear()
        for sender in senders:
            self._send(self.address, sender, JournalFailed(reason))

    def _on_set_leader(self, sender: str, message: SetLeader) -> None:
        if message.epoch < self._epoch:
            self._send(self.address, sender, AppendRefused(self._epoch, self._sequence + 1))
            return
        self._epoch = message.epoch
        if self._durable == self._sequence:
            self._send(self.address, sender, LeaderSet(message.epoch, self._sequence + 1, self._t_last))
        else:
            self._waiting_leader = (sender, message.epoch)

    def _on_subscribe(self, sender: str, message: Subscribe) -> None:
        if sender not in self._subscribers:
            self._subscribers.append(sender)
        for sequence, transactions in self._durable_records(message.sequence):
            self._send(self.address, sender, Stream(self.address, sequence, transactions))

    def _on_look_up(self, sender: str, message: LookUp) -> None:
        for sequence, transactions in self._durable_records(1):
            for transaction in transactions:
                if transaction.transaction_id == message.transaction_id:
                    found = LookedUp(message.transaction_id, sequence, transaction.t_commit)
                    self._send(self.address, sender, found)
                    return
        self._send(self.address, sender, LookedUp(message.transaction_id, 0, 0))

    def _durable_records(self, from_sequence: int) -> Iterator[tuple[int, tuple[CommittedTransaction, ...]]]:
        for data in self._copies.read(from_sequence):
            record = decode_own_record(data)
            if record.sequence > self._durable:
                return
            yield record.sequence, record.transactions

    def metrics(self) -> dict[str, object]:
        return {
            "records": self.records,
            "transactions": self.transactions,
            "bytes": self.bytes_written,
            "sequence": self._sequence,
            "durable": self._durable,
            "epoch": self._epoch,
        }
