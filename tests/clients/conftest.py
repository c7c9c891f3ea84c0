"""Unmodified clients against a cluster: TLS verified in full, a token for a password."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from dsql_server.testing import LocalCluster


@pytest.fixture
def cluster(dsql_cluster: LocalCluster, dsql_url: str) -> LocalCluster:
    """The cluster, without user objects."""
    return dsql_cluster


@pytest.fixture
def name_resolves(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the endpoint's name resolve to the cluster, for clients in this process that take no address beside it."""
    resolve = socket.getaddrinfo

    def to_cluster(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve(cluster.host if host == cluster.endpoint else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", to_cluster)
    yield
