"""The extended query protocol: Parse, Bind, Describe, Execute, Close up to a Sync or Flush."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from dsql_server.frontend.simple_query import SimpleQuery
from dsql_server.frontend.statements import (
    PLANNED_KINDS,
    Portal,
    Prepared,
    execute_again,
    for_engine,
    read_bind,
    read_execute,
    read_name,
    read_parse,
    wants_binary,
)
from dsql_server.frontend.transactions import BLOCK, FAILED, IDLE, Client, Services
from dsql_server.interfaces import protocol as p
from dsql_server.processor.access import Bound
from dsql_server.processor.engine_connection import OWN_STATEMENT_PREFIX, Answer
from dsql_server.processor.errors import SqlError, aborted_block
from dsql_server.processor.plan import LoadPlan

_READY_IDLE = p.ready_for_query(IDLE)
_NO_PLAN = LoadPlan(-1)
_STATEMENT = ord("S")


class _Sent(NamedTuple):
    """What went to the engine; see :class:`_Pending`."""

    batch: bytes
    skip: int
    lead: int
    names: list[bytes]


class _Pending:
    """Messages gathered for the engine: ``skip`` completions of them are injected ones.

    ``names`` are those of the statements that are parsed among them, in order. ``lead`` of the Parse messages stand
    in front of what is injected: their answers are dropped with the injected ones'.
    """

    __slots__ = ("bound", "lead", "names", "parts", "skip")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.skip = 0
        self.lead = 0
        self.names: list[bytes] = []
        self.bound = False

    def take(self) -> _Sent:
        """The batch; empties this."""
        sent = _Sent(b"".join(self.parts), self.skip, self.lead, self.names)
        self.__init__()  # type: ignore[misc]
        return sent


class ExtendedQuery(SimpleQuery):
    """Keeps prepared statements and portals, and gathers what the engine gets at each Execute."""

    def __init__(self, services: Services, client: Client) -> None:
        super().__init__(services, client)
        self._skipping = False
        self._synced = False  #: the batch under way ends with a Sync

    def _forget_statements(self) -> None:
        names = [name for name, prepared in self._prepared.items() if not prepared.virtual]
        self._prepared.clear()
        if names and self.executor is not None:
            self.executor.connection.discard(b"".join(p.close_statement(name) for name in names) + p.SYNC)

    def _forget_portals(self) -> None:
        self._portals.clear()

    async def _sync(self) -> None:
        self._skipping = False
        if self._sync_in_copy:
            self._sync_in_copy = False
            return
        if self._engine_unsynced:
            self._engine_unsynced = False
            if self.executor is not None and not self.executor.engine_open:
                self.executor.connection.discard(p.SYNC)
        if self._block == IDLE:
            await self._finish_implicit()
            if self._settings_in_transaction:
                await self._tell_settings()
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
        try:
            if synced and await self._answered_directly(batch):
                return
            underway = self.executor is not None and self.executor.engine_open
            self._alone = not underway and sum(kind == p.EXECUTE for kind, _ in batch) == 1
            # A statement on its own, with nothing behind it but Sync, is a transaction in one round trip.
            final = synced and self._alone and self._block == IDLE and batch[-1][0] == p.EXECUTE
            self._synced = synced
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
        except SqlError as refused:
            error = refused
            if pending.parts:
                # What came before the refused message takes place all the same.
                try:
                    await self._send_without_execute(pending, keep_portals=True)
                except SqlError as earlier:
                    error = earlier
            self._skipping = True
            self._fail(error)

    async def _parse(self, raw: bytes, pending: _Pending) -> None:
        name, sql, oids = read_parse(raw)
        prepared = Prepared(sql, self._classify_one(sql), oids)
        if prepared.statement is not None:
            self._refuse_in_failed_block(prepared.statement)
        if name and name in self._prepared:
            raise SqlError("42P05", f'prepared statement "{_text(name)}" already exists')
        if name.startswith(OWN_STATEMENT_PREFIX):
            raise SqlError("42939", f'prepared statement name "{_text(name)}" is reserved')
        if prepared.virtual:
            await self._send_without_execute(pending)
            refusal = self._refusal(prepared.statement)
            if refusal is not None:
                raise refusal
            self._out.append(p.PARSE_COMPLETE_MESSAGE)
        else:
            pending.parts.append(for_engine(name, raw, prepared))
            pending.names.append(name)
        self._prepared[name] = prepared

    async def _bind(self, raw: bytes, pending: _Pending, final: bool) -> None:
        portal_name, name, values, formats, results = read_bind(raw)
        prepared = self._prepared.get(name)
        if prepared is None:
            raise _no_statement(name)
        self._refuse_in_failed_block(prepared.statement)
        if len(values) != prepared.parameter_count:
            raise SqlError(
                "08P01",
                f'bind message supplies {len(values)} parameters, but prepared statement "{_text(name)}" requires '
                f"{prepared.parameter_count}",
            )
        portal = Portal(prepared, Bound(values, formats, self.plan_settings.time_zone == "UTC"), results)
        if prepared.virtual:
            portal.binary = wants_binary(results)
            self._portals[portal_name] = portal
            await self._send_without_execute(pending)
            self._out.append(p.BIND_COMPLETE_MESSAGE)
            return
        plan = await self._plan_for(prepared)
        self._parse_again(name, prepared, pending)
        assert prepared.statement is not None
        portal.explain = self._explain_request(prepared.statement, plan, prepared.oids)
        if portal.explain is not None:
            plan = portal.explain.loading_plan
        if plan.aggregates is not None:
            portal.bind = await self._aggregates(plan, portal.bound, portal_name, results)
        await self._prepare_portal(portal, plan, pending, final)
        self._portals[portal_name] = portal
        pending.parts.append(portal.bind or raw)
        pending.bound = True

    def _parse_again(self, name: bytes, prepared: Prepared, pending: _Pending) -> None:
        """Give the engine a client's unnamed statement of an earlier batch again.

        A Query message makes it drop that statement, and not all of these are the client's own.
        """
        executor = self.executor
        if name or prepared.virtual or name in pending.names or executor is None:
            return
        if executor.engine_open or not self._engine_unsynced:
            assert prepared.statement is not None, "virtual without one"
            executor.connection.discard(p.parse(b"", prepared.statement.engine_sql.encode(), prepared.oids) + p.SYNC)

    async def _prepare_portal(self, portal: Portal, plan: LoadPlan, pending: _Pending, final: bool) -> None:
        """Put what the portal needs in front of its Bind: a transaction, its rows."""
        statement = portal.prepared.statement
        assert statement is not None
        if portal.bind is not None:
            assert self.executor is not None
            injected: list[bytes] = []
            skip = self.executor.opening(injected)
            if skip:
                await self._inject(pending, injected, skip)
            return
        if final and plan.plain_read and statement.is_read_only and not portal.prepared.sets and not portal.explain:
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
        writes = bool(plan.written or plan.locked) or statement.is_dml or statement.locking is not None
        injected = []
        skip = 0
        if plan.sequences is not None:
            await executor.sequences.prepare(plan.sequences)
            skip = executor.opening(injected) + executor.sequencing(injected)
        if writes or plan.loads or self._block == BLOCK or (portal.prepared.sets and not self._alone):
            skip += executor.opening(injected)
        if portal.explain is not None:
            skip += executor.opening(injected) + executor.forgetting_sizes(injected)
        ends = self._alone and self._synced and self._block == IDLE  # the transaction, with this statement
        skip += executor.loading(plan, portal.bound, injected, keep_apart=writes or not ends)
        if writes:
            executor.note_statement(plan)
        if skip:
            await self._inject(pending, injected, skip)

    async def _inject(self, pending: _Pending, injected: list[bytes], skip: int) -> None:
        """Put the machinery's own messages behind what is pending."""
        if pending.parts:
            if len(pending.names) == len(pending.parts):
                # Their answers are dropped with the injected ones, so they are given from here.
                pending.lead = len(pending.names)
            else:
                await self._send_without_execute(pending, keep_portals=True)
        pending.parts += injected
        pending.skip += skip

    async def _describe(self, raw: bytes, pending: _Pending) -> None:
        what, name = read_name(raw)
        if what == _STATEMENT:
            prepared = self._prepared.get(name)
            if prepared is None:
                raise _no_statement(name)
        else:
            portal = self._portals.get(name)
            if portal is None:
                raise _no_portal(name)
            prepared = portal.prepared
        if self._block == FAILED and prepared.statement is not None and prepared.statement.returns_rows:
            raise aborted_block()
        if not prepared.virtual:
            if what == _STATEMENT:
                self._parse_again(name, prepared, pending)
            pending.parts.append(raw)
            return
        await self._send_without_execute(pending)
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
        if prepared is None or prepared.virtual:
            await self._send_without_execute(pending)
            self._out.append(p.CLOSE_COMPLETE_MESSAGE)
        else:
            pending.parts.append(raw)

    async def _send_without_execute(self, pending: _Pending, keep_portals: bool = False) -> None:
        """Send messages that execute nothing, and wait for all of their answers."""
        if not pending.parts:
            return
        executor = self.executor
        if executor is None:
            executor = await self._ready_executor()
        elif executor.workspace is None and not executor.engine_open:
            executor = await self._current_executor()  # statements are parsed by the catalog as it is now
        opening: list[bytes] = []
        skip = 0
        if keep_portals and pending.bound:
            # Without a transaction the Sync behind this batch would drop the portals bound in it.
            skip = executor.opening(opening)
        if skip:
            await executor.relay(b"".join(opening) + p.SYNC, skip=skip, ready=True)
        sent = pending.take()
        answer = await executor.relay(sent.batch + p.SYNC, skip=sent.skip, ready=True)
        self._answer_parses(sent, answer)
        self._take(answer)

    def _answer_parses(self, sent: _Sent, answer: Answer) -> None:
        """Answer the Parse messages whose answers were dropped, and forget the statements that the engine refused."""
        led = min(answer.parses, sent.lead)
        if led:
            self._out.append(p.PARSE_COMPLETE_MESSAGE * led)
        if answer.error is None:
            return
        if led < sent.lead:
            answer.injected_error = False  # the client's own Parse was refused
        if not answer.streamed:
            for name in sent.names[led + _parses_in(answer.out) :]:
                self._prepared.pop(name, None)

    async def _execute(self, raw: bytes, pending: _Pending, final: bool) -> None:
        self._flush_if_much()
        name = read_execute(raw)
        portal = self._portals.get(name)
        if portal is None:
            raise _no_portal(name)
        prepared = portal.prepared
        if prepared.statement is not None:
            self._refuse_in_failed_block(prepared.statement)
        if prepared.virtual:
            await self._send_without_execute(pending, keep_portals=True)
            await self._run_virtual(prepared.statement, described=True, bound=portal.bound, binary=portal.binary)
            return
        executor, statement, plan = self.executor, prepared.statement, prepared.plan or _NO_PLAN
        if portal.explain is not None:
            plan = portal.explain.loading_plan
        assert executor is not None and statement is not None
        pending.parts.append(raw)
        if final and statement.kind in PLANNED_KINDS and not prepared.sets and plan.sequences is None:
            locks = bool(plan.locked) or statement.locking is not None
            if not plan.written and not statement.is_dml and not locks:
                sent = pending.take()
                answer = await executor.execute_read(sent.batch, sent.skip)
                self._answer_parses(sent, answer)
                self._take(answer)
                self._learn(portal, plan, answer)
                return
            if plan.written and not locks and executor.writes_in_one(plan, portal.bound):
                await self._execute_write(portal, plan, pending)
                return
        # The engine reports settings at a Sync only.
        pending.parts.append(p.SYNC if prepared.sets else p.FLUSH)
        sent = pending.take()
        answer = await executor.relay(
            sent.batch,
            skip=sent.skip,
            ready=prepared.sets,
            meanwhile=partial(executor.new_keys.look_ahead, plan, portal.bound) if plan.insert is not None else None,
        )
        self._answer_parses(sent, answer)
        if answer.copy_in:
            self._sync_in_copy = self._synced
            answer = await self._copy_in(answer, ready=False)
        self._engine_unsynced = not prepared.sets and answer.error is None
        if portal.explain is not None:
            await self._show_explained(portal.explain, portal.bound, answer)
        self._take(answer)
        self._learn(portal, plan, answer)
        again = execute_again(portal) if prepared.sets else b""
        await self._after(statement, plan, portal.bound, answer, again)

    async def _execute_write(self, portal: Portal, plan: LoadPlan, pending: _Pending) -> None:
        """A write on its own: run and committed at once; its completion is sent only if the commit succeeds."""
        assert self.executor is not None
        sent = pending.take()
        answer = await self.executor.execute_write(sent.batch, sent.skip)
        self._wrote = False
        self._answer_parses(sent, answer)
        self._take(answer)
        self._learn(portal, plan, answer)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _no_statement(name: bytes) -> SqlError:
    what = f'prepared statement "{_text(name)}"' if name else "unnamed prepared statement"
    return SqlError("26000", f"{what} does not exist")


def _no_portal(name: bytes) -> SqlError:
    return SqlError("34000", f'portal "{_text(name)}" does not exist')


def _parses_in(answers: Iterable[bytes]) -> int:
    """How many ParseComplete messages there are."""
    data = b"".join(answers)
    at = count = 0
    while at + 5 <= len(data):
        count += data[at] == p.PARSE_COMPLETE
        at += 1 + p.unpack_i32(data, at + 1)[0]
    return count
