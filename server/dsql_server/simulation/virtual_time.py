"""Virtual time: a queue of events, and clocks that are off by a bounded error."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from dsql_server.interfaces.environment import NANOSECONDS_PER_SECOND
from dsql_server.interfaces.messages import Timestamp

#: Virtual time starts here, so that timestamps look like timestamps.
EPOCH_NS = 1_700_000_000 * NANOSECONDS_PER_SECOND


class VirtualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualTime:
    """Runs callbacks in order of time; of two at the same time, the one asked for first."""

    def __init__(self) -> None:
        self.now_ns = EPOCH_NS
        self._events: list[tuple[int, int, VirtualTimer]] = []
        self._number = 0

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> VirtualTimer:
        return self.call_in_ns(int(delay_s * NANOSECONDS_PER_SECOND), callback)

    def call_in_ns(self, delay_ns: int, callback: Callable[[], None]) -> VirtualTimer:
        timer = VirtualTimer(callback)
        self._number += 1
        heappush(self._events, (self.now_ns + delay_ns, self._number, timer))
        return timer

    def run_until(self, finished: Callable[[], bool], time_max_s: float) -> bool:
        """Run events until ``finished()``; False if ``time_max_s`` of virtual time passed before."""
        end = self.now_ns + int(time_max_s * NANOSECONDS_PER_SECOND)
        events = self._events
        while not finished():
            if not events or events[0][0] > end:
                return False
            self.now_ns, _, timer = heappop(events)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        return True


class SkewedClock:
    """A machine's clock: off by ``skew_ns``, and sure of no more than ``error_ns`` either way."""

    def __init__(self, time: VirtualTime, skew_ns: int, error_ns: int) -> None:
        assert abs(skew_ns) <= error_ns, "a clock off by more than its bound breaks the contract"
        self._time = time
        self._skew_ns = skew_ns
        self._error_ns = error_ns

    def now(self) -> tuple[Timestamp, Timestamp]:
        reading = self._time.now_ns + self._skew_ns
        return reading - self._error_ns, reading + self._error_ns
