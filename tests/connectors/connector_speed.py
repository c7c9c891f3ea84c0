"""What the connectors cost over the raw drivers: connecting, querying, importing. Prints a table; asserts nothing.

``python connector_speed.py [--rounds N]`` measures against a local cluster, raw and connected in turn, so that whatever
else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import psycopg
import psycopg2

import dsql_connectors.asyncpg
import dsql_connectors.psycopg
import dsql_connectors.psycopg2
from dsql_connectors.asyncpg.tls import TlsChoice
from dsql_connectors.core.settings import resolve
from dsql_connectors.core.tls import LIBPQ_VERSION_DIRECT_TLS, apply_tls_defaults
from dsql_connectors.core.tokens import generate_token
from dsql_server.testing import LocalCluster

QUERIES = 2000


def milliseconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1000


def in_turn(raw: Callable[[], object], ours: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Medians of both, milliseconds."""
    pairs = [(milliseconds(raw), milliseconds(ours)) for _ in range(rounds)]
    raws, own = zip(*pairs, strict=True)
    return statistics.median(raws), statistics.median(own)


def report(what: str, raw: float, ours: float) -> None:
    print(f"{what:<28}{raw:>10.3f} ms{ours:>10.3f} ms{ours - raw:>+10.3f} ms")


def measure(url: str, rounds: int) -> None:
    """Connects and queries, raw and through the connectors."""
    settings = resolve(url, driver="speed")
    parameters = settings.libpq_parameters()
    apply_tls_defaults(parameters, libpq_version=LIBPQ_VERSION_DIRECT_TLS, environ={})
    # Each one another, as the connectors' are: the server must check them all.
    ready = iter([generate_token(settings.token._replace(duration_secs=3600 + n)) for n in range(5 * rounds + 10)])
    for driver, module in ((psycopg, dsql_connectors.psycopg), (psycopg2, dsql_connectors.psycopg2)):

        def connect(driver: Any = driver) -> None:
            driver.connect(**parameters, password=next(ready)).close()

        def connect_ours(module: Any = module) -> None:
            module.connect(url).close()

        connect(), connect_ours()
        report(f"connect, {driver.__name__}", *in_turn(connect, connect_ours, rounds))

    raw = psycopg.connect(**parameters, password=next(ready), autocommit=True)
    ours = dsql_connectors.psycopg.connect(url, autocommit=True)
    medians = in_turn(lambda: raw.execute("SELECT 1").fetchone(), lambda: ours.execute("SELECT 1").fetchone(), QUERIES)
    report("query, psycopg", *medians)
    raw.close(), ours.close()
    asyncio.run(measure_asyncpg(url, settings, ready, rounds))


async def measure_asyncpg(url: str, settings: Any, ready: Iterator[str], rounds: int) -> None:
    """The same for asyncpg."""
    tls = TlsChoice(None, settings.parameters, {}).load(settings.host)
    arguments = {"host": settings.parameters["hostaddr"], "port": settings.parameters["port"], "ssl": tls}
    arguments.update(user="admin", database="postgres", direct_tls=True)
    times: dict[str, list[float]] = {"raw": [], "ours": []}
    for _ in range(rounds):
        for name in times:
            token = next(ready)
            started = time.perf_counter()
            if name == "raw":
                connection = await asyncpg.connect(**arguments, password=token)
            else:
                connection = await dsql_connectors.asyncpg.connect(url)
            await connection.close()
            times[name].append((time.perf_counter() - started) * 1000)
    report("connect, asyncpg", statistics.median(times["raw"]), statistics.median(times["ours"]))
    raw, ours = await asyncpg.connect(**arguments, password=next(ready)), await dsql_connectors.asyncpg.connect(url)
    times = {"raw": [], "ours": []}
    for _ in range(QUERIES):
        for name, connection in (("raw", raw), ("ours", ours)):
            started = time.perf_counter()
            await connection.fetchval("SELECT 1")
            times[name].append((time.perf_counter() - started) * 1000)
    report("query, asyncpg", statistics.median(times["raw"]), statistics.median(times["ours"]))
    await raw.close()
    await ours.close()


def imports(environment: dict[str, str], rounds: int = 7) -> None:
    """Import times in fresh interpreters, the best of several."""
    program = "import time; t = time.perf_counter(); import {}; print((time.perf_counter() - t) * 1000)"
    for name in ("psycopg", "psycopg2", "asyncpg"):
        best = {
            module: min(
                float(
                    subprocess.run(
                        [sys.executable, "-c", program.format(module)], capture_output=True, check=True, env=environment
                    ).stdout
                )
                for _ in range(rounds)
            )
            for module in (name, f"dsql_connectors.{name}")
        }
        report(f"import, {name}", *best.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    print(f"{'':<28}{'raw':>13}{'connector':>13}{'more':>13}")
    with tempfile.TemporaryDirectory() as compiled:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        imports({**environment, "PYTHONPYCACHEPREFIX": compiled})
    with LocalCluster() as cluster:
        os.environ.update(cluster.environ())
        measure(cluster.url, options.rounds)


if __name__ == "__main__":
    main()
