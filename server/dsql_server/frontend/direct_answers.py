"""Answers repeated statements without the engine, where it would only hand rows through."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache

from dsql_server.encoding.executions import RawExecution, split_execution
from dsql_server.frontend.block_inserts import INSERTED, compiled_insert
from dsql_server.frontend.shown import SeenText
from dsql_server.frontend.statements import Learned, Portal, Prepared, for_engine, read_formats, read_parse
from dsql_server.frontend.steering import Steering
from dsql_server.frontend.transactions import BLOCK, FAILED, IDLE, Client, Services
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import NOT_EXACT, Bound
from dsql_server.processor.direct_answer import DirectAnswer, Messages
from dsql_server.processor.direct_read import DirectRead
from dsql_server.processor.engine_connection import OWN_STATEMENT_PREFIX, Answer
from dsql_server.processor.errors import SqlError
from dsql_server.processor.executor import Executor
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.workspace import Untold

_ISO = "ISO"


class DirectAnswers(Steering):
    """Statements that are executed on their own, and that the engine has answered once before: prepared ones, and texts
    that differ in their literals only.

    In a transaction block, too: reads as long as the block hasn't written to their tables, inserts as long as nothing
    else in the block needs the engine.

    The first execution has shown that the role may use the tables. Whatever changes that, or the meaning of the
    statement, changes the catalog's version or a setting of the session; then the engine answers once more.
    """

    def __init__(self, services: Services, client: Client) -> None:
        super().__init__(services, client)
        self._prepared: dict[bytes, Prepared] = {}
        self._portals: dict[bytes, Portal] = {}
        self._sync_in_copy = False  #: the Sync behind a COPY came in front of its data, where it means nothing
        self._engine_unsynced = False  #: the engine's last batch ended with Flush, outside a transaction

    # -- texts -----------------------------------------------------------------------------------------------

    def _see(self, plan: LoadPlan, answer: Answer) -> None:
        """Remember what the engine's answer to a text has shown."""
        direct = plan.direct or plan.direct_insert
        if direct is None or self._settings_stale or answer.error is not None or answer.streamed:
            return
        answering, description = None, b""
        if plan.direct is not None:
            answering, description = self._answering(plan.direct, b""), _description(answer.out)
            if answering is None or not description:
                return
        self._shown.note_text(SeenText(direct, self._settings_changes, description, answering))

    async def _answered_again(self, plan: LoadPlan, bound: Bound) -> bool:
        """Answer a text; False, and nothing done: the engine has to.

        Raises SqlError where a lone INSERT loses at its commit.
        """
        direct = plan.direct or plan.direct_insert
        seen = self._shown.text(direct) if direct is not None else None
        if seen is None or not self._holds(seen, plan):
            return False
        plan.bind_literals(bound)
        if len(bound.values) != len(plan.parameter_oids):
            return False
        try:
            if seen.answer is None:
                return await self._insert_directly(plan, bound, ())
            return self._read_directly(plan, bound, seen.answer, (seen.description,))
        except NOT_EXACT:
            return False

    # -- prepared statements ---------------------------------------------------------------------------------

    def _learn(self, portal: Portal, plan: LoadPlan, answer: Answer) -> None:
        """Remember what the engine's answer to a direct read or insert has shown."""
        prepared, formats = portal.prepared, portal.formats
        if plan.direct is None and plan.direct_insert is None:
            return
        if self._settings_stale or answer.error is not None or answer.streamed:
            return
        known = prepared.direct
        if (
            known is not None
            and known.plan is plan
            and known[1:3] == (self._settings_changes, formats)
            and known.description
        ):
            return
        if plan.direct is None:
            utc = self.plan_settings.time_zone == "UTC"
            at_once = compiled_insert(plan, self._settings_changes, utc, formats)
            self._note_learned(
                prepared, Learned(plan, self._settings_changes, formats, p.NO_DATA_MESSAGE, None, at_once)
            )
            return
        answering = self._answering(plan.direct, formats)
        if answering is not None:
            description = _description(answer.out)
            self._note_learned(prepared, Learned(plan, self._settings_changes, formats, description, answering))

    def _note_learned(self, prepared: Prepared, learned: Learned) -> None:
        prepared.direct = learned
        self._shown.learn(prepared.sql, prepared.oids, learned)

    def _answering(self, read: DirectRead, formats: bytes) -> DirectAnswer | None:
        settings = self.plan_settings
        return read.answering(
            read_formats(formats),
            iso_dates=settings.date_style.startswith(_ISO),
            zone_is_utc=settings.time_zone == "UTC",
        )

    async def _answered_directly(self, batch: list[tuple[int, bytes]]) -> bool:
        """Answer perhaps Parse, Bind, perhaps Describe, and Execute; False, and nothing done: the engine has to.

        Raises SqlError where a lone INSERT loses at its commit, and for a Parse that isn't one.
        """
        if batch and batch[0][0] == p.PARSE:
            return await self._text_answered_directly(batch)
        if not 2 <= len(batch) <= 3:
            return False
        execution = split_execution(b"".join([raw for _, raw in batch]) + p.SYNC)
        learned = self._known(execution) if execution is not None else None
        if execution is None or learned is None:
            return False
        bound = self._bound(execution[1], execution[2])
        before = (p.BIND_COMPLETE_MESSAGE, learned.description) if execution[4] else (p.BIND_COMPLETE_MESSAGE,)
        try:
            if learned.answer is None:
                answered = await self._insert_directly(learned.plan, bound, before)
            else:
                answered = self._read_directly(learned.plan, bound, learned.answer, before)
        except NOT_EXACT:
            return False
        if answered:
            self._portals.pop(b"", None)
        return answered

    async def _text_answered_directly(self, batch: list[tuple[int, bytes]]) -> bool:
        """The same with a Parse of a text that was executed before, by this session or another.

        The engine is given an unnamed statement only where it is executed otherwise, a named one behind the answer.
        """
        raw = batch[0][1]
        name, sql, oids = read_parse(raw)
        shown = self._shown.learned(sql, oids)
        if not shown or (name and not self._may_parse_later(name, shown)) or (not name and len(batch) == 1):
            return False
        before = self._prepared.get(name)
        if before is None or (before.sql, before.oids) != (sql, oids):
            self._prepared[name] = Prepared(sql, self._classify_one(sql), oids)
        behind = len(self._out)
        self._out.append(p.PARSE_COMPLETE_MESSAGE)
        answered = True
        try:
            if len(batch) > 1:
                answered = await self._answered_directly(batch[1:])
        finally:
            if name and answered:  # a statement whose execution fails is there, too
                assert self.executor is not None, "asked for above"
                self.executor.connection.discard(for_engine(name, raw, self._prepared[name]) + p.SYNC)
        if answered:
            return True
        del self._out[behind:]
        if before is None:
            del self._prepared[name]
        else:
            self._prepared[name] = before
        return False

    def _may_parse_later(self, name: bytes, shown: dict[bytes, Learned]) -> bool:
        """Whether it is known that the engine will accept a Parse of this name, and a Sync behind it does no harm."""
        executor = self.executor
        if executor is None or name in self._prepared or name.startswith(OWN_STATEMENT_PREFIX):
            return False
        if self._block == FAILED or (self._engine_unsynced and not executor.engine_open):
            return False
        if executor.processor.version != self.services.catalog.version:
            return False
        return any(self._holds(learned, learned.plan) for learned in shown.values())

    def _holds(self, shown: SeenText | Learned, plan: LoadPlan) -> bool:
        """Whether what was shown of a statement with this plan holds as of now."""
        if self._settings_stale or shown.settings_changes != self._settings_changes:
            return False
        return plan.version == self.services.catalog.version

    def _known(self, execution: RawExecution) -> Learned | None:
        """What the engine has shown of the statement; None if it has to show it (again)."""
        name, values, _, results, described = execution
        prepared = self._prepared.get(name)
        if prepared is None:
            return None
        learned = prepared.direct
        if learned is None or learned.formats != results or not self._holds(learned, learned.plan):
            learned = self._shown.learned(prepared.sql, prepared.oids).get(results)
            if learned is None or not self._holds(learned, learned.plan):
                return None
            prepared.direct = learned
        if len(values) != len(learned.plan.parameter_oids) or (described and not learned.description):
            return None
        return learned

    def _bound(self, values: Sequence[bytes | None], formats: Sequence[int]) -> Bound:
        return Bound(values, formats, self.plan_settings.time_zone == "UTC")

    # -- both ------------------------------------------------------------------------------------------------

    def _read_directly(self, plan: LoadPlan, bound: Bound, answer: DirectAnswer, before: tuple[bytes, ...]) -> bool:
        """``before``: what is sent in front of the rows."""
        found = self._rows_directly(plan, bound.values, bound.formats, answer)
        if found is None:
            return False
        rows, count = found
        self._out += (*before, rows, selected(count))
        return True

    def _rows_directly(
        self, plan: LoadPlan, values: Sequence[bytes | None], formats: Sequence[int], answer: DirectAnswer
    ) -> Messages | None:
        """The rows and how many they are; None: the engine has to tell."""
        t = self._snapshot_for(plan)
        if t is None:
            return None
        services = self.services
        found = answer.messages(values, formats, services.commit_path.storage, t)
        if found is not None:
            services.planner.direct_reads += 1
        return found

    def _snapshot_for(self, plan: LoadPlan) -> Timestamp | None:
        """As of when the tables are to be read, if storage has all of their rows that the statement may see."""
        executor = self.executor
        workspace = executor.workspace if executor is not None else None
        if self._block == IDLE:
            return self.services.commit_path.begin(id(executor)) if workspace is None else None
        executor = self._block_executor()
        if executor is None or executor.workspace is None:
            return None
        dirty = executor.workspace.dirty_tables()
        return None if any(scan.table.relation_id in dirty for scan in plan.scans) else executor.workspace.t_start

    def _block_executor(self) -> Executor | None:
        """The executor of a transaction block that can go on, and that defines nothing."""
        executor = self.executor
        if self._block != BLOCK or executor is None or executor.workspace is None or self._definition is not None:
            return None
        try:
            executor.check_current()
        except SqlError:
            return None  # in the same words, when the engine's turn comes
        return executor

    def _insert_in_block(self, plan: LoadPlan, bound: Bound) -> Untold | None:
        """Insert a row in the transaction block; None, and nothing done: the engine has to."""
        executor = self._block_executor()
        if executor is None or self._read_only:
            return None
        assert plan.direct_insert is not None
        inserted = executor.insert_untold(plan.direct_insert, bound)
        if inserted is not None:
            self.services.planner.direct_inserts += 1
            self._wrote = True
        return inserted

    async def _insert_directly(self, plan: LoadPlan, bound: Bound, before: tuple[bytes, ...]) -> bool:
        if self._block != IDLE:
            if self._insert_in_block(plan, bound) is None:
                return False
            self._out += (*before, INSERTED)
            return True
        insert, executor = plan.direct_insert, self.executor
        assert insert is not None
        if executor is None or executor.workspace is not None:
            return False
        executor = await self._current_executor()
        inserted = None
        if executor.begin().catalog.version == plan.version:
            with contextlib.suppress(*NOT_EXACT):
                inserted = executor.insert_untold(insert, bound)
        if inserted is None:
            executor.rollback()
            return False
        self.services.planner.direct_inserts += 1
        self._out += before
        await executor.commit()
        self._out.append(INSERTED)
        return True


@lru_cache(maxsize=256)
def selected(count: int) -> bytes:
    """The completion of a SELECT of so many rows."""
    return p.command_complete(f"SELECT {count}")


def _description(answers: list[bytes]) -> bytes:
    """The RowDescription of a portal among the answers, or nothing."""
    data = answers[0] if answers else b""
    at = 0
    while len(data) - at >= 5:
        end = at + 1 + p.unpack_i32(data, at + 1)[0]
        if data[at] == p.ROW_DESCRIPTION and end <= len(data):
            return data[at:end]
        if data[at] not in (p.PARSE_COMPLETE, p.BIND_COMPLETE):
            break  # also where a statement was described, which knows nothing of the portal's formats
        at = end
    return b""
