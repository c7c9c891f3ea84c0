"""Removes the rows and index entries of what a definition dropped, in small transactions behind it."""

from __future__ import annotations

from dsql_server.encoding.keys import prefix, prefix_end
from dsql_server.interfaces.commit_path import ScanRequest
from dsql_server.interfaces.messages import Mutation, Timestamp
from dsql_server.jobs.job import Job, JobStatus
from dsql_server.jobs.transactions import JobTransactions, Writes

#: Keys that one transaction removes.
REMOVAL_BATCH_KEYS = 1000


async def remove(transactions: JobTransactions, job: Job) -> tuple[JobStatus, str | None]:
    """Remove every key of the job's relations. Nobody can write them any more: their ids are never used again."""
    for relation_id in job.relations:
        start = prefix(relation_id)
        end = prefix_end(start)

        def prepare(t: Timestamp, start: bytes = start, end: bytes = end) -> Writes | None:
            found = transactions.path.storage.scan(ScanRequest(start, end, t, limit=REMOVAL_BATCH_KEYS)).rows
            return Writes((), [Mutation(key, None) for key, _ in found]) if found else None

        while await transactions.commit(prepare):
            pass
    return JobStatus.COMPLETED, None
