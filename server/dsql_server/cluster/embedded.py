"""The roles of one cluster in one process, wired to each other."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import urllib.parse
from pathlib import Path

from dsql_server.catalog.changes import Catalog, CatalogChange
from dsql_server.catalog.introspection import ALL_TABLES_SQL, build_tables, read_document
from dsql_server.catalog.state import (
    CATALOG_LOG_RELATION_ID,
    FIRST_SYSTEM_INDEX_ID,
    FIRST_USER_RELATION_ID,
    CatalogState,
)
from dsql_server.cluster.catalog_snapshot import start_from_snapshot
from dsql_server.cluster.commit_path import EmbeddedCommitPath
from dsql_server.cluster.commit_path_replay import StorageMismatch
from dsql_server.cluster.data_directory import Identity
from dsql_server.cluster.engine_keeper import EngineKeeper
from dsql_server.cluster.garbage_collection import GarbageCollection
from dsql_server.cluster.settings import ConnectionInfo, ServerSettings, StartError
from dsql_server.encoding.keys import prefix, prefix_end
from dsql_server.engine import EngineInstance
from dsql_server.frontend.listener import Listener
from dsql_server.frontend.shown import ShownStatements
from dsql_server.frontend.tls import TlsError, TlsFiles, ensure_certificates, server_context, server_names
from dsql_server.frontend.token import AccessKey, TokenVerifier, endpoint_hostnames
from dsql_server.frontend.transactions import Services
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import ScanRequest
from dsql_server.jobs.manager import JobManager
from dsql_server.journal.recovery import JournalDamaged
from dsql_server.processor.engine_connection import connect_engine
from dsql_server.processor.planner import Planner
from dsql_server.processor.pool import START_DATABASE, ProcessorPool
from dsql_server.processor.roles import ADMIN_ROLE, ENGINE_ROLE
from dsql_server.storage.rocks import CannotOpenStorage
from dsql_server.storage.router import StorageRouter

DATABASE = "postgres"
_ACCOUNT_ARN = "arn:aws:iam::000000000000:user/dsqlkit"


class EmbeddedCluster:
    """All roles over one data directory and one engine. ``close`` it, also after ``open`` failed."""

    def __init__(self, settings: ServerSettings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._identity = Identity.of(directory)
        self._undo = contextlib.AsyncExitStack()
        self._commit_path: EmbeddedCommitPath | None = None
        self._storage: StorageRouter | None = None
        self._pool: ProcessorPool | None = None
        self._planner: Planner | None = None
        self._listener: Listener | None = None

    async def open(self, engine: EngineInstance, engine_started: asyncio.Task[None]) -> ConnectionInfo:
        """Recover what is stored, wait for the engine, listen. Raises StartError, OSError, EngineError."""
        names = server_names(self._settings.region, [self._identity.cluster_id])
        certificates = asyncio.create_task(asyncio.to_thread(ensure_certificates, self._directory, names))
        try:
            path, storage = self._open_storage()
            await engine_started
            files = await certificates
        except TlsError as error:
            raise StartError(str(error)) from error
        finally:
            certificates.cancel()
        catalog = await self._read_catalog(path, storage, str(engine.socket_path))
        keeper = EngineKeeper(engine)
        pool = self._pool = ProcessorPool(str(engine.socket_path), catalog, keeper.engine_lost)
        self._undo.push_async_callback(pool.close)
        await start_from_snapshot(engine, catalog, pool)
        await pool.open()
        planner = self._planner = Planner(pool, catalog)
        self._undo.callback(planner.close)
        await planner.open()
        keeper.watch(pool, planner)
        self._undo.push_async_callback(keeper.close)
        self._undo.push_async_callback(pool.drain)
        garbage = GarbageCollection(storage, path.begin)
        self._undo.callback(garbage.close)
        jobs = JobManager(path, catalog, pool, hold=garbage.hold)
        self._undo.push_async_callback(jobs.close)
        settings = self._settings
        services = Services(
            *(pool, planner, catalog, path, jobs, lambda: storage.size_bytes, ShownStatements()),
            settings.limits,
            settings.strict_catalog,
        )
        port = await self._listen(services, files)
        jobs.resume_unfinished()
        garbage.start()
        if storage.has_large_tables:
            preparing = asyncio.create_task(asyncio.to_thread(storage.prepare_aggregates))
            self._undo.callback(preparing.cancel)
        return self._connection_info(port, files)

    async def close(self) -> None:
        """Close connections, decide what is on its way to the journals, flush storage. Safe to repeat."""
        undo, self._undo = self._undo, contextlib.AsyncExitStack()
        await undo.aclose()

    # -- storage and catalog -------------------------------------------------------------------------------------

    def _open_storage(self) -> tuple[EmbeddedCommitPath, StorageRouter]:
        """Open storage and the journals, and bring storage up to date."""
        directory = self._directory
        (directory / "storage").mkdir(mode=0o700, exist_ok=True)
        try:
            storage = self._storage = StorageRouter(directory / "storage")
        except CannotOpenStorage as error:
            raise StartError(str(error)) from error
        self._undo.callback(storage.close)
        path = EmbeddedCommitPath(storage, storage, directory / "journals", asyncio.get_running_loop())
        try:
            path.open()
        except (JournalDamaged, StorageMismatch) as error:
            raise StartError(str(error)) from error
        self._undo.push_async_callback(path.close)
        self._commit_path = path
        return path, storage

    async def _read_catalog(self, path: EmbeddedCommitPath, storage: StorageRouter, socket_path: str) -> Catalog:
        """The catalog as its log in storage has it."""
        catalog = Catalog()
        catalog.state = await _system_state(socket_path)
        start = prefix(CATALOG_LOG_RELATION_ID)
        for _, value in storage.scan(ScanRequest(start, prefix_end(start), path.begin())).rows:
            catalog.append(CatalogChange.from_bytes(value))
        if path.catalog_version != catalog.version:
            raise StartError(
                f"the journals in {self._directory} end at catalog version {path.catalog_version} but its storage at "
                f"{catalog.version}: the directory was changed by hand, restore it whole"
            )
        return catalog

    # -- the endpoint --------------------------------------------------------------------------------------------

    async def _listen(self, services: Services, files: TlsFiles) -> int:
        identity, settings = self._identity, self._settings
        key = AccessKey(identity.secret_access_key, _ACCOUNT_ARN, stands_for_any=True)
        verifier = TokenVerifier({identity.access_key_id: key}, settings.region)
        hostnames = endpoint_hostnames(identity.cluster_id, settings.region)
        listener = self._listener = Listener(services, server_context(files), verifier, hostnames)
        self._undo.push_async_callback(listener.close)
        try:
            return listener.open(settings.host, settings.port)
        except OSError as error:
            raise StartError(
                f"port {settings.port} on {settings.host} can't be had ({error.strerror or error}): "
                "choose another with --port, or --port 0 for a free one"
            ) from error

    def _connection_info(self, port: int, files: TlsFiles) -> ConnectionInfo:
        region, identity = self._settings.region, self._identity
        endpoint = f"{identity.cluster_id}.dsql.{region}.on.aws"
        ca_file = str(Path(files.authority_certificate).resolve())
        host = _reachable_address(self._settings.host)
        query = urllib.parse.urlencode({"hostaddr": host, "sslrootcert": ca_file, "region": region}, safe="/:")
        return ConnectionInfo(
            cluster_id=identity.cluster_id,
            endpoint=endpoint,
            host=host,
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
            "planner": self._planner.metrics(),
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
    connection = await connect_engine(socket_path, ENGINE_ROLE, START_DATABASE)
    try:
        answer = await connection.execute(ALL_TABLES_SQL)
        document = (p.data_row_fields(answer.rows[0][0])[0] or b"[]").decode()
    finally:
        connection.close()
    tables, _ = build_tables(read_document(document), {}, FIRST_SYSTEM_INDEX_ID)
    return CatalogState(0, {t.relation_id: t for t in tables}, FIRST_USER_RELATION_ID)


def _reachable_address(host: str) -> str:
    """Where a client on this machine finds the server that listens on ``host``: libpq's hostaddr takes no names."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "::1" if address.version == 6 else "127.0.0.1"
    return host
