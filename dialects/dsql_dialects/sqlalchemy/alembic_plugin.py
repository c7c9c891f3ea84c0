"""What Alembic loads by its entry point, in the middle of its own import: only a promise of the implementation."""

from __future__ import annotations

from typing import Any

from alembic.ddl.impl import DefaultImpl


class _LoadedWhenNeeded(DefaultImpl):
    __dialect__ = "aws_dsql"

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        from dsql_dialects.sqlalchemy import alembic

        return alembic.DSQLImpl(*args, **kwargs)


class _OfficialName(_LoadedWhenNeeded):
    __dialect__ = "auroradsql"


def setup(plugin: Any) -> None:
    """Called by Alembic. The classes above are registered by being defined."""
