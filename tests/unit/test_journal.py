"""Journals: the record's bytes, compare-and-set, and what recovery makes of every kind of damage."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.interfaces.messages import (
    Append,
    Appended,
    AppendRefused,
    Claim,
    CommittedTransaction,
    LeaderSet,
    LookedUp,
    LookUp,
    Mutation,
    SetLeader,
    Stream,
    Subscribe,
)
from dsql_server.journal.copy_writer import KernelCopyWriter
from dsql_server.journal.journal import Journal
from dsql_server.journal.kernel_sync import KernelSync
from dsql_server.journal.local_copies import FOLLOW_STALLS_MAX, LocalCopies
from dsql_server.journal.record import (
    NO_DIGEST,
    JournalTail,
    decode_own_record,
    decode_record,
    encode_record,
)
from dsql_server.journal.recovery import JournalDamaged, RecoveredJournal, read_records, recover
from dsql_server.journal.segments import SECTOR_BYTES, segment_numbers, segment_path

KEYS = st.binary(max_size=30)
TRANSACTIONS = st.builds(
    CommittedTransaction,
    st.binary(min_size=16, max_size=16),
    st.integers(1, 2**62),
    st.integers(0, 2**62),
    st.integers(-1, 2**40),
    st.lists(st.builds(Claim, KEYS, st.integers(1, 3)), max_size=4).map(tuple),
    st.lists(st.builds(Mutation, KEYS, st.none() | st.binary(max_size=60)), max_size=4).map(tuple),
    st.none() | st.binary(max_size=30),
)


def transaction(t_commit: int, size: int = 30) -> CommittedTransaction:
    mutation = Mutation(b"key%d" % t_commit, bytes([t_commit % 255 + 1]) * size)
    return CommittedTransaction(t_commit.to_bytes(16, "big"), t_commit, t_commit - 1, 1, (), (mutation,))


# -- records ----------------------------------------------------------------------------------------------------------


@given(st.lists(TRANSACTIONS, max_size=4), st.integers(1, 2**60), st.integers(1, 2**60))
def test_a_record_survives(transactions: list[CommittedTransaction], epoch: int, sequence: int) -> None:
    data, digest = encode_record(epoch, sequence, b"d" * 16, transactions)
    record = decode_record(b"junk" + data + b"junk", 4, sequence, b"d" * 16)
    assert record is not None
    assert record.transactions == tuple(transactions)
    assert (record.epoch, record.sequence, record.digest, record.length) == (epoch, sequence, digest, len(data))
    assert decode_own_record(data) == record


@given(st.data())
def test_no_flipped_bit_goes_unnoticed(data: st.DataObject) -> None:
    record, _ = encode_record(1, 5, NO_DIGEST, [data.draw(TRANSACTIONS)])
    at = data.draw(st.integers(0, len(record) * 8 - 1))
    flipped = bytearray(record)
    flipped[at // 8] ^= 1 << at % 8
    assert decode_record(bytes(flipped), 0, 5, NO_DIGEST) is None


def test_a_record_out_of_its_place_is_refused() -> None:
    record, digest = encode_record(1, 5, NO_DIGEST, [transaction(1)])
    assert decode_record(record, 0, 6, NO_DIGEST) is None
    assert decode_record(record, 0, 5, digest) is None
    assert decode_record(record[:-1], 0, 5, NO_DIGEST) is None
    with pytest.raises(ValueError, match="record 5"):
        decode_own_record(record[:-1] + b"?")


# -- the actor --------------------------------------------------------------------------------------------------------


class HandCopies:
    """Copies that become durable when the test says so."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    def open(self, on_durable: Any, on_failure: Any) -> None:
        self.durable, self.fail = on_durable, on_failure

    def write(self, sequence: int, record: bytes) -> None:
        self.records.append(record)

    def read(self, from_sequence: int) -> Iterator[bytes]:
        return iter(self.records[from_sequence - 1 :])

    def trim(self, below_sequence: int) -> None:
        raise AssertionError("nobody trims here")


