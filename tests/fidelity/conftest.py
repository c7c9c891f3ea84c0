"""One cluster's sessions for all facts of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from facts import Witness

from dsql_server.testing import LocalCluster


@pytest.fixture(scope="module")
def witness(dsql_cluster: LocalCluster) -> Iterator[Witness]:
    found = Witness(dsql_cluster)
    yield found
    found.close()
