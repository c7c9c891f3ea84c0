"""The innermost loops, compiled: each name below is an extension module, or None.

They are built at install where there is a C compiler. Everything in them has a twin in Python beside its callers, which
says what it means, and which is used where the module couldn't be built, is of another version of the source, or
``DSQLKIT_PURE_PYTHON=1`` is in the environment.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

PURE_PYTHON_VARIABLE = "DSQLKIT_PURE_PYTHON"
#: The extensions' own number must be the same; one more for each change of what they offer.
VERSION = 15


def _load(name: str) -> Any:
    if os.environ.get(PURE_PYTHON_VARIABLE, "") not in ("", "0"):
        return None
    try:
        module = importlib.import_module(f"dsql_server.compiled.{name}")
    except ImportError:
        return None
    return module if module.VERSION == VERSION else None


encoding: Any = _load("_encoding")
reads: Any = _load("_reads")
storage: Any = _load("_storage")
journal: Any = _load("_journal")
inserts: Any = _load("_inserts")
commit_path: Any = _load("_commit_path")
