"""Runs a session's coroutine: no task, no event-loop turn between an answer and the next step.

A coroutine awaits either :data:`dsql_server.processor.engine_conversation.WAIT`, and is then resumed by whoever called
:meth:`Driver.resume`, or an ordinary asyncio future.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from dsql_server.processor.engine_conversation import WAIT


class Driver:
    """Steps one coroutine. ``on_end`` gets the exception that ended it, or None."""

    def __init__(self, on_end: Callable[[BaseException | None], None]) -> None:
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._on_end = on_end
        self._running = False
        self._ended = False

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self.resume(None)

    def resume(self, value: Any) -> None:
        """Continue the coroutine where it waits; ``value`` is what its await yields."""
        if self._ended:
            return
        assert self._coroutine is not None and not self._running, "resumed while running"
        self._running = True
        try:
            awaited = self._coroutine.send(value)
        except StopIteration:
            self._end(None)
        except BaseException as error:
            self._end(error)
        else:
            self._running = False
            if awaited is not WAIT:
                assert asyncio.isfuture(awaited), awaited
                awaited._asyncio_future_blocking = False
                awaited.add_done_callback(self._future_done)

    def fail(self, error: BaseException) -> None:
        """End the coroutine where it waits, and tell of the error."""
        if self._ended:
            return
        assert self._coroutine is not None and not self._running, "failed while running"
        self._coroutine.close()
        self._end(error)

    def _future_done(self, future: asyncio.Future[Any]) -> None:
        # The awaiting code asks the future itself for its result or exception.
        self.resume(None)

    def _end(self, error: BaseException | None) -> None:
        self._running = False
        self._ended = True
        self._on_end(error)
