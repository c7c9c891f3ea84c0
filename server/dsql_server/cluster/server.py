"""The embedded cluster: every role in one process, started, served and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import string
import sys
import tempfile
import urllib.parse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dsql_server.catalog.bootstrap import BOOTSTRAP_SQL
from dsql_server.catalog.changes import Catalog, CatalogChange
from dsql_server.catalog.introspection import INTROSPECTION_SQL, build_tables, read_document
from dsql_server.catalog.state import (
    CATALOG_LOG_RELATION_ID,
    FIRST_SYSTEM_INDEX_ID,
    FIRST_USER_RELATION_ID,
    CatalogState,
)
from dsql_server.cluster.commit_path import EmbeddedCommitPath
from dsql_server.encoding.keys import prefix, prefix_end
from dsql_server.engine import EngineError, EngineInstance, find_binaries
from dsql_server.frontend.listener import Listener
from dsql_server.frontend.session import Services
from dsql_server.frontend.tls import TlsFiles, ensure_certificates, server_context, server_names
from dsql_server.frontend.token import AccessKey, TokenVerifier, endpoint_hostnames
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import ScanRequest
from dsql_server.jobs.manager import JobManager
from dsql_server.processor.engine_connection import connect_engine
from dsql_server.processor.planner import Planner
from dsql_server.processor.pool import TEMPLATE_DATABASE, ProcessorPool
from dsql_server.processor.roles import ADMIN_ROLE, ENGINE_ROLE
from dsql_server.storage.router import StorageRouter

DATABASE = "postgres"
LOCK_FILE = "lock"
IDENTITY_FILE = "cluster.json"
_CLUSTER_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_CLUSTER_ID_LENGTH = 26
#: How soon a waiting thread gets the interpreter from the event loop: journal writers mustn't wait for long, in seconds.
_THREAD_SWITCH_INTERVAL_S = 0.0002


class StartError(Exception):
    """The cluster can't start; the text is one clear sentence."""


@dataclass(frozen=True)
class ServerSettings:
    """How to start. ``data_dir`` None: a temporary directory, removed at stop."""

    host: str = "127.0.0.1"
    port: int = 5432
    data_dir: Path | None = None
    region: str = "us-east-1"
    pg_bindir: Path | None = None


@dataclass(frozen=True)
class ConnectionInfo:
    """All that a client needs."""

    cluster_id: str
    endpoint: str
    host: str
    port: int
    region: str
    user: str
    database: str
    ca_file: str
    access_key_id: str
    secret_access_key: str
    url: str

    def as_dict(self) -> dict[str, object]:
        """The fields in the order in which ``dsqlkit start --json`` prints them."""
        return asdict(self)


@dataclass(frozen=True)
class Identity:
    """What a data directory remembers of its cluster."""

    cluster_id: str
    access_key_id: str
    secret_access_key: str

    @classmethod
    def of(cls, directory: Path) -> Identity:
        """Read the directory's identity, or make one."""
        file = directory / IDENTITY_FILE
        with contextlib.suppress(FileNotFoundError):
            return cls(**json.loads(file.read_text()))
        identity = cls(
            "".join(secrets.choice(_CLUSTER_ID_ALPHABET) for _ in range(_CLUSTER_ID_LENGTH)),
            "AKIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)),
            "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(40)),
        )
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            json.dump(asdict(identity), out)
        return identity


