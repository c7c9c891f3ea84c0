"""What point operations cost in small and in large tables: ``python tests/measurements/point_operations.py [ROWS …]``.

For each number of ROWS (1000 and 1,000,000) a table with a secondary index is filled in one and the same cluster. Then
the operations run in turns, some on each table after the other, so that whatever else the machine does meets all alike.
Prints for each operation on each table the median time and the processor time of the server and its engine, and the
quotients to those of the first table. Processor time tells growth from a busy machine. Linux only.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from connections import descendants

from dsql_server.testing import LocalCluster

ROWS = (1000, 1_000_000)
ROWS_PER_TRANSACTION = 1000  #: each with an index entry
ROUNDS = 40
WARM_UP_ROUNDS = 3
OPERATIONS_PER_ROUND = 20  #: on one table before the next one's turn

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


def processor_seconds(pids: list[int]) -> float:
    """What the processes have used so far, in user and kernel mode."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Times:
    """What one operation took on one table."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.processor_s = 0.0

    @property
    def median_ms(self) -> float:
        return statistics.median(self.seconds) * 1000

    @property
    def processor_ms(self) -> float:
        """Of one operation."""
        return self.processor_s / len(self.seconds) * 1000


def measure(connection: Connection, pids: list[int], tables: dict[int, str]) -> dict[str, list[Times]]:
    """All operations on all tables, in turns."""
    rng = random.Random(1)
    took = {name: [Times() for _ in tables] for name in OPERATIONS}
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        for name, operation in OPERATIONS.items():
            for times, (rows, table) in zip(took[name], tables.items(), strict=True):
                used = processor_seconds(pids)
                for turn in range(OPERATIONS_PER_ROUND):
                    key, fresh = rng.randint(1, rows), rows + 1 + number * OPERATIONS_PER_ROUND + turn
                    began = time.perf_counter()
                    operation(connection, table, key, fresh)
                    if number >= WARM_UP_ROUNDS:
                        times.seconds.append(time.perf_counter() - began)
                if number >= WARM_UP_ROUNDS:
                    times.processor_s += processor_seconds(pids) - used
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="*", default=list(ROWS))
    counts = parser.parse_args().rows
    with LocalCluster() as cluster, cluster.connect(autocommit=True) as connection:
        tables = {rows: fill(connection, rows) for rows in counts}
        took = measure(connection, descendants(cluster.pid), tables)
    print(f"{'':>10}" + "".join(f"{rows:>19} rows" for rows in counts) + f"{'quotients':>22}")
    for name, by_table in took.items():
        shown = "".join(f"{times.median_ms:10.2f} ms {times.processor_ms:7.2f} ms" for times in by_table)
        first, last = by_table[0], by_table[-1]
        wall, processor = last.median_ms / first.median_ms, last.processor_ms / first.processor_ms
        print(f"{name:>10}{shown}{wall:12.2f}{processor:10.2f}")


if __name__ == "__main__":
    main()
