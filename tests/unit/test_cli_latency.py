"""The figures that the benchmark prints."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.cli.charts import bar, chart_bins, milliseconds
from dsql_server.cli.latency import histogram, percentile, sparkline, summarise


@pytest.mark.parametrize(
    ("percent", "expected"), [(1, 1), (50, 5), (51, 6), (90, 9), (90.1, 10), (95, 10), (99, 10), (100, 10)]
)
def test_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile(list(range(1, 11)), percent) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    assert [percentile([7.0], percent) for percent in (1, 50, 99, 100)] == [7.0] * 4


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 100))
def test_percentile_covers_its_share_and_no_smaller_value_does(values: list[float], percent: float) -> None:
    ordered = sorted(values)
    chosen = percentile(ordered, percent)
    needed = len(ordered) * percent / 100
    assert sum(value <= chosen for value in ordered) >= needed - 1e-9
    assert sum(value < chosen for value in ordered) < needed + 1e-9


def test_summary_is_in_milliseconds_and_needs_no_order() -> None:
    latencies_s = [n / 1000 for n in range(1, 101)]
    random.Random(1).shuffle(latencies_s)
    summary = summarise(latencies_s, elapsed_s=4.0)
    assert summary is not None
    assert (summary.samples, summary.per_second) == (100, 25.0)
    assert summary.mean_ms == pytest.approx(50.5)
    assert [summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms, summary.max_ms] == pytest.approx(
        [50, 90, 95, 99, 100]
    )


def test_an_operation_that_never_ran_has_no_summary() -> None:
    assert summarise([], elapsed_s=1.0) is None


def test_histogram_bins_have_equal_ratios() -> None:
    latencies_s = [0.001, 0.0011, 0.0101, 0.011, 0.09, 0.1]
    assert histogram(latencies_s, first_s=0.001, last_s=0.1, bins=2) == [2, 4]


@given(st.lists(st.floats(0, 10), max_size=50), st.integers(1, 40))
def test_histogram_counts_everything_once(latencies_s: list[float], bins: int) -> None:
    counts = histogram(latencies_s, first_s=0.001, last_s=1.0, bins=bins)
    assert len(counts) == bins
    assert sum(counts) == len(latencies_s)


def test_sparkline_shows_every_occupied_bin() -> None:
    assert sparkline([0, 1, 500, 1000]) == " ▁▄█"
    assert sparkline([0, 0]) == "  "


def test_bar_is_exact_to_an_eighth() -> None:
    assert bar(1.0, 1.0, width=4) == "████"
    assert bar(0.5, 1.0, width=4) == "██"
    assert bar(0.53125, 1.0, width=4) == "██▏"
    assert bar(0.0, 1.0, width=4) == ""
    assert bar(1e-9, 1.0, width=4) == "▏"


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.50"), (9.994, "9.99"), (12.34, "12.3"), (1234.5, "1234")])
def test_milliseconds_have_three_digits(value: float, text: str) -> None:
    assert milliseconds(value) == text


def test_chart_fits_the_terminal() -> None:
    assert chart_bins(80) == 18
    assert chart_bins(100) == 38
    assert chart_bins(10_000) == 48
