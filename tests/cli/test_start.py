"""``dsqlkit start`` as a program: what it prints, how it fails, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dsql_server.testing import LocalCluster

KEYS = {
    "cluster_id",
    "endpoint",
    "host",
    "port",
    "region",
    "user",
    "database",
    "ca_file",
    "access_key_id",
    "secret_access_key",
    "url",
}
TIMEOUT_S = 60


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dsql_server.cli", *arguments]


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("start", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def failed(*arguments: str) -> str:
    """The sentence of a start that must fail."""
    result = subprocess.run(command("start", *arguments), capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (result.returncode, result.stdout) == (1, ""), result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    return lines[0]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_json_is_one_line_and_a_signal_ends_it_cleanly(how: signal.Signals) -> None:
    with started("--ephemeral", "--port", "0", "--json", "--region", "eu-west-1") as process:
        assert process.stdout is not None and process.stderr is not None
        info = json.loads(process.stdout.readline())
        assert set(info) == KEYS
        assert re.fullmatch(r"[a-z2-7]{26}", info["cluster_id"])
        assert info["endpoint"] == f"{info['cluster_id']}.dsql.eu-west-1.on.aws"
        assert (info["host"], info["region"], info["user"], info["database"]) == (
            "127.0.0.1",
            "eu-west-1",
            "admin",
            "postgres",
        )
        assert isinstance(info["port"], int) and info["port"] > 0
        assert info["url"].startswith(f"aws-dsql://admin@{info['endpoint']}:{info['port']}/postgres?")
        assert "BEGIN CERTIFICATE" in Path(info["ca_file"]).read_text()
        assert info["secret_access_key"] not in info["url"]
        process.send_signal(how)
        assert process.wait(TIMEOUT_S) == 0
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""
        # An ephemeral cluster leaves nothing behind.
        assert not Path(info["ca_file"]).exists()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", info["port"])) != 0


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_the_printed_lines_open_psql() -> None:
    with started("--ephemeral", "--port", "0") as process:
        printed = printed_help(process).splitlines()
        exports = [line for line in printed if line.startswith("export ")]
        script = "\n".join([*exports, f"{printed[-1]} -Atc '\\conninfo'"])
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr
        assert 'You are connected to database "postgres" as user "admin"' in result.stdout


def printed_help(process: subprocess.Popen[str]) -> str:
    """What a human sees, up to the psql line."""
    assert process.stdout is not None
    printed = ""
    while "PGPASSWORD" not in printed:
        line = process.stdout.readline()
        assert line, "the server ended before it said how to connect"
        printed += line
    return printed


def test_the_printed_help_names_everything(tmp_path: Path) -> None:
    with started("--data-dir", str(tmp_path / "data"), "--port", "0") as process:
        printed = printed_help(process)
    exports = dict(re.findall(r"^export (\w+)=(\S+)$", printed, re.MULTILINE))
    assert set(exports) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}
    assert re.search(r"^aws-dsql://admin@\S+$", printed, re.MULTILINE)
    assert str(tmp_path / "data") in printed


def test_a_taken_port_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert port in failed("--ephemeral", "--port", port)


def test_a_data_directory_in_use_is_one_sentence(tmp_path: Path) -> None:
    with LocalCluster(data_dir=tmp_path / "data"):
        assert str(tmp_path / "data") in failed("--data-dir", str(tmp_path / "data"), "--port", "0")


def test_a_data_directory_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in failed("--data-dir", str(tmp_path / "file" / "data"), "--port", "0")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every directory")
def test_an_unreadable_data_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0)
    assert str(tmp_path / "data") in failed("--data-dir", str(tmp_path / "data"), "--port", "0")


def test_no_postgresql_binaries_is_one_sentence(tmp_path: Path) -> None:
    sentence = failed("--ephemeral", "--port", "0", "--pg-bindir", str(tmp_path))
    assert str(tmp_path) in sentence and "PostgreSQL" in sentence


def test_an_address_that_is_not_ours_is_one_sentence() -> None:
    assert "192.0.2.1" in failed("--ephemeral", "--port", "0", "--host", "192.0.2.1")


def test_data_and_identity_survive_a_restart(tmp_path: Path) -> None:
    cluster = LocalCluster(data_dir=tmp_path / "data")
    identities = []
    for run in range(2):
        with cluster, cluster.connect(autocommit=True) as connection:
            identities.append((cluster.cluster_id, cluster.access_key_id, cluster.secret_access_key))
            if run == 0:
                connection.execute("CREATE TABLE kept (id integer PRIMARY KEY)")
                connection.execute("INSERT INTO kept VALUES (1), (2)")
            else:
                assert connection.execute("SELECT count(*) FROM kept").fetchone() == (2,)
    assert identities[0] == identities[1]


def test_a_killed_server_can_start_again_at_once(tmp_path: Path) -> None:
    cluster = LocalCluster(data_dir=tmp_path / "data")
    with cluster:
        with cluster.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (id integer PRIMARY KEY)")
            connection.execute("INSERT INTO kept VALUES (1)")
        cluster.kill()
        cluster.start()
        with cluster.connect(autocommit=True) as connection:
            assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]


def test_the_server_ends_with_the_process_that_controls_it() -> None:
    """A test run that is killed leaves no server behind."""
    code = """
import time
from dsql_server.testing import LocalCluster
cluster = LocalCluster()
cluster.start()
print(cluster.pid, cluster.port, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, port = map(int, parent.stdout.readline().split())
        parent.kill()
    deadline_s = time.monotonic() + TIMEOUT_S
    while _is_alive(pid):
        assert time.monotonic() < deadline_s, "the server outlived its parent"
        time.sleep(0.05)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def _is_alive(pid: int) -> bool:
    # An ended process that nobody has waited for yet still has its number.
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")
    except FileNotFoundError:
        return False


def test_an_unmodified_client_needs_only_a_token() -> None:
    with LocalCluster() as cluster:
        with psycopg.connect(**cluster.libpq_parameters()) as connection:
            assert connection.execute("SELECT current_user, current_database()").fetchone() == ("admin", "postgres")
        wrong = {**cluster.libpq_parameters(), "password": "wrong"}
        with pytest.raises(psycopg.OperationalError, match="access denied"):
            psycopg.connect(**wrong)
