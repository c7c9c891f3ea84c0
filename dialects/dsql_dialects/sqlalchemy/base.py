"""The dialect itself, for all drivers: transactions, DDL as DSQL wants it, what DSQL has not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, cast

from sqlalchemy import exc, pool
from sqlalchemy.dialects.postgresql.base import PGDialect, PGExecutionContext
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.types import TypeEngine

from dsql_connectors.core.errors import ConninfoError, DriverErrors
from dsql_connectors.core.parameters import canonical_parameters
from dsql_connectors.core.retry import RetryLoop, policy_of
from dsql_connectors.core.settings import Settings, resolve
from dsql_dialects.sqlalchemy import jobs, steps
from dsql_dialects.sqlalchemy.columns import IDENTITY_CACHE, check_cache
from dsql_dialects.sqlalchemy.compiler import DSQLCompiler
from dsql_dialects.sqlalchemy.ddl import DSQLDDLCompiler
from dsql_dialects.sqlalchemy.errors import RowLimitError, SavepointError, TwoPhaseError
from dsql_dialects.sqlalchemy.pooling import AsyncDSQLPool, DSQLPool, is_alive, limit_ages
from dsql_dialects.sqlalchemy.reflection import DSQLReflection
from dsql_dialects.sqlalchemy.types import DSQLTypeCompiler, variant_for

#: Rows that a DSQL transaction may insert, update and delete.
TRANSACTION_ROWS_MAX = 3000

#: The one isolation level. AUTOCOMMIT is SQLAlchemy's name for doing without transactions.
ISOLATION_LEVEL: Literal["REPEATABLE READ"] = "REPEATABLE READ"
ISOLATION_LEVELS: tuple[IsolationLevel, ...] = ("AUTOCOMMIT", ISOLATION_LEVEL)

#: Execution option: False leaves index builds and validations running in the background.
WAIT_OPTION = "dsql_wait_for_jobs"

#: Keys of ``Connection.info``.
_JOBS = "dsql_jobs"
_WRITTEN_IN = "dsql_written_in"
_FAILED_IN = "dsql_failed_in"

_READING = ("select", "show", "values", "explain", "table")

ERRORS = DriverErrors(
    operational=exc.SQLAlchemyError, interface=exc.InvalidRequestError, serialization=exc.SQLAlchemyError
)


class DSQLExecutionContext(PGExecutionContext):
    """Watches over one statement's execution."""

    dialect: DSQLDialect

    def pre_exec(self) -> None:
        super().pre_exec()
        if self.isddl:
            return
        connection = self.root_connection
        if self.dialect.defines and (begun := _pending_jobs(connection.connection)):
            # The end of a job changes the catalog, which would fail the transaction that begins here.
            jobs.wait_for_jobs(self.dialect, connection.connection.dbapi_connection, begun)
        if self.compiled is not None and not (self.isinsert or self.isupdate or self.isdelete or self.is_text):
            return  # a query, as most are
        if self.executemany and len(self.compiled_parameters) > TRANSACTION_ROWS_MAX:
            self._check_row_limit(len(self.compiled_parameters))
        if not self._reads_only():
            connection.info[_WRITTEN_IN] = connection.get_transaction()

    def handle_dbapi_exception(self, e: BaseException) -> None:
        super().handle_dbapi_exception(e)
        connection = self.root_connection
        if not connection.invalidated:
            connection.info[_FAILED_IN] = connection.get_transaction()

    def _reads_only(self) -> bool:
        if self.isinsert or self.isupdate or self.isdelete:
            return False
        return str(self.unicode_statement or "").lstrip(" \t\n(")[:7].lower().startswith(_READING)

    def _check_row_limit(self, count: int) -> None:
        dbapi_connection = self.root_connection.connection.dbapi_connection
        if self.is_crud and not self.dialect.is_autocommit(dbapi_connection):
            raise RowLimitError(
                f"{count} rows in one execute(): a DSQL transaction changes at most {TRANSACTION_ROWS_MAX}; nothing "
                "was sent; use dsql_dialects.sqlalchemy.execute_in_chunks() to spread them over several transactions"
            )


