"""How many connections a cluster lets in: so many at a time, and so many a second beyond a burst."""

from __future__ import annotations

import time
from collections.abc import Callable

from dsql_server.interfaces.limits import Limits
from dsql_server.processor.errors import SqlError


class ConnectionRate:
    """A bucket of permissions to connect, refilled steadily."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds."""
        self._limits = limits
        self._clock = clock
        self._left = float(limits.connection_burst)
        self._filled_at = clock()

    def admit(self, connected: int) -> None:
        """Let one more in. ``connected`` counts the connections that there are, the new one included.

        Raises SqlError (fatal) if there are too many, or too many in too short a time.
        """
        limits, now = self._limits, self._clock()
        refill = (now - self._filled_at) * limits.connections_per_s
        self._left = min(self._left + refill, float(limits.connection_burst))
        self._filled_at = now
        if self._left < 1:
            raise _refused("53400", "rate exceeded")
        self._left -= 1
        if connected > limits.connections:
            raise _refused("53300", "too many open connections")


def _refused(sqlstate: str, reason: str) -> SqlError:
    return SqlError(sqlstate, f"Unable to accept connection, {reason}.", severity="FATAL")
