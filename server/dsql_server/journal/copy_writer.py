"""What writes one copy of a journal: by the kernel where it can, by a thread elsewhere."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple, Protocol

from dsql_server.journal.kernel_sync import KernelSync
from dsql_server.journal.segments import open_segment, write_all


class Write(NamedTuple):
    """Bytes of one or more records that lie together, for one place in one segment."""

    sequence: int  #: the last record in ``data``
    segment: int
    offset: int
    data: bytes


class CopyWriter(Protocol):
    """Writes what it is given in order. ``durable`` is the last sequence this copy has on disk.

    After an error the copy has failed for good and writes no more: what the kernel dropped at a failed sync can't be
    found out, so nothing may be written behind it.
    """

    directory: Path
    durable: int
    failure: str
    syncs: int

    def put(self, write: Write) -> None:
        """Write it; where the kernel syncs, :meth:`KernelSync.submit` has to follow."""
        ...

    def close(self) -> None:
        """Finish what has been put."""
        ...


class KernelCopyWriter:
    """Writes on the event loop (into the page cache) and has the kernel sync. What comes meanwhile goes out together.

    ``on_progress`` is called on the loop's thread after each sync, and when the copy fails.
    """

    def __init__(self, directory: Path, durable: int, on_progress: Callable[[], None], sync: KernelSync) -> None:
        self.directory = directory
        self.durable = durable
        self.failure = ""
        self.syncs = 0
        self._on_progress = on_progress
        self._sync = sync
        self._waiting: deque[Write] = deque()
        self._syncing = -1  #: the sequence that is durable with the sync under way; -1: none is
        self._descriptor = -1
        self._segment = -1

    def put(self, write: Write) -> None:
        if self._syncing >= 0:
            self._waiting.append(write)
        elif not self.failure:
            self._write([write])

    def close(self) -> None:
        while self._syncing >= 0 and self._sync.wait():
            pass
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, writes: list[Write]) -> None:
        """Write what belongs to one segment, and sync it."""
        try:
            for _, segment, offset, data in writes:
                if segment != self._segment:
                    if self._descriptor >= 0:
                        os.close(self._descriptor)
                        self._descriptor = -1
                    self._descriptor = open_segment(self.directory, segment)
                    self._segment = segment
                if os.pwrite(self._descriptor, data, offset) != len(data):
                    write_all(self._descriptor, data, offset)
            self._syncing = writes[-1].sequence
            self._sync.fdatasync(self._descriptor, self._synced)
        except OSError as error:
            # Told later: whoever put the write is still in the middle of it.
            self._fail(error.strerror or str(error), later=True)

    def _synced(self, error: int) -> None:
        if error:
            self._fail(os.strerror(error))
            return
        self.syncs += 1
        self.durable = self._syncing
        self._syncing = -1
        waiting = self._waiting
        if waiting:
            segment = waiting[0].segment
            writes = []
            while waiting and waiting[0].segment == segment:
                writes.append(waiting.popleft())
            self._write(writes)
        self._on_progress()

    def _fail(self, reason: str, later: bool = False) -> None:
        self._syncing = -1
        self._waiting.clear()
        self.failure = f"{self.directory}: {reason}"
        if later:
            self._sync.loop.call_soon(self._on_progress)
        else:
            self._on_progress()


class ThreadedCopyWriter:
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
