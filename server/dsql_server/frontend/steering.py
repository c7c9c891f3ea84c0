"""Statements that the front end steers itself: transaction control, DDL, CALL, and those with nothing to run."""

from __future__ import annotations

from collections.abc import Sequence

from dsql_server.catalog.answers import ANSWERED_PARAMETERS
from dsql_server.catalog.state import Table, quote_identifier, quote_literal
from dsql_server.frontend.planning import Planning
from dsql_server.frontend.statements import READ_ONLY_PARAMETER, READ_ONLY_PARAMETERS
from dsql_server.frontend.transactions import BLOCK, FAILED, IDLE
from dsql_server.interfaces import protocol as p
from dsql_server.processor.access import Bound
from dsql_server.processor.ddl import run_definition, touches_other_databases
from dsql_server.processor.engine_connection import Answer
from dsql_server.processor.errors import EngineRefusal, SqlError
from dsql_server.processor.executor import Executor
from dsql_server.statements import SYNC_PARAMETER, Parameter, Statement, StatementKind

_OFF = frozenset({"off", "false", "no", "0"})
#: How often a DDL statement on its own is run before a catalog that keeps changing is reported.
DEFINITION_ATTEMPTS_MAX = 8


class Steering(Planning):
    """Runs statements whose messages the engine never sees as the client sent them."""

    def _forget_statements(self) -> None:
        """DEALLOCATE ALL: the client's statements are gone; the machinery's own on its connection stay."""

    def _forget_portals(self) -> None:
        """The transaction is over: its portals are gone."""

    async def _run_virtual(
        self, statement: Statement | None, described: bool, bound: Bound | None = None, *, binary: bool = False
    ) -> None:
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
            if self._block == IDLE:
                self._warn("25P01", "there is no transaction in progress")
            self._rollback()
            self._end_block("ROLLBACK")
        elif kind == StatementKind.DDL:
            await self._define(statement, described)
        elif kind == StatementKind.CALL:
            await self._call(statement, described, bound.values if bound is not None else (), binary)
        elif kind == StatementKind.ANALYZE:
            await self._analyze(statement)
        elif kind == StatementKind.SHOW:
            await self._show(statement, described)
        elif kind == StatementKind.DEALLOCATE:
            self._forget_statements()
            self._out.append(p.command_complete(statement.tag))
        else:
            if statement.parameter is not None:
                self._turn(statement.parameter)
            self._out.append(p.command_complete(statement.tag))

    def _turn(self, parameter: Parameter) -> None:
        """SET of a parameter that only Aurora DSQL has."""
        if parameter.values and parameter.values[0].lower() in _OFF:
            self._off.add(parameter.name)
        else:
            self._off.discard(parameter.name)

    def _warn(self, sqlstate: str, text: str) -> None:
        body = p.error_response(sqlstate, text, severity="WARNING")
        self._out.append(b"N" + body[1:])

    async def _begin_block(self, statement: Statement) -> None:
        if self._block == IDLE:
            self._beginning = True
            try:
                executor = await self._ready_executor()
            finally:
                self._beginning = False
            assert executor.workspace is not None
            executor.workspace.reads_only = statement.transaction.read_only if statement.transaction else None
            self._block = BLOCK
        else:
            self._warn("25001", "there is already a transaction in progress")
        modes = statement.transaction
        if modes is not None and modes.read_only is not None:
            self._block_read_only = modes.read_only
        self._out.append(p.command_complete(statement.tag))

    async def _commit_block(self) -> None:
        if self._block == FAILED:
            self._rollback()
            self._end_block("ROLLBACK")
            return
        if self._block == IDLE:
            self._warn("25P01", "there is no transaction in progress")
        try:
            await self._commit()
        finally:
            self._block, self._block_read_only = IDLE, None
        self._end_block("COMMIT")

    def _end_block(self, tag: str) -> None:
        self._block, self._block_read_only = IDLE, None
        self._forget_portals()
        self._out.append(p.command_complete(tag))

    async def _define(self, statement: Statement, described: bool) -> None:
        executor = await self._ready_executor()
        if self._block == BLOCK:
            executor.check_current()
        if self._definition is not None:
            raise SqlError("0A000", "multiple ddl statements not supported in a transaction")
        if self._wrote:
            raise SqlError("0A000", "ddl and dml are not supported in the same transaction")
        if self._settings_stale:
            await self._refresh_settings()
        if self._read_only:
            raise SqlError("25006", f"cannot execute {statement.tag} in a read-only transaction")
        if self._alone and self._block == IDLE:
            answer, job_id = await self._define_alone(statement)
        else:
            answer, job_id = await self._run_definition(executor, statement)
        if job_id is None:
            self._out += answer.out
            return
        self._out.append(p.notices(b"".join(answer.out)))
        if not described:
            self._out.append(self._virtual_description(statement))
        self._out.append(p.data_row([job_id]))
        self._out.append(p.command_complete(statement.tag))

    async def _define_alone(self, statement: Statement) -> tuple[Answer, str | None]:
        """Run and commit a definition on its own, after those of other sessions that came first.

        Nothing of it has been answered, so a catalog that moved on meanwhile is met again, as if it came later.
        """
        async with self.services.catalog.queue:
            for attempt in range(1, DEFINITION_ATTEMPTS_MAX + 1):
                executor = await self._ready_executor()
                answer, job_id = await self._run_definition(executor, statement)
                try:
                    await self._commit()
                    break
                except SqlError as error:
                    if error.sqlstate != "40001" or attempt == DEFINITION_ATTEMPTS_MAX:
                        raise
        return answer, job_id

    async def _run_definition(self, executor: Executor, statement: Statement) -> tuple[Answer, str | None]:
        if touches_other_databases(statement):
            # Elsewhere nothing may depend on a role any more that goes or gets another name.
            await self.services.pool.catch_up(executor.processor)
        locks = await executor.take_locks()
        answer, pending = await run_definition(executor, statement, self.plan_settings)
        pending.claims += locks
        self._definition = pending
        return answer, self.services.jobs.plan(statement, pending)

    async def _call(self, statement: Statement, described: bool, values: Sequence[bytes | None], binary: bool) -> None:
        arguments = statement.arguments
        if "sys.wait_for_job" not in statement.functions or len(arguments) != 1 or arguments[0].is_unfit:
            raise await self._refused_by_engine(statement)
        completed = await self.services.jobs.wait_for_call(statement, values)
        if not described:
            self._out.append(self._virtual_description(statement))
        # All that is answered here beside is text, which is the same in both formats.
        true, false = ("\x01", "\x00") if binary else ("t", "f")
        self._out.append(p.data_row([true if completed else false]))
        self._out.append(p.command_complete("CALL"))

    async def _analyze(self, statement: Statement) -> None:
        """Nothing is left to do but to note it as a job. What is named must be there."""
        if self._block == BLOCK:
            raise SqlError("25001", "ANALYZE cannot run inside a transaction block")
        tables = self.services.catalog.state.by_name
        named = {relation: tables.get(await self._look_up(*relation)) for relation in statement.relations}
        for relation, column in statement.columns:
            table = named[relation]
            if table is not None and (column not in table.by_name or statement.columns.count((relation, column)) > 1):
                raise _unfit_column(table, column)
        analyzed = [t for t in (named.values() if statement.relations else tables.values()) if t is not None]
        await self.services.jobs.note_analyzed([table for table in analyzed if not table.is_system])
        self._out.append(p.command_complete(statement.tag))

    async def _look_up(self, schema: str | None, name: str) -> tuple[str, str]:
        """Schema and name of the relation that the session finds by this name. Raises SqlError."""
        executor = await self._current_executor()
        qualified = quote_identifier(name) if schema is None else ".".join(map(quote_identifier, (schema, name)))
        query = (
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
            f"ON n.oid = c.relnamespace WHERE c.oid = {quote_literal(qualified)}::pg_catalog.regclass"
        )
        answer = await executor.collect(p.query(query))
        if answer.error is not None:
            fields = p.error_fields(answer.error)
            raise SqlError(fields["C"], fields["M"])
        found_schema, found = ((field or b"").decode() for field in p.data_row_fields(answer.rows[0][0]))
        return found_schema, found

    async def _refused_by_engine(self, statement: Statement) -> SqlError:
        """Why a CALL can't be: there is no procedure but one."""
        executor = await self._ready_executor()
        parts: list[bytes] = []
        executor.opening(parts)
        answer = await executor.collect(b"".join(parts) + p.query(statement.engine_sql))
        if answer.error is None:
            return SqlError("0A000", "unsupported statement: Call")
        return EngineRefusal(answer.error, offset=statement.offset)

    async def _show(self, statement: Statement, described: bool) -> None:
        assert statement.parameter is not None
        if statement.parameter.name in READ_ONLY_PARAMETERS and self._settings_stale:
            await self._refresh_settings()
        if not described:
            self._out.append(self._virtual_description(statement))
        self._out.append(p.data_row([self._parameter_text(statement.parameter.name)]))
        self._out.append(p.command_complete(statement.tag))

    def _parameter_text(self, name: str) -> str:
        if name == SYNC_PARAMETER:
            return "off" if name in self._off else "on"
        if name in READ_ONLY_PARAMETERS:
            return "on" if (self._read_only if name == READ_ONLY_PARAMETER else self._read_only_by_default) else "off"
        return ANSWERED_PARAMETERS[name]

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


def _unfit_column(table: Table, column: str) -> SqlError:
    """Of a table that has no such column, or of one named twice."""
    if column in table.by_name:
        return SqlError("42701", f'column "{column}" of relation "{table.name}" appears more than once')
    return SqlError("42703", f'column "{column}" of relation "{table.name}" does not exist')
