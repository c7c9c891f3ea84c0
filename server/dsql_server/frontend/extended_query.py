"""The extended query protocol: Parse, Bind, Describe, Execute, Close up to a Sync or Flush."""

from __future__ import annotations

from collections.abc import Callable

from dsql_server.frontend.planning import LOCK_MODES
from dsql_server.frontend.simple_query import SimpleQuery
from dsql_server.frontend.statements import PLANNED_KINDS, Portal, Prepared, read_bind, read_name, read_parse
from dsql_server.frontend.transactions import BLOCK, IDLE, Services
from dsql_server.interfaces import protocol as p
from dsql_server.processor.access import Bound
from dsql_server.processor.errors import SqlError
from dsql_server.processor.plan import LoadPlan
from dsql_server.statements import StatementKind

_READY_IDLE = p.ready_for_query(IDLE)
_NO_PLAN = LoadPlan(-1)
_STATEMENT = ord("S")


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


class ExtendedQuery(SimpleQuery):
    """Keeps prepared statements and portals, and gathers what the engine gets at each Execute."""

    def __init__(
        self,
        services: Services,
        role: str,
        settings: dict[str, str],
        write: Callable[[bytes], None],
        end: Callable[[BaseException | None], None],
    ) -> None:
        super().__init__(services, role, settings, write, end)
        self._prepared: dict[bytes, Prepared] = {}
        self._portals: dict[bytes, Portal] = {}
        self._skipping = False

    def _forget_statements(self) -> None:
        names = [name for name, prepared in self._prepared.items() if not prepared.virtual]
        self._prepared.clear()
        if names and self.executor is not None:
            self.executor.connection.discard(b"".join(p.close_statement(name) for name in names) + p.SYNC)

    def _forget_portals(self) -> None:
        self._portals.clear()

    async def _sync(self) -> None:
        self._skipping = False
        if self._block == IDLE:
            await self._finish_implicit()
            self._out.append(_READY_IDLE)
            self._flush()
            if self.executor is not None and self.executor.workspace is not None:
                self.executor.rollback()
            self._forget_portals()
        else:
            self._out.append(p.ready_for_query(self._block))
            self._flush()

    async def _extended(self, batch: list[tuple[int, bytes]], synced: bool) -> None:
        """Handle messages up to a Sync (``synced``) or Flush; what the engine gets is sent at each Execute."""
        if self._skipping:
            return
        pending = _Pending()
        self._alone = sum(kind == p.EXECUTE for kind, _ in batch) == 1
        # A statement on its own, with nothing behind it but Sync, is a transaction in one round trip.
        final = synced and self._alone and self._block == IDLE and batch[-1][0] == p.EXECUTE
        try:
            for kind, raw in batch:
                if kind == p.BIND:
                    await self._bind(raw, pending, final)
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

    async def _bind(self, raw: bytes, pending: _Pending, final: bool) -> None:
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
        await self._prepare_portal(portal, pending, final)
        pending.parts.append(raw)
        pending.only_parses = False
        pending.bound = True

    async def _prepare_portal(self, portal: Portal, pending: _Pending, final: bool) -> None:
        """Put what the portal needs in front of its Bind: a transaction, its rows."""
        statement = portal.prepared.statement
        assert statement is not None
        plan = await self._plan_for(portal.prepared)
        if final and plan.plain_read and statement.is_read_only:
            executor = await self._current_executor()
            if executor.workspace is None:
                injected, skip = executor.load_for_read(plan, portal.bound)
                if skip:
                    await self._inject(pending, injected, skip)
                return
        executor = await self._ready_executor()
        if self._block == BLOCK:
            executor.check_current()
        self._check_allowed(statement, plan)
        locks = statement.locking is not None
        writes = bool(plan.written) or locks
        injected = []
        skip = 0
        if writes or plan.loads or self._block == BLOCK or statement.kind == StatementKind.SET:
            skip = executor.opening(injected)
        skip += executor.loading(plan, portal.bound, injected, keep_apart=writes or self._block == BLOCK)
        if writes:
            executor.note_statement(plan, LOCK_MODES[statement.locking])
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

    async def _describe(self, raw: bytes, pending: _Pending) -> None:
        what, name = read_name(raw)
        if what == _STATEMENT:
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
        if what == _STATEMENT:
            count = prepared.statement.parameters if prepared.statement is not None else 0
            self._out.append(p.message(b"t", p.pack_i16(count) + p.pack_i32(p.TEXT_OID) * count))
        self._out.append(self._virtual_description(prepared.statement))

    async def _close(self, raw: bytes, pending: _Pending) -> None:
        what, name = read_name(raw)
        if what == _STATEMENT:
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
        if final and statement.kind in PLANNED_KINDS:
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
