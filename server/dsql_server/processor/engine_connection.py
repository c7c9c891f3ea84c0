"""One connection to a PostgreSQL engine: batches of protocol messages out, classified answers back.

A batch may carry *injected* statements of our own (BEGIN, loads) before the client's; their answers are dropped and
the client's pass through as the bytes that the engine sent. Several batches may be under way: answers come in order.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Any

from dsql_server.interfaces import protocol as p
from dsql_server.processor.errors import SqlError
from dsql_server.transport.socket_transport import SocketTransport

#: A relayed answer longer than this is handed on in pieces, in bytes.
STREAM_THRESHOLD_BYTES = 256 * 1024
#: A message that still lacks more than this is put together once, when all of it is there.
LARGE_MESSAGE_BYTES = 64 * 1024
_HEADER = Struct("!Bi")  # a message's type and length
#: Names of the machinery's prepared statements begin so.
OWN_STATEMENT_PREFIX = b"dsqlkit_"
#: Prepared statements of our own that one engine connection keeps.
STATEMENTS_MAX = 2000


class EngineError(Exception):
    """The engine refused a statement of our own. ``fields`` are those of its ErrorResponse."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.fields = p.error_fields(body)
        super().__init__(f"{self.fields.get('C')}: {self.fields.get('M')}")


class EngineGone(SqlError):
    """The engine closed the connection: transient, the whole transaction may be retried on a new one.

    ``last_words`` is the body of its last ErrorResponse, if it sent one.
    """

    def __init__(self, last_words: bytes | None = None) -> None:
        self.last_words = last_words
        super().__init__(
            "XX000", "server unavailable", detail="The query processor's engine ended; it is started again."
        )


class Answer:
    """What came back for one batch.

    ``out`` is the client's part, without ReadyForQuery. ``error`` is the body of the first ErrorResponse, and
    ``injected_error`` says that one of our own statements raised it. ``rows`` holds the DataRow bodies of each
    statement where the batch asked to collect. ``status`` is the last ReadyForQuery's.
    """

    __slots__ = (
        "completions",
        "copy_in",
        "described",
        "error",
        "injected_error",
        "last_words",
        "out",
        "parses",
        "row_description",
        "rows",
        "status",
        "streamed",
        "suspended",
        "tags",
    )

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.error: bytes | None = None
        self.last_words: bytes | None = None
        self.injected_error = False
        self.parses = 0  #: ParseComplete messages among what was dropped in front of the client's part
        self.rows: list[list[bytes]] = []
        self.tags: list[bytes] = []
        self.status = 0
        self.copy_in = False
        self.described = b""  #: body of the ParameterDescription, where the batch asked to collect
        self.row_description = b""  #: body of the last RowDescription, where the batch asked to collect
        self.streamed = False
        self.suspended = False
        self.completions = 0


class _Exchange:
    __slots__ = ("answer", "collect", "completions", "cut", "on_done", "query", "ready", "sink", "skip")

    def __init__(
        self,
        skip: int,
        completions: int,
        ready: bool,
        collect: bool,
        on_done: Callable[[Answer], None] | None,
        sink: Callable[[bytes], None] | None,
        cut: bool = False,
        query: bool = False,
    ) -> None:
        self.cut = cut
        self.query = query
        self.skip = skip
        self.completions = completions
        self.ready = ready
        self.collect = collect
        self.on_done = on_done
        self.sink = sink
        self.answer = Answer()

    def fail(self) -> None:
        """Answer that the engine is gone."""
        if self.on_done is not None:
            # What came may end in the engine's own farewell: all of it is dropped.
            self.answer.out.clear()
            self.answer.last_words = self.answer.error
            self.answer.error = _GONE_BODY
            self.answer.status = 0
            self.on_done(self.answer)


