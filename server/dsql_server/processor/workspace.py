"""The private workspace of one transaction: what was loaded into the engine, what the transaction wrote and locked.

Loads run inside a subtransaction, so that loaded rows carry another ``xmin`` than the transaction's own. At COMMIT the
rows that carry the transaction's own are its inserts and updates, loaded keys that are gone are its deletes, and
loaded rows whose ``xmax`` is its own are those it locked. No trigger, nothing to see in the user's catalog.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from struct import Struct

from dsql_server.catalog.state import FIRST_USER_RELATION_ID, CatalogState, Index, Table
from dsql_server.encoding.keys import NOT_NULL, RELATION_PREFIX_BYTES, KeyEncoder, prefix, prefix_end
from dsql_server.encoding.rows import field_count, fields, join
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import ScanRequest, StorageReader
from dsql_server.interfaces.limits import DSQL_LIMITS, MIB, Limits
from dsql_server.interfaces.messages import Claim, CommitRequest, LockMode, Mutation, Timestamp
from dsql_server.processor.access import Bound, Row
from dsql_server.processor.engine_connection import EngineConnection
from dsql_server.processor.errors import LimitExceeded
from dsql_server.processor.roles import LOADER_ROLE
from dsql_server.processor.row_limits import check_row
from dsql_server.processor.unbuilt_indexes import check_unbuilt

#: More rows than this are loaded by COPY, fewer by one prepared INSERT.
INSERT_LOAD_MAX_ROWS = 8

#: Shorter rows have entries that fit into any index of an engine's.
NARROW_ROW_MAX_BYTES = 500

_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_COPY_CHUNK_BYTES = 1 << 20
_pack_count = Struct("!h").pack
_OWN_ROW = "pg_catalog.pg_current_xact_id_if_assigned()::xid"
#: Offset of the image in an answer row: field count, then two booleans with their lengths.
_IMAGE_AT = 2 + 5 + 5
_HIDDEN_KEY_BYTES = 16
_FIRST_USER_KEY = prefix(FIRST_USER_RELATION_ID)


class DuplicateInSnapshot(Exception):
    """A key that the transaction wrote was taken already when it began. ``rows`` are the rows that hold it."""

    def __init__(self, table: Table, rows: list[Row]) -> None:
        self.table = table
        self.rows = rows


class TableWork:
    """One table's part of the workspace."""

    __slots__ = ("loaded", "lock_mode", "locked", "may_lose_rows", "table", "verified", "whole", "written")

    def __init__(self, table: Table) -> None:
        self.table = table
        self.loaded: dict[bytes, bytes] = {}
        self.written = False
        self.locked = False
        self.may_lose_rows = False  #: a DELETE or a key update ran
        self.lock_mode = LockMode.KEY_SHARE
        self.verified: set[bytes] = set()  #: new keys known to be free in the snapshot
        self.whole = False


class Untold:
    """A row that the transaction has inserted and that the engine hasn't been told of.

    ``keys`` are its primary key and those of its unique index entries, which are known to be free in the snapshot.
    """

    __slots__ = ("_changes", "bound", "keys", "parameter_oids", "row", "sql", "table")

    def __init__(
        self, table: Table, row: bytes, keys: list[bytes], sql: str, parameter_oids: tuple[int, ...], bound: Bound
    ) -> None:
        self.table = table
        self.row = row
        self.keys = keys
        self.sql = sql  #: the INSERT
        self.parameter_oids = parameter_oids
        self.bound = bound  #: what it was executed with
        self._changes: tuple[list[Claim], list[Mutation]] | None = None

    def changes(self) -> tuple[list[Claim], list[Mutation]]:
        """What its table and indexes come to. Made once: COMMIT finds it ready if there was time before."""
        if self._changes is None:
            table, row = self.table, self.row
            encoder = table.key_encoder
            if encoder is None:
                key = prefix(table.relation_id) + NOT_NULL + os.urandom(_HIDDEN_KEY_BYTES)
                claims = [Claim(key, LockMode.UPDATE)]
            else:
                key = self.keys[0]
                claims = []
            claims += [Claim(taken, LockMode.UPDATE) for taken in self.keys]
            own = key[RELATION_PREFIX_BYTES:]
            mutations = [Mutation(key, row)]
            for _, entry_encoder in table.plain_indexes:
                mutations.append(Mutation(entry_encoder.from_row(row) + own, key))
            self._changes = claims, mutations
        return self._changes


