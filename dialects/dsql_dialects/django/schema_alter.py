"""The steps that alter a field's column. They are planned from one look at the catalog, before the first one runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django.db import NotSupportedError
from django.db.backends.base.schema import _related_non_m2m_objects

from dsql_dialects.django.schema_catalog import CHECK, FOREIGN_KEY, UNIQUE, Constraint, Index, Table
from dsql_dialects.django.schema_columns import ColumnReplacement, NewColumn
from dsql_dialects.django.schema_fields import FieldChange, identity_of
from dsql_dialects.django.schema_names import not_null_name, split_table
from dsql_dialects.django.schema_rebuild import TableRebuild
from dsql_dialects.django.schema_steps import Backfill, Ddl, Step

if TYPE_CHECKING:
    from dsql_dialects.django.schema import DatabaseSchemaEditor

_REFERENCES = re.compile(r"^(.* REFERENCES .+?)\((.*?)\)((?: MATCH| ON| DEFERRABLE| NOT).*)?$", re.DOTALL)


class FieldAlteration(FieldChange):
    """``AlterField``: everything but many-to-many fields.

    :raises NotSupportedError: for what can't be done, before anything is changed.
    """

    def __init__(
        self, editor: DatabaseSchemaEditor, model: Any, old_field: Any, new_field: Any, strict: bool = False
    ) -> None:
        super().__init__(editor, model)
        self._old, self._new, self._strict = old_field, new_field, strict
        connection = editor.connection
        self._old_params = old_field.db_parameters(connection=connection)
        self._new_params = new_field.db_parameters(connection=connection)
        self._old_type, self._new_type = self._old_params["type"], self._new_params["type"]
        before, after = identity_of(old_field, connection)[0], identity_of(new_field, connection)[0]
        self._gains_identity, self._loses_identity = after and not before, before and not after
        self._old_name, self._new_name = self.column_name(old_field), self.column_name(new_field)
        self._dropped_incoming: list[Constraint] = []

    def steps(self) -> list[Step]:
        """All of them, in order."""
        if self._changes_nothing:
            return []
        self._table = self.editor.read_table(self.model._meta.db_table)
        column = self._table.column(self._old_name)
        if column is None and self._table.exists:
            raise NotSupportedError(
                f"table {self._table.name} has no column {self._old_name}, which field {self._new.name} of model "
                f"{self.model._meta.label} is to change: the database isn't what the migrations say"
            )
        return list(self._all_steps())

    def _all_steps(self) -> Iterator[Step]:
        yield from self._drop_own_foreign_key()
        yield from self._drop_unique()
        yield from self._drop_incoming_foreign_keys()
        yield from self._drop_index()
        yield from self._drop_check()
        replaced = self._old_type != self._new_type or self._needs_rebuild
        if self._needs_rebuild:
            yield from self._rebuild()
        elif self._old_type != self._new_type:
            yield from self._replace_column()
        yield from self._rename()
        if not replaced:
            yield from self._change_in_place()
        yield from self._add_unique()
        yield from self._add_index()
        yield from self._alter_referencing_columns()
        yield from self._add_own_foreign_key()
        yield from self._add_incoming_foreign_keys()
        yield from self._add_check()
        if getattr(self._old, "db_comment", None) != getattr(self._new, "db_comment", None):
            yield from self.comment(self._new)

    @property
    def _changes_nothing(self) -> bool:
        """Whether only Python's side changes; then not even the catalog is read."""
        old, new = self._old, self._new
        checks = self._checks()
        return bool(
            self._old_type == self._new_type
            and self._old_name == self._new_name
            and (old.null, old.unique, old.db_index, old.primary_key)
            == (new.null, new.unique, new.db_index, new.primary_key)
            and not (self._gains_identity or self._loses_identity or self._foreign_key_changes)
            and bool(old.remote_field and old.db_constraint) == bool(new.remote_field and new.db_constraint)
            and checks[0] == checks[1]
            and self.database_default(old) == self.database_default(new)
            and getattr(old, "db_comment", None) == getattr(new, "db_comment", None)
        )

    # What stands in the way

    @property
    def _foreign_key_changes(self) -> bool:
        old, new = self._old, self._new
        if not (old.remote_field and old.db_constraint):
            return False
        if not (new.remote_field and new.db_constraint):
            return True
        return bool(
            old.column != new.column
            or self._old_type != self._new_type
            or old.remote_field.model._meta.db_table != new.remote_field.model._meta.db_table
            or old.target_field.column != new.target_field.column
        )

    def _drop_own_foreign_key(self) -> Iterator[Step]:
        if self._foreign_key_changes:
            found = self._table.of_column(self._old_name, FOREIGN_KEY)
            self._expect_one(found, "foreign key")
            yield from map(self._drop, found)

    def _drop_unique(self) -> Iterator[Step]:
        became_key = self.editor._field_became_primary_key(self._old, self._new)
        if self._old.unique and not self._old.primary_key and (not self._new.unique or became_key):
            found = [c for c in self._table.of_column(self._old_name, UNIQUE) if c.name not in self.meta_constraints]
            self._expect_one(found, "unique")
            yield from map(self._drop, found)

    @property
    def _is_referenced(self) -> bool:
        """Whether foreign keys may refer to the column, whose type changes."""
        both = (self._old.primary_key and self._new.primary_key) or (self._old.unique and self._new.unique)
        return bool(both and self._old_type != self._new_type)

    def _drop_incoming_foreign_keys(self) -> Iterator[Step]:
        if not self._is_referenced:
            return
        own = (c for c in self._table.constraints if c.type == FOREIGN_KEY and c.referenced_table == c.table)
        for constraint in [*self._table.incoming, *own]:
            if self._old_name in constraint.referenced_columns:
                self._dropped_incoming.append(constraint)
                yield self._drop(constraint)

    def _drop_index(self) -> Iterator[Step]:
        old, new = self._old, self._new
        if old.db_index and not old.unique and (not new.db_index or new.unique):
            for index in self._plain_indexes():
                self._table = replace(self._table, indexes=tuple(i for i in self._table.indexes if i is not index))
                schema, _ = split_table(self._table.name)
                yield Ddl(
                    f"DROP INDEX IF EXISTS {schema}{self.quote(index.name)}",
                    (index.create_sql(self.quote(index.name), self._table.name),),
                )

    def _plain_indexes(self) -> list[Index]:
        return [
            index
            for index in self._table.indexes
            if index.key_columns == (self._old_name,)
            and index.constraint is None
            and not index.unique
            and not index.partial
            and index.name not in self.meta_indexes
        ]

    def _checks(self) -> tuple[str | None, str | None]:
        return (
            self.editor._field_db_check(self._old, self._old_params),
            self.editor._field_db_check(self._new, self._new_params),
        )

    def _drop_check(self) -> Iterator[Step]:
        old, new = self._checks()
        if old != new and old:
            found = [c for c in self._table.of_column(self._old_name, CHECK) if c.name not in self.meta_constraints]
            self._expect_one(found, "check")
            yield from map(self._drop, found)

    def _drop(self, constraint: Constraint) -> Ddl:
        self._table = replace(
            self._table,
            constraints=tuple(c for c in self._table.constraints if c is not constraint),
            incoming=tuple(c for c in self._table.incoming if c is not constraint),
            indexes=tuple(i for i in self._table.indexes if constraint.type != UNIQUE or i.name != constraint.name),
        )
        table, name = constraint.table or self._table.name, self.quote(constraint.name)
        undo = (
            ()
            if constraint.type == UNIQUE
            else (
                f"ALTER TABLE {table} ADD CONSTRAINT {name} {constraint.definition} NOT VALID",
                f"ALTER TABLE ASYNC {table} VALIDATE CONSTRAINT {name}",
            )
        )
        return Ddl(f"ALTER TABLE {table} DROP CONSTRAINT {name}", undo)

    def _expect_one(self, found: list[Constraint], kind: str) -> None:
        if self._strict and len(found) != 1:
            raise ValueError(
                f"Found wrong number ({len(found)}) of {kind} constraints for "
                f"{self.model._meta.db_table}.{self._old_name}"
            )

    # The column itself

    @property
    def _needs_rebuild(self) -> bool:
        key = self._table.primary_key
        in_key = self._old_name in key.columns if key is not None else self._old.primary_key
        return bool(
            self._old.primary_key != self._new.primary_key
            or self._gains_identity
            or (in_key and self._old_type != self._new_type)
        )

    def _value(self, name: str) -> str:
        """The new column's content from the old one."""
        value = name
        if self._old_type != self._new_type and self.editor._using_sql(self._new, self._old):
            # Without the length: an assignment refuses what is too long, a cast cuts it off.
            value = f"{name}::{re.sub(r' *[(].*?[)]', '', self._new_type)}"
        return value

    @property
    def _fallback(self) -> str | None:
        """What the new column has instead of NULL."""
        return self.default(self._new) if self._old.null and not self._new.null else None

    def _replace_column(self) -> Iterator[Step]:
        column = self._table.column(self._old_name)
        kept = column.default if column is not None and not self.editor.has_database_default(self._old) else None
        comment = column.comment if column is not None else None
        if column is not None and column.identity is not None:
            raise NotSupportedError(
                f"column {column.name} of table {self._table.name} is an identity, which is bigint; field "
                f"{self._new.name} of model {self.model._meta.label} can't give it type {self._new_type}"
            )
        new = NewColumn(
            self._old_name,
            self._new_type,
            self._value(self.quote(self._old_name)),
            not self._new.null,
            self.database_default(self._new) or kept,
            self.editor.quote_value(comment) if comment else None,
            self._fallback,
        )
        yield from ColumnReplacement(self._table, new, self.quote).steps()

    def _rebuild(self) -> Iterator[Step]:
        value = self._value(self.quote(self._old_name))
        if self._fallback is not None:
            value = f"coalesce({value}, {self._fallback})"
        changes = {self._old_name: (self._new, value)}
        for old_rel, new_rel in self._relations():
            if new_rel.related_model._meta.db_table == self.model._meta.db_table:
                name = old_rel.field.column
                changes[name] = (new_rel.field, f"{self.quote(name)}::{new_rel.field.db_type(self.editor.connection)}")
        key = self._table.primary_key.columns if self._table.primary_key else ()
        if self._new.primary_key and self._old_name not in key:
            key = (self._old_name,)
        elif self._old.primary_key and not self._new.primary_key:
            key = tuple(name for name in key if name != self._old_name)
        columns, values = [], {}
        for column in self._table.columns:
            if column.name in changes:
                field, value = changes[column.name]
                identity, options = identity_of(field, self.editor.connection)
                column = replace(
                    column,
                    type=field.db_type(self.editor.connection),
                    not_null=not field.null,
                    default=self.database_default(field),
                    identity=identity,
                    identity_options=options,
                )
                if value != self.quote(column.name):
                    values[column.name] = value
            columns.append(column)
        self._expect_referenced_columns_in_key(key)
        yield from TableRebuild(self._table, columns, values, key, self.quote).steps()

    def _expect_referenced_columns_in_key(self, key: tuple[str, ...]) -> None:
        unique = {tuple(sorted(c.columns)) for c in self._table.constraints if c.type == UNIQUE} | {tuple(sorted(key))}
        for constraint in self._table.incoming:
            if tuple(sorted(constraint.referenced_columns)) not in unique:
                raise NotSupportedError(
                    f"field {self._new.name} of model {self.model._meta.label} can't stop being what foreign key "
                    f"{constraint.name} of table {constraint.table} refers to: alter that foreign key first"
                )

    def _rename(self) -> Iterator[Step]:
        if self._old_name == self._new_name:
            return
        old, new = self.quote(self._old_name), self.quote(self._new_name)
        yield self.alter(
            f"RENAME COLUMN {old} TO {new}", f"ALTER TABLE {self._table.name} RENAME COLUMN {new} TO {old}"
        )
        _, bare = split_table(self._table.name)
        for check in self._table.not_null_checks(self._old_name):
            if check.name == not_null_name(bare, self._old_name):
                name = self.quote(not_null_name(bare, self._new_name))
                yield self.alter(f"RENAME CONSTRAINT {self.quote(check.name)} TO {name}")

    def _change_in_place(self) -> Iterator[Step]:
        old, new, name = self._old, self._new, self.quote(self._new_name)
        if self._loses_identity:
            yield self.alter(f"ALTER COLUMN {name} DROP IDENTITY IF EXISTS")
        permanent = self.database_default(new)
        before = self.database_default(old)
        if permanent is not None and permanent != before:
            yield self.alter(f"ALTER COLUMN {name} SET DEFAULT {permanent}")
        elif permanent is None and before is not None:
            yield self.alter(
                f"ALTER COLUMN {name} DROP DEFAULT",
                f"ALTER TABLE {self._table.name} ALTER COLUMN {name} SET DEFAULT {before}",
            )
        if old.null and not new.null:
            yield from self._refuse_nulls(name, permanent)
        elif new.null and not old.null:
            yield from self._allow_nulls(name)

    def _refuse_nulls(self, name: str, permanent: str | None) -> Iterator[Step]:
        if self._table.is_not_null(self._old_name):
            return
        default = self.default(self._new)
        temporary = permanent is None and default is not None
        if temporary:
            yield self.alter(
                f"ALTER COLUMN {name} SET DEFAULT {default}",
                f"ALTER TABLE {self._table.name} ALTER COLUMN {name} DROP DEFAULT",
            )
        if default is not None:
            yield Backfill(self._table.name, f"{name} = {default}", f"{name} IS NULL", self.key(self._table))
        yield from self.not_null(self._new_name)
        if temporary:
            yield self.alter(f"ALTER COLUMN {name} DROP DEFAULT")

    def _allow_nulls(self, name: str) -> Iterator[Step]:
        column = self._table.column(self._old_name)
        for check in self._table.not_null_checks(self._old_name):
            final = check.name
            _, bare = split_table(self._table.name)
            if self._old_name != self._new_name and check.name == not_null_name(bare, self._old_name):
                final = not_null_name(bare, self._new_name)
            yield self.alter(f"DROP CONSTRAINT {self.quote(final)}")
        if column is None or column.not_null:
            yield self.alter(f"ALTER COLUMN {name} DROP NOT NULL")

    # What comes after

    def _add_unique(self) -> Iterator[Step]:
        if self.editor._unique_should_be_added(self._old, self._new):
            yield from self.editor._create_unique_sql(self.model, [self._new]).steps()

    def _add_index(self) -> Iterator[Step]:
        old, new = self._old, self._new
        if (not old.db_index or old.unique) and new.db_index and not new.unique:
            yield self.index_step(new)

    def _relations(self) -> list[tuple[Any, Any]]:
        if self._is_referenced or self.editor._field_became_primary_key(self._old, self._new):
            return list(_related_non_m2m_objects(self._old, self._new))
        return []

    def _alter_referencing_columns(self) -> Iterator[Step]:
        for old_rel, new_rel in self._relations():
            table_name = new_rel.related_model._meta.db_table
            if self._needs_rebuild and table_name == self.model._meta.db_table:
                continue  # done in the same go
            old_type = old_rel.field.db_type(self.editor.connection)
            new_type = new_rel.field.db_type(self.editor.connection)
            if old_type == new_type:
                continue
            table = self._without_dropped(self.editor.read_table(table_name))
            yield from self._alter_referencing_column(table, old_rel.field.column, new_rel.field, new_type)

    def _alter_referencing_column(self, table: Table, name: str, field: Any, type_: str) -> Iterator[Step]:
        value = f"{self.quote(name)}::{type_}"
        key = table.primary_key
        if key is not None and name in key.columns:
            columns = [replace(c, type=type_) if c.name == name else c for c in table.columns]
            yield from TableRebuild(table, columns, {name: value}, key.columns, self.quote).steps()
            return
        column = table.column(name)
        yield from ColumnReplacement(
            table, NewColumn(name, type_, value, not field.null, column.default if column else None), self.quote
        ).steps()

    def _without_dropped(self, table: Table) -> Table:
        dropped = {(constraint.table, constraint.name) for constraint in self._dropped_incoming}
        return replace(
            table,
            constraints=tuple(c for c in table.constraints if (c.table, c.name) not in dropped),
            incoming=tuple(c for c in table.incoming if (c.table, c.name) not in dropped),
        )

    def _add_own_foreign_key(self) -> Iterator[Step]:
        old, new = self._old, self._new
        is_new = not (old.remote_field and old.db_constraint)
        if new.remote_field and new.db_constraint and (is_new or self._foreign_key_changes):
            yield from self.editor._create_fk_sql(self.model, new, "_fk_%(to_table)s_%(to_column)s").steps()

    def _add_incoming_foreign_keys(self) -> Iterator[Step]:
        for constraint in self._dropped_incoming:
            name, definition = self.quote(constraint.name), constraint.definition
            if self._old_name != self._new_name:
                definition = self._refer_to_new_name(constraint)
            drop = f"ALTER TABLE {constraint.table} DROP CONSTRAINT IF EXISTS {name}"
            yield Ddl(f"ALTER TABLE {constraint.table} ADD CONSTRAINT {name} {definition} NOT VALID", (drop,))
            if constraint.validated:
                yield Ddl(f"ALTER TABLE ASYNC {constraint.table} VALIDATE CONSTRAINT {name}")

    def _refer_to_new_name(self, constraint: Constraint) -> str:
        match = _REFERENCES.match(constraint.definition)
        assert match is not None, constraint.definition
        names = [self._new_name if n == self._old_name else n for n in constraint.referenced_columns]
        return f"{match[1]}({', '.join(map(self.quote, names))}){match[3] or ''}"

    def _add_check(self) -> Iterator[Step]:
        old, new = self._checks()
        if old != new and new:
            yield from self.check(self._new, self._new_params["check"])
