"""Replacing a table by one with another primary key or a generated column, which DSQL has no ALTER for.

A new table is created, rows are copied in batches, indexes built, then the old one is dropped and the new one gets its
name. Meanwhile a check that never holds makes DSQL refuse what other connections insert or update in the old table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import NotSupportedError

from dsql_dialects.django.schema_catalog import CHECK, FOREIGN_KEY, PRIMARY_KEY, UNIQUE, Column, Constraint, Table
from dsql_dialects.django.schema_names import split_table, temporary_name
from dsql_dialects.django.schema_statements import RENAME_INDEX
from dsql_dialects.django.schema_steps import CopyRows, Ddl, DeleteVanished, PointOfNoReturn, RestartIdentity, Step


def column_sql(column: Column, quote: Any) -> str:
    """A column as CREATE TABLE takes it."""
    words = [quote(column.name), column.type]
    if column.default is not None:
        words.append(f"DEFAULT {column.default}")
    if column.generated is not None:
        words.append(f"GENERATED ALWAYS AS ({column.generated}) STORED")
    if column.identity is not None:
        words.append(f"GENERATED {column.identity} AS IDENTITY ({column.identity_options})")
    if column.not_null:
        words.append("NOT NULL")
    return " ".join(words)


class TableRebuild:
    """The steps that replace a table.

    :param table: as it is, with the constraints and indexes that are to be kept.
    :param columns: of the new table.
    :param values: what a column is filled with, in SQL, if not with the column of the same name; None for a column
        that fills itself (identity, generated).
    :param primary_key: of the new table.
    :raises NotSupportedError: if a view needs the table.
    """

    def __init__(
        self,
        table: Table,
        columns: Sequence[Column],
        values: Mapping[str, str | None],
        primary_key: Sequence[str],
        quote: Any,
    ) -> None:
        self._table = table
        self._columns = columns
        self._values = values
        self._primary_key = tuple(primary_key)
        self._quote = quote
        self._schema, self._bare = split_table(table.name)
        self._new = self._schema + quote(temporary_name(self._bare, "new"))
        names = {column.name for column in columns}
        self._constraints = [c for c in table.constraints if c.type != PRIMARY_KEY and names.issuperset(c.columns)]
        self._indexes = [index for index in table.indexes if names.issuperset(index.columns)]
        if table.views:
            views = sorted({view for found in table.views.values() for view in found})
            raise NotSupportedError(
                f"table {table.name} has to be rebuilt, which can't be done while views need it: drop "
                f"{', '.join(views)} first, in an operation before this one, and create them again after it"
            )

    def steps(self) -> Iterator[Step]:
        """One after the other."""
        yield Ddl(self._create(), (f"DROP TABLE IF EXISTS {self._new}",))
        guard = self._quote(temporary_name(self._bare, "is_being_rebuilt"))
        yield self._alter(
            f"ADD CONSTRAINT {guard} CHECK (false) NOT VALID",
            f"ALTER TABLE {self._table.name} DROP CONSTRAINT IF EXISTS {guard}",
        )
        copy = self._copy()
        yield copy
        for column in self._columns:
            if column.identity is not None:
                old = self._table.column(column.name)
                had_identity = old is not None and old.identity is not None
                yield RestartIdentity(self._table.name, self._new, column.name, had_identity)
        for index in self._indexes:
            if index.constraint is None:
                yield Ddl(index.create_sql(self._quote(temporary_name(index.name, "new")), self._new))
        for foreign_key in self._incoming():
            yield Ddl(
                f"ALTER TABLE {foreign_key.table} DROP CONSTRAINT {self._quote(foreign_key.name)}",
                tuple(step.sql for step in self._add_again(foreign_key)),
            )
        if copy.key_is_kept:
            yield DeleteVanished(copy.source, copy.target, copy.key)
        yield PointOfNoReturn()
        yield Ddl(f"DROP TABLE {self._table.name}")
        yield Ddl(f"ALTER TABLE {self._new} RENAME TO {self._quote(self._bare)}")
        yield from self._final_names()
        for foreign_key in self._incoming():
            yield from self._add_again(foreign_key)
        yield from self._comments()
        yield from map(Ddl, self._table.grants)
        for column in self._columns:
            yield from (Ddl(grant) for name, grant in self._table.column_grants if name == column.name)
        names = {column.name for column in self._columns}
        yield from (Ddl(sql) for columns, sql in self._table.statistics if names.issuperset(columns))

    def _create(self) -> str:
        parts = [column_sql(column, self._quote) for column in self._columns]
        if self._primary_key:
            key = ", ".join(self._quote(name) for name in self._primary_key)
            parts.append(f"CONSTRAINT {self._quote(self._temporary_key)} PRIMARY KEY ({key})")
        for constraint in self._constraints:
            if constraint.type == UNIQUE:
                # An index's name is taken until the old table is gone.
                name = temporary_name(constraint.name, "new")
                parts.append(f"CONSTRAINT {self._quote(name)} {constraint.definition}")
            elif constraint.type == CHECK or (constraint.type == FOREIGN_KEY and not self._is_to_itself(constraint)):
                parts.append(f"CONSTRAINT {self._quote(constraint.name)} {constraint.definition}")
        return f"CREATE TABLE {self._new} ({', '.join(parts)})"

    @property
    def _temporary_key(self) -> str:
        return temporary_name(self._bare, "new_pkey")

    def _copy(self) -> CopyRows:
        names, values = [], []
        for column in self._columns:
            value = self._values.get(column.name, self._quote(column.name))
            if value is not None and column.generated is None:
                names.append(self._quote(column.name))
                values.append(value)
        key = self._table.primary_key.columns if self._table.primary_key else ()
        kept = bool(key) and all(
            any(column.name == name for column in self._columns) and name not in self._values for name in key
        )
        return CopyRows(self._table.name, self._new, tuple(names), tuple(values), tuple(map(self._quote, key)), kept)

    def _is_to_itself(self, foreign_key: Constraint) -> bool:
        return foreign_key.referenced_table == foreign_key.table

    def _incoming(self) -> Iterator[Constraint]:
        """Foreign keys that are to be added once the table has its name; of its own only after that."""
        yield from self._table.incoming

    def _add_again(self, foreign_key: Constraint) -> Iterator[Ddl]:
        name = self._quote(foreign_key.name)
        yield Ddl(f"ALTER TABLE {foreign_key.table} ADD CONSTRAINT {name} {foreign_key.definition} NOT VALID")
        if foreign_key.validated:
            yield Ddl(f"ALTER TABLE ASYNC {foreign_key.table} VALIDATE CONSTRAINT {name}")

    def _final_names(self) -> Iterator[Step]:
        if self._primary_key:
            old = self._table.primary_key
            final = old.name if old is not None else f"{self._bare}_pkey"
            yield self._rename_constraint(self._temporary_key, final)
        for constraint in self._constraints:
            if constraint.type == UNIQUE:
                yield self._rename_constraint(temporary_name(constraint.name, "new"), constraint.name)
        for index in self._indexes:
            if index.constraint is None:
                temporary = self._schema + self._quote(temporary_name(index.name, "new"))
                yield Ddl(RENAME_INDEX % {"old_name": temporary, "new_name": self._quote(index.name)})
        for constraint in self._constraints:
            if constraint.type == FOREIGN_KEY and self._is_to_itself(constraint):
                yield from self._add_again(constraint)

    def _comments(self) -> Iterator[Step]:
        if self._table.comment:
            yield Ddl(f"COMMENT ON TABLE {self._table.name} IS {_literal(self._table.comment)}")
        for column in self._columns:
            if column.comment:
                yield Ddl(
                    f"COMMENT ON COLUMN {self._table.name}.{self._quote(column.name)} IS {_literal(column.comment)}"
                )

    def _rename_constraint(self, old: str, new: str) -> Ddl:
        return self._alter(f"RENAME CONSTRAINT {self._quote(old)} TO {self._quote(new)}")

    def _alter(self, change: str, *undo: str) -> Ddl:
        return Ddl(f"ALTER TABLE {self._table.name} {change}", undo)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
