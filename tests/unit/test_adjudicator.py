"""The rules of the adjudicator: who conflicts, what a vote binds to, what a promise forbids."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.adjudicator.adjudicator import HOLD_MAX_S, Adjudicator, Recovered
from dsql_server.adjudicator.appender import APPEND_RESEND_S, RECORD_TRANSACTIONS_MAX
from dsql_server.adjudicator.holds import Holds, modes_conflict
from dsql_server.adjudicator.outcomes import OUTCOMES_MAX
from dsql_server.adjudicator.recent_claims import RecentClaims
from dsql_server.interfaces.environment import Clock
from dsql_server.interfaces.messages import (
    CATALOG_ANY,
    TRANSACTION_AGE_MAX_S,
    Append,
    Appended,
    AppendRefused,
    Claim,
    CommitRequest,
    Committed,
    Conflict,
    ConflictKind,
    Hold,
    Inquire,
    JournalFailed,
    LockMode,
    Mutation,
    PromiseRequest,
    Release,
    Unavailable,
    Unknown,
    Vote,
    Watermark,
)
from dsql_server.interfaces.shard_map import even_shard_map

SECOND = 1_000_000_000
START = 1_000 * SECOND
SHARE, NO_KEY, UPDATE = LockMode.KEY_SHARE, LockMode.NO_KEY_UPDATE, LockMode.UPDATE
MAP = even_shard_map(2)
#: Keys by owner.
OURS = [key for key in (b"%d" % i for i in range(60)) if MAP.owner(key) == 0]
THEIRS = [key for key in (b"%d" % i for i in range(60)) if MAP.owner(key) == 1]


class Bench:
    """One adjudicator, a clock set by hand, and everything it sends."""

    def __init__(self, adjudicators: int = 1, error_ns: int = 0) -> None:
        self.t = START
        self.error_ns = error_ns
        self.clock: Clock = self
        self.random = random.Random(1)
        self.sent: list[tuple[str, Any]] = []
        self.timers: list[tuple[float, Any]] = []
        self.counter = 0
        addresses = [f"a{i}" for i in range(adjudicators)]
        shard_map = even_shard_map(adjudicators)
        self.actor = Adjudicator(0, addresses, "j0", self, shard_map, Recovered(1, 0, 7, START - 400 * SECOND))

    def now(self) -> tuple[int, int]:
        self.t += 1
        return self.t - self.error_ns, self.t + self.error_ns

    def send(self, sender: str, receiver: str, message: Any) -> None:
        self.sent.append((receiver, message))

    def call_later(self, delay_s: float, callback: Any) -> Any:
        self.timers.append((delay_s, callback))

    def give(self, message: Any, sender: str = "client") -> list[tuple[str, Any]]:
        """Hand it a message; returns what it sends in turn."""
        self.sent = []
        self.actor.handlers[type(message)](sender, message)
        return self.sent

    def request(self, *claims: tuple[bytes, int], t_start: int | None = None, version: int = 7) -> CommitRequest:
        self.counter += 1
        return CommitRequest(
            self.counter.to_bytes(16, "big"),
            self.t if t_start is None else t_start,
            version,
            tuple(Claim(key, int(mode)) for key, mode in claims),
            tuple(Mutation(key, b"v") for key, _ in claims),
        )

    def commit(self, *claims: tuple[bytes, int], **options: Any) -> Any:
        """Commit and answer for the journal; returns the outcome."""
        for receiver, message in self.give(self.request(*claims, **options)):
            if receiver == "client":
                return message
            if type(message) is Append:
                answers = self.give(Appended(message.epoch, message.expected_sequence), "j0")
                while self.timers:  # an answer that waits for the clock
                    delay_s, callback = self.timers.pop()
                    self.t += int(delay_s * SECOND) + 1
                    callback()
                return next(answer for to, answer in answers if to == "client")
        raise AssertionError("no outcome")


# -- the rule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "both_commit"),
    [
        (UPDATE, UPDATE, False),
        (UPDATE, NO_KEY, False),
        (UPDATE, SHARE, False),
        (NO_KEY, UPDATE, False),
        (NO_KEY, NO_KEY, False),
        (NO_KEY, SHARE, True),
        (SHARE, UPDATE, False),
        (SHARE, NO_KEY, True),
        (SHARE, SHARE, True),
    ],
)
def test_the_conflict_matrix(first: LockMode, second: LockMode, both_commit: bool) -> None:
    bench = Bench()
    t_start = bench.t
    assert type(bench.commit((b"k", first), t_start=t_start)) is Committed
    outcome = bench.commit((b"other", UPDATE), (b"k", second), t_start=t_start)
    if both_commit:
        assert type(outcome) is Committed
    else:
        assert outcome == Conflict((2).to_bytes(16, "big"), ConflictKind.DATA, b"k")
    assert modes_conflict(first, second) is not both_commit


def test_who_began_behind_a_commit_does_not_conflict_with_it() -> None:
    bench = Bench()
    first = bench.commit((b"k", UPDATE))
    assert type(bench.commit((b"k", UPDATE), t_start=first.t_commit)) is Committed
    assert type(bench.commit((b"k", UPDATE), t_start=first.t_commit)) is Conflict


def test_a_refused_transaction_leaves_no_trace() -> None:
    bench = Bench()
    t_start = bench.t
    bench.commit((b"k", UPDATE), t_start=t_start)
    assert type(bench.commit((b"free", UPDATE), (b"k", UPDATE), t_start=t_start)) is Conflict
    assert type(bench.commit((b"free", UPDATE), t_start=t_start)) is Committed


def test_t_commit_rises_though_the_clock_is_behind() -> None:
    bench = Bench()
    ahead = bench.t + 50 * SECOND
    first = bench.commit((b"a", UPDATE), t_start=ahead)
    assert first.t_commit == ahead + 1
    bench.t = START
    second = bench.commit((b"b", UPDATE), t_start=START)
    assert second.t_commit == ahead + 2


def test_the_answer_waits_until_t_commit_has_passed_on_every_clock() -> None:
    bench = Bench(error_ns=1000)
    ((_, append),) = bench.give(bench.request((b"k", UPDATE)))
    assert bench.give(Appended(1, 1), "j0") == []
    delay_s, callback = bench.timers.pop()
    assert 0 < delay_s <= 3e-6
    bench.t += int(delay_s * SECOND) + 1
    callback()
    assert bench.sent == [("client", Committed(append.transactions[0].transaction_id, append.transactions[0].t_commit))]


def test_a_transaction_older_than_the_memory_is_not_judged() -> None:
    bench = Bench()
    t_start = bench.t
    bench.t += (TRANSACTION_AGE_MAX_S + 20) * SECOND
    bench.actor.tick()
    assert type(bench.commit((b"k", UPDATE), t_start=t_start)) is Unavailable
    assert type(bench.commit((b"k", UPDATE))) is Committed


# -- the catalog ------------------------------------------------------------------------------------------------------


def test_another_catalog_version_is_refused() -> None:
    bench = Bench()
    outcome = bench.commit((b"k", UPDATE), version=6)
    assert (type(outcome), outcome.kind) == (Conflict, ConflictKind.SCHEMA)
    assert type(bench.commit((b"k", UPDATE), version=CATALOG_ANY)) is Committed


def test_a_catalog_change_moves_the_version_on() -> None:
    bench = Bench()
    change = bench.request((b"catalog", UPDATE))._replace(catalog_change=b"ddl")
    ((_, append),) = bench.give(change)
    assert append.transactions[0].catalog_version == 7
    bench.give(Appended(1, 1), "j0")
    assert bench.actor.catalog_version == 8
    assert type(bench.commit((b"k", UPDATE), version=7)) is Conflict
    assert type(bench.commit((b"k", UPDATE), version=8)) is Committed


def test_a_catalog_change_asks_every_adjudicator_and_holds_off_the_rest() -> None:
    bench = Bench(adjudicators=3)
    change = bench.request()._replace(catalog_change=b"ddl")
    holds = bench.give(change)
    assert [receiver for receiver, _ in holds] == ["a1", "a2"]
    assert all(hold.changes_catalog for _, hold in holds)
    while_undecided = bench.give(bench.request((b"x", UPDATE)))
    assert [type(message) for _, message in while_undecided] == [Conflict]
    for voter in ("a1", "a2"):
        answers = bench.give(Vote(change.transaction_id, 0, START + 9 * SECOND), voter)
    assert [type(message) for _, message in answers] == [Append, Release, Release]
    assert bench.actor.catalog_version == 8


# -- several adjudicators ---------------------------------------------------------------------------------------------


def test_the_final_adjudicator_commits_above_every_vote() -> None:
    bench = Bench(adjudicators=2)
    request = bench.request((OURS[0], UPDATE), (THEIRS[0], NO_KEY))
    assert bench.give(request) == [
        ("a1", Hold(request.transaction_id, request.t_start, 7, (Claim(THEIRS[0], NO_KEY),), False))
    ]
    not_before = bench.t + 1000
    (_, append), (_, release) = bench.give(Vote(request.transaction_id, not_before, bench.t + SECOND), "a1")
    (transaction,) = append.transactions
    assert transaction.t_commit > not_before
    assert transaction.claims == request.claims, "the whole transaction goes to one journal"
    assert release == Release(request.transaction_id, transaction.t_commit)


def test_the_final_adjudicator_never_commits_behind_a_votes_bound() -> None:
    bench = Bench(adjudicators=2)
    request = bench.request((OURS[0], UPDATE), (THEIRS[0], UPDATE))
    bench.give(request)
    bound = bench.t + SECOND
    bench.t = bound
    (client, release) = bench.give(Vote(request.transaction_id, 0, bound), "a1")
    assert type(client[1]) is Unavailable
    assert release == ("a1", Release(request.transaction_id, 0))


def test_a_refused_vote_drops_the_transaction_everywhere() -> None:
    bench = Bench(adjudicators=2)
    request = bench.request((OURS[0], UPDATE), (THEIRS[0], UPDATE))
    bench.give(request)
    refusal = Conflict(request.transaction_id, ConflictKind.DATA, THEIRS[0])
    assert bench.give(refusal, "a1") == [("client", refusal), ("a1", Release(request.transaction_id, 0))]
    assert type(bench.commit((OURS[0], UPDATE), t_start=request.t_start)) is Committed


def test_own_claims_are_held_while_votes_are_out() -> None:
    bench = Bench(adjudicators=2)
    bench.give(bench.request((OURS[0], UPDATE), (THEIRS[0], UPDATE)))
    assert type(bench.commit((OURS[0], UPDATE))) is Conflict
    assert type(bench.commit((OURS[1], UPDATE))) is Committed


class Both:
    """Two adjudicators and their journals in one process, which vote by messages or by calls."""

    def __init__(self, by_calls: bool) -> None:
        self.bench = Bench(2)
        self.queue: list[tuple[str, str, Any]] = []
        self.outcomes: list[Any] = []
        self.held = 0
        self.bench.send = lambda sender, receiver, message: self.queue.append((sender, receiver, message))  # type: ignore[method-assign]
        recovered = Recovered(1, 0, 7, START - 400 * SECOND)
        self.actors = [Adjudicator(i, ["a0", "a1"], f"j{i}", self.bench, MAP, recovered) for i in range(2)]
        if by_calls:
            for actor, other in zip(self.actors, reversed(self.actors), strict=True):
                actor.neighbours = {other.address: other.vote}

    def commit(self, request: CommitRequest, final: int) -> Any:
        self.queue.append(("client", f"a{final}", request))
        while self.queue:
            sender, receiver, message = self.queue.pop(0)
            if receiver == "client":
                self.outcomes.append(message)
            elif receiver.startswith("j"):
                self.queue.append((receiver, sender, Appended(message.epoch, message.expected_sequence)))
            else:
                self.actors[int(receiver[1])].handlers[type(message)](sender, message)
        return self.outcomes[-1]


@given(
    st.lists(
        st.tuples(
            st.lists(
                st.tuples(st.sampled_from(OURS[:3] + THEIRS[:3]), st.sampled_from(LockMode)), min_size=1, max_size=4
            ),
            st.integers(0, 9),
            st.integers(0, 1),
            st.sampled_from([7, 7, 7, 8, CATALOG_ANY]),
        ),
        max_size=12,
    )
)
def test_votes_by_calls_decide_as_votes_by_messages(steps: list[tuple[Any, int, int, int]]) -> None:
    both = [Both(by_calls) for by_calls in (False, True)]
    starts = [[START], [START]]
    for number, (claims, began_behind, final, version) in enumerate(steps):
        found = []
        for side, bench in enumerate(both):
            t_start = starts[side][max(0, len(starts[side]) - 1 - began_behind)]
            keys = tuple(Claim(key, int(mode)) for key, mode in claims)
            request = CommitRequest(number.to_bytes(16, "big"), t_start, version, keys, ())
            outcome = bench.commit(request, final)
            if isinstance(outcome, Committed):
                starts[side].append(outcome.t_commit)
                found.append(Committed(outcome.transaction_id, 0))
            else:
                found.append(outcome)
            assert all(actor.metrics()["holds"] == 0 for actor in bench.actors), "nothing is held behind a decision"
        assert found[0] == found[1]
    figures = [[actor.metrics() for actor in bench.actors] for bench in both]
    assert figures[0] == figures[1]


def test_votes_that_never_come_end_in_a_refusal() -> None:
    bench = Bench(adjudicators=2)
    request = bench.request((OURS[0], UPDATE), (THEIRS[0], UPDATE))
    bench.give(request)
    bench.t += int((HOLD_MAX_S + 0.1) * SECOND)
    bench.sent = []
    bench.actor.tick()
    assert [type(message) for _, message in bench.sent] == [Unavailable, Release]


def vote(bench: Bench, *claims: tuple[bytes, int], transaction_id: bytes = b"t" * 16) -> Any:
    hold = Hold(transaction_id, bench.t, 7, tuple(Claim(key, int(mode)) for key, mode in claims), False)
    return bench.give(hold, "a1")


def test_a_vote_holds_its_keys_and_no_others() -> None:
    bench = Bench(adjudicators=2)
    ((final, answer),) = vote(bench, (OURS[0], NO_KEY))
    assert (final, type(answer)) == ("a1", Vote)
    assert type(bench.commit((OURS[0], UPDATE))) is Conflict
    assert type(bench.commit((OURS[0], SHARE))) is Committed
    assert type(bench.commit((OURS[1], UPDATE))) is Committed


def test_a_vote_is_bound_above_everything_committed_so_far() -> None:
    bench = Bench(adjudicators=2)
    committed = bench.commit((OURS[1], UPDATE))
    ((_, answer),) = vote(bench, (OURS[0], UPDATE))
    assert answer.not_before >= committed.t_commit
    assert answer.not_after == bench.t + int(HOLD_MAX_S * SECOND)


def test_released_as_committed_the_keys_conflict_as_of_then() -> None:
    bench = Bench(adjudicators=2)
    t_start = bench.t
    vote(bench, (OURS[0], UPDATE))
    t_commit = bench.t + 100
    bench.give(Release(b"t" * 16, t_commit), "a1")
    assert type(bench.commit((OURS[0], UPDATE), t_start=t_start)) is Conflict
    assert type(bench.commit((OURS[0], UPDATE), t_start=t_commit)) is Committed


def test_released_as_dropped_the_keys_are_free() -> None:
    bench = Bench(adjudicators=2)
    t_start = bench.t
    vote(bench, (OURS[0], UPDATE))
    bench.give(Release(b"t" * 16, 0), "a1")
    assert type(bench.commit((OURS[0], UPDATE), t_start=t_start)) is Committed


def test_a_bound_that_passes_counts_as_a_commit_at_the_bound() -> None:
    bench = Bench(adjudicators=2)
    t_start = bench.t
    ((_, answer),) = vote(bench, (OURS[0], UPDATE))
    bench.t = answer.not_after + 1
    bench.sent = []
    bench.actor.tick()
    assert bench.sent == [("a1", Inquire(b"t" * 16))]
    assert type(bench.commit((OURS[0], UPDATE), t_start=t_start)) is Conflict
    assert type(bench.commit((OURS[0], UPDATE), t_start=answer.not_after - 1)) is Conflict
    assert type(bench.commit((OURS[0], UPDATE), t_start=answer.not_after)) is Committed


def test_an_undecided_catalog_change_ends_only_with_an_answer() -> None:
    bench = Bench(adjudicators=2)
    bench.give(Hold(b"t" * 16, bench.t, 7, (), True), "a1")
    bench.t += 10 * SECOND
    bench.actor.tick()
    assert type(bench.commit((OURS[0], UPDATE))) is Conflict
    bench.give(Release(b"t" * 16, bench.t), "a1")
    assert type(bench.commit((OURS[0], UPDATE), version=8)) is Committed


def test_a_hold_repeated_behind_its_release_holds_nothing() -> None:
    bench = Bench(adjudicators=2)
    vote(bench, (OURS[0], UPDATE))
    bench.give(Release(b"t" * 16, 0), "a1")
    assert vote(bench, (OURS[0], UPDATE)) == []
    assert type(bench.commit((OURS[0], UPDATE))) is Committed


# -- repeated and lost messages ---------------------------------------------------------------------------------------


def test_a_repeated_request_commits_once_and_is_answered_again() -> None:
    bench = Bench()
    request = bench.request((b"k", UPDATE))
    bench.give(request)
    assert bench.give(request) == [], "not durable yet"
    ((_, committed),) = bench.give(Appended(1, 1), "j0")
    assert bench.give(request) == [("client", committed)]


def test_a_refused_request_stays_refused() -> None:
    bench = Bench()
    t_start = bench.t
    bench.commit((b"k", UPDATE), t_start=t_start)
    request = bench.request((b"k", UPDATE), t_start=t_start)
    assert type(bench.give(request)[0][1]) is Conflict
    again = request._replace(t_start=bench.t)  # would pass if it were judged again
    assert type(bench.give(again)[0][1]) is Unavailable


def test_asking_after_a_request_that_never_came_forbids_it() -> None:
    bench = Bench()
    request = bench.request((b"k", UPDATE))
    assert type(bench.give(Inquire(request.transaction_id))[0][1]) is Unavailable
    assert type(bench.give(request)[0][1]) is Unavailable


def test_memory_of_outcomes_is_bounded() -> None:
    bench = Bench()
    for number in range(OUTCOMES_MAX + 10):
        bench.actor._outcomes.remember(number.to_bytes(16, "big"), 1)
    assert len(bench.actor._outcomes) == OUTCOMES_MAX


# -- promises and the journal -----------------------------------------------------------------------------------------


def test_a_promise_forbids_commits_at_or_below_it() -> None:
    bench = Bench()
    promised = bench.t + 10 * SECOND
    assert bench.give(PromiseRequest(promised), "crossbar") == [("crossbar", Watermark("j0", 0, promised))]
    ((_, append),) = bench.give(bench.request((b"k", UPDATE)))
    assert append.transactions[0].t_commit > promised


def test_a_promise_stays_below_what_is_on_its_way() -> None:
    bench = Bench()
    ((_, append),) = bench.give(bench.request((b"k", UPDATE)))
    t_commit = append.transactions[0].t_commit
    assert bench.actor.promise(t_commit + 50) == Watermark("j0", 0, t_commit - 1)
    bench.give(Appended(1, 1), "j0")
    assert bench.actor.promise(0) == Watermark("j0", 1, t_commit + 50)


def test_what_comes_while_a_record_is_on_its_way_goes_out_as_the_next() -> None:
    bench = Bench()
    ((_, first),) = bench.give(bench.request((b"0", UPDATE)))
    for i in range(1, RECORD_TRANSACTIONS_MAX + 3):
        assert bench.give(bench.request((b"%d" % i, UPDATE))) == []
    second = bench.give(Appended(1, 1), "j0")[0][1]
    third = bench.give(Appended(1, 2), "j0")[0][1]
    assert [len(append.transactions) for append in (first, second, third)] == [1, RECORD_TRANSACTIONS_MAX, 2]
    commits = [t.t_commit for append in (first, second, third) for t in append.transactions]
    assert commits == sorted(set(commits))


def test_an_unanswered_append_is_sent_again_unchanged() -> None:
    bench = Bench()
    ((_, append),) = bench.give(bench.request((b"k", UPDATE)))
    bench.sent = []
    bench.t += int((APPEND_RESEND_S + 0.1) * SECOND)
    bench.actor.tick()
    assert bench.sent == [("j0", append)]


def test_a_fenced_adjudicator_commits_no_more() -> None:
    bench = Bench()
    request = bench.request((b"k", UPDATE))
    bench.give(request)
    ((_, lost),) = bench.give(AppendRefused(2, 5), "j0")
    assert type(lost) is Unknown
    assert type(bench.give(request)[0][1]) is Unknown, "it isn't known later either"
    assert type(bench.commit((b"other", UPDATE))) is Unavailable


def test_a_failed_journal_leaves_what_was_on_its_way_unknown() -> None:
    bench = Bench()
    bench.give(bench.request((b"a", UPDATE)))
    bench.give(bench.request((b"b", UPDATE)))
    outcomes = bench.give(JournalFailed("two disks are gone"), "j0")
    assert [type(message) for _, message in outcomes] == [Unknown, Unknown]
    assert "two disks are gone" in outcomes[0][1].reason


# -- the tables -------------------------------------------------------------------------------------------------------

CLAIMS = st.lists(st.builds(Claim, st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 3)), min_size=1, max_size=4)


@given(st.lists(st.tuples(CLAIMS, st.integers(1, 30)), max_size=12), CLAIMS, st.integers(0, 30), st.integers(0, 30))
def test_recent_claims_agree_with_a_plain_list(
    history: list[tuple[list[Claim], int]], claims: list[Claim], t_start: int, forget_up_to: int
) -> None:
    recent = RecentClaims()
    for committed, t_commit in history:
        recent.record(committed, t_commit)
    recent.forget(forget_up_to)
    t_start = max(t_start, recent.forgotten_up_to)
    expected = any(
        key == other and t_commit > t_start and modes_conflict(mode, other_mode)
        for key, mode in claims
        for committed, t_commit in history
        for other, other_mode in committed
    )
    assert (recent.conflict(claims, t_start) is not None) is expected


def test_recent_claims_are_bounded() -> None:
    recent = RecentClaims(claims_max=100)
    for t in range(1, 1001):
        recent.record((Claim(b"%d" % t, UPDATE),), t)
    assert len(recent) == 100
    assert recent.forgotten_up_to == 900
    assert recent.conflict((Claim(b"901", UPDATE),), 900) == b"901"


@given(st.lists(st.tuples(CLAIMS, st.integers(1, 30)), max_size=8), st.data())
def test_holds_agree_with_a_plain_list(history: list[tuple[list[Claim], int]], data: st.DataObject) -> None:
    holds = Holds()
    live: dict[bytes, tuple[list[Claim], int]] = {}
    for number, (claims, not_after) in enumerate(history):
        transaction_id = b"%d" % number
        holds.hold(transaction_id, tuple(claims), "final", not_after)
        live[transaction_id] = (claims, not_after)
        if data.draw(st.booleans()):
            asked, t_start = data.draw(CLAIMS), data.draw(st.integers(0, 30))
            expected = any(
                key == other and bound > t_start and modes_conflict(mode, other_mode)
                for key, mode in asked
                for held, bound in live.values()
                for other, other_mode in held
            )
            assert (holds.conflict(asked, t_start) is not None) is expected
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(live)))
            assert holds.release(gone) is not None
            del live[gone]
    for transaction_id in live:
        holds.release(transaction_id)
    assert len(holds) == 0 and not holds._by_key
