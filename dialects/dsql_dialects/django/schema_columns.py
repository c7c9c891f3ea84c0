"""Replacing a column by one of another type, which DSQL has no ALTER for.

The new column is added beside the old one, filled, and given copies of the old one's indexes and constraints; then
both change names and the old one is dropped. Before the names change, a check that both columns say the same makes
DSQL refuse, instead of lose, what another connection writes into the old column only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import NotSupportedError

from dsql_dialects.django.schema_catalog import CHECK, FOREIGN_KEY, UNIQUE, Constraint, Table
from dsql_dialects.django.schema_names import NOT_NULL_SUFFIX, not_null_name, shortened, split_table, temporary_name
from dsql_dialects.django.schema_statements import RENAME_INDEX
from dsql_dialects.django.schema_steps import Backfill, Ddl, PointOfNoReturn, Step

#: Types without an equality operator.
_WITHOUT_EQUALITY = ("json",)


@dataclass(frozen=True)
class NewColumn:
    """What the column is to be.

    ``value`` is its content in SQL, from the old one; ``fallback`` what it has instead of NULL.
    """

    name: str  #: of the old one and of the new one
    type: str
    value: str
    not_null: bool
    default: str | None = None  #: SQL
    comment: str | None = None  #: SQL, a string
    fallback: str | None = None  #: SQL, perhaps another value each time


class ColumnReplacement:
    """The steps that give a column another type.

    :param quote: quotes a name.
    :raises NotSupportedError: if a view or a generated column needs the old one.
    """

    def __init__(self, table: Table, column: NewColumn, quote: Any) -> None:
        self._table = table
        self._column = column
        self._quote = quote
        self._old_name = quote(temporary_name(column.name, "old"))
        self._new_name = quote(temporary_name(column.name, "new"))
        self._name = quote(column.name)
        self._schema, self._bare_table = split_table(table.name)
        self._refuse_dependents()

    def steps(self) -> Iterator[Step]:
        """One after the other."""
        constraints = [c for c in self._table.constraints if self._column.name in c.columns and not c.not_null_column]
        indexes = [index for index in self._table.indexes if self._column.name in index.columns]
        yield from self._add()
        yield from self._fill()
        if not constraints and not indexes:
            yield PointOfNoReturn()
            yield self._alter(f"DROP COLUMN {self._name}")
            yield self._alter(f"RENAME COLUMN {self._new_name} TO {self._name}")
        else:
            yield self._rename(self._name, self._old_name)
            yield self._rename(self._new_name, self._name)
            # The copies bear temporary names until the old column and what hangs on it is gone.
            for index in indexes:
                temporary = self._quote(temporary_name(index.name, "new"))
                sql = index.create_sql(temporary, self._table.name)
                yield Ddl(sql, (f"DROP INDEX IF EXISTS {self._schema}{temporary}",))
            for constraint in constraints:
                yield from self._copy(constraint)
            yield PointOfNoReturn()
            yield self._alter(f"DROP COLUMN {self._old_name}")
            yield from self._final_names(constraints)
        yield from self._finish()

    def _add(self) -> Iterator[Step]:
        drop = f"ALTER TABLE {self._table.name} DROP COLUMN IF EXISTS {self._new_name}"
        yield self._alter(f"ADD COLUMN {self._new_name} {self._column.type}", drop)
        if self._column.default is not None:
            yield self._alter(f"ALTER COLUMN {self._new_name} SET DEFAULT {self._column.default}")

    def _fill(self) -> Iterator[Step]:
        value, new = self._column.value, self._new_name
        key = tuple(self._quote(name) for name in pk.columns) if (pk := self._table.primary_key) else ()
        content, differs, same = value, f"{new} IS DISTINCT FROM ({value})", f"{new} IS NOT DISTINCT FROM ({value})"
        if self._column.fallback is not None:
            content = f"coalesce({value}, {self._column.fallback})"
            differs, same = f"{new} IS NULL OR (({value}) IS NOT NULL AND {differs})", f"({value}) IS NULL OR {same}"
        comparable = self._column.type not in _WITHOUT_EQUALITY
        fill = Backfill(self._table.name, f"{new} = {content}", differs if comparable else "true", key)
        yield fill
        if comparable:
            yield self._check(temporary_name(self._column.name, "same"), same)
            yield fill
        if self._column.not_null:
            name = self._not_null_name
            yield self._check(name, f"{new} IS NOT NULL")
            yield self._validate(name)

    @property
    def _not_null_name(self) -> str:
        final = not_null_name(self._bare_table, self._column.name)
        taken = {constraint.name for constraint in self._table.constraints}
        return shortened(final.removesuffix(NOT_NULL_SUFFIX), f"__new{NOT_NULL_SUFFIX}") if final in taken else final

    def _copy(self, constraint: Constraint) -> Iterator[Step]:
        if constraint.type in (CHECK, FOREIGN_KEY):
            temporary = temporary_name(constraint.name, "new")
            add = f"ADD CONSTRAINT {self._quote(temporary)} {constraint.definition} NOT VALID"
            yield self._alter(add, self._drop_constraint(temporary))
            if constraint.validated:
                yield self._validate(temporary)

    def _final_names(self, constraints: list[Constraint]) -> Iterator[Step]:
        for index in self._table.indexes:
            if self._column.name not in index.columns:
                continue
            name, temporary = self._quote(index.name), self._quote(temporary_name(index.name, "new"))
            if index.constraint is not None:
                yield self._alter(f"ADD CONSTRAINT {name} UNIQUE USING INDEX {temporary}")
            else:
                yield Ddl(RENAME_INDEX % {"old_name": f"{self._schema}{temporary}", "new_name": name})
        for constraint in constraints:
            if constraint.type != UNIQUE:
                temporary = self._quote(temporary_name(constraint.name, "new"))
                yield self._alter(f"RENAME CONSTRAINT {temporary} TO {self._quote(constraint.name)}")

    def _finish(self) -> Iterator[Step]:
        final = not_null_name(self._bare_table, self._column.name)
        if self._column.not_null and self._not_null_name != final:
            yield self._alter(f"RENAME CONSTRAINT {self._quote(self._not_null_name)} TO {self._quote(final)}")
        yield from (Ddl(grant) for name, grant in self._table.column_grants if name == self._column.name)
        yield from (Ddl(sql) for columns, sql in self._table.statistics if self._column.name in columns)
        if self._column.comment is not None:
            yield Ddl(f"COMMENT ON COLUMN {self._table.name}.{self._name} IS {self._column.comment}")

    def _alter(self, change: str, *undo: str) -> Ddl:
        return Ddl(f"ALTER TABLE {self._table.name} {change}", undo)

    def _rename(self, old: str, new: str) -> Ddl:
        return self._alter(
            f"RENAME COLUMN {old} TO {new}", f"ALTER TABLE {self._table.name} RENAME COLUMN {new} TO {old}"
        )

    def _check(self, name: str, condition: str) -> Ddl:
        return self._alter(
            f"ADD CONSTRAINT {self._quote(name)} CHECK ({condition}) NOT VALID", self._drop_constraint(name)
        )

    def _validate(self, name: str) -> Ddl:
        return Ddl(f"ALTER TABLE ASYNC {self._table.name} VALIDATE CONSTRAINT {self._quote(name)}")

    def _drop_constraint(self, name: str) -> str:
        return f"ALTER TABLE {self._table.name} DROP CONSTRAINT IF EXISTS {self._quote(name)}"

    def _refuse_dependents(self) -> None:
        views = self._table.views.get(self._column.name, ())
        generated = [
            column.name for column in self._table.columns if column.generated and self._name_is_in(column.generated)
        ]
        if views or generated:
            raise NotSupportedError(
                f"the type of column {self._column.name} of table {self._table.name} can't be changed while "
                f"{', '.join([*views, *generated])} needs it: drop that first, in an operation before this one"
            )

    def _name_is_in(self, expression: str) -> bool:
        return self._name in expression or self._column.name in expression.replace("(", " ").replace(")", " ").split()
