"""The endpoint: TCP, TLS (negotiated or direct), the startup message, the token; then a session."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Collection
from typing import Any

from dsql_server.catalog.bootstrap import SERVER_VERSION
from dsql_server.frontend.session import Session
from dsql_server.frontend.tls import server_name
from dsql_server.frontend.token import ACCESS_DENIED_SQLSTATE, TokenRefused, TokenVerifier
from dsql_server.frontend.transactions import Services
from dsql_server.interfaces import protocol as p
from dsql_server.processor.engine_connection import EngineError, EngineGone
from dsql_server.processor.roles import ADMIN_ROLE

#: How long a client may take from TCP connect to its token, in seconds.
STARTUP_TIMEOUT_S = 60.0
#: A startup packet is never longer than this (PostgreSQL's own limit), in bytes.
STARTUP_PACKET_MAX_BYTES = 10_000
#: The accept queue of the listening socket.
LISTEN_BACKLOG = 512
#: Aurora DSQL closes connections after an hour, in seconds.
CONNECTION_AGE_MAX_S = 3600.0

_PROTOCOL_3 = 196608
_SSL_REQUEST = 80877103
_GSS_REQUEST = 80877104
_CANCEL_REQUEST = 80877102
_TLS_HANDSHAKE = 0x16

_REPORTED = (
    ("server_version", SERVER_VERSION),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "off"),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
)


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
            await _readable(self._loop, client)
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
            if code == _SSL_REQUEST and length == 8:
                client.recv(8)
                client.send(b"S")
                continue
            if code == _GSS_REQUEST and length == 8:
                client.recv(8)
                client.send(b"N")
                continue
            if code == _CANCEL_REQUEST:
                client.close()  # Aurora DSQL ignores cancel requests
                return
            if code == _PROTOCOL_3:
                client.send(
                    p.error_response(
                        "08P01", "SSL is mandatory: connect with sslmode=require or stronger", severity="FATAL"
                    )
                )
            client.close()
            return
        connection = ClientConnection(self)
        await self._loop.connect_accepted_socket(
            lambda: connection, client, ssl=self._tls, ssl_handshake_timeout=STARTUP_TIMEOUT_S
        )

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


async def _readable(loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
    ready = loop.create_future()
    loop.add_reader(client.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(client.fileno())


class ClientConnection(asyncio.Protocol):
    """One client inside TLS: startup message, token, then bytes to and from its session."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: Any = None
        self._buffer = b""
        self._session: Session | None = None
        self._user = ""
        self._settings: dict[str, str] = {}
        self._awaiting_token = False
        self._admission: asyncio.Task[None] | None = None
        self._sni: str | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._sni = server_name(transport.get_extra_info("ssl_object"))
        self._listener.connections.add(self)
        self._expiry = asyncio.get_running_loop().call_later(STARTUP_TIMEOUT_S, self.shut_down)

    def data_received(self, data: bytes) -> None:
        if self._session is not None:
            self._session.feed(data)
            return
        self._buffer += data
        if self._admission is not None:
            return
        try:
            if not self._awaiting_token:
                self._read_startup()
            if self._awaiting_token and self._session is None:
                self._read_token()
        except _Refused as refused:
            self._refuse(refused)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.connections.discard(self)
        if self._admission is not None:
            self._admission.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        if self._session is not None:
            self._session.hang_up()

    def shut_down(self) -> None:
        """End the connection from this side."""
        if self._session is not None and not self._transport.is_closing():
            self._transport.write(
                p.error_response("57P01", "terminating connection due to administrator command", severity="FATAL")
            )
        self._transport.close()

    def _refuse(self, refused: _Refused) -> None:
        self._transport.write(p.error_response(refused.sqlstate, refused.message, severity="FATAL", hint=refused.hint))
        self._transport.close()

    def _read_startup(self) -> None:
        if len(self._buffer) < 8:
            return
        length, code = p.unpack_i32(self._buffer)[0], p.unpack_i32(self._buffer, 4)[0]
        if not 8 <= length <= STARTUP_PACKET_MAX_BYTES:
            raise _Refused("08P01", "invalid length of startup packet")
        if len(self._buffer) < length:
            return
        packet, self._buffer = self._buffer[8:length], self._buffer[length:]
        if code == _CANCEL_REQUEST:
            self._transport.close()
            return
        if code >> 16 != 3:
            raise _Refused(
                "0A000", f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: server supports 3.0 to 3.0"
            )
        if self._sni is None:
            raise _Refused(ACCESS_DENIED_SQLSTATE, "unable to accept connection, sni was not received")
        self._read_parameters(packet)
        if code & 0xFFFF:
            self._transport.write(p.message(b"v", p.pack_i32(0) + p.pack_i32(0)))
        self._transport.write(p.message(b"R", p.pack_i32(3)))
        self._awaiting_token = True

    def _read_parameters(self, packet: bytes) -> None:
        words = packet.rstrip(b"\x00").split(b"\x00")
        if len(words) % 2:
            words.append(b"")
        try:
            given = {k.decode(): v.decode() for k, v in zip(words[::2], words[1::2], strict=True) if k}
        except UnicodeDecodeError:
            raise _Refused("08P01", "invalid startup packet layout: expected UTF-8") from None
        self._user = given.pop("user", "")
        database = given.pop("database", self._user)
        options = given.pop("options", "")
        if not self._user:
            raise _Refused("28000", "no PostgreSQL user name specified in startup packet")
        if database != "postgres":
            raise _Refused("3D000", f'database "{database}" does not exist')
        given.pop("replication", None)
        self._settings = {k: v for k, v in given.items() if not k.startswith("_pq_.")}
        self._settings.update(_startup_options(options))
        self._settings.pop("amzn-cluster-id", None)
        self._settings = {k: v for k, v in self._settings.items() if k.lower() in _STARTUP_SETTINGS}

    def _read_token(self) -> None:
        if len(self._buffer) < 5:
            return
        length = p.unpack_i32(self._buffer, 1)[0]
        if self._buffer[0] != p.PASSWORD or not 4 < length <= STARTUP_PACKET_MAX_BYTES:
            raise _Refused("08P01", "expected password response")
        if len(self._buffer) < length + 1:
            return
        token = self._buffer[5:length].decode("utf-8", "replace")
        rest, self._buffer = self._buffer[length + 1 :], b""
        verdict = self._listener.verifier.verify(
            token, hostnames=self._listener.hostnames, user=self._user, now=self._listener.now()
        )
        if isinstance(verdict, TokenRefused):
            raise _Refused(ACCESS_DENIED_SQLSTATE, verdict.message, verdict.hint)
        self._awaiting_token = False
        if self._user == ADMIN_ROLE:
            self._welcome(rest)
            return
        self._buffer = rest
        self._admission = asyncio.get_running_loop().create_task(self._admit())

    async def _admit(self) -> None:
        """Let a role in that exists and may log in."""
        try:
            known = await self._listener.services.pool.may_log_in(self._user)
        except (EngineError, EngineGone, OSError):
            self._refuse(_Refused("XX000", "server unavailable"))
            return
        if self._transport.is_closing():
            return
        if not known:
            # The SQLSTATE is what the official connector's own tests expect of the service.
            self._refuse(_Refused("08P01", f'IAM authentication failed for user "{self._user}"'))
            return
        rest, self._buffer = self._buffer, b""
        self._welcome(rest)

    def _welcome(self, rest: bytes) -> None:
        assert self._expiry is not None
        self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(CONNECTION_AGE_MAX_S, self.shut_down)
        reported = dict(_REPORTED) | {"session_authorization": self._user}
        reported["application_name"] = self._settings.get("application_name", "")
        for name in ("client_encoding", "DateStyle", "TimeZone", "IntervalStyle"):
            for key, value in self._settings.items():
                if key.lower() == name.lower():
                    reported[name] = _reported_value(name, value)
        parts = [p.message(b"R", p.pack_i32(0))]
        parts += [p.parameter_status(k, v) for k, v in reported.items()]
        parts.append(p.message(b"K", p.pack_i32(secrets.randbits(31)) + p.pack_i32(secrets.randbits(31))))
        parts.append(p.ready_for_query(b"I"))
        self._transport.write(b"".join(parts))
        self._session = Session(
            self._listener.services, self._user, self._settings, self._transport.write, self._session_ended
        )
        self._session.start()
        if rest:
            self._session.feed(rest)

    def _session_ended(self, error: BaseException | None) -> None:
        if error is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a session ended with a defect", "exception": error}
            )
            if not self._transport.is_closing():
                self._transport.write(p.error_response("XX000", "internal error", severity="FATAL"))
        self._transport.close()


