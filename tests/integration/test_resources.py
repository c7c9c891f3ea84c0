"""What a server takes and gives back: processes, files, threads, memory, disk, connections."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from dsql_server.cluster.commit_path import CommitPathSettings, EmbeddedCommitPath
from dsql_server.cluster.garbage_collection import GarbageCollection
from dsql_server.cluster.server import Server
from dsql_server.cluster.settings import ServerSettings, StartError
from dsql_server.encoding.keys import NOT_NULL, prefix
from dsql_server.engine.process_identity import ProcessIdentity
from dsql_server.interfaces.messages import Claim, CommitOutcome, CommitRequest, Committed, LockMode, Mutation
from dsql_server.processor.pool import LEASED_AHEAD_MAX
from dsql_server.storage.router import StorageRouter
from dsql_server.testing import LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
TIMEOUT_S = 60.0
LINUX = Path("/proc/self/stat").exists()
reads_proc = pytest.mark.skipif(not LINUX, reason="looks into /proc")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory that servers started here take for the machine's temporary one."""
    with tempfile.TemporaryDirectory(prefix="dsqlkit-test-", dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o755)  # the engine's account has to reach it
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield path
    monkeypatch.setattr(tempfile, "tempdir", None)


def descendants(pid: int) -> set[ProcessIdentity]:
    """The process and all that it started, directly or not."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: set[ProcessIdentity] = set()
    queue = [pid]
    while queue:
        number = queue.pop()
        queue += children.get(number, [])
        if (identity := ProcessIdentity.of(number)) is not None:
            found.add(identity)
    return found


def wait_for_end(processes: set[ProcessIdentity]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    for process in processes:
        while process.is_running():
            assert time.monotonic() < deadline, f"process {process.pid} is left"
            time.sleep(0.01)


def shared_memory() -> set[str]:
    """Ids of the System V shared memory segments that nobody is attached to."""
    shown = subprocess.run(["ipcs", "-m"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in shown.splitlines() if line.startswith("0x")]
    return {row[1] for row in rows if row[5] == "0"}


@reads_proc
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_server_that_ends_leaves_nothing(temporary: Path, how: signal.Signals) -> None:
    orphaned_before = shared_memory()
    command = [sys.executable, "-m", "dsql_server.cli", "start", "--ephemeral", "--json", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        cluster = LocalCluster()
        for name, value in json.loads(process.stdout.readline()).items():
            setattr(cluster, name, value)
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                connection = stack.enter_context(contextlib.closing(cluster.connect()))
                connection.execute("SELECT 1")  # a transaction stays open
            processes = descendants(process.pid)
            assert len(processes) > 3, "the server and its engine"
            process.send_signal(how)
            status = process.wait(TIMEOUT_S)
        wait_for_end(processes)
        assert process.stderr.read() == ""
    assert status == (-how if how == signal.SIGKILL else 0)
    if how == signal.SIGKILL:
        # What a killed server leaves, the next one clears away; what others use, it leaves alone.
        (temporary / "dsqlkit-mine").mkdir()
        with LocalCluster(), LocalCluster() as another:
            another.connect().close()
        assert [path.name for path in temporary.iterdir()] == ["dsqlkit-mine"]
    else:
        assert list(temporary.iterdir()) == []
    assert shared_memory() <= orphaned_before


@reads_proc
def test_a_busy_server_stops_without_a_word(temporary: Path) -> None:
    """Whatever sessions are at when the server stops: nothing of it ends up as a defect."""
    command = [sys.executable, "-m", "dsql_server.cli", "start", "--ephemeral", "--json", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        cluster = LocalCluster()
        for name, value in json.loads(process.stdout.readline()).items():
            setattr(cluster, name, value)
        with cluster.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE t (id uuid DEFAULT gen_random_uuid() PRIMARY KEY, n int)")
            connection.execute("INSERT INTO t (n) SELECT generate_series(1, 2000)")
        ends: list[str | None] = []

        def repeat(*statements: str) -> None:
            with contextlib.closing(cluster.connect(autocommit=True)) as connection:
                connected.wait()
                try:
                    while True:
                        for statement in statements:
                            connection.execute(statement)
                except psycopg.Error as error:
                    ends.append(error.sqlstate)

        # Two sessions make and drop one table: they may meet each other's (42P07, 42P01).
        work = [
            ("INSERT INTO t (n) VALUES (1)",),
            ("BEGIN", "INSERT INTO t (n) VALUES (2)", "SELECT count(*) FROM t WHERE n < 3", "COMMIT"),
            ("SELECT sum(n) FROM t",),
            ("SELECT count(*) FROM t a, t b WHERE sin(a.n) > cos(b.n)",),
            ("CREATE INDEX ASYNC ON t (n)", "CREATE TABLE made (id int PRIMARY KEY)", "DROP TABLE made"),
        ]
        threads = [threading.Thread(target=repeat, args=statements) for statements in work for _ in range(2)]
        connected = threading.Barrier(len(threads) + 1, timeout=TIMEOUT_S)
        for thread in threads:
            thread.start()
        connected.wait()
        time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
        for thread in threads:
            thread.join()
        assert process.stderr.read() == ""
    assert len(ends) == len(threads) and set(ends) <= {"57P01", "40001", "42P07", "42P01", None}, ends
    assert list(temporary.iterdir()) == []


def resources() -> tuple[set[str], int]:
    """Open files (by what they are) and the number of threads of this process."""
    gc.collect()  # what tests before left to it isn't opened or closed here
    files = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            files.add(os.readlink(f"/proc/self/fd/{name}"))
    return files, threading.active_count()


@reads_proc
def test_starts_and_stops_in_one_process_leak_nothing(temporary: Path) -> None:
    async def once(settings: ServerSettings) -> None:
        server = Server(settings)
        try:
            await server.start()
        finally:
            await server.stop()
            await server.stop()

    asyncio.run(once(ServerSettings(port=0)))  # what is opened once for good
    before = resources()
    processes = descendants(os.getpid())
    for _ in range(2):
        asyncio.run(once(ServerSettings(port=0)))
        with pytest.raises(StartError):
            asyncio.run(once(ServerSettings(port=0, host="192.0.2.1")))
        with pytest.raises(StartError):
            asyncio.run(once(ServerSettings(port=0, pg_bindir=temporary)))
    assert resources() == before
    assert descendants(os.getpid()) <= processes
    assert list(temporary.iterdir()) == []


@reads_proc
def test_a_start_that_is_interrupted_leaves_nothing(temporary: Path) -> None:
    for delay_s in (0.05, 0.2, 0.35, 0.5):
        command = [sys.executable, "-m", "dsql_server.cli", "start", "--ephemeral", "--json", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            time.sleep(delay_s)
            processes = descendants(process.pid)
            process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT_S)
            wait_for_end(processes)
            assert "Traceback" not in process.stderr.read()
        assert list(temporary.iterdir()) == []


def test_many_connections_at_once_all_succeed(dsql_cluster: LocalCluster, dsql_url: str) -> None:
    parameters = dsql_cluster.libpq_parameters()

    def use(number: int) -> int:
        with psycopg.connect(**parameters, autocommit=True) as connection:
            row = connection.execute("SELECT %s::int", (number,)).fetchone()
        assert row is not None
        return int(row[0])

    with ThreadPoolExecutor(100) as threads:
        assert list(threads.map(use, range(100))) == list(range(100))


@reads_proc
def test_the_usual_limit_of_open_files_is_raised() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[1] != resource.RLIM_INFINITY and limit[1] < 2000:
        pytest.skip("this machine allows few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limit[1]))
    try:
        with LocalCluster() as cluster:
            assert resource.prlimit(cluster.pid, resource.RLIMIT_NOFILE)[0] >= 2000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def processors(cluster: LocalCluster) -> dict[str, int]:
    figures = cluster.metrics()["processors"]
    assert isinstance(figures, dict)
    return figures


def wait_until_returned(cluster: LocalCluster) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while processors(cluster)["leased"]:
        assert time.monotonic() < deadline, "query processors come back when their connections close"
        time.sleep(0.01)


def test_some_connections_have_a_query_processor_ahead_the_others_at_their_first_statement() -> None:
    with LocalCluster() as cluster, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(cluster.connect(autocommit=True)) for _ in range(40)]
        # Each request is answered behind what was begun for connections before it.
        ahead = processors(cluster)["leased"]
        assert 0 < ahead <= LEASED_AHEAD_MAX
        for connection in connections:
            connection.execute("SELECT 1")
        assert processors(cluster)["leased"] == 40


def test_query_processors_are_used_again() -> None:
    with LocalCluster() as cluster:
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                for _ in range(10):
                    stack.enter_context(cluster.connect(autocommit=True)).execute("SELECT 1")
            wait_until_returned(cluster)
        # 10 at a time, and the spare ones.
        assert processors(cluster)["created"] < 20


@pytest.mark.parametrize("pause_s", [0.3, 0], ids=["statement-runs", "processor-on-its-way"])
def test_a_processor_whose_statement_still_runs_is_not_handed_on(pause_s: float) -> None:
    with LocalCluster() as cluster:
        with cluster.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
            connection.execute("INSERT INTO t SELECT generate_series(1, 300)")
        connections = [cluster.connect(autocommit=True) for _ in range(4)]
        for connection in connections:
            # Runs for hours; its tables stay locked in its database meanwhile.
            connection.pgconn.send_query(
                b"SELECT count(*) FROM t a, t b, t c, t d WHERE sin(a.id) + sin(b.id) > cos(c.id + d.id)"
            )
        # A client that leaves at once is gone before its session has got a query processor.
        time.sleep(pause_s)
        for connection in connections:
            connection.close()
        time.sleep(0.5)  # the sessions have got theirs by then, so that none counts as returned before it was leased
        wait_until_returned(cluster)
        began = time.monotonic()
        with cluster.connect(autocommit=True) as connection:
            connection.execute("DROP TABLE t")
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                connection = stack.enter_context(cluster.connect(autocommit=True))
                assert connection.execute("SELECT to_regclass('t') IS NULL").fetchone() == (True,)
        assert time.monotonic() - began < TIMEOUT_S, "the statements would have run for hours"


# -- disk ------------------------------------------------------------------------------------------------------------

_RELATION = prefix(5000)
#: What a load writes at least before its journals are looked at, in rows of 1,000 bytes: several times what is due.
TRIMMED_ROWS_MIN = 5000


def row(number: int, value: bytes) -> CommitRequest:
    """A transaction that writes one row."""
    key = _RELATION + NOT_NULL + number.to_bytes(8, "big")
    return CommitRequest(os.urandom(16), 0, 0, (Claim(key, LockMode.UPDATE),), (Mutation(key, value),), None)


class _Load:
    """Commits rows as fast as the path takes them, some at a time."""

    def __init__(self, path: EmbeddedCommitPath) -> None:
        self._path = path
        self.outcomes: list[CommitOutcome] = []

    async def commit(self, requests: list[CommitRequest]) -> None:
        done = asyncio.get_running_loop().create_future()
        left = len(requests)

        def on_outcome(outcome: CommitOutcome) -> None:
            nonlocal left
            self.outcomes.append(outcome)
            left -= 1
            if not left:
                done.set_result(None)

        for request in requests:
            self._path.commit(request._replace(t_start=self._path.begin()), on_outcome)
        await done


def disk_bytes(directory: Path) -> int:
    """Bytes of all files below; a segment may get its final name, or be trimmed, between listing and asking."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def test_journals_are_trimmed_under_load(tmp_path: Path) -> None:
    segment, due = 64 * 1024, 512 * 1024
    settings = CommitPathSettings(segment_bytes_max=segment, checkpoint_journal_bytes=due)

    async def run() -> tuple[int, int]:
        storage = StorageRouter(tmp_path / "storage")
        path = EmbeddedCommitPath(storage, storage, tmp_path / "journals", asyncio.get_running_loop(), settings)
        path.open()
        load = _Load(path)
        most = 0
        try:
            # Journals are looked at every second, so the load has to last; and a slow machine has to write enough.
            deadline = time.monotonic() + (30 if FULL else 4)
            while time.monotonic() < deadline or len(load.outcomes) < TRIMMED_ROWS_MIN:
                start = len(load.outcomes)
                await load.commit([row((start + i) % 5000, os.urandom(1000)) for i in range(50)])
                most = max(most, disk_bytes(tmp_path / "journals"))
                await asyncio.sleep(0.005)
        finally:
            await path.close()
            storage.close()
        assert {type(outcome) for outcome in load.outcomes} == {Committed}
        return len(load.outcomes) * 1000 * 3, most

    written, most = asyncio.run(run())
    # Between two looks, a second apart, the load may write on; what is left at the end is the segments in use.
    assert most < written, "without trimming the journals hold everything"
    assert disk_bytes(tmp_path / "journals") < 6 * (1024 * 1024 + 3 * segment)


