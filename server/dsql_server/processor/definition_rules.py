"""What Aurora DSQL refuses of a definition once the catalog is known: unfit keys, and the loss of a primary key."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsql_server.catalog.changes import CatalogChange
from dsql_server.catalog.state import CatalogState, Index, Table
from dsql_server.encoding import type_oids as t
from dsql_server.encoding.keys import prefix, prefix_end
from dsql_server.interfaces.commit_path import ScanRequest, StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.errors import SqlError
from dsql_server.statements import UNSUPPORTED_MODE, Definition

#: Declared bytes of a varchar(n) or char(n) that may stand in a key.
DECLARED_KEY_SIZE_MAX_BYTES = 2000
#: Bytes of a view's definition.
VIEW_DEFINITION_MAX_BYTES = 2 * 1024 * 1024

_IN_KEYS = frozenset(
    {
        *(t.BOOL, t.INT2, t.INT4, t.INT8, t.FLOAT4, t.FLOAT8, t.NUMERIC, t.TEXT, t.BPCHAR, t.VARCHAR),
        *(t.DATE, t.TIME, t.TIMESTAMP, t.TIMESTAMPTZ, t.UUID),
    }
)
_JSON, _JSONB = 114, 3802
_STORED = _IN_KEYS | {t.TIMETZ, t.INTERVAL, t.BYTEA, _JSON, _JSONB}
_NO_OPERATOR_CLASS = re.compile(r'data type (.+) has no default operator class for access method "btree"')
_SYSTEM_SCHEMA = "sys"
#: PostgreSQL's modifier of varchar(n) and char(n) is n and its header.
_MODIFIER_HEADER = 4


def refuse_dropped_columns(state: CatalogState, definition: Definition) -> None:
    """Raises SqlError for a column of the primary key, before the engine looks at what depends on it."""
    table = _only_table(state, definition) if definition.dropped_columns else None
    if table is not None and table.primary_key is not None:
        for name in definition.dropped_columns:
            if name in table.by_name:
                _refuse_dropped(table.primary_key, table.by_name[name].number, name)


def unfit_identity_types(state: CatalogState, definition: Definition) -> list[int]:
    """Object identifiers of the types of columns that can't become identity columns."""
    table = _only_table(state, definition) if definition.identity_columns else None
    columns = [table.by_name.get(name) for name in definition.identity_columns] if table is not None else []
    return [column.type_oid for column in columns if column is not None and column.type_oid != t.INT8]


def refuse_identity_type(shown: str) -> SqlError:
    """For a type that :func:`unfit_identity_types` found, under the name that an engine has for it."""
    return SqlError("0A000", f"datatype {shown} not supported, identity column type must be bigint")


def refuse_view(tag: str, sql: str) -> None:
    """Raises SqlError if a view's definition is too long."""
    if tag == "CREATE VIEW" and len(sql.encode()) > VIEW_DEFINITION_MAX_BYTES:
        raise SqlError("54000", "view definition too large")


def refuse_index_of_rows(table: Table, storage: StorageReader, snapshot: Timestamp) -> None:
    """Raises SqlError if the table has rows: their index is made by CREATE INDEX ASYNC."""
    start = prefix(table.relation_id)
    if storage.scan(ScanRequest(start, prefix_end(start), snapshot, limit=1)).rows:
        raise SqlError("0A000", UNSUPPORTED_MODE)


def unfit_column_types(change: CatalogChange, state: CatalogState) -> list[int]:
    """Object identifiers of new columns' types that aren't stored: tables' and views' row types, by whatever name."""
    found = []
    for table in change.upserts:
        known = state.tables.get(table.relation_id)
        new = table.columns[known.arity if known is not None else 0 :]
        found += [column.type_oid for column in new if not column.dropped and column.type_oid not in _STORED]
    return found


def refuse_column_type(shown: str) -> SqlError:
    """For a type that :func:`unfit_column_types` found, under the name that an engine has for it."""
    return SqlError("0A000", f"datatype {shown} not supported")


def unfit_key_types(change: CatalogChange, state: CatalogState) -> list[int]:
    """Object identifiers of types in new primary keys and indexes that may not stand there."""
    found = []
    for table, index in _new_indexes(change, state):
        if table.schema != _SYSTEM_SCHEMA:
            found += [oid for oid in index.key_type_oids if oid not in _IN_KEYS]
    return found


def refuse_key_type(shown: str) -> SqlError:
    """For a type that :func:`unfit_key_types` found, under the name that an engine has for it."""
    return SqlError("0A000", f"datatype {shown} is not supported in a key")


def without_operators(message: str) -> SqlError | None:
    """What an engine says of a key of a type that it can't order, in Aurora DSQL's words."""
    found = _NO_OPERATOR_CLASS.match(message)
    return refuse_key_type(found[1]) if found is not None else None


def check_keys(change: CatalogChange, state: CatalogState) -> None:
    """Raises SqlError if a table loses its primary key or a column of it, or if a new key is declared too long."""
    for table in change.upserts:
        known = state.tables.get(table.relation_id)
        if known is None or known.primary_key is None:
            continue
        for column in table.columns:
            if column.dropped:
                _refuse_dropped(known.primary_key, column.number, known.columns[column.number - 1].name)
        if table.primary_key is None:
            raise SqlError("0A000", "unsupported ALTER TABLE DROP CONSTRAINT statement")
    for table, index in _new_indexes(change, state):
        for key in (table.columns[number - 1] for number in index.columns if number):
            if key.type_oid not in (t.BPCHAR, t.VARCHAR):
                continue
            if key.modifier - _MODIFIER_HEADER > DECLARED_KEY_SIZE_MAX_BYTES:
                message = f"key size greater than {DECLARED_KEY_SIZE_MAX_BYTES} bytes not supported"
                raise SqlError("54000", message)


def _refuse_dropped(primary_key: Index, number: int, name: str) -> None:
    if number in primary_key.columns:
        raise SqlError("0A000", f"cannot drop primary key column {name}")


def _new_indexes(change: CatalogChange, state: CatalogState) -> Iterator[tuple[Table, Index]]:
    for table in change.upserts:
        known = state.tables.get(table.relation_id)
        before = {i.relation_id for i in _indexes(known)} if known is not None else set()
        for index in _indexes(table):
            if index.relation_id not in before:
                yield table, index


def _indexes(table: Table) -> tuple[Index, ...]:
    return table.indexes if table.primary_key is None else (table.primary_key, *table.indexes)


def _only_table(state: CatalogState, definition: Definition) -> Table | None:
    """The table that an ALTER TABLE names, unless the search path has to tell which one."""
    schema, name = definition.names[0]
    found = [x for x in state.tables.values() if x.name == name and schema in (None, x.schema)]
    return found[0] if len(found) == 1 else None
