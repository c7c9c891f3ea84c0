"""How long aggregates over a whole table take: ``python tests/measurements/aggregates.py [ROWS] [--random-keys]``.

Fills a table of ROWS rows (1,000,000) in a new cluster and in a plain PostgreSQL 16 of the same binaries, and prints
the first run and the best of some runs of each query on both, taken in turns, and the quotients. PostgreSQL
runs with default settings for planning and parallel workers, after VACUUM ANALYZE. The first query comes right behind
the last INSERT; the server is started anew before each other one, so that each one's first run finds nothing in memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import psycopg

from dsql_server.engine import EngineSettings
from dsql_server.testing import LocalCluster
from dsql_server.testing.plain_postgresql import plain_postgresql

ROWS = 1_000_000
ROWS_PER_TRANSACTION = 3000  #: Aurora DSQL's limit
RUNS = 5
SETTLING_S = 1.0  #: after a start

DEFINITION = "CREATE TABLE measured (id {} PRIMARY KEY, number int NOT NULL, amount numeric(12,2), note text)"
ROWS_SQL = "SELECT {}, mod(i, 1000), mod(i, 10000) / 100.0, 'note ' || i FROM generate_series(%s::int, %s::int) i"
#: Type of the keys and what they are, in order and at random.
IN_ORDER, AT_RANDOM = ("bigint", "i"), ("uuid", "gen_random_uuid()")
QUERIES = (
    "SELECT count(*) FROM measured",
    "SELECT count(amount) FROM measured",
    "SELECT sum(number) FROM measured",
    "SELECT sum(amount) FROM measured",
    "SELECT count(*), sum(number), avg(amount), min(number), max(number) FROM measured",
    "SELECT count(*) FROM measured WHERE number < 10",
    "SELECT sum(number) FROM measured WHERE note = 'note 77'",
    "SELECT count(*) FILTER (WHERE number < 10), sum(amount) FILTER (WHERE number >= 500) FROM measured",
    "SELECT number, count(*), sum(amount) FROM measured GROUP BY number ORDER BY number",
    "SELECT DISTINCT number FROM measured ORDER BY number",
    "SELECT count(DISTINCT number) FROM measured",
)
_DEFAULTS = {"max_worker_processes": "8", "max_parallel_workers_per_gather": "2", "plan_cache_mode": "auto"}


def fill(connection: psycopg.Connection[Any], rows: int, at_once: int, keys: tuple[str, str]) -> None:
    """Make the table with its rows."""
    key_type, key = keys
    connection.execute(DEFINITION.format(key_type))
    for first in range(1, rows + 1, at_once):
        connection.execute(f"INSERT INTO measured {ROWS_SQL.format(key)}", [first, min(first + at_once - 1, rows)])


def seconds(connection: psycopg.Connection[Any], sql: str) -> tuple[float, list[Any]]:
    """How long the query takes, and its answer."""
    began = time.perf_counter()
    answer = connection.execute(sql).fetchall()
    return time.perf_counter() - began, answer


def compare(ours: psycopg.Connection[Any], reference: psycopg.Connection[Any], sql: str) -> None:
    """Run the query on both, in turns, and print what it took."""
    pairs = [(seconds(ours, sql), seconds(reference, sql)) for _ in range(RUNS)]
    assert all(one[1] == other[1] for one, other in pairs), f"the answers to {sql} differ"
    our_best, their_best = (min(pair[side][0] for pair in pairs) for side in (0, 1))
    our_first, their_first = pairs[0][0][0], pairs[0][1][0]
    quotients = f"{our_first / their_first:9.1f} {our_best / their_best:9.1f}"
    print(
        f"{our_first * 1000:9.0f} ms {our_best * 1000:5.0f} ms {their_first * 1000:15.0f} ms"
        f" {their_best * 1000:5.0f} ms {quotients}  {sql}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="?", default=ROWS)
    parser.add_argument("--random-keys", action="store_true", help="UUIDs instead of numbers in order")
    arguments = parser.parse_args()
    rows, keys = arguments.rows, AT_RANDOM if arguments.random_keys else IN_ORDER
    with (
        tempfile.TemporaryDirectory() as data_dir,
        plain_postgresql(EngineSettings(shared_buffers_mb=256, parameters=_DEFAULTS)) as reference,
    ):
        fill(reference, rows, rows, keys)
        reference.execute("VACUUM ANALYZE measured")
        for query in QUERIES:
            with LocalCluster(data_dir=data_dir) as cluster, cluster.connect(autocommit=True) as ours:
                if query == QUERIES[0]:
                    began = time.perf_counter()
                    fill(ours, rows, ROWS_PER_TRANSACTION, keys)
                    print(f"{rows} rows inserted in {time.perf_counter() - began:.0f} s")
                    print(f"{'ours, first':>12} {'best':>8} {'PostgreSQL, first':>18} {'best':>8} {'quotients':>19}")
                else:
                    ours.execute("SELECT 1")
                    time.sleep(SETTLING_S)
                compare(ours, reference, query)


if __name__ == "__main__":
    main()
