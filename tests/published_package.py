"""Packages as their authors publish them: their sources, which bring the tests, and a Python that has them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
from collections.abc import Sequence
from pathlib import Path


def unpack(package: str, version: str, directory: Path) -> Path:
    """The package's source distribution under ``directory``, downloaded once."""
    sources = directory / f"{package.replace('-', '_')}-{version}"
    if not sources.exists():
        directory.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package]
        subprocess.run([*pip, f"{package}=={version}", "--dest", str(directory)], check=True)
        archive = next(path for path in directory.glob("*.tar.gz") if version in path.name)
        with tarfile.open(archive) as members:
            top = members.getnames()[0].partition("/")[0]
            members.extractall(directory)
        if top != sources.name:
            (directory / top).rename(sources)
    return sources


def interpreter(directory: Path, requirements: Sequence[str]) -> Path:
    """A Python in ``directory`` with these requirements installed, made once."""
    python = directory / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(directory / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
    return python