class Workspace:
    """See the module. One per transaction; the session owns it and the engine transaction behind it."""

    __slots__ = (
        "began_at",
        "catalog",
        "limits",
        "reads_only",
        "row_count",
        "t_start",
        "tables",
        "transaction_id",
        "untold",
    )

    def __init__(self, t_start: Timestamp, catalog: CatalogState, limits: Limits = DSQL_LIMITS) -> None:
        self.limits = limits
        self.transaction_id = os.urandom(16)
        self.t_start = t_start
        self.catalog = catalog
        self.tables: dict[int, TableWork] = {}
        self.row_count = 0
        self.reads_only: bool | None = None  #: what BEGIN said; None: nothing
        #: Inserted rows, in order. The engine's first statement in the transaction is preceded by all of them.
        self.untold: list[Untold] = []
        self.began_at = time.monotonic()

    @property
    def wrote(self) -> bool:
        """Whether COMMIT has anything to look for."""
        return any(w.written or w.locked for w in self.tables.values())

    def work(self, table: Table) -> TableWork:
        work = self.tables.get(table.relation_id)
        if work is None:
            work = self.tables[table.relation_id] = TableWork(table)
        return work

    def dirty_tables(self) -> set[int]:
        """Tables that may hold rows which storage doesn't have."""
        return {k for k, w in self.tables.items() if w.written}

    def count_rows(self, changed: int) -> None:
        """Count changed rows. Raises LimitExceeded at the statement that crosses the limit."""
        self.row_count += changed
        if self.row_count > self.limits.transaction_rows:
            raise LimitExceeded("transaction row limit exceeded")

    # -- loading ---------------------------------------------------------------------------------------------

    def load(self, connection: EngineConnection, groups: Sequence[tuple[Table, list[Row]]]) -> tuple[bytes, int]:
        """Messages that load what isn't loaded yet, and how many completions they answer with."""
        parts: list[bytes] = []
        completions = 0
        for table, rows in groups:
            if not rows:
                continue
            loaded = self.work(table).loaded
            fresh = [row for row in rows if row[0] not in loaded] if loaded else rows
            if fresh:
                loaded.update(fresh)
                if len(fresh) > 1 and len(fresh) != len({k for k, _ in fresh}):
                    fresh = list(dict(fresh).items())
                data, count = load_messages(connection, table, [value for _, value in fresh])
                parts.append(data)
                completions += count
        return b"".join(parts), completions

    # -- rows that the engine isn't told of ------------------------------------------------------------------

    def tell(self, connection: EngineConnection) -> tuple[bytes, int]:
        """Messages that make the engine insert its untold rows, and how many completions they answer with."""
        parts = []
        for untold in self.untold:
            name, parse = connection.statement(untold.sql, untold.parameter_oids)
            parts.append(parse + p.bind_values(untold.bound.values, untold.bound.formats, name) + p.EXECUTE_UNNAMED)
        told = len(self.untold)
        self.untold = []
        return b"".join(parts), told

    def untold_request(self) -> CommitRequest:
        """The commit request of a transaction that has done nothing but insert rows which the engine wasn't told of.

        Raises LimitExceeded.
        """
        claims: list[Claim] = []
        mutations: list[Mutation] = []
        for untold in self.untold:
            own_claims, own_mutations = untold.changes()
            claims += own_claims
            mutations += own_mutations
        return self._request(claims, mutations, len(self.untold))

    # -- the write set ---------------------------------------------------------------------------------------

    def extraction(self, connection: EngineConnection) -> tuple[bytes, list[TableWork]]:
        """Messages that read the changed and locked rows, and the tables that the answers belong to, in order."""
        parts = []
        works = [w for w in self.tables.values() if w.written or w.locked]
        for work in works:
            name, parse = connection.statement(extraction_sql(work.table, everything=work.may_lose_rows))
            parts.append(parse + p.bind_statement(name, binary_results=True) + p.EXECUTE_UNNAMED)
        return b"".join(parts), works

    def count_exactly(self, works: list[TableWork], answers: list[list[bytes]], storage: StorageReader) -> None:
        """Count the changed rows from the answers to :meth:`extraction`. Raises LimitExceeded for too many."""
        changed = 0
        for work, rows in zip(works, answers, strict=False):
            changed += _TableDelta(self, work, [], []).collect(rows, storage)
        if changed > self.limits.transaction_rows:
            raise LimitExceeded("transaction row limit exceeded")

    def commit_request(
        self, works: list[TableWork], answers: list[list[bytes]], storage: StorageReader
    ) -> CommitRequest:
        """The commit request from the answers to :meth:`extraction`.

        Raises DuplicateInSnapshot if a new key was taken before the transaction began, and LimitExceeded.
        """
        claims: list[Claim] = []
        mutations: list[Mutation] = []
        changed = 0
        for work, rows in zip(works, answers, strict=False):
            changed += _TableDelta(self, work, claims, mutations).collect(rows, storage)
        return self._request(claims, mutations, changed)

    def _request(self, claims: list[Claim], mutations: list[Mutation], changed: int) -> CommitRequest:
        if changed > self.limits.transaction_rows:
            raise LimitExceeded("transaction row limit exceeded")
        size = 0
        for key, value in mutations:
            size += len(key) + (len(value) if value is not None else 0)
        limit = self.limits.transaction_size_bytes
        if size > limit:
            shown = f"{-(-limit // MIB)}mb"
            raise LimitExceeded(
                f"transaction size limit {shown} exceeded", f"Current transaction size {-(-size // MIB)}mb > {shown}"
            )
        return CommitRequest(
            self.transaction_id, self.t_start, self.catalog.version, tuple(claims), tuple(mutations), None
        )


