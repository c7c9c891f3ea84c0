"""Schema changes: each DDL statement a transaction of its own, jobs awaited, interrupted migrations carried on."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, NotSupportedError
from django.db.backends.ddl_references import Columns, Statement
from django.db.backends.postgresql.schema import DatabaseSchemaEditor as PostgresqlSchemaEditor
from django.db.models import NOT_PROVIDED
from django.db.models.expressions import OrderBy
from django.db.models.signals import post_migrate
from django.db.transaction import TransactionManagementError

from dsql_dialects.django.schema_alter import FieldAlteration
from dsql_dialects.django.schema_catalog import Table, read_table
from dsql_dialects.django.schema_errors import explain
from dsql_dialects.django.schema_fields import FieldAddition, FieldRemoval
from dsql_dialects.django.schema_jobs import Job, await_job
from dsql_dialects.django.schema_journal import Journal, current_migration
from dsql_dialects.django.schema_names import unquoted
from dsql_dialects.django.schema_notes import delete_finished_notes, finished_here
from dsql_dialects.django.schema_rows import RowMover, batch_sql
from dsql_dialects.django.schema_statements import (
    ADD_CHECK,
    ADD_FOREIGN_KEY,
    ADD_UNIQUE,
    CONSTRAINT_OF_INDEX,
    RENAME_INDEX,
    ConstraintStatement,
    is_async,
    undo_of,
    with_async,
)
from dsql_dialects.django.schema_steps import (
    Backfill,
    CopyRows,
    Ddl,
    DeleteVanished,
    PointOfNoReturn,
    RestartIdentity,
    Step,
)

logger = logging.getLogger("django.db.backends.schema")

_DDL = re.compile(r"^\s*(CREATE|ALTER|DROP|COMMENT|GRANT|REVOKE|ANALYZE|TRUNCATE|REINDEX)\b", re.IGNORECASE)

#: What DSQL says to a statement whose work is done already: it exists (table, index; column; constraint), it doesn't.
ALREADY_DONE = frozenset({"42P07", "42701", "42710", "42P01", "42703", "42704"})


class DatabaseSchemaEditor(PostgresqlSchemaEditor):
    """Django's schema editor for Aurora DSQL.

    A change that takes several statements is planned as a whole before it begins. If a statement is refused before
    data would be lost by going back, what was done is undone; otherwise the migration, run again, goes on.
    """

    sql_create_index = "CREATE INDEX ASYNC %(name)s ON %(table)s (%(columns)s)%(include)s%(extra)s%(condition)s"
    sql_create_index_concurrently = sql_create_index
    # Made of Django's, because what it has room for depends on the version.
    sql_create_unique_index = PostgresqlSchemaEditor.sql_create_unique_index.replace("INDEX", "INDEX ASYNC", 1)
    sql_rename_index = RENAME_INDEX
    sql_delete_index_concurrently = PostgresqlSchemaEditor.sql_delete_index
    sql_create_check = ADD_CHECK[0]
    sql_create_fk = ADD_FOREIGN_KEY[0]
    # Without SET CONSTRAINTS: that would be a second statement in the transaction.
    sql_delete_fk = PostgresqlSchemaEditor.sql_delete_constraint
    sql_create_column_inline_fk = None

    def __init__(self, connection: Any, collect_sql: bool = False, atomic: bool = True) -> None:
        super().__init__(connection, collect_sql, atomic)
        self._captured: list[Step] | None = None
        self._jobs: list[tuple[str, Job]] = []
        self._known_tables: set[str] = set()
        self._journal = Journal(connection, None)

    def __enter__(self) -> DatabaseSchemaEditor:
        if not self.collect_sql:
            self._journal = Journal(self.connection, current_migration())
        super().__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            super().__exit__(exc_type, error, traceback)
            if error is None:
                self._await_jobs()
                self._journal.finished()
            else:
                with suppress(DatabaseError):
                    self._await_jobs()
                    self._journal.write()
        except BaseException as failure:
            explain(failure, traceback)
            raise
        if error is not None:
            explain(error, traceback)

    # Running statements

    def execute(self, sql: Any, params: Any = ()) -> None:
        """Run a statement, or both statements of a constraint, each in a transaction of its own.

        :raises TransactionManagementError: for DDL inside ``atomic()``.
        """
        if isinstance(sql, ConstraintStatement):
            steps: list[Step] = list(sql.steps())
        else:
            text = str(sql)
            if params is not None:
                text = self.connection.ops.compose_sql(text, params)
            text = with_async(text)
            steps = [Ddl(text, undo_of(text))]
        if self._captured is not None:
            self._captured.extend(steps)
            return
        for step in steps:
            assert isinstance(step, Ddl)
            self._run_ddl(self._journal.key(step.sql), step)

    def _run_ddl(self, key: str, step: Ddl) -> None:
        if self.collect_sql:
            super(PostgresqlSchemaEditor, self).execute(step.sql, None)
            return
        if self.connection.in_atomic_block and _DDL.match(step.sql):
            raise TransactionManagementError(
                "Executing DDL statements while in a transaction on databases that can't perform a rollback is "
                "prohibited. Aurora DSQL takes one DDL statement a transaction and no other statement beside it; run "
                f"this one outside of atomic(): {step.sql}"
            )
        if self._journal.is_done(key):
            return
        if not is_async(step.sql):
            self._await_jobs()
        changes_rows = not _DDL.match(step.sql)
        self._journal.before(step.sql, changes_rows)
        job_id = self._execute(key, step)
        if job_id is None:
            self._journal.done(key, step.sql)
            if changes_rows:
                self._journal.write()
        else:
            self._jobs.append((key, Job(job_id, step.sql, step.undo)))

    def _execute(self, key: str, step: Ddl) -> str | None:
        """Run one statement; the id of its job if it has one."""
        row = None
        try:
            if _DDL.match(step.sql) and not is_async(step.sql):
                super(PostgresqlSchemaEditor, self).execute(step.sql, None)
            else:
                logger.debug("%s; (params %r)", step.sql, None, extra={"params": None, "sql": step.sql})
                with self.connection.cursor() as cursor:
                    cursor.execute(step.sql)
                    row = cursor.fetchone() if is_async(step.sql) and cursor.description else None
        except DatabaseError as error:
            state = getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None)
            if self._journal.may_be_done(key) and (state in ALREADY_DONE or self._has_constraint(step.sql)):
                return self._job_of(step)
            if state is not None:
                with suppress(DatabaseError):
                    self._journal.failed(key)
            raise
        return None if row is None else str(row[0])

    def _has_constraint(self, sql: str) -> bool:
        """Whether the index that a constraint was to be made of is that constraint already."""
        match = CONSTRAINT_OF_INDEX.match(sql)
        if match is None:
            return False
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT 1 FROM pg_constraint WHERE conrelid = to_regclass(%s) AND conname = %s)",
                (match[1], unquoted(match[2])),
            )
            return bool(cursor.fetchone()[0])

    def _job_of(self, step: Ddl) -> str | None:
        """The job of an ASYNC statement that an interrupted run began, if it is still known."""
        if not step.undo or not is_async(step.sql):
            return None
        name = step.undo[0].rpartition(" ")[2]
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT job_id FROM sys.jobs WHERE object_id = to_regclass(%s)::oid ORDER BY start_time DESC LIMIT 1",
                (name,),
            )
            row = cursor.fetchone()
        return None if row is None else str(row[0])

    def _await_jobs(self) -> None:
        jobs, self._jobs = self._jobs, []
        for key, job in jobs:
            try:
                await_job(self.connection, job)
            except DatabaseError:
                with suppress(DatabaseError):
                    self._journal.failed(key)
                raise
            self._journal.done(key, job.sql)

    # Plans

    def _statements_of(self, change: Callable[[], None]) -> list[Step]:
        """What one of Django's methods would execute."""
        self._captured = []
        try:
            change()
        finally:
            steps, self._captured = self._captured, None
        return steps

    def _run_plan(self, description: str, planned: Callable[[], Sequence[Step]]) -> None:
        key = self._journal.key(description)
        steps = self._journal.plan(key)
        if steps is None:
            steps = list(planned())
            if steps:
                self._journal.store_plan(key, steps)
        undo: list[tuple[str, ...]] | None = []
        for number, step in enumerate(steps, 1):
            if isinstance(step, PointOfNoReturn):
                undo = None
                continue
            try:
                self._run_step(f"{key} {number}", step)
                if is_async(getattr(step, "sql", "")) and undo is not None:
                    self._await_jobs()  # while it can still be undone
            except DatabaseError as error:
                if undo is not None and _was_refused(error):
                    self._undo(key, undo)
                raise
            if isinstance(step, Ddl) and undo is not None:
                undo.append(step.undo)

    def _run_step(self, key: str, step: Step) -> None:
        if isinstance(step, Ddl):
            self._run_ddl(key, step)
            return
        if self.collect_sql:
            if isinstance(step, (Backfill, CopyRows)):
                self.collected_sql.extend(batch_sql(step))
            return
        if self._journal.is_done(key):
            return
        self._await_jobs()
        rows = RowMover(self.connection)
        if isinstance(step, Backfill):
            rows.backfill(step)
        elif isinstance(step, CopyRows):
            rows.copy(step)
        elif isinstance(step, DeleteVanished):
            rows.delete_vanished(step)
        elif isinstance(step, RestartIdentity):
            rows.restart_identity(step)
        self._journal.done(key, type(step).__name__)

    def _undo(self, key: str, done: list[tuple[str, ...]]) -> None:
        for statements in reversed(done):
            for sql in statements:
                with suppress(DatabaseError), self.connection.cursor() as cursor:
                    cursor.execute(sql)
        with suppress(DatabaseError):
            self._journal.forget(key)

    def read_table(self, name: str) -> Table:
        """What the catalog says of a table.

        :param name: as in a model's ``db_table``.
        """

        def fetch(sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
            with self.connection.cursor() as cursor:
                cursor.execute(sql, values)
                return list(cursor.fetchall())

        return read_table(fetch, self.quote_name(name))

    def composed(self, sql: str, params: Sequence[Any]) -> str:
        """SQL with its parameters as literals."""
        return str(self.connection.ops.compose_sql(sql, params)) if params else sql

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


def _was_refused(error: DatabaseError) -> bool:
    """Whether DSQL answered; if the connection is gone instead, going on later is better than undoing now."""
    if error.__cause__ is None:
        return True  # our own, such as that of a failed job
    return bool(getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None))


def _forget_finished_migrations(using: str = DEFAULT_DB_ALIAS, **_: Any) -> None:
    from django.db import connections

    connection = connections[using]
    if finished_here(connection):
        delete_finished_notes(connection)


post_migrate.connect(_forget_finished_migrations, dispatch_uid="dsqlkit migration notes")