class EngineConnection:
    """See the module. ``on_lost`` is called when the engine closes the connection by itself."""

    def __init__(self) -> None:
        self._tail = b""
        self._partial: list[bytes] = []  #: more of the message that begins in the tail
        self._missing_bytes = 0  #: until that message is complete
        self._exchanges: deque[_Exchange] = deque()
        self._transport: Any = None
        #: The session's settings as the engine reports them, and as its last report was passed on.
        self.parameters: dict[bytes, bytes] = {}
        self.passed_parameters: dict[bytes, bytes] = {}
        self._congested = False
        self._on_writable: Callable[[Any], None] | None = None
        self.closed = False
        self.on_lost: Callable[[], None] | None = None
        self.on_notice: Callable[[bytes], None] | None = None
        #: Whoever loads rows over this connection has switched to the loader's role before.
        self.loads_as_loader = False
        self._names: dict[str, bytes] = {}
        self._unconfirmed: list[str] = []
        self._next_name = 0

    # -- what the transport calls ----------------------------------------------------------------------------

    def connection_made(self, transport: SocketTransport) -> None:
        self._transport = transport
        transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.resume_writing()
        waiting, self._exchanges = self._exchanges, deque()
        for exchange in waiting:
            exchange.fail()
        if self.on_lost is not None:
            self.on_lost()

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        on_writable, self._on_writable = self._on_writable, None
        if on_writable is not None:
            on_writable(None)

    def pause_reading(self) -> None:
        """Let the engine wait: who takes its answers is slow."""
        if not self.closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on after :meth:`pause_reading`."""
        if not self.closed:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._missing_bytes:
            self._missing_bytes -= len(data)
            self._partial.append(data)
            if self._missing_bytes > 0:
                return
            self._missing_bytes = 0
            data = b"".join((self._tail, *self._partial))
            self._partial.clear()
        elif self._tail:
            data = self._tail + data
        at = 0
        size = len(data)
        header = _HEADER.unpack_from
        while self._exchanges:
            exchange = self._exchanges[0]
            answer = exchange.answer
            start = at  # of the run of messages that passes through
            done = False
            collect = exchange.collect
            skip = exchange.skip
            while size - at >= 5:
                kind, end = header(data, at)
                end += at + 1
                if end > size:
                    if end - size > LARGE_MESSAGE_BYTES:
                        self._missing_bytes = end - size
                    break
                if skip and (kind == p.BIND_COMPLETE or kind == p.PARSE_COMPLETE):
                    answer.parses += kind == p.PARSE_COMPLETE
                    at = end
                    continue
                if kind == p.DATA_ROW:
                    if collect:
                        answer.rows[-1].append(data[at + 5 : end])
                elif kind == p.COMMAND_COMPLETE:
                    if skip:
                        skip -= 1
                        if not skip:
                            start = end
                    else:
                        answer.tags.append(data[at + 5 : end - 1])
                        answer.completions += 1
                        if collect:
                            answer.rows.append([])
                        if answer.completions == exchange.completions:
                            if exchange.cut:
                                answer.out.append(data[start:end])
                                answer.rows.append([])
                                exchange.collect = collect = True
                            elif not exchange.ready:
                                done = True
                elif kind == p.READY_FOR_QUERY:
                    answer.status = data[at + 5]
                    if exchange.ready or answer.error is not None:
                        if not skip and start < at and not collect:
                            answer.out.append(data[start:at])
                        at = start = end
                        done = True
                        break
                elif kind == p.ERROR:
                    if answer.error is None:
                        answer.error = data[at + 5 : end]
                        answer.injected_error = skip > 0 or collect
                    if not exchange.ready or (exchange.query and skip):
                        done = True
                elif kind == p.EMPTY_QUERY or kind == p.PORTAL_SUSPENDED:
                    answer.completions += 1
                    answer.tags.append(b"")
                    answer.suspended = kind == p.PORTAL_SUSPENDED
                    if answer.completions == exchange.completions:
                        if exchange.cut:
                            answer.out.append(data[start:end])
                            answer.rows.append([])
                            exchange.collect = collect = True
                        elif not exchange.ready:
                            done = True
                elif collect and kind == p.PARAMETER_DESCRIPTION:
                    answer.described = data[at + 5 : end]
                elif collect and kind == p.ROW_DESCRIPTION:
                    answer.row_description = data[at + 5 : end]
                elif kind == p.COPY_IN_RESPONSE and not skip and not collect:  # what is collected brings its data along
                    answer.copy_in = True
                    done = True
                elif kind == p.PARAMETER_STATUS:
                    passed = not skip and not collect and exchange.on_done is not None
                    self._note_parameter(data[at + 5 : end], passed)
                at = end
                if done:
                    break
            exchange.skip = skip
            if start < at and not skip and not collect:
                answer.out.append(data[start:at])
            if not done:
                if exchange.sink is not None and not skip:
                    self._stream(exchange)
                break
            self._exchanges.popleft()
            if exchange.on_done is not None:
                self._tail = data[at:]
                exchange.on_done(answer)
                if at == size:
                    return
                data = self._tail
                at, size = 0, len(data)
        self._tail = data[at:] if at < size else b""

    def _note_parameter(self, body: bytes, passed: bool) -> None:
        name, value, _ = body.split(b"\x00")
        if passed or name not in self.parameters:  # new: reported when the connection began
            self.passed_parameters[name] = value
        self.parameters[name] = value

    def untold_parameters(self) -> list[bytes]:
        """ParameterStatus messages for settings that changed without the client's being told; it is told now."""
        changed = [n for n, value in self.parameters.items() if self.passed_parameters[n] != value]
        self.passed_parameters.update(self.parameters)
        return [p.message(b"S", n + b"\x00" + self.parameters[n] + b"\x00") for n in changed]

    def _stream(self, exchange: _Exchange) -> None:
        answer = exchange.answer
        if sum(map(len, answer.out)) > STREAM_THRESHOLD_BYTES:
            assert exchange.sink is not None
            exchange.sink(b"".join(answer.out))
            answer.out.clear()
            answer.streamed = True

    # -- sending ---------------------------------------------------------------------------------------------

    def relay(
        self,
        batch: bytes,
        *,
        skip: int,
        completions: int,
        ready: bool,
        on_done: Callable[[Answer], None] | None,
        sink: Callable[[bytes], None] | None = None,
        cut: bool = False,
        query: bool = False,
    ) -> None:
        """Send ``batch``. The first ``skip`` completions are dropped; the rest passes through.

        Done at ReadyForQuery where ``ready``, else after ``completions`` completed statements. An error ends it too;
        unless ``ready`` the caller then owes the engine a Sync. With ``cut`` what follows the client's ``completions``
        is the machinery's own again: nothing of it passes through, its rows are collected. ``query``: the client's
        part is a Query message; an error in front of it makes the engine ignore it, and the caller owes a Sync.
        """
        self._send(_Exchange(skip, completions, ready, False, on_done, sink, cut, query), batch)
        if self._tail:
            # An answer that came before anyone asked: an error in the middle of COPY data.
            asyncio.get_running_loop().call_soon(self._read_tail)

    def collect(self, batch: bytes, on_done: Callable[[Answer], None], skip: int = 0) -> None:
        """Send a batch that ends with Sync or a Query; ``rows`` of the answer gets a list for each statement."""
        exchange = _Exchange(skip, 0, True, True, on_done, None)
        exchange.answer.rows.append([])
        self._send(exchange, batch)

    def discard(self, batch: bytes) -> None:
        """Send a batch that ends with Sync, and drop its answer."""
        self._send(_Exchange(0, 0, True, False, None, None), batch)

    def _send(self, exchange: _Exchange, batch: bytes) -> None:
        if self.closed:
            # Answered later: who sends isn't waiting yet.
            asyncio.get_running_loop().call_soon(exchange.fail)
            return
        self._exchanges.append(exchange)
        self._transport.write(batch)

    def _read_tail(self) -> None:
        if self._tail and not self._missing_bytes:
            self.data_received(b"")

    def write(self, data: bytes) -> None:
        """Send more of the exchange that is under way (COPY data)."""
        self._transport.write(data)

    def wait_writable(self, resume: Callable[[Any], None]) -> bool:
        """Whether the engine is behind with what was written to it; ``resume`` is then called when it has caught up."""
        if self._congested and not self.closed:
            self._on_writable = resume
            return True
        return False

    def close(self) -> None:
        """Tell the engine goodbye and close."""
        if not self.closed and self._transport is not None:
            self.on_lost = None
            self._transport.write(p.message(b"X", b""))
            self._transport.close()

    def finish(self, on_lost: Callable[[], None]) -> None:
        """Tell the engine goodbye; ``on_lost`` is called once it has left, with everything that was under way done."""
        self.on_lost = on_lost
        self._transport.write(p.message(b"X", b""))

    # -- statements of our own -------------------------------------------------------------------------------

    def statement(self, sql: str, parameter_oids: tuple[int, ...] = ()) -> tuple[bytes, bytes]:
        """The name under which this engine connection knows ``sql``, and the Parse to send first (or nothing)."""
        key = f"{parameter_oids} {sql}" if parameter_oids else sql
        name = self._names.get(key)
        if name is not None:
            return name, b""
        if len(self._names) >= STATEMENTS_MAX:
            # The engine keeps the old ones until the session ends; their names are never used again.
            self._names.clear()
        name = OWN_STATEMENT_PREFIX + b"%d" % self._next_name
        self._next_name += 1
        self._names[key] = name
        self._unconfirmed.append(key)
        return name, p.parse(name, sql.encode(), parameter_oids)

    def confirm_statements(self) -> None:
        """The batch succeeded: what it prepared is there."""
        if self._unconfirmed:
            self._unconfirmed.clear()

    def forget_statements(self) -> None:
        """The batch failed: its Parse messages may not have run, so their names aren't trusted any more."""
        for sql in self._unconfirmed:
            self._names.pop(sql, None)
        self._unconfirmed.clear()

    def outdate_statements(self) -> None:
        """The catalog changed: what is prepared may name another table, or parameters of other types, by now.

        The engine keeps the old ones until the session ends; their names are never used again.
        """
        self._names.clear()
        self._unconfirmed.clear()

    # -- for tasks -------------------------------------------------------------------------------------------

    async def execute(self, sql: str) -> Answer:
        """Run SQL text by the simple protocol; rows are in text format.

        Raises EngineError, or EngineGone if the engine closed the connection.
        """
        return await self.run(p.query(sql))

    async def run(self, batch: bytes) -> Answer:
        """Send a batch that ends with Sync or a Query and wait for all of its answer."""
        if self.closed:
            raise EngineGone
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.collect(batch, lambda answer: None if future.done() else future.set_result(answer))
        answer = await future
        if answer.error is _GONE_BODY:
            raise EngineGone(answer.last_words)
        if answer.error is not None:
            raise EngineError(answer.error)
        return answer


_GONE_BODY = b"SFATAL\x00VFATAL\x00CXX000\x00Mserver unavailable\x00\x00"


async def connect_engine(
    socket_path: str, user: str, database: str, settings: dict[str, str] | None = None
) -> EngineConnection:
    """Open a connection to the engine at ``socket_path`` and wait until it is ready.

    Raises EngineError with the engine's refusal, EngineGone if it gave no reason, OSError if there is no engine.
    """
    loop = asyncio.get_running_loop()
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.setblocking(False)
    try:
        await loop.sock_connect(connected, socket_path)
    except BaseException:
        connected.close()
        raise
    connection = EngineConnection()
    connection.connection_made(SocketTransport(loop, connected, connection))
    values = {"user": user, "database": database, "client_encoding": "UTF8", **(settings or {})}
    body = p.pack_i32(196608) + b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in values.items()) + b"\0"
    try:
        await connection.run(p.pack_i32(len(body) + 4) + body)
    except EngineGone as gone:
        if gone.last_words is None:
            raise
        raise EngineError(gone.last_words) from None
    return connection
