"""Schema changes as Django asks for them, in statements that DSQL has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, NotSupportedError
from django.db.backends.ddl_references import Columns, Statement
from django.db.backends.postgresql.schema import DatabaseSchemaEditor as PostgresqlSchemaEditor
from django.db.models import NOT_PROVIDED
from django.db.models.expressions import OrderBy
from django.db.models.signals import post_migrate

from dsql_dialects.django.schema_alter import FieldAlteration
from dsql_dialects.django.schema_execution import StepRunner
from dsql_dialects.django.schema_fields import FieldAddition, FieldRemoval
from dsql_dialects.django.schema_lease import end_turn
from dsql_dialects.django.schema_notes import delete_finished_notes, finished_here
from dsql_dialects.django.schema_statements import (
    ADD_CHECK,
    ADD_FOREIGN_KEY,
    ADD_UNIQUE,
    RENAME_INDEX,
    ConstraintStatement,
)


class DatabaseSchemaEditor(StepRunner):
    """Django's schema editor for Aurora DSQL.

    What DSQL has no statement for is planned in several: see schema_fields, schema_alter, schema_columns and
    schema_rebuild.
    """

    sql_create_index = "CREATE INDEX ASYNC %(name)s ON %(table)s (%(columns)s)%(include)s%(extra)s%(condition)s"
    sql_create_index_concurrently = sql_create_index
    # Made of Django's, because what it has room for depends on the version.
    sql_create_unique_index = PostgresqlSchemaEditor.sql_create_unique_index.replace("INDEX", "INDEX ASYNC", 1)
    sql_rename_index = RENAME_INDEX
    sql_delete_index_concurrently = PostgresqlSchemaEditor.sql_delete_index
    sql_create_check = ADD_CHECK[0]
    sql_create_fk = f"{PostgresqlSchemaEditor.sql_create_fk} NOT VALID"
    # Without SET CONSTRAINTS: that would be a second statement in the transaction.
    sql_delete_fk = PostgresqlSchemaEditor.sql_delete_constraint
    sql_create_column_inline_fk = None

    def __init__(self, connection: Any, collect_sql: bool = False, atomic: bool = True) -> None:
        super().__init__(connection, collect_sql, atomic)
        self._known_tables: set[str] = set()

    # Tables

    def table_sql(self, model: Any) -> tuple[str, list[Any]]:
        """CREATE TABLE with all constraints that can be in it, as those need no job afterwards."""
        before = len(self.deferred_sql)
        sql, params = super().table_sql(model)
        self._known_tables.add(model._meta.db_table)
        # PostgreSQL would make one constraint of two that are equal, and lose the name of one of them.
        unique = [[field.column] for field in model._meta.local_fields if field.unique]
        later, inline = [], []
        for statement in self.deferred_sql[before:]:
            if isinstance(statement, ConstraintStatement) and self._can_be_inline(statement, unique):
                inline.append(statement.inline)
            else:
                later.append(statement)
        self.deferred_sql[before:] = later
        if inline:
            if params:  # a literal % of a constraint would be taken for a placeholder
                sql, params = self.connection.ops.compose_sql(sql, params), []
            sql = f"{sql.removesuffix(')')}, {', '.join(inline)})"
        return sql, params

    def _can_be_inline(self, statement: ConstraintStatement, unique: Sequence[list[str]] = ()) -> bool:
        if statement.is_check:
            return True
        if not statement.is_foreign_key:
            return list(statement.parts["columns"].columns) not in unique
        if self._journal.resumed:
            # As in the run that was interrupted, when the table was there; by now it may be on its way to a new one.
            return True
        target = statement.parts["to_table"].table
        if target not in self._known_tables:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (self.quote_name(target),))
                if not cursor.fetchone()[0]:
                    return False
            self._known_tables.add(target)
        return True

    def create_model(self, model: Any) -> None:
        """Create a table and its many-to-many tables; indexes follow at the end of the migration."""
        super().create_model(model)

    def delete_model(self, model: Any) -> None:
        """Drop a table and its many-to-many tables."""
        self._known_tables.discard(model._meta.db_table)
        super().delete_model(model)

    def alter_unique_together(self, model: Any, old_unique_together: Any, new_unique_together: Any) -> None:
        """Drop and add unique constraints."""
        change = super().alter_unique_together
        self._run_plan(
            f"unique_together {model._meta.db_table} {_sorted(old_unique_together)} {_sorted(new_unique_together)}",
            lambda: self._statements_of(lambda: change(model, old_unique_together, new_unique_together)),
        )

    def alter_index_together(self, model: Any, old_index_together: Any, new_index_together: Any) -> None:
        """Drop and add indexes."""
        change = super().alter_index_together
        self._run_plan(
            f"index_together {model._meta.db_table} {_sorted(old_index_together)} {_sorted(new_index_together)}",
            lambda: self._statements_of(lambda: change(model, old_index_together, new_index_together)),
        )

    # Fields

    def alter_db_table(self, model: Any, old_db_table: str, new_db_table: str) -> None:
        """Rename a table."""
        self._known_tables.discard(old_db_table)
        super().alter_db_table(model, old_db_table, new_db_table)

    def add_field(self, model: Any, field: Any) -> None:
        """Add a column: ADD COLUMN takes a name and a type only, everything else follows in steps of its own."""
        if field.many_to_many and field.remote_field.through._meta.auto_created:
            self.create_model(field.remote_field.through)
            return
        if field.db_parameters(connection=self.connection)["type"] is None:
            return
        addition = FieldAddition(self, model, field)
        self._run_plan(f"add {model._meta.db_table} {field.column} {_described(field)}", addition.steps)
        if field.remote_field and field.db_constraint:
            statement = self._create_fk_sql(model, field, "_fk_%(to_table)s_%(to_column)s")
            if self._can_be_inline(statement):
                self.execute(statement, None)
            else:
                self.deferred_sql.append(statement)
        self.deferred_sql.extend(self._field_indexes_sql(model, field))

    def remove_field(self, model: Any, field: Any) -> None:
        """Drop a column and what depends on it; a primary key's column by rebuilding the table."""
        if field.many_to_many and field.remote_field.through._meta.auto_created:
            self.delete_model(field.remote_field.through)
            return
        if field.db_parameters(connection=self.connection)["type"] is None:
            return
        removal = FieldRemoval(self, model, field)
        self._run_plan(f"remove {model._meta.db_table} {field.column} {_described(field)}", removal.steps)
        for statement in list(self.deferred_sql):
            if isinstance(statement, Statement) and statement.references_column(model._meta.db_table, field.column):
                self.deferred_sql.remove(statement)

    def _alter_field(
        self,
        model: Any,
        old_field: Any,
        new_field: Any,
        old_type: str,
        new_type: str,
        old_db_params: dict[str, Any],
        new_db_params: dict[str, Any],
        strict: bool = False,
    ) -> None:
        alteration = FieldAlteration(self, model, old_field, new_field, strict)
        self._run_plan(
            f"alter {model._meta.db_table} {old_field.column} {_described(old_field)} {_described(new_field)}",
            alteration.steps,
        )
        if old_field.column != new_field.column:
            for statement in self.deferred_sql:
                if isinstance(statement, Statement):
                    statement.rename_column_references(model._meta.db_table, old_field.column, new_field.column)

    # Indexes and constraints

    def _create_like_index_sql(self, model: Any, field: Any) -> None:
        """Nothing: in the C collation, which is the only one, every index serves LIKE."""

    def _index_columns(self, table: str, columns: Any, col_suffixes: Any, opclasses: Any) -> Any:
        if opclasses:
            raise NotSupportedError(
                f"an index on {table} ({', '.join(columns)}) names operator classes {', '.join(opclasses)}; Aurora "
                "DSQL hasn't got any: remove opclasses from the index or constraint"
            )
        # An index can be read backwards, so that one in ascending order does for DESC.
        return Columns(table, columns, self.quote_name)

    def _create_index_sql(self, model: Any, *, using: str = "", expressions: Any = None, **options: Any) -> Any:
        if using:
            raise NotSupportedError(
                f"index {options.get('name') or ''} of model {model._meta.label} asks for{using}; Aurora DSQL has one "
                "kind of index only: use models.Index"
            )
        if expressions is not None:
            expressions = _without_order(expressions)
        return super()._create_index_sql(model, expressions=expressions, **options)

    def _create_unique_sql(self, model: Any, fields: Any, *args: Any, **options: Any) -> Any:
        if options.get("expressions") is not None:
            options["expressions"] = _without_order(options["expressions"])
        statement = super()._create_unique_sql(model, fields, *args, **options)
        if statement is None or statement.template != self.sql_create_unique:
            return statement
        return ConstraintStatement(ADD_UNIQUE, **{"nulls_distinct": "", **statement.parts})

    def _create_fk_sql(self, model: Any, field: Any, suffix: str) -> Any:
        return ConstraintStatement(ADD_FOREIGN_KEY, **super()._create_fk_sql(model, field, suffix).parts)

    def _create_check_sql(self, model: Any, name: str, check: str) -> Any:
        return ConstraintStatement(ADD_CHECK, **super()._create_check_sql(model, name, check).parts)

    def skip_default_on_alter(self, field: Any) -> bool:
        """Nothing is skipped."""
        return False

    def _field_db_check(self, field: Any, field_db_params: Any) -> str | None:
        """A field's own check, the same whatever its column is called. Django has this from 5.0 on."""
        check: str | None = self.connection.data_type_check_constraints.get(field.get_internal_type())
        return None if check is None else check % {"column": "__column_name__"}

    def has_database_default(self, field: Any) -> bool:
        """Whether a field has ``db_default``, which came with Django 5.0."""
        return getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED


def _described(field: Any) -> str:
    """A field's definition, the same in every process."""
    _, path, args, kwargs = field.deconstruct()
    return f"{path} {args!r} {sorted((name, _stable(value)) for name, value in kwargs.items())}"


def _stable(value: Any) -> str:
    """A value's representation without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _sorted(together: Any) -> list[list[str]]:
    return sorted(list(fields) for fields in together)


def _without_order(expressions: Any) -> Any:
    """Index expressions without ASC and DESC, which DSQL refuses; an index can be read backwards."""
    expressions = expressions.copy()
    for wrapper in expressions.get_source_expressions():
        inner = wrapper.get_source_expressions()
        if inner and isinstance(inner[0], OrderBy):
            wrapper.set_source_expressions([inner[0].copy()])
            wrapper.get_source_expressions()[0].template = "%(expression)s"
    return expressions


def _forget_finished_migrations(using: str = DEFAULT_DB_ALIAS, **_: Any) -> None:
    from django.db import connections

    connection = connections[using]
    if finished_here(connection):
        delete_finished_notes(connection)
    end_turn(connection)


post_migrate.connect(_forget_finished_migrations, dispatch_uid="dsqlkit migration notes")
