"""What was acknowledged survives: a killed server, a damaged journal copy, a killed engine, a stop under load."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from durability_load import SCHEMA, OrderLoad

import dsql_connectors.psycopg as psycopg
from dsql_server.testing import ClusterError, LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
KILLS = 20 if FULL else 6
STOPS = 10 if FULL else 3
CLIENTS = 4
SEED = 20261123
#: How long the clients work before the server dies, in seconds.
LOAD_S = (0.2, 0.8)
#: What anything that takes an instant on an idle machine may take.
WAIT_S_MAX = 60.0

ZONES = ("zone-a", "zone-b", "zone-c")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """A started cluster that keeps its data; the environment has its credentials, which outlive restarts."""
    cluster = LocalCluster(data_dir=tmp_path / "data")
    with cluster:
        for name, value in cluster.environ().items():
            monkeypatch.setenv(name, value)
        yield cluster


def data_of(tmp_path: Path) -> Path:
    return tmp_path / "data"


def execute(cluster: LocalCluster, *statements: str) -> list[tuple[object, ...]]:
    """Run statements, each a transaction; the rows of the last one."""
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def damage_copy(journals: Path, chance: random.Random) -> str:
    """Damage one zone's copy of one journal, as a disk might; says what was done."""
    copy = journals / chance.choice(ZONES) / chance.choice(["journal-0", "journal-1"])
    segment = chance.choice(sorted(copy.glob("*.segment")))
    size = segment.stat().st_size
    how = chance.choice(["truncate", "overwrite", "remove", "remove all"])
    if how == "truncate":
        os.truncate(segment, chance.randrange(size))
    elif how == "overwrite":
        with segment.open("r+b") as file:
            file.seek(chance.randrange(min(size, 100_000)))
            file.write(chance.randbytes(5000))
    elif how == "remove":
        segment.unlink()
    else:
        shutil.rmtree(copy)
    return f"{how} {segment.relative_to(journals)}"


