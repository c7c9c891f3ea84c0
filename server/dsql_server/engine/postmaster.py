"""Run one PostgreSQL postmaster: start it, know when it accepts, stop it, and never let it outlive us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

from dsql_server.engine.account import Account
from dsql_server.engine.binaries import EngineBinaries
from dsql_server.engine.directory import EngineDirectory
from dsql_server.engine.errors import EngineError
from dsql_server.engine.process_identity import ProcessIdentity
from dsql_server.engine.settings import HOST_BASED_AUTHENTICATION, EngineSettings

START_SECONDS_MAX = 30.0

#: How long each way to stop is given: fast (ends the sessions), immediate (no shutdown work), kill.
STOP_SECONDS_MAX = ((signal.SIGINT, 5.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))

_POLL_SECONDS = 0.002
_LOG_LINES_SHOWN = 5

# The pipe on its standard input closes when we end, however we end; then it ends the postmaster if that still runs.
# (PR_SET_PDEATHSIG would end it with the starting thread, and exists on Linux only.)
_WATCHER = """
read -r _
read -r pid 2>/dev/null < "$1/postmaster.pid" && [ "$pid" = "$2" ] && kill -QUIT "$pid"
exit 0
"""


class Postmaster:
    """The postmaster of one engine directory, whose data directory has been filled. Calls block."""

    def __init__(
        self, binaries: EngineBinaries, account: Account, directory: EngineDirectory, settings: EngineSettings
    ) -> None:
        self._binaries = binaries
        self._account = account
        self._directory = directory
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and return when it accepts connections.

        :raises EngineError: it ended or did not become ready in time; the message quotes its log.
        """
        assert self._process is None, "started twice"
        self._write_configuration()
        try:
            self._launch()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the postmaster and the watcher. Safe to repeat.

        :raises EngineError: the process survives even SIGKILL.
        """
        if self._process is not None:
            for signal_number, seconds_max in STOP_SECONDS_MAX:
                if self._process.poll() is None:
                    self._process.send_signal(signal_number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        _wait(self._process, seconds_max)
            if self._process.poll() is None:
                raise EngineError(f"the engine, process {self._process.pid}, can't be stopped: end it by hand")
            self._process = None
        if self._watcher is not None:
            assert self._watcher.stdin is not None, "the watcher was started with a pipe"
            self._watcher.stdin.close()
            self._watcher.wait()
            self._watcher = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster while it is started."""
        return None if self._process is None else self._process.pid

    def log_tail(self) -> str:
        """The last lines of the engine's log, in one line."""
        try:
            text = self._directory.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return " / ".join(text.strip().splitlines()[-_LOG_LINES_SHOWN:])

    def _write_configuration(self) -> None:
        place = self._directory
        text = self._settings.configuration(place.data, place.socket, place.authentication)
        for path, content in ((place.configuration, text), (place.authentication, HOST_BASED_AUTHENTICATION)):
            path.write_text(content, encoding="utf-8")
            path.chmod(0o644)  # read by the engine's account, written by us alone

    def _launch(self) -> None:
        place = self._directory
        arguments = self._account.popen_arguments()
        with place.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries.postgres, "-c", f"config_file={place.configuration}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=place.path,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                **arguments,
            )
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHER, "dsqlkit-engine-watcher", place.data, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **arguments,
        )
        place.record(ProcessIdentity.of(self._process.pid))

    def _wait_until_ready(self) -> None:
        assert self._process is not None, "launched"
        status_file = self._directory.data / "postmaster.pid"
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            # Its eighth line says how far the postmaster is; the template holds no such file.
            with contextlib.suppress(OSError):
                lines = status_file.read_text(encoding="utf-8", errors="replace").splitlines()
                if len(lines) >= 8 and lines[7].strip() == "ready":
                    return
            if self._process.poll() is not None:
                raise EngineError(
                    f"the engine ended while starting (status {self._process.returncode}); its log: {self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise EngineError(
                    f"the engine was not ready after {START_SECONDS_MAX:g} s; try again on a less loaded machine; "
                    f"its log: {self.log_tail()}"
                )
            time.sleep(_POLL_SECONDS)


def _wait(process: subprocess.Popen[bytes], seconds_max: float) -> None:
    """Wait for the end, polling often: ``Popen.wait`` with a time-out backs off to 50 ms steps."""
    deadline = time.monotonic() + seconds_max
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
