"""Uniqueness under an index that is still being built, or whose build failed.

Stored rows may violate such an index, and loads must go through all the same, so the engine doesn't keep it. What a
transaction writes is held against the stored entries here, at COMMIT.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dsql_server.catalog.state import Index, Table
from dsql_server.encoding.keys import KeyEncoder, prefix_end
from dsql_server.encoding.rows import fields
from dsql_server.interfaces.commit_path import ScanRequest, StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.errors import SqlError


def unique_violation(index: Index) -> SqlError:
    """PostgreSQL's error; without the values of the key, which only an engine can print."""
    return SqlError("23505", f'duplicate key value violates unique constraint "{index.name}"')


def check_unbuilt(
    table: Table, written: Mapping[bytes, bytes], gone: Collection[bytes], storage: StorageReader, t: Timestamp
) -> None:
    """Raises SqlError if a written row has a unique key that another row holds.

    ``written`` are the transaction's rows by key, with all of today's columns; ``gone`` the keys that it deleted.
    """
    for index, encoder in table.unbuilt_unique_indexes:
        taken: set[bytes] = set()
        for image in written.values():
            row = fields(image)
            if not index.nulls_not_distinct and any(row[n - 1] is None for n in index.columns):
                continue
            entry = encoder.from_row(image)
            if entry in taken or _is_held(table, entry, encoder, written, gone, storage, t):
                raise unique_violation(index)
            taken.add(entry)


def _is_held(
    table: Table,
    entry: bytes,
    encoder: KeyEncoder,
    written: Mapping[bytes, bytes],
    gone: Collection[bytes],
    storage: StorageReader,
    t: Timestamp,
) -> bool:
    """Whether a row that the transaction left alone holds the entry."""
    for _, key in storage.scan(ScanRequest(entry, prefix_end(entry), t)).rows:
        if key in written or key in gone:
            continue
        value = storage.get(key, t)
        if value is not None:
            row = fields(value)
            if encoder.from_fields(row + [None] * (table.arity - len(row))) == entry:
                return True
    return False
