"""The compiled parts of the commit path do what their twins in Python say."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server import compiled
from dsql_server.adjudicator import recent_claims
from dsql_server.clock.system import SystemClock
from dsql_server.cluster import commit_path_mailbox
from dsql_server.cluster.commit_path_mailbox import Mailbox, open_mailbox
from dsql_server.interfaces.messages import Claim, Committed, CommittedTransaction, Mutation, PromiseRequest
from dsql_server.journal import record
from dsql_server.storage import router
from dsql_server.storage.range_map import RangeMap

pytestmark = pytest.mark.skipif(
    compiled.commit_path is None, reason="this installation has no extension modules to compare"
)

KEYS = st.binary(max_size=9)
CLAIMS = st.lists(st.builds(Claim, KEYS, st.integers(1, 3)), max_size=5).map(tuple)
MUTATIONS = st.lists(st.builds(Mutation, KEYS, st.none() | st.binary(max_size=40)), max_size=5).map(tuple)
DIGESTS = st.binary(min_size=16, max_size=16)
TRANSACTIONS = st.builds(
    CommittedTransaction,
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(-1, 2**40),
    CLAIMS,
    MUTATIONS,
    st.none() | st.binary(max_size=30),
)


@given(
    st.integers(0, 2**62),
    st.integers(0, 2**62),
    st.binary(min_size=16, max_size=16),
    st.lists(TRANSACTIONS, max_size=4),
)
def test_records_are_encoded_alike(
    epoch: int, sequence: int, digest: bytes, transactions: list[CommittedTransaction]
) -> None:
    twin = record._encode_record(epoch, sequence, digest, transactions)
    assert compiled.journal.encode_record(epoch, sequence, digest, transactions) == twin


@given(st.lists(st.tuples(st.booleans(), CLAIMS, st.integers(1, 9)), max_size=12))
def test_claims_are_remembered_alike(steps: list[tuple[bool, tuple[Claim, ...], int]]) -> None:
    ours: list[dict[bytes, int]] = [{}, {}, {}]
    twins: list[dict[bytes, int]] = [{}, {}, {}]
    module = compiled.commit_path
    for is_commit, claims, t in steps:
        if is_commit:
            assert module.record(claims, t, *ours) == recent_claims._record(claims, t, *twins)
        else:
            assert module.conflict(claims, t, *ours) == recent_claims._conflict(claims, t, *twins)
        assert ours == twins


RELATED_KEYS = st.tuples(st.integers(1, 3), st.binary(max_size=4)).map(lambda k: k[0].to_bytes(4, "big") + k[1])


@given(
    st.lists(
        st.lists(st.builds(Mutation, RELATED_KEYS | KEYS, st.none() | st.binary(max_size=3)), max_size=8), max_size=5
    ),
    st.integers(1, 3),
    st.integers(0, 4),
)
def test_transactions_are_cut_alike(transactions: list[list[Mutation]], nodes: int, rows_max: int) -> None:
    maps = [RangeMap(nodes), RangeMap(nodes)]
    for relation in (1, 2):
        for range_map in maps:
            range_map.add_relation(relation.to_bytes(4, "big"))
    for mutations in transactions:
        found = []
        for range_map, cut in zip(maps, (compiled.storage.cut, router._cut), strict=True):
            full: list[Any] = []
            parts = cut(mutations, range_map.starts, range_map.shards, range_map.relations, rows_max, full)
            found.append((parts, [shard.start for shard in full]))
        assert found[0] == found[1]
        assert maps[0].shards == maps[1].shards


class _Relay:
    """An actor that notes what comes, and passes on what the script says."""

    def __init__(self, address: str, script: list[tuple[str, bool]], fails_at: int) -> None:
        self.address = address
        self.log: list[object] = []
        self._script = script
        self._fails_at = fails_at
        self.send: Callable[[str, str, Any], None] = lambda *_: None
        self.handlers: dict[type, Any] = {PromiseRequest: self._on, Committed: self._on}

    def _on(self, sender: str, message: Any) -> None:
        self.log.append((self.address, sender, message))
        if len(self.log) == self._fails_at:
            raise RuntimeError("as the script says")
        for receiver, is_answer in self._script[:2]:
            del self._script[:1]
            answer = Committed(b"", len(self._script)) if is_answer else PromiseRequest(len(self._script))
            self.send(self.address, receiver, answer)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 12),
    st.booleans(),
)
def test_messages_are_delivered_alike(script: list[tuple[str, bool]], fails_at: int, gathers: bool) -> None:
    logs = []
    loop = asyncio.new_event_loop()
    try:
        for make in (open_mailbox, _open_python_mailbox):
            defects: list[str] = []
            mailbox = make(loop, SystemClock(), lambda error, defects=defects: defects.append(repr(error)))  # type: ignore[misc]
            rest = list(script)
            log: list[object] = []
            for address in "abc":
                actor = _Relay(address, rest, fails_at)
                actor.log, actor.send = log, mailbox.send
                mailbox.add(actor)

            def begin(number: int, mailbox: Mailbox = mailbox) -> None:
                mailbox.send("x", "a", PromiseRequest(number))
                mailbox.send("x", "b", Committed(b"", number))
                if not gathers:
                    mailbox.catch_up()
                mailbox.send("x", "c", PromiseRequest(number))

            (mailbox.gathered(begin) if gathers else begin)(7)
            logs.append((log, defects))
    finally:
        loop.close()
    assert logs[0] == logs[1]
    assert len(logs[0][0]) >= min(3, fails_at)


def _open_python_mailbox(*arguments: Any) -> Mailbox:
    return commit_path_mailbox.Mailbox(*arguments, random.Random())
