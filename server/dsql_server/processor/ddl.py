"""DDL in a query processor: run on its own engine, described, committed through the same path as rows."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from dsql_server.catalog.changes import Catalog, CatalogChange, describe_change
from dsql_server.catalog.introspection import INTROSPECTION_SQL
from dsql_server.catalog.state import Index, Table
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.messages import Claim, CommitRequest, LockMode, Mutation
from dsql_server.processor.engine_connection import Answer
from dsql_server.processor.errors import EngineRefusal, SqlError
from dsql_server.processor.executor import Executor
from dsql_server.statements import Statement

#: Objects that all databases of an engine share.
_SHARED_OBJECTS = frozenset({"ROLE", "USER", "GROUP"})


@dataclass
class PendingDefinition:
    """A DDL statement that ran in the engine's transaction and waits for COMMIT."""

    change: CatalogChange
    mutations: list[Mutation] = field(default_factory=list)
    #: indexes that a job will build once the change is committed, with the job's id
    builds: list[tuple[str, int, int]] = field(default_factory=list)


async def run_definition(
    executor: Executor, catalog: Catalog, statement: Statement, search_path: str
) -> tuple[Answer, PendingDefinition]:
    """Run the statement in the engine's transaction and describe what it did.

    Raises SqlError if the engine refuses it; the transaction is then failed.
    """
    workspace = executor.workspace
    assert workspace is not None
    parts: list[bytes] = []
    executor.opening(parts)
    before = await _introspect(executor, b"".join(parts), search_path)
    answer = await executor.relay(p.query(statement.engine_sql), ready=True)
    if answer.error is not None:
        raise EngineRefusal(answer.error, offset=statement.offset)
    after = await _introspect(executor, b"", search_path)
    definition = statement.definition
    shared = definition is not None and definition.object_type in _SHARED_OBJECTS
    change = describe_change(
        workspace.catalog,
        before,
        after,
        sql=statement.engine_sql,
        role=executor.processor.role,
        search_path=search_path,
        shared=shared,
    )
    return answer, PendingDefinition(change)


async def _introspect(executor: Executor, opening: bytes, search_path: str) -> str:
    """The stored tables now. Expressions are printed with every name qualified."""
    restore = f"SET LOCAL search_path = {search_path}" if search_path else "SET LOCAL search_path TO DEFAULT"
    batch = opening + p.query(f"SET LOCAL search_path = pg_catalog; {INTROSPECTION_SQL}; {restore}")
    answer = await executor.collect(batch)
    if answer.error is not None:
        raise EngineRefusal(answer.error, hide_context=True)
    for rows in answer.rows:
        if rows:
            return (p.data_row_fields(rows[0])[0] or b"[]").decode()
    raise SqlError("XX000", "the catalog could not be read")


def new_indexes(state_before: Catalog, change: CatalogChange) -> list[tuple[Table, Index]]:
    """Indexes that the change added to tables that were there before it."""
    found = []
    for table in change.upserts:
        known = state_before.state.tables.get(table.relation_id)
        if known is None:
            continue
        ids = {i.relation_id for i in known.indexes}
        found += [(table, i) for i in table.indexes if i.relation_id not in ids]
    return found


def with_invalid_indexes(change: CatalogChange, relation_ids: set[int]) -> CatalogChange:
    """The change with these indexes marked as still to be built."""
    upserts = tuple(
        replace(
            table, indexes=tuple(replace(i, valid=False) if i.relation_id in relation_ids else i for i in table.indexes)
        )
        for table in change.upserts
    )
    return replace(change, upserts=upserts)


async def commit_definition(executor: Executor, catalog: Catalog, pending: PendingDefinition) -> None:
    """Commit the change through adjudicators and journal, then in the engine.

    Raises SqlError (OC000, OC001); the engine is rolled back then.
    """
    workspace = executor.workspace
    assert workspace is not None
    change = pending.change
    data = change.to_bytes()
    request = CommitRequest(
        workspace.transaction_id,
        workspace.t_start,
        change.version - 1,
        (Claim(change.log_key, LockMode.UPDATE),),
        (Mutation(change.log_key, data), *pending.mutations),
        data,
    )
    await executor.submit(request)
    catalog.append(change)
    executor.processor.version = change.version
    executor.workspace = None
    executor.engine_open = False
    executor.connection.discard(p.query("COMMIT"))


def new_job_id_bytes() -> bytes:
    """16 random bytes, the identity of a job."""
    return os.urandom(16)
