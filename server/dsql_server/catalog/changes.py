"""A catalog change: the statement to replay in other engines, and what it did to stored tables and sequences."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field

from dsql_server.catalog.introspection import Listing, build_sequences, build_tables, oid_map, read_document
from dsql_server.catalog.state import (
    CATALOG_LOG_RELATION_ID,
    CatalogState,
    Sequence,
    Table,
    table_from_plain,
    table_to_plain,
)
from dsql_server.encoding.keys import prefix


@dataclass(frozen=True)
class CatalogChange:
    """One committed DDL transaction.

    ``sql`` is replayed as ``role`` under ``search_path`` in every other engine database, then ``engine_sql``, the
    machinery's own part, as the engine's superuser. ``shared`` changes concern what all databases of an engine share
    (roles) and are replayed once an engine.
    """

    version: int
    sql: str
    role: str
    search_path: str
    upserts: tuple[Table, ...] = ()
    drops: tuple[int, ...] = ()  #: relation ids of tables and sequences
    next_relation_id: int = 0
    engine_sql: str = ""
    shared: bool = False
    sequences: tuple[Sequence, ...] = ()  #: new and changed ones
    #: the author's settings that decide how constants are read, as far as they aren't the defaults
    settings: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        plain = asdict(self)
        plain["upserts"] = [table_to_plain(t) for t in self.upserts]
        return json.dumps(plain, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> CatalogChange:
        plain = json.loads(data)
        plain["upserts"] = tuple(table_from_plain(t) for t in plain["upserts"])
        plain["drops"] = tuple(plain["drops"])
        plain["sequences"] = tuple(Sequence(**s) for s in plain["sequences"])
        return cls(**plain)

    @property
    def log_key(self) -> bytes:
        """Where the catalog log keeps this change."""
        return prefix(CATALOG_LOG_RELATION_ID) + self.version.to_bytes(8, "big")


@dataclass(frozen=True)
class Difference:
    """What a definition changed, as read from the engine that ran it."""

    before: Listing
    after: Listing
    tables: str  #: answer of :func:`~dsql_server.catalog.introspection.tables_sql` for the changed tables
    sequences: str  #: answer of :func:`~dsql_server.catalog.introspection.sequences_sql` for the changed sequences


def describe_change(
    state: CatalogState,
    difference: Difference,
    *,
    sql: str,
    role: str,
    search_path: str,
    shared: bool = False,
    settings: dict[str, str] | None = None,
) -> CatalogChange:
    """The change that ``sql`` made, on top of ``state``."""
    before, after = difference.before, difference.after
    ids = oid_map(before, state)
    tables, next_id = build_tables(read_document(difference.tables), ids, state.next_relation_id)
    sequences, next_id = build_sequences(read_document(difference.sequences), ids, next_id)
    gone = (before.tables.keys() - after.tables.keys()) | (before.sequences.keys() - after.sequences.keys())
    return CatalogChange(
        state.version + 1,
        sql,
        role,
        search_path,
        tuple(t for t in tables if state.tables.get(t.relation_id) != t),
        tuple(sorted(ids[oid] for oid in gone if oid in ids)),
        next_id,
        shared=shared,
        settings=settings or {},
        sequences=tuple(s for s in sequences if state.sequences.get(s.relation_id) != s),
    )


class Catalog:
    """The catalog of a cluster as this process knows it: the log of changes and the state after the last one."""

    def __init__(self) -> None:
        self.state = CatalogState()
        self.changes: list[CatalogChange] = []
        self.queue = asyncio.Lock()  #: held around definitions that would fail for each other

    @property
    def version(self) -> int:
        return self.state.version

    def append(self, change: CatalogChange) -> None:
        """Take over a committed change. Changes arrive in version order, each exactly once."""
        assert change.version == self.state.version + 1, (change.version, self.state.version)
        upserts: Collection[Table | Sequence] = (*change.upserts, *change.sequences)
        self.state = self.state.apply(change.version, upserts, change.drops, change.next_relation_id)
        self.changes.append(change)

    def since(self, version: int) -> list[CatalogChange]:
        """Changes after ``version``, oldest first."""
        return self.changes[version:]
