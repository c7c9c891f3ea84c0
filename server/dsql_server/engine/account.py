"""Under which operating system account the engine runs, and what that account can reach.

PostgreSQL refuses to run as root. A server that runs as root therefore starts the engine under another account;
every other server runs it under its own.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import Any, NamedTuple

from dsql_server.engine.errors import EngineError

#: The account for the engine of a server that runs as root, unless another one is configured.
DEFAULT_ACCOUNT = "nobody"


class Account(NamedTuple):
    """Numeric user and group of the engine's processes; ``switched`` when they are not our own."""

    uid: int
    gid: int
    switched: bool

    def popen_arguments(self) -> dict[str, Any]:
        """The ``subprocess`` arguments that run a program under this account, in its own session."""
        arguments: dict[str, Any] = {"start_new_session": True}
        if self.switched:
            arguments |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return arguments

    def give(self, path: Path) -> None:
        """Make the account the owner of ``path``."""
        if self.switched:
            os.chown(path, self.uid, self.gid)


def engine_account(name: str | None = None) -> Account:
    """The account for the engine: our own, or ``name`` (default ``nobody``) when we are root.

    :raises EngineError: the account does not exist or is root itself.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switched=False)
    wanted = name or DEFAULT_ACCOUNT
    try:
        entry = pwd.getpwnam(wanted)
    except KeyError as error:
        raise EngineError(
            f"the engine can't run as root and there is no account {wanted!r}: create it or name another engine account"
        ) from error
    if entry.pw_uid == 0:
        raise EngineError(f"the engine can't run under {wanted!r}, which is root: name another engine account")
    return Account(entry.pw_uid, entry.pw_gid, switched=True)


def can_reach(path: Path, account: Account) -> bool:
    """Whether the account may search every directory on the way to ``path`` (which need not exist yet)."""
    if not account.switched:
        return True
    path = Path(os.path.realpath(path))
    return all(_may_search(directory, account) for directory in path.parents if directory.exists())


def can_read_tree(top: Path, account: Account) -> bool:
    """Whether the account reaches ``top`` and may read what is directly in it."""
    if not account.switched:
        return True
    return can_reach(top, account) and all(_may_read(path, account) for path in (top, *top.iterdir()))


def _may_search(directory: Path, account: Account) -> bool:
    return bool(_permissions(directory, account) & stat.S_IXOTH)


def _may_read(path: Path, account: Account) -> bool:
    wanted = stat.S_IROTH | stat.S_IXOTH if path.is_dir() else stat.S_IROTH
    return _permissions(path, account) & wanted == wanted


def _permissions(path: Path, account: Account) -> int:
    """The three permission bits that apply to the account (access control lists are not looked at)."""
    status = path.stat()
    if status.st_uid == account.uid:
        return (status.st_mode >> 6) & 7
    if status.st_gid == account.gid:
        return (status.st_mode >> 3) & 7
    return status.st_mode & 7
