"""Questions to a running server, one line of JSON each, from the process that started it.

``{"command": "metrics"}``, ``{"command": "recent_transactions"}`` and ``{"command": "trace", "transaction_id": HEX}``
on stdin are answered on stdout with ``{"result": …}`` or ``{"error": TEXT}``. When stdin ends, its other end is gone,
and the server stops: a test run that was killed leaves no server behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsql_server.cluster.server import Server

READ_BYTES = 65_536
LINE_BYTES_MAX = 65_536


class LineBuffer:
    """Cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete with ``data``, without their ends.

        :raises ValueError: a line grows past LINE_BYTES_MAX.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            raise ValueError(f"a line is longer than {LINE_BYTES_MAX} bytes")
        return lines


def answer(server: Server, line: bytes) -> bytes:
    """The answer to one line, as a line; a question that makes no sense is answered with an error."""
    try:
        question = json.loads(line)
        command = question["command"]
        result: object
        if command == "metrics":
            result = server.metrics()
        elif command == "recent_transactions":
            result = [transaction_id.hex() for transaction_id in server.recent_transactions()]
        elif command == "trace":
            result = server.trace(bytes.fromhex(question["transaction_id"]))
        else:
            raise ValueError(f"there is no command {command!r}")
        text = json.dumps({"result": result}, default=_plain)
    except (ValueError, KeyError, TypeError) as error:
        text = json.dumps({"error": f"{type(error).__name__}: {error}"})
    return text.encode() + b"\n"


def serve_control(server: Server) -> None:
    """Answer questions on this process's stdin from the running event loop, between its other work."""
    loop = asyncio.get_running_loop()
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    buffer = LineBuffer()

    def on_readable() -> None:
        data = os.read(source, READ_BYTES)
        if not data:
            loop.remove_reader(source)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        for line in buffer.feed(data):
            reply = answer(server, line)
            while reply:
                reply = reply[os.write(sink, reply) :]

    loop.add_reader(source, on_readable)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} is not a plain value")
