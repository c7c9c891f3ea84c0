"""Bytes to and from a connected socket, read and written the moment the event loop says that it is ready.

An event loop's own streams put a state machine between socket and protocol; for TLS that machine costs more than
everything else about a short message. Here the loop only tells readiness; OpenSSL reads and writes the socket itself.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

#: What one read takes at most, in bytes; a TLS record holds at most 16 KiB.
READ_MAX_BYTES = 64 * 1024
#: What one write hands to the socket at most, in bytes.
WRITE_MAX_BYTES = 64 * 1024
#: The writer is told to pause when so much is not sent yet, and to go on when it is so little, in bytes.
BACKLOG_HIGH_BYTES = 64 * 1024
BACKLOG_LOW_BYTES = 16 * 1024
#: How long a peer that is being closed may take to read what was sent and to leave, in seconds.
GOODBYE_TIMEOUT_S = 3.0
#: What a socket that doesn't block raises where it would have to.
NOT_READY = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BytesProtocol(Protocol):
    """What a transport calls; as asyncio's protocols, which it is a part of."""

    def data_received(self, data: bytes) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class SocketTransport:
    """Owns ``connected``, a connected socket that doesn't block, and closes it.

    ``connection_lost`` of the protocol is called once, in a turn of the event loop of its own. Nothing is read before
    :meth:`resume_reading`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connected: socket.socket, protocol: BytesProtocol) -> None:
        self._loop = loop
        self._socket = connected
        self._fd = connected.fileno()
        self._protocol = protocol
        self._data_received: Callable[[bytes], None] = protocol.data_received
        self._receive: Any = connected.recv
        self._send: Any = connected.send
        self._pending: Callable[[], int] = _none_pending  #: bytes that were read from the socket and not handed on
        self._reading = False
        self._writing = False  #: whether the loop tells when the socket takes more
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._told_to_pause = False
        self._closing = False
        self._lost = False

    # -- reading ---------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def hand_on_to(self, data_received: Callable[[bytes], None]) -> None:
        """Call this with what is read from now on, and not the protocol's method of that name."""
        self._data_received = data_received

    def _readable(self) -> None:
        try:
            data = self._receive(READ_MAX_BYTES)
        except NOT_READY:
            return
        except OSError as error:
            self._lose(error)
            return
        if not data:
            self._lose(None)
            return
        self._data_received(data)
        while self._reading and self._pending():
            self._read_pending()
        if self._reading and self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._read_rest()

    def _read_pending(self) -> None:
        """Read what the loop doesn't know of."""

    def _read_rest(self) -> None:
        """Read what a peer sent before it reset the connection: libuv stops to tell of a socket with an error."""
        while self._reading:
            try:
                data = self._receive(READ_MAX_BYTES)
            except OSError as error:
                self._lose(error)
                return
            if not data:
                self._lose(None)
                return
            self._data_received(data)

    # -- writing ---------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send ``data``, now as far as the socket takes it. Dropped when closing."""
        if self._closing:
            return
        if not self._backlog:
            size = len(data)
            if size <= WRITE_MAX_BYTES:
                try:
                    sent = self._send(data)
                except NOT_READY:
                    sent = 0
                except OSError as error:
                    self._lose(error)
                    return
                if sent == size:
                    return
                data = data[sent:]
        self._queue(data)

    def _queue(self, data: bytes) -> None:
        for at in range(0, len(data), WRITE_MAX_BYTES):
            self._backlog.append(data[at : at + WRITE_MAX_BYTES])
        self._backlog_bytes += len(data)
        if not self._writing:
            self._writable()
        if self._backlog_bytes > BACKLOG_HIGH_BYTES and not self._told_to_pause and not self._lost:
            self._told_to_pause = True
            self._protocol.pause_writing()

    def _writable(self) -> None:
        backlog = self._backlog
        try:
            while backlog:
                sent = self._send(backlog[0])
                self._backlog_bytes -= sent
                if sent == len(backlog[0]):
                    backlog.popleft()
                else:
                    backlog[0] = backlog[0][sent:]
        except NOT_READY:
            pass
        except OSError as error:
            self._lose(error)
            return
        self._watch_writable(bool(backlog))
        if self._told_to_pause and self._backlog_bytes <= BACKLOG_LOW_BYTES:
            self._told_to_pause = False
            self._protocol.resume_writing()
        if self._closing and not backlog:
            self._say_goodbye()

    def _watch_writable(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._fd, self._writable)
            else:
                self._loop.remove_writer(self._fd)

    # -- the end ---------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Send what was written, then end the connection."""
        if self._closing:
            return
        self.pause_reading()
        self._closing = True
        if not self._backlog:
            self._say_goodbye()
        else:
            self._loop.call_later(GOODBYE_TIMEOUT_S, self.abort)

    def abort(self) -> None:
        """End the connection now, whatever isn't sent yet."""
        self._lose(None)

    def _say_goodbye(self) -> None:
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self.pause_reading()
        self._watch_writable(False)
        self._backlog.clear()
        self._socket.close()
        self._loop.call_soon(self._protocol.connection_lost, error)


def _none_pending() -> int:
    return 0
