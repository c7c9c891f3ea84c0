"""How far a migration got, so that one that failed half-way can be run again.

A migration on DSQL is many transactions. What is done is noted in a table beside Alembic's own, as long as the
migration runs: a change of rows in its own transaction, a definition right after it. When the version is written, the
table goes; when the migration fails, it stays, and the next run leaves out what it names.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, MetaData, Table, Text, inspect, schema, select
from sqlalchemy.sql import dml, elements

from dsql_dialects.sqlalchemy.base import commit_now

log = logging.getLogger("alembic.runtime.migration")

_DEFINING = re.compile(r"\s*(CREATE|ALTER|DROP|COMMENT|GRANT|REVOKE|AWS)\b", re.IGNORECASE)
_WRITING = re.compile(r"\s*(INSERT|UPDATE|DELETE|WITH|COPY)\b", re.IGNORECASE)
_SHOWN_CHARACTERS = 120


class Statement(NamedTuple):
    """One operation of a migration."""

    digest: str  #: of its text and parameters
    text: str  #: for the log
    is_definition: bool


class Progress:
    """What the migration under way has done."""

    def __init__(self, connection: Connection, version_table: Table) -> None:
        self._connection = connection
        # Kept apart from the version table's metadata: nobody creates or compares it.
        self._table = Table(
            f"{version_table.name}_unfinished",
            MetaData(),
            Column("statement_id", Text, primary_key=True),
            Column("statement", Text, nullable=False),
            schema=version_table.schema,
        )
        self._exists = inspect(connection).has_table(self._table.name, schema=self._table.schema)
        self._left: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        if self._exists:
            rows = connection.execute(select(self._table.c.statement_id)).scalars()
            self._left.update(row.partition("#")[0] for row in rows)

    def statement_of(self, construct: Any, parameters: Any, dialect: Any) -> Statement | None:
        """The operation to note, or None for one that only reads."""
        compiled = construct.compile(dialect=dialect)
        shown = str(compiled).strip()
        is_definition = isinstance(construct, schema.ExecutableDDLElement) or _DEFINING.match(shown) is not None
        writes = isinstance(construct, dml.UpdateBase) or (
            isinstance(construct, elements.TextClause) and _WRITING.match(shown) is not None
        )
        if not is_definition and not writes:
            return None
        given = repr((shown, getattr(compiled, "params", None), parameters))
        return Statement(hashlib.sha256(given.encode()).hexdigest(), shown, is_definition)

    def is_done(self, statement: Statement) -> bool:
        """Whether an earlier run did it. Each time that a run did it counts for one."""
        if not self._left[statement.digest]:
            return False
        self._left[statement.digest] -= 1
        self._seen[statement.digest] += 1
        log.info("done by an earlier, unfinished run: %s", " ".join(statement.text.split())[:_SHOWN_CHARACTERS])
        return True

    def prepare(self) -> None:
        """Make the table, before the first statement that could be noted there."""
        if not self._exists:
            self._connection.execute(schema.CreateTable(self._table))
            self._exists = True

    def note(self, statement: Statement) -> None:
        """Note what was done, in the transaction under way."""
        self._seen[statement.digest] += 1
        row = {
            "statement_id": f"{statement.digest}#{self._seen[statement.digest]}",
            "statement": statement.text[:_SHOWN_CHARACTERS],
        }
        self._connection.execute(self._table.insert(), [row])

    def finish(self) -> None:
        """The migration's version is written: commit it, and forget."""
        self._left.clear()
        self._seen.clear()
        if self._exists:
            self._connection.execute(self._table.delete())
            commit_now(self._connection)
            self._connection.execute(schema.DropTable(self._table))
            self._exists = False
