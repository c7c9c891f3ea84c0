"""A PostgreSQL client that says exactly what a test tells it to, right or wrong."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dsql_server.testing import LocalCluster

TIMEOUT_S = 60.0
#: What one round of :meth:`RawClient.exchange` hands to TLS, in bytes.
EXCHANGED_BYTES = 1 << 16
PROTOCOL_3_0 = 196608
PROTOCOL_3_2 = 196610
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
GSS_REQUEST = struct.pack("!ii", 8, 80877104)
SYNC = b"S\x00\x00\x00\x04"
FLUSH = b"H\x00\x00\x00\x04"
TERMINATE = b"X\x00\x00\x00\x04"
COPY_DONE = b"c\x00\x00\x00\x04"


class Message(NamedTuple):
    """One message of the server's."""

    kind: str
    body: bytes

    @property
    def fields(self) -> dict[str, str]:
        """Of an ErrorResponse or NoticeResponse: letter and text."""
        return {f[:1].decode(): f[1:].decode() for f in self.body.split(b"\x00") if f}

    @property
    def tag(self) -> str:
        """Of a CommandComplete."""
        return self.body[:-1].decode()

    @property
    def values(self) -> list[bytes | None]:
        """Of a DataRow."""
        found: list[bytes | None] = []
        at = 2
        for _ in range(struct.unpack_from("!h", self.body)[0]):
            (length,) = struct.unpack_from("!i", self.body, at)
            at += 4
            found.append(None if length < 0 else self.body[at : at + length])
            at += max(length, 0)
        return found


def kinds(messages: Iterable[Message]) -> str:
    """The messages' type letters in a row."""
    return "".join(m.kind for m in messages)


def error_of(messages: Iterable[Message]) -> dict[str, str]:
    """The fields of the only ErrorResponse."""
    errors = [m.fields for m in messages if m.kind == "E"]
    assert len(errors) == 1, errors
    return errors[0]


def rows_of(messages: Iterable[Message]) -> list[list[bytes | None]]:
    return [m.values for m in messages if m.kind == "D"]


# -- messages of a client ------------------------------------------------------------------------------------------


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def query(sql: str) -> bytes:
    return message(b"Q", sql.encode() + b"\x00")


def parse(sql: str, name: str = "", oids: Sequence[int] = ()) -> bytes:
    types = struct.pack(f"!h{len(oids)}I", len(oids), *oids)
    return message(b"P", name.encode() + b"\x00" + sql.encode() + b"\x00" + types)


def bind(
    values: Sequence[bytes | None] = (),
    *,
    portal: str = "",
    name: str = "",
    formats: Sequence[int] = (),
    result_formats: Sequence[int] = (),
) -> bytes:
    body = (
        portal.encode() + b"\x00" + name.encode() + b"\x00" + struct.pack(f"!h{len(formats)}h", len(formats), *formats)
    )
    body += struct.pack("!h", len(values))
    for value in values:
        body += b"\xff\xff\xff\xff" if value is None else struct.pack("!i", len(value)) + value
    return message(b"B", body + struct.pack(f"!h{len(result_formats)}h", len(result_formats), *result_formats))


def describe(what: str, name: str = "") -> bytes:
    """``what``: S for a statement, P for a portal."""
    return message(b"D", what.encode() + name.encode() + b"\x00")


def execute(portal: str = "", rows_max: int = 0) -> bytes:
    return message(b"E", portal.encode() + b"\x00" + struct.pack("!i", rows_max))


def close(what: str, name: str = "") -> bytes:
    return message(b"C", what.encode() + name.encode() + b"\x00")


def copy_data(data: bytes) -> bytes:
    return message(b"d", data)


def copy_fail(reason: str) -> bytes:
    return message(b"f", reason.encode() + b"\x00")


def run(sql: str, values: Sequence[bytes | None] = ()) -> bytes:
    """Parse, Bind, Describe and Execute, without a Sync."""
    return parse(sql) + bind(values) + describe("P") + execute()


def startup(parameters: dict[str, str], version: int = PROTOCOL_3_0) -> bytes:
    body = b"".join(k.encode() + b"\x00" + v.encode() + b"\x00" for k, v in parameters.items()) + b"\x00"
    return struct.pack("!ii", len(body) + 8, version) + body


