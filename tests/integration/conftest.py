"""Two sessions on a clean database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from two_sessions import Session

from dsql_server.testing import LocalCluster


@pytest.fixture
def one(dsql_cluster: LocalCluster, dsql_url: str) -> Iterator[Session]:
    with dsql_cluster.connect(autocommit=True) as connection:
        yield Session(connection)


@pytest.fixture
def other(dsql_cluster: LocalCluster, one: Session) -> Iterator[Session]:
    with dsql_cluster.connect(autocommit=True) as connection:
        yield Session(connection)
