"""How long a start takes after many definitions: ``python tests/measurements/start_after_definitions.py [COUNT]``.

Makes COUNT definitions (5000), most of them of tables that are dropped again, in a data directory. Then prints how long
the server takes to start from the log, from the snapshot that this start leaves behind, and after a kill.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from dsql_server.testing import LocalCluster

COUNT = 5000
TABLES_KEPT = 200
DEFINITIONS_PER_REPORT = 500
START_TIMEOUT_S = 600.0


def define(cluster: LocalCluster, count: int) -> None:
    """Make so many definitions."""
    with cluster.connect(autocommit=True) as connection:
        for number in range(count // 2):
            table = f"measured_{number}"
            connection.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, note text NOT NULL, amount numeric)")
            if number < TABLES_KEPT:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN more text")
            else:
                connection.execute(f"DROP TABLE {table}")
            if (2 * number + 2) % DEFINITIONS_PER_REPORT == 0:
                print(f"{2 * number + 2:,} definitions", file=sys.stderr)


def start_s(cluster: LocalCluster) -> float:
    """Seconds until the first query is answered."""
    began = time.perf_counter()
    cluster.start()
    with cluster.connect(autocommit=True) as connection:
        connection.execute("SELECT 1")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=COUNT)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        cluster = LocalCluster(data_dir=directory, start_timeout_s=START_TIMEOUT_S)
        print(f"empty: {start_s(cluster):.1f} s")
        define(cluster, count)
        for name, end in (("from the log", cluster.stop), ("from a snapshot", cluster.stop), ("killed", cluster.kill)):
            end()
            print(f"after {count:,} definitions, {name}: {start_s(cluster):.1f} s")
        cluster.stop()


if __name__ == "__main__":
    main()
