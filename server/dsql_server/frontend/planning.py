"""From a statement's text to what it needs: classification, refusals, load plan."""

from __future__ import annotations

import contextlib

from dsql_server.frontend.shown import Shown
from dsql_server.frontend.statements import PLANNED_KINDS, Prepared, changes_settings, writing_command
from dsql_server.frontend.transactions import BLOCK, FAILED, Transactions
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.messages import LockMode
from dsql_server.processor.access import Bound
from dsql_server.processor.engine_connection import Answer
from dsql_server.processor.errors import EngineRefusal, SqlError, aborted_block
from dsql_server.processor.executor import changed_rows
from dsql_server.processor.explain_session import ExplainRequest, shown
from dsql_server.processor.plan import LoadPlan, copy_plan, write_anything
from dsql_server.processor.planner import PlanSettings
from dsql_server.processor.pushed_aggregates import bind_message
from dsql_server.processor.row_limits import may_exceed
from dsql_server.processor.sequence_uses import uses_of_any
from dsql_server.statements import (
    READS_ONLY_NOTE,
    LockStrength,
    SqlSyntaxError,
    Statement,
    StatementKind,
    classify,
    is_utf8,
)
from dsql_server.statements.dump import for_pg_dump

LOCK_MODES = {
    None: None,
    LockStrength.KEY_SHARE: LockMode.KEY_SHARE,
    LockStrength.UPDATE: LockMode.UPDATE,
}


