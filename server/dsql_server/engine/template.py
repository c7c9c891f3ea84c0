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
_PROGRAM_SECONDS_MAX = 60
_BOOTSTRAP_CONNECTIONS = 10


def template_data(binaries: EngineBinaries, account: Account, cache: Path, bootstrap_sql: Sequence[str]) -> Path:
    """The template's data directory for these binaries and this SQL, built if it is not cached yet.

    The SQL runs in the database template1, statement by statement outside of a transaction.

    :raises EngineError: ``initdb`` or a statement failed; the message says which and why.
    """
    identity = hashlib.sha256(repr((_INITDB_OPTIONS, account.uid, tuple(bootstrap_sql))).encode()).hexdigest()[:16]
    target = cache / "templates" / f"{binaries.key()}-{identity}"
    return published(target, lambda top: _build(top, binaries, account, bootstrap_sql)) / "data"


def copy_template(template: Path, data: Path, account: Account) -> None:
    """Fill the empty directory ``data`` with the template, as ``account``."""
    _run(["cp", "-R", f"{template}/.", data], account)


def _build(top: Path, binaries: EngineBinaries, account: Account, bootstrap_sql: Sequence[str]) -> None:
    directory = EngineDirectory.create(None, account)
    try:
        _run([binaries.initdb, *_INITDB_OPTIONS, "-D", directory.data], account)
        if bootstrap_sql:
            settings = EngineSettings(max_connections=_BOOTSTRAP_CONNECTIONS)
            postmaster = Postmaster(binaries, account, directory, settings)
            postmaster.start()
            try:
                _execute(directory.socket, bootstrap_sql)
            finally:
                postmaster.stop()
        (top / "data").mkdir(mode=0o755)
        _run(["cp", "-R", f"{directory.data}/.", top / "data"], None)
    finally:
        directory.remove()
    if account.switched:
        _open_for_reading(top / "data")


def _execute(socket: Path, statements: Sequence[str]) -> None:
    import psycopg  # slow to import, and needed only when the template is built

    with psycopg.connect(
        host=str(socket), port=ENGINE_PORT, user=ENGINE_SUPERUSER, dbname="template1", autocommit=True
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
