"""Pools whose connections are younger than DSQL's hour, and are known to be alive when they are handed out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import event, exc, pool

from dsql_connectors.core.pooling import MAX_LIFETIME_S, closed_by_peer, lifetime_s

#: A connection that answered less than this many seconds ago is not asked again, unless its socket says otherwise.
PING_INTERVAL_S = 10.0

_EXPIRES = "dsql_expires_s"  #: key of a pool record's ``info``; on the monotonic clock
_ANSWERED = "_dsql_answered_s"  #: attribute of a driver's connection; on the monotonic clock


class _YoungConnections:
    """Mixed into SQLAlchemy's pools: their defaults for DSQL."""

    def __init__(self, creator: Any, *, recycle: int = -1, pre_ping: bool = True, **options: Any) -> None:
        """As SQLAlchemy's.

        :param recycle: seconds; at most 3300, because DSQL closes connections after 3600.
        """
        bounded = int(MAX_LIFETIME_S) if recycle < 0 else min(recycle, int(MAX_LIFETIME_S))
        super().__init__(creator, recycle=bounded, pre_ping=pre_ping, **options)  # type: ignore[call-arg]


class DSQLPool(_YoungConnections, pool.QueuePool):
    """The pool of synchronous engines."""


class AsyncDSQLPool(_YoungConnections, pool.AsyncAdaptedQueuePool):
    """The pool of asynchronous engines."""


def limit_ages(connection_pool: pool.Pool) -> None:
    """Have a pool replace connections before they are too old, each at another time."""
    if not event.contains(connection_pool, "connect", _note_expiry):
        event.listen(connection_pool, "connect", _note_expiry)
        event.listen(connection_pool, "checkout", _refuse_expired)


def _note_expiry(dbapi_connection: Any, record: Any) -> None:
    # So that connections which were opened together don't end together.
    record.info[_EXPIRES] = time.monotonic() + lifetime_s(MAX_LIFETIME_S, random.random())  # noqa: S311


def _refuse_expired(dbapi_connection: Any, record: Any, proxy: Any) -> None:
    if time.monotonic() > record.info.get(_EXPIRES, float("inf")):
        raise exc.DisconnectionError("the connection is close to DSQL's limit of an hour and is replaced")


def is_alive(connection: Any, ping: Callable[[], bool]) -> bool:
    """Whether a driver's idle connection can be used; asks the server only if it hasn't lately, or seems gone."""
    now = time.monotonic()
    answered: float = getattr(connection, _ANSWERED, 0.0) or getattr(connection, "_dsql_connected_s", 0.0)
    if now - answered < PING_INTERVAL_S and not _has_news(connection):
        return True
    alive = ping()
    if alive and hasattr(connection, "_dsql_connected_s"):  # not the connection of somebody else's creator
        setattr(connection, _ANSWERED, now)
    return alive


def _has_news(connection: Any) -> bool:
    """Whether the server has said something to an idle connection: usually that it is closed."""
    try:
        if hasattr(connection, "fileno"):
            return closed_by_peer(connection.fileno())
        socket = connection._transport.get_extra_info("socket")  # asyncpg
        return socket is None or closed_by_peer(socket.fileno())
    except Exception:  # closed on our side: the ping says so in the driver's words
        return True
