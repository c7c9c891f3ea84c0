"""An embedded cluster as a process: started, served until a signal, stopped.

The roles are imported while the engine's processes start, so that neither waits for the other. This module, and what
it imports itself, is therefore light.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from dsql_server.catalog.bootstrap import BOOTSTRAP_SQL
from dsql_server.cluster.data_directory import CATALOG_SNAPSHOT_DIRECTORY, DataDirectory
from dsql_server.cluster.settings import ConnectionInfo, ServerSettings, StartError
from dsql_server.engine import EngineError, EngineInstance, find_binaries
from dsql_server.engine.settings import EngineSettings

if TYPE_CHECKING:
    from dsql_server.cluster.embedded import EmbeddedCluster

__all__ = ["ConnectionInfo", "Server", "ServerSettings", "StartError", "run_server"]

#: Open files that a server wants: two a connection, and those of its journals and storage.
OPEN_FILES_MAX = 10_000
#: New objects before a collection, and collections of one generation before one of the next.
_COLLECTOR_THRESHOLDS = (20_000, 20, 50)


class Server:
    """One embedded cluster. ``start`` and ``stop`` run on the event loop that serves."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._undo = contextlib.AsyncExitStack()
        self._cluster: EmbeddedCluster | None = None

    async def start(self) -> ConnectionInfo:
        """Start every role and listen.

        Raises StartError; nothing is left running or behind then.
        """
        try:
            return await self._start()
        except (EngineError, OSError, ValueError) as error:
            await self.stop()
            raise StartError(_sentence(error)) from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close connections, stop the engine, flush storage. Safe to repeat."""
        undo, self._undo = self._undo, contextlib.AsyncExitStack()
        await undo.aclose()

    async def _start(self) -> ConnectionInfo:
        settings = self.settings
        directory = DataDirectory(settings.data_dir)
        self._undo.callback(directory.close)
        # A query that needs more than its memory goes on in temporary files, up to a limit of Aurora DSQL's.
        spill = EngineSettings(parameters={"temp_file_limit": f"{settings.limits.query_memory_kb}kB"})
        engine = EngineInstance(
            *(lambda: find_binaries(settings.pg_bindir), directory.path / "engine", spill, BOOTSTRAP_SQL),
            saved=directory.path / CATALOG_SNAPSHOT_DIRECTORY,
        )
        self._undo.push_async_callback(engine.stop)
        engine_started = asyncio.create_task(engine.start())
        self._undo.push_async_callback(_end, engine_started)
        await asyncio.sleep(0)  # its thread runs now
        from dsql_server.cluster.embedded import EmbeddedCluster

        cluster = self._cluster = EmbeddedCluster(settings, directory.path)
        self._undo.push_async_callback(cluster.close)
        return await cluster.open(engine, engine_started)

    # -- what an observer asks -----------------------------------------------------------------------------------

    def metrics(self) -> dict[str, object]:
        """Figures of every role since the start."""
        return self._started().metrics()

    def trace(self, transaction_id: bytes) -> dict[str, object] | None:
        """One recent transaction's way through the commit path; None if it isn't remembered."""
        return self._started().trace(transaction_id)

    def recent_transactions(self) -> list[bytes]:
        """Ids of the transactions that :meth:`trace` remembers, newest last."""
        return self._started().recent_transactions()

    def _started(self) -> EmbeddedCluster:
        assert self._cluster is not None, "only a started server is asked"
        return self._cluster


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task that may still run, and wait for its end; who awaited it has its error."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


def _sentence(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return " ".join(text.split())


def run_server(settings: ServerSettings, on_ready: Callable[[ConnectionInfo, Server], None]) -> None:
    """Start, call ``on_ready``, serve until SIGINT or SIGTERM, stop cleanly. Raises StartError."""
    import uvloop

    _raise_file_limit()
    uvloop.run(_serve(settings, on_ready))


def _raise_file_limit() -> None:
    """Allow as many open files as we may: a connection takes two, and the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(OPEN_FILES_MAX, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a limit of its own below the hard one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settle_collector() -> None:
    """What is there by now stays: the garbage collector needn't look at it again in the middle of transactions."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


async def _serve(settings: ServerSettings, on_ready: Callable[[ConnectionInfo, Server], None]) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    server = Server(settings)
    starting = asyncio.ensure_future(server.start())
    interrupted = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([starting, interrupted], return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            on_ready(starting.result(), server)
            _settle_collector()
            await interrupted
        else:
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
    finally:
        interrupted.cancel()
        await server.stop()
