"""Versions that a background job still reads are no garbage, however old they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dsql_server.cluster.garbage_collection import BEAT_S, KEPT_S, GarbageCollection


class _Loop:
    """Time that passes from beat to beat."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.beat: Callable[[], None] = lambda: None

    def time(self) -> float:
        return self.seconds

    def call_later(self, delay_s: float, beat: Callable[[], None]) -> None:
        self.beat = beat

    def pass_time(self, seconds: float) -> None:
        end = self.seconds + seconds
        while self.seconds < end:
            self.seconds += BEAT_S
            self.beat()


class _Storage:
    def __init__(self) -> None:
        self.horizon = 0

    def collect_garbage(self, older_than: int, budget: int) -> int:
        assert older_than >= self.horizon, "a horizon never goes back"
        self.horizon = older_than
        return 0

    def pack_rows(self) -> None:
        """There are none."""


def test_a_held_snapshot_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, storage = _Loop(), _Storage()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    garbage = GarbageCollection(storage, lambda: 1 + int(loop.seconds * 1000))  # type: ignore[arg-type]
    garbage.start()
    loop.pass_time(KEPT_S)
    held = 1 + int(loop.seconds * 1000)
    with garbage.hold(held):
        loop.pass_time(4 * KEPT_S)
        assert 0 < storage.horizon <= held
        with garbage.hold(held + 1):
            pass
        loop.pass_time(KEPT_S)
        assert storage.horizon <= held
    loop.pass_time(1)
    assert storage.horizon > held
