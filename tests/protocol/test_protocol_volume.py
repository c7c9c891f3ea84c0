"""Much data in one go: results, parameters, rows and pipelines that are larger than anyone should hold in memory."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from raw_client import (
    COPY_DONE,
    SYNC,
    RawClient,
    bind,
    connect,
    copy_data,
    error_of,
    execute,
    kinds,
    parse,
    query,
    rows_of,
    run,
)

from dsql_server.testing import LocalCluster

MIB = 1024 * 1024
#: What the server may grow by while it passes on much more than that, in bytes.
GROWTH_MAX_BYTES = 40 * MIB
ROWS_OF_100_MIB = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"


def resident_bytes(cluster: LocalCluster) -> int:
    """Memory of the server process."""
    status = Path(f"/proc/{cluster.pid}/status")
    if not status.exists():
        pytest.skip("memory is read from /proc, which this system has none of")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


class Watch:
    """Samples the server's memory while something goes on."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.before_bytes = self.most_bytes = resident_bytes(cluster)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            self.most_bytes = max(self.most_bytes, resident_bytes(self._cluster))

    @property
    def growth_bytes(self) -> int:
        return self.most_bytes - self.before_bytes


def drain(client: RawClient) -> tuple[int, str]:
    """Read up to ReadyForQuery; bytes of rows, and the last messages' types."""
    size, tail = 0, ""
    while (message := client.receive()) is not None:
        if message.kind == "D":
            size += len(message.body)
        else:
            tail += message.kind
        if message.kind == "Z":
            break
    return size, tail


@pytest.mark.parametrize("extended", [False, True])
def test_a_large_result_passes_through(cluster: LocalCluster, client: RawClient, extended: bool) -> None:
    client.ask(query("SELECT 1"))
    with Watch(cluster) as watch:
        client.send(run(ROWS_OF_100_MIB) + SYNC if extended else query(ROWS_OF_100_MIB))
        size, tail = drain(client)
    assert size > 95 * MIB
    assert tail.endswith("CZ")
    assert watch.growth_bytes < GROWTH_MAX_BYTES


def test_a_slow_client_holds_the_engine_back(cluster: LocalCluster, client: RawClient) -> None:
    client.ask(query("SELECT 1"))
    with Watch(cluster) as watch:
        client.send(query(ROWS_OF_100_MIB))
        time.sleep(1.0)
        with connect(cluster) as other:  # nobody else waits
            assert rows_of(other.ask(query("SELECT 1"))) == [[b"1"]]
        size, _ = drain(client)
    assert size > 95 * MIB
    assert watch.growth_bytes < GROWTH_MAX_BYTES


def test_a_client_that_leaves_amid_a_large_result(cluster: LocalCluster) -> None:
    gone = connect(cluster)
    gone.send(query(ROWS_OF_100_MIB))
    gone.receive()
    time.sleep(0.2)
    gone.abort()


def test_a_fast_client_is_held_back(cluster: LocalCluster, client: RawClient) -> None:
    """A pipeline that the session is not done with waits in the sockets, not in the server."""
    value = b"x" * 100_000
    batch = parse("SELECT length($1)", "s") + SYNC
    one = bind([value], name="s") + execute() + SYNC
    client.ask(query("SELECT 1"))
    with Watch(cluster) as watch:
        answers = client.exchange(query("SELECT pg_sleep(1)") + batch + one * 1000, count=1002)
    assert rows_of(answers)[1:] == [[b"100000"]] * 1000
    assert watch.growth_bytes < GROWTH_MAX_BYTES


def test_a_large_row(client: RawClient) -> None:
    answer = client.ask(query("SELECT repeat('x', 30000000)"))
    assert len(rows_of(answer)[0][0] or b"") == 30_000_000


