"""Alembic on Aurora DSQL: each operation in the statements that DSQL takes, each statement a transaction of its own.

Alembic finds it by the entry point of :mod:`dsql_dialects.sqlalchemy.alembic_plugin`; with Alembic before 1.18, it is
there once an engine has been made after Alembic was imported, as in every ``env.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alembic.ddl import base as operations
from alembic.ddl.postgresql import PostgresqlImpl
from sqlalchemy import Column, exc, inspect, schema, text
from sqlalchemy import types as sqltypes
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import dml
from sqlalchemy.sql.elements import TextClause

from dsql_dialects.sqlalchemy import columns, steps
from dsql_dialects.sqlalchemy.base import commit_now, note_jobs
from dsql_dialects.sqlalchemy.errors import UnsupportedError
from dsql_dialects.sqlalchemy.migration_progress import Progress
from dsql_dialects.sqlalchemy.not_null import NotNullCheck, not_null_columns
from dsql_dialects.sqlalchemy.types import implementation

#: Rows that are filled at once with a new column's default.
BACKFILL_ROWS = 1000

_DUPLICATE_RELATION = "42P07"


class AddBareColumn(operations.AddColumn):
    """``ALTER TABLE … ADD COLUMN name type``, which is all that DSQL takes."""


@compiles(AddBareColumn)
def _add_bare_column(element: AddBareColumn, compiler: Any, **kw: Any) -> str:
    table = operations.alter_table(compiler, element.table_name, element.schema)
    type_ = compiler.type_compiler.render_column_type(
        columns.stored_type(element.column, compiler.dialect), type_expression=element.column
    )
    exists = "IF NOT EXISTS " if element.if_not_exists else ""
    return f"{table} ADD COLUMN {exists}{compiler.preparer.format_column(element.column)} {type_}"


class DSQLImpl(PostgresqlImpl):
    """Alembic's operations and comparisons for Aurora DSQL."""

    __dialect__ = "aws_dsql"
    transactional_ddl = False
    identity_attrs_ignore = (*PostgresqlImpl.identity_attrs_ignore, "cache", "minvalue", "maxvalue")

    _progress: Progress | None = None
    _version_table: Any = None

    def version_table_impl(self, **kw: Any) -> schema.Table:
        table = super().version_table_impl(**kw)
        self._version_table = table
        return table

    def start_migrations(self) -> None:
        if not self.as_sql and self.connection is not None:
            self._progress = Progress(self.connection, self._version_table)

    # -- executing ------------------------------------------------------------------------------------------------

    def _exec(
        self,
        construct: Any,
        execution_options: Mapping[str, Any] | None = None,
        multiparams: Sequence[Mapping[str, Any]] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation. What an interrupted run of the same migration has done already is left out."""
        construct = text(construct) if isinstance(construct, str) else construct

        def run() -> Any:
            return super(DSQLImpl, self)._exec(construct, execution_options, multiparams, params or {})

        if self.as_sql:
            result = run()
            self._write_following_steps(construct)
            return result
        if self._progress is None:
            return run()
        if self._is_version_statement(construct):
            result = run()
            self._progress.finish()
            return result
        statement = self._progress.statement_of(construct, multiparams or params, self.dialect)
        if statement is None:  # it only reads
            return run()
        if self._progress.is_done(statement):
            return None
        assert self.connection is not None
        if not statement.is_definition:
            self._progress.prepare()
            result = run()
            self._progress.note(statement)
            return result
        commit_now(self.connection)
        self._progress.prepare()
        result = run()
        if isinstance(construct, TextClause) and result is not None and result.returns_rows:
            note_jobs(self.connection, construct.text, result.fetchall())
        commit_now(self.connection)
        self._progress.note(statement)
        commit_now(self.connection)
        return result

    def _is_version_statement(self, construct: Any) -> bool:
        return isinstance(construct, dml.UpdateBase) and construct.table is self._version_table

    def _write_following_steps(self, construct: Any) -> None:
        """For offline mode: the statements that the dialect adds when it executes."""
        if not isinstance(construct, schema.DDLElement):
            return
        compiled = construct.compile(dialect=self.dialect)
        for step in steps.following_steps(construct, compiled):
            if step.awaits_jobs:
                self.static_output("-- Go on once sys.jobs says that the index is completed.")
            self.static_output(step.statement + self.command_terminator)

    def emit_begin(self) -> None:
        """Nothing: each statement of a script is a transaction of its own."""

    def emit_commit(self) -> None:
        """Nothing: each statement of a script is a transaction of its own."""

    # -- operations -----------------------------------------------------------------------------------------------

    def create_index(self, index: schema.Index, **kw: Any) -> None:
        try:
            super().create_index(index, **kw)
        except exc.DBAPIError as error:
            if not self._is_failed_build(index, error):
                raise
            # What is left of a build that failed serves nobody.
            self._exec(schema.DropIndex(index))
            super().create_index(index, **kw)

    def _is_failed_build(self, index: schema.Index, error: exc.DBAPIError) -> bool:
        state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        if state != _DUPLICATE_RELATION or self.connection is None or index.table is None:
            return False
        self.dialect.do_rollback(self.connection.connection)
        found = inspect(self.connection).get_indexes(index.table.name, schema=index.table.schema)
        return any(
            other["name"] == index.name and other.get("dialect_options", {}).get("postgresql_invalid")
            for other in found
        )

    def add_column(
        self, table_name: str, column: Column[Any], *, schema: Any = None, if_not_exists: bool | None = None, **kw: Any
    ) -> None:
        """Add a column; a default and NOT NULL in steps of their own, with what is there filled in between."""
        where = f"add_column {table_name}.{column.name}"
        if column.identity is not None or (column.primary_key and columns.is_generated(column, self.dialect)):
            raise UnsupportedError(
                where, "DSQL adds no identity column to a table", "create a new table, copy the rows"
            )
        if column.computed is not None:
            raise UnsupportedError(where, "DSQL adds no generated column to a table", "create a new table or a view")
        if column.primary_key:
            raise UnsupportedError(where, "a primary key cannot be added to", "create a new table, copy the rows")
        self._exec(AddBareColumn(table_name, column, schema=schema, if_not_exists=if_not_exists))
        if column.server_default is not None:
            self.alter_column(table_name, column.name, server_default=column.server_default, schema=schema)
            self._backfill(table_name, column.name, schema)
        if not column.nullable:
            self._exec(NotNullCheck.add(table_name, column.name, schema))

    def alter_column(
        self,
        table_name: str,
        column_name: str,
        *,
        nullable: bool | None = None,
        type_: sqltypes.TypeEngine[Any] | None = None,
        existing_type: sqltypes.TypeEngine[Any] | None = None,
        schema: str | None = None,
        **kw: Any,
    ) -> None:
        """As Alembic's. NOT NULL becomes a validated CHECK, since DSQL sets none on a column that is there."""
        if type_ is not None and (existing_type is None or self._type_text(type_) != self._type_text(existing_type)):
            raise UnsupportedError(
                f"alter_column {table_name}.{column_name}, type_={type_!r}",
                "DSQL changes no column's type",
                "add a column of the new type, copy the values, drop the old column and rename the new one",
            )
        super().alter_column(table_name, column_name, existing_type=existing_type, schema=schema, **kw)
        name = kw.get("name") or column_name
        if nullable is False:
            self._exec(NotNullCheck.add(table_name, name, schema))
        elif nullable is True:
            self._drop_not_null(table_name, name, schema)

    def _drop_not_null(self, table_name: str, column_name: str, schema_name: str | None) -> None:
        checked = (
            not_null_columns(inspect(self.connection), table_name, schema_name) if self.connection is not None else {}
        )
        if column_name in checked:
            self._exec(NotNullCheck.drop(table_name, column_name, schema_name, checked[column_name]))
        else:
            super().alter_column(table_name, column_name, nullable=True, schema=schema_name)

    def _backfill(self, table_name: str, column_name: str, schema_name: str | None) -> None:
        """Give the rows that are there the new column's default, a part in each transaction."""
        table = schema.Table(table_name, schema.MetaData(), Column(column_name), schema=schema_name)
        preparer = self.dialect.identifier_preparer
        name, column = preparer.format_table(table), preparer.quote(column_name)
        if self.as_sql:
            self.static_output("-- At most 3,000 rows a transaction: repeat it until it updates none.")
            self.static_output(f"UPDATE {name} SET {column} = DEFAULT WHERE {column} IS NULL{self.command_terminator}")
            return
        assert self.connection is not None
        key = inspect(self.connection).get_pk_constraint(table_name, schema=schema_name)["constrained_columns"]
        keys = ", ".join(preparer.quote(part) for part in key)
        chosen = f"({keys}) IN (SELECT {keys} FROM {name} WHERE {column} IS NULL LIMIT {BACKFILL_ROWS})"
        where = chosen if key else f"{column} IS NULL"
        while True:
            done = self.connection.exec_driver_sql(f"UPDATE {name} SET {column} = DEFAULT WHERE {where}").rowcount
            commit_now(self.connection)
            if not key or done < BACKFILL_ROWS:
                return

    # -- comparing ------------------------------------------------------------------------------------------------

    def compare_type(self, inspector_column: Column[Any], metadata_column: Column[Any]) -> bool:
        """Whether they differ, once the model's type is what DSQL stores for it."""
        stored = columns.stored_type(metadata_column, self.dialect)
        if self._type_text(stored) == self._type_text(inspector_column.type):
            return False
        return bool(super().compare_type(inspector_column, Column(metadata_column.name, stored)))

    def _type_text(self, type_: sqltypes.TypeEngine[Any]) -> str:
        return str(self.dialect.type_compiler_instance.process(implementation(type_, self.dialect)))

    def _compare_identity_default(self, metadata_identity: Any, inspector_identity: Any) -> Any:
        if metadata_identity is None and inspector_identity is not None and not inspector_identity.always:
            # An autoincrement primary key, which is an identity column in DSQL.
            return set(), set(), False
        return super()._compare_identity_default(metadata_identity, inspector_identity)

    def autogen_column_reflect(self, inspector: Any, table: Any, column_info: Any) -> None:
        super().autogen_column_reflect(inspector, table, column_info)
        if column_info["nullable"] and column_info["name"] in not_null_columns(inspector, table.name, table.schema):
            column_info["nullable"] = False


class OfficialNameImpl(DSQLImpl):
    """The same under the official dialect's name."""

    __dialect__ = "auroradsql"
