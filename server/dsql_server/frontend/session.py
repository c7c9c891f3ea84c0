"""One client's session: protocol messages in, statements to the query processor, answers out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dsql_server.catalog.bootstrap import ANSWERED_PARAMETERS
from dsql_server.catalog.changes import Catalog
from dsql_server.frontend.driver import Driver
from dsql_server.frontend.statements import (
    PLANNED_KINDS,
    Portal,
    Prepared,
    is_virtual,
    read_bind,
    read_name,
    read_parse,
)
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import CommitPath
from dsql_server.interfaces.messages import LockMode
from dsql_server.jobs.manager import JobManager
from dsql_server.processor.access import Bound
from dsql_server.processor.ddl import (
    PendingDefinition,
    commit_definition,
    new_indexes,
    run_definition,
    with_invalid_indexes,
)
from dsql_server.processor.engine_connection import Answer, EngineError
from dsql_server.processor.errors import EngineRefusal, SqlError, aborted_block, server_unavailable
from dsql_server.processor.executor import WAIT, Executor
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.planner import Planner, PlanSettings
from dsql_server.processor.pool import ProcessorPool
from dsql_server.statements import LockStrength, SqlSyntaxError, Statement, StatementKind, classify

_LOCK_MODES = {LockStrength.KEY_SHARE: LockMode.KEY_SHARE, LockStrength.UPDATE: LockMode.UPDATE}
_IDLE, _BLOCK, _FAILED = b"I", b"T", b"E"
_EXTENDED = frozenset({p.PARSE, p.BIND, p.DESCRIBE, p.EXECUTE, p.CLOSE})
_READY_IDLE = p.ready_for_query(_IDLE)
_NO_PLAN = LoadPlan(-1)
#: How often a DDL statement on its own is run before a catalog that keeps changing is reported.
DEFINITION_ATTEMPTS_MAX = 8


class _Pending:
    """Messages gathered for the engine: ``skip`` completions of them are injected ones.

    ``lead`` are answers to the client's own messages in front of those: they are dropped with the injected answers.
    """

    __slots__ = ("bound", "lead", "only_parses", "parts", "skip")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.skip = 0
        self.lead = b""
        self.only_parses = True
        self.bound = False

    def take(self) -> tuple[bytes, int, bytes]:
        """The batch, how much of its answer to drop, and what stands for it; empties this."""
        batch, skip, lead = b"".join(self.parts), self.skip, self.lead
        self.__init__()  # type: ignore[misc]
        return batch, skip, lead


class Services(NamedTuple):
    """What a session needs of the server."""

    pool: ProcessorPool
    planner: Planner
    catalog: Catalog
    commit_path: CommitPath
    jobs: JobManager


class Session:
    """See the module. ``write`` sends bytes to the client, ``end`` closes the connection."""

    def __init__(
        self,
        services: Services,
        role: str,
        settings: dict[str, str],
        write: Callable[[bytes], None],
        end: Callable[[BaseException | None], None],
    ) -> None:
        self.services = services
        self.role = role
        self._settings = settings
        self._write = write
        self._messages: deque[tuple[int, bytes]] = deque()
        self._tail = b""
        self._waiting = False
        self._driver = Driver(end)
        self.closed = False
        self.executor: Executor | None = None
        self._prepared: dict[bytes, Prepared] = {}
        self._portals: dict[bytes, Portal] = {}
        self._out: list[bytes] = []
        self._block = _IDLE
        self._read_only = False
        self._skipping = False
        self._definition: PendingDefinition | None = None
        self._wrote = False
        self._block_settings: list[str] = []
        self.plan_settings = PlanSettings()
        self._settings_stale = True
        self._alone = False  #: the request holds one statement only

    # -- bytes in ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._driver.start(self._run())

    def feed(self, data: bytes) -> None:
        """Take bytes from the client. A message over the limit ends the session."""
        if self._tail:
            data = self._tail + data
        at, size = 0, len(data)
        unpack = p.unpack_i32
        add = self._messages.append
        while size - at >= 5:
            length = unpack(data, at + 1)[0]
            if length < 4 or length > p.MESSAGE_SIZE_MAX_BYTES:
                self._write(p.error_response("08P01", "invalid message length", severity="FATAL"))
                self.hang_up()
                return
            end = at + 1 + length
            if end > size:
                break
            add((data[at], data[at:end]))
            at = end
        self._tail = data[at:] if at < size else b""
        if self._waiting and self._messages:
            self._waiting = False
            self._driver.resume(None)

    def hang_up(self) -> None:
        """The client is gone, or has to go."""
        self.closed = True
        if self._waiting:
            self._waiting = False
            self._driver.resume(None)

    async def _next(self) -> tuple[int, bytes] | None:
        """The next message; None when the client is gone."""
        while not self._messages:
            if self.closed:
                return None
            if self._out:
                self._flush()
            self._waiting = True
            await WAIT
        return self._messages.popleft()

    def _flush(self) -> None:
        if self._out:
            self._write(b"".join(self._out))
            self._out.clear()

    def _stream(self, data: bytes) -> None:
        self._flush()
        self._write(data)

    # -- the loop ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            batch: list[tuple[int, bytes]] = []
            while True:
                received = await self._next()
                if received is None or received[0] == p.TERMINATE:
                    return
                kind = received[0]
                if kind in _EXTENDED:
                    batch.append(received)
                elif kind == p.SYNC_TYPE:
                    await self._extended(batch, synced=True)
                    batch = []
                    await self._sync()
                elif kind == p.FLUSH_TYPE:
                    await self._extended(batch, synced=False)
                    batch = []
                    self._flush()
                elif kind == p.QUERY:
                    await self._simple(received[1])
                elif kind in (p.COPY_DATA, p.COPY_DONE, p.COPY_FAIL):
                    continue  # left over from a COPY that failed
                else:
                    self._out.append(
                        p.error_response("08P01", f"invalid frontend message type {kind}", severity="FATAL")
                    )
                    self._flush()
                    return
        finally:
            self._release()

    def _release(self) -> None:
        executor, self.executor = self.executor, None
        if executor is not None:
            executor.rollback()
            self.services.pool.give_back(executor.processor)

    # -- transactions --------------------------------------------------------------------------------------------

    async def _ready_executor(self) -> Executor:
        """The executor, its engine's catalog at the current version; a transaction begun if none was."""
        executor = self.executor
        if executor is None:
            try:
                processor = await self.services.pool.lease(self.role, self._settings)
            except (EngineError, OSError) as error:
                raise server_unavailable() from error
            executor = self.executor = Executor(
                processor, self.services.commit_path, self.services.catalog, self._driver.resume, self._stream
            )
        if executor.workspace is None:
            catalog = self.services.catalog
            if executor.processor.version < catalog.version:
                await executor.processor.replay(catalog.since(executor.processor.version))
            executor.begin()
        return executor

    async def _commit(self) -> None:
        """Commit the open transaction, if there is one. Raises SqlError; nothing is committed then."""
        executor, definition = self.executor, self._definition
        self._definition, self._wrote = None, False
        if executor is None or executor.workspace is None:
            return
        settings, self._block_settings = self._block_settings, []
        try:
            if definition is not None:
                executor.check_current()
                await commit_definition(executor, self.services.catalog, definition)
                self.services.jobs.start_builds(definition.builds)
            else:
                await executor.commit()
        except SqlError:
            executor.rollback()
            raise
        for sql in settings:
            executor.connection.discard(p.query(sql))

    def _rollback(self) -> None:
        self._definition, self._wrote = None, False
        if self._block_settings:
            self._block_settings = []
            self._settings_stale = True
        if self.executor is not None:
            self.executor.rollback()

    def _fail(self, error: SqlError) -> None:
        """Send an error and leave the transaction as PostgreSQL does."""
        self._out.append(error.response)
        if self._block == _IDLE:
            self._rollback()
        else:
            self._block = _FAILED
            if self.executor is not None and self.executor.engine_open:
                self.executor.rollback()

    async def _finish_implicit(self) -> None:
        """The end of an implicit transaction: commit, and let an error take the place of the last completion."""
        executor = self.executor
        if executor is None or executor.workspace is None:
            return
        if self._definition is None and not (executor.engine_open and executor.workspace.wrote):
            return  # a read: its rollback follows behind the answer
        try:
            await self._commit()
        except SqlError as error:
            self._drop_completion()
            self._out.append(error.response)

    def _drop_completion(self) -> None:
        """Take the last CommandComplete back: the statement didn't complete after all."""
        if self._out:
            joined = b"".join(self._out)
            at = joined.rfind(b"C\x00\x00\x00")
            if at >= 0 and at + 1 + p.unpack_i32(joined, at + 1)[0] == len(joined):
                joined = joined[:at]
            self._out = [joined] if joined else []

    async def _sync(self) -> None:
        self._skipping = False
        if self._block == _IDLE:
            await self._finish_implicit()
            self._out.append(_READY_IDLE)
            self._flush()
            if self.executor is not None and self.executor.workspace is not None:
                self.executor.rollback()
            self._portals.clear()
        else:
            self._out.append(p.ready_for_query(self._block))
            self._flush()

    # -- extended protocol ---------------------------------------------------------------------------------------

    async def _extended(self, batch: list[tuple[int, bytes]], synced: bool) -> None:
        """Handle messages up to a Sync (``synced``) or Flush; what the engine gets is sent at each Execute."""
        if self._skipping:
            return
        pending = _Pending()
        self._alone = sum(kind == p.EXECUTE for kind, _ in batch) == 1
        # A statement on its own, with nothing behind it but Sync, is a transaction in one round trip.
        final = synced and self._alone and self._block == _IDLE and batch[-1][0] == p.EXECUTE
        try:
            for kind, raw in batch:
                if kind == p.BIND:
                    await self._bind(raw, pending)
                elif kind == p.EXECUTE:
                    await self._execute(raw, pending, final)
                elif kind == p.PARSE:
                    await self._parse(raw, pending)
                elif kind == p.DESCRIBE:
                    await self._describe(raw, pending)
                else:
                    await self._close(raw, pending)
            if pending.parts:
                await self._send_without_execute(pending, keep_portals=not synced)
        except SqlError as error:
            self._skipping = True
            self._fail(error)

    async def _parse(self, raw: bytes, pending: _Pending) -> None:
        name, sql, oids = read_parse(raw)
        prepared = Prepared(sql, self._classify_one(sql), oids)
        self._refuse_in_failed_block(prepared.statement)
        self._prepared[name] = prepared
        if prepared.virtual:
            await self._send_without_execute(pending)
            refusal = self._refusal(prepared.statement)
            if refusal is not None:
                raise refusal
            self._out.append(p.PARSE_COMPLETE_MESSAGE)
        else:
            pending.parts.append(raw)

    def _classify_one(self, sql: str) -> Statement | None:
        statements = self._classify(sql)
        if len(statements) > 1:
            raise SqlError("42601", "cannot insert multiple commands into a prepared statement")
        return statements[0] if statements else None

    def _classify(self, sql: str) -> list[Statement]:
        try:
            return classify(sql)
        except SqlSyntaxError as error:
            raise SqlError(
                error.sqlstate, error.message, position=error.position, detail=error.detail, hint=error.hint
            ) from None

    def _refuse_in_failed_block(self, statement: Statement | None) -> None:
        if self._block == _FAILED and (
            statement is None or statement.kind not in (StatementKind.COMMIT, StatementKind.ROLLBACK)
        ):
            raise aborted_block()

    def _refusal(self, statement: Statement | None) -> SqlError | None:
        for refusal in statement.refusals if statement is not None else ():
            if refusal.lifted_by is not None and self._settings.get(refusal.lifted_by) == "off":
                continue
            return SqlError(
                refusal.sqlstate, refusal.message, detail=refusal.detail, hint=refusal.hint, position=refusal.position
            )
        return None

    async def _bind(self, raw: bytes, pending: _Pending) -> None:
        portal_name, name, values, formats = read_bind(raw)
        prepared = self._prepared.get(name)
        if prepared is None:
            await self._send_without_execute(pending)
            what = f'prepared statement "{name.decode()}"' if name else "unnamed prepared statement"
            raise SqlError("26000", f"{what} does not exist")
        self._refuse_in_failed_block(prepared.statement)
        self._portals[portal_name] = portal = Portal(
            prepared, Bound(values, formats, self.plan_settings.time_zone == "UTC")
        )
        if prepared.virtual:
            await self._send_without_execute(pending)
            self._out.append(p.BIND_COMPLETE_MESSAGE)
            return
        await self._prepare_portal(portal, pending)
        pending.parts.append(raw)
        pending.only_parses = False
        pending.bound = True

    async def _prepare_portal(self, portal: Portal, pending: _Pending) -> None:
        """Put what the portal needs in front of its Bind: a transaction, its rows."""
        statement = portal.prepared.statement
        assert statement is not None
        plan = await self._plan_for(portal.prepared)
        executor = await self._ready_executor()
        if self._block == _BLOCK:
            executor.check_current()
        self._check_allowed(statement, plan)
        locks = statement.locking is not None
        writes = bool(plan.written) or locks
        injected: list[bytes] = []
        skip = 0
        if writes or plan.loads or self._block == _BLOCK or statement.kind == StatementKind.SET:
            skip = executor.opening(injected)
        skip += executor.loading(plan, portal.bound, injected, keep_apart=writes or self._block == _BLOCK)
        if writes:
            executor.note_statement(plan, _LOCK_MODES[statement.locking] if statement.locking is not None else None)
        if skip:
            await self._inject(pending, injected, skip)

    async def _inject(self, pending: _Pending, injected: list[bytes], skip: int) -> None:
        """Put the machinery's own messages behind what is pending."""
        if pending.parts:
            if pending.only_parses and not pending.skip:
                # Their answers are dropped with the injected ones, so they are given from here.
                pending.lead = p.PARSE_COMPLETE_MESSAGE * len(pending.parts)
            else:
                await self._send_without_execute(pending, keep_portals=True)
        pending.parts += injected
        pending.skip += skip

    async def _plan_for(self, prepared: Prepared) -> LoadPlan:
        """The statement's load plan, of the current catalog version and settings."""
        statement = prepared.statement
        assert statement is not None
        if self._settings_stale:
            await self._refresh_settings()
        plan = prepared.plan
        if (
            plan is not None
            and plan.version == self.services.catalog.version
            and (prepared.plan_settings is self.plan_settings)
        ):
            return plan
        found = await self._make_plan(statement, prepared.oids)
        prepared.plan, prepared.plan_settings = found, self.plan_settings
        return found

    async def _make_plan(self, statement: Statement, oids: tuple[int, ...]) -> LoadPlan:
        state = self.services.catalog.state
        planner = self.services.planner
        if statement.kind in PLANNED_KINDS:
            if not planner.may_read_tables(statement):
                return LoadPlan(state.version)
            found = await planner.plan(statement.engine_sql, oids, self.plan_settings)
            return found if found is not None else LoadPlan(state.version)
        if (
            statement.kind == StatementKind.EXPLAIN
            and statement.explained is not None
            and "analyze" in statement.options
        ):
            return await self._make_plan(statement.explained, oids)
        if statement.kind == StatementKind.COPY:
            named = {name for _, name in statement.relations}
            tables = [t for t in state.tables.values() if t.name in named]
            targets = {name for _, name in statement.targets}
            written = [t for t in tables if t.name in targets]
            readable = list(state.tables.values()) if not tables and not written else tables
            return LoadPlan(
                state.version, whole=[t for t in readable if t not in written], written=written, inserts=bool(written)
            )
        return LoadPlan(state.version)

    async def _refresh_settings(self) -> None:
        """Ask the engine for the settings that statements' meaning depends on."""
        if self.executor is None:
            await self._ready_executor()
        assert self.executor is not None
        answer = await self.executor.collect(
            p.query(
                "SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_setting('TimeZone'), "
                "pg_catalog.current_setting('DateStyle')"
            )
        )
        self._settings_stale = False
        if answer.error is None and answer.rows[0]:
            values = [(v or b"").decode() for v in p.data_row_fields(answer.rows[0][0])]
            settings = PlanSettings(*values)
            if settings != self.plan_settings:
                self.plan_settings = settings

    def _check_allowed(self, statement: Statement, plan: LoadPlan) -> None:
        if plan.written or statement.is_dml:
            if self._read_only:
                raise SqlError("25006", f"cannot execute {statement.tag.split()[0]} in a read-only transaction")
            if self._definition is not None:
                raise SqlError("0A000", "ddl and dml are not supported in the same transaction")
            self._wrote = True

    async def _describe(self, raw: bytes, pending: _Pending) -> None:
        what, name = read_name(raw)
        if what == 83:  # S
            prepared = self._prepared.get(name)
            virtual = prepared is not None and prepared.virtual
        else:
            portal = self._portals.get(name)
            prepared = portal.prepared if portal is not None else None
            virtual = prepared is not None and prepared.virtual
        if not virtual:
            pending.parts.append(raw)
            pending.only_parses = False
            return
        await self._send_without_execute(pending)
        assert prepared is not None
        if what == 83:
            count = prepared.statement.parameters if prepared.statement is not None else 0
            self._out.append(p.message(b"t", p.pack_i16(count) + p.pack_i32(p.TEXT_OID) * count))
        self._out.append(self._virtual_description(prepared.statement))

    def _virtual_description(self, statement: Statement | None) -> bytes:
        if statement is None:
            return p.NO_DATA_MESSAGE
        if statement.kind == StatementKind.SHOW and statement.parameter is not None:
            return p.row_description([(statement.parameter.name, p.TEXT_OID, -1)])
        if statement.kind == StatementKind.CALL:
            return p.row_description([("wait_for_job", p.BOOL_OID, 1)])
        definition = statement.definition
        if definition is not None and (
            (definition.index is not None and definition.index.is_async) or definition.validates is not None
        ):
            return p.row_description([("job_id", p.TEXT_OID, -1)])
        return p.NO_DATA_MESSAGE

    async def _close(self, raw: bytes, pending: _Pending) -> None:
        what, name = read_name(raw)
        if what == 83:
            prepared = self._prepared.pop(name, None)
        else:
            portal = self._portals.pop(name, None)
            prepared = portal.prepared if portal is not None else None
        if prepared is not None and prepared.virtual:
            await self._send_without_execute(pending)
            self._out.append(p.CLOSE_COMPLETE_MESSAGE)
        else:
            pending.parts.append(raw)
            pending.only_parses = False

    async def _send_without_execute(self, pending: _Pending, keep_portals: bool = False) -> None:
        """Send messages that execute nothing, and wait for all of their answers."""
        if not pending.parts:
            return
        if self.executor is None:
            await self._ready_executor()
        executor = self.executor
        assert executor is not None
        opening: list[bytes] = []
        skip = 0
        if keep_portals and pending.bound:
            # Without a transaction the Sync behind this batch would drop the portals bound in it.
            skip = executor.opening(opening)
        if skip:
            await executor.relay(b"".join(opening) + p.SYNC, skip=skip, ready=True)
        batch, skip, lead = pending.take()
        answer = await executor.relay(batch + p.SYNC, skip=skip, ready=True)
        if lead and answer.error is None:
            self._out.append(lead)
        self._take(answer)

    def _take(self, answer: Answer) -> None:
        """Pass the client's part on; raises SqlError if the engine refused something."""
        if answer.error is None:
            self._out += answer.out
            return
        if not answer.injected_error:
            joined = b"".join(answer.out)
            size = len(answer.error) + 5
            at = joined.rfind(p.message(b"E", answer.error))
            self._out.append(joined[:at] if at >= 0 else joined[:-size])
        raise EngineRefusal(answer.error, hide_context=answer.injected_error)

    async def _execute(self, raw: bytes, pending: _Pending, final: bool) -> None:
        try:
            name, _ = p.cstring(raw, 5)
        except ValueError:
            raise SqlError("08P01", "invalid message format") from None
        portal = self._portals.get(name)
        if portal is None:
            await self._send_without_execute(pending)
            raise SqlError("34000", f'portal "{name.decode()}" does not exist')
        prepared = portal.prepared
        if prepared.virtual:
            await self._send_without_execute(pending, keep_portals=True)
            await self._run_virtual(prepared.statement, described=True, bound=portal.bound)
            return
        executor, statement, plan = self.executor, prepared.statement, prepared.plan or _NO_PLAN
        assert executor is not None and statement is not None
        pending.parts.append(raw)
        if final and executor.workspace is not None and statement.kind in PLANNED_KINDS:
            if not plan.written and statement.locking is None:
                batch, skip, lead = pending.take()
                answer = await executor.execute_read(batch, skip)
                if lead and answer.error is None:
                    self._out.append(lead)
                self._take(answer)
                return
            if statement.locking is None and executor.writes_in_one(plan, portal.bound):
                await self._execute_write(pending)
                return
        pending.parts.append(p.FLUSH)
        batch, skip, lead = pending.take()
        answer = await executor.relay(batch, skip=skip)
        if lead and answer.error is None:
            self._out.append(lead)
        if answer.copy_in:
            answer = await self._copy_in(answer, ready=False)
        self._take(answer)
        await self._after(statement, plan, portal.bound, answer)

    async def _execute_write(self, pending: _Pending) -> None:
        """A write on its own: run and committed at once; its completion is sent only if the commit succeeds."""
        assert self.executor is not None
        batch, skip, lead = pending.take()
        answer = await self.executor.execute_write(batch, skip)
        self._wrote = False
        if lead and answer.error is None:
            self._out.append(lead)
        self._take(answer)

    async def _after(self, statement: Statement, plan: LoadPlan, bound: Bound, answer: Answer) -> None:
        """What a completed statement leaves to do."""
        if plan.written:
            assert self.executor is not None
            try:
                await self.executor.after_write(plan, bound, answer.tags[-1] if answer.tags else b"")
            except SqlError:
                self._drop_completion()
                raise
        elif statement.kind in (StatementKind.SET, StatementKind.RESET) or "set_config" in statement.functions:
            self._settings_stale = True
            if self._block == _BLOCK and not (statement.parameter is not None and statement.parameter.is_local):
                self._block_settings.append(statement.engine_sql)

    # -- simple protocol -----------------------------------------------------------------------------------------

    async def _simple(self, raw: bytes) -> None:
        try:
            await self._simple_statements(raw)
            if self._block == _IDLE:
                await self._finish_implicit()
        except SqlError as error:
            self._fail(error)
        self._out.append(p.ready_for_query(self._block))
        self._flush()
        if self._block == _IDLE and self.executor is not None and self.executor.workspace is not None:
            self.executor.rollback()

    async def _simple_statements(self, raw: bytes) -> None:
        try:
            sql = raw[5 : raw.index(b"\x00", 5)].decode()
        except UnicodeDecodeError as error:
            raise SqlError(
                "22021", f'invalid byte sequence for encoding "UTF8": 0x{error.object[error.start]:02x}'
            ) from None
        except ValueError:
            raise SqlError("08P01", "invalid message format") from None
        statements = self._classify(sql)
        if not statements:
            self._out.append(p.EMPTY_QUERY_MESSAGE)
        self._alone = len(statements) == 1
        for statement in statements:
            self._refuse_in_failed_block(statement)
            refusal = self._refusal(statement)
            if refusal is not None:
                raise refusal
            if is_virtual(statement):
                await self._run_virtual(statement, described=False)
            else:
                await self._simple_statement(statement)

    async def _simple_statement(self, statement: Statement) -> None:
        if self._settings_stale:
            await self._refresh_settings()
        plan = await self._make_plan(statement, ())
        executor = await self._ready_executor()
        if self._block == _BLOCK:
            executor.check_current()
        self._check_allowed(statement, plan)
        writes = bool(plan.written) or statement.locking is not None
        bound = Bound((), (), self.plan_settings.time_zone == "UTC")
        parts: list[bytes] = []
        skip = 0
        if writes or plan.loads or self._block == _BLOCK:
            skip = executor.opening(parts)
        skip += executor.loading(plan, bound, parts, keep_apart=writes or self._block == _BLOCK)
        if writes:
            executor.note_statement(plan, _LOCK_MODES[statement.locking] if statement.locking is not None else None)
        parts.append(p.query(statement.engine_sql))
        answer = await executor.relay(b"".join(parts), skip=skip, ready=True)
        if answer.injected_error:
            executor.connection.discard(p.SYNC)
        if answer.copy_in:
            answer = await self._copy_in(answer, ready=True)
        self._take(answer)
        await self._after(statement, plan, bound, answer)

    async def _copy_in(self, answer: Answer, ready: bool) -> Answer:
        """The client sends COPY data: pass it on until it is done."""
        assert self.executor is not None
        connection = self.executor.connection
        self._out += answer.out
        self._flush()
        finished = False
        parts: list[bytes] = []
        while not finished:
            received = await self._next()
            if received is None:
                parts = [p.message(b"f", b"connection to client lost\x00")]
                break
            kind, raw = received
            if kind in (p.COPY_DATA, p.COPY_DONE, p.COPY_FAIL):
                finished = kind != p.COPY_DATA
                if kind == p.COPY_DATA:
                    connection.write(raw)
                else:
                    parts = [raw]
            elif kind not in (p.FLUSH_TYPE, p.SYNC_TYPE):
                parts = [p.message(b"f", b"unexpected message during COPY\x00")]
                break
        batch = b"".join(parts) + (b"" if ready else p.FLUSH)
        return await self.executor.relay(batch, ready=ready)

    # -- statements that the front end steers --------------------------------------------------------------------

    async def _run_virtual(self, statement: Statement | None, described: bool, bound: Bound | None = None) -> None:
        if statement is None:
            self._out.append(p.EMPTY_QUERY_MESSAGE)
            return
        self._refuse_in_failed_block(statement)
        refusal = self._refusal(statement)
        if refusal is not None:
            raise refusal
        kind = statement.kind
        if kind == StatementKind.BEGIN:
            await self._begin_block(statement)
        elif kind == StatementKind.COMMIT:
            await self._commit_block()
        elif kind == StatementKind.ROLLBACK:
            if self._block == _IDLE:
                self._warn("25P01", "there is no transaction in progress")
            self._rollback()
            self._end_block("ROLLBACK")
        elif kind == StatementKind.DDL:
            await self._define(statement, described)
        elif kind == StatementKind.CALL:
            await self._call(statement, described, bound.values if bound is not None else ())
        elif kind == StatementKind.SHOW:
            self._show(statement, described)
        else:
            self._out.append(p.command_complete(statement.tag))

    def _warn(self, sqlstate: str, text: str) -> None:
        body = p.error_response(sqlstate, text, severity="WARNING")
        self._out.append(b"N" + body[1:])

    async def _begin_block(self, statement: Statement) -> None:
        if self._block == _IDLE:
            executor = await self._ready_executor()
            assert executor.workspace is not None
            self._block = _BLOCK
        else:
            self._warn("25001", "there is already a transaction in progress")
        modes = statement.transaction
        self._read_only = bool(modes is not None and modes.read_only)
        self._out.append(p.command_complete(statement.tag))

    async def _commit_block(self) -> None:
        if self._block == _FAILED:
            self._rollback()
            self._end_block("ROLLBACK")
            return
        if self._block == _IDLE:
            self._warn("25P01", "there is no transaction in progress")
        try:
            await self._commit()
        finally:
            self._block, self._read_only = _IDLE, False
        self._end_block("COMMIT")

    def _end_block(self, tag: str) -> None:
        self._block, self._read_only = _IDLE, False
        self._portals.clear()
        self._out.append(p.command_complete(tag))

    async def _define(self, statement: Statement, described: bool) -> None:
        executor = await self._ready_executor()
        if self._block == _BLOCK:
            executor.check_current()
        if self._definition is not None:
            raise SqlError("0A000", "multiple ddl statements not supported in a transaction")
        if self._wrote:
            raise SqlError("0A000", "ddl and dml are not supported in the same transaction")
        if self._read_only:
            raise SqlError("25006", f"cannot execute {statement.tag} in a read-only transaction")
        if self._settings_stale:
            await self._refresh_settings()
        answer, job_id = await self._run_definition(executor, statement)
        attempts = 1
        while self._alone and self._block == _IDLE:
            # Nothing of it has been answered, so a catalog that moved on meanwhile is met again, as if it came later.
            try:
                await self._commit()
                break
            except SqlError as error:
                attempts += 1
                if error.sqlstate != "40001" or attempts > DEFINITION_ATTEMPTS_MAX:
                    raise
            executor = await self._ready_executor()
            answer, job_id = await self._run_definition(executor, statement)
        if job_id is None:
            self._out += answer.out
            return
        if not described:
            self._out.append(self._virtual_description(statement))
        self._out.append(p.data_row([job_id]))
        self._out.append(p.command_complete(statement.tag))

    async def _run_definition(self, executor: Executor, statement: Statement) -> tuple[Answer, str | None]:
        answer, pending = await run_definition(
            executor, self.services.catalog, statement, self.plan_settings.search_path
        )
        self._definition = pending
        return answer, self._plan_builds(statement, pending)

    def _plan_builds(self, statement: Statement, pending: PendingDefinition) -> str | None:
        """Jobs for new indexes of tables that may hold rows; the id of the job, if the statement answers one."""
        definition = statement.definition
        if definition is None or definition.index is None or not definition.index.is_async:
            return None
        added = new_indexes(self.services.catalog, pending.change)
        job_id = self.services.jobs.new_job_id()
        if added:
            pending.change = with_invalid_indexes(pending.change, {i.relation_id for _, i in added})
            for table, index in added:
                pending.builds.append((job_id, table.relation_id, index.relation_id))
                pending.mutations.append(self.services.jobs.job_row(job_id, "submitted", index))
        return job_id

    async def _call(self, statement: Statement, described: bool, values: Sequence[bytes | None]) -> None:
        completed = await self.services.jobs.wait_for_call(statement, values)
        if not described:
            self._out.append(self._virtual_description(statement))
        self._out.append(p.data_row(["t" if completed else "f"]))
        self._out.append(p.command_complete("CALL"))

    def _show(self, statement: Statement, described: bool) -> None:
        assert statement.parameter is not None
        if not described:
            self._out.append(self._virtual_description(statement))
        self._out.append(p.data_row([ANSWERED_PARAMETERS[statement.parameter.name]]))
        self._out.append(p.command_complete(statement.tag))
