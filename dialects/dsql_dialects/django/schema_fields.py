"""The steps that add and remove a field's column, and what they share with those that alter one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django.db.backends.utils import strip_quotes

from dsql_dialects.django.schema_catalog import Column, Table
from dsql_dialects.django.schema_names import not_null_name, split_table
from dsql_dialects.django.schema_rebuild import TableRebuild
from dsql_dialects.django.schema_steps import Backfill, Ddl, Step

if TYPE_CHECKING:
    from dsql_dialects.django.schema import DatabaseSchemaEditor

_DEFAULT = "DEFAULT "
_IDENTITY = re.compile(r"GENERATED (?P<when>ALWAYS|BY DEFAULT) AS IDENTITY \((?P<options>.*)\)")


def identity_of(field: Any, connection: Any) -> tuple[str | None, str]:
    """How a field's identity column gets its values, and the sequence's options; None if it is no identity."""
    match = _IDENTITY.match(field.db_type_suffix(connection=connection) or "")
    return (None, "") if match is None else (match["when"], match["options"])


class FieldChange:
    """A change of one column of a model's table."""

    def __init__(self, editor: DatabaseSchemaEditor, model: Any) -> None:
        self.editor = editor
        self.model = model
        self.quote = editor.quote_name
        self.table_name = editor.quote_name(model._meta.db_table)

    def column_name(self, field: Any) -> str:
        """The column's name as the catalog has it; ``db_column`` may be given in quotes."""
        return str(strip_quotes(field.column))

    @property
    def meta_constraints(self) -> set[str]:
        """Names of constraints that the model has of its own."""
        return {constraint.name for constraint in self.model._meta.constraints}

    @property
    def meta_indexes(self) -> set[str]:
        """Names of indexes that the model has of its own."""
        return {index.name for index in self.model._meta.indexes}

    def key(self, table: Table) -> tuple[str, ...]:
        """The primary key's columns, quoted."""
        if table.exists:
            return tuple(map(self.quote, table.primary_key.columns)) if table.primary_key else ()
        key = self.model._meta.pk  # sqlmigrate of a table that isn't there yet
        return tuple(map(self.quote, getattr(key, "columns", None) or (key.column,)))

    def default(self, field: Any) -> str | None:
        """What existing rows get, in SQL."""
        permanent = self.database_default(field)
        if permanent is not None:
            return permanent
        value = self.editor.effective_default(field)
        return None if value is None else self.editor.composed("%s", [value])

    def database_default(self, field: Any) -> str | None:
        """``db_default``, or the default of a key that has one, in SQL."""
        suffix = field.db_type_suffix(connection=self.editor.connection) or ""
        if suffix.startswith(_DEFAULT):
            return str(suffix.removeprefix(_DEFAULT))
        if not self.editor.has_database_default(field):
            return None
        sql, params = self.editor.db_default_sql(field)
        return self.editor.composed(sql, params)

    def alter(self, change: str, *undo: str) -> Ddl:
        """ALTER TABLE."""
        return Ddl(f"ALTER TABLE {self.table_name} {change}", undo)

    def not_null(self, column: str) -> Iterator[Step]:
        """A validated check in the place of NOT NULL, which DSQL has no ALTER for."""
        _, bare = split_table(self.table_name)
        name = self.quote(not_null_name(bare, column))
        drop = f"ALTER TABLE {self.table_name} DROP CONSTRAINT IF EXISTS {name}"
        yield self.alter(f"ADD CONSTRAINT {name} CHECK ({self.quote(column)} IS NOT NULL) NOT VALID", drop)
        yield Ddl(f"ALTER TABLE ASYNC {self.table_name} VALIDATE CONSTRAINT {name}")

    def check(self, field: Any, condition: str) -> Iterator[Step]:
        """The check of a field's type, such as that of PositiveIntegerField."""
        name = self.editor._create_index_name(self.model._meta.db_table, [field.column], suffix="_check")
        yield from self.editor._create_check_sql(self.model, name, condition).steps()

    def index_step(self, field: Any) -> Ddl:
        """The index of ``db_index``."""
        return Ddl(str(self.editor._create_index_sql(self.model, fields=[field])))

    def comment(self, field: Any) -> Iterator[Step]:
        """``db_comment``."""
        comment = self.editor.quote_value(getattr(field, "db_comment", None) or "")
        yield Ddl(f"COMMENT ON COLUMN {self.table_name}.{self.quote(self.column_name(field))} IS {comment}")


