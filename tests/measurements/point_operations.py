"""What point operations cost in small and in large tables: ``python tests/measurements/point_operations.py [ROWS …]``.

For each number of ROWS (1000, 100,000 and 10,000,000) a table with a secondary index is filled in one and the same
cluster; with ``--data-dir`` the tables stay there, and a later run goes on where the last one stopped. Then
the operations run in turns, some on each table after the other, so that whatever else the machine does meets all alike.
The keys are drawn from as many different ones of each table (200): what caches hold is then the same of all, and what
differs is the table's size. ``--keys 10000000`` draws from all of a table, so that a large one's rows are read for the
first time. Other keys are read than are updated: what was just written is kept apart, and found sooner.

Prints for each operation on each table the median time and the processor time of the server and its engine, and the
quotients to those of the first table. Processor time tells growth from a busy machine. Linux only.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from connections import descendants

from dsql_server.testing import LocalCluster

ROWS = (1000, 100_000, 10_000_000)
ROWS_PER_TRANSACTION = 1000  #: each with an index entry
#: Rows between two lines about the progress.
ROWS_PER_REPORT = 500_000
KEYS = 200
ROUNDS = 100
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
    """Make a table of so many rows, or what is missing of it; returns its name."""
    table = f"table_of_{rows}"
    try:
        found = connection.execute(f"SELECT max(id) FROM {table} WHERE id <= {rows}").fetchone()
    except psycopg.errors.UndefinedTable:
        found = None
        connection.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY, code bigint, note text)")
        job = connection.execute(f"CREATE INDEX ASYNC ON {table} (code)").fetchone()
        connection.execute("CALL sys.wait_for_job(%s)", [job[0] if job else None])
    began = time.perf_counter()
    filled = (found and found[0]) or 0
    for first in range(filled + 1, rows + 1, ROWS_PER_TRANSACTION):
        last = min(first + ROWS_PER_TRANSACTION - 1, rows)
        connection.execute(
            f"INSERT INTO {table} SELECT i, i * 7, 'note ' || i FROM generate_series(%s::bigint, %s::bigint) i",
            [first, last],
        )
        if last % ROWS_PER_REPORT == 0 or last == rows:
            rate = (last - filled) / (time.perf_counter() - began)
            print(f"{table}: {last:,} rows, {rate:,.0f} rows/s", file=sys.stderr)
    # What earlier runs inserted and didn't delete any more.
    connection.execute(f"DELETE FROM {table} WHERE id > {rows}")
    return table


def read_once(directory: Path) -> None:
    """Have the system keep the data in its memory: what the disk takes doesn't depend on the number of rows."""
    for path in directory.glob("storage/**/*.sst"):
        path.read_bytes()


def processor_seconds(pids: list[int]) -> float:
    """What the threads of the processes have used so far; to the nanosecond."""
    used_ns = 0
    for pid in pids:
        for times in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            used_ns += int(times.read_text().split()[0])
    return used_ns / 1e9


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


def measure(connection: Connection, pids: list[int], tables: dict[int, str], keys_max: int) -> dict[str, list[Times]]:
    """All operations on all tables, in turns, with up to ``keys_max`` different keys of each."""
    rng = random.Random(1)
    drawn = {rows: rng.sample(range(1, rows + 1), min(rows, keys_max)) for rows in tables}
    keys = {rows: (some[::2], some[1::2]) for rows, some in drawn.items()}
    took = {name: [Times() for _ in tables] for name in OPERATIONS}
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        for name, operation in OPERATIONS.items():
            turns = list(zip(took[name], tables.items(), strict=True))
            rng.shuffle(turns)
            for times, (rows, table) in turns:
                used = processor_seconds(pids)
                for turn in range(OPERATIONS_PER_ROUND):
                    key = rng.choice(keys[rows][name == "update"])
                    fresh = rows + 1 + number * OPERATIONS_PER_ROUND + turn
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
    parser.add_argument("--data-dir", help="keep the tables there, and find them there")
    parser.add_argument("--keys", type=int, default=KEYS, help="different keys of each table")
    arguments = parser.parse_args()
    counts: list[int] = arguments.rows
    if arguments.data_dir:
        read_once(Path(arguments.data_dir))
    with LocalCluster(data_dir=arguments.data_dir) as cluster, cluster.connect(autocommit=True) as connection:
        tables = {rows: fill(connection, rows) for rows in counts}
        took = measure(connection, descendants(cluster.pid), tables, arguments.keys)
    print(f"{'':>10}" + "".join(f"{rows:>19} rows" for rows in counts) + f"{'quotients':>22}")
    for name, by_table in took.items():
        shown = "".join(f"{times.median_ms:10.2f} ms {times.processor_ms:7.2f} ms" for times in by_table)
        first, last = by_table[0], by_table[-1]
        wall, processor = last.median_ms / first.median_ms, last.processor_ms / first.processor_ms
        print(f"{name:>10}{shown}{wall:12.2f}{processor:10.2f}")


if __name__ == "__main__":
    main()