class RawClient:
    """A connection inside TLS. Usable as a context manager."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._unread = bytearray()
        self.parameters: dict[str, str] = {}
        self.negotiated: Message | None = None

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *data: bytes) -> None:
        self.socket.sendall(b"".join(data))

    def receive(self) -> Message | None:
        """The next message; None when the server has closed the connection."""
        while not self._is_whole():
            try:
                data = self.socket.recv(1 << 16)
            except (ConnectionError, ssl.SSLError):
                data = b""
            if not data:
                assert not self._unread, f"the server closed within a message: {self._unread[:40]!r}"
                return None
            self._unread += data
        end = self._length() + 1
        received = Message(chr(self._unread[0]), bytes(self._unread[5:end]))
        del self._unread[:end]
        if received.kind == "S":
            name, value, _ = received.body.split(b"\x00")
            self.parameters[name.decode()] = value.decode()
        return received

    def _send_some(self, data: memoryview) -> int:
        """Bytes that were taken off our hands; only on a socket that doesn't block."""
        try:
            return self.socket.send(data[:EXCHANGED_BYTES]) if data else 0
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def _take_some(self) -> bool:
        """Whether anything came; only on a socket that doesn't block."""
        try:
            data = self.socket.recv(EXCHANGED_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        assert data, "the server closed the connection"
        self._unread += data
        return True

    def _is_whole(self) -> bool:
        return len(self._unread) >= 5 and len(self._unread) >= self._length() + 1

    def _length(self) -> int:
        return int.from_bytes(self._unread[1:5], "big")

    def until(self, last: str) -> list[Message]:
        """Messages up to and with the first of type ``last``, or up to the end of the connection."""
        found: list[Message] = []
        while (received := self.receive()) is not None:
            found.append(received)
            if received.kind == last:
                break
        return found

    def ask(self, *data: bytes) -> list[Message]:
        """Send, and receive up to ReadyForQuery."""
        self.send(*data)
        return self.until("Z")

    def ask_patiently(self, sql: str) -> list[Message]:
        """Ask in the simple protocol, again while the catalog changes beside: jobs of other tests may still run.

        What the first answers left open is rolled back. No text that commits halfway through.
        """
        while True:
            answer = self.ask(query(sql))
            if not any(m.kind == "E" and "(OC001)" in m.fields["M"] for m in answer):
                return answer
            self.ask(query("ROLLBACK"))

    def exchange(self, data: bytes, last: str = "Z", count: int = 1) -> list[Message]:
        """Send more than both sides' sockets hold while taking what comes, up to the last of ``count`` messages.

        From one thread: Python 3.11, for one, reads and writes a TLS connection from two threads at the price of an
        "EOF" now and then that nobody sent, as both share OpenSSL's note of what the connection waits for.
        """
        unsent = memoryview(data)
        found: list[Message] = []
        self.socket.setblocking(False)
        try:
            while count:
                sent = self._send_some(unsent)
                unsent = unsent[sent:]
                came = self._take_some()
                while count and self._is_whole():
                    received = self.receive()
                    assert received is not None
                    found.append(received)
                    count -= received.kind == last
                if not sent and not came:
                    ready = select.select([self.socket], [self.socket] if unsent else [], [], TIMEOUT_S)
                    assert any(ready), f"nothing moves: {len(unsent)} bytes unsent, {len(found)} messages so far"
        finally:
            self.socket.settimeout(TIMEOUT_S)
        return found

    def rest(self) -> list[Message]:
        """What comes until the server closes the connection."""
        found = []
        while (received := self.receive()) is not None:
            found.append(received)
        return found

    def quiet(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        if self._unread:
            return False
        self.socket.settimeout(seconds)
        try:
            self._unread += self.socket.recv(1 << 16)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(TIMEOUT_S)
        return False

    def abort(self) -> None:
        """Vanish: the server gets a reset, no goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Not the TLS socket's close, which may say goodbye first.
        socket.socket(fileno=self.socket.detach()).close()


def tcp(cluster: LocalCluster) -> socket.socket:
    sock = socket.create_connection((cluster.host, cluster.port), TIMEOUT_S)
    # As libpq: what follows a handshake doesn't wait 40 ms for the acknowledgement of its end.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def tls_context(cluster: LocalCluster, *, direct: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cluster.ca_file)
    if direct:
        context.set_alpn_protocols(["postgresql"])
    return context


def secured(cluster: LocalCluster, *, direct: bool = False, sni: str | None = "") -> RawClient:
    """Inside TLS, nothing said yet. ``sni`` None: no server name is sent."""
    sock = tcp(cluster)
    try:
        context = tls_context(cluster, direct=direct)
        if not direct:
            sock.sendall(SSL_REQUEST)
            assert sock.recv(1) == b"S"
        if sni is None:
            context.check_hostname = False
        return RawClient(context.wrap_socket(sock, server_hostname=cluster.endpoint if sni == "" else sni))
    except BaseException:
        sock.close()
        raise


def begun(
    cluster: LocalCluster,
    *,
    user: str = "admin",
    database: str = "postgres",
    version: int = PROTOCOL_3_0,
    direct: bool = False,
    **parameters: str,
) -> RawClient:
    """The startup packet is sent; no token yet."""
    client = secured(cluster, direct=direct)
    client.send(startup({"user": user, "database": database, **parameters}, version))
    return client


def log_in(client: RawClient, token: str) -> list[Message]:
    """Answer the request for a password; everything up to ReadyForQuery or the end."""
    first = client.receive()
    if first is not None and first.kind == "v":
        client.negotiated, first = first, client.receive()
    assert first == Message("R", struct.pack("!i", 3)), first
    return client.ask(message(b"p", token.encode() + b"\x00"))


def connect(cluster: LocalCluster, **parameters: str) -> RawClient:
    """A session ready for queries."""
    client = begun(cluster, **parameters)  # type: ignore[arg-type]
    try:
        answer = log_in(client, cluster.token(parameters.get("user", "admin")))
        assert answer[-1].kind == "Z", answer
    except BaseException:
        client.socket.close()
        raise
    return client
