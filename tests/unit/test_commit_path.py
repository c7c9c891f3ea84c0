"""The embedded commit path, from begin to the answer, over stops of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from dsql_server.cluster.commit_path import ZONES, CommitPathSettings, EmbeddedCommitPath
from dsql_server.cluster.commit_path_lease import read_counter
from dsql_server.cluster.commit_path_replay import StorageMismatch
from dsql_server.interfaces.commit_path import LEASE_FAILED
from dsql_server.interfaces.messages import (
    Claim,
    CommitOutcome,
    CommitRequest,
    Committed,
    Conflict,
    ConflictKind,
    LockMode,
    Mutation,
    Unavailable,
    Unknown,
)
from dsql_server.interfaces.shard_map import even_shard_map
from dsql_server.journal.kernel_sync import KernelSync
from dsql_server.simulation.memory_storage import MemoryRouter

SMALL = CommitPathSettings(segment_bytes_max=64 * 1024)
UPDATE = int(LockMode.UPDATE)


class Bench:
    """A commit path over storage in memory."""

    def __init__(self, directory: Path, storage: MemoryRouter, settings: CommitPathSettings) -> None:
        self.storage = storage
        self.path = EmbeddedCommitPath(storage, storage, directory, asyncio.get_running_loop(), settings)

    def request(self, *keys: bytes, value: bytes | None = b"v", **options: Any) -> CommitRequest:
        return CommitRequest(
            os.urandom(16),
            options.pop("t_start", None) or self.path.begin(),
            options.pop("version", self.path.catalog_version),
            tuple(Claim(key, UPDATE) for key in keys),
            tuple(Mutation(key, value) for key in keys),
            **options,
        )

    def send(self, request: CommitRequest) -> asyncio.Future[CommitOutcome]:
        answer: asyncio.Future[CommitOutcome] = asyncio.get_running_loop().create_future()
        self.path.commit(request, answer.set_result)
        return answer

    async def commit(self, *keys: bytes, **options: Any) -> CommitOutcome:
        return await asyncio.wait_for(self.send(self.request(*keys, **options)), 5)

    async def lease(self, key: bytes, count: int) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.path.lease_sequence(key, count, answer.set_result)
        return await asyncio.wait_for(answer, 5)


@contextlib.asynccontextmanager
async def opened(
    directory: Path, storage: MemoryRouter | None = None, settings: CommitPathSettings = SMALL
) -> AsyncIterator[Bench]:
    bench = Bench(directory, storage or MemoryRouter(), settings)
    bench.path.open()
    try:
        yield bench
    finally:
        await bench.path.close()


def in_loop(test: Callable[[Path], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """Runs an async test, and sees to it that it leaves no threads."""

    def run(tmp_path: Path) -> None:
        before = set(threading.enumerate())
        asyncio.run(test(tmp_path))
        assert set(threading.enumerate()) == before, "threads are left"

    run.__name__ = test.__name__
    return run


@in_loop
async def test_whoever_begins_after_an_answer_sees_it(directory: Path) -> None:
    async with opened(directory) as bench:
        for number in range(30):
            value = b"%d" % number
            outcome = await bench.commit(b"a", b"b%d" % number, value=value)
            assert type(outcome) is Committed
            t_start = bench.path.begin()
            assert t_start >= outcome.t_commit
            assert bench.storage.get_many([b"a", b"b%d" % number], t_start) == [value, value]
            assert bench.storage.get(b"a", outcome.t_commit - 1) == (b"%d" % (number - 1) if number else None)


@in_loop
async def test_first_committer_wins(directory: Path) -> None:
    async with opened(directory) as bench:
        t_start = bench.path.begin()
        first = bench.send(bench.request(b"x", b"k", t_start=t_start))
        second = bench.send(bench.request(b"y", b"k", t_start=t_start))
        assert second.done(), "a conflict is known at once"
        assert second.result()[1:] == (ConflictKind.DATA, b"k")
        assert type(await first) is Committed
        assert type(await bench.commit(b"k")) is Committed


@in_loop
async def test_a_snapshot_stands_still_while_others_commit(directory: Path) -> None:
    async with opened(directory) as bench:
        await bench.commit(b"k", value=b"old")
        waiting = [bench.send(bench.request(b"k", b"other%d" % i, value=b"new")) for i in range(1)]
        t_start = bench.path.begin()
        assert bench.storage.get(b"k", t_start) == b"old"
        await asyncio.gather(*waiting)
        assert bench.storage.get(b"k", t_start) == b"old"
        assert bench.storage.get(b"k", bench.path.begin()) == b"new"


@in_loop
async def test_many_at_once_over_both_journals(directory: Path) -> None:
    async with opened(directory) as bench:
        outcomes = await asyncio.gather(*[bench.send(bench.request(b"k%d" % i)) for i in range(300)])
        assert all(type(outcome) is Committed for outcome in outcomes)
        assert len({outcome[1] for outcome in outcomes}) == 300
        t_start = bench.path.begin()
        assert all(bench.storage.get(b"k%d" % i, t_start) == b"v" for i in range(300))
        journals: Any = bench.path.metrics()["journals"]
        assert sum(journal["transactions"] for journal in journals.values()) == 300
        assert all(journal["records"] < journal["transactions"] / 2 for journal in journals.values()), "group commit"


@in_loop
async def test_ddl_moves_the_catalog_version_on_everywhere_and_for_good(directory: Path) -> None:
    async with opened(directory) as bench:
        assert type(await bench.commit(b"catalog", catalog_change=b"ddl")) is Committed
        assert bench.path.catalog_version == 1
        for number in range(4):  # keys of both adjudicators
            outcome = await bench.commit(b"k%d" % number, version=0)
            assert type(outcome) is Conflict and outcome.kind == ConflictKind.SCHEMA
            assert type(await bench.commit(b"k%d" % number)) is Committed
    async with opened(directory, bench.storage) as again:
        assert again.path.catalog_version == 1
        await again.commit(b"catalog", catalog_change=b"ddl")
    async with opened(directory, bench.storage) as again:
        assert again.path.catalog_version == 2


@in_loop
async def test_a_clean_stop_leaves_nothing_to_replay_and_small_journals(directory: Path) -> None:
    async with opened(directory) as bench:
        for number in range(200):
            await bench.commit(b"k%d" % (number % 7), value=bytes(2000))
    for node in bench.storage.nodes:
        node.crash()  # back to the checkpoint of the clean stop
    for zone in ZONES:
        assert len(list((directory / zone / "journal-0").glob("*.segment"))) <= 2
    async with opened(directory, bench.storage) as again:
        assert again.storage.get(b"k3", again.path.begin()) == bytes(2000)
        assert type(await again.commit(b"k3")) is Committed


@in_loop
async def test_time_and_catalog_survive_when_everything_is_trimmed(directory: Path) -> None:
    storage = MemoryRouter()
    async with opened(directory, storage) as bench:
        await bench.commit(b"catalog", catalog_change=b"ddl")
        last = await bench.commit(b"k")
        assert type(last) is Committed
    for _ in range(30):  # restarts that commit nothing: only fences are written
        idle = Bench(directory, storage, SMALL)
        idle.path.open()
        await idle.path.close()
    async with opened(directory, storage) as again:
        assert again.path.catalog_version == 1
        assert again.path.begin() > last.t_commit


@in_loop
async def test_storage_that_lost_its_memory_is_brought_up_to_date(directory: Path) -> None:
    async with opened(directory, settings=CommitPathSettings()) as bench:
        for number in range(40):
            await bench.commit(b"k%d" % number, b"all", value=b"%d" % number)
        state = directory.parent / "copy"
        # As a crash would leave it.
        shutil.copytree(directory, state, ignore=shutil.ignore_patterns("*.preparing"))
        before = {key: versions for node in bench.storage.nodes for key, versions in node.versions.items()}
    async with opened(state) as again:
        after = {key: versions for node in again.storage.nodes for key, versions in node.versions.items()}
        assert after == before
        assert again.storage.get(b"all", again.path.begin()) == b"39"


@in_loop
async def test_storage_of_another_cluster_is_refused(directory: Path) -> None:
    storage = MemoryRouter()
    async with opened(directory / "one", storage) as bench:
        for number in range(5):
            await bench.commit(b"k%d" % number)
    with pytest.raises(StorageMismatch, match=r"applied journal-. up to record .* restore"):
        Bench(directory / "other", storage, SMALL).path.open()
    with pytest.raises(StorageMismatch, match="start with as many adjudicators"):
        Bench(directory / "fewer", storage, CommitPathSettings(adjudicators=1)).path.open()


@in_loop
async def test_leases_never_overlap(directory: Path) -> None:
    async with opened(directory) as bench:
        assert await bench.lease(b"seq", 5) == 0
        firsts = await asyncio.gather(*[bench.lease(b"seq", 3) for _ in range(20)])
        assert sorted(firsts) == list(range(5, 65, 3))
        assert await bench.lease(b"other", 65536) == 0
    async with opened(directory, bench.storage) as again:
        assert await again.lease(b"seq", 1) == 65
        row = again.storage.get(b"seq", again.path.begin())
        assert row is not None and read_counter(row) == 66


@in_loop
async def test_a_lease_that_meets_another_writer_tries_again(directory: Path) -> None:
    async with opened(directory) as bench:
        assert await bench.lease(b"seq", 5) == 0
        row = b"\0\1\0\0\0\x08" + (1000).to_bytes(8, "big")
        restart = bench.send(bench.request(b"seq", value=row))  # ALTER SEQUENCE … RESTART, on its way
        assert await bench.lease(b"seq", 1) == 1000
        assert type(restart.result()) is Committed


@in_loop
async def test_the_way_of_a_transaction_is_told(directory: Path) -> None:
    shard_map = even_shard_map(2)
    ours = next(key for key in (b"%d" % i for i in range(99)) if shard_map.owner(key) == 1)
    theirs = next(key for key in (b"%d" % i for i in range(99)) if shard_map.owner(key) == 0)
    async with opened(directory) as bench:
        request = bench.request(ours, theirs)
        outcome = await bench.send(request)
        assert type(outcome) is Committed
        trace: Any = bench.path.trace(request.transaction_id)
        assert (trace["t_start"], trace["t_commit"]) == (request.t_start, outcome.t_commit)
        assert trace["adjudicators"] == ["adjudicator-0", "adjudicator-1"]
        assert (trace["final_adjudicator"], trace["journal"]) == ("adjudicator-1", "journal-1")
        assert trace["sequence"] == 2, "behind the record that fences"
        stages = trace["stages_us"]
        assert min(stages.values()) > 0
        assert stages["total"] == pytest.approx(stages["adjudicate"] + stages["journal"] + stages["apply"])
        assert bench.path.recent_transactions() == [request.transaction_id]
        assert bench.path.trace(b"?" * 16) is None
        metrics: Any = bench.path.metrics()
        assert metrics["adjudicators"]["adjudicator-1"]["cross_shard"] == 1
        assert [copy["copy"] for copy in metrics["journals"]["journal-1"]["copies"]] == list(ZONES)


@in_loop
async def test_after_the_stop_nothing_is_taken(directory: Path) -> None:
    async with opened(directory) as bench:
        pass
    outcome = await bench.commit(b"k")
    assert type(outcome) is Unavailable
    assert await bench.lease(b"seq", 1) == LEASE_FAILED
    await bench.path.close()


@in_loop
async def test_stopping_answers_what_is_on_its_way(directory: Path) -> None:
    async with opened(directory) as bench:
        answers = [bench.send(bench.request(b"k%d" % i)) for i in range(20)]
    assert all(type(answer.result()) is Committed for answer in answers)


@in_loop
async def test_a_clients_failing_callback_harms_nobody_else(directory: Path) -> None:
    async with opened(directory) as bench:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

        def fail(outcome: CommitOutcome) -> None:
            raise RuntimeError("a client's defect")

        bench.path.commit(bench.request(b"a"), fail)
        assert type(await bench.commit(b"b")) is Committed
        assert [str(context["exception"]) for context in reported] == ["a client's defect"]


@in_loop
async def test_a_callback_may_begin_and_commit_at_once(directory: Path) -> None:
    async with opened(directory) as bench:
        done = asyncio.get_running_loop().create_future()

        def again(outcome: CommitOutcome) -> None:
            assert type(outcome) is Committed
            assert bench.path.begin() >= outcome.t_commit
            bench.path.commit(bench.request(b"a"), done.set_result)

        bench.path.commit(bench.request(b"a"), again)
        assert type(await asyncio.wait_for(done, 5)) is Committed


def test_failed_disks_leave_outcomes_unknown_until_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = threading.Event()
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        if failing.is_set():
            raise OSError(5, "Input/output error")
        real(descriptor)

    real_kernel = KernelSync.fdatasync

    def kernel_fdatasync(sync: KernelSync, descriptor: int, on_done: Callable[[int], None]) -> None:
        if failing.is_set():
            raise OSError(5, "Input/output error")
        real_kernel(sync, descriptor, on_done)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(KernelSync, "fdatasync", kernel_fdatasync)

    async def test() -> None:
        async with opened(tmp_path) as bench:
            assert type(await bench.commit(b"before")) is Committed
            failing.set()
            reported: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
            answers = [bench.send(bench.request(b"k%d" % i, b"k%d" % (i + 50))) for i in range(20)]
            for outcome in await asyncio.wait_for(asyncio.gather(*answers), 5):
                assert type(outcome) is Unknown and "Input/output error" in outcome.reason
            assert reported == [], "a failing disk is no defect of ours"
            refused = await bench.commit(b"later")
            assert type(refused) is Unavailable
            assert bench.path.begin() == bench.path.begin(), "no snapshot passes what may turn out to be committed"
            assert bench.storage.get(b"before", bench.path.begin()) == b"v", "reads go on"
        failing.clear()
        async with opened(tmp_path, bench.storage) as again:
            assert type(await again.commit(b"k")) is Committed

    asyncio.run(test())


def test_a_defect_of_storage_stops_the_path_and_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with opened(tmp_path) as bench:
            reported: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
            answer = bench.send(bench.request(b"k"))
            bench.path._crossbar._cut = _defect
            outcome = await asyncio.wait_for(answer, 5)
            assert type(outcome) is Committed, "two copies have it"
            assert isinstance(reported[0]["exception"], ZeroDivisionError)
            with pytest.raises(RuntimeError, match="below an acknowledged transaction"):
                bench.path.begin()
            request = CommitRequest(os.urandom(16), outcome.t_commit, 0, (), ())
            refused = asyncio.get_running_loop().create_future()
            bench.path.commit(request, refused.set_result)
            assert type(await refused) is Unavailable
        async with opened(tmp_path, bench.storage) as again:
            assert again.storage.get(b"k", again.path.begin()) == b"v", "it was durable all the same"

    asyncio.run(test())


def _defect(mutations: Any) -> Any:
    raise ZeroDivisionError


SERVER = """
import asyncio, os, sys
from pathlib import Path
from dsql_server.cluster.commit_path import CommitPathSettings, EmbeddedCommitPath
from dsql_server.interfaces.messages import Claim, CommitRequest, Committed, Mutation
from dsql_server.simulation.memory_storage import MemoryRouter

