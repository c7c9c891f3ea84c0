"""The simple query protocol: one text, any number of statements, one implicit transaction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dsql_server.frontend.at_once import AtOnce
from dsql_server.frontend.statements import PLANNED_KINDS, changes_settings, is_virtual, read_query
from dsql_server.frontend.transactions import BLOCK, IDLE
from dsql_server.interfaces import protocol as p
from dsql_server.processor.access import Bound
from dsql_server.processor.engine_connection import Answer
from dsql_server.processor.engine_conversation import WAIT
from dsql_server.processor.errors import EngineRefusal, SqlError
from dsql_server.processor.executor import Executor
from dsql_server.statements import Statement

_TEXT_RESULTS = p.pack_i16(0)
_DESCRIBE_PORTAL = p.message(b"D", b"P\x00")


class SimpleQuery(AtOnce):
    """Runs Query messages, and the COPY data that may follow them."""

    async def _simple(self, raw: bytes) -> None:
        self._prepared.pop(b"", None)
        self._portals.pop(b"", None)
        try:
            await self._simple_statements(raw)
            if self._block == IDLE:
                await self._finish_implicit()
        except SqlError as error:
            self._fail(error)
        if self._settings_in_transaction and self._block == IDLE:
            await self._tell_settings()
        self._out.append(p.ready_for_query(self._block))
        self._flush()
        if self._block == IDLE and self.executor is not None and self.executor.workspace is not None:
            self.executor.rollback()

    async def _simple_statements(self, raw: bytes) -> None:
        sql = read_query(raw)
        statements = self._classify(sql)
        if not statements:
            self._out.append(p.EMPTY_QUERY_MESSAGE)
        self._alone = len(statements) == 1
        for statement in statements:
            self._flush_if_much()
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
        bound = Bound((), (), self.plan_settings.time_zone == "UTC")
        if self._alone and statement.kind in PLANNED_KINDS and await self._answered_again(plan, bound):
            return
        explain = self._explain_request(statement, plan, ())
        if explain is not None:
            plan = explain.loading_plan
        executor = await self._ready_executor()
        if self._block == BLOCK:
            await self._check(executor.check_current, executor, statement)
        await self._check(partial(self._check_allowed, statement, plan), executor, statement)
        writes = bool(plan.written or plan.locked) or statement.is_dml or statement.locking is not None
        parts: list[bytes] = []
        skip = 0
        if plan.aggregates is not None:
            bind = await self._aggregates(plan, bound, b"", _TEXT_RESULTS)
            if bind is not None:
                skip = executor.opening(parts)
                parts += (bind, _DESCRIBE_PORTAL, p.EXECUTE_UNNAMED, p.SYNC)
                answer = await executor.relay(b"".join(parts), skip=skip, ready=True)
                if answer.out and answer.out[0].startswith(p.BIND_COMPLETE_MESSAGE):
                    answer.out[0] = answer.out[0][len(p.BIND_COMPLETE_MESSAGE) :]
                self._take(answer, statement.offset)
                return
        sets = changes_settings(statement)
        if plan.sequences is not None:
            await executor.sequences.prepare(plan.sequences)
            skip = executor.opening(parts) + executor.sequencing(parts)
        if writes or plan.loads or self._block == BLOCK or (sets and not self._alone):
            skip += executor.opening(parts)
        if explain is not None:
            skip += executor.opening(parts) + executor.forgetting_sizes(parts)
        skip += executor.loading(plan, bound, parts, keep_apart=writes or not self._alone or self._block == BLOCK)
        if writes:
            executor.note_statement(plan)
        parts.append(p.query(statement.engine_sql))
        answer = await executor.relay(b"".join(parts), skip=skip, ready=True, query=True)
        if answer.copy_in:
            answer = await self._copy_in(answer, ready=True)
        if explain is not None:
            await self._show_explained(explain, bound, answer)
        self._take(answer, statement.offset)
        await self._after(statement, plan, bound, answer, p.query(statement.engine_sql) if sets else b"")
        if self._alone and statement.kind in PLANNED_KINDS and not sets:
            self._see(plan, answer)

    async def _check(self, check: Callable[[], None], executor: Executor, statement: Statement) -> None:
        """Raises what ``check`` does; but what the statement names and the transaction doesn't know comes first."""
        try:
            check()
        except SqlError:
            parts: list[bytes] = []
            executor.opening(parts)
            answer = await executor.collect(b"".join(parts) + p.parse(b"", statement.engine_sql.encode()) + p.SYNC)
            if answer.error is not None:
                raise EngineRefusal(answer.error, offset=statement.offset) from None
            raise

    def _refuse_function_call(self) -> None:
        """The fast-path interface exists for large objects, which there are none of."""
        self._fail(SqlError("0A000", "the function call message is not supported", hint="Call the function in SQL."))
        self._out.append(p.ready_for_query(self._block))
        self._flush()

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
                    if connection.wait_writable(self._driver.resume):
                        await WAIT
                else:
                    parts = [raw]
            elif kind not in (p.FLUSH_TYPE, p.SYNC_TYPE):
                parts = [p.message(b"f", b"unexpected message during COPY\x00")]
                break
        batch = b"".join(parts) + (b"" if ready else p.FLUSH)
        return await self.executor.relay(batch, ready=ready)
