"""Row versions that no transaction can read any more leave storage, a few at each beat; others are packed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dsql_server.interfaces.messages import TRANSACTION_AGE_MAX_S, Timestamp
from dsql_server.storage.router import StorageRouter

#: A transaction reads as of its start. The margin is for its last statement.
KEPT_S = TRANSACTION_AGE_MAX_S + 30
BEAT_S = 0.25
#: Versions that each storage node looks at in one beat: about 1 ms of the event loop's time.
VERSIONS_A_BEAT_MAX = 1000
_MARKS = 32


class _Mark(NamedTuple):
    """Every transaction that begins later than at ``seconds`` on the loop's clock reads at ``t`` or above."""

    seconds: float
    t: Timestamp


class GarbageCollection:
    """Beats from ``start`` to ``close``, on the event loop.

    A transaction's age is counted on the clock that nobody sets, its snapshot is of the one that may be set or jump
    (after the machine slept). So the horizon is a timestamp that was taken long enough ago, not one computed.
    """

    def __init__(self, storage: StorageRouter, now: Callable[[], Timestamp], kept_s: float = KEPT_S) -> None:
        """``now`` is what a transaction that begins now would read at; it never goes back."""
        self._storage = storage
        self._now = now
        self._kept_s = kept_s
        self._marks: deque[_Mark] = deque()
        self._horizon: Timestamp = 0
        self._held: list[Timestamp] = []
        self._timer: asyncio.TimerHandle | None = None
        self.versions_dropped = 0

    @contextlib.contextmanager
    def hold(self, t: Timestamp) -> Iterator[None]:
        """Keep what a read at ``t`` sees, as long as the context is open. Background jobs have no age limit."""
        self._held.append(t)
        try:
            yield
        finally:
            self._held.remove(t)

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def close(self) -> None:
        """No more beats. Safe to repeat."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(BEAT_S, self._beat)
        seconds, marks = loop.time(), self._marks
        if not marks or seconds - marks[-1].seconds >= self._kept_s / _MARKS:
            marks.append(_Mark(seconds, self._now()))
        while marks[0].seconds <= seconds - self._kept_s:
            self._horizon = marks.popleft().t
            if not marks:
                break
        horizon = min([self._horizon, *self._held])
        if horizon:
            self.versions_dropped += self._storage.collect_garbage(horizon, VERSIONS_A_BEAT_MAX)
        self._storage.pack_rows()
