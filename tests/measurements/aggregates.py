"""How long aggregates over a whole table take: ``python tests/measurements/aggregates.py [ROWS]``.

Fills a table of ROWS rows (1,000,000) in a new cluster and in a plain PostgreSQL 16 of the same binaries, and prints
the first run and the best of some runs of each query on both, taken in turns, and the quotient of the best. PostgreSQL
runs with default settings for planning and parallel workers, after VACUUM ANALYZE.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import psycopg

from dsql_server.engine import EngineSettings
from dsql_server.testing import LocalCluster
from dsql_server.testing.plain_postgresql import plain_postgresql

ROWS = 1_000_000
ROWS_PER_TRANSACTION = 3000  #: Aurora DSQL's limit
RUNS = 5

DEFINITION = "CREATE TABLE measured (id bigint PRIMARY KEY, number int NOT NULL, amount numeric(12,2), note text)"
ROWS_SQL = "SELECT i, mod(i, 1000), mod(i, 10000) / 100.0, 'note ' || i FROM generate_series(%s::int, %s::int) i"
QUERIES = (
    "SELECT count(*) FROM measured",
    "SELECT sum(number) FROM measured",
    "SELECT sum(amount) FROM measured",
    "SELECT count(*), sum(number), avg(amount), min(number), max(number) FROM measured",
    "SELECT count(*) FROM measured WHERE number < 10",
    "SELECT sum(number) FROM measured WHERE note = 'note 77'",
    "SELECT number, count(*), sum(amount) FROM measured GROUP BY number ORDER BY number",
    "SELECT DISTINCT number FROM measured ORDER BY number",
    "SELECT count(DISTINCT number) FROM measured",
)
_DEFAULTS = {"max_worker_processes": "8", "max_parallel_workers_per_gather": "2", "plan_cache_mode": "auto"}


def fill(connection: psycopg.Connection[Any], rows: int, at_once: int) -> None:
    """Make the table with its rows."""
    connection.execute(DEFINITION)
    for first in range(1, rows + 1, at_once):
        connection.execute(f"INSERT INTO measured {ROWS_SQL}", [first, min(first + at_once - 1, rows)])


def seconds(connection: psycopg.Connection[Any], sql: str) -> tuple[float, list[Any]]:
    """How long the query takes, and its answer."""
    began = time.perf_counter()
    answer = connection.execute(sql).fetchall()
    return time.perf_counter() - began, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="?", default=ROWS)
    rows = parser.parse_args().rows
    with (
        LocalCluster() as cluster,
        plain_postgresql(EngineSettings(shared_buffers_mb=256, parameters=_DEFAULTS)) as reference,
        cluster.connect(autocommit=True) as ours,
    ):
        fill(reference, rows, rows)
        reference.execute("VACUUM ANALYZE measured")
        began = time.perf_counter()
        fill(ours, rows, ROWS_PER_TRANSACTION)
        print(f"{rows} rows inserted in {time.perf_counter() - began:.0f} s")
        print(f"{'ours, first':>12} {'best':>8} {'PostgreSQL, first':>18} {'best':>8} {'quotient':>9}")
        for sql in QUERIES:
            pairs = [(seconds(ours, sql), seconds(reference, sql)) for _ in range(RUNS)]
            assert all(one[1] == other[1] for one, other in pairs), f"the answers to {sql} differ"
            our_best, their_best = (min(pair[side][0] for pair in pairs) for side in (0, 1))
            our_first, their_first = pairs[0][0][0], pairs[0][1][0]
            print(
                f"{our_first * 1000:9.0f} ms {our_best * 1000:5.0f} ms {their_first * 1000:15.0f} ms "
                f"{their_best * 1000:5.0f} ms {our_best / their_best:9.1f}  {sql}"
            )


if __name__ == "__main__":
    main()
