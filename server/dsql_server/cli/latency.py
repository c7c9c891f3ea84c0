"""Latencies in numbers: percentiles, throughput, ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_BARS = " ▁▂▃▄▅▆▇█"


class Summary(NamedTuple):
    """One operation over a run; milliseconds."""

    samples: int
    per_second: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of all values don't exceed (nearest rank).

    :param ordered: ascending, not empty.
    :param percent: more than 0, at most 100.
    """
    assert ordered, "no values, no percentile"
    assert 0 < percent <= 100
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def summarise(latencies_s: Sequence[float], elapsed_s: float) -> Summary | None:
    """None if the operation never ran."""
    if not latencies_s:
        return None
    assert elapsed_s > 0
    ordered = sorted(latency * 1e3 for latency in latencies_s)
    return Summary(
        samples=len(ordered),
        per_second=len(ordered) / elapsed_s,
        mean_ms=math.fsum(ordered) / len(ordered),
        p50_ms=percentile(ordered, 50),
        p90_ms=percentile(ordered, 90),
        p95_ms=percentile(ordered, 95),
        p99_ms=percentile(ordered, 99),
        max_ms=ordered[-1],
    )


def histogram(latencies_s: Sequence[float], *, first_s: float, last_s: float, bins: int) -> list[int]:
    """How many latencies fall into each of ``bins`` bins of equal ratio; what lies outside counts at the edge."""
    assert 0 < first_s < last_s and bins > 0
    counts = [0] * bins
    scale = bins / math.log(last_s / first_s)
    for latency in latencies_s:
        position = int(math.log(max(latency, first_s) / first_s) * scale)
        counts[min(position, bins - 1)] += 1
    return counts


def sparkline(counts: Sequence[int]) -> str:
    """One character a bin; an occupied bin always shows."""
    highest = max(counts, default=0)
    if highest == 0:
        return _BARS[0] * len(counts)
    return "".join(_BARS[math.ceil(count / highest * (len(_BARS) - 1))] for count in counts)
