"""``dsqlkit bench orders``: the order workload against one or two databases, in turn in one run."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import platform
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from dsql_server.cli.latency import Summary, summarise
from dsql_server.cli.terminal import messages, progress_bar, results
from dsql_server.cli.workload.client import OPERATIONS, Plan, Result, Round, WrongAnswer
from dsql_server.cli.workload.fleet import Fleet, LoadFailed, merge
from dsql_server.cli.workload.orders import SEED_AGE, Seed, Tables
from dsql_server.cli.workload.schema import create_tables, drop_tables, insert_seed
from dsql_server.cli.workload.session import UnsupportedUrl, is_dsql, open_session, without_password

SEED_ORDERS = 1_000
#: With two databases their rounds take turns, so that what else the machine does meets both.
ROUNDS_MIN = 5
ROUND_SECONDS_MAX = 2.0
#: Unmeasured, at each database: plans are cached and connections warm afterwards.
WARM_UP_SECONDS = 1.0


class BenchFailed(Exception):
    """No measurement: a database could not be reached or refused something; the text says which and why."""


class BenchSettings(NamedTuple):
    urls: tuple[str, ...]  #: one, or two to compare
    clients: int
    seconds: float  #: measured time for each URL
    conflict_share: float
    json_file: Path | None
    plot_file: Path | None


class Target(NamedTuple):
    """What was measured at one URL."""

    url: str  #: without its password
    name: str  #: of the kind of database, numbered if both are of one kind
    result: Result
    latencies: dict[str, Summary]

    @property
    def operations_per_second(self) -> float:
        return sum(summary.samples for summary in self.latencies.values()) / self.result.seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "url": self.url,
            "name": self.name,
            "seconds": self.result.seconds,
            "operations_per_second": self.operations_per_second,
            "conflicts": self.result.conflicts,
            "operations": {name: summary._asdict() for name, summary in self.latencies.items()},
        }


def run_bench(settings: BenchSettings) -> None:
    """Measure, print the figures and write the files that were asked for.

    :raises BenchFailed: there are no figures.
    """
    assert 1 <= len(settings.urls) <= 2
    started_at = dt.datetime.now(dt.timezone.utc)
    targets = measure(messages(), settings)
    report: dict[str, Any] = {
        "started_at": started_at.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "clients": settings.clients,
        "seconds": settings.seconds,
        "conflict_share": settings.conflict_share,
        "targets": [target.as_dict() for target in targets],
    }
    if len(targets) == 2:
        report["ratio"] = ratios(*targets)

    from dsql_server.cli.bench_report import print_bench

    print_bench(results(), settings, targets)
    if settings.json_file is not None:
        settings.json_file.write_text(json.dumps(report, indent=2) + "\n")
    if settings.plot_file is not None:
        from dsql_server.cli.plot import plot_latencies

        plot_latencies(settings.plot_file, settings, targets)


def ratios(target: Target, other: Target) -> dict[str, dict[str, float]]:
    """``target`` over ``other``: percentiles (below 1 is faster) and throughput (above 1 is more)."""
    answer = {
        operation: {
            field: getattr(target.latencies[operation], field) / getattr(other.latencies[operation], field)
            for field in ("p50_ms", "p90_ms", "p95_ms", "p99_ms")
        }
        for operation in OPERATIONS
        if operation in target.latencies and operation in other.latencies
    }
    answer["throughput"] = {"operations_per_second": target.operations_per_second / other.operations_per_second}
    return answer


def measure(console: Console, settings: BenchSettings) -> list[Target]:
    """Run the workload.

    :raises BenchFailed: a database could not be reached, or refused something.
    """
    import psycopg

    # Names of their own: whatever else is in the database stays as it is.
    prefixes = [f"dsqlkit_bench_{secrets.token_hex(4)}" for _ in settings.urls]
    tables = [Tables(f"{prefix}_orders", f"{prefix}_items") for prefix in prefixes]
    seed = Seed(SEED_ORDERS, dt.datetime.now(dt.timezone.utc) - SEED_AGE)
    try:
        with contextlib.ExitStack() as stack:
            for url, names in zip(settings.urls, tables, strict=True):
                with console.status(f"Creating tables at {without_password(url)}"):
                    stack.enter_context(_tables(url, names, seed))
            plans = [
                [
                    Plan(url, names, seed, client, settings.clients, settings.conflict_share, rival=False)
                    for client in range(settings.clients)
                ]
                for url, names in zip(settings.urls, tables, strict=True)
            ]
            with console.status(f"Connecting {settings.clients} clients"):
                fleet = stack.enter_context(Fleet(plans))
            parts = _run_rounds(console, fleet, settings)
    except (UnsupportedUrl, LoadFailed, WrongAnswer) as error:
        raise BenchFailed(str(error)) from error
    except psycopg.Error as error:
        raise BenchFailed(f"the database refused: {str(error).strip()}") from error
    kinds = _names(settings.urls)
    return [_target(url, name, rounds) for url, name, rounds in zip(settings.urls, kinds, parts, strict=True)]


@contextlib.contextmanager
def _tables(url: str, tables: Tables, seed: Seed) -> Iterator[None]:
    """The tables with their seed; dropped at the end."""
    import psycopg

    try:
        with contextlib.closing(open_session(url)) as session:
            create_tables(session.connection, tables, dsql=is_dsql(url))
            insert_seed(session.connection, tables, seed)
            if not is_dsql(url):
                session.connection.execute(f"ANALYZE {tables.orders}, {tables.items}")
        yield
    except BaseException:
        # What went wrong first is what the user has to know.
        with contextlib.suppress(psycopg.Error):
            _drop(url, tables)
        raise
    _drop(url, tables)


def _drop(url: str, tables: Tables) -> None:
    # On a connection of its own: DSQL closes one that has lived through a long run.
    with contextlib.closing(open_session(url)) as session:
        drop_tables(session.connection, tables)


def _run_rounds(console: Console, fleet: Fleet, settings: BenchSettings) -> list[list[Result]]:
    """For each URL the results of its rounds."""
    rounds = max(ROUNDS_MIN, round(settings.seconds / ROUND_SECONDS_MAX))
    targets = range(len(settings.urls))
    parts: list[list[Result]] = [[] for _ in targets]
    with progress_bar(console) as bar:
        task = bar.add_task("Measuring", total=rounds * len(targets))
        for target in targets:
            fleet.run(target, Round(seconds=min(WARM_UP_SECONDS, settings.seconds), orders=None))
        for number in range(rounds):
            # There and back again: neither is always the one that comes after the other.
            for target in targets if number % 2 == 0 else reversed(targets):
                parts[target].append(fleet.run(target, Round(seconds=settings.seconds / rounds, orders=None)))
                bar.advance(task)
    return parts


def _names(urls: Sequence[str]) -> list[str]:
    names = ["DSQL" if is_dsql(url) else "PostgreSQL" for url in urls]
    if len(set(names)) == len(names):
        return names
    return [f"{name} {number}" for number, name in enumerate(names, start=1)]


def _target(url: str, name: str, rounds: Sequence[Result]) -> Target:
    result = merge(rounds)._replace(seconds=sum(part.seconds for part in rounds))
    latencies = {
        name: summary
        for name in OPERATIONS
        if (summary := summarise(result.latencies_s[name], result.seconds)) is not None
    }
    return Target(without_password(url), name, result, latencies)