class Bench:
    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.copies = HandCopies()
        self.clock: Any = None
        self.random = random.Random(1)
        self.journal = Journal("j", self, self.copies, JournalTail(epoch=1), ("crossbar",))

    def send(self, sender: str, receiver: str, message: Any) -> None:
        self.sent.append((receiver, message))

    def call_later(self, delay_s: float, callback: Any) -> Any:
        raise AssertionError("a journal needs no timers")

    def give(self, message: Any, sender: str = "a") -> list[tuple[str, Any]]:
        self.sent = []
        self.journal.handlers[type(message)](sender, message)
        return self.sent

    def durable(self, sequence: int) -> list[tuple[str, Any]]:
        self.sent = []
        self.copies.durable(sequence)
        return self.sent


def test_a_record_is_answered_and_streamed_once_it_is_durable() -> None:
    bench = Bench()
    assert bench.give(Append(1, 1, (transaction(5),))) == []
    assert bench.durable(1) == [("a", Appended(1, 1)), ("crossbar", Stream("j", 1, (transaction(5),)))]


@pytest.mark.parametrize(("epoch", "expected"), [(1, 3), (2, 2), (0, 2)])
def test_appends_are_compare_and_set(epoch: int, expected: int) -> None:
    bench = Bench()
    bench.give(Append(1, 1, (transaction(5),)))
    bench.durable(1)
    assert bench.give(Append(epoch, expected, (transaction(9),))) == [("a", AppendRefused(1, 2))]
    assert len(bench.copies.records) == 1


def test_a_repeated_append_is_answered_again_and_not_written_again() -> None:
    bench = Bench()
    append = Append(1, 1, (transaction(5),))
    bench.give(append)
    assert bench.give(append) == []
    bench.durable(1)
    assert bench.give(append) == [("a", Appended(1, 1))]
    assert len(bench.copies.records) == 1


def test_a_new_leader_fences_the_old_one_and_what_it_pipelined() -> None:
    bench = Bench()
    bench.give(Append(1, 1, (transaction(5),)))
    assert bench.give(SetLeader(2), "b") == [], "the record before it isn't durable yet"
    assert ("b", LeaderSet(2, 2, 5)) in bench.durable(1)
    assert bench.give(Append(1, 2, (transaction(6),))) == [("a", AppendRefused(2, 2))]
    assert bench.give(Append(1, 3, (transaction(7),))) == [("a", AppendRefused(2, 2))]
    assert bench.give(SetLeader(1), "a") == [("a", AppendRefused(2, 2))]
    assert bench.give(Append(2, 2, ()), "b") == []
    assert bench.durable(2)[0] == ("b", Appended(2, 2))


def test_a_lost_answer_is_found_by_transaction_id() -> None:
    bench = Bench()
    for sequence in (1, 2):
        bench.give(Append(1, sequence, (transaction(sequence * 10), transaction(sequence * 10 + 1))))
    bench.durable(1)
    found, missing = transaction(11).transaction_id, transaction(21).transaction_id
    assert bench.give(LookUp(found)) == [("a", LookedUp(found, 1, 11))]
    assert bench.give(LookUp(missing)) == [("a", LookedUp(missing, 0, 0))], "record 2 may still get lost"
    bench.durable(2)
    assert bench.give(LookUp(missing)) == [("a", LookedUp(missing, 2, 21))]


def test_a_subscriber_gets_what_is_durable_and_then_what_follows() -> None:
    bench = Bench()
    for sequence in (1, 2, 3):
        bench.give(Append(1, sequence, (transaction(sequence),)))
    bench.durable(2)
    assert bench.give(Subscribe(2), "late") == [("late", Stream("j", 2, (transaction(2),)))]
    assert ("late", Stream("j", 3, (transaction(3),))) in bench.durable(3)


# -- files ------------------------------------------------------------------------------------------------------------

#: A disk that a test stalls goes on after that if the test fails before it says so.
STALL_S_MAX = 60
SMALL_SEGMENT = 8 * SECTOR_BYTES


