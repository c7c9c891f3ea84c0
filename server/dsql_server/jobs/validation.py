"""ALTER TABLE ASYNC … VALIDATE CONSTRAINT: checks the rows that were there before the constraint."""

from __future__ import annotations

from dataclasses import replace

from dsql_server.catalog.changes import CatalogChange
from dsql_server.catalog.state import CatalogState, quote_identifier
from dsql_server.interfaces.messages import Mutation
from dsql_server.jobs.engine_checks import violation
from dsql_server.jobs.job import SKIPPED_TABLE_DETAIL, Job, JobStatus
from dsql_server.jobs.transactions import JobTransactions, Writes
from dsql_server.processor.pool import ProcessorPool


async def validate(
    transactions: JobTransactions, pool: ProcessorPool, job: Job, completed: Mutation
) -> tuple[JobStatus, str | None]:
    """Check all rows, then mark the constraint as valid. ``completed`` is committed with that.

    Rows written meanwhile meet it: writers have been checking it since the version that made it.
    """
    state = transactions.catalog.state
    table = state.tables.get(job.table_id)
    if table is None:
        return JobStatus.COMPLETED, SKIPPED_TABLE_DETAIL
    storage = transactions.path.storage
    with transactions.snapshot() as t:
        refused = await violation(pool, storage, state.tables, table, job.constraint, t)
    if refused is not None:
        return JobStatus.FAILED, refused

    def validated(state: CatalogState) -> CatalogChange | None:
        table = state.tables.get(job.table_id)
        if table is None:
            return None
        keys = tuple(replace(k, validated=k.validated or k.name == job.constraint) for k in table.foreign_keys)
        checks = tuple(name for name in table.unvalidated_checks if name != job.constraint)
        if keys == table.foreign_keys and checks == table.unvalidated_checks:
            return None  # it was dropped, or is valid already
        return CatalogChange(
            state.version + 1,
            "",
            "",
            "",
            (replace(table, foreign_keys=keys, unvalidated_checks=checks),),
            (),
            state.next_relation_id,
            engine_sql=(f"ALTER TABLE {table.qualified_name} VALIDATE CONSTRAINT {quote_identifier(job.constraint)}"),
        )

    await transactions.change_catalog(validated, Writes((), (completed,)))
    return JobStatus.COMPLETED, None