class FieldAddition(FieldChange):
    """``AddField``, without its index and foreign key, which follow at the end of the migration."""

    def __init__(self, editor: DatabaseSchemaEditor, model: Any, field: Any) -> None:
        super().__init__(editor, model)
        self._field = field
        self._params = field.db_parameters(connection=editor.connection)

    def steps(self) -> list[Step]:
        """All of them, in order."""
        return list(self._all_steps())

    def _all_steps(self) -> Iterator[Step]:
        field = self._field
        if field.null and not field.unique and self.default(field) is None and not getattr(field, "generated", False):
            table = Table(self.table_name, ())  # nothing needs to be known of it
        else:
            table = self.editor.read_table(self.model._meta.db_table)
        if field.primary_key or getattr(field, "generated", False) or identity_of(field, self.editor.connection)[0]:
            yield from self._rebuild(table)
        else:
            yield from self._add_and_fill(table)
        if self._params["check"]:
            yield from self.check(field, self._params["check"])
        if field.unique and not field.primary_key:
            yield from self.editor._create_unique_sql(self.model, [field]).steps()
        if getattr(field, "db_comment", None):
            yield from self.comment(field)

    def _add_and_fill(self, table: Table) -> Iterator[Step]:
        field, name = self._field, self.quote(self.column_name(self._field))
        drop = f"ALTER TABLE {self.table_name} DROP COLUMN IF EXISTS {name}"
        yield self.alter(f"ADD COLUMN {name} {self._params['type']}", drop)
        permanent, default = self.database_default(field), self.default(field)
        # So that rows that other connections insert meanwhile have it, too; without rows, validation sees to that.
        temporary = default is not None and permanent is None and self._has_rows(table)
        if permanent is not None or temporary:
            yield self.alter(f"ALTER COLUMN {name} SET DEFAULT {default}")
        if default is not None and (permanent is not None or temporary):
            yield Backfill(self.table_name, f"{name} = {default}", f"{name} IS NULL", self.key(table))
        if not field.null:
            yield from self.not_null(self.column_name(field))
        if temporary:
            yield self.alter(f"ALTER COLUMN {name} DROP DEFAULT")

    def _has_rows(self, table: Table) -> bool:
        if not table.exists:
            return True  # sqlmigrate of a table that isn't there yet
        with self.editor.connection.cursor() as cursor:
            cursor.execute(f"SELECT EXISTS (SELECT 1 FROM {table.name})")
            return bool(cursor.fetchone()[0])

    def _rebuild(self, table: Table) -> Iterator[Step]:
        field = self._field
        identity, options = identity_of(field, self.editor.connection)
        generated = None
        if getattr(field, "generated", False):
            generated = self.editor.composed(*field.generated_sql(self.editor.connection))
        permanent = self.database_default(field)
        column = Column(
            self.column_name(field),
            self._params["type"],
            not_null=not field.null and generated is None,
            default=permanent,
            generated=generated,
            identity=identity,
            identity_options=options,
        )
        fills_itself = permanent is not None or identity is not None or generated is not None
        value = None if fills_itself else self.default(field)
        key = table.primary_key.columns if table.primary_key else ()
        if field.primary_key:
            key = (self.column_name(field),)
        yield from TableRebuild(
            table, [*table.columns, column], {self.column_name(field): value}, key, self.quote
        ).steps()


class FieldRemoval(FieldChange):
    """``RemoveField``: DROP COLUMN, or a rebuild without it if it is part of the primary key."""

    def __init__(self, editor: DatabaseSchemaEditor, model: Any, field: Any) -> None:
        super().__init__(editor, model)
        self._field = field

    def steps(self) -> list[Step]:
        """All of them, in order."""
        name = self.column_name(self._field)
        if not self._field.primary_key:
            return [self.alter(f"DROP COLUMN {self.quote(name)} CASCADE")]
        table = self.editor.read_table(self.model._meta.db_table)
        key = table.primary_key.columns if table.primary_key else ()
        if name not in key:
            return [self.alter(f"DROP COLUMN {self.quote(name)} CASCADE")]
        steps: list[Step] = []
        for constraint in table.incoming:
            if name in constraint.referenced_columns:
                constraint_name = self.quote(constraint.name)
                steps.append(Ddl(f"ALTER TABLE {constraint.table} DROP CONSTRAINT {constraint_name}"))
        kept = replace(table, incoming=tuple(c for c in table.incoming if name not in c.referenced_columns))
        columns = [column for column in table.columns if column.name != name]
        rest = [column for column in key if column != name]
        return [*steps, *TableRebuild(kept, columns, {}, rest, self.quote).steps()]