def writes_system_table(request: CommitRequest) -> bool:
    """Whether the request changes a table of the machinery, by whatever way it came to that."""
    return any(key < _FIRST_USER_KEY for key, _ in request.mutations)


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
    if table.unvalidated_checks:
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


def extraction_sql(table: Table, everything: bool) -> str:
    """The query for a table's own and locked rows; with ``everything`` also the loaded ones that are left."""
    where = "" if everything else f" WHERE xmin = {_OWN_ROW} OR xmax = {_OWN_ROW}"
    separator = ", " if table.image_list else ""
    return (
        f"SELECT coalesce(xmin = {_OWN_ROW}, false), coalesce(xmax = {_OWN_ROW}, false){separator}{table.image_list} "
        f"FROM ONLY {table.mark} {table.qualified_name}{where}"
    )


class _TableDelta:
    """Turns one table's rows at COMMIT into claims and mutations."""

    def __init__(self, workspace: Workspace, work: TableWork, claims: list[Claim], mutations: list[Mutation]) -> None:
        self._workspace = workspace
        self._work = work
        self._table = work.table
        self._claims = claims
        self._mutations = mutations

    def collect(self, rows: list[bytes], storage: StorageReader) -> int:
        """Adds to claims and mutations; returns the number of changed rows."""
        own: list[bytes] = []
        locked: list[bytes] = []
        left: list[bytes] = []
        arity = _pack_count(self._table.arity)
        limits = self._workspace.limits
        small = limits.small_row_bytes
        for row in rows:
            image = arity + row[_IMAGE_AT:]
            if row[6]:
                if len(image) > small:
                    check_row(self._table, image, limits)
                own.append(image)
            else:
                left.append(image)
                if row[11]:
                    locked.append(image)
        encoder = self._table.key_encoder
        if encoder is None:
            return self._collect_without_key(own, left, locked, storage)
        return self._collect_keyed(encoder, own, left, locked, storage)

    def _collect_keyed(
        self, encoder: KeyEncoder, own: list[bytes], left: list[bytes], locked: list[bytes], storage: StorageReader
    ) -> int:
        work, claims, mutations = self._work, self._claims, self._mutations
        loaded = work.loaded
        key_of = encoder.from_row
        written = {}
        for image in own:
            key = key_of(image)
            written[key] = image
            before = loaded.get(key)
            if before is None:
                self._check_free(key, storage)
                claims.append(Claim(key, LockMode.UPDATE))
            else:
                same = self._same_keys(before, image)
                claims.append(Claim(key, LockMode.NO_KEY_UPDATE if same else LockMode.UPDATE))
            mutations.append(Mutation(key, image))
            self._index_entries(key, before, image, storage)
        gone = []
        if work.may_lose_rows:
            remaining = {key_of(image) for image in left}
            for key, before in loaded.items():
                if key not in remaining and key not in written:
                    claims.append(Claim(key, LockMode.UPDATE))
                    mutations.append(Mutation(key, None))
                    self._index_entries(key, before, None, storage)
                    gone.append(key)
        for image in locked:
            claims.append(Claim(key_of(image), work.lock_mode))
        if self._table.unbuilt_unique_indexes:
            check_unbuilt(self._table, written, gone, storage, self._workspace.t_start)
        return len(own) + len(gone)

    def _collect_without_key(
        self, own: list[bytes], left: list[bytes], locked: list[bytes], storage: StorageReader
    ) -> int:
        """Rows with a hidden key: equal rows are interchangeable, so they are matched by content."""
        loaded = self._work.loaded
        keys: dict[bytes, list[bytes]] = {}
        for key, value in loaded.items():
            keys.setdefault(full_row(self._table, value), []).append(key)
        written, lost = {}, []
        for image in own:
            key = prefix(self._table.relation_id) + NOT_NULL + os.urandom(_HIDDEN_KEY_BYTES)
            self._claims.append(Claim(key, LockMode.UPDATE))
            self._mutations.append(Mutation(key, image))
            self._plain_entries(key, None, image)
            written[key] = image
        if self._work.may_lose_rows:
            gone = Counter({content: len(found) for content, found in keys.items()})
            gone.subtract(left)
            for content, count in gone.items():
                for key in keys.get(content, [])[: max(count, 0)]:
                    self._claims.append(Claim(key, LockMode.UPDATE))
                    self._mutations.append(Mutation(key, None))
                    self._plain_entries(key, content, None)
                    lost.append(key)
        for image in locked:
            for key in keys.get(image, []):
                self._claims.append(Claim(key, self._work.lock_mode))
        if self._table.unbuilt_unique_indexes:
            check_unbuilt(self._table, written, lost, storage, self._workspace.t_start)
        return len(own)

    def _check_free(self, key: bytes, storage: StorageReader) -> None:
        if key not in self._work.verified:
            value = storage.get(key, self._workspace.t_start)
            if value is not None:
                raise DuplicateInSnapshot(self._table, [(key, value)])

    def _same_keys(self, before: bytes, after: bytes) -> bool:
        columns = self._table.key_columns
        primary = self._table.primary_key
        assert primary is not None
        beyond = columns.difference(primary.columns)
        if not beyond:
            return True
        old, new = fields(full_row(self._table, before)), fields(after)
        return all(old[n - 1] == new[n - 1] for n in beyond)

    def _index_entries(self, key: bytes, before: bytes | None, after: bytes | None, storage: StorageReader) -> None:
        table = self._table
        if before is not None:
            before = full_row(table, before)
        for index, encoder in table.plain_indexes:
            old = encoder.from_row(before) if before is not None else None
            new = encoder.from_row(after) if after is not None else None
            if old == new:
                continue
            self._move_entry(key, old, new)
            if new is not None and index.unique and (index.nulls_not_distinct or not has_null(index, after)):
                self._claims.append(Claim(new, LockMode.UPDATE))
                if index.valid:
                    self._check_entry_free(new, encoder, storage)
        if after is not None and table.opaque_unique_indexes:
            self._claim_opaque(before, after)

    def _claim_opaque(self, before: bytes | None, after: bytes) -> None:
        """Claim the keys of partial and expression indexes, as far as they can be told without the engine."""
        old, new = fields(before) if before is not None else None, fields(after)
        for index, encoder, columns in self._table.opaque_unique_indexes:
            if old is not None and all(old[n - 1] == new[n - 1] for n in columns):
                continue
            if encoder is None:
                self._claims.append(Claim(prefix(index.relation_id), LockMode.UPDATE))
            elif index.nulls_not_distinct or not has_null(index, after):
                self._claims.append(Claim(encoder.from_row(after), LockMode.UPDATE))

    def _plain_entries(self, key: bytes, before: bytes | None, after: bytes | None) -> None:
        for index, encoder in self._table.plain_indexes:
            old = encoder.from_row(before) if before is not None else None
            new = encoder.from_row(after) if after is not None else None
            self._move_entry(key, old, new)
            if new is not None and index.unique and (index.nulls_not_distinct or not has_null(index, after)):
                self._claims.append(Claim(new, LockMode.UPDATE))
        if after is not None and self._table.opaque_unique_indexes:
            self._claim_opaque(before, after)

    def _move_entry(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        if old is not None:
            self._mutations.append(Mutation(old + key[4:], None))
        if new is not None:
            self._mutations.append(Mutation(new + key[4:], key))

    def _check_entry_free(self, entry: bytes, encoder: KeyEncoder, storage: StorageReader) -> None:
        if entry not in self._work.verified:
            holders = unique_holders(self._table, entry, encoder, storage, self._workspace.t_start)
            strangers = [row for row in holders if row[0] not in self._work.loaded]
            if strangers:
                raise DuplicateInSnapshot(self._table, strangers)


def has_null(index: Index, image: bytes | None) -> bool:
    """Whether a key column of ``index`` is NULL in the row."""
    row = fields(image) if image is not None else []
    return any(row[n - 1] is None for n in index.columns)


def unique_holders(table: Table, entry: bytes, encoder: KeyEncoder, storage: StorageReader, t: Timestamp) -> list[Row]:
    """Stored rows that hold the unique key ``entry`` as of ``t``. Entries may be stale, so the rows are asked."""
    found = storage.scan(ScanRequest(entry, prefix_end(entry), t)).rows
    holders = []
    for _, row_key in found:
        value = storage.get(row_key, t)
        if value is not None and encoder.from_row(full_row(table, value)) == entry:
            holders.append((row_key, value))
    return holders
