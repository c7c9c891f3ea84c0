"""Running the statements of schema changes: one a transaction, jobs awaited, refused plans undone, all noted."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from django.db.backends.postgresql.schema import DatabaseSchemaEditor as PostgresqlSchemaEditor
from django.db.transaction import TransactionManagementError

from dsql_dialects.django.schema_catalog import Table, read_table
from dsql_dialects.django.schema_errors import explain
from dsql_dialects.django.schema_jobs import Job, await_job
from dsql_dialects.django.schema_journal import Journal, current_migration
from dsql_dialects.django.schema_lease import end_turn, renew_while_running
from dsql_dialects.django.schema_names import unquoted
from dsql_dialects.django.schema_rows import RowMover, batch_sql
from dsql_dialects.django.schema_statements import (
    CONSTRAINT_OF_INDEX,
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

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger("django.db.backends.schema")

_DDL = re.compile(r"^\s*(CREATE|ALTER|DROP|COMMENT|GRANT|REVOKE|ANALYZE|TRUNCATE|REINDEX)\b", re.IGNORECASE)

#: What DSQL says to a statement whose work is done already: what it makes exists (a table or index, a column, a
#: constraint), what it removes or renames doesn't.
EXISTS, IS_GONE = frozenset({"42P07", "42701", "42710"}), frozenset({"42P01", "42703", "42704"})

_MAKES = re.compile(
    r"^\s*(CREATE (TABLE|INDEX|UNIQUE INDEX) |ALTER TABLE .* (ADD (COLUMN|CONSTRAINT)|RENAME) )",
    re.IGNORECASE | re.DOTALL,
)
_REMOVES = re.compile(
    r"^\s*(DROP (TABLE|INDEX) (?!IF )|ALTER TABLE .* (DROP (COLUMN|CONSTRAINT) (?!IF )|RENAME |UNIQUE USING INDEX ))",
    re.IGNORECASE | re.DOTALL,
)


def says_already_done(sql: str, sqlstate: str | None) -> bool:
    """Whether DSQL's refusal of a statement is what it says when the statement is run a second time."""
    return bool((sqlstate in EXISTS and _MAKES.match(sql)) or (sqlstate in IS_GONE and _REMOVES.match(sql)))


class StepRunner(PostgresqlSchemaEditor):
    """What a schema editor does with statements.

    A change that takes several is planned as a whole before it begins. If one of them is refused before data would be
    lost by going back, what was done is undone; otherwise the migration, run again, goes on.
    """

    def __init__(self, connection: Any, collect_sql: bool = False, atomic: bool = True) -> None:
        super().__init__(connection, collect_sql, atomic)
        self._captured: list[Step] | None = None
        self._jobs: list[tuple[str, Job]] = []
        self._journal = Journal(connection, None)
        self._renewal: Any = None  #: while a migration runs

    def __enter__(self) -> Self:
        if not self.collect_sql:
            self._journal = Journal(self.connection, current_migration())
            if self._journal.active:
                self._renewal = self.connection.execute_wrapper(renew_while_running(self.connection))
                self._renewal.__enter__()
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
                end_turn(self.connection)
        except BaseException as failure:
            explain(failure, traceback)
            raise
        finally:
            if self._renewal is not None:
                self._renewal.__exit__(None, None, None)
                self._renewal = None
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
        rows: list[Any] = []

        def fetch_job(execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
            result = execute(sql, params, many, context)
            if is_async(sql) and context["cursor"].description:
                rows.append(context["cursor"].fetchone())
            return result

        try:
            if _DDL.match(step.sql):
                with self.connection.execute_wrapper(fetch_job):
                    super(PostgresqlSchemaEditor, self).execute(step.sql, None)
            else:
                logger.debug("%s; (params %r)", step.sql, None, extra={"params": None, "sql": step.sql})
                with self.connection.cursor() as cursor:
                    cursor.execute(step.sql)
        except DatabaseError as error:
            state = getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None)
            if self._journal.may_be_done(key) and (
                says_already_done(step.sql, state) or self._has_constraint(step.sql)
            ):
                return self._job_of(step)
            if state is not None:
                with suppress(DatabaseError):
                    self._journal.failed(key)
            raise
        if _MAKES.match(step.sql) or _REMOVES.match(step.sql):
            self._journal.caught_up()
        return str(rows[0][0]) if rows and rows[0] else None

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


def _was_refused(error: DatabaseError) -> bool:
    """Whether DSQL answered; if the connection is gone instead, going on later is better than undoing now."""
    if error.__cause__ is None:
        return True  # our own, such as that of a failed job
    return bool(getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None))
