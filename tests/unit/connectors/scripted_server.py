"""A server that speaks just enough of the PostgreSQL protocol to be connected to, and fails when it is told to.

It runs no SQL: statements change the transaction state and are answered with a command tag. What a test is about
(a lost COMMIT, a conflict, a refused token) is scripted, and happens exactly when the script says.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102

REGION = "us-east-1"
CLUSTER_ID = "abcdefghijklmnopqrstuvwx23"
ENDPOINT = f"{CLUSTER_ID}.dsql.{REGION}.on.aws"

#: Parameters that drivers rely on.
REPORTED = (
    ("server_version", "16.13"),
    ("client_encoding", "UTF8"),
    ("integer_datetimes", "on"),
    ("DateStyle", "ISO, MDY"),
    ("standard_conforming_strings", "on"),
)

#: What a session's thread may take to its end after its socket was closed; many seconds on a busy machine.
END_S_MAX = 60

IDLE, IN_TRANSACTION, FAILED = b"I", b"T", b"E"


class Fail(NamedTuple):
    """Answer with an error."""

    sqlstate: str
    message: str
    hint: str = ""


class Close(NamedTuple):
    """Close the connection instead of answering."""


class Row(NamedTuple):
    """Answer with one row of one text column."""

    value: str


Reply = Fail | Close | Row | None
CONFLICT = Fail("40001", "change conflicts with another transaction, please retry: (OC000)")


class Authority(NamedTuple):
    """A certificate authority's file, and a server's context with a certificate of its for the endpoint."""

    ca_file: Path
    context: ssl.SSLContext


class Connected(NamedTuple):
    """What one client sent to connect."""

    parameters: dict[str, str]
    token: str
    direct_tls: bool
    server_name: str | None


class ScriptedServer:
    """Listens on 127.0.0.1 for as long as the ``with`` block lasts.

    :param script: asked for every statement; None lets it succeed.
    :param accept: asked for every connection; a Fail refuses it.

    ``before_goodbye`` is called between a refusal and the end of its connection.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        script: Callable[[str], Reply] = lambda statement: None,
        accept: Callable[[Connected], Fail | None] = lambda connected: None,
    ) -> None:
        self.script = script
        self.accept = accept
        self.before_goodbye: Callable[[], object] = lambda: None
        self.statements: list[str] = []
        self.connections: list[Connected] = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sessions: list[_Session] = []
        self._threads: list[threading.Thread] = []
        self._closing = False

    def __enter__(self) -> ScriptedServer:
        self._start(self._serve)
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.close_connections()
        for thread in self._threads:
            thread.join(END_S_MAX)
            assert not thread.is_alive()

    def close_connections(self) -> None:
        """As DSQL does to connections that are an hour old."""
        for session in self._sessions:
            session.close()

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = _Session(self, client, self._context)
            self._sessions.append(session)
            self._start(session.run)


