"""The machine's clock, with a bound on its error."""

from __future__ import annotations

import time
from collections.abc import Callable

from dsql_server.interfaces.messages import Timestamp


class SystemClock:
    """A clock whose bounds never go back, even if the machine's time is set back or restarts behind ``not_before``.

    Every call returns bounds greater than those before, so that one process needs no waiting: a timestamp taken
    from ``latest`` has passed as soon as the clock is asked again, if ``error_ns`` is 0.
    """

    __slots__ = ("_error_ns", "_last", "_read_ns")

    def __init__(self, error_ns: int = 0, not_before: Timestamp = 0, read_ns: Callable[[], int] = time.time_ns) -> None:
        """``error_ns``: how far the machine's time may be off, either way. 0 where one process is the whole cluster."""
        assert error_ns >= 0, f"the clock error is a bound, not {error_ns}"
        self._error_ns = error_ns
        self._last = not_before
        self._read_ns = read_ns

    def now(self) -> tuple[Timestamp, Timestamp]:
        """(earliest, latest): true time lies between the two."""
        t = self._read_ns()
        if t <= self._last:
            t = self._last + 1
        self._last = t
        return t - self._error_ns, t + self._error_ns
