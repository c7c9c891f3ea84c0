"""The directory of one engine instance: made new at every start, removed at every stop, swept after a crash.

<directory>/owner.json         which server process owns it, and the engine's process
<directory>/postgresql.conf    configuration, out of reach of the engine's own account
<directory>/pg_hba.conf
<directory>/engine.log
<directory>/socket/            private to the engine's account (and root)
<directory>/data-xxxxxxxx/
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

from dsql_server.engine.account import Account, can_reach
from dsql_server.engine.errors import EngineError
from dsql_server.engine.file_placement import spread_subdirectories
from dsql_server.engine.process_identity import ProcessIdentity
from dsql_server.engine.settings import ENGINE_PORT

#: A Unix socket address holds 108 bytes on Linux, 104 on macOS.
SOCKET_PATH_BYTES_MAX = 100

#: A directory without an owner record is somebody's who just made it, unless it is older than this.
UNOWNED_SECONDS_MAX = 60

_TEMPORARY_PREFIX = "dsqlkit-engine-"
_DATA_PREFIX = "data-"
_STALE_ENGINE_SECONDS_MAX = 5.0
_STALE_ENGINE_POLL_SECONDS = 0.01
_REMOVE_SECONDS_MAX = 2.0
_IPCRM_SECONDS_MAX = 5


class EngineDirectory:
    """An existing, empty engine directory that belongs to this process."""

    def __init__(self, path: Path, account: Account) -> None:
        self.path = path
        self._account = account
        # A name of its own at each start: ext4 places a directory by its name (see file_placement).
        self.data = path / f"{_DATA_PREFIX}{secrets.token_hex(4)}"
        self.socket = path / "socket"
        self.log = path / "engine.log"
        self.configuration = path / "postgresql.conf"
        self.authentication = path / "pg_hba.conf"
        self._owner = path / "owner.json"
        self.record(None)
        # The engine's account has to pass through, but owns only what it has to write.
        path.chmod(0o711 if account.switched else 0o700)
        spread_subdirectories(path)
        for private in (self.data, self.socket):
            private.mkdir(mode=0o700)
            account.give(private)

    @classmethod
    def create(cls, preferred: Path | None, account: Account) -> EngineDirectory:
        """A new directory at ``preferred``, or a temporary one if that is None or of no use.

        It is of no use when the socket's path would be too long, or when the engine's account can't reach it. What a
        server that died left behind is removed first, its engine stopped.

        :raises EngineError: a running server uses ``preferred``, it holds something else, or it can't be made.
        """
        if preferred is not None:
            preferred = preferred.absolute()
            if _socket_fits(preferred) and can_reach(preferred, account):
                return cls(_make(preferred, account), account)
        return cls(_make_temporary(account), account)

    def record(self, engine: ProcessIdentity | None) -> None:
        """Note who owns the directory and which process the engine is, for the one who finds it after a crash."""
        text = json.dumps({"owner": ProcessIdentity.own(), "engine": engine})
        partial = self._owner.with_suffix(".new")
        partial.write_text(text, encoding="ascii")
        partial.rename(self._owner)

    def remove(self) -> None:
        """Remove the directory and everything in it; the engine has to be stopped.

        :raises EngineError: something in it can't be removed.
        """
        _remove_tree(self.path, self._account)


def _socket_fits(path: Path) -> bool:
    return len(os.fsencode(path / "socket" / f".s.PGSQL.{ENGINE_PORT}")) < SOCKET_PATH_BYTES_MAX


def _make(path: Path, account: Account) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            _clear(path, account)
        path.mkdir(mode=0o700)
    except OSError as error:
        raise EngineError(
            f"the engine directory {path} can't be made ({error.strerror}): name another data directory"
        ) from error
    return path


def _clear(path: Path, account: Account) -> None:
    """Remove the engine directory that a dead server left at ``path``."""
    owner, engine = _read_record(path)
    if owner is not None and owner.is_running():
        raise EngineError(
            f"the engine directory {path} is in use by process {owner.pid}: stop that server or name another directory"
        )
    if owner is None and any(path.iterdir()):
        raise EngineError(f"{path} holds something other than an engine: move it away or name another data directory")
    if engine is not None:
        _stop_stale(engine)
    _remove_tree(path, account)


def _remove_tree(path: Path, account: Account) -> None:
    """Remove an engine directory, patiently: the sessions of a killed postmaster end a moment after it."""
    for status_file in path.glob(f"{_DATA_PREFIX}*/postmaster.pid"):
        _release_shared_memory(status_file, account)
    deadline = time.monotonic() + _REMOVE_SECONDS_MAX
    while path.exists():
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            pass  # a session removed its own file first
        except OSError as error:
            if time.monotonic() > deadline:
                raise EngineError(f"{error.filename} can't be removed ({error.strerror}): remove it by hand") from error
            time.sleep(_STALE_ENGINE_POLL_SECONDS)


def _release_shared_memory(status_file: Path, account: Account) -> None:
    """Remove the System V segment of a postmaster that was killed: it marks the data directory as in use.

    A postmaster that stops by itself removes the segment and the status file. The file is the engine's word, so it
    is acted upon with the engine's rights only.
    """
    try:
        segment = status_file.read_text(encoding="utf-8", errors="replace").splitlines()[6].split()[1]
    except (OSError, IndexError):
        return
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["ipcrm", "-m", segment], capture_output=True, timeout=_IPCRM_SECONDS_MAX, **account.popen_arguments()
        )


def _make_temporary(account: Account) -> Path:
    for base in dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))):  # noqa: S108
        candidate = base / f"{_TEMPORARY_PREFIX}xxxxxxxx"
        if base.is_dir() and os.access(base, os.W_OK) and _socket_fits(candidate) and can_reach(candidate, account):
            _sweep(base, account)
            return Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=base))
    raise EngineError("no temporary directory is short and open enough for the engine's socket: set TMPDIR to one")


def _sweep(base: Path, account: Account) -> None:
    """Remove our temporary engine directories whose servers died."""
    for path in base.glob(f"{_TEMPORARY_PREFIX}*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            continue
        owner, engine = _read_record(path)
        being_made = owner is None and time.time() - status.st_mtime <= UNOWNED_SECONDS_MAX
        if not being_made and not (owner is not None and owner.is_running()):
            if engine is not None:
                _stop_stale(engine)
            _remove_tree(path, account)


def _read_record(path: Path) -> tuple[ProcessIdentity | None, ProcessIdentity | None]:
    """The owner and the engine that the record names; None for what it does not."""
    try:
        record = json.loads((path / "owner.json").read_text(encoding="ascii"))
        owner, engine = record["owner"], record["engine"]
        return ProcessIdentity(*owner), None if engine is None else ProcessIdentity(*engine)
    except (OSError, ValueError, TypeError, KeyError):
        return None, None


def _stop_stale(engine: ProcessIdentity) -> None:
    """Stop an engine whose server died. Its watcher usually was faster."""
    for signal_number in (signal.SIGQUIT, signal.SIGKILL):
        if not engine.is_running():
            return
        try:
            os.kill(engine.pid, signal_number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + _STALE_ENGINE_SECONDS_MAX
        while engine.is_running() and time.monotonic() < deadline:
            time.sleep(_STALE_ENGINE_POLL_SECONDS)
    if engine.is_running():
        raise EngineError(f"the engine of a server that died, process {engine.pid}, can't be stopped: end it by hand")
