"""Whole requests that are answered when they arrive, without a turn of the session's coroutine."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

from dsql_server.encoding.executions import split_execution
from dsql_server.frontend.block_inserts import INSERTED, insert_statements, open_block
from dsql_server.frontend.direct_answers import DirectAnswers, selected
from dsql_server.frontend.kept_reads import keep, kept_reads
from dsql_server.frontend.transactions import BLOCK, FAILED, IDLE, Client, Services
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.messages import CommitOutcome
from dsql_server.processor.access import NOT_EXACT
from dsql_server.processor.executor import Executor, refusal_of

_BEGINS = frozenset(p.query(text) for text in ("BEGIN", "BEGIN;", "begin", "begin;"))
_COMMITS = frozenset(p.query(text) for text in ("COMMIT", "COMMIT;", "commit", "commit;"))
_BEGUN = p.command_complete("BEGIN") + p.ready_for_query(BLOCK)
_COMMITTED = p.command_complete("COMMIT") + p.ready_for_query(IDLE)
_READY = {state: p.ready_for_query(state) for state in (IDLE, BLOCK, FAILED)}


class AtOnce(DirectAnswers):
    """BEGIN, executions of prepared statements that need no engine, COMMIT of rows that the engine wasn't told of."""

    def __init__(self, services: Services, client: Client) -> None:
        super().__init__(services, client)
        #: The transaction block, if its inserts are compiled; see :func:`open_block`. Gone with the next turn of the
        #: coroutine: only that changes settings, prepared statements, definitions, or what the engine knows.
        self._open_block: Any = None
        self._inserts: Any = insert_statements(self._prepared, services)
        self._reads: Any = kept_reads(services)

    def _answered_at_once(self, data: bytes) -> bool:
        block = self._open_block
        if block is not None:
            try:
                answer = block.insert(data)
            except NOT_EXACT:
                return False
            if answer is not None:
                self._write(answer)
                self._wrote = True
                # While the answer is on its way: COMMIT needs it.
                block.settle()
                self.services.planner.direct_inserts += 1
                return True
        if data[0] == p.BIND and self._reads is not None and self._read_at_once(data):
            return True
        if self._engine_unsynced or self._settings_in_transaction or self._sync_in_copy:
            return False
        if data[0] == p.QUERY:
            if self._block == IDLE:
                return data in _BEGINS and self._begin_at_once()
            return data in _COMMITS and self._commit_at_once()
        execution = split_execution(data)
        learned = self._known(execution) if execution is not None else None
        if execution is None or learned is None:
            return False
        _, values, formats, _, described = execution
        before = p.BIND_COMPLETE_MESSAGE + learned.description if described else p.BIND_COMPLETE_MESSAGE
        try:
            if learned.answer is not None:
                found = self._rows_directly(learned.plan, values, formats, learned.answer)
                if found is None:
                    return False
                rows, count = found
                self._write(b"".join((before, rows, selected(count), _READY[self._block])))
                self._portals.pop(b"", None)
                if self._reads is not None:
                    keep(self._reads, execution[0], learned)
                return True
            if self._block == IDLE:
                return learned.at_once is not None and self._insert_alone_at_once(data)
            inserted = self._insert_in_block(learned.plan, self._bound(values, formats))
        except NOT_EXACT:
            return False
        if inserted is None:
            return False
        self._write(b"".join((before, INSERTED, _READY[self._block])))
        self._portals.pop(b"", None)
        # While the answer is on its way: COMMIT needs it.
        inserted.changes()
        self._open_for_inserts()
        return True

    def _read_at_once(self, data: bytes) -> bool:
        """Answer a read that was answered since the coroutine had its turn."""
        executor = self.executor
        workspace = executor.workspace if executor is not None else None
        try:
            if self._block == IDLE:
                answer = self._reads.answer(data, id(executor)) if workspace is None else None
            elif executor is None or workspace is None or executor.stale or self._block_executor() is None:
                answer = None
            else:
                answer = self._reads.answer_in_block(data, workspace.t_start, workspace.dirty_tables())
        except NOT_EXACT:
            return False
        if answer is None:
            return False
        self._write(answer)
        self._portals.pop(b"", None)
        self.services.planner.direct_reads += 1
        return True

    def _begin_at_once(self) -> bool:
        executor = self._idle_executor()
        if executor is None:
            return False
        # Nothing can come between: the answer travels while the snapshot is taken.
        self._write(_BEGUN)
        executor.begin()
        self._block = BLOCK
        self._portals.pop(b"", None)
        self._open_for_inserts()
        return True

    def _idle_executor(self) -> Executor | None:
        """The executor, if a transaction may begin in it at once."""
        executor = self.executor
        if self._block != IDLE or executor is None or executor.workspace is not None:
            return None
        return executor if executor.processor.version == self.services.catalog.state.version else None

    def _insert_alone_at_once(self, data: bytes) -> bool:
        """Insert a row in a transaction of its own. The answer follows once that is decided."""
        executor = self._idle_executor()
        if executor is None:
            return False
        executor.begin()
        self._open_for_inserts()
        block, self._open_block = self._open_block, None
        answer, request = b"", None
        if block is not None:
            with contextlib.suppress(*NOT_EXACT):
                answer = block.insert(data) or b""
        if answer:
            block.settle()
            request = block.request()
        self._waiting = False
        if request is None or not executor.submit_untold(partial(self._inserted_alone, answer), request):
            self._waiting = True
            executor.rollback()
            return False
        self.services.planner.direct_inserts += 1
        return True

    def _inserted_alone(self, answer: bytes, outcome: CommitOutcome) -> None:
        """The end of a transaction of one row. ``answer`` is what a block would have answered."""
        refusal = refusal_of(outcome)
        before = answer[: answer.index(INSERTED)]
        if refusal is None:
            self._write(before + INSERTED + _READY[IDLE])
        else:
            self._out.append(before)
            self._fail(refusal)
            self._out.append(_READY[IDLE])
            self._flush()
        self._portals.clear()
        self._go_on()

    def _open_for_inserts(self) -> None:
        executor, self._open_block = self.executor, None
        assert executor is not None and executor.workspace is not None, "a block has them"
        stale = executor.stale or self._settings_stale
        if self._inserts is not None and not (stale or executor.engine_open or self._read_only):
            self._open_block = open_block(self._inserts, self._settings_changes, executor.workspace)

    def _commit_at_once(self) -> bool:
        executor, block = self.executor, self._open_block
        if self._block != BLOCK or executor is None or executor.workspace is None:
            return False
        if self._definition is not None or self._block_settings:
            return False
        if executor.end_reads():
            self._open_block = None
            self._block, self._block_read_only, self._wrote = IDLE, None, False
            self._write(_COMMITTED)
            self._portals.clear()
            return True
        request = block.request() if block is not None else None
        self._open_block = None
        # Until the outcome is known, what the client sends has to wait.
        self._waiting = False
        if not executor.submit_untold(self._committed, request):
            self._waiting = True
            return False
        return True

    def _committed(self, outcome: CommitOutcome) -> None:
        """The end of a block whose COMMIT was submitted at once."""
        self._block, self._block_read_only, self._wrote = IDLE, None, False
        refusal = refusal_of(outcome)
        if refusal is None:
            self._write(_COMMITTED)
        else:
            self._fail(refusal)
            self._out.append(_READY[IDLE])
            self._flush()
        self._portals.clear()
        self._go_on()

    def _close_block(self) -> None:
        """The coroutine has its turn."""
        self._open_block = None
        if self._inserts is not None:
            self._inserts.forget()
        if self._reads is not None:
            self._reads.forget()
