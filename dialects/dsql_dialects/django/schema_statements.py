"""Constraints that take two statements on a table that exists, and none of their own in CREATE TABLE."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.db.backends.ddl_references import Statement

from dsql_dialects.django.schema_steps import Ddl

_INDEX_ASYNC = re.compile(
    r"^\s*CREATE\s+(UNIQUE\s+)?INDEX\s+ASYNC\s+(IF\s+NOT\s+EXISTS\s+)?"
    r"(?P<name>\"(?:[^\"]|\"\")+\"|\w+)\s+ON\s+(?P<schema>(?:\"(?:[^\"]|\"\")+\"|\w+)\.)?",
    re.IGNORECASE,
)
_VALIDATE = re.compile(r"^(ALTER TABLE) (\S+ VALIDATE CONSTRAINT )")
_TABLE_ASYNC = re.compile(r"^\s*ALTER\s+TABLE\s+ASYNC\b", re.IGNORECASE)

CONSTRAINT_OF_INDEX = re.compile(r"^ALTER TABLE (.+) ADD CONSTRAINT (.+) UNIQUE USING INDEX ")

#: AWS's linter finds fault with every ALTER INDEX; PostgreSQL takes an index's name here, too.
RENAME_INDEX = "ALTER TABLE %(old_name)s RENAME TO %(new_name)s"

ADD_UNIQUE = (
    "CREATE UNIQUE INDEX ASYNC %(name)s ON %(table)s (%(columns)s)%(nulls_distinct)s",
    "ALTER TABLE %(table)s ADD CONSTRAINT %(name)s UNIQUE USING INDEX %(name)s",
)
ADD_FOREIGN_KEY = (
    "ALTER TABLE %(table)s ADD CONSTRAINT %(name)s FOREIGN KEY (%(column)s) "
    "REFERENCES %(to_table)s (%(to_column)s)%(on_delete_db)s%(deferrable)s NOT VALID",
    "ALTER TABLE ASYNC %(table)s VALIDATE CONSTRAINT %(name)s",
)
ADD_CHECK = (
    "ALTER TABLE %(table)s ADD CONSTRAINT %(name)s CHECK (%(check)s) NOT VALID",
    "ALTER TABLE ASYNC %(table)s VALIDATE CONSTRAINT %(name)s",
)

_INLINE = {
    ADD_UNIQUE: "CONSTRAINT %(name)s UNIQUE%(nulls_distinct)s (%(columns)s)",
    ADD_FOREIGN_KEY: "CONSTRAINT %(name)s FOREIGN KEY (%(column)s) REFERENCES %(to_table)s (%(to_column)s)"
    "%(on_delete_db)s%(deferrable)s",
    ADD_CHECK: "CONSTRAINT %(name)s CHECK (%(check)s)",
}


class ConstraintStatement(Statement):
    """A constraint to be added: as statements, or inside CREATE TABLE."""

    def __init__(self, templates: tuple[str, str], **parts: Any) -> None:
        parts.setdefault("on_delete_db", "")  # since Django 6.1
        super().__init__("; ".join(templates), **parts)
        self.templates = templates

    def __str__(self) -> str:
        """As PostgreSQL would take it; ``AddConstraintNotValid`` appends to this."""
        return f"ALTER TABLE {self.parts['table']} ADD {self.inline}"

    @property
    def is_foreign_key(self) -> bool:
        """Whether it needs another table, which may not exist yet."""
        return self.templates is ADD_FOREIGN_KEY

    @property
    def is_check(self) -> bool:
        """Whether it needs nothing but the table's columns."""
        return self.templates is ADD_CHECK

    @property
    def inline(self) -> str:
        """The constraint as CREATE TABLE takes it."""
        return str(_INLINE[self.templates] % self.parts)

    def steps(self) -> Iterator[Ddl]:
        """The statements, one a transaction."""
        first, second = (template % self.parts for template in self.templates)
        undo = undo_of(first) if self.templates is ADD_UNIQUE else (self._drop(),)
        yield Ddl(first, undo)
        yield Ddl(second, (self._drop(),))

    def _drop(self) -> str:
        return f"ALTER TABLE {self.parts['table']} DROP CONSTRAINT IF EXISTS {self.parts['name']}"


def with_async(sql: str) -> str:
    """The statement of ``django.contrib.postgres``'s ValidateConstraint as DSQL takes it."""
    return _VALIDATE.sub(r"\1 ASYNC \2", sql)


def is_async(sql: str) -> bool:
    """Whether DSQL answers with a job to wait for."""
    return bool(_INDEX_ASYNC.match(sql) or _TABLE_ASYNC.match(sql))


def undo_of(sql: str) -> tuple[str, ...]:
    """What removes the invalid index that a failed build leaves, which would go on refusing rows."""
    match = _INDEX_ASYNC.match(sql)
    return () if match is None else (f"DROP INDEX IF EXISTS {match['schema'] or ''}{match['name']}",)
