"""Every test here ends with a look at the server: it serves others, and holds nothing of the test's any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from raw_client import RawClient, connect, query, rows_of

from dsql_server.testing import LocalCluster

SETTLE_TIMEOUT_S = 60.0


def held(cluster: LocalCluster) -> tuple[int, int]:
    """Open client connections and leased query processors."""
    metrics = cluster.metrics()
    return metrics["frontend"]["open"], metrics["processors"]["leased"]


def settled(cluster: LocalCluster, expected: tuple[int, int]) -> tuple[int, int]:
    """What is held once it is as expected, or after a while: who closes isn't told when the server has noticed."""
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while (found := held(cluster)) != expected and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return found


@pytest.fixture
def cluster(dsql_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The cluster, watched."""
    before = settled(dsql_cluster, (0, 0))  # connections of tests before may be about to be noticed as closed
    yield dsql_cluster
    after = settled(dsql_cluster, before)
    assert after == before, f"(connections, processors) held: {before} before the test, {after} after it"
    with connect(dsql_cluster) as other:
        assert rows_of(other.ask(query("SELECT 40 + 2"))) == [[b"42"]]
    assert settled(dsql_cluster, before) == before


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[RawClient]:
    """A session ready for queries."""
    with connect(cluster) as connected:
        yield connected


@pytest.fixture
def another(cluster: LocalCluster) -> Iterator[Callable[[], RawClient]]:
    """Opens further sessions."""
    opened: list[RawClient] = []

    def open_one() -> RawClient:
        opened.append(connect(cluster))
        return opened[-1]

    yield open_one
    for one in opened:
        one.socket.close()


def ask_once(cluster: LocalCluster, sql: str) -> None:
    """Run a statement in a session of its own, and wait until the server has let it go."""
    before, _ = held(cluster)
    with connect(cluster) as session:
        answer = session.ask_patiently(sql)
        assert answer[0].kind == "C", answer
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    # A session that is open meanwhile may get its query processor now, ahead of its first statement.
    while (found := held(cluster))[0] != before or found[1] > before:
        assert time.monotonic() < deadline_s, f"(connections, processors) held: {found}, {before} connections before"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def module_table(dsql_cluster: LocalCluster) -> Iterator[str]:
    """A table for one module: id int primary key, v text."""
    name = "protocol_rows"
    ask_once(dsql_cluster, f"CREATE TABLE {name} (id int PRIMARY KEY, v text)")
    yield name
    ask_once(dsql_cluster, f"DROP TABLE {name}")


@pytest.fixture
def table(dsql_cluster: LocalCluster, module_table: str) -> str:
    """The module's table, empty."""
    ask_once(dsql_cluster, f"DELETE FROM {module_table}")
    return module_table
