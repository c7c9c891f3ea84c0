"""The merge of journals by T_commit, and the cut by key range."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.clock import SystemClock
from dsql_server.crossbar.crossbar import Crossbar
from dsql_server.crossbar.merge import Merge
from dsql_server.interfaces.messages import (
    CommittedTransaction,
    Delivery,
    Mutation,
    PromiseRequest,
    Resend,
    Stream,
    Subscribe,
    Watermark,
)


def transaction(t_commit: int, *keys: bytes) -> CommittedTransaction:
    mutations = tuple(Mutation(key, b"v") for key in keys or (b"a",))
    return CommittedTransaction(t_commit.to_bytes(16, "big"), t_commit, t_commit - 1, 1, (), mutations)


class Recorder:
    """An environment that only remembers what is sent."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.random = random.Random(1)
        self.sent: list[tuple[str, Any]] = []

    def send(self, sender: str, receiver: str, message: Any) -> None:
        self.sent.append((receiver, message))

    def call_later(self, delay_s: float, callback: Any) -> Any:
        raise AssertionError("the crossbar needs no timers")

    def take(self) -> list[tuple[str, Any]]:
        taken, self.sent = self.sent, []
        return taken


def cut(mutations: Any) -> list[tuple[int, list[Mutation]]]:
    """Keys from b"n" on belong to the second subscriber."""
    parts: dict[int, list[Mutation]] = {}
    for mutation in mutations:
        parts.setdefault(int(mutation.key >= b"n"), []).append(mutation)
    return list(parts.items())


def crossbar(**options: Any) -> tuple[Crossbar, Recorder]:
    recorder = Recorder()
    return Crossbar("crossbar", recorder, {"j0": 0, "j1": 0}, ["low", "high"], cut, **options), recorder


def give(actor: Crossbar, message: Any, sender: str = "someone") -> None:
    actor.handlers[type(message)](sender, message)


def test_nothing_is_delivered_before_every_journal_has_promised() -> None:
    actor, recorder = crossbar()
    give(actor, Stream("j0", 1, (transaction(10),)))
    assert recorder.take() == []
    give(actor, Watermark("j1", 0, 9))
    assert recorder.take() == []
    give(actor, Watermark("j1", 0, 10))
    assert recorder.take() == [("low", Delivery(1, ((10, (Mutation(b"a", b"v"),)),), (), 10))]


def test_a_transaction_is_cut_by_key_and_keeps_its_timestamp() -> None:
    actor, recorder = crossbar()
    give(actor, Watermark("j1", 0, 99))
    give(actor, Stream("j0", 1, (transaction(10, b"a", b"z", b"b"),)))
    low, high = recorder.take()
    assert low == ("low", Delivery(1, ((10, (Mutation(b"a", b"v"), Mutation(b"b", b"v"))),), (), 10))
    assert high == ("high", Delivery(1, ((10, (Mutation(b"z", b"v"),)),), (), 10))


def test_journals_are_merged_by_time() -> None:
    actor, recorder = crossbar()
    give(actor, Stream("j0", 1, (transaction(10), transaction(30))))
    give(actor, Stream("j1", 1, (transaction(20), transaction(40))))
    ((_, delivery),) = recorder.take()
    assert [t for t, _ in delivery.batch] == [10, 20, 30]  # 40 has to wait for the other journal


def test_a_promise_holds_only_behind_the_records_it_was_given_behind() -> None:
    actor, recorder = crossbar()
    give(actor, Watermark("j1", 1, 50))  # overtook record 1 on the way
    give(actor, Stream("j0", 1, (transaction(40),)))
    assert recorder.take() == []
    give(actor, Stream("j1", 1, (transaction(30),)))
    ((_, delivery),) = recorder.take()
    assert [t for t, _ in delivery.batch] == [30, 40]


def test_it_asks_for_a_promise_once_and_again_after_a_record() -> None:
    actor, recorder = crossbar(adjudicators={"j0": "a0", "j1": "a1"})
    give(actor, Stream("j0", 1, (transaction(10),)))
    assert recorder.take() == [("a1", PromiseRequest(10))]
    give(actor, Watermark("j1", 0, 4))  # a record at 5 is on its way
    assert recorder.take() == []
    give(actor, Stream("j1", 1, (transaction(5),)))
    deliveries_and_questions = recorder.take()
    assert ("a1", PromiseRequest(10)) in deliveries_and_questions


def test_watchers_hear_of_a_watermark_behind_its_deliveries() -> None:
    actor, recorder = crossbar(watchers=("qp",))
    give(actor, Watermark("j1", 0, 99))
    give(actor, Stream("j0", 1, (transaction(10),)))
    assert [receiver for receiver, _ in recorder.take()] == ["low", "qp"]


def test_positions_count_whole_records_only() -> None:
    actor, recorder = crossbar()
    give(actor, Watermark("j1", 0, 20))
    give(actor, Stream("j0", 1, (transaction(10),)))
    give(actor, Stream("j0", 2, (transaction(15), transaction(30))))
    recorder.take()
    actor.deliver_positions()
    assert {delivery.positions for _, delivery in recorder.take()} == {(("j0", 1), ("j1", 0))}


def test_lost_records_and_deliveries_are_sent_again() -> None:
    actor, recorder = crossbar(keep_deliveries=True)
    give(actor, Stream("j0", 2, (transaction(20),)))  # record 1 is missing
    actor.subscribe({"j0": "j0", "j1": "j1"})
    assert recorder.take() == [("j0", Subscribe(1)), ("j1", Subscribe(1))]
    give(actor, Stream("j0", 1, (transaction(10),)))
    give(actor, Watermark("j1", 0, 99))
    first = [delivery for receiver, delivery in recorder.take() if receiver == "low"]
    give(actor, Resend(1), "low")
    assert [delivery for _, delivery in recorder.take()] == first


def test_a_transaction_below_a_promise_is_a_defect() -> None:
    actor, _ = crossbar()
    give(actor, Watermark("j0", 0, 10))
    with pytest.raises(AssertionError, match="promised"):
        give(actor, Stream("j0", 1, (transaction(10),)))


@given(st.data())
def test_any_interleaving_gives_one_order(data: st.DataObject) -> None:
    """Records of three journals, in any order and repeated: all come out once, by time, records never torn apart."""
    times = data.draw(st.lists(st.integers(1, 10_000), min_size=1, max_size=40, unique=True))
    journals: dict[str, list[int]] = {"j0": [], "j1": [], "j2": []}
    for t in sorted(times):
        journals[data.draw(st.sampled_from(sorted(journals)))].append(t)
    records = []
    for name, commits in journals.items():
        sequence = 0
        while commits:
            size = data.draw(st.integers(1, 3))
            sequence += 1
            records.append(Stream(name, sequence, tuple(transaction(t) for t in commits[:size])))
            del commits[:size]
    merge = Merge(dict.fromkeys(journals, 0))
    taken: list[int] = []
    for record in data.draw(st.permutations(records + records[:3])):
        merge.streams[record.journal].add(record)
        taken += [t.t_commit for t in merge.take(merge.low())]
    for stream in merge.streams.values():
        stream.raise_low(Watermark("", stream.received, 10_001))
    taken += [t.t_commit for t in merge.take(merge.low())]
    assert taken == sorted(times)
