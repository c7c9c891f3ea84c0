"""What idle connections cost: ``python tests/measurements/connections.py [COUNT] [--used]``.

Opens COUNT connections (500) to a new cluster, with ``--used`` runs a statement on each, and prints memory and disk a
connection: the difference of the server's and its engine's private memory (proportional set size) and of what the
data directory takes, before and after. Linux only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from dsql_server.testing import LocalCluster

SETTLE_S = 3.0
OPENERS = 50


def descendants(pid: int) -> list[int]:
    """The process and everything that it started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += children.get(found[-1], [])
    return found


def proportional_set_kib(pid: int) -> int:
    """Its memory without program files; shared pages are divided by the number of those who share them. In KiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def disk_kib(directory: Path) -> int:
    """What the files below ``directory`` take on disk, in KiB."""
    total = 0
    for top, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(top, name)).st_blocks
            except FileNotFoundError:
                continue
    return total // 2


def measure(cluster: LocalCluster, directory: Path) -> tuple[int, int, int]:
    """(server, engine, disk), each in KiB."""
    server, *engine = descendants(cluster.pid)
    return (
        proportional_set_kib(server),
        sum(proportional_set_kib(pid) for pid in engine),
        disk_kib(directory),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=500)
    parser.add_argument("--used", action="store_true", help="run a statement on each connection")
    parser.add_argument("--settle", type=float, default=SETTLE_S, help="seconds between the last answer and measuring")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="dsqlkit-measure-"))
    directory.chmod(0o755)
    connections: list[psycopg.Connection] = []
    try:
        with LocalCluster(data_dir=directory / "data") as cluster:
            parameters = cluster.libpq_parameters()
            with psycopg.connect(**parameters, autocommit=True) as connection:
                connection.execute("CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
                connection.execute("INSERT INTO orders VALUES (1, 'first')")
            before = measure(cluster, directory)

            def open_one(_: int) -> tuple[psycopg.Connection, float]:
                began = time.perf_counter()
                connection = psycopg.connect(**{**parameters, "connect_timeout": 60}, autocommit=True)
                if arguments.used:
                    connection.execute("SELECT note FROM orders WHERE id = %s", [1])
                return connection, time.perf_counter() - began

            began = time.perf_counter()
            with ThreadPoolExecutor(OPENERS) as threads:
                opened = list(threads.map(open_one, range(arguments.count)))
            seconds = time.perf_counter() - began
            connections = [connection for connection, _ in opened]
            time.sleep(arguments.settle)
            after = measure(cluster, directory)
            for connection in connections:
                connection.close()
            names = ("server memory", "engine memory", "disk")
            kib = [(b - a) / arguments.count for a, b in zip(before, after, strict=True)]
            for name, value in zip(names, kib, strict=True):
                print(f"{name:>14} {value / 1024:7.2f} MiB a connection")
            print(f"{'sum':>14} {sum(kib) / 1024:7.2f} MiB a connection")
            server, engine, disk = (value / 1024 for value in before)
            print(f"{'before':>14} {server:.0f} + {engine:.0f} MiB memory, {disk:.0f} MiB disk")
            latencies = sorted(latency for _, latency in opened)
            print(
                f"opened {arguments.count} in {seconds:.1f} s, {OPENERS} at once: "
                f"median {statistics.median(latencies) * 1000:.0f} ms, slowest {latencies[-1] * 1000:.0f} ms"
            )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
