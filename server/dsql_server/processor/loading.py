"""Stored rows on their way into an engine's tables."""

from __future__ import annotations

from struct import Struct

from dsql_server.catalog.state import Table
from dsql_server.encoding.rows import field_count, fields, join
from dsql_server.interfaces import protocol as p
from dsql_server.processor.engine_connection import EngineConnection
from dsql_server.processor.roles import LOADER_ROLE

#: More rows than this are loaded by COPY, fewer by one prepared INSERT.
INSERT_LOAD_MAX_ROWS = 8

#: Shorter rows have entries that fit into any index of an engine's.
NARROW_ROW_MAX_BYTES = 500

_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_COPY_CHUNK_BYTES = 1 << 20
_pack_count = Struct("!h").pack


def load_messages(connection: EngineConnection, table: Table, values: list[bytes]) -> tuple[bytes, int]:
    """Messages that put stored rows into the engine's table, and how many completions they answer with."""
    if not (table.passes_through and all(field_count(v) == table.arity for v in values)):
        values = [loadable_row(table, v) for v in values]
    if not table.loadable:
        name, parse = connection.statement(f"INSERT INTO {table.qualified_name} DEFAULT VALUES")
        data, count = parse + (p.bind_statement(name) + p.EXECUTE_UNNAMED) * len(values), len(values)
    elif len(values) <= INSERT_LOAD_MAX_ROWS:
        # A stored row is a field count and fields as Bind takes them, so its bytes pass through.
        rows = len(values)
        name, parse = connection.statement(table.load_sql(rows))
        row = values[0] if rows == 1 else _pack_count(rows * len(table.loadable)) + b"".join([v[2:] for v in values])
        bind = b"\x00" + name + b"\x00\x00\x01\x00\x01" + row + b"\x00\x00"
        data, count = parse + b"B" + p.pack_i32(len(bind) + 4) + bind + p.EXECUTE_UNNAMED, 1
    else:
        name, parse = connection.statement(
            f"COPY {table.qualified_name} ({table.column_list}) FROM STDIN (FORMAT binary)"
        )
        data = parse + p.bind_statement(name) + p.EXECUTE_UNNAMED + _copy_data(values) + p.COPY_DONE_MESSAGE
        count = 1
    if table.foreign_keys and not connection.loads_as_loader:
        # Loaded rows met their foreign keys when they were committed; nobody looks for the parents of the loader's.
        data, count = _between(connection, (f"SET LOCAL ROLE {LOADER_ROLE}", "RESET ROLE"), data), count + 2
    if table.unvalidated_checks or table.calls_in_checks:
        literal = table.qualified_name.replace("'", "''")
        off, on = (f"SELECT pg_catalog.engine_checks('{literal}'::pg_catalog.regclass, {v})" for v in ("false", "true"))
        data, count = _between(connection, (off, on), data), count + 2
    if table.is_covered and any(len(v) > NARROW_ROW_MAX_BYTES for v in values):
        data, count = narrowing_messages(connection, table, with_unique=True) + data, count + 1
    return data, count


def narrowing_messages(connection: EngineConnection, table: Table, with_unique: bool) -> bytes:
    """Messages after which the engine's transaction does without the table's covering indexes: one completion.

    What unique ones would refuse is looked for at COMMIT then (:func:`check_unbuilt`).
    """
    literal = table.qualified_name.replace("'", "''")
    call = f"pg_catalog.engine_narrow('{literal}'::pg_catalog.regclass, {str(with_unique).lower()})"
    name, parse = connection.statement(f"SELECT {call}")
    return parse + p.bind_statement(name) + p.EXECUTE_UNNAMED


def _between(connection: EngineConnection, around: tuple[str, str], data: bytes) -> bytes:
    """``data`` with one statement before and one behind it."""
    (first, parse_first), (last, parse_last) = connection.statement(around[0]), connection.statement(around[1])
    return (
        parse_first + p.bind_statement(first) + p.EXECUTE_UNNAMED + data
        + parse_last + p.bind_statement(last) + p.EXECUTE_UNNAMED
    )  # fmt: skip


def loadable_row(table: Table, value: bytes) -> bytes:
    """A stored row as a load takes it: columns added since are NULL, dropped and generated ones left out."""
    row = fields(value)
    row += [None] * (table.arity - len(row))
    return join([row[i] for i in table.loadable])


def full_row(table: Table, value: bytes) -> bytes:
    """A stored row with all of today's columns."""
    if field_count(value) >= table.arity:
        return value
    row = fields(value)
    return join(row + [None] * (table.arity - len(row)))


def _copy_data(values: list[bytes]) -> bytes:
    chunks, current, size = [], [_COPY_HEADER], 0
    for value in values:
        current.append(value)
        size += len(value)
        if size > _COPY_CHUNK_BYTES:
            chunks.append(p.message(b"d", b"".join(current)))
            current, size = [], 0
    current.append(_COPY_TRAILER)
    chunks.append(p.message(b"d", b"".join(current)))
    return b"".join(chunks)