class Files:
    """A journal in three directories, written through LocalCopies on a loop of its own."""

    def __init__(self, directory: Path) -> None:
        self.directories = [directory / zone / "journal-0" for zone in ("zone-a", "zone-b", "zone-c")]
        self.loop = asyncio.new_event_loop()

    def recover(self) -> RecoveredJournal:
        return recover(self.directories, SMALL_SEGMENT)

    def write(self, commits: range, size: int = 30) -> RecoveredJournal:
        """Recover, append one transaction a record, wait for each, close; returns what was recovered."""
        recovered = self.recover()
        copies = LocalCopies(self.directories, recovered, self.loop, segment_bytes_max=SMALL_SEGMENT)
        durable: list[int] = []
        copies.open(durable.append, lambda reason: pytest.fail(reason))
        tail = recovered.tail
        for t_commit in commits:
            data, digest = encode_record(tail.epoch, tail.sequence + 1, tail.digest, [transaction(t_commit, size)])
            tail = JournalTail(tail.epoch, tail.sequence + 1, digest, t_commit)
            copies.write(tail.sequence, data)
            self.loop.run_until_complete(self._until(durable, tail.sequence))
        copies.close()
        assert durable == sorted(durable)
        return recovered

    async def _until(self, durable: list[int], sequence: int) -> None:
        while not durable or durable[-1] < sequence:
            await asyncio.sleep(0)

    def commits(self) -> list[int]:
        """T_commit of everything that can be read back."""
        return [t.t_commit for data in read_records(self.directories, 1) for t in decode_own_record(data).transactions]

    def contents(self) -> list[dict[str, bytes]]:
        return [{path.name: path.read_bytes() for path in directory.iterdir()} for directory in self.directories]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    before = set(threading.enumerate())
    journal = Files(tmp_path)
    yield journal
    journal.loop.close()
    assert set(threading.enumerate()) == before, "threads are left"


def assert_equal_copies(files: Files) -> None:
    """All copies hold the same bytes in the segments in use, whatever sizes they were prepared with."""
    first, second, third = (
        {name: data.rstrip(b"\0") for name, data in copy.items() if data.rstrip(b"\0")} for copy in files.contents()
    )
    assert first == second == third


def test_what_is_written_is_read_back_over_many_segments(files: Files) -> None:
    files.write(range(10, 40))
    assert files.commits() == list(range(10, 40))
    assert len(segment_numbers(files.directories[0])) > 3
    assert_equal_copies(files)


def test_every_restart_goes_on_in_a_new_epoch(files: Files) -> None:
    epochs = [files.write(range(t, t + 3)).tail.epoch for t in (10, 20, 30)]
    assert epochs == [1, 2, 3]
    assert files.recover().tail.t_last == 32
    assert files.commits() == [10, 11, 12, 20, 21, 22, 30, 31, 32]


