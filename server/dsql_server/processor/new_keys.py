"""Keys that a statement has written, looked up in the snapshot: one that was taken makes it a duplicate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dsql_server.encoding.keys import encode_value
from dsql_server.encoding.type_oids import INT8
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import StorageReader
from dsql_server.interfaces.limits import Limits
from dsql_server.processor.access import NOT_EXACT, Bound, Row
from dsql_server.processor.inserts import InsertKeys, key_of
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.row_limits import check_row
from dsql_server.processor.workspace import Workspace
from dsql_server.processor.write_set import DuplicateInSnapshot, TableWork, extraction_sql, has_null, unique_holders


class _Processor(Protocol):
    """What is needed of the executor."""

    workspace: Workspace | None

    limits: Limits

    @property
    def storage(self) -> StorageReader: ...

    async def rows_as_loader(self, sql: str) -> list[bytes]: ...


class NewKeys:
    """The look-ups of one executor's transactions."""

    def __init__(self, processor: _Processor) -> None:
        self._processor = processor
        self._looked_ahead: Bound | None = None  #: the execution whose keys were looked up before it was over

    @property
    def _workspace(self) -> Workspace:
        workspace = self._processor.workspace
        assert workspace is not None
        return workspace

    def look_ahead(self, plan: LoadPlan, bound: Bound) -> None:
        """Look a new row's keys up while the engine is busy with it; :meth:`check` says what is to be said."""
        insert = plan.insert
        if insert is not None and plan.single_insert_only and insert.complete:
            try:
                self.look_up(insert, bound)
            except (DuplicateInSnapshot, *NOT_EXACT):
                return
            self._looked_ahead = bound

    async def check(self, plan: LoadPlan, bound: Bound, sizes: bool) -> None:
        """Look up what a statement has written, as far as that is due, and with ``sizes`` measure the rows.

        Raises DuplicateInSnapshot, LimitExceeded, or SqlError with an error of the engine.
        """
        workspace = self._workspace
        if sizes:
            for table in plan.written:
                await self._look_at_written(workspace.work(table), sizes=True)
            return
        if plan.insert is not None and plan.single_insert_only and plan.insert.complete:
            try:
                if bound is not self._looked_ahead:
                    self.look_up(plan.insert, bound)
                await self._look_up_drawn(plan.insert)
                return
            except NOT_EXACT:
                await self._look_at_written(workspace.work(plan.insert.table))
        for table in plan.verified:
            await self._look_at_written(workspace.work(table))

    def look_up(self, insert: InsertKeys, bound: Bound) -> None:
        """One row whose unique keys are known from the parameters: look each up while nothing else waits.

        Raises DuplicateInSnapshot, or one of NOT_EXACT where a key can't be told.
        """
        work, t, storage = self._workspace.work(insert.table), self._workspace.t_start, self._processor.storage
        for index, getters in insert.keys:
            key = key_of(insert.table, index, getters, bound)
            if key is None or key in work.verified:
                continue
            if insert.preloaded:
                pass  # whoever held it was in the engine
            elif index.primary:
                if key not in work.loaded:
                    value = storage.get(key, t)
                    if value is not None:
                        raise DuplicateInSnapshot(insert.table, [(key, value)])
            else:
                encoder = next(e for i, e in insert.table.plain_indexes if i is index)
                _refuse_strangers(work, unique_holders(insert.table, key, encoder, storage, t))
            work.verified.add(key)

    def free_keys(self, work: TableWork, row: bytes) -> list[bytes] | None:
        """The unique keys of a new row, the primary one first, if nobody holds any of them: no stored row of the
        snapshot, no row of the transaction's own. They count as written from then on. None if one is taken.

        All of the table's unique indexes must be plain and valid.
        """
        table, storage, t = work.table, self._processor.storage, self._workspace.t_start
        verified, loaded = work.verified, work.loaded
        keys: list[bytes] = []
        encoder = table.key_encoder
        if encoder is not None:
            key = encoder.from_row(row)
            if key in verified or key in loaded or storage.get(key, t) is not None:
                return None
            keys.append(key)
        for index, entry_encoder in table.unique_entries:
            if has_null(index, row) and not index.nulls_not_distinct:
                continue
            entry = entry_encoder.from_row(row)
            if entry in verified or unique_holders(table, entry, entry_encoder, storage, t):
                return None
            keys.append(entry)
        verified.update(keys)
        return keys

    async def _look_up_drawn(self, insert: InsertKeys) -> None:
        """Look up the keys that the statement drew from sequences: the session remembers what it drew last."""
        for index, sequence in insert.drawn:
            query = f"SELECT pg_catalog.currval({sequence}::pg_catalog.regclass)"
            drawn = p.data_row_fields((await self._processor.rows_as_loader(query))[0])[0]
            assert drawn is not None, "a sequence has a value once one was drawn"
            self.look_up(insert.with_drawn(index, encode_value(INT8, drawn)), Bound((), ()))

    async def _look_at_written(self, work: TableWork, sizes: bool = False) -> None:
        """Ask the engine for the rows written so far, for their sizes, and look up the keys that weren't yet."""
        table, t = work.table, self._workspace.t_start
        if not sizes and not any(i is not None and i.unique for i in (table.primary_key, *table.indexes)):
            return
        limits, storage = self._processor.limits, self._processor.storage
        head = p.pack_i16(table.arity)
        written = await self._processor.rows_as_loader(extraction_sql(table, everything=False))
        images = [head + row[12:] for row in written if row[6]]
        encoder = table.key_encoder
        keys = [None] * len(images) if encoder is None else [encoder.from_row(image) for image in images]
        new = [key for key in keys if key is not None and key not in work.loaded and key not in work.verified]
        stored = dict(zip(new, storage.get_many(new, t), strict=True)) if new else {}
        for key, image in zip(keys, images, strict=True):
            if len(image) > limits.small_row_bytes:
                check_row(table, image, limits)
            if key in stored:
                value = stored[key]
                if value is not None:
                    raise DuplicateInSnapshot(table, [(key, value)])
                work.verified.add(key)
            for index, entry_encoder in table.plain_indexes:
                if not index.unique or (has_null(index, image) and not index.nulls_not_distinct):
                    continue
                entry = entry_encoder.from_row(image)
                if entry not in work.verified:
                    _refuse_strangers(work, unique_holders(table, entry, entry_encoder, storage, t))
                    work.verified.add(entry)


def _refuse_strangers(work: TableWork, holders: Sequence[Row]) -> None:
    strangers = [row for row in holders if row[0] not in work.loaded]
    if strangers:
        raise DuplicateInSnapshot(work.table, strangers)
