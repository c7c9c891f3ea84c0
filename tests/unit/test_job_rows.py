"""Jobs as rows: what they hold, how they are read back, and when they go."""

from __future__ import annotations

from typing import Any, cast

import pytest

from dsql_server.catalog.changes import Catalog, CatalogChange
from dsql_server.encoding.rows import fields
from dsql_server.interfaces.commit_path import CommitPath, ScanRequest, ScanResult
from dsql_server.interfaces.identifiers import new_identifier
from dsql_server.jobs.job import Job, JobStatus, JobType, job_key, read_parameters, read_status
from dsql_server.jobs.manager import FINISHED_JOB_AGE_MAX_S, JobManager
from dsql_server.processor.ddl import PendingDefinition
from dsql_server.processor.pool import ProcessorPool
from dsql_server.statements import classify

NOW_S = 1_800_000_000
US = 1_000_000
POSTGRES_EPOCH_S = 946_684_800
STARTED = (JobStatus.SUBMITTED, JobStatus.PROCESSING)


class StoredJobs:
    """As much of a commit path as reading ``sys.jobs`` takes."""

    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self.rows = rows
        self.storage = self

    def begin(self) -> int:
        return 1

    def scan(self, request: ScanRequest) -> ScanResult:
        found = [(k, v) for k, v in sorted(self.rows.items()) if request.start <= k < request.end]
        return ScanResult(found, len(found), 0)


def manager(rows: dict[bytes, bytes]) -> JobManager:
    path: Any = StoredJobs(rows)
    return JobManager(cast(CommitPath, path), Catalog(), cast(ProcessorPool, None), lambda: NOW_S)


def test_times_are_whole_seconds_and_nothing_is_updated_before_it_begins() -> None:
    job = Job(new_identifier(), JobType.INDEX_BUILD, NOW_S * US + 7, 7, 8, "public.i")
    submitted, running = (fields(job.row(status, NOW_S * US + US + 9)[1] or b"") for status in STARTED)
    assert submitted[7] == running[7] == ((NOW_S - POSTGRES_EPOCH_S) * US).to_bytes(8, "big")
    assert (submitted[8], running[8]) == (None, ((NOW_S - POSTGRES_EPOCH_S + 1) * US).to_bytes(8, "big"))


def test_a_job_is_read_back_from_its_parameters() -> None:
    job = Job(new_identifier(), JobType.DROP, NOW_S * US, 7, 8, "public.t", "c", (1, 2, 3))
    stored = job.parameters().value
    assert stored is not None
    assert read_parameters(stored) == job
    assert job.without_parameters() == (job.parameters().key, None)


def test_a_jobs_row_shows_status_and_times() -> None:
    job = Job(new_identifier(), JobType.INDEX_BUILD, NOW_S * US, 7, 8, "public.i")
    key, value = job.row(JobStatus.FAILED, (NOW_S + 5) * US, "why")
    assert value is not None
    assert key == job_key(job.job_id)
    assert read_status(value) == (JobStatus.FAILED, (NOW_S + 5) * US)
    assert fields(value)[:4] == [job.job_id.encode(), b"failed", b"why", b"INDEX_BUILD"]


@pytest.mark.parametrize(
    ("status", "age_s", "goes"),
    [
        (JobStatus.COMPLETED, FINISHED_JOB_AGE_MAX_S + 1, True),
        (JobStatus.FAILED, FINISHED_JOB_AGE_MAX_S + 1, True),
        (JobStatus.COMPLETED, FINISHED_JOB_AGE_MAX_S - 1, False),
        (JobStatus.PROCESSING, FINISHED_JOB_AGE_MAX_S + 1, False),
    ],
)
def test_finished_jobs_go_when_a_new_one_comes(status: JobStatus, age_s: int, goes: bool) -> None:
    old = Job(new_identifier(), JobType.INDEX_BUILD, (NOW_S - age_s) * US)
    key, value = old.row(status, (NOW_S - age_s) * US)
    assert value is not None
    pending = PendingDefinition(CatalogChange(1, "", "", ""))
    answered = manager({key: value}).plan(classify("CREATE INDEX ASYNC i ON t (a)")[0], pending)
    assert answered is not None and pending.job_ids == [answered]
    assert ((key, None) in pending.mutations) is goes


def test_definitions_that_leave_nothing_to_do_make_no_job() -> None:
    pending = PendingDefinition(CatalogChange(1, "", "", ""))
    assert manager({}).plan(classify("CREATE TABLE t (id int)")[0], pending) is None
    assert pending.job_ids == [] and pending.mutations == []
