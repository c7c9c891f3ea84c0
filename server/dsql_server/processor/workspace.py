"""The private workspace of one transaction: what was loaded into the engine, what the transaction wrote and locked.

Loads run inside a subtransaction, so that loaded rows carry another ``xmin`` than the transaction's own. At COMMIT the
rows that carry the transaction's own are its inserts and updates, loaded keys that are gone are its deletes, and
loaded rows whose ``xmax`` is its own are those it locked. No trigger, nothing to see in the user's catalog.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from dsql_server.catalog.state import FIRST_USER_RELATION_ID, CatalogState, Table
from dsql_server.encoding.keys import RELATION_PREFIX_BYTES, prefix
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import StorageReader
from dsql_server.interfaces.limits import DSQL_LIMITS, MIB, Limits
from dsql_server.interfaces.messages import Claim, CommitRequest, LockMode, Mutation, Timestamp
from dsql_server.processor.access import Bound, Row
from dsql_server.processor.engine_connection import EngineConnection
from dsql_server.processor.errors import LimitExceeded
from dsql_server.processor.loading import load_messages
from dsql_server.processor.write_set import TableDelta, TableWork, extraction_sql, hidden_key

_FIRST_USER_KEY = prefix(FIRST_USER_RELATION_ID)


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
                key = hidden_key(table)
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
            changed += TableDelta(work, self.limits, self.t_start, [], []).collect(rows, storage)
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
            changed += TableDelta(work, self.limits, self.t_start, claims, mutations).collect(rows, storage)
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
