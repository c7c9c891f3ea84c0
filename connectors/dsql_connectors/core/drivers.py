"""Importing a driver, with an error that says which extra brings it."""

from __future__ import annotations

import importlib


def require_driver(module: str, extra: str) -> None:
    """Import ``module``.

    :raises ImportError: naming the extra to install, if the driver isn't there.
    """
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise ImportError(
            f"dsql_connectors.{extra} needs {module!r}, which isn't installed: pip install 'dsqlkit[{extra}]'",
            name=module,
        ) from error
