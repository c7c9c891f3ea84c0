"""The client's side of a session: messages out of bytes, answers gathered and flushed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from dsql_server.frontend.driver import Driver
from dsql_server.interfaces import protocol as p
from dsql_server.processor.engine_conversation import WAIT

#: Messages other than those that carry texts, values or rows are never longer, in bytes.
SHORT_MESSAGE_SIZE_MAX_BYTES = 10_000
#: What a client may send ahead of the session's work before it is made to wait, in bytes.
READ_AHEAD_MAX_BYTES = 1024 * 1024
#: Pieces of answers that are gathered before they are sent; a piece is at most a streamed answer's.
GATHERED_PARTS_MAX = 32
_LONG_MESSAGES = frozenset({p.QUERY, p.PARSE, p.BIND, p.COPY_DATA, p.FUNCTION_CALL})


class ClientStream:
    """``write`` sends bytes to the client, ``end`` is told when the session's coroutine is over.

    ``on_congested`` is called when the client has sent so much ahead that it should wait, ``on_drained`` when the
    session has caught up.
    """

    def __init__(self, write: Callable[[bytes], None], end: Callable[[BaseException | None], None]) -> None:
        self._write = write
        self._messages: deque[tuple[int, bytes]] = deque()
        self._partial: list[bytes] = []  #: the pieces so far of a message that isn't complete
        self._partial_bytes = 0
        self._needed_bytes = 0
        self._ahead_bytes = 0
        self.on_congested: Callable[[], None] | None = None
        self.on_drained: Callable[[], None] | None = None
        self._waiting = False
        self._resting = False  #: between requests: whatever comes now begins one
        self._asked = False  #: the client has sent something
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
        if self.closed:
            return
        self._asked = True
        if self._resting and self._waiting and not self._partial:
            try:
                if self._answered_at_once(data):
                    return
            except Exception as error:
                self._driver.fail(error)
                return
        self._ahead_bytes += len(data)
        if self._partial:
            self._partial.append(data)
            self._partial_bytes += len(data)
            if self._partial_bytes < self._needed_bytes:
                self._slow_down()
                return
            data = b"".join(self._partial)
            self._partial.clear()
        at, size = 0, len(data)
        needed = 5
        unpack = p.unpack_i32
        add = self._messages.append
        while size - at >= 5:
            length = unpack(data, at + 1)[0]
            if length > SHORT_MESSAGE_SIZE_MAX_BYTES or length < 4:
                limit = p.MESSAGE_SIZE_MAX_BYTES if data[at] in _LONG_MESSAGES else SHORT_MESSAGE_SIZE_MAX_BYTES
                if not 4 <= length <= limit:
                    self._write(p.error_response("08P01", "invalid message length", severity="FATAL"))
                    self.hang_up()
                    return
            end = at + 1 + length
            if end > size:
                needed = 1 + length
                break
            add((data[at], data[at:end]))
            at = end
        if at < size:
            self._partial.append(data[at:])
            self._partial_bytes, self._needed_bytes = size - at, needed
        if self._waiting and self._messages:
            self._waiting = False
            self._driver.resume(None)
        self._slow_down()

    def _slow_down(self) -> None:
        if self._ahead_bytes > READ_AHEAD_MAX_BYTES and not self._waiting and self.on_congested is not None:
            self.on_congested()

    def _answered_at_once(self, data: bytes) -> bool:
        """Answer a whole request without the session's coroutine; False, and nothing done: that has to."""
        return False

    def hang_up(self) -> None:
        """The client is gone, or has to go."""
        self._write = _nowhere
        self.wind_up()

    def wind_up(self) -> None:
        """End the session once what it is at is answered."""
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
            self._ahead_bytes = 0
            if self.on_drained is not None:
                drained, self.on_drained = self.on_drained, None
                drained()
            self._waiting = True
            await WAIT
        return self._messages.popleft()

    def _go_on(self) -> None:
        """Wait for requests again, behind one that was answered without the coroutine but not at once."""
        if self._messages or self.closed or self.on_drained is not None:
            self._driver.resume(None)
        else:
            self._waiting = True

    def _flush(self) -> None:
        if self._out:
            self._write(b"".join(self._out))
            self._out.clear()

    def _flush_if_much(self) -> None:
        """Send what is gathered if it is much; never behind the last statement, whose completion may be taken back."""
        if len(self._out) > GATHERED_PARTS_MAX:
            self._flush()

    def _stream(self, data: bytes) -> None:
        self._flush()
        self._write(data)


def _nowhere(data: bytes) -> None:
    """Takes what is said to a client that is gone."""
