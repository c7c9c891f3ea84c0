"""Row versions that no transaction can read any more leave storage, a few at each beat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dsql_server.interfaces.environment import NANOSECONDS_PER_SECOND
from dsql_server.interfaces.messages import TRANSACTION_AGE_MAX_S, Timestamp
from dsql_server.storage.router import StorageRouter

#: A transaction reads as of its start. The margin is for its last statement.
KEPT_S = TRANSACTION_AGE_MAX_S + 30
BEAT_S = 0.25
#: Versions that each storage node looks at in one beat: about 1 ms of the event loop's time.
VERSIONS_A_BEAT_MAX = 1000


class GarbageCollection:
    """Beats from ``start`` to ``close``, on the event loop."""

    def __init__(self, storage: StorageRouter, now: Callable[[], Timestamp], kept_s: float = KEPT_S) -> None:
        """``now`` is the time of the youngest possible snapshot, in nanoseconds."""
        self._storage = storage
        self._now = now
        self._kept_ns = int(kept_s * NANOSECONDS_PER_SECOND)
        self._timer: asyncio.TimerHandle | None = None
        self.versions_dropped = 0

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def close(self) -> None:
        """No more beats. Safe to repeat."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)
        horizon = self._now() - self._kept_ns
        if horizon > 0:
            self.versions_dropped += self._storage.collect_garbage(horizon, VERSIONS_A_BEAT_MAX)
