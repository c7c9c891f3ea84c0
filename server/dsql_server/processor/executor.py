"""A query processor at work: one transaction at a time on one leased engine database.

``begin`` → ``execute`` … → ``commit`` or ``rollback``. What is awaited here is resumed by the session's driver
(:class:`dsql_server.frontend.driver.Driver`), directly out of the callback that brings the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from dsql_server.catalog.changes import Catalog
from dsql_server.catalog.state import Table
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import CommitPath, StorageReader
from dsql_server.interfaces.limits import DSQL_LIMITS, Limits
from dsql_server.interfaces.messages import (
    Claim,
    CommitOutcome,
    CommitRequest,
    Committed,
    Conflict,
    ConflictKind,
    LockMode,
    Unknown,
)
from dsql_server.processor.access import NOT_EXACT, Bound
from dsql_server.processor.direct_insert import DirectInsert
from dsql_server.processor.engine_connection import Answer
from dsql_server.processor.engine_conversation import WAIT, EngineConversation
from dsql_server.processor.errors import (
    EngineRefusal,
    LimitExceeded,
    SqlError,
    data_conflict,
    outcome_unknown,
    schema_conflict,
    server_unavailable,
    system_entity,
)
from dsql_server.processor.loading import full_row, load_messages, narrowing_messages
from dsql_server.processor.new_keys import NewKeys
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.pushed_aggregates import Pushed
from dsql_server.processor.query_processor import QueryProcessor
from dsql_server.processor.sequences import SequenceBlocks
from dsql_server.processor.unbuilt_indexes import unique_violation
from dsql_server.processor.workspace import Untold, Workspace, writes_system_table
from dsql_server.processor.write_set import DuplicateInSnapshot, TableWork
from dsql_server.statements import BLOCK_READS_ONLY_NOTE

_QUERY_TAG = b"SELECT "
#: How long a session takes a cluster that wasn't full for not full.
SIZE_MEASURED_S = 1.0
#: Dead rows in a processor's tables after which they are vacuumed, between transactions.
VACUUM_AFTER_ROWS = 400
#: After so many the tables' files are cut short, too: COMMIT looks for the transaction's rows in all of their pages.
TRUNCATE_AFTER_ROWS = 5000


class Executor(EngineConversation):
    """See the module."""

    def __init__(
        self,
        processor: QueryProcessor,
        commit_path: CommitPath,
        catalog: Catalog,
        resume: Callable[[Any], None],
        sink: Callable[[bytes], None],
        limits: Limits = DSQL_LIMITS,
        cluster_size: Callable[[], int] = lambda: 0,
    ) -> None:
        """``cluster_size`` gives the bytes that storage holds."""
        super().__init__(processor, resume, sink)
        self.limits = limits
        self._cluster_size = cluster_size
        self._measured_at = 0.0
        #: The session's catalog was out of date when its transaction began, and it hasn't been told.
        self.stale = False
        self._path = commit_path
        self._storage = commit_path.storage
        self._catalog = catalog
        self.workspace: Workspace | None = None
        self.engine_open = False  #: BEGIN has been sent to the engine
        self.new_keys = NewKeys(self)
        self.sequences = SequenceBlocks(self, commit_path, catalog)
        self._begin = self._statement("BEGIN ISOLATION LEVEL REPEATABLE READ")
        self._rollback = self._statement("ROLLBACK")
        self._savepoint = self._statement("SAVEPOINT dsqlkit_load")
        self._release = self._statement("RELEASE dsqlkit_load")
        self._note_reads_only = self._statement(f"SET LOCAL {BLOCK_READS_ONLY_NOTE} TO on")
        self._note_writes = self._statement(f"SET LOCAL {BLOCK_READS_ONLY_NOTE} TO off")
        self._check_deferred = self._statement("SET CONSTRAINTS ALL IMMEDIATE")

    @property
    def storage(self) -> StorageReader:
        """What the transaction reads."""
        return self._storage

    # -- a transaction ---------------------------------------------------------------------------------------

    def begin(self) -> Workspace:
        """Take T_start. The engine's own BEGIN travels with the first statement."""
        self.workspace = Workspace(self._path.begin(id(self)), self._catalog.state, self.limits)
        return self.workspace

    def check_current(self) -> None:
        """Raises SqlError if the transaction is too old, or the catalog moved on under it."""
        workspace = self.workspace
        assert workspace is not None
        if workspace.catalog.version != self._catalog.version or self.stale:
            self.stale = False
            raise schema_conflict()
        self._check_age(workspace)

    def _check_age(self, workspace: Workspace) -> None:
        age = time.monotonic() - workspace.began_at
        limit = self.limits.transaction_age_s
        if age > limit:
            raise SqlError(
                "54000",
                f"transaction age limit of {limit}s exceeded",
                detail=f"Current transaction age {int(age)}s exceeds {limit}s",
            )

    def opening(self, parts: list[bytes]) -> int:
        """Add the engine's BEGIN and what it hasn't been told of, if that is due; returns the added completions."""
        if self.engine_open:
            return 0
        self.engine_open = True
        parts.append(self._begin)
        workspace = self.workspace
        added = 1
        if workspace is not None and workspace.reads_only is not None:
            parts.append(self._note_reads_only if workspace.reads_only else self._note_writes)
            added += 1
        if workspace is not None and workspace.untold:
            data, told = workspace.tell(self.connection)
            parts.append(data)
            added += told
        return added

    def loading(self, plan: LoadPlan, bound: Bound, parts: list[bytes], keep_apart: bool) -> int:
        """Add what loads the rows that ``plan`` needs; returns the completions that it adds.

        ``keep_apart``: in a subtransaction, so that loaded rows can be told from the transaction's own.
        """
        workspace = self.workspace
        assert workspace is not None
        if workspace.tables:
            bound.dirty = workspace.dirty_tables()
            if plan.foreign_keys is not None:
                bound.loaded = {k: w.loaded for k, w in workspace.tables.items()}
        plan.bind_literals(bound)
        groups = plan.rows(bound, self._storage, workspace.t_start)
        # The statement may make long values of what indexes include. What is prepared here is sent in this order.
        changed = (*plan.written, *plan.side_effects)
        narrowing = [narrowing_messages(self.connection, t, with_unique=False) for t in changed if t.is_freely_covered]
        data, count = workspace.load(self.connection, groups)
        if not count and not narrowing:
            return 0
        data, count = b"".join(narrowing) + data, count + len(narrowing)
        return self._guarded(data, count, parts, keep_apart)

    async def aggregate(self, pushed: Pushed, bound: Bound) -> list[bytes | None] | None:
        """What storage computes for a query's aggregates, in binary format; None: the engine has to do it."""
        workspace = self.workspace
        assert workspace is not None
        if workspace.tables:
            bound.dirty = workspace.dirty_tables()
        request = pushed.request(bound, workspace.t_start)
        if request is None:
            return None
        steps = pushed.steps(self._storage, request, bound)
        loop = asyncio.get_running_loop()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: list[bytes | None] | None = end.value
                return result
            # Others have their turn between two steps; the snapshot stays.
            loop.call_soon(self._resume, None)
            await WAIT

    def prepare_pushed(self, pushed: Pushed, parameter_oids: tuple[int, ...]) -> bytes:
        """The name under which the engine knows the query around pushed aggregates."""
        name, parse = self.connection.statement(pushed.sql, (*parameter_oids, *pushed.value_oids))
        if parse:
            # On its own, so that the client sees no answer to it. The planner's engine took the same text.
            self.connection.discard(parse + p.SYNC)
        return name

    def sequencing(self, parts: list[bytes]) -> int:
        """Add what gives the engine's sequences the leased values; returns the completions that it adds."""
        statements = self.sequences.install()
        return self._guarded(b"".join(statements), len(statements), parts, keep_apart=False) if statements else 0

    def forgetting_sizes(self, parts: list[bytes]) -> int:
        """Add what makes the engine plan for tables of unknown size; returns the completions that it adds."""
        name, parse = self.connection.statement("SELECT pg_catalog.engine_sizes()")
        return self._guarded(parse + p.bind_statement(name) + p.EXECUTE_UNNAMED, 1, parts, keep_apart=False)

    def _guarded(self, data: bytes, count: int, parts: list[bytes], keep_apart: bool) -> int:
        if self._role_on:
            data = self._role_on + data + self._role_off
            count += 2
        if keep_apart:
            data = self._savepoint + data + self._release
            count += 2
        parts.append(data)
        return count

    def insert_untold(self, insert: DirectInsert, bound: Bound) -> Untold | None:
        """Insert a row without the engine; None, and nothing done: the engine has to.

        Raises one of :data:`dsql_server.processor.access.NOT_EXACT` for the same reason.
        """
        workspace = self.workspace
        assert workspace is not None
        if self.engine_open or workspace.row_count >= self.limits.transaction_rows:
            return None
        table, row = insert.table, insert.row(bound)
        if len(row) > self.limits.small_row_bytes:
            return None
        work = workspace.work(table)
        keys = self.new_keys.free_keys(work, row)
        if keys is None:
            return None
        work.written = True
        workspace.row_count += 1
        inserted = Untold(table, row, keys, insert.sql, insert.parameter_oids, bound)
        workspace.untold.append(inserted)
        return inserted

    # -- after a statement that may write --------------------------------------------------------------------

    def note_statement(self, plan: LoadPlan) -> None:
        """Remember what the statement may write or lock, before its outcome is known and once its rows are loaded."""
        workspace = self.workspace
        assert workspace is not None
        for table in plan.written:
            work = workspace.work(table)
            work.written = True
            work.may_lose_rows = work.may_lose_rows or table.relation_id in plan.losing
        for table in plan.side_effects:
            work = workspace.work(table)
            work.written = work.may_lose_rows = True
        for table in plan.key_shared:
            workspace.work(table).note_lock(LockMode.UPDATE if plan.locks_unseen else LockMode.KEY_SHARE)
        for table, mode in plan.locked:
            workspace.work(table).note_lock(mode)

    async def after_write(self, plan: LoadPlan, bound: Bound, tag: bytes, sizes: bool = False) -> None:
        """Count the changed rows and look for keys that were taken before the transaction began.

        ``sizes``: look at the sizes of the written rows already, not only at COMMIT. Raises SqlError with what the
        statement would have answered had those rows been in the engine.
        """
        workspace = self.workspace
        assert workspace is not None
        try:
            workspace.count_rows(changed_rows(tag))
            if tag.startswith(_QUERY_TAG):
                await self._count_written()
            elif plan.side_effects:
                await self._count_side_effects(plan)
            await self.new_keys.check(plan, bound, sizes)
        except LimitExceeded as limit:
            raise SqlError(limit.sqlstate, limit.message, detail=limit.detail) from None
        except DuplicateInSnapshot as duplicate:
            raise await self._duplicate_error(duplicate) from None

    async def take_locks(self) -> list[Claim]:
        """Claims of the rows locked so far, which are then forgotten.

        For a transaction that commits a definition: what it defines may be the locked rows' own table. Raises SqlError.
        """
        workspace = self.workspace
        assert workspace is not None
        if not workspace.wrote or not self.engine_open:
            return []
        data, works = workspace.extraction(self.connection)
        answer = await self.collect_as_loader(data)
        if answer.error is not None:
            raise EngineRefusal(answer.error, hide_context=True)
        request = workspace.commit_request(works, answer.rows[bool(self._role_on) :], self._storage)
        for work in works:
            work.locked = False
        return list(request.claims)

    async def _count_side_effects(self, plan: LoadPlan) -> None:
        """Count the rows that foreign key actions changed, where they may be too many. Raises LimitExceeded."""
        workspace = self.workspace
        assert workspace is not None
        affected = sum(len(workspace.work(table).loaded) for table in plan.side_effects)
        if workspace.row_count + affected > self.limits.transaction_rows:
            await self._count_written()

    async def _count_written(self) -> None:
        """Count the changed rows in the engine. Raises LimitExceeded."""
        workspace = self.workspace
        assert workspace is not None
        data, works = workspace.extraction(self.connection)
        answer = await self.collect_as_loader(data)
        if answer.error is not None:
            raise EngineRefusal(answer.error, hide_context=True)
        workspace.count_exactly(works, answer.rows[bool(self._role_on) :], self._storage)

    async def _duplicate_error(self, duplicate: DuplicateInSnapshot) -> SqlError:
        """Load the row that holds the key: the engine then says exactly what it would have said."""
        parts: list[bytes] = []
        values = [full_row(duplicate.table, value) for _, value in duplicate.rows]
        data, count = load_messages(self.connection, duplicate.table, values)
        self._guarded(data, count, parts, keep_apart=False)
        answer = await self.collect(b"".join(parts) + p.SYNC)
        if answer.error is None:
            unbuilt = duplicate.table.unbuilt_unique_indexes
            return unique_violation(unbuilt[0][0]) if unbuilt else data_conflict()
        return EngineRefusal(answer.error, hide_context=True)

    def load_for_read(self, plan: LoadPlan, bound: Bound) -> tuple[list[bytes], int]:
        """Messages in front of a lone read, and their completions. It needs no workspace: it ends with its answer."""
        if not plan.scans:
            return [], 0
        plan.bind_literals(bound)
        storage, connection = self._storage, self.connection
        t = self._path.begin()
        self.engine_open = True
        parts = [self._begin]
        skip = 1
        role_on = self._role_on
        if role_on:
            parts.append(role_on)
            skip += 1
        many = len(plan.scans) > 1
        for scan in plan.scans:
            rows = scan.access.rows(bound, storage, t)
            if many:
                bound.found[scan.alias] = rows
            if rows:
                data, count = load_messages(connection, scan.table, [value for _, value in rows])
                parts.append(data)
                skip += count
                dead = self.processor.dead_rows
                name = scan.table.qualified_name
                dead[name] = dead.get(name, 0) + len(rows)
        if role_on:
            parts.append(self._role_off)
            skip += 1
        return parts, skip

    # -- one statement, one round trip ---------------------------------------------------------------------------

    async def execute_read(self, batch: bytes, skip: int) -> Answer:
        """Run a statement that writes nothing as a transaction of its own: the rollback travels along."""
        opened = self.engine_open
        self.engine_open = False
        tail = self._rollback + p.SYNC if opened else p.SYNC
        answer = await self.relay(batch + tail, skip=skip, ready=True, cut=True)
        if answer.error is not None and opened:
            self.connection.discard(self._rollback + p.SYNC)
        self._finish()
        return answer

    def writes_in_one(self, plan: LoadPlan, bound: Bound) -> bool:
        """Whether a write on its own can run, be extracted and rolled back in one batch.

        So it is where nothing need be asked of the engine between the statement and its COMMIT. Keys known beforehand
        are looked up here; if one is taken, the slow way finds the words for it.
        """
        if self._role_on or plan.side_effects or plan.key_shared or plan.may_defer_checks:
            return False
        if plan.insert is None or not plan.single_insert_only:
            return not plan.verify_keys
        if not plan.insert.complete:
            return False
        if plan.has_conflict_clause:
            return True
        try:
            self.new_keys.look_up(plan.insert, bound)
        except (DuplicateInSnapshot, *NOT_EXACT):
            return False
        return True

    async def execute_write(self, batch: bytes, skip: int) -> Answer:
        """Run a write as a transaction of its own and commit it.

        An error of the engine's is in the answer; raises SqlError where the commit fails.
        """
        workspace = self.workspace
        assert workspace is not None
        data, works = workspace.extraction(self.connection)
        self.engine_open = False
        answer = await self.relay(batch + data + self._rollback + p.SYNC, skip=skip, ready=True, cut=True)
        if answer.error is not None:
            self.connection.discard(self._rollback + p.SYNC)
            self._finish()
            return answer
        try:
            workspace.count_rows(changed_rows(answer.tags[0]))
        except LimitExceeded as limit:
            self._finish()
            raise SqlError(limit.sqlstate, limit.message, detail=limit.detail) from None
        await self._commit_extracted(works, answer.rows)
        return answer

    # -- the end ---------------------------------------------------------------------------------------------

    async def commit(self) -> None:
        """Commit what the workspace holds. The engine is rolled back in any case.

        Raises SqlError: OC000, OC001, a limit, a duplicate key; nothing is committed then.
        """
        workspace = self.workspace
        assert workspace is not None
        if not workspace.wrote or not (self.engine_open or workspace.untold):
            self.rollback()
            self._check_age(workspace)
            return
        self.check_current()
        if workspace.untold:
            self._finish()
            await self._submit_changes(workspace.untold_request)
            return
        data, works = workspace.extraction(self.connection)
        checks = self._check_deferred if workspace.catalog.may_defer_checks else b""
        role = self._role_on
        answer = await self.collect(checks + role + data + self._rollback + p.SYNC)
        self.engine_open = False
        if answer.error is not None:
            self.connection.discard(self._rollback + p.SYNC)
            raise EngineRefusal(answer.error, hide_context=True)
        await self._commit_extracted(works, answer.rows[bool(checks) + bool(role) :])

    async def _commit_extracted(self, works: list[TableWork], rows: list[list[bytes]]) -> None:
        workspace = self.workspace
        assert workspace is not None
        self._finish()
        systemic = any(work.table.is_system for work in works)
        await self._submit_changes(lambda: workspace.commit_request(works, rows, self._storage), systemic)

    async def _submit_changes(self, ask: Callable[[], CommitRequest], systemic: bool = False) -> None:
        """Submit the request that ``ask`` gives. ``systemic``: a table of the machinery might be changed by it."""
        try:
            request = ask()
        except LimitExceeded as limit:
            raise SqlError(limit.sqlstate, limit.message, detail=limit.detail) from None
        except DuplicateInSnapshot as duplicate:
            raise _duplicate_at_commit(duplicate) from None
        if systemic and writes_system_table(request):
            raise system_entity()
        if request.claims or request.mutations:
            self._check_cluster_size(request)
            await self.submit(request)

    def _check_cluster_size(self, request: CommitRequest) -> None:
        """Raises SqlError if the cluster is full and the request would add to it. Looks once in a while."""
        now = time.monotonic()
        if now - self._measured_at < SIZE_MEASURED_S:
            return
        if self._cluster_size() <= self.limits.cluster_size_bytes:
            self._measured_at = now
        elif any(value is not None for _, value in request.mutations):
            raise SqlError("53100", "Current cluster size exceeds cluster size limit.")

    async def submit(self, request: CommitRequest) -> Committed:
        """Send a request down the commit path and wait until it is decided. Raises SqlError unless committed."""
        outcomes: list[CommitOutcome] = []
        waiting = False

        def on_outcome(outcome: CommitOutcome) -> None:
            outcomes.append(outcome)
            if waiting:
                self._resume(None)

        self._path.commit(request, on_outcome)
        if not outcomes:
            waiting = True
            await WAIT
        outcome = outcomes[0]
        refusal = refusal_of(outcome)
        if refusal is not None:
            raise refusal
        assert isinstance(outcome, Committed)
        return outcome

    def submit_untold(self, on_outcome: Callable[[CommitOutcome], None], request: CommitRequest | None = None) -> bool:
        """Commit rows that the engine wasn't told of, without waiting; False, and nothing done: :meth:`commit` has to.

        ``on_outcome`` is called once, perhaps before this returns. ``request`` is what they come to, if that is known.
        """
        workspace = self.workspace
        assert workspace is not None
        try:
            if request is None:
                if self.stale or not workspace.untold or self.engine_open:
                    return False
                self.check_current()
                request = workspace.untold_request()
            if time.monotonic() - self._measured_at >= SIZE_MEASURED_S:
                self._check_cluster_size(request)
        except (SqlError, LimitExceeded):
            return False  # in the same words, once more
        self.workspace = None  # nothing was loaded into the engine that would have to be vacuumed
        self._path.commit(request, on_outcome)
        return True

    def end_reads(self) -> bool:
        """Commit a transaction that only read, and that the engine wasn't told of; False, and nothing done:
        :meth:`commit` has to."""
        workspace = self.workspace
        if workspace is None or self.engine_open or workspace.untold or workspace.wrote:
            return False
        try:
            self._check_age(workspace)
        except SqlError:
            return False  # in the same words, once more
        self._finish()
        return True

    async def lease(self, key: bytes, count: int) -> int:
        """Lease values of a counter; see :meth:`CommitPath.lease_sequence`."""
        leased: list[int] = []
        waiting = False

        def on_lease(first: int) -> None:
            leased.append(first)
            if waiting:
                self._resume(None)

        self._path.lease_sequence(key, count, on_lease)
        if not leased:
            waiting = True
            await WAIT
        return leased[0]

    def rollback(self) -> None:
        """Drop the workspace. The engine's rollback runs behind the client's answer."""
        if self.engine_open:
            self.engine_open = False
            self.connection.discard(self._rollback + p.SYNC)
        self._finish()

    def _finish(self) -> None:
        workspace, self.workspace = self.workspace, None
        dead = self.processor.dead_rows
        if workspace is not None:
            for work in workspace.tables.values() if not workspace.untold else ():
                name = work.table.qualified_name
                written = workspace.row_count if work.written else 0
                dead[name] = dead.get(name, 0) + len(work.loaded) + written + 1
        if dead and (rows := sum(dead.values())) > VACUUM_AFTER_ROWS:
            truncates = "on" if rows > TRUNCATE_AFTER_ROWS else "off"
            self.connection.discard(p.query(f"VACUUM (TRUNCATE {truncates}, SKIP_LOCKED) " + ", ".join(dead)))
            dead.clear()


def refusal_of(outcome: CommitOutcome) -> SqlError | None:
    """What a client is told of a commit that didn't succeed, or that nobody knows of."""
    if isinstance(outcome, Committed):
        return None
    if isinstance(outcome, Conflict):
        return schema_conflict() if outcome.kind == ConflictKind.SCHEMA else data_conflict()
    return outcome_unknown() if isinstance(outcome, Unknown) else server_unavailable()


def changed_rows(tag: bytes) -> int:
    """The row count at the end of a command tag. A query's says nothing of what its CTEs and functions wrote."""
    return int(tag.rpartition(b" ")[2]) if tag[-1:].isdigit() and not tag.startswith(_QUERY_TAG) else 0


def _duplicate_at_commit(duplicate: DuplicateInSnapshot) -> SqlError:
    table: Table = duplicate.table
    constraint = table.primary_key.name if table.primary_key is not None else table.name
    return SqlError("23505", f'duplicate key value violates unique constraint "{constraint}"')
