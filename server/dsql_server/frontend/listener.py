"""The endpoint: TCP, and TLS negotiated or direct; then a connection of its own for each client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Collection

from dsql_server.frontend.client_connection import STARTUP_TIMEOUT_S, ClientConnection
from dsql_server.frontend.connection_rate import ConnectionRate
from dsql_server.frontend.startup import CANCEL_REQUEST, GSS_REQUEST, SSL_REQUEST, STARTUP_PACKET_MAX_BYTES
from dsql_server.frontend.token import TokenVerifier
from dsql_server.frontend.transactions import Services
from dsql_server.interfaces import protocol as p
from dsql_server.transport.tls_transport import accept_tls, ready

#: The accept queue of the listening socket.
LISTEN_BACKLOG = 512

_TLS_HANDSHAKE = 0x16


class Listener:
    """Accepts connections. ``hostnames`` are those that the cluster's tokens may name."""

    def __init__(
        self,
        services: Services,
        tls: ssl.SSLContext,
        verifier: TokenVerifier,
        hostnames: Collection[str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.services = services
        self.verifier = verifier
        self.hostnames = hostnames
        self.now = now
        self._tls = tls
        self._socket: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self.connections: set[ClientConnection] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self._rate = ConnectionRate(services.limits)

    def open(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError if the address can't be had."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(LISTEN_BACKLOG)
            listening.setblocking(False)
        except OSError:
            listening.close()
            raise
        self._socket = listening
        self._loop.add_reader(listening.fileno(), self._accept)
        return int(listening.getsockname()[1])

    def _accept(self) -> None:
        assert self._socket is not None
        for _ in range(64):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                return
            accepted.setblocking(False)
            self.accepted += 1
            task = self._loop.create_task(self._greet(accepted))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _greet(self, client: socket.socket) -> None:
        """From the first byte to TLS; the rest is the connection's."""
        try:
            if client.family in (socket.AF_INET, socket.AF_INET6):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.wait_for(self._negotiate(client), STARTUP_TIMEOUT_S)
        except (OSError, ssl.SSLError, asyncio.TimeoutError, ConnectionError):
            client.close()
        except asyncio.CancelledError:
            client.close()
            raise

    async def _negotiate(self, client: socket.socket) -> None:
        while True:
            await ready(self._loop, client.fileno())
            head = client.recv(8, socket.MSG_PEEK)
            if not head:
                client.close()
                return
            if head[0] == _TLS_HANDSHAKE:
                break
            if len(head) < 8:
                await asyncio.sleep(0.005)
                continue
            length, code = p.unpack_i32(head)[0], p.unpack_i32(head, 4)[0]
            if code == SSL_REQUEST and length == 8:
                client.recv(8)
                client.send(b"S")
                continue
            if code == GSS_REQUEST and length == 8:
                client.recv(8)
                client.send(b"N")
                continue
            if code == CANCEL_REQUEST:
                client.close()  # Aurora DSQL ignores cancel requests
                return
            if code >> 16 == 3:
                refusal = p.error_response(
                    "08P01", "SSL is mandatory: connect with sslmode=require or stronger", severity="FATAL"
                )
                client.send(refusal)
                # What is left unread would make the kernel reset the connection, and the client lose the message.
                with contextlib.suppress(BlockingIOError):
                    client.recv(STARTUP_PACKET_MAX_BYTES)
            client.close()
            return
        tls = await accept_tls(self._loop, client, self._tls)
        ClientConnection(tls, self.services, self.verifier, self.hostnames, self.now, self.connections, self._rate)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for task in list(self._handshakes):
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        for connection in list(self.connections):
            connection.shut_down()
        await asyncio.sleep(0)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)
