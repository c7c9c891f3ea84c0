"""What an engine instance is configured with: everything in it is disposable, and nothing in it is durable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: The bootstrap superuser. User SQL never runs as this role.
ENGINE_SUPERUSER = "dsql_engine"

#: Part of the socket's file name only: the engine listens on no network address.
ENGINE_PORT = 5432

#: Who reaches the socket directory is the server itself: the directory is closed to every other account.
HOST_BASED_AUTHENTICATION = "local all all trust\n"

_FIXED_PARAMETERS: Mapping[str, str] = {
    # Reached through the private Unix socket only.
    "listen_addresses": "",
    "port": str(ENGINE_PORT),
    "unix_socket_permissions": "0700",
    # The journal is the durability; what the engine writes is rolled back.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_replication_slots": "0",
    "wal_init_zero": "off",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "1d",
    # Tables are small, short-lived and wiped between leases: background work would only disturb the transactions.
    # (The forced vacuum against transaction id wraparound still runs.)
    "autovacuum": "off",
    "track_counts": "off",
    "track_activities": "off",
    # Local tables hold a handful of rows: a plan made again for each set of values is never worth its time.
    "plan_cache_mode": "force_generic_plan",
    # DSQL's plans: tables lie in their keys, so there are no bitmaps and nothing is dearer for being read by an index.
    "enable_bitmapscan": "off",
    "enable_memoize": "off",
    "random_page_cost": "0.5",
    "bgwriter_lru_maxpages": "0",
    "max_worker_processes": "0",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "max_logical_replication_workers": "0",
    "jit": "off",
    "huge_pages": "off",
    # Files in the data directory, not in /dev/shm, so that nothing outlives an engine that was killed.
    "dynamic_shared_memory_type": "mmap",
    "min_dynamic_shared_memory": "8MB",
    "max_pred_locks_per_transaction": "10",
    "update_process_title": "off",
    # What a client of Aurora DSQL sees.
    "default_transaction_isolation": "repeatable read",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "client_encoding": "UTF8",
    "dsql.enable_batched_nestloop": "on",
    "lc_messages": "C",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    # Start, stop and trouble of the engine; never the users' errors or statements.
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


@dataclass(frozen=True)
class EngineSettings:
    """Sizes and places of an engine instance.

    ``max_connections`` bounds the query processors of one instance. ``account`` is the account for the engine of a
    server that runs as root (default: nobody). ``cache_directory`` replaces the default place of the cached data
    directories. ``parameters`` are further PostgreSQL settings; they win over ours.
    """

    max_connections: int = 1100
    shared_buffers_mb: int = 64
    account: str | None = None
    cache_directory: Path | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    def configuration(self, data: Path, socket: Path, authentication: Path) -> str:
        """The text of ``postgresql.conf``."""
        parameters = {
            **_FIXED_PARAMETERS,
            "max_connections": str(self.max_connections),
            "shared_buffers": f"{self.shared_buffers_mb}MB",
            **self.parameters,
            "data_directory": str(data),
            "hba_file": str(authentication),
            "ident_file": str(data / "pg_ident.conf"),
            "unix_socket_directories": str(socket),
        }
        return "".join(f"{name} = {_quoted(value)}\n" for name, value in parameters.items())


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n")
    return f"'{escaped}'"
