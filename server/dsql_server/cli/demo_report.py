"""The demo's report on the terminal: every role with what it did, one transaction, the latencies, the checks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dsql_server.cli.charts import bar, chart_bins, count, latency_table

if TYPE_CHECKING:
    from dsql_server.cli.demo import Demo

Metrics = Mapping[str, Any]

SHARDS_SHOWN_MAX = 12
SHARD_BAR_WIDTH = 20
STAGE_BAR_WIDTH = 12
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


def print_demo(out: Console, demo: Demo) -> None:
    """Print the whole report."""
    out.print(
        f"[bold]{count(len(demo.result.acknowledged), 'order')}[/bold] by {count(demo.clients, 'client')} in"
        f" {demo.result.seconds:.1f} s, on a cluster that started in {demo.start_s:.1f} s. The connector replayed"
        f" {count(demo.result.conflicts, 'transaction')} that lost to another one.\n"
    )
    for table in (
        _front(demo.metrics["frontend"], demo.metrics["processors"]),
        _adjudicators(demo.metrics["adjudicators"]),
        _journals(demo.metrics["journals"]),
        _crossbar(demo.metrics["crossbar"]),
        _shards(demo.metrics["storage"]["shards"]),
    ):
        out.print(table)
        out.print()
    if demo.trace is not None:
        _print_trace(out, demo.trace)
    out.print(
        latency_table(demo.latencies, demo.result.latencies_s, title="Latencies", bins=chart_bins(out.width)),
    )
    out.print()
    for sentence in demo.checks:
        out.print(f"[green]✓[/green] {sentence}")


def _table(title: str, headings: Iterable[str]) -> Table:
    """The first column holds names, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table


def _front(frontend: Metrics, processors: Metrics) -> Table:
    table = _table("Front end and query processors", ("", "connections", "engine databases", "statements planned"))
    table.add_row(
        "all", _number(frontend["accepted"]), _number(processors["created"]), _number(processors["statements_planned"])
    )
    return table


def _adjudicators(metrics: Mapping[str, Metrics]) -> Table:
    table = _table("Adjudicators", ("", "committed", "with others", "conflicts", "schema", "claims kept"))
    for name, adjudicator in metrics.items():
        fields = ("committed", "cross_shard", "conflicts_data", "conflicts_schema", "remembered_claims")
        table.add_row(name, *(_number(adjudicator[field]) for field in fields))
    return table


def _journals(metrics: Mapping[str, Metrics]) -> Table:
    copies = [copy["copy"] for copy in next(iter(metrics.values()))["copies"]]
    table = _table("Journals, and fdatasyncs of each copy", ("", "transactions", "records", "bytes", *copies))
    for name, journal in metrics.items():
        table.add_row(
            name,
            *(_number(journal[field]) for field in ("transactions", "records", "bytes")),
            *(_number(copy["fdatasyncs"]) for copy in journal["copies"]),
        )
    return table


def _crossbar(metrics: Metrics) -> Table:
    table = _table("Crossbar", ("", "delivered", "waiting", "watermark lag ms"))
    table.add_row(
        "crossbar",
        _number(metrics["delivered"]),
        _number(metrics["waiting"]),
        f"{metrics['watermark_lag_ns'] / NS_PER_MS:.2f}",
    )
    return table


def _shards(shards: Iterable[Metrics]) -> Table:
    filled = sorted((shard for shard in shards if shard["rows_estimate"]), key=lambda shard: -shard["rows_estimate"])
    table = _table("Storage: rows and index entries per shard", ("shard from key", "node", "rows"))
    table.add_column("", style="cyan", no_wrap=True)
    for shard in filled[:SHARDS_SHOWN_MAX]:
        rows = shard["rows_estimate"]
        chart = bar(rows, filled[0]["rows_estimate"], width=SHARD_BAR_WIDTH)
        table.add_row(_short(shard["start"]), str(shard["node"]), _number(rows), chart)
    if rest := filled[SHARDS_SHOWN_MAX:]:
        table.add_row(f"{len(rest)} more", "", _number(sum(shard["rows_estimate"] for shard in rest)), "")
    return table


def _print_trace(out: Console, trace: Metrics) -> None:
    stages: Mapping[str, float] = trace["stages_us"]
    what = {
        "adjudicate": " and ".join(trace["adjudicators"]),
        "journal": f"record {trace['sequence']} of {trace['journal']}, 2 of 3 copies",
        "apply": "crossbar, storage, answer",
    }
    out.print("[bold]One transaction on its way[/bold]")
    out.print(f"T_start   {_time(trace['t_start'])}")
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="cyan", no_wrap=True)
    longest = max(stages[stage] for stage in what)
    for stage, text in what.items():
        chart = bar(stages[stage], longest, width=STAGE_BAR_WIDTH) if longest > 0 else ""
        table.add_row(f"  {stage}", Text(text), f"{stages[stage]:.0f} µs", chart)
    out.print(table)
    later_ms = (trace["t_commit"] - trace["t_start"]) / NS_PER_MS
    out.print(f"T_commit  {_time(trace['t_commit'])}, {later_ms:.2f} ms after T_start\n")


def _time(timestamp_ns: int) -> str:
    seconds, nanoseconds = divmod(timestamp_ns, NS_PER_S)
    moment = dt.datetime.fromtimestamp(seconds, dt.timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{nanoseconds:09d} UTC"


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _short(key_hex: str) -> str:
    """The beginning of a key: the relation's number and its first bytes."""
    if len(key_hex) < 8:
        return key_hex or "(first)"
    return f"relation {int(key_hex[:8], 16)} {key_hex[8:20]}".rstrip()
