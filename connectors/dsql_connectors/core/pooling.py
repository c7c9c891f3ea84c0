"""How long pooled connections live: DSQL closes every connection after an hour, in the middle of whatever it does."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

#: DSQL's limit.
CONNECTION_AGE_S_MAX = 3600.0

#: Pools replace connections before that; the spread keeps those that were opened together from ending together.
MAX_LIFETIME_S = 3300.0
LIFETIME_JITTER = 0.1
LIFETIME_S_MIN = 1.0


def bounded_lifetime_s(max_lifetime_s: float) -> float:
    """``max_lifetime_s``, at most :data:`MAX_LIFETIME_S`.

    :raises ValueError: for a lifetime in which nothing could be done.
    """
    if max_lifetime_s < LIFETIME_S_MIN:
        raise ValueError(f"max_lifetime is {max_lifetime_s} s; give {LIFETIME_S_MIN:g} or more")
    return min(max_lifetime_s, MAX_LIFETIME_S)


class PoolLease:
    """An attempt's connection comes from a pool and goes back before the wait for the next attempt."""

    reconnects = True

    def __init__(
        self,
        acquire: Callable[[], Any],
        release: Callable[[Any], Any],
        port: Callable[[Any], Any] = lambda connection: connection,
    ) -> None:
        self.acquire = acquire
        self.release = release
        self.port = port


def lifetime_s(max_lifetime_s: float, fraction: float) -> float:
    """``max_lifetime_s`` shortened by a part of the jitter; ``fraction`` is random in [0, 1]."""
    return max_lifetime_s * (1.0 - LIFETIME_JITTER * fraction)


def closed_by_peer(file_descriptor: int) -> bool:
    """Whether an idle connection's socket has something to read, without waiting: the server's farewell or an end of
    file. An idle DSQL connection is sent nothing else. It costs 2 µs and no round trip.
    """
    if not hasattr(select, "poll"):
        readable, _, broken = select.select([file_descriptor], [], [file_descriptor], 0)
        return bool(readable or broken)
    poller = select.poll()
    poller.register(file_descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poller.poll(0))
