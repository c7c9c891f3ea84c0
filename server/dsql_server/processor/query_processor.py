"""One query processor: an engine database at some version of the catalog, and how it is brought to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dsql_server.catalog.changes import Catalog, CatalogChange
from dsql_server.catalog.state import quote_identifier, quote_literal
from dsql_server.processor.engine_connection import EngineConnection, connect_engine
from dsql_server.processor.roles import ADMIN_ROLE, ENGINE_ROLE

#: Changes that are sent to an engine at once.
REPLAY_BATCH_CHANGES = 64
#: How long a replay waits for a lock: a transaction may be open when a whole engine has to catch up.
REPLAY_LOCK_MAX_MS = 2000
#: PostgreSQL's, for changes that were made under it.
DEFAULT_SEARCH_PATH = '"$user", public'
_REPLAY_SETTINGS = (
    "SET allow_system_table_mods = on; SET check_function_bodies = off; SET client_min_messages = error; "
    f"SET lock_timeout = {REPLAY_LOCK_MAX_MS}"
)


class QueryProcessor:
    """An engine database at some catalog version, with the session's connection to it."""

    def __init__(self, database: str, version: int, socket_path: str, engine: int = 0) -> None:
        self.database = database
        self.version = version
        self.socket_path = socket_path
        self.engine = engine  #: which of the pool's engines it is of
        self.connection: EngineConnection | None = None
        self.role = ADMIN_ROLE
        self.intact = True  #: False while changes are replayed, and for good if one fails
        #: Rows loaded into local tables since they were last vacuumed, by qualified table name.
        self.dead_rows: dict[str, int] = {}
        self.catalog_lock = asyncio.Lock()  #: held while the database's catalog moves from a version to another

    async def open(self, role: str, settings: dict[str, str]) -> None:
        """Connect as ``role``. Raises EngineError with the engine's refusal."""
        self.role = role
        self.connection = await connect_engine(self.socket_path, role, self.database, settings)

    async def replay(self, catalog: Catalog) -> None:
        """Bring the database's catalog forward to the current version. The session must not be in a transaction.

        Raises EngineError or EngineGone; the database is not to be leased again then.
        """
        async with self.catalog_lock:
            changes = catalog.since(self.version)
            if changes:
                self.intact = False
                # What a replay that fails got done is not done again: the session may still be on the database.
                await replay_changes(self.socket_path, self.database, changes, on_replayed=self._on_replayed)
                self.advance(changes[-1].version)
                self.intact = True

    def _on_replayed(self, change: CatalogChange) -> None:
        self.advance(change.version)

    def advance(self, version: int) -> None:
        """The database's catalog is at ``version`` now."""
        self.version = version
        if self.connection is not None:
            self.connection.outdate_statements()

    async def run_as_engine(self, sql: str) -> None:
        """Run the machinery's own part of a change as the engine's superuser. Raises EngineError."""
        connection = await connect_engine(self.socket_path, ENGINE_ROLE, self.database)
        try:
            await connection.execute(_REPLAY_SETTINGS)
            await connection.execute(sql)
        finally:
            connection.close()

    def disconnect(self) -> None:
        """End the connection under whoever uses it: what it waits for is answered with EngineGone."""
        if self.connection is not None:
            self.connection.close()

    def close(self) -> None:
        self.disconnect()
        self.connection = None


async def replay_changes(
    socket_path: str,
    database: str,
    changes: list[CatalogChange],
    *,
    with_shared: bool = False,
    on_replayed: Callable[[CatalogChange], None] | None = None,
) -> None:
    """Run the statements of ``changes`` in ``database``, each as the role and under the search path of its author.

    ``on_replayed`` is told of each that is done. Raises EngineError or EngineGone; those behind are not done then.
    """
    pending = [c for c in changes if with_shared or not c.shared]
    if not pending:
        return
    connection = await connect_engine(socket_path, ENGINE_ROLE, database)

    async def replay(change: CatalogChange) -> None:
        await connection.execute(_replay_sql(change))
        if on_replayed is not None:
            on_replayed(change)

    try:
        await connection.execute(_REPLAY_SETTINGS)
        for start in range(0, len(pending), REPLAY_BATCH_CHANGES):
            # All are sent before the first is answered. One that fails leaves its transaction open, and so those
            # behind it fail as well.
            await asyncio.gather(*(replay(c) for c in pending[start : start + REPLAY_BATCH_CHANGES]))
    finally:
        connection.close()


def _replay_sql(change: CatalogChange) -> str:
    """One transaction. A line ends the author's statement, for it may end in a comment.

    The author is the session's user for it, too: SESSION_USER stands for the author's role and for nobody else.
    """
    settings = {"search_path": change.search_path or DEFAULT_SEARCH_PATH, **change.settings}
    values = ", ".join(
        f"pg_catalog.set_config({quote_literal(k)}, {quote_literal(v)}, true)" for k, v in settings.items()
    )
    return (
        f"BEGIN; SELECT {values}; SET LOCAL SESSION AUTHORIZATION {quote_identifier(change.role or ENGINE_ROLE)}; "
        f"{change.sql}\n; RESET SESSION AUTHORIZATION; {change.engine_sql}; COMMIT"
    )


def set_locally(settings: dict[str, str]) -> str:
    """What a SELECT calls to give parameters these values until its transaction ends. It shows what becomes of them."""
    calls = [f"pg_catalog.set_config({quote_literal(name)}, {quote_literal(v)}, true)" for name, v in settings.items()]
    return ", ".join(calls)
