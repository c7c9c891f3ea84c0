"""The commit path of a cluster in one process: adjudicators, journals and the crossbar, wired by calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

from dsql_server.adjudicator.adjudicator import Adjudicator, Recovered
from dsql_server.clock import SystemClock
from dsql_server.cluster.commit_path_lease import SequenceLeases
from dsql_server.cluster.commit_path_mailbox import open_mailbox
from dsql_server.cluster.commit_path_replay import StorageFeed, check_positions, replay
from dsql_server.cluster.commit_path_trace import TraceLog
from dsql_server.crossbar.crossbar import Crossbar
from dsql_server.interfaces.commit_path import StorageReader, StorageRouter
from dsql_server.interfaces.environment import Actor
from dsql_server.interfaces.messages import (
    CommitOutcome,
    CommitRequest,
    Committed,
    Conflict,
    Timestamp,
    Unavailable,
    Unknown,
    Watermark,
)
from dsql_server.interfaces.shard_map import even_shard_map
from dsql_server.journal.journal import Journal
from dsql_server.journal.local_copies import LocalCopies
from dsql_server.journal.recovery import RecoveredJournal, recover
from dsql_server.journal.segments import SEGMENT_BYTES_MAX

ZONES = ("zone-a", "zone-b", "zone-c")
#: How often adjudicators forget, and it is looked whether a checkpoint is due.
TICK_S = 1.0
#: A checkpoint is due after this time, or earlier when the journals have grown by so much: a restart replays the rest.
CHECKPOINT_INTERVAL_S = 60.0
CHECKPOINT_JOURNAL_BYTES = 32 * 1024 * 1024
#: After so many commits in a row, of one session, there is nobody else that would wait for the event loop.
LONE_COMMITS_MIN = 4
#: How long a clean shutdown waits for what is on its way.
DRAIN_MAX_S = 10.0


@dataclass(frozen=True)
class CommitPathSettings:
    adjudicators: int = 2  #: each with a journal of its own
    segment_bytes_max: int = SEGMENT_BYTES_MAX
    checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S
    checkpoint_journal_bytes: int = CHECKPOINT_JOURNAL_BYTES


class _Durable(NamedTuple):
    """A durable transaction that storage hasn't applied yet."""

    t_commit: Timestamp
    transaction_id: bytes
    answered: bool  #: or its answer waits until storage has applied everything up to it