class _Refused(Exception):
    def __init__(self, sqlstate: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate, self.message, self.hint = sqlstate, message, hint


#: Settings that a client may bring along at startup.
_STARTUP_SETTINGS = frozenset(
    {
        "application_name",
        "client_encoding",
        "datestyle",
        "extra_float_digits",
        "intervalstyle",
        "timezone",
        "search_path",
    }
)


def _reported_value(name: str, value: str) -> str:
    """How PostgreSQL reports a setting that the client gave."""
    if name == "DateStyle":
        return "ISO, MDY" if value.upper() == "ISO" else value
    if name == "client_encoding":
        return "UTF8" if value.upper().replace("-", "") in ("UTF8", "UNICODE") else value
    return value


def _startup_options(options: str) -> dict[str, str]:
    """``-c name=value`` and ``--name=value`` of the startup packet's ``options``."""
    found: dict[str, str] = {}
    words = options.replace("\\ ", "\x00").split()
    words = [w.replace("\x00", " ").replace("\\\\", "\\") for w in words]
    at = 0
    while at < len(words):
        word = words[at]
        if word == "-c" and at + 1 < len(words):
            at += 1
            word = words[at]
        elif word.startswith(("-c", "--")):
            word = word[2:]
        name, equals, value = word.partition("=")
        if equals:
            found[name.replace("-", "_") if name != "amzn-cluster-id" else name] = value
        at += 1
    return found
