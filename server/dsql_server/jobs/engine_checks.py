"""Checks of stored rows that only an engine can make: they are loaded into one, and PostgreSQL is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

from dsql_server.catalog.state import ForeignKey, Index, Table, quote_identifier, quote_literal
from dsql_server.encoding.keys import KeyEncoder, prefix, prefix_end
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import ScanRequest, StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import Row, comparable
from dsql_server.processor.ddl import index_validity_sql
from dsql_server.processor.engine_connection import EngineConnection, EngineError
from dsql_server.processor.loading import full_row, load_messages
from dsql_server.processor.pool import ProcessorPool
from dsql_server.processor.roles import ENGINE_ROLE, LOADER_ROLE
from dsql_server.processor.write_set import unique_holders

#: Rows that are loaded and checked at a time.
CHECK_BATCH_ROWS = 2000
_UNIQUE_VIOLATION = "23505"
_INTEGRITY_VIOLATIONS = "23"


@asynccontextmanager
async def _private_transaction(pool: ProcessorPool, prepare: str = "SELECT") -> AsyncIterator[EngineConnection]:
    """A transaction in an engine database of its own; rolled back at the end.

    Only ``prepare`` runs as the engine's superuser. Rows meet functions that users wrote, in constraints and indexes:
    those run for a role that may read and write rows and nothing else.
    """
    processor = await pool.lease(ENGINE_ROLE, {})
    connection = processor.connection
    assert connection is not None, "leased processors are connected"
    try:
        await connection.execute("BEGIN")
        await connection.execute(prepare)
        await _act_as(connection, LOADER_ROLE)
        yield connection
        await connection.execute("ROLLBACK")
    finally:
        pool.give_back(processor)


async def _act_as(connection: EngineConnection, role: str) -> None:
    """Make ``role`` the session's user until the transaction's end, or until it is made another."""
    await connection.execute("RESET SESSION AUTHORIZATION")
    await connection.execute(f"SET LOCAL SESSION AUTHORIZATION {quote_identifier(role)}")


async def _owner(connection: EngineConnection, table: Table) -> str:
    answer = await connection.execute(
        "SELECT pg_catalog.pg_get_userbyid(relowner) FROM pg_catalog.pg_class "
        f"WHERE oid = {quote_literal(table.qualified_name)}::pg_catalog.regclass"
    )
    return (p.data_row_fields(answer.rows[0][0])[0] or b"").decode()


async def _load(connection: EngineConnection, table: Table, rows: Sequence[Row]) -> None:
    if rows:
        data, _ = load_messages(connection, table, [value for _, value in rows])
        await connection.run(data + p.SYNC)
        connection.confirm_statements()


def _batches(storage: StorageReader, table: Table, t: Timestamp) -> Iterator[list[Row]]:
    start = prefix(table.relation_id)
    end = prefix_end(start)
    while rows := storage.scan(ScanRequest(start, end, t, limit=CHECK_BATCH_ROWS)).rows:
        yield rows
        start = rows[-1][0] + b"\x00"


async def holds_unique_index(
    pool: ProcessorPool, storage: StorageReader, table: Table, index: Index, t: Timestamp
) -> bool:
    """Whether the rows as of ``t`` violate the index neither among each other nor any other unique index."""
    async with _private_transaction(pool, index_validity_sql(index, valid=False, ready=True)) as connection:
        try:
            for rows in _batches(storage, table, t):
                await _load(connection, table, rows)
        except EngineError as error:
            if error.fields.get("C") != _UNIQUE_VIOLATION:
                raise
            return False
    return True


async def violation(
    pool: ProcessorPool, storage: StorageReader, tables: dict[int, Table], table: Table, constraint: str, t: Timestamp
) -> str | None:
    """What PostgreSQL says about the first rows as of ``t`` that violate the constraint; None if all meet it."""
    key = next((k for k in table.foreign_keys if k.name == constraint), None)
    validate = f"ALTER TABLE {table.qualified_name} VALIDATE CONSTRAINT {quote_identifier(constraint)}"
    for rows in _batches(storage, table, t):
        async with _private_transaction(pool) as connection:
            loaded = rows
            if key is not None and key.referenced_id == table.relation_id:
                parents = _referenced_rows(storage, table, table, key, rows, t)
                loaded = list({**dict(rows), **dict(parents)}.items())
            elif key is not None:
                parent = tables[key.referenced_id]
                await _load(connection, parent, _referenced_rows(storage, table, parent, key, rows, t))
            await _load(connection, table, loaded)
            await _act_as(connection, await _owner(connection, table))
            try:
                await connection.execute(validate)
            except EngineError as error:
                if not error.fields.get("C", "").startswith(_INTEGRITY_VIOLATIONS):
                    raise
                return error.fields.get("M", "")
    return None


def _referenced_rows(
    storage: StorageReader, table: Table, parent: Table, key: ForeignKey, rows: Sequence[Row], t: Timestamp
) -> list[Row]:
    """The rows of ``parent`` that the foreign key of ``rows`` names, or more."""
    columns = dict(zip(key.referenced_columns, key.columns, strict=True))
    for index in (parent.primary_key, *parent.indexes):
        if index is not None and index.unique and index.plain and set(index.columns) == columns.keys():
            encoder = _reference_encoder(table, parent, index, columns)
            if encoder is not None:
                return _look_up(storage, table, parent, index, encoder, rows, t)
    start = prefix(parent.relation_id)
    return storage.scan(ScanRequest(start, prefix_end(start), t)).rows


def _reference_encoder(table: Table, parent: Table, index: Index, columns: dict[int, int]) -> KeyEncoder | None:
    """Makes the parent's key of a row of ``table``; None where the columns' types compare in another way."""
    positions = []
    for number, oid in zip(index.columns, index.key_type_oids, strict=True):
        column = table.columns[columns[number] - 1]
        if not comparable(oid, column.type_oid):
            return None
        positions.append((column.number - 1, column.type_oid))
    return KeyEncoder(parent.relation_id if index.primary else index.relation_id, positions)


def _look_up(
    storage: StorageReader,
    table: Table,
    parent: Table,
    index: Index,
    encoder: KeyEncoder,
    rows: Sequence[Row],
    t: Timestamp,
) -> list[Row]:
    keys = sorted({encoder.from_row(full_row(table, value)) for _, value in rows})
    if index.primary:
        found = storage.get_many(keys, t)
        return [(k, v) for k, v in zip(keys, found, strict=True) if v is not None]
    own = next(e for i, e in parent.plain_indexes if i.relation_id == index.relation_id)
    holders = (unique_holders(parent, entry, own, storage, t) for entry in keys)
    return list(dict(row for found in holders for row in found).items())
