"""How a server starts: fast, from what it left behind, wherever that lies, as whoever it runs; or with one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

import dsql_server
from dsql_server.testing import ClusterError, LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
#: Processor time of a start, the first answer and the stop, as a multiple of what the same processor takes to start an
#: interpreter with a driver; the best of several of each; about 3.6. What else the machine does counts little, as it
#: would in the time by the clock, and neither does how fast it is.
WARM_START_INTERPRETERS_MAX = 10.0
INTERPRETER = (sys.executable, "-c", "import psycopg, asyncio, ssl, json, cryptography.x509")
TIMEOUT_S = 60
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A short directory that every account may search (pytest's own are closed)."""
    path = Path(tempfile.mkdtemp(prefix="dsqlkit-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def processor_s(work: Callable[[], None]) -> float:
    """What the work took of processors, in seconds, by all processes that it started and saw end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def start_ask_and_stop() -> None:
    with LocalCluster() as cluster, cluster.connect(autocommit=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def start_an_interpreter() -> None:
    subprocess.run(INTERPRETER, check=True)


def test_a_warm_start_answers_soon() -> None:
    interpreter_s = min(processor_s(start_an_interpreter) for _ in range(3))
    assert 0 < min(processor_s(start_ask_and_stop) for _ in range(3)) < WARM_START_INTERPRETERS_MAX * interpreter_s


#: All but the number of the object, which is the session's own engine's.
STORED_JOBS = "SELECT job_id, status, details, job_type, object_name, start_time, update_time FROM sys.jobs"


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    cluster = LocalCluster(data_dir=tmp_path / "data")
    with cluster, cluster.connect(autocommit=True) as connection:
        for statement in (
            "CREATE SCHEMA shop",
            "CREATE TABLE shop.orders (id int PRIMARY KEY, customer text NOT NULL, total numeric(10, 2) DEFAULT 0)",
            "INSERT INTO shop.orders SELECT i, 'c' || i % 10, i FROM generate_series(1, 500) i",
            "ALTER TABLE shop.orders ADD COLUMN note text",
            "CREATE VIEW shop.big AS SELECT id FROM shop.orders WHERE total > 400",
            "CREATE DOMAIN shop.quantity AS int CHECK (VALUE > 0)",
            "CREATE FUNCTION shop.twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'",
            "CREATE ROLE clerk WITH LOGIN",
            "AWS IAM GRANT clerk TO 'arn:aws:iam::123456789012:role/clerk'",
            "GRANT USAGE ON SCHEMA shop TO clerk",
            "GRANT SELECT ON shop.orders TO clerk",
        ):
            connection.execute(statement)
        job = connection.execute("CREATE UNIQUE INDEX ASYNC by_total ON shop.orders (total)").fetchone()
        assert job is not None
        connection.execute(f"CALL sys.wait_for_job('{job[0]}')")
        jobs = connection.execute(STORED_JOBS).fetchall()
    for how in (cluster.stop, cluster.kill):
        cluster.start()
        with cluster.connect(autocommit=True) as connection:
            assert connection.execute("SELECT count(*), sum(total) FROM shop.orders").fetchone() == (500, 125250)
            assert connection.execute("SELECT count(*) FROM shop.big").fetchone() == (100,)
            assert connection.execute("SELECT shop.twice(21), 1::shop.quantity").fetchone() == (42, 1)
            valid = connection.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'shop.by_total'::regclass")
            assert valid.fetchone() == (True,)
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute("INSERT INTO shop.orders VALUES (501, 'x', 500)")
            assert connection.execute(STORED_JOBS).fetchall() == jobs
        how()


def test_a_stopped_data_directory_may_be_moved(tmp_path: Path) -> None:
    cluster = LocalCluster(data_dir=tmp_path / "before")
    with cluster, cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (id int PRIMARY KEY)")
        connection.execute("INSERT INTO kept VALUES (1)")
    identity = (cluster.cluster_id, cluster.access_key_id)
    (tmp_path / "before").rename(tmp_path / "after")
    moved = LocalCluster(data_dir=tmp_path / "after")
    with moved, moved.connect(autocommit=True) as connection:
        assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]
        assert (moved.cluster_id, moved.access_key_id) == identity


def test_the_data_are_closed_to_other_users(tmp_path: Path) -> None:
    cluster = LocalCluster(data_dir=tmp_path / "data")
    with cluster:
        for name in ("storage", "tls", "cluster.json"):
            assert (tmp_path / "data" / name).stat().st_mode & 0o077 == 0, name
        for copy in (tmp_path / "data" / "journals").glob("*/*"):
            assert copy.stat().st_mode & 0o077 == 0, copy
        assert (tmp_path / "data" / "ca.pem").stat().st_mode & 0o044 == 0o044


def start_and_ask(host: str) -> dict[str, object]:
    """Start a server on ``host``, connect to where it says it is, stop it; what it said."""
    command = [sys.executable, "-m", "dsql_server.cli", "start", "--ephemeral", "--json", "--port", "0", "--host", host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            info: dict[str, object] = json.loads(process.stdout.readline())
            _ask(info)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT_S)
        assert process.stderr.read() == ""
    return info


def _ask(info: dict[str, object]) -> None:
    cluster = LocalCluster()
    for name, value in info.items():
        setattr(cluster, name, value)
    with cluster.connect(autocommit=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("host", "told"), [("::1", "::1"), ("localhost", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1")]
)
def test_clients_are_told_an_address_that_they_can_use(host: str, told: str) -> None:
    if ":" in host and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    assert start_and_ask(host)["host"] == told


def start_refused(data: Path) -> str:
    """The sentence of a server that can't start from ``data``."""
    cluster = LocalCluster(data_dir=data)
    with pytest.raises(ClusterError) as caught:
        cluster.start()
    sentence = str(caught.value)
    assert "Traceback" not in sentence and "Error: " in sentence, sentence
    return sentence


def _used_data(path: Path) -> Path:
    cluster = LocalCluster(data_dir=path)
    with cluster, cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (id int PRIMARY KEY)")
    return path


def test_the_cache_may_lie_elsewhere(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSQLKIT_CACHE_DIR", str(open_directory / "cache"))
    with LocalCluster():
        pass
    assert len(list((open_directory / "cache" / "templates").iterdir())) == 1
    (open_directory / "file").write_text("")
    monkeypatch.setenv("DSQLKIT_CACHE_DIR", str(open_directory / "file" / "cache"))
    with pytest.raises(ClusterError, match=r"file/cache can't be created .*DSQLKIT_CACHE_DIR"):
        LocalCluster().start()


def test_a_damaged_data_directory_is_one_sentence(tmp_path: Path) -> None:
    data = _used_data(tmp_path / "data")
    manifest = next((data / "storage" / "node-0").glob("MANIFEST-*"))
    kept = manifest.read_bytes()
    manifest.write_bytes(b"\0" * len(kept))
    assert str(data / "storage") in start_refused(data)
    manifest.write_bytes(kept)

    (data / "journals").rename(data / "elsewhere")
    assert "journal" in start_refused(data)
    shutil.rmtree(data / "journals")
    (data / "elsewhere").rename(data / "journals")

    identity = (data / "cluster.json").read_text()
    (data / "cluster.json").write_text("{")
    assert str(data / "cluster.json") in start_refused(data)
    (data / "cluster.json").write_text(identity)

    cluster = LocalCluster(data_dir=data)
    with cluster, cluster.connect(autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_storage_is_rebuilt_from_whole_journals(tmp_path: Path) -> None:
    data = _used_data(tmp_path / "data")
    shutil.rmtree(data / "storage")
    cluster = LocalCluster(data_dir=data)
    with cluster, cluster.connect(autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_strange_engine_directory_is_left_alone(open_directory: Path) -> None:
    data = _used_data(open_directory / "data")
    (data / "engine").mkdir()
    (data / "engine" / "precious").write_text("mine")
    assert str(data / "engine") in start_refused(data)
    assert (data / "engine" / "precious").read_text() == "mine"


_AS_ANOTHER_USER = """
import os, sys
# What can't be read as the other user is imported before.
import encodings.ascii, encodings.idna, encodings.latin_1, pickle, psycopg, uvloop
import dsql_server.cli.commands, dsql_server.cluster.embedded, dsql_server.cli.start
import dsql_server.cli.control
uid, gid, home = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.setgroups([]); os.setgid(gid); os.setuid(uid)
os.environ["HOME"] = home
os.environ.pop("XDG_CACHE_HOME", None)
os.chdir(home)
sys.argv = ["dsqlkit", "start", "--json", "--port", "0", "--data-dir", os.path.join(home, "data")]
dsql_server.cli.commands.dsqlkit()
"""


def _skip_unless_readable() -> None:
    """The ordinary user imports this very checkout and uses this very environment's engine."""
    for place in (Path(sys.prefix, "lib"), Path(dsql_server.__file__ or "")):
        if not all(parent.stat().st_mode & 0o005 == 0o005 for parent in place.resolve().parents):
            pytest.skip(f"an ordinary user can't read {place}")


@as_root
def test_it_runs_as_an_ordinary_user(open_directory: Path) -> None:
    _skip_unless_readable()
    account = pwd.getpwnam("nobody")
    home = open_directory / "home"
    home.mkdir(mode=0o700)
    os.chown(home, account.pw_uid, account.pw_gid)
    command = [sys.executable, "-c", _AS_ANOTHER_USER, str(account.pw_uid), str(account.pw_gid), str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            _ask(json.loads(line))
            uid = next(x for x in Path(f"/proc/{process.pid}/status").read_text().splitlines() if x.startswith("Uid:"))
            assert set(uid.split()[1:]) == {str(account.pw_uid)}
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT_S)
        assert process.stderr.read() == ""
    assert {path.name for path in (home / "data").iterdir()} >= {"storage", "journals", "cluster.json"}
    assert not (home / "data" / "engine").exists()
    assert (home / ".cache" / "dsqlkit" / "templates").is_dir()


@as_root
def test_a_directory_that_an_ordinary_user_may_not_read_is_one_sentence(open_directory: Path) -> None:
    _skip_unless_readable()
    account = pwd.getpwnam("nobody")
    home = open_directory / "home"
    home.mkdir(mode=0o700)
    os.chown(home, account.pw_uid, account.pw_gid)
    (home / "data").mkdir(mode=0o700)  # root's
    command = [sys.executable, "-c", _AS_ANOTHER_USER, str(account.pw_uid), str(account.pw_gid), str(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert str(home / "data") in sentence and "--data-dir" in sentence
