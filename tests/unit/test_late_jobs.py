"""Jobs whose table or index is gone by the time that they run."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from dsql_server.catalog.changes import Catalog, CatalogChange
from dsql_server.catalog.state import Column, Table
from dsql_server.encoding import type_oids as t
from dsql_server.interfaces.commit_path import CommitPath
from dsql_server.interfaces.messages import Mutation
from dsql_server.jobs.index_build import IndexBuild
from dsql_server.jobs.job import Job, JobStatus, JobType
from dsql_server.jobs.transactions import JobTransactions
from dsql_server.jobs.validation import validate
from dsql_server.processor.pool import ProcessorPool

TABLE = Table(7, "public", "t", (Column(1, "id", t.INT4, modifier=-1),), None, ())
NO_TABLE = "Skipped job for nonexistent table."
NO_INDEX = "Skipped job for nonexistent index."
DONE = Mutation(b"job", b"")


def transactions(*tables: Table) -> JobTransactions:
    catalog = Catalog()
    if tables:
        catalog.append(CatalogChange(1, "", "", "", tables, (), 100))
    path: Any = None  # neither job gets as far as reading or writing
    return JobTransactions(cast(CommitPath, path), catalog)


@pytest.mark.parametrize(
    ("tables", "details"), [((), NO_TABLE), ((TABLE,), NO_INDEX)], ids=["table dropped", "index dropped"]
)
def test_an_index_build_says_what_is_missing(tables: tuple[Table, ...], details: str) -> None:
    job = Job("a" * 26, JobType.INDEX_BUILD, 0, table_id=7, object_id=9, object_name="public.i")
    build = IndexBuild(transactions(*tables), cast(ProcessorPool, None), job)
    assert asyncio.run(build.run(DONE)) == (JobStatus.COMPLETED, details)


def test_a_validation_says_that_its_table_is_missing() -> None:
    job = Job("a" * 26, JobType.VALIDATE_CONSTRAINT, 0, table_id=7, object_id=7, constraint="c")
    ended = asyncio.run(validate(transactions(), cast(ProcessorPool, None), job, DONE))
    assert ended == (JobStatus.COMPLETED, NO_TABLE)