class Planning(Transactions):
    """What both protocols do with a statement before and after it runs."""

    def _classify_one(self, sql: str) -> Statement | None:
        statements = self._classify(sql)
        if len(statements) > 1:
            raise SqlError("42601", "cannot insert multiple commands into a prepared statement")
        return statements[0] if statements else None

    def _classify(self, sql: str) -> list[Statement]:
        try:
            return [for_pg_dump(s) for s in classify(sql)] if self._dumps else classify(sql)
        except SqlSyntaxError as error:
            raise SqlError(
                error.sqlstate, error.message, position=error.position, detail=error.detail, hint=error.hint
            ) from None

    def _refuse_in_failed_block(self, statement: Statement | None) -> None:
        if self._block == FAILED and (
            statement is None or statement.kind not in (StatementKind.COMMIT, StatementKind.ROLLBACK)
        ):
            raise aborted_block()

    def _refusal(self, statement: Statement | None) -> SqlError | None:
        for refusal in statement.refusals if statement is not None else ():
            if refusal.lifted_by in self._off:
                continue
            return SqlError(
                refusal.sqlstate, refusal.message, detail=refusal.detail, hint=refusal.hint, position=refusal.position
            )
        return None

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
        if statement.kind == StatementKind.EXPLAIN and statement.explained is not None:
            return await self._make_plan(statement.explained, oids)
        if statement.kind == StatementKind.COPY:
            named = {name for _, name in statement.relations}
            tables = [t for t in state.tables.values() if t.name in named]
            targets = {name for _, name in statement.targets}
            written = [t for t in tables if t.name in targets]
            readable = list(state.tables.values()) if not tables and not written else tables
            plan = copy_plan(state, readable, written)
            if await planner.reads_unnamed(statement, written, self.plan_settings):
                plan.whole = list(state.tables.values())
            modes = (LOCK_MODES[statement.locking], await planner.lock_by_view(statement, self.plan_settings))
            locking = max((mode for mode in modes if mode is not None), default=None)
            if locking is not None:
                plan.locked = [(table, locking) for table in plan.whole if not table.is_system]
            writes = statement.is_dml and not statement.copies_in  # COPY (DELETE … RETURNING …) TO STDOUT
            if writes or await planner.may_write(statement, self.plan_settings):
                write_anything(plan, state)
            if state.sequences and await planner.may_take_values(statement, written, self.plan_settings):
                plan.sequences = uses_of_any(state)
            return plan
        return LoadPlan(state.version)

    async def _lease_ahead(self) -> None:
        """Get ready while the client hasn't asked for anything yet, as far as that takes no processor from others.

        What goes wrong is the first statement's to meet. A session that is told of every change of the catalog must not
        know one that its client has seen nothing of.
        """
        if self.services.strict_catalog or not self.services.pool.may_lease_ahead:
            return
        with contextlib.suppress(SqlError):
            await self._current_executor()
            await self._refresh_settings()
        if self.executor is None:
            self._forget_settings()

    async def _refresh_settings(self) -> None:
        """Ask the engine for the settings that statements' meaning depends on.

        As long as the session has changed none, it shares with others like it what their statements have shown.
        """
        if self.executor is None:
            await self._ready_executor()
        assert self.executor is not None
        answer = await self.executor.collect(
            p.query(
                "SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_setting('TimeZone'), "
                "pg_catalog.current_setting('DateStyle'), pg_catalog.current_setting('IntervalStyle'), "
                f"pg_catalog.current_setting('{READS_ONLY_NOTE}', true)"
            )
        )
        self._settings_stale = False
        self._settings_changes += 1
        if answer.error is None and answer.rows[0]:
            *values, read_only = [(v or b"").decode() for v in p.data_row_fields(answer.rows[0][0])]
            self._read_only_by_default = read_only == "on"
            settings = PlanSettings(*values)
            if settings != self.plan_settings:
                self.plan_settings = settings
            if self._settings_changes == 1:
                self._shown = self.services.shown.to(self.role, self._settings, settings, dumps=self._dumps)
                return
        self._shown = Shown()

    def _check_allowed(self, statement: Statement, plan: LoadPlan) -> None:
        if plan.sequences is not None and plan.sequences.taken and self._read_only:
            raise SqlError("25006", "cannot execute nextval() in a read-only transaction")
        if self._read_only:
            refused = writing_command(statement, plan)
            if refused is not None:
                raise SqlError("25006", f"cannot execute {refused} in a read-only transaction")
        if plan.written or statement.is_dml:
            if self._definition is not None:
                raise SqlError("0A000", "ddl and dml are not supported in the same transaction")
            self._wrote = True

    async def _aggregates(self, plan: LoadPlan, bound: Bound, portal: bytes, results: bytes) -> bytes | None:
        """A Bind message for the query around aggregates that storage has computed; None: run the client's query.

        ``results`` are the client's result formats, as in its own Bind message.
        """
        pushed = plan.aggregates
        assert pushed is not None
        executor = await self._ready_executor()
        if self._block == BLOCK:
            executor.check_current()
        plan.bind_literals(bound)
        values = await executor.aggregate(pushed, bound)
        if values is None:
            return None
        name = executor.prepare_pushed(pushed, plan.parameter_oids)
        return bind_message(pushed, name, portal, bound, results, values)

    def _explain_request(self, statement: Statement, plan: LoadPlan, oids: tuple[int, ...]) -> ExplainRequest | None:
        """Of an EXPLAIN; None for any other statement."""
        if statement.kind != StatementKind.EXPLAIN or statement.explained is None:
            return None
        return ExplainRequest(statement.explained.engine_sql, statement.options, oids, plan)

    async def _show_explained(self, request: ExplainRequest, bound: Bound, answer: Answer) -> None:
        """Put DSQL's plan in the place of the engine's."""
        executor = self.executor
        if answer.error is not None or answer.streamed or executor is None:
            return
        before, rows, behind = p.split_data_rows(b"".join(answer.out))
        texts = [(p.data_row_fields(row)[0] or b"").decode() for row in rows]
        explanation = await request.explanation(executor, bound, texts)
        if explanation is not None:
            answer.out = [before, *(p.data_row([text]) for text in shown(explanation, texts)), behind]

    def _take(self, answer: Answer, offset: int = 0) -> None:
        """Pass the client's part on; raises SqlError if the engine refused something.

        ``offset``: characters of the client's text in front of what the engine was given.
        """
        if answer.error is None:
            self._out += answer.out
            return
        if not answer.injected_error:
            joined = b"".join(answer.out)
            size = len(answer.error) + 5
            at = joined.rfind(p.message(b"E", answer.error))
            # Behind the error are reports of the settings that it has put back.
            self._out += (joined[:at], joined[at + size :]) if at >= 0 else (joined[:-size],)
        raise EngineRefusal(answer.error, hide_context=answer.injected_error, offset=offset)

    async def _after(self, statement: Statement, plan: LoadPlan, bound: Bound, answer: Answer, again: bytes) -> None:
        """What a completed statement leaves to do. ``again``: messages that repeat one that changes settings."""
        if plan.sequences is not None:
            assert self.executor is not None
            try:
                await self.executor.sequences.settle(plan.sequences)
            except SqlError:
                self._drop_completion()
                raise
        if statement.is_dml and not plan.written and changed_rows(answer.tags[-1] if answer.tags else b""):
            # It must not look as if it would be committed.
            self._drop_completion()
            raise SqlError("XX000", f"{statement.tag} wrote rows that no plan of it shows")
        if plan.written:
            assert self.executor is not None
            try:
                sizes = self._block == BLOCK and may_exceed(statement, bound, self.services.limits)
                await self.executor.after_write(plan, bound, answer.tags[-1] if answer.tags else b"", sizes)
            except SqlError:
                self._drop_completion()
                raise
        elif changes_settings(statement):
            self._note_settings(statement, again)

    def _note_settings(self, statement: Statement, again: bytes) -> None:
        executor = self.executor
        assert executor is not None
        self._settings_stale = True
        if executor.engine_open:
            # The engine's transaction is always rolled back, and the setting with it.
            self._settings_in_transaction = True
            if statement.parameter is None or not statement.parameter.is_local:
                self._block_settings.append(again)
        if not is_utf8(executor.connection.parameters.get(b"client_encoding", b"UTF8").decode()):
            # set_config() got past the refusal: rows pass through as they are, in UTF-8.
            self._settings_in_transaction = True
            executor.connection.discard(p.query("SET client_encoding TO 'UTF8'"))
