"""Counters, event listeners and the logger: what the connectors did, for any monitoring system.

Event names and attributes follow OpenTelemetry's conventions, so that a listener is one line::

    add_listener(lambda event: span.add_event(event.name, event.attributes))
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

logger = logging.getLogger("dsql_connectors")


class Event(NamedTuple):
    """Something that happened in a connector.

    Names: ``dsql.connect``, ``dsql.retry``, ``dsql.retries_exhausted``, ``dsql.commit_outcome_unknown``.
    """

    name: str
    attributes: Mapping[str, str | int | float]


class Counters:
    """Counts since the process started; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def add(self, name: str, count: int = 1) -> None:
        """Count something."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + count

    def snapshot(self) -> dict[str, int]:
        """All counts now: ``connects``, ``tokens``, ``commits``, ``retries``, ``retries_exhausted`` …, if not zero."""
        with self._lock:
            return dict(self._counts)


#: The counters of this process.
counters = Counters()

_listeners: tuple[Callable[[Event], object], ...] = ()
_listeners_lock = threading.Lock()


def add_listener(listener: Callable[[Event], object]) -> Callable[[], None]:
    """Call ``listener`` with every event, in the thread or task where it happens; it must not block.

    What it raises is logged and goes no further. Returns a function that removes it again.
    """
    global _listeners
    with _listeners_lock:
        _listeners = (*_listeners, listener)

    def remove() -> None:
        global _listeners
        with _listeners_lock:
            _listeners = tuple(other for other in _listeners if other is not listener)

    return remove


def emit(name: str, attributes: Mapping[str, str | int | float]) -> None:
    """Tell the listeners."""
    for listener in _listeners:
        try:
            listener(Event(name, attributes))
        except Exception:
            logger.exception("a listener of connector events failed on %s", name)


def connected(host: str) -> None:
    """Count a physical connect and tell the listeners."""
    counters.add("connects")
    if _listeners:
        emit("dsql.connect", {"db.system.name": "aurora-dsql", "server.address": host})
