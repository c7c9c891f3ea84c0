"""A PostgreSQL 16 with its own rows and nothing of Aurora DSQL's: what answers are compared with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dsql_server.engine import EngineInstance, EngineSettings, find_binaries

if TYPE_CHECKING:
    import psycopg


@contextlib.contextmanager
def plain_postgresql(settings: EngineSettings | None = None) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection to an instance of its own, as superuser, for as long as the block lasts.

    ``settings`` are the instance's; by default those of the cluster's engine. Raises what starting an engine raises.
    """
    import psycopg

    engine = EngineInstance(find_binaries(None), settings=settings)
    asyncio.run(engine.start())
    try:
        with psycopg.connect(
            host=str(engine.socket_directory), port=engine.port, user=engine.superuser, dbname="postgres",
            autocommit=True,
        ) as connection:  # fmt: skip
            yield connection
    finally:
        asyncio.run(engine.stop())
