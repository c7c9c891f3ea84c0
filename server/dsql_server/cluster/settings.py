"""How an embedded cluster is started, what it tells its clients, and why it may not start. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from dsql_server.interfaces.limits import DSQL_LIMITS, Limits


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
    limits: Limits = DSQL_LIMITS
    strict_catalog: bool = False


@dataclass(frozen=True)
class ConnectionInfo:
    """All that a client needs. ``host`` is a numeric address that clients on this machine can connect to."""

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
