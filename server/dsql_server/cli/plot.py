"""The benchmark's latencies as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsql_server.cli.charts import count, milliseconds
from dsql_server.cli.latency import percentile

if TYPE_CHECKING:
    from dsql_server.cli.bench import BenchSettings, Target

COLOURS = ("#2f6fde", "#e0792b")
PANEL_WIDTH_IN = 4.2
HEIGHT_IN = 4.6
DOTS_PER_INCH = 160
#: The curve leaves the slowest calls out: a handful of outliers would squeeze everything else to the left.
PERCENT_MAX = 99.5
CURVE_POINTS = 400


def plot_latencies(file: Path, settings: BenchSettings, targets: Sequence[Target]) -> None:
    """Draw, for each operation, which share of its calls was done within which time, and write a PNG file."""
    # The figure is made by hand: pyplot would look for a display and keep global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    operations = [name for name in targets[0].latencies if all(name in target.latencies for target in targets)]
    figure = Figure(figsize=(PANEL_WIDTH_IN * len(operations), HEIGHT_IN), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(operations), squeeze=False)[0]
    for panel, operation in zip(panels, operations, strict=True):
        _draw(panel, operation, targets)
    panels[0].set_ylabel("share of calls done, %")
    throughput = ", ".join(f"{target.name} {target.operations_per_second:,.0f}/s" for target in targets)
    figure.suptitle(
        f"Orders with {count(settings.clients, 'client')}: {throughput}",
        fontsize=12,
        fontweight="bold",
        x=0.01,
        ha="left",
    )
    figure.savefig(file, dpi=DOTS_PER_INCH, format="png")


def _draw(panel: Any, operation: str, targets: Sequence[Target]) -> None:
    for target, colour in zip(targets, COLOURS, strict=False):
        ordered = sorted(latency * 1e3 for latency in target.result.latencies_s[operation])
        percents = [PERCENT_MAX * (point + 1) / CURVE_POINTS for point in range(CURVE_POINTS)]
        panel.plot([percentile(ordered, percent) for percent in percents], percents, color=colour, linewidth=2)
        p50_ms, p99_ms = percentile(ordered, 50), percentile(ordered, 99)
        label = f"{target.name}: p50 {milliseconds(p50_ms)} ms, p99 {milliseconds(p99_ms)} ms"
        panel.plot([p50_ms, p99_ms], [50, 99], "o", color=colour, markersize=5, label=label)
    panel.set_title(operation, loc="left", fontsize=11)
    panel.set_xscale("log")
    panel.set_xlabel("latency, ms")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if _is_leading(value, (2, 5)) else "")
    panel.tick_params(axis="x", which="minor", labelsize=8)
    panel.set_ylim(0, 100)
    panel.grid(visible=True, which="major", alpha=0.3)
    panel.grid(visible=True, which="minor", alpha=0.12)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=9, frameon=False, handletextpad=0.2)


def _is_leading(value: float, digits: Sequence[int]) -> bool:
    return round(float(f"{value:e}".partition("e")[0])) in digits
