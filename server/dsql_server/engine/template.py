"""The cached data directory that every engine instance starts from: ``initdb`` and the bootstrap SQL run once."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dsql_server.engine.account import Account
from dsql_server.engine.binaries import EngineBinaries
from dsql_server.engine.cache import published
from dsql_server.engine.directory import EngineDirectory
from dsql_server.engine.errors import EngineError
from dsql_server.engine.postmaster import Postmaster
from dsql_server.engine.settings import ENGINE_PORT, ENGINE_SUPERUSER, EngineSettings

_INITDB_OPTIONS = (
    f"--username={ENGINE_SUPERUSER}",
    "--encoding=UTF8",
    "--locale=C",
    "--auth=trust",
    "--no-sync",
    "--no-instructions",
    # Small segments: the template, and with it every copy of it, is 15 MB smaller.
    "--wal-segsize=1",
)
#: Goes up when the template is built in another way, so that those in the cache are no longer used.
_TEMPLATE_VERSION = 2
_PROGRAM_SECONDS_MAX = 60
_BOOTSTRAP_CONNECTIONS = 10

#: In which database what runs, after the bootstrap SQL: a database can't be copied, renamed or dropped from within.
_ARRANGE_DATABASES = (
    ("postgres", "UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'"),
    ("postgres", "DROP DATABASE template0"),
    ("postgres", "CREATE DATABASE copied TEMPLATE template1 STRATEGY file_copy"),
    ("template1", "DROP DATABASE postgres"),
    ("template1", "ALTER DATABASE copied RENAME TO postgres"),
)


def template_data(binaries: EngineBinaries, account: Account, cache: Path, bootstrap_sql: Sequence[str]) -> Path:
    """The template's data directory for these binaries and this SQL, built if it is not cached yet.

    The SQL runs in the database template1, statement by statement outside of a transaction. The database postgres is
    a copy of template1 as it is then; there is no other.

    :raises EngineError: ``initdb`` or a statement failed; the message says which and why.
    """
    recipe = (_TEMPLATE_VERSION, _INITDB_OPTIONS, account.uid, tuple(bootstrap_sql))
    identity = hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
    target = cache / "templates" / f"{binaries.key()}-{identity}"
    return published(target, lambda top: _build(top, binaries, account, bootstrap_sql)) / "data"


def copy_data(source: Path, data: Path, account: Account) -> None:
    """Fill the empty directory ``data`` with a stopped engine's, as ``account``. Raises EngineError."""
    _run(["cp", "-R", f"{source}/.", data], account)


def _build(top: Path, binaries: EngineBinaries, account: Account, bootstrap_sql: Sequence[str]) -> None:
    directory = EngineDirectory.create(None, account)
    try:
        _run([binaries.initdb, *_INITDB_OPTIONS, "-D", directory.data], account)
        settings = EngineSettings(max_connections=_BOOTSTRAP_CONNECTIONS)
        postmaster = Postmaster(binaries, account, directory, settings)
        postmaster.start()
        try:
            _execute(directory.socket, "template1", bootstrap_sql)
            for database, statement in _ARRANGE_DATABASES:
                _execute(directory.socket, database, [statement])
        finally:
            postmaster.stop()
        (top / "data").mkdir(mode=0o755)
        _run(["cp", "-R", f"{directory.data}/.", top / "data"], None)
    finally:
        directory.remove()
    _remove_needless_files(top / "data")
    if account.switched:
        _open_for_reading(top / "data")


def _remove_needless_files(data: Path) -> None:
    """Drop the maps of free space and of visibility: PostgreSQL makes them anew where it wants one.

    They are a quarter of a database's files, and a sixth of its size; every start and every new database copies them.
    """
    for pattern in ("*_fsm", "*_vm"):
        for path in (data / "base").glob(f"*/{pattern}"):
            path.unlink()


def _execute(socket: Path, database: str, statements: Sequence[str]) -> None:
    import psycopg  # slow to import, and needed only when the template is built

    with psycopg.connect(
        host=str(socket), port=ENGINE_PORT, user=ENGINE_SUPERUSER, dbname=database, autocommit=True
    ) as connection:
        for number, statement in enumerate(statements, start=1):
            try:
                connection.execute(statement.encode())
            except psycopg.Error as error:
                raise EngineError(
                    f"bootstrap statement {number} of {len(statements)} was refused ({error}): correct it"
                ) from error


def _open_for_reading(data: Path) -> None:
    """Let the engine's account copy the template, which stays ours so that no engine can change it."""
    for path in (data, *data.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _run(command: Sequence[str | Path], account: Account | None) -> None:
    """Run a program to its end, as ``account`` or as ourselves."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_PROGRAM_SECONDS_MAX,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        **(account.popen_arguments() if account else {}),
    )
    if done.returncode != 0:
        name = Path(command[0]).name
        raise EngineError(f"{name} failed with status {done.returncode}: {done.stderr.strip()}; check space and rights")
