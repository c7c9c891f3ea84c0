"""The thread that writes one copy of a journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple

from dsql_server.journal.segments import open_segment, write_all


class Write(NamedTuple):
    """Bytes of one or more records that lie together, for one place in one segment."""

    sequence: int  #: the last record in ``data``
    segment: int
    offset: int
    data: bytes


class CopyWriter:
    """Writes what it is given in order: one ``pwrite`` and one ``fdatasync`` for each :class:`Write`.

    ``durable`` is the last sequence this copy has on disk. After an error the copy has failed for good and writes no
    more: what the kernel dropped at a failed sync can't be found out, so nothing may be written behind it.
    """

    def __init__(self, directory: Path, durable: int, on_progress: Callable[[], None]) -> None:
        """``on_progress`` is called on the writer's thread after each write, and when the copy fails."""
        self.directory = directory
        self.durable = durable
        self.failure = ""
        self.syncs = 0
        self._on_progress = on_progress
        self._queue: SimpleQueue[Write | None] = SimpleQueue()
        self.put = self._queue.put
        self._thread = Thread(target=self._run, name=f"journal {directory.parent.name}/{directory.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what has been put, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        descriptor = -1
        current = -1
        get = self._queue.get
        pwrite = os.pwrite
        fdatasync = os.fdatasync
        try:
            while (write := get()) is not None:
                if self.failure:
                    continue
                sequence, segment, offset, data = write
                try:
                    if segment != current:
                        if descriptor >= 0:
                            os.close(descriptor)
                            descriptor = -1
                        descriptor = open_segment(self.directory, segment)
                        current = segment
                    if pwrite(descriptor, data, offset) != len(data):
                        write_all(descriptor, data, offset)
                    fdatasync(descriptor)
                except OSError as error:
                    self.failure = f"{self.directory}: {error.strerror}"
                else:
                    self.syncs += 1
                    self.durable = sequence
                self._on_progress()
        finally:
            if descriptor >= 0:
                os.close(descriptor)
