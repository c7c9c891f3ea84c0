"""The same over TLS, with its goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

from dsql_server.transport.socket_transport import (
    GOODBYE_TIMEOUT_S,
    NOT_READY,
    READ_MAX_BYTES,
    BytesProtocol,
    SocketTransport,
)


class TlsTransport(SocketTransport):
    """``connected`` has its handshake behind it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connected: ssl.SSLSocket, protocol: BytesProtocol) -> None:
        super().__init__(loop, connected, protocol)
        self._tls = connected
        # What SSLSocket's methods of these names would call; an end without goodbye is an error here.
        self._receive = connected._sslobj.read  # type: ignore[attr-defined]
        self._send = connected._sslobj.write  # type: ignore[attr-defined]
        self._pending = connected._sslobj.pending  # type: ignore[attr-defined]
        self._goodbye: asyncio.TimerHandle | None = None

    def resume_reading(self) -> None:
        super().resume_reading()
        if self._reading and self._pending():
            self._loop.call_soon(self._read_pending)

    def _read_pending(self) -> None:
        """The loop knows nothing of what OpenSSL has read already."""
        while self._reading and self._pending():
            try:
                data = self._receive(READ_MAX_BYTES)
            except NOT_READY:
                return
            except OSError as error:
                self._lose(error)
                return
            if data:
                self._data_received(data)
            else:
                self._lose(None)

    def _say_goodbye(self) -> None:
        """Close TLS and our side of the connection, then wait for the client to leave.

        Closing at once would make the kernel reset the connection if the client has sent anything more, and the
        client lose the last message.
        """
        if self._goodbye is not None or self._lost:
            return
        self._goodbye = self._loop.call_later(GOODBYE_TIMEOUT_S, self.abort)
        try:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            socket.socket.shutdown(self._tls, socket.SHUT_WR)
        except (OSError, ValueError):
            self._lose(None)
            return
        self._loop.add_reader(self._fd, self._drain)
        self._reading = True

    def _drain(self) -> None:
        try:
            while socket.socket.recv(self._tls, READ_MAX_BYTES):
                pass
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self._goodbye is not None:
            self._goodbye.cancel()
        super()._lose(error)


async def accept_tls(loop: asyncio.AbstractEventLoop, client: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Do the server's side of the handshake over ``client``, which the result replaces. Raises OSError."""
    tls = context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
    try:
        while True:
            try:
                tls.do_handshake()
                return tls
            except ssl.SSLWantReadError:
                await ready(loop, tls.fileno())
            except ssl.SSLWantWriteError:
                await ready(loop, tls.fileno(), to_write=True)
    except BaseException:
        tls.close()
        raise


async def ready(loop: asyncio.AbstractEventLoop, fd: int, *, to_write: bool = False) -> None:
    """Wait until the socket ``fd`` can be read from, or written to."""
    future = loop.create_future()

    def tell() -> None:
        if not future.done():
            future.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if to_write else (loop.add_reader, loop.remove_reader)
    add(fd, tell)
    try:
        await future
    finally:
        remove(fd)