async def main(directory, first):
    loop = asyncio.get_running_loop()
    storage = MemoryRouter()
    path = EmbeddedCommitPath(storage, storage, directory, loop, CommitPathSettings(segment_bytes_max=64 * 1024))
    path.open()

    async def client(number):
        counter = first
        while True:
            counter += 1
            keys = [b"%d/%d/%s" % (number, counter, part) for part in (b"a", b"b", b"c")]
            claims = tuple(Claim(key, 3) for key in keys)
            mutations = tuple(Mutation(key, bytes(200)) for key in keys)
            answer = loop.create_future()
            path.commit(CommitRequest(os.urandom(16), path.begin(), 0, claims, mutations), answer.set_result)
            assert type(await answer) is Committed
            print(number, counter, flush=True)

    await asyncio.gather(*[client(number) for number in range(4)])

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def test_kill_9_loses_nothing_acknowledged_and_tears_nothing(tmp_path: Path) -> None:
    acknowledged: set[tuple[int, int]] = set()

    def take(line: str) -> None:
        if line.endswith("\n"):
            number, counter = line.split()
            acknowledged.add((int(number), int(counter)))

    for round_ in range(3):
        arguments = [sys.executable, "-c", SERVER, str(tmp_path), str(round_ * 100_000)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(60 + 31 * round_):
                take(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                take(line)

    async def check() -> None:
        async with opened(tmp_path) as bench:
            t = bench.path.begin()
            for number, counter in acknowledged:
                keys = [b"%d/%d/%s" % (number, counter, part) for part in (b"a", b"b", b"c")]
                assert bench.storage.get_many(keys, t) == [bytes(200)] * 3
            stored = [key for node in bench.storage.nodes for key in node.versions]
            whole = {key.rsplit(b"/", 1)[0] for key in stored}
            assert len(stored) == 3 * len(whole), "a transaction is there as a whole or not at all"

    asyncio.run(check())