class _Session:
    def __init__(self, server: ScriptedServer, client: socket.socket, context: ssl.SSLContext | None) -> None:
        self._server = server
        self._socket = client
        self._context = context
        self._state = IDLE
        self._buffer = b""
        self._names: list[str] = []
        self._prepared: dict[str, str] = {}
        self._bound = ""
        self._skipping = False

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def run(self) -> None:
        try:
            if self._start_up():
                while self._message():
                    pass
        except (OSError, EOFError):
            pass
        finally:
            self.close()

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise EOFError
            self._buffer += chunk
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _send(self, kind: bytes, body: bytes = b"") -> None:
        self._socket.sendall(kind + struct.pack("!I", len(body) + 4) + body)

    def _ready(self) -> None:
        self._send(b"Z", self._state)

    def _secure(self) -> None:
        assert self._context is not None
        context = self._context

        def remember(_socket: object, name: str | None, _context: object) -> None:
            self._names.append(name or "")

        context.sni_callback = remember
        # First the socket, then the handshake: who closes this session amid it must find what is open.
        secured = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket = secured
        secured.do_handshake()

    def _start_up(self) -> bool:
        direct = self._socket.recv(1, socket.MSG_PEEK) == b"\x16"
        if direct:
            self._secure()
        while True:
            (length,) = struct.unpack("!I", self._read(4))
            body = self._read(length - 4)
            (code,) = struct.unpack("!I", body[:4])
            if code == SSL_REQUEST and self._context is not None:
                self._socket.sendall(b"S")
                self._secure()
            elif code in (SSL_REQUEST, GSS_REQUEST):
                self._socket.sendall(b"N")
            elif code == CANCEL_REQUEST:
                return False
            else:
                break
        words = body[4:].split(b"\0")
        parameters = {key.decode(): value.decode() for key, value in zip(words[::2], words[1::2], strict=False) if key}
        self._send(b"R", struct.pack("!I", 3))
        kind, body = self._frame()
        assert kind == b"p"
        name = self._names[-1] if self._names else None
        connected = Connected(parameters, body.rstrip(b"\0").decode(), direct, name)
        self._server.connections.append(connected)
        refusal = self._server.accept(connected)
        if refusal is not None:
            self._error(refusal, b"FATAL")
            self._server.before_goodbye()
            return False
        self._send(b"R", struct.pack("!I", 0))
        for key, value in REPORTED:
            self._send(b"S", f"{key}\0{value}\0".encode())
        self._send(b"K", struct.pack("!II", 1, 1))
        self._ready()
        return True

    def _frame(self) -> tuple[bytes, bytes]:
        kind = self._read(1)
        (length,) = struct.unpack("!I", self._read(4))
        return kind, self._read(length - 4)

    def _message(self) -> bool:
        kind, body = self._frame()
        if kind == b"X":
            return False
        if kind == b"S":
            self._skipping = False
            self._ready()
        elif self._skipping:
            pass
        elif kind == b"Q":
            self._execute(body.rstrip(b"\0").decode(), describe=True)
            self._ready()
        elif kind == b"P":
            name, text = body.split(b"\0")[:2]
            self._prepared[name.decode()] = text.decode()
            self._send(b"1")
        elif kind == b"B":
            self._bound = self._prepared[body.split(b"\0")[1].decode()]
            self._send(b"2")
        elif kind == b"D":
            self._describe(body)
        elif kind == b"E":
            self._skipping = not self._execute(self._bound, describe=False)
        elif kind == b"C":
            self._send(b"3")
        return True

    def _describe(self, body: bytes) -> None:
        statement = self._prepared[body[1:].rstrip(b"\0").decode()] if body[:1] == b"S" else self._bound
        if body[:1] == b"S":
            self._send(b"t", struct.pack("!H", 0))
        if statement.upper().startswith("SELECT"):
            self._row_description()
        else:
            self._send(b"n")

    def _row_description(self) -> None:
        self._send(b"T", struct.pack("!H", 1) + b"value\0" + struct.pack("!IHIhih", 0, 0, 25, -1, -1, 0))

    def _error(self, failure: Fail, severity: bytes = b"ERROR") -> None:
        hint = b"H" + failure.hint.encode() + b"\0" if failure.hint else b""
        fields = b"S%s\0V%s\0C%s\0M%s\0" % (severity, severity, failure.sqlstate.encode(), failure.message.encode())
        self._send(b"E", fields + hint + b"\0")

    def _execute(self, statement: str, *, describe: bool) -> bool:
        text = statement.strip().rstrip(";")
        self._server.statements.append(text)
        word = text.split()[0].upper() if text.split() else ""
        reply = self._server.script(text)
        if isinstance(reply, Close):
            raise EOFError
        if word == "COMMIT" and self._state == FAILED:
            self._state, word = IDLE, "ROLLBACK"
        if isinstance(reply, Fail):
            # A failed COMMIT ends the transaction; any other failure waits for its ROLLBACK.
            self._state = FAILED if self._state != IDLE and word != "COMMIT" else IDLE
            self._error(reply)
            return False
        if word in ("BEGIN", "START"):
            self._state = IN_TRANSACTION
        elif word in ("COMMIT", "ROLLBACK"):
            self._state = IDLE
        if word == "SELECT":
            value = (reply.value if isinstance(reply, Row) else "1").encode()
            if describe:
                self._row_description()
            self._send(b"D", struct.pack("!HI", 1, len(value)) + value)
        tag = {"UPDATE": "UPDATE 1", "SELECT": "SELECT 1", "INSERT": "INSERT 0 1", "START": "BEGIN"}.get(word, word)
        self._send(b"C", tag.encode() + b"\0")
        return True


def failing(*outcomes: Reply, on: str) -> Callable[[str], Reply]:
    """A script that answers statements starting with ``on`` with the outcomes in turn, then lets them succeed."""
    waiting = list(outcomes)

    def script(statement: str) -> Reply:
        return waiting.pop(0) if waiting and statement.upper().startswith(on) else None

    return script
