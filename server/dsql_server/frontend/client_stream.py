"""The client's side of a session: messages out of bytes, answers gathered and flushed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from dsql_server.frontend.driver import Driver
from dsql_server.interfaces import protocol as p
from dsql_server.processor.executor import WAIT


class ClientStream:
    """``write`` sends bytes to the client, ``end`` is told when the session's coroutine is over."""

    def __init__(self, write: Callable[[bytes], None], end: Callable[[BaseException | None], None]) -> None:
        self._write = write
        self._messages: deque[tuple[int, bytes]] = deque()
        self._tail = b""
        self._waiting = False
        self._driver = Driver(end)
        self.closed = False
        self._out: list[bytes] = []

    def _run(self) -> Coroutine[Any, Any, None]:
        """The session's coroutine."""
        raise NotImplementedError

    def start(self) -> None:
        self._driver.start(self._run())

    def feed(self, data: bytes) -> None:
        """Take bytes from the client. A message over the limit ends the session."""
        if self._tail:
            data = self._tail + data
        at, size = 0, len(data)
        unpack = p.unpack_i32
        add = self._messages.append
        while size - at >= 5:
            length = unpack(data, at + 1)[0]
            if length < 4 or length > p.MESSAGE_SIZE_MAX_BYTES:
                self._write(p.error_response("08P01", "invalid message length", severity="FATAL"))
                self.hang_up()
                return
            end = at + 1 + length
            if end > size:
                break
            add((data[at], data[at:end]))
            at = end
        self._tail = data[at:] if at < size else b""
        if self._waiting and self._messages:
            self._waiting = False
            self._driver.resume(None)

    def hang_up(self) -> None:
        """The client is gone, or has to go."""
        self.closed = True
        if self._waiting:
            self._waiting = False
            self._driver.resume(None)

    async def _next(self) -> tuple[int, bytes] | None:
        """The next message; None when the client is gone."""
        while not self._messages:
            if self.closed:
                return None
            if self._out:
                self._flush()
            self._waiting = True
            await WAIT
        return self._messages.popleft()

    def _flush(self) -> None:
        if self._out:
            self._write(b"".join(self._out))
            self._out.clear()

    def _stream(self, data: bytes) -> None:
        self._flush()
        self._write(data)
