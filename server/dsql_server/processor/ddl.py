"""DDL in a query processor: run on its own engine, described, committed through the same path as rows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from dsql_server.catalog.changes import Catalog, CatalogChange, Difference, describe_change
from dsql_server.catalog.introspection import LISTING_SQL, Listing, sequences_sql, tables_sql
from dsql_server.catalog.state import CatalogState, Index, Sequence, Table, quote_literal
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.messages import Claim, CommitRequest, LockMode, Mutation
from dsql_server.processor.definition_limits import check_counts, check_tables, counting_sql
from dsql_server.processor.definition_rules import (
    check_keys,
    refuse_column_type,
    refuse_dropped_columns,
    refuse_identity_type,
    refuse_index_of_rows,
    refuse_key_type,
    refuse_view,
    unfit_column_types,
    unfit_identity_types,
    unfit_key_types,
    without_operators,
)
from dsql_server.processor.engine_connection import Answer
from dsql_server.processor.errors import EngineRefusal, SqlError
from dsql_server.processor.executor import Executor
from dsql_server.processor.planner import PlanSettings
from dsql_server.processor.query_processor import replay_changes
from dsql_server.processor.role_mappings import change_mappings, refuse_mapped, renamed_mappings
from dsql_server.statements import Statement

_OTHER_DATABASE = re.compile(rb"\n?\d+ objects? in database [^\n]*")
#: Objects that all databases of an engine share.
_SHARED_OBJECTS = frozenset({"ROLE", "USER", "GROUP"})
#: Definitions that may change a sequence's state or parameters.
_SEQUENCE_OBJECTS = frozenset({"SEQUENCE", "TABLE"})


@dataclass
class PendingDefinition:
    """A DDL statement that ran in the engine's transaction and waits for COMMIT."""

    change: CatalogChange
    dropped: tuple[Table, ...] = ()  #: tables that it drops
    dropped_indexes: tuple[tuple[Table, Index], ...] = ()  #: of tables that stay
    new_indexes: tuple[tuple[Table, Index], ...] = ()  #: on tables that were there before
    claims: list[Claim] = field(default_factory=list)
    mutations: list[Mutation] = field(default_factory=list)
    job_ids: list[str] = field(default_factory=list)  #: to be started once it is committed
    #: the statement changes no catalog, only rows of the machinery's: nothing of what it did in the engine stays
    changes_nothing: bool = False


def touches_other_databases(statement: Statement) -> bool:
    """Whether the statement changes something shared on which objects in every engine database may depend."""
    definition = statement.definition
    shared = definition is not None and definition.object_type in _SHARED_OBJECTS
    return shared and statement.tag in ("DROP ROLE", "ALTER ROLE")


