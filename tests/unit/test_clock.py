"""The machine's clock with a bound."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dsql_server.clock import SystemClock


def test_bounds_enclose_the_reading() -> None:
    assert SystemClock(error_ns=30, read_ns=lambda: 1000).now() == (970, 1030)


def test_bounds_never_go_back_when_the_machine_is_set_back() -> None:
    readings: Iterator[int] = iter([1000, 400, 400, 2000])
    clock = SystemClock(read_ns=lambda: next(readings))
    assert [clock.now()[1] for _ in range(4)] == [1000, 1001, 1002, 2000]


def test_a_restart_goes_on_behind_what_was_handed_out() -> None:
    clock = SystemClock(not_before=5000, read_ns=lambda: 1000)
    assert clock.now() == (5001, 5001)


def test_without_an_error_a_timestamp_has_passed_at_the_next_call() -> None:
    clock = SystemClock()
    _, t_commit = clock.now()
    assert clock.now()[0] > t_commit


def test_a_negative_error_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="bound"):
        SystemClock(error_ns=-1)
