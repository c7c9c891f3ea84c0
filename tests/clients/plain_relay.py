"""A port without TLS in front of a cluster, for programs that were built without TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from types import TracebackType

from dsql_server.testing import LocalCluster

_CHUNK_BYTES = 64 * 1024


class PlainRelay:
    """Listens on a free local port while it is open; what connects there speaks to the cluster inside TLS."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._context = ssl.create_default_context(cafile=cluster.ca_file)
        self._context.set_alpn_protocols(["postgresql"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> PlainRelay:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            raw = socket.create_connection((self._cluster.host, self._cluster.port))
            server = self._context.wrap_socket(raw, server_hostname=self._cluster.endpoint)
            self._connections += [client, server]
            for source, target in ((client, server), (server, client)):
                thread = threading.Thread(target=self._copy, args=(source, target))
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