def test_a_record_larger_than_a_segment(files: Files) -> None:
    files.write(range(10, 14), size=3 * SMALL_SEGMENT)
    assert files.commits() == [10, 11, 12, 13]
    files.write(range(14, 16))
    assert files.commits() == [10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("copy", [0, 1, 2])
def test_a_flipped_byte_anywhere_in_one_copy_is_repaired(files: Files, copy: int) -> None:
    files.write(range(10, 30))
    whole = files.contents()
    dice = random.Random(copy)
    for _ in range(12):
        name = dice.choice([name for name, data in whole[copy].items() if data.strip(b"\0")])
        data = bytearray(whole[copy][name])
        data[dice.randrange(len(bytes(data).rstrip(b"\0")))] ^= 1 << dice.randrange(8)
        (files.directories[copy] / name).write_bytes(data)
        assert files.commits() == list(range(10, 30))
    recovered = files.recover()
    assert recovered.repairs > 0
    assert_equal_copies(files)
    assert files.recover().repairs == 0


def test_damage_at_different_places_of_different_copies_is_repaired(files: Files) -> None:
    files.write(range(10, 16))
    for copy, sector in ((0, 2), (1, 3), (2, 4)):
        with open(segment_path(files.directories[copy], 1), "r+b") as file:
            file.seek(sector * SECTOR_BYTES + 60)
            file.write(b"\xff\xff\xff")
    assert files.recover().repairs == 3
    assert files.commits() == list(range(10, 16))
    assert_equal_copies(files)


def test_a_lost_copy_is_rebuilt(files: Files) -> None:
    files.write(range(10, 30))
    shutil.rmtree(files.directories[1])
    files.recover()
    assert files.commits() == list(range(10, 30))
    assert_equal_copies(files)


def test_a_torn_tail_is_cut_and_written_over(files: Files) -> None:
    files.write(range(10, 13))
    tail = files.recover().tail
    torn, _ = encode_record(tail.epoch, tail.sequence + 1, tail.digest, [transaction(99, 700)])
    at = len(segment_path(files.directories[0], 1).read_bytes().rstrip(b"\0"))
    at = -(-at // SECTOR_BYTES) * SECTOR_BYTES
    for directory in files.directories[:2]:
        with open(segment_path(directory, 1), "r+b") as file:
            file.seek(at)
            file.write(torn[:SECTOR_BYTES])
    files.write(range(13, 15))
    assert files.commits() == [10, 11, 12, 13, 14]
    assert_equal_copies(files)


def test_a_record_on_one_copy_only_is_kept_and_stays(files: Files) -> None:
    """It may be acknowledged for all that this recovery knows, so every later one must say the same."""
    files.write(range(10, 13))
    recovered = files.recover()
    data, _ = encode_record(recovered.tail.epoch, recovered.tail.sequence + 1, recovered.tail.digest, [transaction(13)])
    with open(segment_path(files.directories[2], recovered.segment), "r+b") as file:
        file.seek(recovered.offset)
        file.write(data)
    files.recover()
    assert files.commits() == [10, 11, 12, 13]
    shutil.rmtree(files.directories[2])
    files.recover()
    assert files.commits() == [10, 11, 12, 13]


def test_damage_on_all_copies_is_refused_and_named(files: Files) -> None:
    files.write(range(10, 16))
    for directory in files.directories:
        with open(segment_path(directory, 1), "r+b") as file:
            file.seek(3 * SECTOR_BYTES + 60)
            file.write(b"\xff\xff\xff")
    with pytest.raises(JournalDamaged, match=r"0000000001.segment: record 3 .* restore"):
        files.recover()


def test_a_segment_lost_on_all_copies_is_refused_and_named(files: Files) -> None:
    files.write(range(10, 40))
    for directory in files.directories:
        segment_path(directory, 2).unlink()
    with pytest.raises(JournalDamaged, match=r"segment 3 .* no copy has a readable record"):
        files.recover()


def test_trimming_keeps_what_is_needed(files: Files) -> None:
    files.write(range(10, 40))
    recovered = files.recover()
    copies = LocalCopies(files.directories, recovered, files.loop, segment_bytes_max=SMALL_SEGMENT)
    copies.open(lambda sequence: None, pytest.fail)
    copies.trim(15)
    copies.close()
    commits = files.commits()
    assert commits[-1] == 39
    first_left = commits[0] - 8  # the record with T_commit 10 has sequence 2
    assert 1 < first_left <= 15
    again = files.recover()
    assert min(again.segment_firsts.values()) == first_left
    files.write(range(40, 42))
    assert files.commits()[-2:] == [40, 41]


def test_everything_trimmed_leaves_the_place_to_go_on(files: Files) -> None:
    files.write(range(10, 40))
    recovered = files.recover()
    copies = LocalCopies(files.directories, recovered, files.loop, segment_bytes_max=SMALL_SEGMENT)
    copies.open(lambda sequence: None, pytest.fail)
    copies.trim(10_000)
    copies.close()
    assert files.recover().tail.sequence == recovered.tail.sequence + 1
    assert len(files.commits()) < 8


# -- failing disks ----------------------------------------------------------------------------------------------------


class FailingDisk:
    """Makes ``fdatasync`` fail, or wait, for files below some directories."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing: set[Path] = set()
        self.stalled: dict[Path, threading.Event] = {}
        self._real = os.fdatasync
        self._real_kernel = KernelSync.fdatasync
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)
        monkeypatch.setattr(KernelSync, "fdatasync", lambda *arguments: self.kernel_fdatasync(*arguments))

    def fdatasync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent
        if path in self.failing:
            raise OSError(5, "Input/output error")
        if path in self.stalled:
            self.stalled[path].wait(STALL_S_MAX)
        self._real(descriptor)

    def kernel_fdatasync(self, sync: KernelSync, descriptor: int, on_done: Callable[[int], None]) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent in self.failing:
            raise OSError(5, "Input/output error")
        self._real_kernel(sync, descriptor, on_done)


@pytest.fixture(params=["kernel", "threads"])
def writers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to sync a copy: by the kernel, and by threads where the kernel can't."""
    if request.param == "threads":
        use_threads(monkeypatch)
    return str(request.param)


def use_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sync: KernelSync, loop: asyncio.AbstractEventLoop) -> None:
        raise OSError("not in this test")

    monkeypatch.setattr(KernelSync, "__init__", refuse)


@pytest.mark.parametrize("count", [1, 40])
def test_copies_are_equal_however_they_are_synced(files: Files, writers: str, count: int) -> None:
    files.write(range(10, 10 + count))
    assert files.commits() == list(range(10, 10 + count))
    assert_equal_copies(files)


def test_a_sync_that_the_kernel_reports_as_failed_fails_the_copy(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    sync = KernelSync(loop)
    progress: list[str] = []
    writer = KernelCopyWriter(tmp_path, 0, lambda: progress.append(writer.failure), sync)
    writer._syncing = 1  # as after put(); the kernel's verdict follows
    writer._synced(5)
    assert progress == [f"{tmp_path}: Input/output error"] and writer.durable == 0
    writer.close()
    sync.close()
    loop.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds a file's directory through /proc")
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_one_failing_disk_changes_nothing(
    files: Files, monkeypatch: pytest.MonkeyPatch, writers: str, failing: int
) -> None:
    files.write(range(10, 12))
    disk = FailingDisk(monkeypatch)
    disk.failing = {files.directories[failing]}
    recovered = _recover_unharmed(files, monkeypatch, disk)
    copies, durable = _open(files, recovered, pytest.fail)
    _append(files, copies, durable, recovered, range(12, 16))
    copies.close()
    assert "Input/output error" in str(copies.metrics()[failing]["failure"])
    disk.failing = set()
    assert files.commits() == list(range(10, 16))
    files.recover()
    assert_equal_copies(files)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds a file's directory through /proc")
def test_a_stalled_disk_is_overtaken_by_the_third(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    use_threads(monkeypatch)  # a stall of the kernel's own sync can't be staged here
    files.write(range(10, 12))
    disk = FailingDisk(monkeypatch)
    recovered = _recover_unharmed(files, monkeypatch, disk)
    disk.stalled = {files.directories[0]: threading.Event()}
    copies, durable = _open(files, recovered, pytest.fail)
    _append(files, copies, durable, recovered, range(12, 14))
    disk.stalled[files.directories[0]].set()
    copies.close()
    assert files.commits() == [10, 11, 12, 13]


def test_the_third_copy_writes_many_records_as_one(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: list[Any] = []

    def call_later(delay_s: float, tick: Any) -> asyncio.TimerHandle:
        ticks.append(tick)
        return asyncio.TimerHandle(0, tick, (), files.loop)

    recovered = files.recover()
    copies, durable = _open(files, recovered, pytest.fail)
    with monkeypatch.context() as patched:
        threadsafe = files.loop.call_soon_threadsafe
        patched.setattr(copies, "_loop", SimpleNamespace(call_later=call_later, call_soon_threadsafe=threadsafe))
        _append(files, copies, durable, recovered, range(10, 13))
        for _ in range(FOLLOW_STALLS_MAX):
            assert copies.metrics()[2]["fdatasyncs"] == 0
            ticks.pop()()
        assert ticks == [], "nothing to do until the next record"
    copies.close()
    assert [copy["fdatasyncs"] for copy in copies.metrics()] == [3, 3, 1]
    assert_equal_copies(files)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds a file's directory through /proc")
def test_two_failing_disks_stop_the_journal(files: Files, monkeypatch: pytest.MonkeyPatch, writers: str) -> None:
    disk = FailingDisk(monkeypatch)
    recovered = _recover_unharmed(files, monkeypatch, disk)
    disk.failing = set(files.directories[1:])
    failures: list[str] = []
    copies, durable = _open(files, recovered, failures.append)
    data, _ = encode_record(1, recovered.tail.sequence + 1, recovered.tail.digest, [transaction(10)])
    copies.write(recovered.tail.sequence + 1, data)

    async def until_failed() -> None:
        while not failures:
            await asyncio.sleep(0.001)

    files.loop.run_until_complete(asyncio.wait_for(until_failed(), STALL_S_MAX))
    copies.close()
    assert durable == []
    assert len(failures) == 1 and "zone-b" in failures[0] and "zone-c" in failures[0]


def _recover_unharmed(files: Files, monkeypatch: pytest.MonkeyPatch, disk: FailingDisk) -> RecoveredJournal:
    failing, disk.failing = disk.failing, set()
    recovered = files.recover()
    disk.failing = failing
    return recovered


def _open(files: Files, recovered: RecoveredJournal, on_failure: Any) -> tuple[LocalCopies, list[int]]:
    durable: list[int] = []
    copies = LocalCopies(files.directories, recovered, files.loop, segment_bytes_max=SMALL_SEGMENT)
    copies.open(durable.append, on_failure)
    return copies, durable


def _append(files: Files, copies: LocalCopies, durable: list[int], recovered: RecoveredJournal, commits: range) -> None:
    tail = recovered.tail
    for t_commit in commits:
        data, digest = encode_record(tail.epoch, tail.sequence + 1, tail.digest, [transaction(t_commit)])
        tail = JournalTail(tail.epoch, tail.sequence + 1, digest, t_commit)
        copies.write(tail.sequence, data)
        files.loop.run_until_complete(asyncio.wait_for(files._until(durable, tail.sequence), 5))


# -- kill -9 ----------------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from pathlib import Path
from dsql_server.journal.local_copies import LocalCopies
from dsql_server.journal.record import JournalTail, encode_record
from dsql_server.journal.recovery import recover
from dsql_server.interfaces.messages import CommittedTransaction, Mutation

async def main(directories, small):
    recovered = recover(directories, small)
    copies = LocalCopies(directories, recovered, asyncio.get_running_loop(), segment_bytes_max=small)
    durable = asyncio.Queue()
    copies.open(durable.put_nowait, lambda reason: sys.exit(reason))
    tail = recovered.tail
    t = tail.t_last
    while True:
        t += 1
        mutation = Mutation(b"key", bytes(100 + t * 97 % 3000))
        transaction = CommittedTransaction(t.to_bytes(16, "big"), t, t - 1, 1, (), (mutation,))
        data, digest = encode_record(tail.epoch, tail.sequence + 1, tail.digest, [transaction])
        tail = JournalTail(tail.epoch, tail.sequence + 1, digest, t)
        copies.write(tail.sequence, data)
        while await durable.get() < tail.sequence:
            pass
        print(t, flush=True)

asyncio.run(main([Path(path) for path in sys.argv[2:]], int(sys.argv[1])))
"""


def test_kill_9_loses_nothing_acknowledged(files: Files) -> None:
    acknowledged = 0
    for round_ in range(4):
        arguments = [sys.executable, "-c", WRITER, str(SMALL_SEGMENT), *map(str, files.directories)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(40 + 17 * round_):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(line) for line in process.stdout if line.endswith("\n"))])
        commits = files.commits()
        assert commits == list(range(1, len(commits) + 1))
        assert len(commits) >= acknowledged
    files.recover()
    assert_equal_copies(files)
