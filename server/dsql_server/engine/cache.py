"""Directories that are built once, published atomically and shared by every later server of this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import platformdirs

from dsql_server.engine.account import Account, can_reach
from dsql_server.engine.errors import EngineError

#: Where a server that runs as root keeps the cache: the engine's account has to be able to read it.
ROOT_CACHE_DIRECTORY = Path("/var/cache/dsqlkit")

#: Names another place for the cache.
CACHE_VARIABLE = "DSQLKIT_CACHE_DIR"

#: A published directory that nobody used for so long is removed when a sibling is published.
UNUSED_SECONDS_MAX = 14 * 24 * 3600

_BUILDING_PREFIX = ".building-"


def cache_directory(account: Account, override: Path | None = None) -> Path:
    """The cache directory, created if need be: ``override``, what DSQLKIT_CACHE_DIR says, or the account's default.

    :raises EngineError: it can't be created, belongs to somebody else, or the engine's account can't reach it.
    """
    if override is not None:
        directory = override
    elif os.environ.get(CACHE_VARIABLE):
        directory = Path(os.environ[CACHE_VARIABLE])
    elif account.switched:
        directory = ROOT_CACHE_DIRECTORY
    else:
        directory = platformdirs.user_cache_path("dsqlkit")
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"the cache directory {directory} can't be created ({error.strerror}): "
            f"name a writable one with the environment variable {CACHE_VARIABLE}"
        ) from error
    if directory.stat().st_uid != os.geteuid():
        raise EngineError(
            f"the cache directory {directory} belongs to another user: "
            f"name one of your own with the environment variable {CACHE_VARIABLE}"
        )
    if account.switched and not can_reach(directory / "entry", account):
        raise EngineError(
            f"the engine's account can't reach the cache directory {directory}: "
            f"name one that everybody can search with the environment variable {CACHE_VARIABLE}"
        )
    return directory


def published(target: Path, build: Callable[[Path], None]) -> Path:
    """``target``, built first if it isn't there: ``build`` fills a new directory, which is then renamed.

    Several servers may do this at the same time: the first to finish wins, the others drop theirs. Whatever
    ``build`` raises passes through, and nothing is left behind.
    """
    if target.is_dir():
        os.utime(target)
        return target
    parent = target.parent
    parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=_BUILDING_PREFIX, dir=parent))
    try:
        building.chmod(0o755)
        build(building)
        os.utime(building)
        try:
            building.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another server was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    _remove_unused(target)
    return target


def _remove_unused(used: Path) -> None:
    """Remove the siblings of ``used`` (published or half built) that were not used for a long time."""
    for sibling in used.parent.iterdir():
        try:
            unused_seconds = time.time() - sibling.stat().st_mtime
        except FileNotFoundError:
            continue
        if sibling != used and unused_seconds > UNUSED_SECONDS_MAX:
            shutil.rmtree(sibling, ignore_errors=True)
