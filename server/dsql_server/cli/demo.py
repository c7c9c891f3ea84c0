"""``dsqlkit demo``: orders through an ephemeral cluster, and what each role did with them."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from rich.console import Console

from dsql_server.cli.latency import Summary, summarise
from dsql_server.cli.terminal import messages, progress_bar, results
from dsql_server.cli.workload.client import OPERATIONS, Plan, Result, Round, WrongAnswer
from dsql_server.cli.workload.fleet import Fleet, LoadFailed, merge
from dsql_server.cli.workload.orders import SEED_AGE, Seed, Tables, read_total
from dsql_server.cli.workload.schema import create_tables, insert_seed
from dsql_server.cli.workload.session import open_session
from dsql_server.cli.workload.verify import verify_orders
from dsql_server.testing import ClusterError, LocalCluster

#: One created order in seven also fights for the order that all clients share.
CONFLICT_SHARE = 0.15
SEED_ORDERS = 200
#: The load comes in rounds, so that the progress bar moves; in each one every client has some orders.
ROUNDS_MAX = 10
ROUND_ORDERS_MIN = 10  #: for each client


class DemoFailed(Exception):
    """The cluster did not start, a client failed, or the cluster's answers contradict what it acknowledged."""


class Demo(NamedTuple):
    """What the demo found out."""

    orders: int
    clients: int
    start_s: float
    result: Result
    latencies: dict[str, Summary]
    checks: list[str]
    metrics: dict[str, Any]
    trace: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "orders": self.orders,
            "clients": self.clients,
            "start_s": self.start_s,
            "load_s": self.result.seconds,
            "acknowledged": len(self.result.acknowledged),
            "conflicts_retried": self.result.conflicts,
            "latencies": {name: summary._asdict() for name, summary in self.latencies.items()},
            "checks": self.checks,
            "metrics": self.metrics,
            "trace": self.trace,
        }


def run_demo(*, orders: int, clients: int, pg_bindir: Path | None, as_json: bool) -> None:
    """Run the demo and print its report.

    :raises DemoFailed: something went wrong, or an acknowledged order is missing or not whole.
    """
    console = messages()
    try:
        demo = _measure(console, orders, clients, pg_bindir)
    except (ClusterError, LoadFailed, WrongAnswer) as error:
        raise DemoFailed(str(error)) from error
    except psycopg.Error as error:
        raise DemoFailed(f"the cluster refused: {str(error).strip()}") from error
    if as_json:
        results().print(json.dumps(demo.as_dict(), indent=2), markup=False)
    else:
        from dsql_server.cli.demo_report import print_demo

        print_demo(results(), demo)


def _measure(console: Console, orders: int, clients: int, pg_bindir: Path | None) -> Demo:
    tables = Tables()
    seed = Seed(SEED_ORDERS, dt.datetime.now(dt.timezone.utc) - SEED_AGE)
    cluster = LocalCluster(pg_bindir=pg_bindir)
    with contextlib.ExitStack() as stack:
        begun = time.perf_counter()
        with console.status("Starting the cluster"):
            stack.enter_context(cluster)
        start_s = time.perf_counter() - begun
        stack.enter_context(_environment(cluster))
        with console.status("Creating the tables"):
            session = open_session(cluster.url)
            stack.callback(session.close)
            create_tables(session.connection, tables, dsql=True)
            insert_seed(session.connection, tables, seed)
            shared_before = read_total(session.connection, tables, seed.order_id(0))
            older = set(cluster.recent_transactions())
        result = _load(console, cluster.url, tables, seed, orders, clients)
        with console.status("Checking every order"):
            checks = verify_orders(session.connection, tables, seed, result, shared_before)
        latencies = {
            name: summary
            for name in OPERATIONS
            if (summary := summarise(result.latencies_s[name], result.seconds)) is not None
        }
        return Demo(
            orders, clients, start_s, result, latencies, checks, cluster.metrics(), _trace_of_an_order(cluster, older)
        )


@contextlib.contextmanager
def _environment(cluster: LocalCluster) -> Iterator[None]:
    """The cluster's credentials where connectors look for them, in this process and in those that it starts."""
    before = dict(os.environ)
    environment = cluster.environ(before)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _load(console: Console, url: str, tables: Tables, seed: Seed, orders: int, clients: int) -> Result:
    plans = [
        Plan(url, tables, seed, client, clients, conflict_share=CONFLICT_SHARE, rival=True) for client in range(clients)
    ]
    with console.status("Connecting the clients"):
        fleet = Fleet([plans]).open()
    with fleet, progress_bar(console) as bar:
        task = bar.add_task("Ordering pizza", total=orders)
        parts = []
        rounds = max(1, min(ROUNDS_MAX, orders // (clients * ROUND_ORDERS_MIN)))
        bounds = [orders * number // rounds for number in range(rounds + 1)]
        for done, target in itertools.pairwise(bounds):
            parts.append(fleet.run(0, Round(seconds=None, orders=target - done)))
            bar.update(task, completed=target)
    return merge(parts)._replace(seconds=sum(part.seconds for part in parts))


def _trace_of_an_order(cluster: LocalCluster, older: set[str]) -> dict[str, Any] | None:
    """The latest one that took the longest way: over several adjudicators, if any did. Not one of ``older``."""
    names = [name for name in reversed(cluster.recent_transactions()) if name not in older]
    traces = [trace for name in names if (trace := cluster.trace(name)) is not None]
    return max(traces, key=lambda trace: len(trace["adjudicators"]), default=None)