class DSQLDialect(DSQLReflection, PGDialect):
    """Aurora DSQL. The classes of the drivers derive from this and from SQLAlchemy's for PostgreSQL."""

    name = "aws_dsql"
    supports_statement_cache = True

    statement_compiler: Any = DSQLCompiler
    ddl_compiler = DSQLDDLCompiler
    type_compiler_cls = DSQLTypeCompiler
    execution_ctx_cls: Any = DSQLExecutionContext

    supports_native_enum = False
    supports_smallserial = False
    supports_virtual_generated_columns = False
    supports_server_side_cursors = False
    supports_constraint_comments = False  # unless the engine is told; see __init__
    supports_sane_multi_rowcount = True
    use_insertmanyvalues_wo_returning = True  # one statement for many rows is cheaper than many in a pipeline
    default_isolation_level: IsolationLevel | None = ISOLATION_LEVEL

    #: Names that only the driver in use takes as connection parameters, beside libpq's.
    driver_parameters: frozenset[str] = frozenset()

    defines = False  #: whether a definition has been executed: without any, there are no jobs to look for

    def __init__(self, identity_cache: int = IDENTITY_CACHE, constraint_comments: bool = False, **kwargs: Any) -> None:
        """As SQLAlchemy's dialects for PostgreSQL.

        :param identity_cache: values that a session takes at once for identity columns and sequences that don't say
            it: 1, or 65,536 and more. 1 leaves no gaps, but every insert then changes the one row of the sequence.
        :param constraint_comments: whether ``create_all()`` sets the comments of constraints. COMMENT ON CONSTRAINT is
            in DSQL's grammar (CommentStmt), but AWS's ``dsql-lint`` can't parse it and has no way to make an exception,
            so that a schema with one never passes; without this, a warning names each comment that isn't set.
        """
        check_cache(identity_cache, "identity_cache")
        self.identity_cache = identity_cache
        self.supports_constraint_comments = constraint_comments
        page_size = kwargs.get("insertmanyvalues_page_size")
        if page_size is not None:
            kwargs["insertmanyvalues_page_size"] = min(page_size, TRANSACTION_ROWS_MAX)
        super().__init__(**kwargs)

    def initialize(self, connection: Any) -> None:
        super().initialize(connection)
        self.supports_smallserial = False
        self.supports_virtual_generated_columns = False

    # -- connecting -----------------------------------------------------------------------------------------------

    def create_connect_args(self, url: URL) -> tuple[Sequence[Any], dict[str, Any]]:
        """The connectors' parameters. They resolve host, region and token at each connect.

        :raises ConnectorError: for parameters that can't be read, unchanged.
        """
        given: dict[str, object] = dict(url.translate_connect_args(username="user", database="dbname"))
        for name, value in url.query.items():
            if not isinstance(value, str):
                raise ConninfoError(f"the URL gives {name!r} twice; keep one")
            given[name] = value
        return (), self.complete_connect_args(canonical_parameters(given, self.driver_parameters))

    def complete_connect_args(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Add what the driver's SQLAlchemy dialect wants to hand over."""
        return parameters

    def settings_of(self, url: URL) -> Settings:
        """What a connect by this URL would use, for those who want to look."""
        return resolve("", self.create_connect_args(url)[1], driver=self.driver, environ=os.environ)

    @classmethod
    def get_pool_class(cls, url: URL) -> type[pool.Pool]:
        return AsyncDSQLPool if cls.is_async else DSQLPool

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        limit_ages(engine.pool)
        if "alembic" in sys.modules:  # registers the implementation, also for an Alembic without plugins
            import dsql_dialects.sqlalchemy.alembic  # noqa: F401

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Without a round trip where the connection was opened or asked a moment ago."""
        driver_connection = self.get_driver_connection(dbapi_connection)
        return is_alive(driver_connection, lambda: bool(super(DSQLDialect, self).do_ping(dbapi_connection)))

    # -- transactions ---------------------------------------------------------------------------------------------

    def get_isolation_level_values(self, dbapi_conn: Any) -> tuple[IsolationLevel, ...]:
        return ISOLATION_LEVELS

    def get_default_isolation_level(self, dbapi_conn: Any) -> IsolationLevel:
        return ISOLATION_LEVEL

    def get_isolation_level(self, dbapi_connection: Any) -> IsolationLevel:
        return "AUTOCOMMIT" if self.is_autocommit(dbapi_connection) else ISOLATION_LEVEL

    def is_autocommit(self, dbapi_connection: Any) -> bool:
        """Whether each statement is a transaction of its own."""
        return bool(dbapi_connection.autocommit)

    def set_deferrable(self, connection: Any, value: bool) -> None:
        if value:
            raise exc.ArgumentError("DSQL has no deferrable transactions; leave postgresql_deferrable out")

    def get_deferrable(self, connection: Any) -> bool:
        return False

    def do_savepoint(self, connection: Any, name: str) -> NoReturn:
        raise SavepointError(
            "begin_nested() needs a savepoint, which DSQL doesn't have; nothing was sent and the transaction goes on: "
            "do without, or run the whole transaction again with dsql_dialects.sqlalchemy.run_transaction()"
        )

    def do_begin_twophase(self, connection: Any, xid: Any) -> NoReturn:
        raise TwoPhaseError("DSQL has no two-phase commit; begin an ordinary transaction")

    def do_commit(self, dbapi_connection: Any) -> None:
        super().do_commit(dbapi_connection)
        if self.defines and (begun := _pending_jobs(dbapi_connection)):
            jobs.wait_for_jobs(self, dbapi_connection, begun)

    def do_rollback(self, dbapi_connection: Any) -> None:
        super().do_rollback(dbapi_connection)
        if self.defines and (begun := _pending_jobs(dbapi_connection)):
            begun.clear()  # they go on, but nobody waits for them any more

    # -- executing ------------------------------------------------------------------------------------------------

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        if context is not None and context.isddl:
            self._execute_ddl(cursor, statement, parameters, context)
        else:
            super().do_execute(cursor, statement, parameters, context)

    def execute_plain(self, cursor: Any, statement: str) -> None:
        """A statement of the dialect's own, without parameters."""
        cursor.execute(statement)

    def _execute_ddl(self, cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        """Run a DDL element: alone in its transaction, which is committed at once, and again if it loses.

        A transaction that only read is committed before. In one that has written, the server refuses the statement,
        as it does everywhere: nobody commits an application's changes behind its back.
        """
        connection = context.root_connection
        dbapi_connection = connection.connection.dbapi_connection
        element = context.compiled.statement
        begun = self.jobs_of(connection)
        if self._has_written(connection):
            super().do_execute(cursor, statement, parameters, context)
            return
        if begun and steps.needs_unique_indexes(element) and any(job.unique for job in begun):
            jobs.wait_for_jobs(self, dbapi_connection, begun)
        self._run_alone(dbapi_connection, lambda: super(DSQLDialect, self).do_execute(cursor, statement, parameters))
        if cursor.description is not None:
            rows = cursor.fetchall()
            # The job's id is the statement's result also for the application.
            context.cursor_fetch_strategy = FullyBufferedCursorFetchStrategy(cursor, initial_buffer=rows)
            jobs.note(rows, statement, begun)
        for step in steps.following_steps(element, context.compiled):
            if step.awaits_jobs:
                jobs.wait_for_jobs(self, dbapi_connection, begun)
            jobs.note(self._execute_step(dbapi_connection, step.statement), step.statement, begun)
        if not context.execution_options.get(WAIT_OPTION, True):
            begun.clear()
        elif self.is_autocommit(dbapi_connection):
            jobs.wait_for_jobs(self, dbapi_connection, begun)

    def jobs_of(self, connection: Connection) -> list[jobs.Job]:
        """The jobs that a connection has begun and that nobody has waited for, to be added to."""
        self.defines = True
        begun: list[jobs.Job] = connection.info.setdefault(_JOBS, [])
        return begun

    def _has_written(self, connection: Any) -> bool:
        transaction = connection.get_transaction()
        return transaction is not None and connection.info.get(_WRITTEN_IN) is transaction

    def _execute_step(self, dbapi_connection: Any, statement: str) -> list[Any]:
        cursor = dbapi_connection.cursor()
        try:
            self._run_alone(dbapi_connection, lambda: self.execute_plain(cursor, statement))
            return list(cursor.fetchall()) if cursor.description is not None else []
        finally:
            cursor.close()

    def _run_alone(self, dbapi_connection: Any, execute: Callable[[], None]) -> None:
        """Execute in a transaction of its own, without a round trip for BEGIN and COMMIT; again as long as it loses to
        a concurrent transaction (OC000, OC001)."""
        begins = not self.is_autocommit(dbapi_connection)
        super().do_commit(dbapi_connection)
        if begins:
            dbapi_connection.autocommit = True
        loop = RetryLoop(policy_of(None), ERRORS)
        try:
            while True:
                try:
                    return execute()
                except self.loaded_dbapi.Error as error:
                    delay_s = loop.delay_s_after(error)
                    if delay_s is None:
                        raise
                    self.sleep(delay_s)
        finally:
            if begins and not self._is_closed(dbapi_connection):
                dbapi_connection.autocommit = False

    def _is_closed(self, dbapi_connection: Any) -> bool:
        connection = self.get_driver_connection(dbapi_connection)
        return bool(connection.closed if hasattr(connection, "closed") else connection.is_closed())

    def sleep(self, seconds: float) -> None:
        """Wait, without blocking an event loop."""
        import time

        time.sleep(seconds)

    # -- types ----------------------------------------------------------------------------------------------------

    def type_descriptor(self, typeobj: TypeEngine[Any]) -> TypeEngine[Any]:
        """As SQLAlchemy's, but a type's variant for PostgreSQL counts where there is none for DSQL."""
        variant = variant_for(typeobj, self)
        if variant is not typeobj:
            return variant.dialect_impl(self)
        found: TypeEngine[Any] = super().type_descriptor(typeobj)
        return found


def commit_now(connection: Connection) -> None:
    """Commit what the connection has done so far and wait for its jobs; SQLAlchemy's transaction goes on."""
    connection.dialect.do_commit(connection.connection)
    connection.info.pop(_WRITTEN_IN, None)


def note_jobs(connection: Connection, statement: str, rows: Sequence[Any]) -> None:
    """Have the next COMMIT wait for the jobs that a statement written as text has begun."""
    jobs.note(rows, statement, cast(DSQLDialect, connection.dialect).jobs_of(connection))


def has_failed(connection: Connection) -> bool:
    """Whether a statement of the transaction under way has failed, so that COMMIT would roll back."""
    if connection.invalidated:
        return True
    transaction = connection.get_transaction()
    return transaction is not None and connection.info.get(_FAILED_IN) is transaction


def _pending_jobs(dbapi_connection: Any) -> list[jobs.Job] | None:
    # A pool's proxy has the record's dictionary; psycopg's own ``info`` is something else.
    try:
        info = getattr(dbapi_connection, "info", None)
    except NotImplementedError:  # SQLAlchemy's first look at a server, outside of the pool
        return None
    return info.get(_JOBS) if isinstance(info, dict) else None
