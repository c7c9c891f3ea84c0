"""A session's transactions: the block as the client sees it, and the query processor that holds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dsql_server.catalog.changes import Catalog
from dsql_server.frontend.client_stream import ClientStream
from dsql_server.frontend.shown import Shown, ShownStatements
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import CommitPath
from dsql_server.interfaces.limits import DSQL_LIMITS, Limits
from dsql_server.jobs.manager import JobManager
from dsql_server.processor.ddl import PendingDefinition, commit_definition
from dsql_server.processor.engine_connection import EngineError
from dsql_server.processor.errors import SqlError, schema_conflict, server_unavailable
from dsql_server.processor.executor import Executor
from dsql_server.processor.planner import Planner, PlanSettings
from dsql_server.processor.pool import ProcessorPool
from dsql_server.statements.dump import DUMP_APPLICATION

#: A session's state as ReadyForQuery tells it.
IDLE, BLOCK, FAILED = b"I", b"T", b"E"
_ENGINE_ENDED = p.error_response(
    "57P01",
    "terminating connection because its query processor ended",
    hint="Connect again and repeat the transaction, unless its COMMIT was answered.",
    severity="FATAL",
)


class Services(NamedTuple):
    """What a session needs of the server."""

    pool: ProcessorPool
    planner: Planner
    catalog: Catalog
    commit_path: CommitPath
    jobs: JobManager
    cluster_size: Callable[[], int]  #: bytes that storage holds now
    shown: ShownStatements
    limits: Limits = DSQL_LIMITS
    strict_catalog: bool = False  #: OC001 for sessions that were idle while the catalog changed


class Client(NamedTuple):
    """Whose session it is, and the way back to who asks."""

    role: str
    settings: dict[str, str]  #: that the session begins with, the machinery's own among them
    write: Callable[[bytes], None]  #: sends bytes to the client
    end: Callable[[BaseException | None], None]  #: is told when the session's coroutine is over, of what ended it


class Transactions(ClientStream):
    """Begins, commits and rolls back, and leases the query processor at the first need."""

    def __init__(self, services: Services, client: Client) -> None:
        super().__init__(client.write, client.end)
        self.services = services
        self.role = client.role
        self._settings = client.settings
        self._dumps = client.settings.get("application_name") == DUMP_APPLICATION
        self.executor: Executor | None = None
        self._block = IDLE
        self._block_read_only: bool | None = None  #: what BEGIN said; None: nothing
        self._read_only_by_default = False  #: what SET SESSION CHARACTERISTICS said
        self._definition: PendingDefinition | None = None
        self._wrote = False
        #: What repeats the transaction's changes of settings once it is committed.
        self._block_settings: list[bytes] = []
        self._settings_in_transaction = False  #: some were changed that the transaction's end puts back
        self.plan_settings = PlanSettings()
        self._settings_stale = True
        self._settings_changes = 0  #: how often they were asked for after a change
        self._shown = Shown()
        self._beginning = False  #: BEGIN asks storage for nothing, so it meets no change of the catalog
        self._alone = False  #: the request holds one statement only
        self._off: set[str] = set()  #: Aurora DSQL's own boolean parameters that the session turned off

    @property
    def _read_only(self) -> bool:
        """Whether the transaction may only read. The engine's own never is: rows are loaded in it."""
        return self._read_only_by_default if self._block_read_only is None else self._block_read_only

    def hang_up(self) -> None:
        """The client is gone, or has to go."""
        super().hang_up()
        if self.executor is not None:
            self.services.pool.abandon(self.executor.processor)

    def hold_answers(self, hold: bool) -> None:
        """Make the engine wait while the client is slow in taking its answers, and let it go on."""
        if self.executor is not None:
            connection = self.executor.connection
            if hold:
                connection.pause_reading()
            else:
                connection.resume_reading()

    def _engine_lost(self) -> None:
        """The processor's connection is gone, and with it the session's prepared statements and settings.

        So the session goes, too, unless it hasn't asked for anything yet. Then it leases another one when it does.
        """
        executor = self.executor
        if self._asked or executor is None:
            self.wind_up()
            return
        self.executor = None
        self._forget_settings()
        self.services.pool.give_back(executor.processor)

    def _forget_settings(self) -> None:
        """Back to what is known of a session that has no processor."""
        self._settings_stale, self._settings_changes = True, 0

    def _release(self) -> None:
        executor, self.executor = self.executor, None
        if executor is not None:
            executor.connection.resume_reading()
            if executor.connection.closed:
                self._write(_ENGINE_ENDED)
            executor.connection.on_lost = None
            executor.rollback()
            self.services.pool.give_back(executor.processor)

    async def _ready_executor(self) -> Executor:
        """The executor, with a transaction: begun now, if none was."""
        executor = self.executor
        if executor is None or executor.workspace is None:
            executor = await self._current_executor()
            executor.begin()
        return executor

    async def _current_executor(self) -> Executor:
        """The executor; between transactions its engine's catalog is brought to the current version."""
        executor = self.executor
        is_known = executor is not None
        if executor is None:
            try:
                processor = await self.services.pool.lease(self.role, self._settings)
            except (EngineError, OSError) as error:
                raise server_unavailable() from error
            services = self.services
            executor = self.executor = Executor(
                processor,
                services.commit_path,
                services.catalog,
                self._driver.resume,
                self._stream,
                services.limits,
                services.cluster_size,
            )
            executor.connection.on_lost = self._engine_lost
            if self.closed:  # the client left meanwhile, when there was no processor to be abandoned
                services.pool.abandon(processor)
        if executor.workspace is None:
            catalog = self.services.catalog
            # Not once: others may change the catalog during a replay, and a transaction sees the whole of its version.
            while executor.processor.version < catalog.version:
                try:
                    await executor.processor.replay(catalog)
                except EngineError as error:
                    # Its database is of no use any more, nor is the session on it.
                    self.wind_up()
                    raise server_unavailable() from error
                executor.stale = is_known and self.services.strict_catalog
            if executor.stale and not self._beginning:
                executor.stale = False
                raise schema_conflict()
        return executor

    async def _commit(self) -> None:
        """Commit the open transaction, if there is one. Raises SqlError; nothing is committed then."""
        executor, definition = self.executor, self._definition
        self._definition, self._wrote = None, False
        if executor is None or executor.workspace is None:
            return
        settings, self._block_settings = self._block_settings, []
        try:
            if definition is not None:
                executor.check_current()
                definition.claims += await executor.take_locks()
                await commit_definition(executor, self.services.catalog, definition)
                self.services.jobs.start(definition.job_ids)
            else:
                await executor.commit()
        except SqlError:
            executor.rollback()
            raise
        for again in settings:
            executor.connection.discard(again)

    def _rollback(self) -> None:
        self._definition, self._wrote = None, False
        if self._block_settings:
            self._block_settings = []
            self._settings_stale = True
        if self.executor is not None:
            self.executor.rollback()

    def _fail(self, error: SqlError) -> None:
        """Send an error and leave the transaction as PostgreSQL does."""
        self._out.append(error.notices + error.response)
        if self._block == IDLE:
            self._rollback()
        else:
            self._block = FAILED
            if self.executor is not None and self.executor.engine_open:
                self.executor.rollback()

    async def _finish_implicit(self) -> None:
        """The end of an implicit transaction: commit, and let an error take the place of the last completion."""
        executor = self.executor
        if executor is None or executor.workspace is None:
            return
        reads = self._definition is None and not self._block_settings
        if reads and not (executor.engine_open and executor.workspace.wrote):
            self._wrote = False
            return  # a read: its rollback follows behind the answer
        try:
            await self._commit()
        except SqlError as error:
            self._drop_completion()
            self._out.append(error.response)

    async def _tell_settings(self) -> None:
        """End the engine's transaction, and report the settings that this has put back."""
        self._settings_in_transaction = False
        self._settings_stale = True
        if self.executor is not None:
            self.executor.rollback()
            await self.executor.collect(p.SYNC)
            self._out += self.executor.connection.untold_parameters()

    def _drop_completion(self) -> None:
        """Take the last CommandComplete back: the statement didn't complete after all."""
        if self._out:
            joined = b"".join(self._out)
            at = joined.rfind(b"C\x00\x00\x00")
            if at >= 0 and at + 1 + p.unpack_i32(joined, at + 1)[0] == len(joined):
                joined = joined[:at]
            self._out = [joined] if joined else []
