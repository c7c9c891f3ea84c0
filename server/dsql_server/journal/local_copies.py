"""The three copies of a journal in local directories, one for each zone."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Thread

from dsql_server.journal.copy_writer import CopyWriter, KernelCopyWriter, ThreadedCopyWriter, Write
from dsql_server.journal.kernel_sync import KernelSync
from dsql_server.journal.record import previous_digest_of
from dsql_server.journal.recovery import RecoveredJournal, read_records
from dsql_server.journal.segments import (
    SEGMENT_BYTES_MAX,
    SegmentHeader,
    encode_segment_header,
    padded,
    prepare_segment,
    segment_bytes,
    segment_path,
)

#: Records that two copies don't have after this long are the third copy's to save: one of the two stalls.
STALL_S = 0.01
#: How long a record of the only session is waited for where it was written, in ns: as fast as a disk may be.
BRIEF_WAIT_NS = 200_000
#: Otherwise the third copy gathers records for this many times as long and writes them as one: a sync costs the
#: processor as much for one record as for all of them.
FOLLOW_STALLS_MAX = 5
#: How many bytes of records the third copy gathers at most before it writes them.
FOLLOW_BYTES_MAX = 1024 * 1024


class LocalCopies:
    """Writes every record to two copies at once and to the third right behind.

    Two parallel syncs are faster than three, and the third copy can sync many records as one. When one of the two
    stalls, the third overtakes it; when one fails, the third takes its place: any two copies make a record durable.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        recovered: RecoveredJournal,
        loop: asyncio.AbstractEventLoop,
        first_pair: int = 0,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        gathered: Callable[[Callable[[int], None]], Callable[[int], None]] = lambda tell: tell,
    ) -> None:
        """``first_pair``: which copies are written at once, (0, 1), (1, 2) or (2, 0); journals should differ in it.

        ``gathered`` makes a callback send its messages together.
        """
        assert len(directories) == 3, "a journal has three copies"
        self.directories = tuple(directories)
        self._loop = loop
        self._leaders = (first_pair % 3, (first_pair + 1) % 3)
        self._follower: int | None = (first_pair + 2) % 3  # none once it has taken a failed copy's place
        self._segment_bytes_max = segment_bytes_max
        self._segment = recovered.segment
        self._offset = recovered.offset
        self._segment_end = recovered.segment_bytes
        self._sequence = recovered.tail.sequence
        self._segment_firsts = dict(recovered.segment_firsts)
        self._durable = self._sequence
        self._behind: deque[Write] = deque()  # for the follower
        self._behind_bytes = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._ticks = 0  # since the follower last wrote
        self._gathered = gathered
        self._on_durable: Callable[[int], None] | None = None
        self._on_failure: Callable[[str], None] | None = None
        self._failed = False
        self._preparing: Thread | None = None
        self._submit: Callable[[], None] = _nothing  #: begins the syncs of what was put to the writers
        #: Whether the kernel's workers come first, as long as nobody else waits for the event loop.
        self.gives_way = False
        self._stop = Event()
        self._writers: tuple[CopyWriter, ...] = ()
        self._kernel: KernelSync | None = None

    # -- the interface of JournalCopies -------------------------------------------------------------------------------

    def open(self, on_durable: Callable[[int], None], on_failure: Callable[[str], None]) -> None:
        self._on_durable = self._gathered(on_durable)
        self._on_failure = on_failure
        self._writers = self._make_writers()
        first, second = self._leaders
        self._put_first = self._writers[first].put
        self._put_second = self._writers[second].put
        self._prepare_next()

    def _make_writers(self) -> tuple[CopyWriter, ...]:
        try:
            kernel = self._kernel = KernelSync(self._loop)
            self._submit = kernel.submit
        except OSError:
            return tuple(ThreadedCopyWriter(d, self._sequence, self._progress) for d in self.directories)
        return tuple(KernelCopyWriter(d, self._sequence, self._on_progress, kernel) for d in self.directories)

    def write(self, sequence: int, record: bytes) -> None:
        size = padded(len(record))
        data = record.ljust(size, b"\0")
        if self._offset + size > self._segment_end:
            data = self._next_segment(sequence, record) + data
        write = Write(sequence, self._segment, self._offset, data)
        self._put_first(write)
        self._put_second(write)
        self._submit()
        if self.gives_way:
            os.sched_yield()
        self._offset += len(data)
        self._sequence = sequence
        if self._follower is None:
            return
        self._behind.append(write)
        self._behind_bytes += len(data)
        if self._ticker is None:
            self._ticker = self._loop.call_later(STALL_S, self._tick)
        elif self._behind_bytes > FOLLOW_BYTES_MAX:
            self._follow()

    def read(self, from_sequence: int) -> Iterator[bytes]:
        return read_records(self.directories, from_sequence)

    def trim(self, below_sequence: int) -> None:
        """Remove segments that hold only records below ``below_sequence``; never the segment in use."""
        # A copy that lags must not find its segment gone.
        below_sequence = min([below_sequence, *(writer.durable + 1 for writer in self._writers if not writer.failure)])
        numbers = sorted(self._segment_firsts)
        for number, following in itertools.pairwise(numbers):
            if self._segment_firsts[following] > below_sequence:
                break
            for directory in self.directories:
                segment_path(directory, number).unlink(missing_ok=True)
            del self._segment_firsts[number]

    # -- beside the interface -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what is left to all copies, tell of it, and end all threads."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        self._follow()
        for writer in self._writers:
            writer.close()
        if self._kernel is not None:
            self._kernel.close()
        self._stop.set()
        if self._preparing is not None:
            self._preparing.join()
        self._on_progress()

    def give_way(self) -> bool:
        """Whoever works on while a record is being synced should call it every ten microseconds or so, and stop when it
        says True: what was being synced is durable then, and that has been told.

        A sync is a write and a flush. The kernel's worker that waits for the one to begin the other runs on the same
        processor as the event loop, and would wait for that, too.
        """
        if not self.gives_way or self._kernel is None:
            return False
        os.sched_yield()
        return self._kernel.take_all()

    def wait_briefly(self) -> None:
        """Take in what becomes durable in a moment, if nobody else waits for the event loop."""
        if self.gives_way and self._kernel is not None:
            self._kernel.take_all(BRIEF_WAIT_NS)

    def metrics(self) -> list[dict[str, object]]:
        """One row for each copy: where it is, how many syncs it did, how far it is, what made it fail."""
        return [
            {
                "copy": writer.directory.parent.name,
                "fdatasyncs": writer.syncs,
                "durable": writer.durable,
                "failure": writer.failure,
            }
            for writer in self._writers
        ]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _next_segment(self, sequence: int, record: bytes) -> bytes:
        """Go on in a new segment; returns its header."""
        self._segment += 1
        self._offset = 0
        self._segment_end = segment_bytes(self._segment, self._segment_bytes_max)
        self._segment_firsts[self._segment] = sequence
        self._prepare_next()
        return encode_segment_header(SegmentHeader(self._segment, sequence, previous_digest_of(record)))

    def _prepare_next(self) -> None:
        """Have the segment after this one written full of zeroes, on a thread of its own."""
        if self._preparing is not None and self._preparing.is_alive():
            return  # the writers create the next segment themselves if it comes to that
        number = self._segment + 1
        self._preparing = Thread(target=self._prepare, args=(number,), name=f"journal segment {number}", daemon=True)
        self._preparing.start()

    def _prepare(self, number: int) -> None:
        for directory in self.directories:
            try:
                if not segment_path(directory, number).exists():
                    prepare_segment(directory, number, segment_bytes(number, self._segment_bytes_max), self._stop)
            except OSError:
                pass  # the copy's writer meets the same error, and reports it

    def _tick(self) -> None:
        self._ticks += 1
        behind = self._behind
        if not behind or behind[0].sequence > self._durable or self._ticks >= FOLLOW_STALLS_MAX:
            self._ticker = None
            self._ticks = 0
            self._follow()
        else:
            self._ticker = self._loop.call_later(STALL_S, self._tick)

    def _follow(self) -> None:
        """Hand what the third copy lacks to its writer, as few writes."""
        behind = self._behind
        if self._follower is None:
            return
        put = self._writers[self._follower].put
        while behind:
            sequence, segment, offset, data = behind.popleft()
            parts = [data]
            while behind and behind[0].segment == segment:
                sequence = behind[0].sequence
                parts.append(behind.popleft().data)
            put(Write(sequence, segment, offset, b"".join(parts)))
            self._submit()
        self._behind_bytes = 0

    def _progress(self) -> None:
        """On a writer's thread: wake the event loop if there is news for it."""
        writers = self._writers
        quorum = sorted([writer.durable for writer in writers])[1]
        if quorum > self._durable or writers[0].failure or writers[1].failure or writers[2].failure:
            self._loop.call_soon_threadsafe(self._on_progress)

    def _on_progress(self) -> None:
        writers = self._writers
        quorum = sorted([writer.durable for writer in writers])[1]
        if quorum > self._durable:
            self._durable = quorum
            assert self._on_durable is not None
            self._on_durable(quorum)
        if writers[0].failure or writers[1].failure or writers[2].failure:
            self._on_copy_failed([writer.failure for writer in writers if writer.failure])

    def _on_copy_failed(self, failures: list[str]) -> None:
        first, second = self._leaders
        if self._follower is not None and (self._writers[first].failure or self._writers[second].failure):
            self._follow()
            healthy = second if self._writers[first].failure else first
            self._leaders = (healthy, self._follower)
            self._put_first = self._writers[healthy].put
            self._put_second = self._writers[self._follower].put
            self._follower = None
        if len(failures) >= 2 and not self._failed:
            self._failed = True
            assert self._on_failure is not None
            self._on_failure("fewer than two copies can be written: " + "; ".join(failures))


def _nothing() -> None:
    """Threads sync by themselves."""
