"""Tables and charts of latencies for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from dsql_server.cli.latency import Summary, histogram, sparkline

#: A chart takes what the columns of numbers leave of the terminal's width, within bounds.
CHART_BINS_MIN = 18
CHART_BINS_MAX = 48
NUMBERS_WIDTH = 62
BAR_WIDTH = 24
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def bar(value: float, highest: float, *, width: int = BAR_WIDTH) -> str:
    """A horizontal bar, exact to an eighth of a character."""
    assert 0 <= value <= highest and highest > 0
    eighths = max(1, round(value / highest * width * 8)) if value > 0 else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]


def milliseconds(value_ms: float) -> str:
    """Three significant digits, as a person reads them."""
    return f"{value_ms:.2f}" if value_ms < 10 else f"{value_ms:.1f}" if value_ms < 100 else f"{value_ms:.0f}"


def count(number: int, noun: str) -> str:
    """``1 client``, ``2 clients``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def chart_bins(terminal_width: int) -> int:
    """Width of the chart in a latency table, in characters."""
    return max(CHART_BINS_MIN, min(CHART_BINS_MAX, terminal_width - NUMBERS_WIDTH))


def latency_table(
    latencies: Mapping[str, Summary], samples_s: Mapping[str, Sequence[float]], *, title: str, bins: int
) -> Table:
    """One row an operation: percentiles, throughput, and how its latencies are spread over a logarithmic axis."""
    everything = [latency for name in latencies for latency in samples_s[name]]
    first_s, last_s = min(everything), max(everything)
    if first_s == last_s:
        last_s = first_s * 2
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    table.add_column("operation")
    for heading in ("p50 ms", "p90 ms", "p95 ms", "p99 ms", "per s", "calls"):
        table.add_column(heading, justify="right")
    axis = f"{milliseconds(first_s * 1e3)} ms"
    end = f"{milliseconds(last_s * 1e3)} ms"
    table.add_column(axis + end.rjust(bins - len(axis)), no_wrap=True, style="cyan")
    for name, summary in latencies.items():
        counts = histogram(samples_s[name], first_s=first_s, last_s=last_s, bins=bins)
        table.add_row(
            name,
            *(milliseconds(value) for value in (summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms)),
            f"{summary.per_second:.0f}",
            str(summary.samples),
            sparkline(counts),
        )
    return table
