"""The demo's report on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from dsql_server.cli.charts import chart_bins, latency_table

if TYPE_CHECKING:
    from dsql_server.cli.demo import Demo


def print_demo(out: Console, demo: Demo) -> None:
    """What the roles did, one transaction followed, the latencies, and what was verified."""
    out.print(demo.metrics)
    out.print(demo.trace)
    out.print(latency_table(demo.latencies, demo.result.latencies_s, title="Latencies", bins=chart_bins(out.width)))
    for sentence in demo.checks:
        out.print(f"[green]ok[/green] {sentence}")
