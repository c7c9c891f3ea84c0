"""A cluster in a child process: started, reached, observed and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import psycopg

START_TIMEOUT_S = 60.0
#: How long a stopped server may take to close its databases before it is killed.
STOP_GRACE_S = 30.0
ANSWER_TIMEOUT_S = 60.0
#: How long jobs may take, and the pause between two looks at them.
JOBS_TIMEOUT_S = 60.0
JOBS_PAUSE_S = 0.02
TOKEN_LIFETIME_S = 900
CONNECT_TIMEOUT_S = 60
ERROR_TAIL_BYTES = 4096
_UNFINISHED_JOBS = "SELECT count(*) FROM sys.jobs WHERE status IN ('submitted', 'processing')"


class ClusterError(Exception):
    """The cluster did not start, died, or did not answer; the text says why, in the server's own words."""


class LocalCluster:
    """An embedded DSQL cluster in a child process of this interpreter.

    Usable as a context manager; :meth:`start` and :meth:`stop` do the same by hand. The environment of this process
    is never changed. The child ends with its parent, however the parent ends.

    :param data_dir: keep the data here; None for a cluster that leaves nothing behind.
    :param port: TCP port; 0 takes a free one.
    :param region: the AWS region that the endpoint is named for.
    :param pg_bindir: folder with PostgreSQL 16 binaries; None for the bundled ones.
    :param limits: Aurora DSQL's limits that are lower here, by name (:class:`dsql_server.interfaces.limits.Limits`),
        so that a test reaches them soon: ``{"transaction_rows": 10}``.
    :param strict_catalog: every session that was idle while the catalog changed gets OC001 once, as Aurora DSQL may
        answer: for tests of an application's retries.
    """

    #: Variables that would make the AWS credential chain prefer other credentials to the cluster's.
    overriding_variables: ClassVar[tuple[str, ...]] = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN")

    cluster_id: str
    endpoint: str  #: the host name that tokens are signed for and certificates are made out to
    host: str  #: the address that the server listens on
    port: int
    region: str
    user: str
    database: str
    ca_file: str  #: the certificate authority's certificate, for ``sslrootcert``
    access_key_id: str
    secret_access_key: str
    url: str

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        port: int = 0,
        region: str = "us-east-1",
        pg_bindir: str | os.PathLike[str] | None = None,
        limits: Mapping[str, int] | None = None,
        strict_catalog: bool = False,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._arguments = ["start", "--json", "--control", "--port", str(port), "--region", region]
        self._arguments += ["--ephemeral"] if data_dir is None else ["--data-dir", os.fspath(data_dir)]
        if pg_bindir is not None:
            self._arguments += ["--pg-bindir", os.fspath(pg_bindir)]
        for name, value in (limits or {}).items():
            self._arguments += ["--limit", f"{name}={value}"]
        self._arguments += ["--strict-catalog"] if strict_catalog else []
        self._ephemeral = data_dir is None
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._unread = b""
        self._directory: Path | None = None  #: what an ephemeral server removes when it stops

    def __enter__(self) -> LocalCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        # The credentials stay out: a repr ends up in logs and in pytest's failure reports.
        return f"<LocalCluster {getattr(self, 'url', 'not started')}>"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._running().pid

    def start(self) -> None:
        """Start the server and return once it answers queries.

        :raises ClusterError: it did not become ready; the text is the server's own.
        """
        assert self._process is None, "the cluster runs already"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child that writes to it
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dsql_server.cli", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            # A session of its own: Ctrl-C goes to the tests only, and they stop the server in order.
            start_new_session=True,
        )
        try:
            information = json.loads(self._read_line(self._start_timeout_s))
        except BaseException:
            self.stop()
            raise
        for name, value in information.items():
            setattr(self, name, value)
        self._directory = Path(self.ca_file).parent if self._ephemeral else None

    def stop(self) -> None:
        """Stop the server in order (SIGTERM), kill it if it does not end in time. Harmless when it is stopped."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a power failure would (SIGKILL), for crash tests. What was committed stays in data_dir."""
        self._end(signal.SIGKILL)

    def environ(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Variables that give an AWS client the cluster's credentials and region.

        :param base: with it (usually ``os.environ``), the whole environment for a child process: base without the
            variables that would win over the cluster's.
        """
        environment = {name: value for name, value in (base or {}).items() if name not in self.overriding_variables}
        environment.update(
            AWS_ACCESS_KEY_ID=self.access_key_id,
            AWS_SECRET_ACCESS_KEY=self.secret_access_key,
            AWS_REGION=self.region,
            AWS_DEFAULT_REGION=self.region,
        )
        return environment

    def token(self, user: str = "admin", *, expires_s: int = TOKEN_LIFETIME_S) -> str:
        """An authentication token, to be given as the password, from botocore's own generator."""
        from dsql_server.cli.token import generate_token

        return generate_token(
            self.endpoint,
            self.region,
            admin=user == "admin",
            expires_s=expires_s,
            credentials=(self.access_key_id, self.secret_access_key),
        )

    def libpq_parameters(self, user: str = "admin") -> dict[str, Any]:
        """Connection parameters for any libpq client (psql, psycopg, psycopg2), with a fresh token as password."""
        return {
            "host": self.endpoint,
            "hostaddr": self.host,
            "port": str(self.port),
            "user": user,
            "dbname": self.database,
            "sslmode": "verify-full",
            "sslrootcert": self.ca_file,
            "password": self.token(user),
            # A test against a server that hangs shall fail, not hang with it.
            "connect_timeout": CONNECT_TIMEOUT_S,
        }

    def connect(self, user: str = "admin", **parameters: Any) -> psycopg.Connection:
        """A psycopg connection, e.g. ``connect(autocommit=True)``; further parameters as psycopg takes them."""
        import psycopg

        return psycopg.connect(**{**self.libpq_parameters(user), **parameters})

    def wait_for_jobs(self) -> None:
        """Wait until no job of ``sys.jobs`` is unfinished.

        An index that becomes valid is a change of the catalog, which transactions that began before meet as OC001.

        :raises ClusterError: a job takes longer than :data:`JOBS_TIMEOUT_S`.
        """
        deadline = time.monotonic() + JOBS_TIMEOUT_S
        with self.connect(autocommit=True) as connection:
            while connection.execute(_UNFINISHED_JOBS).fetchone() != (0,):
                if time.monotonic() > deadline:
                    raise ClusterError(f"jobs of sys.jobs are unfinished after {JOBS_TIMEOUT_S} s: ask it which")
                time.sleep(JOBS_PAUSE_S)

    def metrics(self) -> dict[str, Any]:
        """What every role has done since the start.

        :raises ClusterError: the server is gone or does not answer.
        """
        metrics = self._ask("metrics")
        assert isinstance(metrics, dict)
        return metrics

    def recent_transactions(self) -> list[str]:
        """Ids (hexadecimal) of the last committed transactions, oldest first."""
        recent = self._ask("recent_transactions")
        assert isinstance(recent, list)
        return recent

    def trace(self, transaction_id: str) -> dict[str, Any] | None:
        """The way of one transaction through the commit path, or None when it is too long ago."""
        trace = self._ask("trace", transaction_id=transaction_id)
        assert trace is None or isinstance(trace, dict)
        return trace

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ClusterError("the cluster is not running: call start() or use it in a 'with' block")
        return self._process

    def _ask(self, command: str, **arguments: str) -> object:
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        except BrokenPipeError:
            raise ClusterError(self._death()) from None
        answer = json.loads(self._read_line(ANSWER_TIMEOUT_S))
        if "error" in answer:
            raise ClusterError(f"the server could not answer {command!r}: {answer['error']}")
        return answer["result"]

    def _read_line(self, timeout_s: float) -> bytes:
        process = self._running()
        assert process.stdout is not None
        deadline_s = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline_s - time.monotonic())):
                    raise ClusterError(f"the server did not answer in {timeout_s:g} s; {self._last_error()}")
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    raise ClusterError(self._death())
                self._unread += chunk
        line, self._unread = self._unread.split(b"\n", 1)
        return line

    def _death(self) -> str:
        process = self._running()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_GRACE_S)
        return f"the server ended with status {process.returncode}; {self._last_error()}"

    def _last_error(self) -> str:
        assert self._errors is not None
        end = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, end - ERROR_TAIL_BYTES))
        text = self._errors.read().decode(errors="replace").strip()
        return f"it said: {text}" if text else "it said nothing"

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.poll() is None:
                process.send_signal(how)
                try:
                    process.wait(STOP_GRACE_S)
                except subprocess.TimeoutExpired:
                    # Its session is its own, so the group is the server and the engines it started.
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        finally:
            for stream in (process.stdin, process.stdout, self._errors):
                if stream is not None:
                    stream.close()
            self._errors = None
        if self._directory is not None:
            _remove(self._directory)
            self._directory = None


def _remove(directory: Path) -> None:
    """Remove what a killed server could not; its engine may still be writing there until it notices."""
    if not directory.parent.samefile(tempfile.gettempdir()):
        return  # nothing that we know to be temporary
    deadline_s = time.monotonic() + STOP_GRACE_S
    while directory.exists() and time.monotonic() < deadline_s:
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            time.sleep(0.05)
