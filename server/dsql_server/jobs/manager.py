"""``sys.jobs``: index builds that read storage at a snapshot, catch up and then make the index valid."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from struct import Struct

from dsql_server.catalog.changes import Catalog, CatalogChange
from dsql_server.catalog.state import JOBS_RELATION_ID, Index, Table
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.keys import KeyEncoder, prefix, prefix_end
from dsql_server.encoding.rows import fields, join
from dsql_server.interfaces.commit_path import CommitPath, ScanRequest
from dsql_server.interfaces.messages import Claim, CommitOutcome, CommitRequest, Committed, LockMode, Mutation
from dsql_server.processor.errors import SqlError
from dsql_server.processor.workspace import full_row, has_null
from dsql_server.statements import Statement

_log = logging.getLogger("dsql_server.jobs")

#: Rows whose index entries one internal transaction writes.
BUILD_BATCH_ROWS = 1000
#: Finished jobs older than this leave ``sys.jobs`` when a new one is made, in seconds.
FINISHED_JOB_AGE_MAX_S = 30 * 60
#: Pause before a step that met a conflict is tried again, in seconds.
RETRY_PAUSE_S = 0.02
#: Characters of a job's id: 16 bytes in base32.
JOB_ID_LENGTH = 26
_JOB_ID_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_RELATION_CLASS_OID = 1259
_POSTGRES_EPOCH_US = 946_684_800_000_000
_U32, _I64 = Struct("!I"), Struct("!q")
_JOB_KEY = KeyEncoder(JOBS_RELATION_ID, [(0, oids.TEXT)])

DUPLICATE_KEY_DETAIL = "Found duplicate key while validating index for UCVs"


class JobManager:
    """Makes jobs, runs them as tasks, answers ``sys.wait_for_job``."""

    def __init__(self, commit_path: CommitPath, catalog: Catalog, now: Callable[[], float] = time.time) -> None:
        self._path = commit_path
        self._catalog = catalog
        self._now = now
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # -- jobs as rows ------------------------------------------------------------------------------------------

    def new_job_id(self) -> str:
        """26 characters of base32, as all of Aurora DSQL's ids."""
        return base64.b32encode(os.urandom(16)).decode().rstrip("=").lower()

    def job_row(
        self, job_id: str, status: str, index: Index, details: str = "", started: bytes | None = None
    ) -> Mutation:
        """The row of ``sys.jobs`` for an index build."""
        now = _I64.pack(int(self._now() * 1_000_000) - _POSTGRES_EPOCH_US)
        row = [
            job_id.encode(), status.encode(), details.encode(), b"INDEX_BUILD", _U32.pack(_RELATION_CLASS_OID),
            _U32.pack(index.relation_id), f"{index.schema}.{index.name}".encode(), started or now, now,
        ]  # fmt: skip
        return Mutation(_JOB_KEY.from_fields(row), join(row))

    def status(self, job_id: str) -> str | None:
        """The job's status, or None if there is no such job (any more)."""
        value = self._path.storage.get(_JOB_KEY.from_fields([job_id.encode()]), self._path.begin())
        return (fields(value)[1] or b"").decode() if value is not None else None

    # -- running -----------------------------------------------------------------------------------------------

    def start_builds(self, builds: list[tuple[str, int, int]]) -> None:
        """Run builds (job id, table, index) in the background."""
        for job_id, table_id, index_id in builds:
            task = asyncio.get_running_loop().create_task(self._build(job_id, table_id, index_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def resume_unfinished(self) -> None:
        """After a restart: go on with the jobs that a stop interrupted."""
        start = prefix(JOBS_RELATION_ID)
        for _, value in self._path.storage.scan(ScanRequest(start, prefix_end(start), self._path.begin())).rows:
            row = fields(value)
            if row[1] in (b"submitted", b"processing"):
                index_id = _U32.unpack(row[5] or b"\0\0\0\0")[0]
                for table in self._catalog.state.tables.values():
                    if any(i.relation_id == index_id for i in table.indexes):
                        self.start_builds([((row[0] or b"").decode(), table.relation_id, index_id)])

    async def close(self) -> None:
        """Stop running jobs; they go on at the next start."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _find(self, table_id: int, index_id: int) -> tuple[Table, Index] | None:
        table = self._catalog.state.tables.get(table_id)
        for index in table.indexes if table is not None else ():
            if index.relation_id == index_id:
                assert table is not None
                return table, index
        return None

    async def _build(self, job_id: str, table_id: int, index_id: int) -> None:
        try:
            found = self._find(table_id, index_id)
            if found is None:
                return
            await self._commit_until_done(lambda: [self.job_row(job_id, "processing", found[1])])
            duplicate = await self._write_entries(table_id, index_id)
            if duplicate:
                await self._commit_until_done(lambda: [self.job_row(job_id, "failed", found[1], DUPLICATE_KEY_DETAIL)])
            else:
                await self._make_valid(job_id, table_id, index_id)
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("index build %s failed; it starts again with the server", job_id)

    async def _write_entries(self, table_id: int, index_id: int) -> bool:
        """Write the entries of all rows as of now. Returns whether a unique index met a duplicate.

        Writers have been keeping the index since the version that made it, so nothing is missed.
        """
        found = self._find(table_id, index_id)
        if found is None or not found[1].plain:
            return False
        table, index = found
        encoder = KeyEncoder(index_id, [(n - 1, t) for n, t in zip(index.columns, index.key_type_oids, strict=True)])
        t = self._path.begin()
        start = prefix(table_id)
        end = prefix_end(start)
        seen: set[bytes] = set()
        while True:
            rows = self._path.storage.scan(ScanRequest(start, end, t, limit=BUILD_BATCH_ROWS)).rows
            if not rows:
                return False
            mutations = []
            for key, value in rows:
                image = full_row(table, value)
                entry = encoder.from_row(image)
                if index.unique and (index.nulls_not_distinct or not has_null(index, image)):
                    if entry in seen:
                        return True
                    seen.add(entry)
                mutations.append(Mutation(entry + key[4:], key))
            await self._commit_until_done(lambda: mutations)  # noqa: B023 (called before the next turn)
            start = rows[-1][0] + b"\x00"
            await asyncio.sleep(0)

    async def _make_valid(self, job_id: str, table_id: int, index_id: int) -> None:
        """Flip the index to valid: a catalog change like any other."""
        while True:
            found = self._find(table_id, index_id)
            if found is None:
                return
            table, index = found
            valid = replace(index, valid=True)
            changed = replace(table, indexes=tuple(valid if i.relation_id == index_id else i for i in table.indexes))
            state = self._catalog.state
            change = CatalogChange(
                state.version + 1, "", "", "", (changed,), (), state.next_relation_id, superuser=True
            )
            data = change.to_bytes()
            outcome = await self._commit(
                CommitRequest(
                    os.urandom(16),
                    self._path.begin(),
                    state.version,
                    (Claim(change.log_key, LockMode.UPDATE),),
                    (Mutation(change.log_key, data), self.job_row(job_id, "completed", index)),
                    data,
                )
            )
            if isinstance(outcome, Committed):
                self._catalog.append(change)
                return
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _commit_until_done(self, mutations: Callable[[], list[Mutation]]) -> None:
        while True:
            request = CommitRequest(
                os.urandom(16), self._path.begin(), self._catalog.version, (), tuple(mutations()), None
            )
            if isinstance(await self._commit(request), Committed):
                return
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _commit(self, request: CommitRequest) -> CommitOutcome:
        future: asyncio.Future[CommitOutcome] = asyncio.get_running_loop().create_future()
        self._path.commit(request, lambda outcome: None if future.done() else future.set_result(outcome))
        return await future

    # -- CALL sys.wait_for_job ---------------------------------------------------------------------------------

    async def wait_for(self, job_id: str) -> bool:
        """Wait until the job is finished; whether it completed. Raises SqlError if there is no such job."""
        while True:
            status = self.status(job_id)
            if status is None:
                raise SqlError("22023", f"job {job_id} does not exist")
            if status in ("completed", "failed"):
                return status == "completed"
            loop = asyncio.get_running_loop()
            pause = loop.create_future()
            loop.call_later(0.01, pause.set_result, None)
            await pause

    async def wait_for_call(self, statement: Statement, values: Sequence[bytes | None]) -> bool:
        """``CALL sys.wait_for_job(…)``; ``values`` are the bound parameters. Raises SqlError."""
        if "sys.wait_for_job" not in statement.functions or len(statement.arguments) != 1:
            raise SqlError("0A000", "unsupported statement: Call")
        argument = statement.arguments[0]
        text = argument.text
        if argument.parameter is not None:
            if len(values) < argument.parameter:
                raise SqlError("42P02", f"there is no parameter ${argument.parameter}")
            text = (values[argument.parameter - 1] or b"").decode("utf-8", "replace")
        if text is None or len(text) != JOB_ID_LENGTH or not set(text) <= _JOB_ID_ALPHABET:
            raise SqlError("22P02", "Unable to convert text to UUID")
        return await self.wait_for(text)
