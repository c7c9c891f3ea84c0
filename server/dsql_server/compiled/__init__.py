"""The innermost loops, compiled: ``native`` is the extension module, or None.

It is built at install where there is a C compiler. Everything in it has a twin in Python beside its callers, which
says what it means, and which is used where the module couldn't be built, is of another version of the source, or
``DSQLKIT_PURE_PYTHON=1`` is in the environment.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

PURE_PYTHON_VARIABLE = "DSQLKIT_PURE_PYTHON"
#: The extension's own number must be the same; one more for each change of what it offers.
VERSION = 5


def _load() -> Any:
    if os.environ.get(PURE_PYTHON_VARIABLE, "") not in ("", "0"):
        return None
    try:
        module = importlib.import_module("dsql_server.compiled._native")
    except ImportError:
        return None
    return module if module.VERSION == VERSION else None


native: Any = _load()
