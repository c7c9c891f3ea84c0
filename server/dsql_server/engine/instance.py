"""One running PostgreSQL 16 engine, which hosts many query processors. Everything in it is disposable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from dsql_server.engine.account import Account, engine_account
from dsql_server.engine.binaries import EngineBinaries, readable_binaries
from dsql_server.engine.cache import cache_directory
from dsql_server.engine.directory import EngineDirectory
from dsql_server.engine.errors import EngineError
from dsql_server.engine.postmaster import Postmaster
from dsql_server.engine.saved_state import SavedState
from dsql_server.engine.settings import ENGINE_PORT, ENGINE_SUPERUSER, EngineSettings
from dsql_server.engine.template import copy_data, template_data


class EngineInstance:
    """A PostgreSQL 16 server on a private Unix socket, started from a cached template.

    ``directory`` is where it should live (nothing may be there but what a dead server left); None, a path too long
    for a socket, or one that the engine's account can't reach means a new temporary directory. Either way it is
    removed at stop. ``bootstrap_sql`` runs once, as the superuser, in the template's database ``template1``: every
    database made from it later has what it made.

    With ``saved``, a directory, the engine starts from what :meth:`save` has put there.

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
        saved: Path | None = None,
    ) -> None:
        self._binaries = binaries
        self._preferred = directory
        self._settings = settings or EngineSettings()
        self._bootstrap_sql = tuple(bootstrap_sql)
        self._directory: EngineDirectory | None = None
        self._postmaster: Postmaster | None = None
        self._saved = saved
        self._pg_controldata = Path()
        self._template = ""  #: the name of the template that it was made from
        self.saved_label: str | None = None  #: of the saved state that it was started from

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

    async def save(self, label: str) -> None:
        """Keep the engine's databases as they are for later starts; the sessions end, and the engine starts again.

        ``label`` is told by :attr:`saved_label` then. Nothing is kept where the engine's account could not read it.

        :raises EngineError: it doesn't start again.
        :raises OSError: nothing could be saved; the engine runs.
        """
        await _to_the_end(lambda: self._save(label), self._stop)

    def discard_saved(self) -> None:
        """Let later starts begin with the template."""
        if self._saved is not None:
            SavedState(self._saved, engine_account(self._settings.account)).discard()

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
        self._pg_controldata = binaries.postgres.with_name("pg_controldata")
        self._template = template.parent.name
        self.saved_label = None
        state = None if self._saved is None else SavedState(self._saved, account)
        label = None if state is None else state.label(self._template)
        if state is not None and label is not None:
            try:
                self._launch(binaries, account, state.data)
            except EngineError:
                state.discard()  # damaged: the template does as well, if not as soon
            else:
                self.saved_label = label
                return
        self._launch(binaries, account, template)

    def _launch(self, binaries: EngineBinaries, account: Account, source: Path) -> None:
        directory = EngineDirectory.create(self._preferred, account)
        try:
            copy_data(source, directory.data, account)
            postmaster = Postmaster(binaries, account, directory, self._settings)
            postmaster.start()
        except BaseException:
            directory.remove()
            raise
        self._directory, self._postmaster = directory, postmaster

    def _save(self, label: str) -> None:
        assert self._postmaster is not None and self._saved is not None, "a started engine, with a place to save"
        state = SavedState(self._saved, engine_account(self._settings.account))
        self._postmaster.stop()
        try:
            state.save(self._started_directory().data, self._template, label, self._pg_controldata)
        except EngineError as error:
            raise OSError(str(error)) from error
        finally:
            self._postmaster.start()

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
