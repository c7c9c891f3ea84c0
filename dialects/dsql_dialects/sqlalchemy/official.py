"""``auroradsql://``, the official dialect's name: theirs where it is installed, else ours by that name.

So an application that comes from there goes on to work, options such as ``auroradsql_include`` included.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sqlalchemy.dialects.postgresql.base import PGDialect

from dsql_dialects.sqlalchemy.options import OFFICIAL_ARGUMENTS

_PACKAGE = "aurora_dsql_sqlalchemy"
_CLASSES = {
    "psycopg": "DSQLDialect_psycopg",
    "psycopg_async": "DSQLDialectAsync_psycopg",
    "psycopg2": "DSQLDialect_psycopg2",
    "asyncpg": "DSQLDialect_asyncpg",
}
#: Theirs knows two drivers, and nothing asynchronous.
_THEIRS = {"psycopg": "AuroraDSQLDialect_psycopg", "psycopg2": "AuroraDSQLDialect_psycopg2"}


def __getattr__(name: str) -> Any:
    """The dialect class of a driver, made when SQLAlchemy's entry point asks for it."""
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _THEIRS and find_spec(_PACKAGE) is not None:
        return getattr(import_module(f"{_PACKAGE}.{name}"), _THEIRS[name])
    ours = getattr(import_module(f"dsql_dialects.sqlalchemy.{name.removesuffix('_async')}"), _CLASSES[name])
    named = type(ours.__name__, (ours,), {"name": "auroradsql", "construct_arguments": _arguments(), **_ASYNC(name)})
    globals()[name] = named
    return named


def _arguments() -> list[Any]:
    return [*(PGDialect.construct_arguments or ()), *OFFICIAL_ARGUMENTS]


def _ASYNC(name: str) -> dict[str, Any]:
    """For psycopg, the way from the synchronous class to the asynchronous one."""
    if name != "psycopg":
        return {"supports_statement_cache": True}
    return {
        "supports_statement_cache": True,
        "get_async_dialect_cls": classmethod(lambda cls, url: __getattr__("psycopg_async")),
    }