@pytest.mark.long
def test_killed_under_load_loses_nothing_that_was_acknowledged(cluster: LocalCluster, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    execute(cluster, *SCHEMA)
    load = OrderLoad(cluster, CLIENTS)
    done: list[str] = []
    for kill in range(KILLS):
        load.start()
        load.run_for(chance.uniform(*LOAD_S))
        cluster.kill()
        load.stop()
        if kill % 2:
            done.append(damage_copy(data_of(tmp_path) / "journals", chance))
        cluster.start()
        found = load.check()
        assert (found.lost, found.halved) == ([], []), f"after kill {kill + 1}, seed {SEED}, damage {done}"
        assert not load.defects
    assert load.errors, "the clients met the end of their server"


class _Definitions:
    """A client that makes tables and indexes until its server dies."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._thread = threading.Thread()
        self.tables: list[str] = []  #: acknowledged
        self.jobs: list[str] = []  #: acknowledged index builds
        self._made = 0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(psycopg.Error), psycopg.connect(self._cluster.url, autocommit=True) as connection:
            while True:
                self._made += 1
                name = f"made_{self._made}"
                connection.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, n int)")
                self.tables.append(name)
                job = connection.execute(f"CREATE INDEX ASYNC by_total_{self._made} ON orders (total)").fetchone()
                assert job is not None
                self.jobs.append(job[0])


@pytest.mark.long
def test_killed_during_ddl_and_index_builds(cluster: LocalCluster) -> None:
    chance = random.Random(SEED)
    execute(cluster, *SCHEMA, "INSERT INTO orders SELECT gen_random_uuid(), 0, i FROM generate_series(1, 3000) i")
    for _ in range(KILLS // 2):
        definitions = _Definitions(cluster)
        definitions.start()
        time.sleep(chance.uniform(0.15, 0.6))
        cluster.kill()
        definitions.join()
        cluster.start()
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            tables = {name for (name,) in connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r'")}
            assert set(definitions.tables) <= tables
            for job in definitions.jobs:
                connection.execute(f"CALL sys.wait_for_job('{job}')")
            statuses = dict(connection.execute("SELECT job_id, status FROM sys.jobs").fetchall())
            assert {statuses[job] for job in definitions.jobs} <= {"completed"}
            assert connection.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (0,)
            # The indexes answer as the table does.
            counted = connection.execute("SELECT count(*) FROM orders WHERE total BETWEEN 1000 AND 1999").fetchone()
            assert counted == (1000,)
            for name in tables:
                if name.startswith("made_"):
                    connection.execute(f"DROP TABLE {name}")
            indexes = connection.execute("SELECT relname FROM pg_class WHERE relname LIKE 'by_total_%'").fetchall()
            for (index,) in indexes:
                connection.execute(f"DROP INDEX {index}")


def engine_process(cluster: LocalCluster) -> int:
    """The process id of the server's PostgreSQL postmaster."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == cluster.pid and b"config_file=" in (stat.parent / "cmdline").read_bytes():
                return int(stat.parent.name)
    raise AssertionError("the server runs an engine")


def wait_until_stopping(engine: int) -> None:
    """Until the postmaster has noted that it takes no more connections."""
    deadline_s = time.monotonic() + WAIT_S_MAX
    while "stopping" not in Path(f"/proc/{engine}/cwd/postmaster.pid").read_text():
        assert time.monotonic() < deadline_s, "the engine takes no notice of its signal"
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the engine's process in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "stop"])
def test_an_engine_that_ends_is_started_again(cluster: LocalCluster, how: signal.Signals) -> None:
    execute(cluster, "CREATE TABLE kept (id int PRIMARY KEY)", "INSERT INTO kept VALUES (1)")
    with (
        contextlib.closing(cluster.connect()) as open_block,
        contextlib.closing(cluster.connect(autocommit=True)) as idle,
        contextlib.closing(cluster.connect(autocommit=True)) as unused,
    ):
        open_block.execute("INSERT INTO kept VALUES (2)")
        idle.execute("SELECT 1")
        os.kill(engine_process(cluster), how)
        for connection in (open_block, idle):
            deadline_s = time.monotonic() + WAIT_S_MAX
            with pytest.raises(psycopg.Error) as caught:
                while time.monotonic() < deadline_s:
                    connection.execute("SELECT 1")
                    time.sleep(0.01)
            if caught.value.sqlstate != "57P01":
                told = (caught.value.sqlstate, caught.value.diag.message_primary)
                assert told == ("XX000", "server unavailable"), caught.value
        # A connection that hasn't asked for anything yet waits for the new engine.
        assert unused.execute("SELECT id FROM kept").fetchall() == [(1,)]
    assert execute(cluster, "INSERT INTO kept VALUES (3)", "SELECT id FROM kept ORDER BY id") == [(1,), (3,)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the engine's process in /proc")
def test_an_engine_that_takes_no_more_connections_is_replaced(cluster: LocalCluster) -> None:
    with cluster.connect(autocommit=True) as before:
        before.execute("SELECT 1")
        engine = engine_process(cluster)
        os.kill(engine, signal.SIGTERM)  # it waits until its sessions have left
        wait_until_stopping(engine)
        with cluster.connect(autocommit=True) as after:
            assert after.execute("SELECT 2").fetchone() == (2,)
        with pytest.raises(psycopg.errors.AdminShutdown):
            before.execute("SELECT 1")


@pytest.mark.long
def test_an_engine_killed_under_load_loses_nothing(cluster: LocalCluster) -> None:
    chance = random.Random(SEED)
    execute(cluster, *SCHEMA)
    load = OrderLoad(cluster, CLIENTS)
    for _ in range(KILLS // 2):
        load.start()
        load.run_for(chance.uniform(*LOAD_S))
        os.kill(engine_process(cluster), signal.SIGKILL)
        load.stop()
        found = load.check()
        assert (found.lost, found.halved, load.defects) == ([], [], [])
    assert {error.sqlstate for error in load.errors} <= {"57P01", "XX000"}


@pytest.mark.long
def test_stopped_under_load_leaves_no_half_order(cluster: LocalCluster) -> None:
    chance = random.Random(SEED)
    execute(cluster, *SCHEMA)
    load = OrderLoad(cluster, 2 * CLIENTS)
    for _ in range(STOPS):
        load.start()
        load.run_for(chance.uniform(*LOAD_S))
        cluster.stop()
        load.stop()
        cluster.start()
        found = load.check()
        assert (found.lost, found.halved, load.defects) == ([], [], [])


def test_two_damaged_copies_are_told_and_not_served(cluster: LocalCluster, tmp_path: Path) -> None:
    """Records that no copy has any more are not passed over in silence."""
    execute(cluster, "CREATE TABLE kept (id int PRIMARY KEY)", "INSERT INTO kept VALUES (1)")
    cluster.kill()
    for zone in ZONES:
        for segment in (data_of(tmp_path) / "journals" / zone).glob("*/0000000001.segment"):
            with segment.open("r+b") as file:
                file.seek(512)
                file.write(b"\xff" * 512)
    with pytest.raises(ClusterError, match="journal"):
        cluster.start()
