"""The adjudicator of one shard of the keys.

It commits a transaction only if no other committed transaction has claimed one of its keys, in a conflicting mode, in
(T_start, T_commit]. Where several adjudicators own the keys, the one that was asked is the *final* one: the others vote
and hold their part until it decides, within a bound, and it writes the whole transaction to its own journal.

Why that is safe:

- T_commit lies above everything that this adjudicator ever committed or promised, and above every vote.
- T_commit lies at or below every voter's bound. When a voter's bound passes without a decision, it remembers the held
  claims as committed at the bound. That may refuse a transaction for nothing; it never lets a conflicting one through.
- A transaction that meets a hold conflicts at once. Nobody waits, so nobody can wait in a circle.
- A change of the catalog goes through all adjudicators. A voter may go on committing on the old version until it has
  voted; a final adjudicator looks at the version again when it decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from zlib import crc32

from dsql_server.adjudicator.appender import Appender, Decided
from dsql_server.adjudicator.holds import Holds
from dsql_server.adjudicator.outcomes import Outcomes
from dsql_server.adjudicator.recent_claims import RecentClaims
from dsql_server.interfaces.environment import NANOSECONDS_PER_SECOND, Environment
from dsql_server.interfaces.messages import (
    CATALOG_ANY,
    TRANSACTION_AGE_MAX_S,
    Appended,
    AppendRefused,
    CatalogAt,
    Claim,
    CommitRequest,
    Committed,
    CommittedTransaction,
    Conflict,
    ConflictKind,
    Hold,
    Inquire,
    JournalFailed,
    LeaderSet,
    PromiseRequest,
    Release,
    Timestamp,
    Unavailable,
    Vote,
    Watermark,
)
from dsql_server.interfaces.shard_map import BUCKETS, ShardMap

#: How long a voter keeps its part free. Far above any round trip, far below what a client would wait.
HOLD_MAX_S = 1.0
HOLD_MAX_NS = int(HOLD_MAX_S * NANOSECONDS_PER_SECOND)
#: A voter asks after a hold that lasts longer: the decision may be lost, and others conflict with it meanwhile.
INQUIRE_S = 0.05
_INQUIRE_NS = int(INQUIRE_S * NANOSECONDS_PER_SECOND)
#: Claims are remembered this much longer than a transaction may live, for clocks that differ.
MEMORY_MARGIN_S = 10

_BUCKET_MASK = BUCKETS - 1
_DATA = int(ConflictKind.DATA)
_SCHEMA = int(ConflictKind.SCHEMA)


class Recovered(NamedTuple):
    """What an adjudicator must know to go on where its journal ends."""

    epoch: int
    sequence: int
    catalog_version: int
    #: Never commit at or below it, and judge no transaction that started before it. After a restart among others that
    #: still run, it must lie above every bound that this adjudicator's lost votes named.
    floor: Timestamp
    #: The journal may hold transactions of an owner before, whose clients may still ask for their outcome.
    inherited: bool = False


class _Undecided:
    """A transaction that waits for the votes of other adjudicators."""

    __slots__ = ("client", "missing", "not_after", "not_before", "own", "request", "voters")

    def __init__(self, request: CommitRequest, client: str, own: tuple[Claim, ...], voters: tuple[str, ...]) -> None:
        self.request = request
        self.client = client
        self.own = own
        self.voters = voters
        self.missing = set(voters)
        self.not_before: Timestamp = 0
        self.not_after: Timestamp = 0


class Adjudicator:
    """Adjudicator number ``shard`` of ``addresses``; appends to ``journal``."""

    def __init__(
        self,
        shard: int,
        addresses: Sequence[str],
        journal: str,
        environment: Environment,
        shard_map: ShardMap,
        recovered: Recovered,
    ) -> None:
        self.address = addresses[shard]
        self.journal = journal
        self.catalog_version = recovered.catalog_version
        self._shard = shard
        self._addresses = tuple(addresses)
        self._owners = shard_map.owners
        self._single = len(addresses) == 1
        self._environment = environment
        self._send = environment.send
        self._now = environment.clock.now
        self._floor = recovered.floor
        self.last_commit: Timestamp = 0  #: T_commit of the last transaction decided here
        self._recent = RecentClaims(recovered.floor)
        self._holds = Holds()
        self._catalog_hold: bytes | None = None  # the undecided transaction that changes the catalog
        self._undecided: dict[bytes, _Undecided] = {}
        appender = self._appender = Appender(self.address, journal, environment, recovered.epoch, recovered.sequence)
        self._outcomes = Outcomes(
            self.address, addresses, journal, environment, appender, self._undecided, self._refuse, recovered.inherited
        )
        #: The other adjudicators, where all are in one process: what to ask for their votes, by address.
        self.neighbours: dict[str, Callable[[str, Hold], Vote | Conflict | Unavailable | None]] = {}
        self._failure = ""
        self._inherited_floor = recovered.floor if recovered.inherited else 0
        self.committed = 0
        self.cross_shard = 0
        self.conflicts = {_DATA: 0, _SCHEMA: 0}
        self.unavailable = 0
        self.handlers: dict[type, Any] = {
            CommitRequest: self._on_commit,
            Appended: self._on_appended,
            PromiseRequest: self._on_promise_request,
            Hold: self._on_hold,
            Vote: self._on_vote,
            Release: self._on_release,
            Conflict: self._on_vote_refused,
            Unavailable: self._on_vote_refused,
            AppendRefused: self._on_append_refused,
            JournalFailed: self._on_journal_failed,
            # Late answers to this shard's takeover.
            LeaderSet: self._ignore,
            CatalogAt: self._ignore,
            **self._outcomes.handlers,
        }

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _on_commit(self, sender: str, request: CommitRequest) -> None:
        transaction_id, t_start, catalog_version, claims, _, catalog_change = request
        if transaction_id in self._outcomes or transaction_id in self._undecided:
            self._outcomes.answer(sender, transaction_id)
            return
        if t_start < self._inherited_floor:
            self._outcomes.look_up(sender, transaction_id)  # the owner before may have committed it
            return
        others: dict[int, list[Claim]] | None = None
        if self._single:
            own = claims
        else:
            own, others = self._split(claims, catalog_change is not None)
        refusal = self._refusal(transaction_id, t_start, catalog_version, own)
        if refusal is not None:
            self._refuse(sender, refusal)
        elif others is None:
            self._commit(request, sender, own, self._next_t(t_start))
        else:
            self._ask_for_votes(request, sender, own, others)

    def _split(
        self, claims: tuple[Claim, ...], changes_catalog: bool
    ) -> tuple[tuple[Claim, ...], dict[int, list[Claim]] | None]:
        """(our own part, that of the others by shard, or None if there are no others)."""
        owners = self._owners
        shard = self._shard
        own: list[Claim] = []
        others: dict[int, list[Claim]] | None = None
        if changes_catalog:
            others = {other: [] for other in range(len(self._addresses)) if other != shard}
        for claim in claims:
            owner = owners[crc32(claim[0]) & _BUCKET_MASK]
            if owner == shard:
                own.append(claim)
            elif others is None:
                others = {owner: [claim]}
            elif owner in others:
                others[owner].append(claim)
            else:
                others[owner] = [claim]
        return tuple(own), others

    def _refusal(
        self, transaction_id: bytes, t_start: Timestamp, catalog_version: int, own: tuple[Claim, ...]
    ) -> Conflict | Unavailable | None:
        """Why the transaction can't commit, as far as this adjudicator is concerned."""
        if catalog_version != CATALOG_ANY and (
            catalog_version != self.catalog_version or self._catalog_hold is not None
        ):
            return Conflict(transaction_id, _SCHEMA, b"")
        recent = self._recent
        if t_start < recent.forgotten_up_to:
            return Unavailable(transaction_id, "the transaction started before what the adjudicator remembers")
        key = recent.conflict(own, t_start)
        if key is None:
            key = self._holds.conflict(own, t_start)
        if key is not None:
            return Conflict(transaction_id, _DATA, key)
        if self._failure:
            return Unavailable(transaction_id, self._failure)
        return None

    def _next_t(self, not_before: Timestamp) -> Timestamp:
        """The T_commit to pick now: above the bound, and above everything committed or promised here."""
        t = self._now()[1]
        least = max(self._floor, not_before)
        return t if t > least else least + 1

    def _commit(self, request: CommitRequest, client: str, own: tuple[Claim, ...], t_commit: Timestamp) -> None:
        """The decision: remember it and hand the whole transaction to the journal."""
        transaction_id, t_start, _, claims, mutations, catalog_change = request
        assert t_commit > self._floor and t_commit > t_start, "T_commit lies above every promise and above T_start"
        self._floor = self.last_commit = t_commit
        self._recent.record(own, t_commit)
        self._outcomes.remember(transaction_id, t_commit)
        self.committed += 1
        transaction = CommittedTransaction(
            transaction_id, t_commit, t_start, self.catalog_version, claims, mutations, catalog_change
        )
        if catalog_change is not None:
            self.catalog_version += 1
        self._appender.add(transaction, client)

    def _refuse(self, client: str, refusal: Conflict | Unavailable) -> None:
        if type(refusal) is Conflict:
            self.conflicts[refusal.kind] += 1
        else:
            self.unavailable += 1
        # Remembered, so that a repeated request isn't judged again and committed after all.
        self._outcomes.remember(refusal.transaction_id, 0)
        self._send(self.address, client, refusal)

    # -- as the final adjudicator of several --------------------------------------------------------------------------

    def _ask_for_votes(
        self, request: CommitRequest, client: str, own: tuple[Claim, ...], others: dict[int, list[Claim]]
    ) -> None:
        self.cross_shard += 1
        if self.neighbours:
            self._ask_neighbours(request, client, own, others)
            return
        transaction_id, t_start, catalog_version, _, _, catalog_change = request
        me = self.address
        bound = self._now()[1] + HOLD_MAX_NS
        voters = tuple([self._addresses[shard] for shard in others])
        undecided = _Undecided(request, client, own, voters)
        undecided.not_after = bound
        self._undecided[transaction_id] = undecided
        self._holds.hold(transaction_id, own, me, bound)
        if catalog_change is not None:
            self._catalog_hold = transaction_id
        for voter, part in zip(voters, others.values(), strict=True):
            hold = Hold(transaction_id, t_start, catalog_version, tuple(part), catalog_change is not None)
            self._send(me, voter, hold)

    def _ask_neighbours(
        self, request: CommitRequest, client: str, own: tuple[Claim, ...], others: dict[int, list[Claim]]
    ) -> None:
        """All votes at once. Nothing comes between them and the decision, so our own part needs no hold."""
        transaction_id, t_start, catalog_version, _, _, catalog_change = request
        not_before, not_after = t_start, self._now()[1] + HOLD_MAX_NS
        voters: list[str] = []
        for shard, part in others.items():
            voter = self._addresses[shard]
            voters.append(voter)
            hold = Hold(transaction_id, t_start, catalog_version, tuple(part), catalog_change is not None)
            answer = self.neighbours[voter](self.address, hold)
            assert answer is not None, "a transaction is voted on once"
            if not isinstance(answer, Vote):
                self._refuse(client, answer)
                self._release(transaction_id, 0, voters)
                return
            not_before = max(not_before, answer.not_before)
            not_after = min(not_after, answer.not_after)
        self._decide(request, client, own, voters, not_before, not_after)

    def _on_vote(self, sender: str, vote: Vote) -> None:
        transaction_id, not_before, not_after = vote
        undecided = self._undecided.get(transaction_id)
        if undecided is None:
            self._outcomes.release(transaction_id, sender)  # a repeated vote: its voter may have missed the decision
            return
        undecided.missing.discard(sender)
        undecided.not_before = max(undecided.not_before, not_before)
        undecided.not_after = min(undecided.not_after, not_after)
        if not undecided.missing:
            self._decide_with_votes(transaction_id, undecided)

    def _decide_with_votes(self, transaction_id: bytes, undecided: _Undecided) -> None:
        request = undecided.request
        del self._undecided[transaction_id]
        self._holds.release(transaction_id)
        self._drop_catalog_hold(transaction_id)
        not_before = max(undecided.not_before, request.t_start)
        self._decide(request, undecided.client, undecided.own, undecided.voters, not_before, undecided.not_after)

    def _decide(
        self,
        request: CommitRequest,
        client: str,
        own: tuple[Claim, ...],
        voters: Sequence[str],
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> None:
        """Commit above ``not_before`` and at or below ``not_after``, or refuse; the voters are told."""
        transaction_id, version = request.transaction_id, request.catalog_version
        t_commit = self._next_t(not_before)
        refusal: Conflict | Unavailable | None = None
        if version != CATALOG_ANY and (version != self.catalog_version or self._catalog_hold is not None):
            refusal = Conflict(transaction_id, _SCHEMA, b"")
        elif t_commit > not_after:
            refusal = Unavailable(transaction_id, "the votes came too late")
        elif self._failure:
            refusal = Unavailable(transaction_id, self._failure)
        if refusal is None:
            self._commit(request, client, own, t_commit)
        else:
            t_commit = 0
            self._refuse(client, refusal)
        self._release(transaction_id, t_commit, voters)

    def _release(self, transaction_id: bytes, t_commit: Timestamp, voters: Sequence[str]) -> None:
        release = Release(transaction_id, t_commit)
        for voter in voters:
            self._send(self.address, voter, release)

    def _on_vote_refused(self, sender: str, refusal: Conflict | Unavailable) -> None:
        self._drop(refusal.transaction_id, refusal)

    def _drop(self, transaction_id: bytes, refusal: Conflict | Unavailable) -> None:
        """Give up an undecided transaction, here and at its voters."""
        undecided = self._undecided.pop(transaction_id, None)
        if undecided is None:
            return
        self._holds.release(transaction_id)
        self._drop_catalog_hold(transaction_id)
        self._refuse(undecided.client, refusal)
        self._release(transaction_id, 0, undecided.voters)

    def _drop_catalog_hold(self, transaction_id: bytes) -> None:
        if self._catalog_hold == transaction_id:
            self._catalog_hold = None

    # -- as a voter ---------------------------------------------------------------------------------------------------

    def _on_hold(self, sender: str, hold: Hold) -> None:
        answer = self.vote(sender, hold)
        if answer is not None:
            self._send(self.address, sender, answer)

    def vote(self, final: str, hold: Hold) -> Vote | Conflict | Unavailable | None:
        """Keep the claims free until ``final`` has decided, or say why not; None: that was answered before."""
        transaction_id, t_start, catalog_version, claims, changes_catalog = hold
        if transaction_id in self._outcomes or transaction_id in self._holds:
            return None
        refusal = self._refusal(transaction_id, t_start, catalog_version, claims)
        if refusal is not None:
            return refusal
        not_after = self._now()[1] + HOLD_MAX_NS
        self._holds.hold(transaction_id, claims, final, not_after)
        if changes_catalog:
            self._catalog_hold = transaction_id
        return Vote(transaction_id, self._floor, not_after)

    def _on_release(self, sender: str, release: Release) -> None:
        transaction_id, t_commit = release
        held = self._holds.release(transaction_id)
        if self._catalog_hold == transaction_id:
            self._catalog_hold = None
            if t_commit:
                self.catalog_version += 1
        if held is not None:
            # The decision stands: a hold that is repeated behind it must not hold again.
            self._outcomes.remember(transaction_id, t_commit)
            if t_commit:
                self._recent.record(held.claims, t_commit)

    # -- the journal --------------------------------------------------------------------------------------------------

    def _on_appended(self, sender: str, message: Appended) -> None:
        durable = self._appender.appended(message)
        if not durable:
            return
        if self._now()[0] > durable[-1].transaction.t_commit:
            self._acknowledge(durable)
        else:
            self._acknowledge_later(durable)

    def _acknowledge(self, durable: list[Decided]) -> None:
        send = self._send
        me = self.address
        for transaction, client in durable:
            send(me, client, Committed(transaction.transaction_id, transaction.t_commit))

    def _acknowledge_later(self, durable: list[Decided]) -> None:
        """Once T_commit has passed on every clock, so that whoever begins after the answer begins behind it."""
        wait_ns = durable[-1].transaction.t_commit - self._now()[0] + 1
        if wait_ns <= 0:
            self._acknowledge(durable)
        else:
            self._environment.call_later(wait_ns / NANOSECONDS_PER_SECOND, lambda: self._acknowledge_later(durable))

    def _on_append_refused(self, sender: str, message: AppendRefused) -> None:
        if message.epoch == self._appender.epoch and message.expected_sequence <= self._appender.sequence + 1:
            return  # an old answer: the append has been taken since, or is on its way again
        self._fail(f"another owner leads {self.journal}")

    def _on_journal_failed(self, sender: str, message: JournalFailed) -> None:
        self._fail(f"{self.journal}: {message.reason}")

    def _fail(self, reason: str) -> None:
        """Commit nothing more. What is on its way to the journal may be in it or not."""
        self._failure = self._outcomes.failure = reason
        for transaction, client in self._appender.abandon():
            self._outcomes.lost(transaction.transaction_id, client)

    @property
    def busy(self) -> bool:
        """Whether a record is on its way to the journal: what is committed now goes into the next one."""
        return self._appender.oldest is not None

    # -- promises, repeated questions, and time -----------------------------------------------------------------------

    def promise(self, at_least: Timestamp) -> Watermark:
        """Never commit at or below ``at_least``; the watermark says from where on that holds for the journal."""
        self.pledge(at_least)
        appender = self._appender
        oldest = appender.oldest
        return Watermark(self.journal, appender.sequence, self._floor if oldest is None else oldest - 1)

    def pledge(self, at_least: Timestamp) -> None:
        """Never commit at or below ``at_least``, from now on."""
        if self._floor < at_least:
            self._floor = at_least

    def _on_promise_request(self, sender: str, message: PromiseRequest) -> None:
        self._send(self.address, sender, self.promise(message.at_least))

    def heartbeat(self) -> Watermark:
        """A promise up to now, so that the low watermark of an idle journal moves on."""
        return self.promise(self._now()[1])

    def _ignore(self, sender: str, message: LeaderSet | CatalogAt) -> None:
        pass

    def tick(self) -> None:
        """Housekeeping, to be called every now and then: forget, give up, ask again."""
        now = self._now()[1]
        self._recent.forget(now - (TRANSACTION_AGE_MAX_S + MEMORY_MARGIN_S) * NANOSECONDS_PER_SECOND)
        self._appender.resend(now)
        for transaction_id, undecided in list(self._undecided.items()):
            if undecided.not_after < now:
                self._drop(transaction_id, Unavailable(transaction_id, "an adjudicator didn't vote in time"))
        self._follow_up_holds(now)

    def _follow_up_holds(self, now: Timestamp) -> None:
        """Ask after holds that last longer than a decision takes, and end those whose bound has passed."""
        for transaction_id, held in self._holds.bounded_below(now + HOLD_MAX_NS - _INQUIRE_NS):
            if held.final == self.address:
                continue  # undecided here: the bound of its votes ends it
            self._send(self.address, held.final, Inquire(transaction_id))
            # Whether the catalog's version moved on decides over every transaction: only the answer ends that hold.
            if held.not_after < now and transaction_id != self._catalog_hold:
                self._holds.release(transaction_id)
                self._recent.record(held.claims, held.not_after)

    def metrics(self) -> dict[str, object]:
        return {
            "committed": self.committed,
            "conflicts_data": self.conflicts[_DATA],
            "conflicts_schema": self.conflicts[_SCHEMA],
            "unavailable": self.unavailable,
            "cross_shard": self.cross_shard,
            "remembered_claims": len(self._recent),
            "holds": len(self._holds),
            "catalog_version": self.catalog_version,
        }