async def run_definition(
    executor: Executor, statement: Statement, session: PlanSettings
) -> tuple[Answer, PendingDefinition]:
    """Run the statement in the engine's transaction and describe what it did.

    Raises SqlError if the engine refuses it; the transaction is then failed.
    """
    workspace = executor.workspace
    assert workspace is not None
    definition = statement.definition
    assert definition is not None, "every DDL statement defines something"
    state = workspace.catalog
    if definition.mapping is not None:
        claims, mutations = await change_mappings(executor, statement)
        answer = Answer()
        answer.out.append(p.command_complete(statement.tag))
        change = CatalogChange(state.version + 1, "", "", "")
        return answer, PendingDefinition(change, claims=claims, mutations=mutations, changes_nothing=True)
    if statement.tag == "DROP ROLE":
        for _, role in definition.names:
            refuse_mapped(role, executor.storage, workspace.t_start)
    refuse_view(statement.tag, statement.engine_sql)
    refuse_dropped_columns(state, definition)
    parts: list[bytes] = []
    executor.opening(parts)
    for oid in unfit_identity_types(state, definition):
        raise refuse_identity_type(await _type_name(executor, b"".join(parts), oid))
    before = Listing.read(await _ask(executor, b"".join(parts), LISTING_SQL))
    altered = _altered_sequences(state, statement)
    if altered:
        await executor.sequences.show_current(altered)
    answer = await executor.relay(p.query(statement.engine_sql), ready=True)
    if answer.error is not None:
        unfit = without_operators(p.error_fields(answer.error).get("M", ""))
        if unfit is not None:
            raise unfit
        refusal = EngineRefusal(_without_other_databases(answer.error), offset=statement.offset)
        refusal.notices = p.notices(b"".join(answer.out))
        raise refusal
    after = Listing.read(await _ask(executor, b"", LISTING_SQL))
    difference = await _difference(executor, before, after, session.search_path)
    change = describe_change(
        state,
        difference,
        sql=statement.engine_sql,
        role=executor.processor.role,
        search_path=session.search_path,
        settings=session.reading,
        shared=definition.object_type in _SHARED_OBJECTS,
    )
    check_tables(change, executor.limits)
    check_keys(change, state)
    for oid in unfit_column_types(change, state):
        raise refuse_column_type(await _type_name(executor, b"", oid))
    for oid in unfit_key_types(change, state):
        raise refuse_key_type(await _type_name(executor, b"", oid))
    check_counts(
        statement.tag, [int(await _ask(executor, b"", sql)) for sql in counting_sql(statement.tag)], executor.limits
    )
    pending = _pending(state, change)
    if definition.index is not None and not definition.index.is_async:
        for table, _ in pending.new_indexes:
            refuse_index_of_rows(table, executor.storage, workspace.t_start)
    if definition.new_name is not None and definition.object_type == "ROLE":
        (_, role) = definition.names[0]
        renamed = renamed_mappings(role, definition.new_name, executor.storage, workspace.t_start)
        pending.claims += renamed[0]
        pending.mutations += renamed[1]
    if altered:
        kept = [s for s in altered if s.relation_id not in change.drops]
        changed = {s.relation_id: s for s in change.sequences}
        claims, mutations = await executor.sequences.altered(kept, changed)
        await executor.sequences.put_back(changed, change.drops)
        pending.claims += claims
        pending.mutations += mutations
    return answer, pending


def _without_other_databases(error: bytes) -> bytes:
    """The error without what a role owns elsewhere: every engine database has the objects of the one that there is."""
    fields = error.split(b"\x00")
    kept = [_OTHER_DATABASE.sub(b"", f) if f[:1] == b"D" else f for f in fields]
    return b"\x00".join(f for f in kept if f != b"D").rstrip(b"\x00") + b"\x00\x00"


def _altered_sequences(state: CatalogState, statement: Statement) -> list[Sequence]:
    """Sequences whose state or parameters the statement may change: itself, or those of its table's columns."""
    definition = statement.definition
    if definition is None or definition.object_type not in _SEQUENCE_OBJECTS or not statement.tag.startswith("ALTER"):
        return []
    names = {name for _, name in definition.names}
    tables = {t.relation_id for t in state.tables.values() if t.name in names} if state.sequences else set()
    return [s for s in state.sequences.values() if s.name in names or s.table_id in tables]


async def _difference(executor: Executor, before: Listing, after: Listing, search_path: str) -> Difference:
    """Read the objects that changed. Expressions are printed with every name qualified."""
    tables, sequences = after.tables_changed_since(before), after.sequences_changed_since(before)
    restore = "SET LOCAL search_path TO DEFAULT"
    if search_path:
        # A value, not SQL: what PostgreSQL takes for a list of names may hold anything.
        restore = f"SELECT pg_catalog.set_config('search_path', {quote_literal(search_path)}, true)"
    await _run(executor, "SET LOCAL search_path = pg_catalog")
    table_document = await _ask(executor, b"", tables_sql(tables)) if tables else "[]"
    sequence_document = await _ask(executor, b"", sequences_sql(sequences)) if sequences else "[]"
    await _run(executor, restore)
    return Difference(before, after, table_document, sequence_document)


async def _ask(executor: Executor, opening: bytes, sql: str) -> str:
    """The only value that a query of the machinery's own answers."""
    answer = await executor.collect(opening + p.query(sql))
    if answer.error is not None:
        raise EngineRefusal(answer.error, hide_context=True)
    for rows in answer.rows:
        if rows:
            return (p.data_row_fields(rows[0])[0] or b"").decode()
    raise SqlError("XX000", "the catalog could not be read")


