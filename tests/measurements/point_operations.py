"""What point operations cost in small and in large tables: ``python tests/measurements/point_operations.py [ROWS …]``.

For each number of ROWS (1000 and 1,000,000) a table with a secondary index is filled in one and the same cluster. Then
the operations run in turns, one on each table after the other, so that whatever else the machine does meets all alike.
Prints the median time of each operation on each table and its quotient to that on the first.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import psycopg

from dsql_server.testing import LocalCluster

ROWS = (1000, 1_000_000)
ROWS_PER_TRANSACTION = 1000  #: each with an index entry
ROUNDS = 400
WARM_UP_ROUNDS = 30

Connection = psycopg.Connection[Any]
Operation = Callable[[Connection, str, int, int], object]

OPERATIONS: dict[str, Operation] = {
    "get": lambda c, table, key, fresh: c.execute(
        f"SELECT * FROM {table} WHERE id = %s", [key], prepare=True
    ).fetchall(),
    "by index": lambda c, table, key, fresh: c.execute(
        f"SELECT * FROM {table} WHERE code = %s", [key * 7], prepare=True
    ).fetchall(),
    "update": lambda c, table, key, fresh: c.execute(
        f"UPDATE {table} SET note = 'changed' WHERE id = %s", [key], prepare=True
    ),
    "insert": lambda c, table, key, fresh: c.execute(
        f"INSERT INTO {table} VALUES (%s, %s, 'new')", [fresh, fresh * 7], prepare=True
    ),
    "delete": lambda c, table, key, fresh: c.execute(f"DELETE FROM {table} WHERE id = %s", [fresh], prepare=True),
    "first ten": lambda c, table, key, fresh: c.execute(
        f"SELECT id FROM {table} WHERE id > %s ORDER BY id LIMIT 10", [key], prepare=True
    ).fetchall(),
}


def fill(connection: Connection, rows: int) -> str:
    """Make a table of so many rows; returns its name."""
    table = f"table_of_{rows}"
    connection.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY, code bigint, note text)")
    job = connection.execute(f"CREATE INDEX ASYNC ON {table} (code)").fetchone()
    connection.execute("CALL sys.wait_for_job(%s)", [job[0] if job else None])
    for first in range(1, rows + 1, ROWS_PER_TRANSACTION):
        last = min(first + ROWS_PER_TRANSACTION - 1, rows)
        connection.execute(
            f"INSERT INTO {table} SELECT i, i * 7, 'note ' || i FROM generate_series(%s::bigint, %s::bigint) i",
            [first, last],
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="*", default=list(ROWS))
    counts = parser.parse_args().rows
    rng = random.Random(1)
    took: dict[str, dict[int, list[float]]] = {name: {rows: [] for rows in counts} for name in OPERATIONS}
    with LocalCluster() as cluster, cluster.connect(autocommit=True) as connection:
        tables = {rows: fill(connection, rows) for rows in counts}
        for number in range(WARM_UP_ROUNDS + ROUNDS):
            for name, operation in OPERATIONS.items():
                for rows, table in tables.items():
                    key, fresh = rng.randint(1, rows), rows + 1 + number
                    began = time.perf_counter()
                    operation(connection, table, key, fresh)
                    if number >= WARM_UP_ROUNDS:
                        took[name][rows].append(time.perf_counter() - began)
    print(f"{'':>12}" + "".join(f"{rows:>14} rows" for rows in counts) + f"{'quotient':>12}")
    for name, by_rows in took.items():
        medians = [statistics.median(by_rows[rows]) for rows in counts]
        shown = "".join(f"{median * 1000:16.3f} ms" for median in medians)
        print(f"{name:>12}{shown}{medians[-1] / medians[0]:12.2f}")


if __name__ == "__main__":
    main()