def test_large_parameters(client: RawClient, table: str) -> None:
    value = b"v" * (1024 * 1024)
    insert = parse(f"INSERT INTO {table} VALUES ($1, $2)", "i")
    client.ask(insert + SYNC)
    assert kinds(client.ask(bind([b"1", value], name="i") + execute() + SYNC)) == "2CZ"
    assert rows_of(client.ask(query(f"SELECT length(v) FROM {table}"))) == [[b"1048576"]]
    assert kinds(client.ask(run("SELECT $1::text", [b"x" * (10 * MIB - 200)]) + SYNC)) == "12TDCZ"


def test_a_transaction_over_10_mib_fails_at_commit(client: RawClient, table: str) -> None:
    value = b"v" * (1024 * 1024)
    client.ask(parse(f"INSERT INTO {table} VALUES ($1, $2)", "i") + SYNC)
    client.ask(query("BEGIN"))
    for n in range(11):
        assert kinds(client.ask(bind([b"%d" % n, value], name="i") + execute() + SYNC)) == "2CZ"
    refusal = error_of(client.ask(query("COMMIT")))
    assert (refusal["C"], refusal["M"]) == ("54000", "transaction size limit 10mb exceeded")
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"0"]]


def test_much_copy_data(cluster: LocalCluster, client: RawClient, table: str) -> None:
    """Far more than a transaction may write: refused, and never held as a whole."""
    line = b"\t" + b"x" * 1000 + b"\n"
    with Watch(cluster) as watch:
        client.send(query(f"COPY {table} FROM STDIN"))
        client.until("G")
        for start in range(0, 100_000, 1000):
            client.send(copy_data(b"".join(b"%d%b" % (n, line) for n in range(start, start + 1000))))
        refusal = error_of(client.ask(COPY_DONE))
    assert refusal["C"] == "54000"
    assert watch.growth_bytes < GROWTH_MAX_BYTES
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"0"]]


def test_copy_out_of_a_large_result(cluster: LocalCluster, client: RawClient) -> None:
    with Watch(cluster) as watch:
        client.send(query(f"COPY ({ROWS_OF_100_MIB}) TO STDOUT"))
        size = 0
        while (message := client.receive()) is not None and message.kind != "Z":
            size += len(message.body) if message.kind == "d" else 0
    assert size > 95 * MIB
    assert watch.growth_bytes < GROWTH_MAX_BYTES


@pytest.mark.parametrize("simple", [False, True])
def test_many_answers_are_sent_as_they_come(cluster: LocalCluster, client: RawClient, simple: bool) -> None:
    """One batch, or one text, whose answers are much more than anyone should gather."""
    sql = "SELECT repeat('x', 100000)"
    client.ask(query("SELECT 1"))
    with Watch(cluster) as watch:
        if simple:
            client.send(query(f"{sql};" * 1000))
        else:
            client.send(parse(sql, "s") + (bind(name="s") + execute()) * 1000 + SYNC)
        size, tail = drain(client)
    assert size > 95 * MIB
    assert tail.endswith("CZ")
    assert watch.growth_bytes < GROWTH_MAX_BYTES


def test_a_long_batch_without_sync_is_worked_off(cluster: LocalCluster, client: RawClient) -> None:
    value = b"x" * 10_000
    client.ask(parse("SELECT length($1)", "s") + SYNC)
    with Watch(cluster) as watch:
        answer = client.exchange((bind([value], name="s") + execute()) * 10_000 + SYNC)
    assert kinds(answer) == "2DC" * 10_000 + "Z"
    assert watch.growth_bytes < GROWTH_MAX_BYTES


def test_a_message_above_10_mib_ends_the_connection(dsql_cluster: LocalCluster) -> None:
    """The length alone does: nobody has to send so much to be told."""
    with connect(dsql_cluster) as client:
        client.send(b"Q" + (10 * MIB + 5).to_bytes(4, "big"))
        error = error_of(client.rest())
        assert (error["S"], error["C"], error["M"]) == ("FATAL", "08P01", "invalid message length")
