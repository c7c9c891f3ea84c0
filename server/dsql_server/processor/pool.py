"""Query processors: a warm pool of engine databases, each leased to one session at a time.

A database each means that two transactions never meet on a row lock or on a unique index entry: nobody waits.
Databases hold no committed rows, only the catalog, so they are cloned from a template and thrown away at will.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from dsql_server.catalog.changes import Catalog
from dsql_server.catalog.state import quote_identifier, quote_literal
from dsql_server.interfaces import protocol as p
from dsql_server.processor.engine_connection import EngineConnection, EngineError, EngineGone, connect_engine
from dsql_server.processor.query_processor import QueryProcessor, replay_changes, set_locally
from dsql_server.processor.roles import ADMIN_ROLE, ENGINE_ROLE, LOADER_ROLE, PLANNER_ROLE

TEMPLATE_DATABASE = "template1"
#: The other database that an engine starts with.
START_DATABASE = "postgres"
#: Databases kept ready beyond those leased.
SPARE_DATABASES = 4
#: Returned databases beyond these are dropped, after a pause each.
SPARE_DATABASES_MAX = 32
TRIM_PAUSE_S = 0.5
#: Processors that sessions may have before they need one: the engine's memory is for those that do.
LEASED_AHEAD_MAX = 16
#: How long the engine may take to end the connection of a processor that was given back.
GOODBYE_MAX_S = 5.0
#: How long a statement goes on after its client has closed the connection.
ABANDONED_STATEMENT_MAX_S = 1.0
#: How long sessions are waited for at a stop: to end by themselves, and once more to end without their engine.
DRAIN_STEP_MAX_S = 1.0
#: How long a lease waits for an engine that ended to be started again.
ENGINE_WAIT_MAX_S = 10.0
#: Catalog changes after which the template is brought up to date, so that new databases need little replay.
TEMPLATE_LAG_MAX_CHANGES = 16

#: An engine that takes no connection may have ended: how often, and every how many seconds, to look whether that was
#: noticed.
LOSS_NOTICED_MAX_STEPS = 100
LOSS_NOTICED_STEP_S = 0.01

_CANNOT_CONNECT_NOW = "57P03"


class ProcessorPool:
    """Leases query processors. All methods run on the event loop.

    ``on_engine_lost`` is called when the engine ends by itself. Leases then wait until :meth:`open` and :meth:`admit`
    were called for a new engine.
    """

    def __init__(self, socket_path: str, catalog: Catalog, on_engine_lost: Callable[[], None] | None = None) -> None:
        self.socket_path = socket_path
        self._catalog = catalog
        self._on_engine_lost = on_engine_lost
        self._spare: deque[QueryProcessor] = deque()
        self._in_use: set[QueryProcessor] = set()  #: leased, on their way back, or the machinery's own
        self._template_version = 0
        self._next_number = 0
        self._engine = 0  #: goes up with each engine that is lost
        self._admin: EngineConnection | None = None
        self._admin_lock = asyncio.Lock()
        self._refill: asyncio.Task[None] | None = None
        self._trim: asyncio.Task[None] | None = None
        self._cleaning: set[asyncio.Task[None]] = set()
        self._admitted: asyncio.Future[None] | None = None  #: while suspended: what leases wait for
        self._patience: asyncio.TimerHandle | None = None
        self._closed = False
        self._all_back = asyncio.Event()  #: no processor is leased; cleared by who waits
        self.leased = 0
        self._leasing = 0  #: leases under way
        self.created = 0

    async def open(self) -> None:
        """Bring the template up to the catalog's version and start to provision databases."""
        admin = self._admin = await self._bring_template_forward()
        admin.on_lost = self.engine_lost
        if admin.closed:
            raise EngineGone
        self._schedule_refill()

    async def roll_forward(self) -> None:
        """Bring the template up to the catalog's version before :meth:`open`; nobody is connected any more then.

        Every new database is a copy of it: what thousands of definitions left in its catalogs goes.
        """
        (await self._bring_template_forward()).close()
        template = await connect_engine(self.socket_path, ENGINE_ROLE, TEMPLATE_DATABASE)
        try:
            await template.execute("VACUUM (FULL, ANALYZE)")
        finally:
            template.close()

    def template_is_at(self, version: int) -> None:
        """The engine was started with a template that has the changes up to ``version``."""
        self._template_version = version

    async def _bring_template_forward(self) -> EngineConnection:
        admin = await connect_engine(self.socket_path, ENGINE_ROLE, START_DATABASE)
        try:
            # Changes are replayed as their authors, who may create schemas.
            for database in (START_DATABASE, TEMPLATE_DATABASE):
                await admin.execute(f"ALTER DATABASE {database} OWNER TO {LOADER_ROLE}")
            await self._update_template(with_shared=True)
        except BaseException:
            admin.close()
            raise
        return admin

    async def drain(self) -> None:
        """Wait until the sessions have given their processors back, and cut off those that take long: nobody waits for
        their statements any more. What is on its way to be committed is decided in any case."""
        for _ in range(2):
            if self.leased:
                self._all_back.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._all_back.wait(), DRAIN_STEP_MAX_S)
            for processor in list(self._in_use):
                if processor.role != PLANNER_ROLE:
                    processor.disconnect()

    async def close(self) -> None:
        self._closed = True
        self.suspend()
        tasks = [task for task in (self._refill, self._trim, *self._cleaning) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._patience is not None:
            self._patience.cancel()
        if self._admitted is not None:
            self._give_up(self._admitted)
        if self._admin is not None:
            self._admin.close()

    # -- the engine's end and return ---------------------------------------------------------------------------

    def engine_lost(self) -> None:
        """One of the machinery's own connections was closed by the engine."""
        if not self._closed and self._on_engine_lost is not None:
            self._on_engine_lost()

    def suspend(self) -> None:
        """The engine is gone: let leases wait, for a while, until :meth:`admit`."""
        self._engine += 1
        self._spare.clear()
        self._in_use.clear()
        self._template_version = 0
        if self._admitted is None:
            loop = asyncio.get_running_loop()
            waiting = self._admitted = loop.create_future()
            self._patience = loop.call_later(ENGINE_WAIT_MAX_S, self._give_up, waiting)

    @staticmethod
    def _give_up(waiting: asyncio.Future[None]) -> None:
        if not waiting.done():
            waiting.set_exception(EngineGone())
            waiting.exception()  # nobody may be waiting

    def admit(self) -> None:
        """The engine serves again."""
        waiting, self._admitted = self._admitted, None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def until_admitted(self) -> None:
        """Wait while the engine is gone. Raises EngineGone if that takes longer than ENGINE_WAIT_MAX_S."""
        if self._admitted is not None:
            await self._admitted

    # -- leases ------------------------------------------------------------------------------------------------

    @property
    def may_lease_ahead(self) -> bool:
        """Whether there are processors for sessions that may never need one: more than the next that does needs."""
        ready = self._admitted is None and not self._closed
        return ready and len(self._spare) > 1 and self.leased + self._leasing < LEASED_AHEAD_MAX

    async def lease(self, role: str, settings: dict[str, str]) -> QueryProcessor:
        """A query processor with a connection as ``role``, its catalog at the current version.

        Raises EngineError if the engine refuses the role, EngineGone or OSError if it can't be reached.
        """
        self._leasing += 1
        try:
            return await self._lease(role, settings)
        finally:
            self._leasing -= 1

    async def _lease(self, role: str, settings: dict[str, str]) -> QueryProcessor:
        await self.until_admitted()
        if not self._spare:
            await self._provision(1)
        processor = self._spare.pop()  # the last one returned: the least is missing in its catalog
        self._schedule_refill()
        try:
            if processor.version < self._catalog.version:
                await processor.replay(self._catalog)
            if role not in (ADMIN_ROLE, ENGINE_ROLE):
                # Reached by SET ROLE around loads only; nothing is inherited.
                await self._admin_execute(
                    f"GRANT {LOADER_ROLE} TO {quote_identifier(role)} WITH INHERIT FALSE, SET TRUE"
                )
            await processor.open(role, settings)
        except EngineError as error:
            if error.fields.get("C") == _CANNOT_CONNECT_NOW:
                # Somebody told the engine to stop once its sessions have left: it has to be another one.
                self.engine_lost()
                if self._admitted is not None:
                    return await self._lease(role, settings)
            self._return(processor)
            raise
        except (EngineGone, OSError):
            self._return(processor)
            if await self._notices_loss(processor.engine):
                return await self._lease(role, settings)
            raise
        self.leased += 1
        self._in_use.add(processor)
        return processor

    async def _notices_loss(self, engine: int) -> bool:
        """Whether the engine turns out to have ended: who connects may be the first to meet it."""
        for _ in range(LOSS_NOTICED_MAX_STEPS):
            if self._engine != engine:
                return True
            await asyncio.sleep(LOSS_NOTICED_STEP_S)
        return False

    async def catch_up(self, but: QueryProcessor) -> None:
        """Replay what other databases lack, as far as no transaction is in the way, in all ``but`` one."""
        async with self._admin_lock:
            changes = self._catalog.since(self._template_version)
            await replay_changes(self.socket_path, TEMPLATE_DATABASE, changes)
            if changes:
                self._template_version = changes[-1].version
        for processor in (*self._spare, *self._in_use):
            if processor is not but:
                with contextlib.suppress(EngineError, EngineGone, OSError):
                    await processor.replay(self._catalog)

    async def may_log_in(self, role: str) -> bool:
        """Whether the role exists and has LOGIN. Raises EngineError or EngineGone."""
        async with self._admin_lock:
            if self._admin is None:
                raise EngineGone
            answer = await self._admin.execute(
                f"SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {quote_literal(role)} "
                f"AND rolcanlogin AND NOT rolsuper AND rolname <> '{PLANNER_ROLE}'"
            )
        return bool(answer.rows[0])

    async def effective_settings(self, settings: dict[str, str]) -> dict[str, str]:
        """What the engine makes of these values of configuration parameters.

        Raises EngineError with its refusal, or EngineGone.
        """
        if not settings:
            return {}
        async with self._admin_lock:
            if self._admin is None:
                raise EngineGone
            answer = await self._admin.execute(f"SELECT {set_locally(settings)}")
        found = [(value or b"").decode() for value in p.data_row_fields(answer.rows[0][0])]
        return dict(zip(settings, found, strict=True))

    def give_back(self, processor: QueryProcessor) -> None:
        """Take a processor back. Its connection closes; the database is cleaned and used again."""
        self.leased -= 1
        if not self.leased:
            self._all_back.set()
        connection, processor.connection = processor.connection, None
        assert connection is not None, "leased processors are connected"
        if self._closed:
            connection.close()
            return
        if connection.closed:
            self._start(self._drop(processor))  # unless it is gone with its engine
            return
        # A statement may still run there. Its locks would be in the way of whoever leases the database next.
        late = asyncio.get_running_loop().call_later(GOODBYE_MAX_S, self._force_out, processor, connection)
        connection.finish(lambda: self._left(processor, late))

    def abandon(self, processor: QueryProcessor) -> None:
        """The client of a leased processor is gone: a statement that goes on is ended in a moment."""
        asyncio.get_running_loop().call_later(
            ABANDONED_STATEMENT_MAX_S, self._end_statement, processor, processor.connection
        )

    def _end_statement(self, processor: QueryProcessor, connection: EngineConnection | None) -> None:
        if processor.connection is connection and connection is not None and not connection.closed and not self._closed:
            self._start(self._terminate(processor))

    async def _terminate(self, processor: QueryProcessor) -> None:
        with contextlib.suppress(EngineError, EngineGone, OSError):
            await self._admin_execute(
                "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_get_activity(NULL) a "
                f"JOIN pg_catalog.pg_dsqlkit_database d ON d.oid = a.datid WHERE d.datname = '{processor.database}'"
            )

    def _left(self, processor: QueryProcessor, late: asyncio.TimerHandle) -> None:
        late.cancel()
        if self._closed:
            return
        if processor.dead_rows:
            self._start(self._clean(processor))
        else:
            self._return(processor)

    def _force_out(self, processor: QueryProcessor, connection: EngineConnection) -> None:
        connection.close()
        if not self._closed:
            self._start(self._drop(processor))

    def _start(self, cleaning: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(cleaning)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    def _return(self, processor: QueryProcessor) -> None:
        if processor.engine != self._engine:
            return  # gone with its engine
        self._in_use.discard(processor)
        if not processor.intact:
            self._start(self._drop(processor))
            return
        self._spare.append(processor)
        if len(self._spare) > SPARE_DATABASES_MAX and (self._trim is None or self._trim.done()):
            self._trim = asyncio.get_running_loop().create_task(self._trim_spares())

    async def _clean(self, processor: QueryProcessor) -> None:
        try:
            connection = await connect_engine(self.socket_path, ENGINE_ROLE, processor.database)
            try:
                await connection.execute("VACUUM " + ", ".join(processor.dead_rows))
            finally:
                connection.close()
        except (EngineError, EngineGone, OSError):
            # A table is gone by now, or the engine is stopping: the database is disposable.
            await self._drop(processor)
        else:
            processor.dead_rows.clear()
            self._return(processor)

    async def _trim_spares(self) -> None:
        """Drop databases beyond those worth keeping, slowly: each takes the engine a checkpoint."""
        while len(self._spare) > SPARE_DATABASES_MAX:
            await self._drop(self._spare.popleft())
            await asyncio.sleep(TRIM_PAUSE_S)

    async def _drop(self, processor: QueryProcessor) -> None:
        self._in_use.discard(processor)
        if processor.engine != self._engine:
            return
        with contextlib.suppress(EngineError, EngineGone, OSError):
            await self._admin_execute(f"DROP DATABASE IF EXISTS {processor.database} WITH (FORCE)")

    async def provision_processor(self) -> QueryProcessor:
        """A processor outside the pool, for the machinery itself; ask once an engine.

        It gets the database that the engine starts with, a copy of the template as it was before any change, unless
        a copy of today's is cheaper than to replay all changes, or some of them may name roles that are gone by now.
        """
        changes = self._catalog.since(0)
        if len(changes) > TEMPLATE_LAG_MAX_CHANGES or any(change.shared for change in changes):
            await self._provision(1)
            processor = self._spare.pop()
        else:
            processor = QueryProcessor(START_DATABASE, 0, self.socket_path)
        self._in_use.add(processor)
        return processor

    # -- provisioning ----------------------------------------------------------------------------------------

    def _schedule_refill(self) -> None:
        if not self._closed and len(self._spare) < SPARE_DATABASES and (self._refill is None or self._refill.done()):
            self._refill = asyncio.get_running_loop().create_task(self._refill_spares())

    async def _refill_spares(self) -> None:
        with contextlib.suppress(EngineGone):
            while len(self._spare) < SPARE_DATABASES and not self._closed and self._admitted is None:
                if self._catalog.version - self._template_version > TEMPLATE_LAG_MAX_CHANGES:
                    await self._update_template()
                await self._provision(1)

    async def _update_template(self, with_shared: bool = False) -> None:
        async with self._admin_lock:
            engine = self._engine
            changes = self._catalog.since(self._template_version)
            await replay_changes(self.socket_path, TEMPLATE_DATABASE, changes, with_shared=with_shared)
            if engine != self._engine:
                raise EngineGone
            if changes:
                self._template_version = changes[-1].version

    async def _provision(self, count: int) -> None:
        for _ in range(count):
            number, self._next_number = self._next_number, self._next_number + 1
            database = f"dsql_qp_{number}"
            async with self._admin_lock:
                version, engine = self._template_version, self._engine
                assert self._admin is not None
                await self._admin.execute(
                    f"CREATE DATABASE {database} TEMPLATE {TEMPLATE_DATABASE} STRATEGY file_copy OWNER {LOADER_ROLE}"
                )
            if engine != self._engine:
                raise EngineGone
            self.created += 1
            self._spare.append(QueryProcessor(database, version, self.socket_path, engine))

    async def _admin_execute(self, sql: str) -> None:
        async with self._admin_lock:
            assert self._admin is not None
            await self._admin.execute(sql)
