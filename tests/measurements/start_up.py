"""How long a start takes: ``python tests/measurements/start_up.py [COUNT]``.

Measures from ``dsqlkit start`` to the first answered query, COUNT times (7) with a cached template, and once without.
Prints the least and the median: other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

from dsql_server.testing import LocalCluster


def first_answer_s() -> tuple[float, float]:
    """Seconds until the server is ready, and until it has answered a query."""
    began = time.perf_counter()
    with LocalCluster() as cluster:
        ready = time.perf_counter() - began
        parameters = cluster.libpq_parameters()  # a token: what it takes to make one is not the server's time
        token = time.perf_counter() - began - ready
        with cluster.connect(autocommit=True, password=parameters["password"]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        return ready, time.perf_counter() - began - token


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=7)
    count = parser.parse_args().count
    first_answer_s()  # fills the cache
    warm = [first_answer_s() for _ in range(count)]
    for name, values in (("ready", [w[0] for w in warm]), ("first answer", [w[1] for w in warm])):
        print(f"warm, {name}: least {min(values):.2f} s, median {statistics.median(values):.2f} s of {count}")
    with tempfile.TemporaryDirectory() as cache:
        os.chmod(cache, 0o755)
        os.environ["DSQLKIT_CACHE_DIR"] = cache
        ready, answered = first_answer_s()
    print(f"cold, ready: {ready:.2f} s, first answer {answered:.2f} s")


if __name__ == "__main__":
    main()
