"""The directory that a cluster lives in: one server at a time uses it, and it remembers who the cluster is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import string
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dsql_server.cluster.settings import StartError
from dsql_server.interfaces.identifiers import new_identifier

LOCK_FILE = "lock"
IDENTITY_FILE = "cluster.json"
#: What :mod:`dsql_server.cluster.catalog_snapshot` keeps; may be removed at any time.
CATALOG_SNAPSHOT_DIRECTORY = "catalog-snapshot"
#: Marks a temporary directory: what a server that was killed left behind, the next one removes.
EPHEMERAL_FILE = "ephemeral"
_TEMPORARY_PREFIX = "dsqlkit-"
_ACCESS_KEY_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True)
class Identity:
    """What a data directory remembers of its cluster."""

    cluster_id: str
    access_key_id: str
    secret_access_key: str

    @classmethod
    def of(cls, directory: Path) -> Identity:
        """Read the directory's identity, or make one.

        Raises StartError if the file is damaged, OSError if it can't be read or written.
        """
        file = directory / IDENTITY_FILE
        try:
            return cls(**json.loads(file.read_text()))
        except FileNotFoundError:
            identity = cls._new()
        except (ValueError, TypeError) as error:
            # Not replaced by a new one: the clients' tokens and certificates are made out to the old one.
            raise StartError(
                f"{file} doesn't describe a cluster: restore it, or start with another --data-dir"
            ) from error
        descriptor, partial = tempfile.mkstemp(dir=directory)  # mode 0600
        with os.fdopen(descriptor, "w") as out:
            json.dump(asdict(identity), out)
            out.flush()
            os.fsync(descriptor)
        os.replace(partial, file)
        return identity

    @classmethod
    def _new(cls) -> Identity:
        return cls(
            new_identifier(),
            "AKIA" + "".join(secrets.choice(_ACCESS_KEY_ALPHABET) for _ in range(16)),
            "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(40)),
        )


class DataDirectory:
    """A directory locked for this process. ``close`` it; a temporary one is removed then."""

    def __init__(self, wanted: Path | None) -> None:
        """Make and lock ``wanted``, or a temporary directory if that is None. Raises StartError."""
        self._undo = contextlib.ExitStack()
        try:
            self.path = self._temporary() if wanted is None else wanted.absolute()
            self._undo.callback(self._lock().close)
            if wanted is None:
                # Only now, under the lock, may others take it for what it is.
                (self.path / EPHEMERAL_FILE).touch()
                _sweep(self.path.parent)
        except BaseException:
            self._undo.close()
            raise

    def close(self) -> None:
        """Unlock, and remove a temporary directory. Safe to repeat."""
        self._undo.close()

    def _temporary(self) -> Path:
        directory = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX))
        self._undo.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o711)  # clients of other users read the CA certificate in it
        return directory

    def _lock(self) -> IO[str]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / LOCK_FILE).open("a")
        except OSError as error:
            raise StartError(
                f"the data directory {self.path} can't be used ({error.strerror or error}): "
                "choose another with --data-dir or mend its permissions"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise StartError(
                f"the data directory {self.path} is in use by another server: "
                "stop that one, or choose another with --data-dir"
            ) from error
        return lock


def _sweep(base: Path) -> None:
    """Remove our temporary directories below ``base`` that no server uses any more."""
    for marker in base.glob(f"{_TEMPORARY_PREFIX}*/{EPHEMERAL_FILE}"):
        with contextlib.suppress(OSError):
            directory = marker.parent
            if directory.lstat().st_uid != os.geteuid() or directory.is_symlink():
                continue
            with (directory / LOCK_FILE).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
