"""A server on this machine for a test run that names no cluster."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from dsql_server.testing import LocalCluster


@dataclass(frozen=True)
class LocalCredentials:
    """The local server's credentials, as a botocore credential provider. Crosses to the workers of a parallel run."""

    access_key_id: str
    secret_access_key: str

    METHOD = "dsqlkit-local-server"
    CANONICAL_NAME = "dsqlkit-local-server"

    def __repr__(self) -> str:
        return "LocalCredentials()"  # settings are printed

    def load(self) -> Any:
        """What botocore asks for."""
        from botocore.credentials import Credentials

        return Credentials(self.access_key_id, self.secret_access_key, method=self.METHOD)


class SharedServer:
    """One server for all aliases of this process, from the first that needs it to the last."""

    def __init__(self) -> None:
        self._cluster: LocalCluster | None = None
        self._users = 0
        self._lock = threading.Lock()

    def acquire(self) -> LocalCluster:
        """The server, started if it isn't running.

        :raises ImproperlyConfigured: if the server isn't installed.
        """
        try:
            from dsql_server.testing import LocalCluster
        except ImportError as error:
            raise ImproperlyConfigured(
                "the tests name no HOST, and the local server isn't installed; pip install 'dsqlkit[server]', or give "
                f"an endpoint as HOST ({error})"
            ) from error
        with self._lock:
            if self._cluster is None:
                cluster = LocalCluster()
                cluster.start()
                self._cluster = cluster
            self._users += 1
            return self._cluster

    def release(self) -> None:
        """Stop it after the last user. If that never comes, the server ends with this process."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._cluster is not None:
                cluster, self._cluster = self._cluster, None
                cluster.stop()


local_server = SharedServer()


def local_settings(cluster: LocalCluster, settings: dict[str, Any]) -> dict[str, Any]:
    """What of ``settings`` must change to reach ``cluster``."""
    return {
        "HOST": cluster.endpoint,
        "PORT": str(cluster.port),
        "USER": settings["USER"] or cluster.user,
        "NAME": settings["NAME"] or cluster.database,
        "PASSWORD": "",
        "OPTIONS": {
            **settings["OPTIONS"],
            "hostaddr": cluster.host,
            "sslrootcert": cluster.ca_file,
            "credentials_provider": LocalCredentials(cluster.access_key_id, cluster.secret_access_key),
        },
    }
