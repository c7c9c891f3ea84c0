"""CREATE INDEX ASYNC: writes the entries of the rows that were there before the index, then makes it valid.

Writers keep an index from the version that made it, so only older rows lack entries. A unique index must also find the
duplicates among old rows and between old and new ones: each batch reads its rows and the entries' other holders in one
snapshot and claims the entries, so that a writer of the same key and the build can't both commit unseen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from dsql_server.catalog.changes import CatalogChange
from dsql_server.catalog.state import CatalogState, Index, Table
from dsql_server.encoding.keys import KeyEncoder, prefix, prefix_end
from dsql_server.interfaces.commit_path import ScanRequest
from dsql_server.interfaces.messages import Claim, LockMode, Mutation, Timestamp
from dsql_server.jobs.engine_checks import holds_unique_index
from dsql_server.jobs.job import SKIPPED_INDEX_DETAIL, SKIPPED_TABLE_DETAIL, Job, JobStatus
from dsql_server.jobs.transactions import JobTransactions, Writes
from dsql_server.processor.ddl import index_validity_sql
from dsql_server.processor.loading import full_row
from dsql_server.processor.pool import ProcessorPool
from dsql_server.processor.write_set import has_null, unique_holders

#: Rows whose index entries one transaction writes.
BUILD_BATCH_ROWS = 1000

#: As Aurora DSQL words it.
DUPLICATE_KEY_DETAIL = "Found duplicate key while validating index for UCVs"


def find_index(state: CatalogState, table_id: int, index_id: int) -> tuple[Table, Index] | None:
    """The table and its index, if both are still there."""
    table = state.tables.get(table_id)
    for index in table.indexes if table is not None else ():
        if index.relation_id == index_id:
            assert table is not None
            return table, index
    return None


class IndexBuild:
    """Builds one index. ``run`` returns how it ended; it can be run again from the start at any time."""

    def __init__(self, transactions: JobTransactions, pool: ProcessorPool, job: Job) -> None:
        self._transactions = transactions
        self._pool = pool
        self._job = job

    def _find(self) -> tuple[Table, Index] | None:
        return find_index(self._transactions.catalog.state, self._job.table_id, self._job.object_id)

    def _skipped(self) -> str:
        """The index was dropped before it was built, alone or with its table."""
        has_table = self._job.table_id in self._transactions.catalog.state.tables
        return SKIPPED_INDEX_DETAIL if has_table else SKIPPED_TABLE_DETAIL

    async def run(self, completed: Mutation) -> tuple[JobStatus, str | None]:
        """``completed`` is the job's row, committed with the catalog change that makes the index valid."""
        found = self._find()
        if found is None:
            return JobStatus.COMPLETED, self._skipped() if self._job.object_id else None
        if found[1].plain:
            return await self._build_plain(completed)
        return await self._check_computed(completed)

    async def _build_plain(self, completed: Mutation) -> tuple[JobStatus, str | None]:
        start = prefix(self._job.table_id)
        end = prefix_end(start)
        duplicate = False
        while True:
            batch = _Batch(self._transactions, self._job, start, end)
            await self._transactions.commit(batch.prepare)
            duplicate = duplicate or batch.duplicate
            if batch.following is None:
                break
            start = batch.following
            await asyncio.sleep(0)
        if duplicate:
            # All entries are there: until it is dropped, the index still refuses more duplicates.
            return JobStatus.FAILED, DUPLICATE_KEY_DETAIL
        return await self._finish(completed)

    async def _check_computed(self, completed: Mutation) -> tuple[JobStatus, str | None]:
        """An expression or partial index: its entries aren't stored, so there is nothing to write.

        A unique one is checked twice: once before engines keep it, so that rows that violate it can be loaded till
        then, and once after, for what was written in between.
        """
        for kept in (False, True):
            found = self._find()
            if found is None:
                return JobStatus.COMPLETED, self._skipped()
            table, index = found
            if not index.unique:
                break
            with self._transactions.snapshot() as t:
                holds = await holds_unique_index(self._pool, self._transactions.path.storage, table, index, t)
            if not holds:
                if kept:
                    await self._transactions.change_catalog(self._change(valid=False, ready=False), Writes())
                return JobStatus.FAILED, DUPLICATE_KEY_DETAIL
            if not kept:
                await self._transactions.change_catalog(self._change(valid=False, ready=True), Writes())
        return await self._finish(completed)

    async def _finish(self, completed: Mutation) -> tuple[JobStatus, str | None]:
        valid = await self._transactions.change_catalog(self._change(valid=True, ready=True), Writes((), (completed,)))
        return JobStatus.COMPLETED, None if valid else self._skipped()

    def _change(self, valid: bool, ready: bool) -> Callable[[CatalogState], CatalogChange | None]:
        def change(state: CatalogState) -> CatalogChange | None:
            found = find_index(state, self._job.table_id, self._job.object_id)
            if found is None:
                return None
            table, index = found
            marked = replace(index, valid=valid)
            indexes = tuple(marked if i.relation_id == index.relation_id else i for i in table.indexes)
            return CatalogChange(
                state.version + 1,
                "",
                "",
                "",
                (replace(table, indexes=indexes),),
                (),
                state.next_relation_id,
                engine_sql=index_validity_sql(index, valid, ready),
            )

        return change


class _Batch:
    """The rows from ``start`` on. ``following`` is where the next batch starts, None behind the last."""

    def __init__(self, transactions: JobTransactions, job: Job, start: bytes, end: bytes) -> None:
        self._transactions = transactions
        self._job = job
        self._start = start
        self._end = end
        self.duplicate = False
        self.following: bytes | None = None

    def prepare(self, t: Timestamp) -> Writes | None:
        """The entries as of ``t``; None if there are none to write."""
        found = find_index(self._transactions.catalog.state, self._job.table_id, self._job.object_id)
        storage = self._transactions.path.storage
        rows = storage.scan(ScanRequest(self._start, self._end, t, limit=BUILD_BATCH_ROWS)).rows
        self.following = rows[-1][0] + b"\x00" if len(rows) == BUILD_BATCH_ROWS else None
        if found is None or not rows:
            self.following = None
            return None
        table, index = found
        columns = zip(index.columns, index.key_type_oids, strict=True)
        encoder = KeyEncoder(index.relation_id, [(number - 1, oid) for number, oid in columns])
        claims: list[Claim] = []
        mutations: list[Mutation] = []
        seen: set[bytes] = set()
        for key, value in rows:
            image = full_row(table, value)
            entry = encoder.from_row(image)
            if index.unique and (index.nulls_not_distinct or not has_null(index, image)):
                holders = unique_holders(table, entry, encoder, storage, t)
                if entry in seen or any(holder != key for holder, _ in holders):
                    self.duplicate = True
                seen.add(entry)
                claims.append(Claim(entry, LockMode.UPDATE))
            mutations.append(Mutation(entry + key[4:], key))
        return Writes(claims, mutations)