class EmbeddedCommitPath:
    """Everything below the query processors, behind the facade :class:`dsql_server.interfaces.commit_path.CommitPath`.

    All methods must be called on the event loop's thread. Messages between roles are calls; only the copies of the
    journals and checkpoints of storage have threads.
    """

    address = "queryprocessors"

    def __init__(
        self,
        storage: StorageReader,
        router: StorageRouter,
        directory: Path,
        loop: asyncio.AbstractEventLoop,
        settings: CommitPathSettings = CommitPathSettings(),
    ) -> None:
        """``directory`` keeps the journals, in one directory a zone; nobody else may use it meanwhile."""
        self.storage = storage
        self._router = router
        self._directory = directory
        self._loop = loop
        self._settings = settings
        self._clock = SystemClock()
        self._shard_map = even_shard_map(settings.adjudicators)
        self._owner_addresses: tuple[str, ...] = ()
        self._stable: Timestamp = 0
        self._waiting: dict[bytes, Callable[[CommitOutcome], None]] = {}
        self._durable: list[_Durable] = []
        self._answered: Timestamp = 0  #: the greatest T_commit that was answered before storage had it
        self._session = 0  #: which was served last
        self._lone_commits = 0  #: in a row, all of this session
        self._failure = ""
        self._drained: asyncio.Event | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._checkpointing: asyncio.Future[None] | None = None
        self._checkpointed_at = 0.0
        self._checkpointed_bytes = 0
        self._traces = TraceLog(self._shard_map)
        self._leases = SequenceLeases(self, loop)
        self._opened = False
        self.handlers: dict[type, Any] = {
            Committed: self._on_committed,
            Conflict: self._on_refused,
            Unavailable: self._on_refused,
            Unknown: self._on_refused,
            Watermark: self._on_watermark,
        }

    # -- start and stop -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Recover the journals, bring storage up to date and start serving. Blocks.

        Raises :class:`dsql_server.journal.recovery.JournalDamaged` or :class:`OSError` if a journal can't be recovered,
        :class:`dsql_server.cluster.commit_path_replay.StorageMismatch` if storage and journals don't belong together.
        """
        assert not self._opened, "opened once"
        names = [f"journal-{i}" for i in range(self._settings.adjudicators)]
        directories = {name: [self._directory / zone / name for zone in ZONES] for name in names}
        recovered = {name: recover(directories[name], self._settings.segment_bytes_max) for name in names}
        appliers = self._router.appliers()
        check_positions(appliers, recovered)
        replay(self._router, directories, recovered)
        self._wire(names, directories, recovered)
        self._opened = True
        self._checkpointed_at = self._loop.time()
        self._ticker = self._loop.call_later(TICK_S, self._tick)

    def _wire(
        self, names: list[str], directories: dict[str, list[Path]], recovered: dict[str, RecoveredJournal]
    ) -> None:
        floor = max(journal.tail.t_last for journal in recovered.values())
        catalog_version = max(journal.catalog_version for journal in recovered.values())
        self._clock = SystemClock(not_before=floor)
        self._stable = floor
        mailbox = open_mailbox(self._loop, self._clock, self._on_defect)
        self._send = mailbox.send
        self._catch_up = mailbox.catch_up
        addresses = tuple(f"adjudicator-{i}" for i in range(len(names)))
        self._owner_addresses = addresses
        feeds = [StorageFeed(f"storage-{i}", applier) for i, applier in enumerate(self._router.appliers())]
        self._copies = [
            LocalCopies(
                directories[name], recovered[name], self._loop, i, self._settings.segment_bytes_max, mailbox.gathered
            )
            for i, name in enumerate(names)
        ]
        self._trim_below = [0] * len(names)
        self._adjudicators = [
            Adjudicator(
                i,
                addresses,
                name,
                mailbox,
                self._shard_map,
                Recovered(recovered[name].tail.epoch, recovered[name].tail.sequence, catalog_version, floor),
            )
            for i, name in enumerate(names)
        ]
        for adjudicator in self._adjudicators:
            adjudicator.neighbours = {a.address: a.vote for a in self._adjudicators if a is not adjudicator}
        self._crossbar = Crossbar(
            "crossbar",
            mailbox,
            {name: journal.tail.sequence for name, journal in recovered.items()},
            [feed.address for feed in feeds],
            self._router.split,
            adjudicators=dict(zip(names, addresses, strict=True)),
            watchers=(self.address,),
            catalog_version=catalog_version,
        )
        self._journals = [
            Journal(name, mailbox, copies, recovered[name].tail, ("trace", "crossbar"))
            for name, copies in zip(names, self._copies, strict=True)
        ]
        actors: tuple[Actor, ...] = (*self._adjudicators, *self._journals, *feeds, self._crossbar, self._traces, self)
        for actor in actors:
            mailbox.add(actor)

    async def close(self) -> None:
        """Answer what is on its way, checkpoint storage, trim the journals, end all threads. May be called twice."""
        if not self._opened or self._drained is not None:
            return
        self._drained = asyncio.Event()
        if self._ticker is not None:
            self._ticker.cancel()
        if self._waiting:
            try:
                await asyncio.wait_for(self._drained.wait(), DRAIN_MAX_S)
            except asyncio.TimeoutError:
                self._fail("the server stops")
        try:
            if self._checkpointing is not None:
                await asyncio.wait([self._checkpointing])
            if not self._failure:
                await self._checkpoint()
        finally:
            for copies, bound in zip(self._copies, self._trim_below, strict=True):
                copies.close()
                copies.trim(bound)  # once more, now that the third copy has everything, too

    # -- the facade ---------------------------------------------------------------------------------------------------

    def begin(self, session: int = 0) -> Timestamp:
        """T_start: every acknowledged commit is at or below it, nothing can still commit at or below it, and storage
        has applied everything up to it. ``session``: a number for whoever is served with it; 0: none."""
        if session and session != self._session:
            self._session = session
            if self._lone_commits >= LONE_COMMITS_MIN:
                self._give_way(False)
            self._lone_commits = 0
        if self._answered > self._stable:
            self._catch_up()
            if self._answered > self._stable:
                raise RuntimeError(f"storage stopped below an acknowledged transaction: {self._failure}; restart")
        if not self._waiting and not self._failure:
            # Nothing is on its way, so the promise holds at once, and the snapshot is of now.
            now = self._clock.now()[1]
            for adjudicator in self._adjudicators:
                adjudicator.pledge(now)
            self._stable = now
        return self._stable

    def commit(self, request: CommitRequest, on_outcome: Callable[[CommitOutcome], None]) -> None:
        """Decide and make durable; ``on_outcome`` is called exactly once, perhaps before this returns."""
        transaction_id = request[0]
        if self._failure or self._drained is not None:
            on_outcome(Unavailable(transaction_id, self._failure or "the server stops"))
            return
        assert transaction_id not in self._waiting, "transaction ids are unique"
        received_ns = perf_counter_ns()
        self._waiting[transaction_id] = on_outcome
        self._lone_commits += 1
        if self._lone_commits == LONE_COMMITS_MIN:
            self._give_way(True)
        number = self._final(request)
        self._send(self.address, self._owner_addresses[number], request)
        if transaction_id in self._waiting:
            self._traces.decided(transaction_id, received_ns)
            if len(self._waiting) == 1 and request[5] is None:
                # While the record is on its way to the disks, and nothing else is to be done.
                copies = self._copies[number]
                if copies.give_way():
                    return
                if not self._router.prepare(self._adjudicators[number].last_commit, request[4], copies.give_way):
                    copies.wait_briefly()

    def _final(self, request: CommitRequest) -> int:
        """Which of the adjudicators that own the claims is to decide."""
        claims = request[3]
        if request[5] is not None or not claims:
            # All changes of the catalog meet at one adjudicator, so that two of them can't refuse each other.
            return 0
        owner = self._shard_map.owner
        first = owner(claims[0][0])
        if len(self._waiting) == 1:
            return first
        busy = [number for number, adjudicator in enumerate(self._adjudicators) if adjudicator.busy]
        if busy and first not in busy:
            # The journals share a disk, and answers come in order of time: one group commit beats two at once.
            for key, _ in claims:
                other = owner(key)
                if other in busy:
                    return other
        return first

    def lease_sequence(self, key: bytes, count: int, on_lease: Callable[[int], None]) -> None:
        """Durably reserve ``count`` values of the counter at ``key``; calls back with the first (counters start at 0),
        or with ``LEASE_FAILED``."""
        self._leases.lease(key, count, on_lease)

    # -- beside the facade --------------------------------------------------------------------------------------------

    @property
    def catalog_version(self) -> int:
        """The version that transactions must have run on to commit now; 0 in a new cluster."""
        return self._adjudicators[0].catalog_version

    def metrics(self) -> dict[str, object]:
        """What each role did since the start: counters, positions and the watermark's lag in nanoseconds."""
        now = self._clock.now()[1]
        crossbar = self._crossbar.metrics()
        crossbar["watermark_lag_ns"] = max(0, now - self._stable) if self._waiting else 0
        return {
            "adjudicators": {a.address: a.metrics() for a in self._adjudicators},
            "journals": {
                journal.address: {**journal.metrics(), "copies": copies.metrics()}
                for journal, copies in zip(self._journals, self._copies, strict=True)
            },
            "crossbar": crossbar,
        }

    def trace(self, transaction_id: bytes) -> dict[str, object] | None:
        """One of the last committed transactions on its way: timestamps, roles touched, stages in microseconds."""
        return self._traces.get(transaction_id)

    def recent_transactions(self) -> list[bytes]:
        """Ids of the transactions that :meth:`trace` knows, oldest first."""
        return self._traces.transaction_ids()

    # -- answers ------------------------------------------------------------------------------------------------------

    def _on_committed(self, sender: str, message: Committed) -> None:
        t_commit, transaction_id = message.t_commit, message.transaction_id
        # If no record is on its way, only calls stand between this one and storage: begin() waits for them instead.
        early = len(self._waiting) == 1 or not any(adjudicator.busy for adjudicator in self._adjudicators)
        self._durable.append(_Durable(t_commit, transaction_id, early))
        if early:
            self._answered = max(self._answered, t_commit)
            self._answer(message)

    def _on_refused(self, sender: str, message: Conflict | Unavailable | Unknown) -> None:
        self._traces.drop(message.transaction_id)
        self._answer(message)
        if type(message) is Unknown and not self._failure:
            self._fail(message.reason)

    def _on_watermark(self, sender: str, message: Watermark) -> None:
        self._on_stable(message.t)

    def _on_stable(self, t: Timestamp) -> None:
        """Storage has applied everything up to ``t``, and nothing at or below it can follow: answer those."""
        if t > self._stable:
            self._stable = t
        durable = self._durable
        if not durable:
            return
        self._durable = [entry for entry in durable if entry.t_commit > t]
        for t_commit, transaction_id, answered in sorted([entry for entry in durable if entry.t_commit <= t]):
            self._traces.applied(transaction_id)
            if not answered:
                self._answer(Committed(transaction_id, t_commit))

    def _answer(self, outcome: CommitOutcome) -> None:
        on_outcome = self._waiting.pop(outcome[0], None)
        if on_outcome is None:
            return  # a failure has answered it already
        self._call(on_outcome, outcome)
        if self._drained is not None and not self._waiting:
            self._drained.set()

    def _give_way(self, to_workers: bool) -> None:
        """Whether the kernel's workers come first while a record is being synced."""
        for copies in self._copies:
            copies.gives_way = to_workers

    def _call(self, on_outcome: Callable[[CommitOutcome], None], outcome: CommitOutcome) -> None:
        try:
            on_outcome(outcome)
        except Exception as error:  # the client's defect, not ours: the path goes on
            self._loop.call_exception_handler(
                {"message": "the receiver of a commit's outcome failed", "exception": error}
            )

    def _on_defect(self, error: BaseException) -> None:
        self._loop.call_exception_handler({"message": "the commit path stops after a defect", "exception": error})
        self._fail(f"the commit path stopped after a defect: {error!r}")

    def _fail(self, reason: str) -> None:
        """Commit nothing more until a restart recovers the journals; what waits may be committed or not."""
        self._failure = reason
        waiting = self._waiting
        self._waiting = {}
        self._durable.clear()
        for transaction_id, on_outcome in waiting.items():
            self._call(on_outcome, Unknown(transaction_id, reason))
        if self._drained is not None:
            self._drained.set()

    # -- housekeeping -------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(TICK_S, self._tick)
        for adjudicator in self._adjudicators:
            adjudicator.tick()
        written = sum(journal.bytes_written for journal in self._journals)
        settings = self._settings
        due = self._loop.time() - self._checkpointed_at > settings.checkpoint_interval_s
        grown = written - self._checkpointed_bytes
        due = due or grown > settings.checkpoint_journal_bytes
        if due and grown and self._checkpointing is None and not self._failure:
            self._checkpointing = self._loop.create_task(self._checkpoint())
            self._checkpointing.add_done_callback(self._on_checkpointed)

    def _on_checkpointed(self, task: asyncio.Future[None]) -> None:
        self._checkpointing = None
        if not task.cancelled() and task.exception() is not None:
            # The journals keep everything meanwhile; the next tick tries again.
            self._loop.call_exception_handler(
                {"message": "a checkpoint of storage failed", "exception": task.exception()}
            )

    async def _checkpoint(self) -> None:
        """Make storage durable and trim the journals below it."""
        self._checkpointed_at = self._loop.time()
        self._checkpointed_bytes = sum(journal.bytes_written for journal in self._journals)
        self._crossbar.deliver_positions()
        durable: list[dict[str, int]] = []
        for applier in self._router.appliers():
            durable.append(await self._loop.run_in_executor(None, applier.checkpoint))
        bounds: list[int] = []
        for journal, copies in zip(self._journals, self._copies, strict=True):
            lowest = min([positions.get(journal.address, 0) for positions in durable], default=0)
            # The last transaction stays, applied or not: it tells recovery where time and catalog go on.
            bounds.append(min(lowest + 1, journal.t_last_sequence))
            copies.trim(bounds[-1])
        self._trim_below = bounds
