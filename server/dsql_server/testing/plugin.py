"""Pytest fixtures, registered by the distribution itself: a cluster per session, a clean database per test.

Nothing but pytest is imported until a test asks for a fixture, so that a test suite that uses neither pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dsql_server.testing.local_cluster import LocalCluster


@pytest.fixture(scope="session")
def dsql_cluster() -> Iterator[LocalCluster]:
    """An ephemeral cluster, started once a session (once a worker under pytest-xdist) and stopped at its end."""
    from dsql_server.testing.local_cluster import LocalCluster

    with LocalCluster() as cluster:
        yield cluster


@pytest.fixture
def dsql_url(dsql_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> str:
    """The cluster's ``aws-dsql://`` URL, on a database without user objects.

    For the duration of the test the ``AWS_*`` variables carry the cluster's credentials, so that connectors find
    them where they look in production.
    """
    from dsql_server.testing.clean import drop_user_objects

    for name in dsql_cluster.overriding_variables:
        monkeypatch.delenv(name, raising=False)
    for name, value in dsql_cluster.environ().items():
        monkeypatch.setenv(name, value)
    with dsql_cluster.connect(autocommit=True) as connection:
        drop_user_objects(connection)
    return dsql_cluster.url