async def _type_name(executor: Executor, opening: bytes, oid: int) -> str:
    return await _ask(executor, opening, f"SELECT pg_catalog.format_type({oid}, NULL)")


async def _run(executor: Executor, sql: str) -> None:
    answer = await executor.collect(p.query(sql))
    if answer.error is not None:
        raise EngineRefusal(answer.error, hide_context=True)


def _pending(state: CatalogState, change: CatalogChange) -> PendingDefinition:
    """The change with what has to be done about stored rows and index entries."""
    dropped = tuple(state.tables[i] for i in change.drops if i in state.tables)
    new_indexes: list[tuple[Table, Index]] = []
    dropped_indexes: list[tuple[Table, Index]] = []
    for table in change.upserts:
        known = state.tables.get(table.relation_id)
        if known is None:
            continue
        before = {i.relation_id: i for i in known.indexes}
        now = {i.relation_id for i in table.indexes}
        new_indexes += [(table, i) for i in table.indexes if i.relation_id not in before]
        dropped_indexes += [(table, i) for i in known.indexes if i.relation_id not in now]
    return PendingDefinition(change, dropped, tuple(dropped_indexes), tuple(new_indexes))


def with_invalid_indexes(change: CatalogChange, indexes: list[Index]) -> CatalogChange:
    """The change with these new indexes still to be built: planners don't use them, writers keep them."""
    ids = {i.relation_id for i in indexes}
    upserts = tuple(
        replace(table, indexes=tuple(replace(i, valid=False) if i.relation_id in ids else i for i in table.indexes))
        for table in change.upserts
    )
    return replace(change, upserts=upserts, engine_sql="; ".join(index_validity_sql(i, False) for i in indexes))


def index_validity_sql(index: Index, valid: bool, ready: bool | None = None) -> str:
    """What the engine's superuser runs to mark an index as valid or not, and as kept (``ready``) by the engine or not.

    An engine keeps no index that stored rows may violate: they could not be loaded.
    """
    name = index.qualified_name.replace("'", "''")
    return (
        f"UPDATE pg_catalog.pg_index SET indisvalid = {str(valid).lower()}, "
        f"indisready = {str(valid if ready is None else ready).lower()} "
        f"WHERE indexrelid = '{name}'::pg_catalog.regclass"
    )


async def commit_definition(executor: Executor, catalog: Catalog, pending: PendingDefinition) -> None:
    """Commit the change through adjudicators and journal, then in the engine.

    Raises SqlError (OC000, OC001); the engine is rolled back then.
    """
    workspace = executor.workspace
    assert workspace is not None
    change = pending.change
    if pending.changes_nothing:
        await executor.submit(
            CommitRequest(
                workspace.transaction_id,
                workspace.t_start,
                change.version - 1,
                tuple(pending.claims),
                tuple(pending.mutations),
                None,
            )
        )
        executor.rollback()
        return
    data = change.to_bytes()
    request = CommitRequest(
        workspace.transaction_id,
        workspace.t_start,
        change.version - 1,
        (Claim(change.log_key, LockMode.UPDATE), *pending.claims),
        (Mutation(change.log_key, data), *pending.mutations),
        data,
    )
    await executor.submit(request)
    processor = executor.processor
    if workspace.tables:
        # Rows were read in the same transaction and must not stay: the change is made anew, as in other databases.
        executor.rollback()
        if change.shared:
            await replay_changes(processor.socket_path, processor.database, [change], with_shared=True)
        catalog.append(change)
        return
    # From when the change is known to when it stands here, nobody may replay it here.
    async with processor.catalog_lock:
        if not change.shared:
            catalog.append(change)
        executor.workspace = None
        executor.engine_open = False
        answer = await executor.collect(p.query("COMMIT"))
        if change.shared:
            # Whoever replays later changes finds the role there.
            catalog.append(change)
        if answer.error is not None:
            return  # the engine is gone, and the processor with it; the change is durable all the same
        processor.advance(change.version)
        if change.engine_sql:
            await processor.run_as_engine(change.engine_sql)
