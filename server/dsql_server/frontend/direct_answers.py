"""Answers repeated statements without the engine, where it would only hand rows through."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dsql_server.frontend.statements import (
    Learned,
    Portal,
    Prepared,
    read_bind,
    read_formats,
)
from dsql_server.frontend.steering import Steering
from dsql_server.frontend.transactions import BLOCK, IDLE, Services
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import NOT_EXACT, Bound
from dsql_server.processor.direct_insert import DirectInsert
from dsql_server.processor.direct_read import DirectAnswer, DirectRead
from dsql_server.processor.engine_connection import Answer
from dsql_server.processor.errors import SqlError
from dsql_server.processor.executor import Executor
from dsql_server.processor.plan import LoadPlan

_DESCRIBE_UNNAMED = p.message(b"D", b"P\0")
_ISO = "ISO"
#: Shapes of texts that a session remembers an answer of.
_SEEN_MAX = 500
_INSERTED = p.command_complete("INSERT 0 1")


class _Execution(NamedTuple):
    """A statement that is bound and executed on its own."""

    learned: Learned
    bound: Bound
    described: bytes  #: the answer to its Describe, or nothing


class _Seen(NamedTuple):
    """What the engine's answer to a text has shown of all texts that differ in their literals only."""

    direct: DirectRead | DirectInsert
    settings_changes: int
    description: bytes
    answer: DirectAnswer | None  #: None: it is a direct insert


class DirectAnswers(Steering):
    """Statements that are executed on their own, and that the engine has answered once before: prepared ones, and texts
    that differ in their literals only.

    In a transaction block, too: reads as long as the block hasn't written to their tables, inserts as long as nothing
    else in the block needs the engine.

    The first execution has shown that the role may use the tables. Whatever changes that, or the meaning of the
    statement, changes the catalog's version or a setting of the session; then the engine answers once more.
    """

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
        self._seen: dict[int, _Seen] = {}  #: by the identity of the direct read or insert

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
        if len(self._seen) >= _SEEN_MAX:
            self._seen.clear()
        self._seen[id(direct)] = _Seen(direct, self._settings_changes, description, answering)

    async def _answered_again(self, plan: LoadPlan, bound: Bound) -> bool:
        """Answer a text; False, and nothing done: the engine has to.

        Raises SqlError where a lone INSERT loses at its commit.
        """
        direct = plan.direct or plan.direct_insert
        seen = self._seen.get(id(direct))
        if direct is None or seen is None or seen.settings_changes != self._settings_changes or self._settings_stale:
            return False
        if plan.version != self.services.catalog.version:
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
            prepared.direct = Learned(plan, self._settings_changes, formats, p.NO_DATA_MESSAGE, None)
            return
        answering = self._answering(plan.direct, formats)
        if answering is not None:
            description = _description(answer.out)
            prepared.direct = Learned(plan, self._settings_changes, formats, description, answering)

    def _answering(self, read: DirectRead, formats: bytes) -> DirectAnswer | None:
        settings = self.plan_settings
        return read.answering(
            read_formats(formats),
            iso_dates=settings.date_style.startswith(_ISO),
            zone_is_utc=settings.time_zone == "UTC",
        )

    async def _answered_directly(self, batch: list[tuple[int, bytes]]) -> bool:
        """Answer Bind, perhaps Describe, and Execute; False, and nothing done: the engine has to.

        Raises SqlError where a lone INSERT loses at its commit.
        """
        execution = self._lone_execution(batch)
        if execution is None:
            return False
        learned, bound, described = execution
        before = (p.BIND_COMPLETE_MESSAGE, described)
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

    def _lone_execution(self, batch: list[tuple[int, bytes]]) -> _Execution | None:
        """What the batch executes, if it is a statement that the engine has answered before."""
        if not 2 <= len(batch) <= 3 or self._settings_stale:
            return None
        kind, raw = batch[0]
        # A named portal outlives the batch, and one that is executed by parts is the engine's.
        if kind != p.BIND or raw[5:6] != b"\0" or batch[-1][1] != p.EXECUTE_UNNAMED:
            return None
        prepared = self._prepared.get(raw[6 : raw.find(b"\0", 6)])
        learned = prepared.direct if prepared is not None else None
        if learned is None:
            return None
        try:
            _, _, values, formats, results = read_bind(raw)
        except SqlError:
            return None
        if learned.formats != results or len(values) != len(learned.plan.parameter_oids):
            return None
        if learned.settings_changes != self._settings_changes or learned.plan.version != self.services.catalog.version:
            return None
        described = b""
        if len(batch) == 3:
            if batch[1][1] != _DESCRIBE_UNNAMED or not learned.description:
                return None
            described = learned.description
        return _Execution(learned, Bound(values, formats, self.plan_settings.time_zone == "UTC"), described)

    # -- both ------------------------------------------------------------------------------------------------

    def _read_directly(self, plan: LoadPlan, bound: Bound, answer: DirectAnswer, before: tuple[bytes, ...]) -> bool:
        """``before``: what is sent in front of the rows."""
        t = self._snapshot_for(plan)
        if t is None:
            return False
        rows = answer.rows(bound, self.services.commit_path.storage, t)
        if rows is None:
            return False
        self.services.planner.direct_reads += 1
        self._out += (*before, *rows, p.command_complete(f"SELECT {len(rows)}"))
        return True

    def _snapshot_for(self, plan: LoadPlan) -> Timestamp | None:
        """As of when the tables are to be read, if storage has all of their rows that the statement may see."""
        executor = self.executor
        workspace = executor.workspace if executor is not None else None
        if self._block == IDLE:
            return self.services.commit_path.begin() if workspace is None else None
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

    async def _insert_directly(self, plan: LoadPlan, bound: Bound, before: tuple[bytes, ...]) -> bool:
        insert = plan.direct_insert
        assert insert is not None
        alone = self._block == IDLE
        if alone:
            executor = self.executor
            if executor is None or executor.workspace is not None:
                return False
            executor = await self._current_executor()
            if executor.begin().catalog.version != plan.version:
                executor.rollback()
                return False
        else:
            in_block = self._block_executor()
            if in_block is None or self._read_only:
                return False
            executor = in_block
        try:
            inserted = executor.insert_untold(insert, plan, bound)
        except NOT_EXACT:
            inserted = False
        if not inserted:
            if alone:
                executor.rollback()
            return False
        self.services.planner.direct_inserts += 1
        self._out += before
        if alone:
            await executor.commit()
        else:
            self._wrote = True
        self._out.append(_INSERTED)
        return True


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
