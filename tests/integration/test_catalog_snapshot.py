"""Starts from a kept engine: they have the catalog that a replay has, whatever has become of the copy."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dsql_server.cli.token import generate_token
from dsql_server.cluster import catalog_snapshot
from dsql_server.cluster.data_directory import CATALOG_SNAPSHOT_DIRECTORY
from dsql_server.cluster.server import ConnectionInfo, Server, ServerSettings
from dsql_server.engine import EngineInstance

CHANGES_PER_SNAPSHOT = 4
TOKEN_LIFETIME_S = 600
DEFINITIONS = (
    "CREATE ROLE reader WITH LOGIN",
    "CREATE SCHEMA shop",
    "CREATE TABLE shop.item (id int PRIMARY KEY, name text NOT NULL CHECK (name <> ''), price numeric DEFAULT 3)",
    "CREATE TABLE gone (id int PRIMARY KEY)",
    "GRANT SELECT ON shop.item TO reader",
    "DROP TABLE gone",
    "CREATE VIEW shop.cheap AS SELECT id FROM shop.item WHERE price < 5",
)
CATALOG = (
    "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, c.relacl::text "
    "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 "
    "WHERE c.relnamespace IN ('shop'::regnamespace, 'public'::regnamespace) ORDER BY 1, 2"
)


@pytest.fixture(autouse=True)
def few_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_snapshot, "CHANGES_PER_SNAPSHOT", CHANGES_PER_SNAPSHOT)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[EngineInstance]:
    """The engines of the servers that are started, the newest last."""
    made: list[EngineInstance] = []
    start = EngineInstance.start

    async def noted(engine: EngineInstance) -> None:
        made.append(engine)
        await start(engine)

    monkeypatch.setattr(EngineInstance, "start", noted)
    return made


async def _connect(info: ConnectionInfo) -> psycopg.AsyncConnection:
    credentials = (info.access_key_id, info.secret_access_key)
    return await psycopg.AsyncConnection.connect(
        host=info.endpoint,
        hostaddr=info.host,
        port=info.port,
        user=info.user,
        dbname=info.database,
        sslmode="verify-full",
        sslrootcert=info.ca_file,
        password=generate_token(
            info.endpoint, info.region, admin=True, expires_s=TOKEN_LIFETIME_S, credentials=credentials
        ),
        autocommit=True,
    )


def with_server(data_dir: Path, *statements: str) -> list[tuple[object, ...]]:
    """Start a server, run the statements, stop it; the last one's rows."""

    async def run() -> list[tuple[object, ...]]:
        server = Server(ServerSettings(data_dir=data_dir, port=0))
        try:
            connection = await _connect(await server.start())
            async with connection:
                for statement in statements:
                    cursor = await connection.execute(statement.encode())
                return await cursor.fetchall() if cursor.description else []
        finally:
            await server.stop()

    return asyncio.run(run())


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that the engine's account can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="dsqlkit-snapshot-") as path:
        Path(path).chmod(0o711)
        yield Path(path)


@pytest.fixture
def defined(open_directory: Path, engines: list[EngineInstance]) -> Path:
    """A data directory whose server made all definitions, and was then started from their snapshot."""
    data_dir = open_directory / "data"
    with_server(data_dir, *DEFINITIONS, "INSERT INTO shop.item VALUES (1, 'one')")
    assert not (data_dir / CATALOG_SNAPSHOT_DIRECTORY).exists()
    with_server(data_dir, "SELECT 1")  # replays, and keeps
    assert engines[-1].saved_label is None
    return data_dir


def test_a_start_from_a_snapshot_has_the_same_catalog(defined: Path, engines: list[EngineInstance]) -> None:
    found = with_server(defined, CATALOG)
    assert engines[-1].saved_label is not None
    shutil.rmtree(defined / CATALOG_SNAPSHOT_DIRECTORY)
    assert with_server(defined, CATALOG) == found
    assert engines[-1].saved_label is None
    assert {row[0] for row in found} == {"item", "item_pkey", "cheap"}


def test_definitions_after_a_snapshot_are_replayed(defined: Path, engines: list[EngineInstance]) -> None:
    with_server(
        defined, "ALTER TABLE shop.item ADD COLUMN note text", "INSERT INTO shop.item VALUES (2, 'two', 9, 'x')"
    )
    rows = with_server(defined, "SELECT * FROM shop.item ORDER BY id")
    assert engines[-1].saved_label is not None
    assert [(row[0], row[1], row[3]) for row in rows] == [(1, "one", None), (2, "two", "x")]
    assert with_server(defined, "SELECT * FROM shop.cheap") == [(1,)]
    with pytest.raises(psycopg.errors.CheckViolation):
        with_server(defined, "INSERT INTO shop.item VALUES (3, '')")
    with pytest.raises(psycopg.errors.DuplicateObject):
        with_server(defined, "CREATE ROLE reader")


def test_a_snapshot_is_made_anew_when_it_is_left_behind(defined: Path, engines: list[EngineInstance]) -> None:
    state = defined / CATALOG_SNAPSHOT_DIRECTORY / "state.json"
    before = state.read_text()
    with_server(defined, *(f"CREATE TABLE more_{n} (id int PRIMARY KEY)" for n in range(CHANGES_PER_SNAPSHOT)))
    with_server(defined, "SELECT 1")
    assert state.read_text() == before
    with_server(defined, "CREATE TABLE one_more (id int PRIMARY KEY)")
    assert with_server(defined, "SELECT * FROM one_more") == []
    assert state.read_text() != before
    with_server(defined, "SELECT * FROM more_0")
    assert engines[-1].saved_label == json.loads(state.read_text())["label"]


@pytest.mark.parametrize("damage", ["foreign", "no data", "no control file", "unreadable", "half made"])
def test_what_is_wrong_with_a_snapshot_costs_time_only(defined: Path, damage: str) -> None:
    snapshot = defined / CATALOG_SNAPSHOT_DIRECTORY
    state = snapshot / "state.json"
    if damage == "foreign":
        content = json.loads(state.read_text())
        content["label"] = json.dumps({"version": 3, "digest": "of another catalog"})
        state.write_text(json.dumps(content))
    elif damage == "no data":
        shutil.rmtree(snapshot / "data")
    elif damage == "no control file":
        (snapshot / "data" / "global" / "pg_control").unlink()
    elif damage == "unreadable":
        state.write_text("{")
    else:
        snapshot.rename(snapshot.with_name(snapshot.name + ".new"))
    assert with_server(defined, "SELECT * FROM shop.cheap") == [(1,)]
    assert with_server(defined, "SELECT * FROM shop.cheap") == [(1,)]
    assert state.exists() and not snapshot.with_name(snapshot.name + ".new").exists(), "it is made again"


def test_an_engine_that_dies_is_started_from_the_snapshot_too(defined: Path, engines: list[EngineInstance]) -> None:
    async def run() -> list[tuple[object, ...]]:
        server = Server(ServerSettings(data_dir=defined, port=0))
        try:
            info = await server.start()
            async with await _connect(info) as connection:
                await connection.execute("CREATE TABLE later (id int PRIMARY KEY)")
            pid = engines[-1].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            while engines[-1].pid in (pid, None):
                await asyncio.sleep(0.01)
            async with await _connect(info) as connection:
                return await (await connection.execute("SELECT * FROM shop.cheap, later")).fetchall()
        finally:
            await server.stop()

    assert asyncio.run(asyncio.wait_for(run(), 60)) == []
    assert engines[-1].saved_label is not None
