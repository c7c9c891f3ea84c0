"""One running PostgreSQL 16 engine, which hosts many query processors. Everything in it is disposable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from dsql_server.engine.account import engine_account
from dsql_server.engine.binaries import EngineBinaries, readable_binaries
from dsql_server.engine.cache import cache_directory
from dsql_server.engine.directory import EngineDirectory
from dsql_server.engine.errors import EngineError
from dsql_server.engine.postmaster import Postmaster
from dsql_server.engine.settings import ENGINE_PORT, ENGINE_SUPERUSER, EngineSettings
from dsql_server.engine.template import copy_template, template_data


class EngineInstance:
    """A PostgreSQL 16 server on a private Unix socket, started from a cached template.

    ``directory`` is where it should live (nothing may be there but what a dead server left); None, a path too long
    for a socket, or one that the engine's account can't reach means a new temporary directory. Either way it is
    removed at stop. ``bootstrap_sql`` runs once, as the superuser, in the template's database ``template1``: every
    database made from it later has what it made.

    ``binaries`` may be a function that finds them: it then runs in the thread that starts the engine.

    However this process ends, the engine ends too.
    """

    port = ENGINE_PORT
    superuser = ENGINE_SUPERUSER

    def __init__(
        self,
        binaries: EngineBinaries | Callable[[], EngineBinaries],
        directory: Path | None = None,
        settings: EngineSettings | None = None,
        bootstrap_sql: Sequence[str] = (),
    ) -> None:
        self._binaries = binaries
        self._preferred = directory
        self._settings = settings or EngineSettings()
        self._bootstrap_sql = tuple(bootstrap_sql)
        self._directory: EngineDirectory | None = None
        self._postmaster: Postmaster | None = None

    @property
    def directory(self) -> Path:
        """Where it lives; only while it is started."""
        return self._started_directory().path

    @property
    def socket_directory(self) -> Path:
        """The directory of the socket: libpq's ``host``; only while it is started."""
        return self._started_directory().socket

    @property
    def socket_path(self) -> Path:
        """The socket itself; only while it is started."""
        return self.socket_directory / f".s.PGSQL.{self.port}"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None while it is stopped."""
        return None if self._postmaster is None else self._postmaster.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster runs: False after a crash, too."""
        return self._postmaster is not None and self._postmaster.is_running

    async def start(self) -> None:
        """Start the engine; it accepts connections when this returns.

        :raises EngineError: it can't be started; the message says why. Nothing is left behind.
        """
        if self._postmaster is not None:
            raise EngineError("the engine is already started: stop it first")
        await _to_the_end(self._start, self._stop)

    async def stop(self) -> None:
        """Stop the engine, ending its sessions, and remove its directory. Safe to repeat.

        :raises EngineError: its process can't be ended.
        """
        await _to_the_end(self._stop, None)

    def _started_directory(self) -> EngineDirectory:
        if self._directory is None:
            raise EngineError("the engine is not started: call start() first")
        return self._directory

    def _start(self) -> None:
        account = engine_account(self._settings.account)
        cache = cache_directory(account, self._settings.cache_directory)
        found = self._binaries() if callable(self._binaries) else self._binaries
        binaries = readable_binaries(found, account, cache)
        template = template_data(binaries, account, cache, self._bootstrap_sql)
        directory = EngineDirectory.create(self._preferred, account)
        try:
            copy_template(template, directory.data, account)
            postmaster = Postmaster(binaries, account, directory, self._settings)
            postmaster.start()
        except BaseException:
            directory.remove()
            raise
        self._directory, self._postmaster = directory, postmaster

    def _stop(self) -> None:
        if self._postmaster is None:
            return
        assert self._directory is not None, "a postmaster has a directory"
        self._postmaster.stop()
        self._directory.remove()
        self._directory = self._postmaster = None


async def _to_the_end(work: Callable[[], None], undo: Callable[[], None] | None) -> None:
    """Run blocking ``work`` in a thread. When cancelled, let it finish all the same, then ``undo`` it."""
    # Not by to_thread: that begins only at the loop's next turn, and the caller may keep the loop busy meanwhile.
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if running.exception() is None and undo is not None:
            await asyncio.to_thread(undo)
        raise
