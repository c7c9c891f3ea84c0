"""The benchmark's figures on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from dsql_server.cli.bench import ratios
from dsql_server.cli.charts import chart_bins, count, latency_table

if TYPE_CHECKING:
    from dsql_server.cli.bench import BenchSettings, Target


def print_bench(out: Console, settings: BenchSettings, targets: Sequence[Target]) -> None:
    """A table of latencies for each target and, with two of them, the ratios."""
    for target in targets:
        title = f"{target.name}  {target.url}"
        bins = chart_bins(out.width)
        out.print(latency_table(target.latencies, target.result.latencies_s, title=title, bins=bins))
        out.print(
            f"{target.operations_per_second:,.0f} operations/s with {count(settings.clients, 'client')} in"
            f" {target.result.seconds:.1f} s; {count(target.result.conflicts, 'conflict')}, each followed by a retry\n"
        )
    if len(targets) == 2:
        out.print(_ratio_table(*targets))


def _ratio_table(target: Target, other: Target) -> Table:
    table = Table(
        title=f"{target.name} over {other.name}", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for heading in ("", "p50", "p90", "p95", "p99", "throughput"):
        table.add_column(heading, justify="right" if heading else "left")
    answer = ratios(target, other)
    throughput = answer.pop("throughput")["operations_per_second"]
    for operation, fields in answer.items():
        table.add_row(operation, *(f"{value:.2f} x" for value in fields.values()))
    table.add_row("all", "", "", "", "", f"{throughput:.2f} x")
    return table
