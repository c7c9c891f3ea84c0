"""Waiting for what DSQL does in the background: index builds and the validation of constraints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from dsql_dialects.sqlalchemy.errors import JobError

_JOB_ID = re.compile(r"[a-z2-7]{26}")


class Job(NamedTuple):
    """A job that a DDL statement has begun."""

    job_id: str  #: as in sys.jobs
    statement: str  #: that began it
    unique: bool  #: whether it builds a unique index


def note(rows: Sequence[Any], statement: str, begun: list[Job]) -> None:
    """Add the jobs that a statement has answered with to those to wait for."""
    for row in rows:
        # The id will stand in a statement.
        if len(row) == 1 and isinstance(row[0], str) and _JOB_ID.fullmatch(row[0]):
            unique = statement.lstrip().upper().startswith("CREATE UNIQUE INDEX")
            begun.append(Job(row[0], statement, unique))


def wait_for_jobs(dialect: Any, dbapi_connection: Any, jobs: list[Job]) -> None:
    """Return when all jobs are finished. Takes them off the list, also when it raises.

    :raises JobError: if one failed, when all are finished.
    """
    waiting, failures = list(jobs), []
    jobs.clear()
    for job in waiting:
        completed = _fetch_value(dialect, dbapi_connection, f"CALL sys.wait_for_job('{job.job_id}')")
        if completed is False:
            details = _fetch_value(
                dialect, dbapi_connection, f"SELECT details FROM sys.jobs WHERE job_id = '{job.job_id}'"
            )
            failures.append(
                f"{' '.join(job.statement.split())}\nfailed in the background (job {job.job_id}): {details}"
            )
    if failures:
        raise JobError(
            "\n".join(failures)
            + "\nThe index or constraint exists but is invalid: drop it, correct the rows, and create it again."
        )


def _fetch_value(dialect: Any, dbapi_connection: Any, statement: str) -> Any:
    """The first value of the statement's first row, read in a transaction of its own."""
    cursor = dbapi_connection.cursor()
    try:
        dialect.execute_plain(cursor, statement)
        row = cursor.fetchone()
    finally:
        cursor.close()
        dbapi_connection.rollback()
    return row[0] if row is not None else None
