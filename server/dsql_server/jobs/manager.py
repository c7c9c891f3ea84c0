"""``sys.jobs``: what definitions leave to be done behind them, as rows and as tasks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from dsql_server.catalog.changes import Catalog
from dsql_server.catalog.state import JOB_PARAMETERS_RELATION_ID, JOBS_RELATION_ID, Index, Table
from dsql_server.encoding.keys import prefix, prefix_end
from dsql_server.interfaces.commit_path import CommitPath, ScanRequest
from dsql_server.interfaces.identifiers import IDENTIFIER_ALPHABET, IDENTIFIER_LENGTH, new_identifier
from dsql_server.interfaces.messages import Mutation, Timestamp
from dsql_server.jobs.index_build import IndexBuild
from dsql_server.jobs.job import (
    FINISHED,
    Job,
    JobStatus,
    JobType,
    job_key,
    read_parameters,
    read_status,
)
from dsql_server.jobs.removal import remove
from dsql_server.jobs.transactions import HoldSnapshot, JobTransactions, Writes
from dsql_server.jobs.validation import validate
from dsql_server.processor.ddl import PendingDefinition, with_invalid_indexes
from dsql_server.processor.errors import SqlError, server_unavailable
from dsql_server.processor.pool import ProcessorPool
from dsql_server.statements import Statement

_log = logging.getLogger("dsql_server.jobs")

#: Finished jobs older than this leave ``sys.jobs`` when a new one is made, in seconds.
FINISHED_JOB_AGE_MAX_S = 30 * 60
#: Pause between two looks at a job that is waited for, in seconds.
WAIT_PAUSE_S = 0.01
#: Pause before a job that met an error of the machinery's is run again, in seconds.
RESTART_PAUSE_S = 1.0
_US = 1_000_000


class JobManager:
    """Makes jobs, runs them as tasks, answers ``sys.wait_for_job``. All methods run on the event loop."""

    def __init__(
        self,
        commit_path: CommitPath,
        catalog: Catalog,
        pool: ProcessorPool,
        now: Callable[[], float] = time.time,
        hold: HoldSnapshot | None = None,
    ) -> None:
        self._path = commit_path
        self._catalog = catalog
        self._pool = pool
        self._now = now
        self._transactions = JobTransactions(commit_path, catalog, hold)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def _now_us(self) -> int:
        return int(self._now() * _US)

    # -- making jobs ---------------------------------------------------------------------------------------------

    def plan(self, statement: Statement, pending: PendingDefinition) -> str | None:
        """Add to a definition the jobs that it needs. Returns the id that the statement answers, if it does."""
        definition = statement.definition
        assert definition is not None, "every DDL statement defines something"
        jobs: list[Job] = []
        answered: str | None = None
        if definition.index is not None and definition.index.is_async:
            answered = new_identifier()
            jobs += self._index_builds(answered, pending)
        elif pending.new_indexes:
            # Made without ASYNC on an empty table: nobody is told of the job, but rows may come until it is there.
            jobs += self._index_builds(new_identifier(), pending)
        elif definition.validates is not None:
            answered = new_identifier()
            jobs.append(self._validation(answered, definition.validates, pending))
        dropped = _relations_of(pending)
        if dropped:
            jobs.append(Job(new_identifier(), JobType.DROP, self._now_us(), object_id=dropped[0], relations=dropped))
        for job in jobs:
            pending.mutations += [job.row(JobStatus.SUBMITTED, job.started_us), job.parameters()]
            pending.job_ids.append(job.job_id)
        if jobs:
            pending.mutations += self._expired()
        return answered

    def _index_builds(self, job_id: str, pending: PendingDefinition) -> list[Job]:
        jobs = []
        if pending.new_indexes:
            pending.change = with_invalid_indexes(pending.change, [i for _, i in pending.new_indexes])
        for table, index in pending.new_indexes:
            name = f"{index.schema}.{index.name}"
            jobs.append(Job(job_id, JobType.INDEX_BUILD, self._now_us(), table.relation_id, index.relation_id, name))
        # Of an index that was there already, too: somebody may wait for the id.
        return jobs or [Job(job_id, JobType.INDEX_BUILD, self._now_us())]

    def _validation(self, job_id: str, constraint: str, pending: PendingDefinition) -> Job:
        pending.changes_nothing = True
        tables = pending.change.upserts
        table = tables[0] if tables else None
        return Job(
            job_id,
            JobType.VALIDATE_CONSTRAINT,
            self._now_us(),
            table.relation_id if table is not None else 0,
            table.relation_id if table is not None else 0,
            f"{table.schema}.{table.name}" if table is not None else None,
            constraint,
        )

    async def note_analyzed(self, tables: Sequence[Table]) -> None:
        """The jobs of ANALYZE, which are done as soon as they are there: storage counts as it goes."""
        now_us = self._now_us()
        rows = []
        for table in tables:
            name = f"{table.schema}.{table.name}"
            job = Job(new_identifier(), JobType.ANALYZE, now_us, table.relation_id, table.relation_id, name)
            rows.append(job.row(JobStatus.COMPLETED, now_us))
        if rows:
            await self._write(*rows, *self._expired())

    def _expired(self) -> list[Mutation]:
        """Deletes the rows of jobs that were finished long ago."""
        before_us = self._now_us() - FINISHED_JOB_AGE_MAX_S * _US
        start = prefix(JOBS_RELATION_ID)
        expired = []
        for key, row in self._path.storage.scan(ScanRequest(start, prefix_end(start), self._path.begin())).rows:
            status, updated_us = read_status(row)
            if status in FINISHED and updated_us < before_us:
                expired.append(Mutation(key, None))
        return expired

    # -- running -------------------------------------------------------------------------------------------------

    def start(self, job_ids: Sequence[str]) -> None:
        """Run committed jobs in the background. After :meth:`close` they wait for the next start."""
        if self._closed:
            return
        for job in self._unfinished():
            if job.job_id in job_ids:
                self._start(job)

    def resume_unfinished(self) -> None:
        """After a restart: run the jobs that a stop interrupted from their beginning."""
        for job in self._unfinished():
            self._start(job)

    def _unfinished(self) -> list[Job]:
        start = prefix(JOB_PARAMETERS_RELATION_ID)
        rows = self._path.storage.scan(ScanRequest(start, prefix_end(start), self._path.begin())).rows
        return [read_parameters(value) for _, value in rows]

    def _start(self, job: Job) -> None:
        task = asyncio.get_running_loop().create_task(self._run_to_the_end(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop running jobs; they go on at the next start. Nobody can wait for one any more."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_to_the_end(self, job: Job) -> None:
        while True:
            try:
                await self._run(job)
                return
            except Exception:
                # The engine may be gone; a job that can't be finished stays visible as processing.
                _log.exception("job %s (%s) met an error; it is run again", job.job_id, job.job_type.value)
                await asyncio.sleep(RESTART_PAUSE_S)

    async def _run(self, job: Job) -> None:
        await self._write(job.row(JobStatus.PROCESSING, self._now_us()))
        completed = job.row(JobStatus.COMPLETED, self._now_us())
        if job.job_type is JobType.INDEX_BUILD:
            status, details = await IndexBuild(self._transactions, self._pool, job).run(completed)
        elif job.job_type is JobType.VALIDATE_CONSTRAINT:
            status, details = await validate(self._transactions, self._pool, job, completed)
        else:
            status, details = await remove(self._transactions, job)
        await self._write(job.row(status, self._now_us(), details), job.without_parameters())

    async def _write(self, *mutations: Mutation) -> None:
        def prepare(t: Timestamp) -> Writes:
            return Writes((), mutations)

        await self._transactions.commit(prepare)

    # -- CALL sys.wait_for_job -----------------------------------------------------------------------------------

    def status(self, job_id: str) -> JobStatus | None:
        """The job's status, or None if there is no such job (any more)."""
        row = self._path.storage.get(job_key(job_id), self._path.begin())
        return read_status(row)[0] if row is not None else None

    async def wait_for(self, job_id: str) -> bool:
        """Wait until the job is finished; whether it completed. Raises SqlError if there is no such job."""
        loop = asyncio.get_running_loop()
        while True:
            if self._closed:
                raise server_unavailable()
            status = self.status(job_id)
            if status is None:
                raise SqlError("22023", f"job {job_id} does not exist")
            if status in FINISHED:
                return status is JobStatus.COMPLETED
            pause = loop.create_future()
            loop.call_later(WAIT_PAUSE_S, pause.set_result, None)
            await pause

    async def wait_for_call(self, statement: Statement, values: Sequence[bytes | None]) -> bool:
        """``CALL sys.wait_for_job(…)``; ``values`` are the bound parameters. Raises SqlError."""
        assert len(statement.arguments) == 1, "the engine refused all other calls"
        argument = statement.arguments[0]
        text = argument.text
        if argument.parameter is not None:
            if len(values) < argument.parameter:
                raise SqlError("42P02", f"there is no parameter ${argument.parameter}")
            text = (values[argument.parameter - 1] or b"").decode("utf-8", "replace")
        if text is None or len(text) != IDENTIFIER_LENGTH or not set(text) <= IDENTIFIER_ALPHABET:
            raise SqlError("22P02", "Unable to convert text to UUID")
        return await self.wait_for(text)


def _relations_of(pending: PendingDefinition) -> tuple[int, ...]:
    """Relation ids of the rows and index entries that a definition leaves without an owner."""

    def indexes(table: Table) -> list[Index]:
        return [*table.indexes, *([table.primary_key] if table.primary_key is not None else [])]

    found = [table.relation_id for table in pending.dropped]
    found += [index.relation_id for table in pending.dropped for index in indexes(table)]
    found += [index.relation_id for _, index in pending.dropped_indexes]
    return tuple(found)