class Server:
    """One embedded cluster. ``start`` and ``stop`` run on the event loop that serves."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._undo = contextlib.AsyncExitStack()
        self._commit_path: EmbeddedCommitPath | None = None
        self._storage: StorageRouter | None = None
        self._pool: ProcessorPool | None = None
        self._planner: Planner | None = None
        self._listener: Listener | None = None

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
        directory = self._prepare_directory()
        identity = Identity.of(directory)
        region = self.settings.region
        engine = EngineInstance(find_binaries(self.settings.pg_bindir), directory / "engine", None, BOOTSTRAP_SQL)
        tls_files, _ = await asyncio.gather(
            asyncio.to_thread(ensure_certificates, directory, server_names(region, [identity.cluster_id])),
            engine.start(),
        )
        self._undo.push_async_callback(engine.stop)
        catalog = await self._open_storage(directory, str(engine.socket_path))
        assert self._commit_path is not None
        pool = self._pool = ProcessorPool(str(engine.socket_path), catalog)
        self._undo.push_async_callback(pool.close)
        await pool.open()
        planner = self._planner = Planner(pool, catalog)
        await planner.open()
        self._undo.callback(planner.close)
        jobs = JobManager(self._commit_path, catalog)
        self._undo.push_async_callback(jobs.close)
        port = await self._listen(Services(pool, planner, catalog, self._commit_path, jobs), identity, tls_files)
        jobs.resume_unfinished()
        return self._connection_info(identity, port, tls_files)

    def _prepare_directory(self) -> Path:
        directory = self.settings.data_dir
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="dsqlkit-"))
            self._undo.callback(shutil.rmtree, directory, ignore_errors=True)
            directory.chmod(0o711)  # clients of other users read the CA certificate in it
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = (directory / LOCK_FILE).open("a")
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(
                f"the data directory {directory} can't be used ({reason}): choose another with --data-dir or mend its permissions"
            ) from error
        self._undo.callback(lock.close)
        _lock(lock, directory)
        return directory

    async def _open_storage(self, directory: Path, socket_path: str) -> Catalog:
        """Open storage and commit path; returns the catalog as the log has it."""
        storage = self._storage = StorageRouter(directory / "storage")
        self._undo.callback(storage.close)
        path = EmbeddedCommitPath(storage, storage, directory / "journals", asyncio.get_running_loop())
        path.open()
        self._undo.push_async_callback(path.close)
        self._commit_path = path
        catalog = Catalog()
        catalog.state = await _system_state(socket_path)
        start = prefix(CATALOG_LOG_RELATION_ID)
        for _, value in storage.scan(ScanRequest(start, prefix_end(start), path.begin())).rows:
            catalog.append(CatalogChange.from_bytes(value))
        if path.catalog_version != catalog.version:
            raise StartError(
                f"the journals in {directory} end at catalog version {path.catalog_version} but its storage at "
                f"{catalog.version}: the directory was changed by hand, restore it whole"
            )
        return catalog

    async def _listen(self, services: Services, identity: Identity, files: TlsFiles) -> int:
        key = AccessKey(identity.secret_access_key, "arn:aws:iam::000000000000:user/dsqlkit")
        verifier = TokenVerifier({identity.access_key_id: key}, self.settings.region)
        hostnames = endpoint_hostnames(identity.cluster_id, self.settings.region)
        listener = self._listener = Listener(services, server_context(files), verifier, hostnames)
        self._undo.push_async_callback(listener.close)
        try:
            return listener.open(self.settings.host, self.settings.port)
        except OSError as error:
            raise StartError(
                f"port {self.settings.port} on {self.settings.host} can't be had ({error.strerror or error}): "
                "choose another with --port, or --port 0 for a free one"
            ) from error

    def _connection_info(self, identity: Identity, port: int, files: TlsFiles) -> ConnectionInfo:
        region = self.settings.region
        endpoint = f"{identity.cluster_id}.dsql.{region}.on.aws"
        ca_file = str(Path(files.authority_certificate).resolve())
        query = urllib.parse.urlencode(
            {"hostaddr": self.settings.host, "sslrootcert": ca_file, "region": region}, safe="/:"
        )
        return ConnectionInfo(
            cluster_id=identity.cluster_id,
            endpoint=endpoint,
            host=self.settings.host,
            port=port,
            region=region,
            user=ADMIN_ROLE,
            database=DATABASE,
            ca_file=ca_file,
            access_key_id=identity.access_key_id,
            secret_access_key=identity.secret_access_key,
            url=f"aws-dsql://{ADMIN_ROLE}@{endpoint}:{port}/{DATABASE}?{query}",
        )

    # -- what an observer asks -----------------------------------------------------------------------------------

    def metrics(self) -> dict[str, object]:
        """Figures of every role since the start."""
        assert self._commit_path is not None and self._storage is not None
        assert self._pool is not None and self._listener is not None and self._planner is not None
        return {
            **self._commit_path.metrics(),
            "storage": self._storage.metrics(),
            "processors": {
                "leased": self._pool.leased,
                "created": self._pool.created,
                "statements_planned": self._planner.planned,
            },
            "frontend": {"accepted": self._listener.accepted, "open": len(self._listener.connections)},
        }

    def trace(self, transaction_id: bytes) -> dict[str, object] | None:
        """One recent transaction's way through the commit path; None if it isn't remembered."""
        assert self._commit_path is not None
        return self._commit_path.trace(transaction_id)

    def recent_transactions(self) -> list[bytes]:
        """Ids of the transactions that :meth:`trace` remembers, newest last."""
        assert self._commit_path is not None
        return self._commit_path.recent_transactions()


async def _system_state(socket_path: str) -> CatalogState:
    """The stored tables that every database has from the start."""
    connection = await connect_engine(socket_path, ENGINE_ROLE, TEMPLATE_DATABASE)
    try:
        answer = await connection.execute(INTROSPECTION_SQL)
        document = (p.data_row_fields(answer.rows[0][0])[0] or b"[]").decode()
    finally:
        connection.close()
    tables, _ = build_tables(read_document(document), {}, FIRST_SYSTEM_INDEX_ID)
    return CatalogState(0, {t.relation_id: t for t in tables}, FIRST_USER_RELATION_ID)


def _lock(lock: IO[str], directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StartError(
            f"the data directory {directory} is in use by another server: stop that one, or choose another with --data-dir"
        ) from error


def _sentence(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return " ".join(text.split())


def run_server(settings: ServerSettings, on_ready: Callable[[ConnectionInfo, Server], None]) -> None:
    """Start, call ``on_ready``, serve until SIGINT or SIGTERM, stop cleanly. Raises StartError."""
    import uvloop

    sys.setswitchinterval(_THREAD_SWITCH_INTERVAL_S)
    uvloop.run(_serve(settings, on_ready))


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
            await interrupted
        else:
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
    finally:
        interrupted.cancel()
        await server.stop()
