"""Jobs of ASYNC statements: DSQL answers with a job's id, and builds the index or validates the constraint later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError, IntegrityError, OperationalError

#: What sys.jobs says of a job that isn't over.
UNFINISHED = ("submitted", "processing")

#: How often a lost connection or a wait that outlived DSQL's five minutes is taken up again: an index over many
#: millions of rows takes hours.
WAITS_MAX = 1000


@dataclass(frozen=True)
class Job:
    """A job, the statement that began it, and those that take back what is left of it when it fails."""

    job_id: str
    sql: str
    undo: tuple[str, ...] = field(default=())


def await_job(connection: Any, job: Job) -> None:
    """Wait until a job is over.

    :raises IntegrityError: if it failed because of the rows that are there; ``undo`` has been run.
    :raises OperationalError: if it can't be found out how it ended.
    """
    for _ in range(WAITS_MAX):
        try:
            done = _wait(connection, job.job_id)
        except (OperationalError, DatabaseError):
            # A transaction older than five minutes, a connection older than an hour: the job goes on without us.
            if connection.connection is None or not connection.is_usable():
                connection.close()
            if _status(connection, job.job_id)[0] in UNFINISHED:
                continue
            raise
        if done:
            return
        _, details = _status(connection, job.job_id)
        for sql in job.undo:
            with connection.cursor() as cursor:
                cursor.execute(sql)
        raise IntegrityError(
            f"the job of this statement failed, and nothing of it is left: {job.sql}\nDSQL says: "
            f"{details or 'no reason'}\nChange the rows that are in the way and run it again"
        )
    raise OperationalError(f"job {job.job_id} isn't over after {WAITS_MAX} waits: {job.sql}; see sys.jobs")


def _wait(connection: Any, job_id: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("CALL sys.wait_for_job(%s)", (job_id,))
        row = cursor.fetchone()
    return bool(row and row[0])


def _status(connection: Any, job_id: str) -> tuple[str, str | None]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT status, details FROM sys.jobs WHERE job_id = %s", (job_id,))
        row = cursor.fetchone()
    return row if row is not None else ("", None)