def test_versions_that_nobody_can_read_leave_storage(tmp_path: Path) -> None:
    rounds, rows, kept_s = 5, 200, 0.5

    async def run() -> tuple[int, list[bytes | None]]:
        storage = StorageRouter(tmp_path / "storage")
        path = EmbeddedCommitPath(storage, storage, tmp_path / "journals", asyncio.get_running_loop())
        path.open()
        garbage = GarbageCollection(storage, path.begin, kept_s)
        garbage.start()
        load = _Load(path)
        try:
            for number in range(rounds):
                await load.commit([row(i, b"%d" % number) for i in range(rows)])
            deadline = time.monotonic() + TIMEOUT_S
            while garbage.versions_dropped < (rounds - 1) * rows and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)
            keys = [row(i, b"").mutations[0].key for i in range(rows)]
            return garbage.versions_dropped, storage.get_many(keys, path.begin())
        finally:
            garbage.close()
            await path.close()
            storage.close()

    dropped, values = asyncio.run(run())
    assert dropped == (rounds - 1) * rows
    assert set(values) == {b"%d" % (rounds - 1)}


def test_a_clock_that_jumps_takes_no_snapshot_away() -> None:
    """The machine slept, or its clock was set: transactions that are young keep what they read."""
    kept_s, seconds = 0.4, 1.5
    hour_ns = 3600 * 10**9
    begun: list[tuple[float, int]] = []
    horizons: list[int] = []
    loop = asyncio.new_event_loop()
    began = loop.time()

    def now() -> int:
        passed = loop.time() - began
        return 1 + int(passed * 10**9) + (hour_ns if passed > seconds / 3 else 0)

    def followed() -> bool:
        return bool(horizons) and horizons[-1] > hour_ns

    class Storage:
        def collect_garbage(self, older_than: int, budget: int) -> int:
            young = [t for at, t in begun if loop.time() - at < kept_s]
            assert all(t >= older_than for t in young)
            horizons.append(older_than)
            return 0

        def pack_rows(self) -> None:
            """There are none."""

    async def run() -> None:
        garbage = GarbageCollection(Storage(), now, kept_s)  # type: ignore[arg-type]
        garbage.start()
        try:
            while loop.time() - began < seconds or (not followed() and loop.time() - began < TIMEOUT_S):
                begun.append((loop.time(), now()))
                await asyncio.sleep(0.01)
        finally:
            garbage.close()

    defects: list[object] = []
    loop.set_exception_handler(lambda _, context: defects.append(context))
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    assert defects == []
    assert followed(), "after the jump the horizon follows"
