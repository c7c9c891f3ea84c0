"""Starts the engine again when it ends by itself: nothing in it is lost but the sessions' transactions."""

from __future__ import annotations

import asyncio
import logging
import time

from dsql_server.cluster.catalog_snapshot import saved_version
from dsql_server.engine import EngineError as EngineStartError
from dsql_server.engine import EngineInstance
from dsql_server.processor.engine_connection import EngineError, EngineGone
from dsql_server.processor.planner import Planner
from dsql_server.processor.pool import ProcessorPool

_log = logging.getLogger("dsql_server.cluster")

#: Pause before an engine that could not be started again is tried once more, in seconds.
RESTART_PAUSE_S = 1.0


class EngineKeeper:
    """Told that the engine is lost, it starts another one and brings pool and planner to it."""

    def __init__(self, engine: EngineInstance) -> None:
        self._engine = engine
        self._pool: ProcessorPool | None = None
        self._planner: Planner | None = None
        self._restarting: asyncio.Task[None] | None = None
        self.restarts = 0

    def watch(self, pool: ProcessorPool, planner: Planner) -> None:
        """From now on an engine that ends is started again."""
        self._pool, self._planner = pool, planner

    async def close(self) -> None:
        """Let the engine be from now on."""
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.wait([self._restarting])

    def engine_lost(self) -> None:
        """The engine ended by itself, or at least ended all of its sessions."""
        if self._pool is None or (self._restarting is not None and not self._restarting.done()):
            return
        self._pool.suspend()
        self._restarting = asyncio.get_running_loop().create_task(self._restart())

    async def _restart(self) -> None:
        assert self._pool is not None and self._planner is not None
        began = time.monotonic()
        while True:
            try:
                # A database that lived through a crash may be damaged: the engine never syncs. All are made anew.
                await self._engine.stop()
                await self._engine.start()
                self._pool.socket_path = str(self._engine.socket_path)
                self._pool.template_is_at(saved_version(self._engine))
                await self._pool.open()
                await self._planner.open()
            except (EngineStartError, EngineError, EngineGone, OSError) as error:
                _log.error("the engine ended and can't be started again yet: %s", error)
                await asyncio.sleep(RESTART_PAUSE_S)
            else:
                break
        self._pool.admit()
        self.restarts += 1
        _log.warning("the engine ended by itself and was started again in %.1f s", time.monotonic() - began)
