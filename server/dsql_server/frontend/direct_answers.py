"""Answers repeated reads from storage, where the engine would only hand rows through."""

from __future__ import annotations

from dsql_server.frontend.simple_query import SimpleQuery
from dsql_server.frontend.statements import Learned, Portal, Prepared, read_bind, read_execute, read_formats, read_name
from dsql_server.frontend.transactions import BLOCK, IDLE
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import NOT_EXACT, Bound
from dsql_server.processor.engine_connection import Answer
from dsql_server.processor.errors import SqlError
from dsql_server.processor.plan import LoadPlan

_PORTAL = ord("P")
_ALL_ROWS = b"\0\0\0\0"  # at the end of Execute
_ISO = "ISO"


class DirectAnswers(SimpleQuery):
    """Prepared statements that are bound and executed on their own, and that the engine has answered once before.

    In a transaction block, too, as long as the block hasn't written to their tables.

    The first execution has shown that the role may read the tables. Whatever changes that, or the meaning of the
    statement, changes the catalog's version or a setting of the session; then the engine answers once more.
    """

    _prepared: dict[bytes, Prepared]
    _portals: dict[bytes, Portal]

    def _learn(self, portal: Portal, plan: LoadPlan, answer: Answer) -> None:
        """Remember what the engine's answer to a direct read has shown."""
        prepared, formats = portal.prepared, portal.formats
        if plan.direct is None or self._settings_stale or answer.error is not None or answer.streamed:
            return
        known = prepared.direct
        if (
            known is not None
            and known.plan is plan
            and known[1:3] == (self._settings_changes, formats)
            and known.description
        ):
            return
        settings = self.plan_settings
        answering = plan.direct.answering(
            read_formats(formats),
            iso_dates=settings.date_style.startswith(_ISO),
            zone_is_utc=settings.time_zone == "UTC",
        )
        if answering is not None:
            description = _description(answer.out)
            prepared.direct = Learned(plan, self._settings_changes, formats, description, answering)

    def _answered_from_storage(self, batch: list[tuple[int, bytes]]) -> bool:
        """Answer Bind, perhaps Describe, and Execute from storage; False, and nothing done: the engine has to."""
        if not 2 <= len(batch) <= 3 or batch[0][0] != p.BIND or batch[-1][0] != p.EXECUTE or self._settings_stale:
            return False
        try:
            portal, name, values, formats, results = read_bind(batch[0][1])
            executed = read_execute(batch[-1][1])
        except SqlError:
            return False
        prepared = self._prepared.get(name)
        learned = prepared.direct if prepared is not None else None
        if learned is None or learned.formats != results or batch[-1][1][-4:] != _ALL_ROWS:
            return False
        if portal or executed:
            return False  # a named portal outlives the batch
        if learned.settings_changes != self._settings_changes or learned.plan.version != self.services.catalog.version:
            return False
        described = b""
        if len(batch) == 3:
            if batch[1][0] != p.DESCRIBE or not learned.description or read_name(batch[1][1]) != (_PORTAL, portal):
                return False
            described = learned.description
        t = self._snapshot_for(learned.plan)
        if t is None:
            return False
        bound = Bound(values, formats, self.plan_settings.time_zone == "UTC")
        try:
            rows = learned.answer.rows(bound, self.services.commit_path.storage, t)
        except NOT_EXACT:
            return False
        if rows is None:
            return False
        self.services.planner.direct_reads += 1
        self._portals.pop(b"", None)
        self._out += (p.BIND_COMPLETE_MESSAGE, described, *rows, p.command_complete(f"SELECT {len(rows)}"))
        return True

    def _snapshot_for(self, plan: LoadPlan) -> Timestamp | None:
        """As of when the tables are to be read, if storage has all of their rows that the statement may see."""
        executor = self.executor
        workspace = executor.workspace if executor is not None else None
        if self._block == IDLE:
            return self.services.commit_path.begin() if workspace is None else None
        if self._block != BLOCK or executor is None or workspace is None or self._definition is not None:
            return None
        try:
            executor.check_current()
        except SqlError:
            return None  # in the same words, when the engine's turn comes
        dirty = workspace.dirty_tables()
        return None if any(scan.table.relation_id in dirty for scan in plan.scans) else workspace.t_start


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
