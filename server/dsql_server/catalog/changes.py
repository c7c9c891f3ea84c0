"""A catalog change: the statement to replay in other engines, and what it did to the stored tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from dsql_server.catalog.introspection import build_tables, oid_map, read_document
from dsql_server.catalog.state import CATALOG_LOG_RELATION_ID, CatalogState, Table, table_from_plain, table_to_plain
from dsql_server.encoding.keys import prefix


@dataclass(frozen=True)
class CatalogChange:
    """One committed DDL transaction.

    ``sql`` is replayed as ``role`` under ``search_path`` in every other engine database. ``superuser`` statements are
    the machinery's own (an index turning valid). ``shared`` ones change what all databases of an engine share
    (roles) and are replayed once an engine.
    """

    version: int
    sql: str
    role: str
    search_path: str
    upserts: tuple[Table, ...] = ()
    drops: tuple[int, ...] = ()
    next_relation_id: int = 0
    superuser: bool = False
    shared: bool = False

    def to_bytes(self) -> bytes:
        plain = asdict(self)
        plain["upserts"] = [table_to_plain(t) for t in self.upserts]
        return json.dumps(plain, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> CatalogChange:
        plain = json.loads(data)
        plain["upserts"] = tuple(table_from_plain(t) for t in plain["upserts"])
        plain["drops"] = tuple(plain["drops"])
        return cls(**plain)

    @property
    def log_key(self) -> bytes:
        """Where the catalog log keeps this change."""
        return prefix(CATALOG_LOG_RELATION_ID) + self.version.to_bytes(8, "big")


def difference(before: CatalogState, tables: list[Table]) -> tuple[tuple[Table, ...], tuple[int, ...]]:
    """What changed between ``before`` and the tables now: changed or new ones, and relation ids that are gone."""
    upserts = tuple(t for t in tables if before.tables.get(t.relation_id) != t)
    now = {t.relation_id for t in tables}
    return upserts, tuple(sorted(k for k in before.tables if k not in now))


def describe_change(
    state: CatalogState,
    document_before: str,
    document_after: str,
    *,
    sql: str,
    role: str,
    search_path: str,
    shared: bool = False,
    superuser: bool = False,
) -> CatalogChange:
    """The change between two introspections of the engine that ran ``sql``, on top of ``state``."""
    ids = oid_map(read_document(document_before), state)
    tables, next_id = build_tables(read_document(document_after), ids, state.next_relation_id)
    upserts, drops = difference(state, tables)
    return CatalogChange(
        state.version + 1, sql, role, search_path, upserts, drops, next_id, superuser=superuser, shared=shared
    )


class Catalog:
    """The catalog of a cluster as this process knows it: the log of changes and the state after the last one."""

    def __init__(self) -> None:
        self.state = CatalogState()
        self.changes: list[CatalogChange] = []
        self._listeners: list[Callable[[CatalogChange], None]] = []

    @property
    def version(self) -> int:
        return self.state.version

    def append(self, change: CatalogChange) -> None:
        """Take over a committed change. Changes arrive in version order, each exactly once."""
        assert change.version == self.state.version + 1, (change.version, self.state.version)
        self.state = self.state.apply(
            change.version, list(change.upserts), list(change.drops), change.next_relation_id
        )
        self.changes.append(change)
        for listener in self._listeners:
            listener(change)

    def since(self, version: int) -> list[CatalogChange]:
        """Changes after ``version``, oldest first."""
        return self.changes[version:]

    def subscribe(self, listener: Callable[[CatalogChange], None]) -> None:
        self._listeners.append(listener)
