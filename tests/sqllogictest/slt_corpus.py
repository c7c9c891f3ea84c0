"""Where the corpus lies: it isn't part of the project."""

from __future__ import annotations

import os
from pathlib import Path

#: Names the corpus's directory.
VARIABLE = "DSQLKIT_SQLLOGICTEST"
#: Else it is looked for here, beside the checkout.
_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "sqllogictest"


def corpus_directory() -> Path | None:
    """The directory with ``.test`` files, or None if there is none.

    :raises NotADirectoryError: the variable names something else.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return _BESIDE if _BESIDE.is_dir() else None
    if not Path(named).is_dir():
        raise NotADirectoryError(f"{VARIABLE}={named} is not a directory; unset it or name the corpus's")
    return Path(named).resolve()


def files_by_size(root: Path) -> list[Path]:
    """All files below a directory, smallest first."""
    return sorted(root.rglob("*.test"), key=lambda path: (path.stat().st_size, path))
