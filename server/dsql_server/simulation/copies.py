"""The copies of a journal on simulated disks, which take their time, stall, and lose what they haven't synced."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from dsql_server.journal.record import JournalTail, decode_own_record, decode_record
from dsql_server.simulation.virtual_time import VirtualTime

SYNC_MIN_US = 100
SYNC_MEAN_US = 100  #: above the minimum
#: A stalled disk takes this long for a sync.
STALL_US = 200_000


class SimulatedDisk:
    """One copy: what is synced survives a crash, of what isn't a part may."""

    def __init__(self) -> None:
        self.synced: list[bytes] = []
        self.unsynced: list[bytes] = []
        self.stalled = False


class SimulatedCopies:
    """Implements JournalCopies on three disks. The disks outlive it: :meth:`restart` hands them to a successor."""

    def __init__(self, time: VirtualTime, seed: int, disks: list[SimulatedDisk] | None = None) -> None:
        self.disks = disks or [SimulatedDisk() for _ in range(3)]
        self._time = time
        self._random = random.Random(seed)  # noqa: S311 (a simulation must be repeatable)
        self._base = len(self.disks[0].synced)
        self._durable = self._base
        self._syncing = [False, False, False]
        self._crashed = False
        self._on_durable: Callable[[int], None] | None = None

    def open(self, on_durable: Callable[[int], None], on_failure: Callable[[str], None]) -> None:
        self._on_durable = on_durable

    def write(self, sequence: int, record: bytes) -> None:
        for index, disk in enumerate(self.disks):
            assert len(disk.synced) + len(disk.unsynced) == sequence - 1, "records are written in order"
            disk.unsynced.append(record)
            self._sync(index)

    def read(self, from_sequence: int) -> Iterator[bytes]:
        """From whichever disk has synced most: everything two disks have is on it."""
        longest = max(self.disks, key=lambda disk: len(disk.synced))
        return iter(longest.synced[from_sequence - 1 : self._durable])

    def trim(self, below_sequence: int) -> None:
        """Simulations keep everything: the check reads the journals from the start."""

    def crash(self) -> tuple[SimulatedCopies, JournalTail]:
        """Stop at once, recover from the disks; returns the successor and where it goes on."""
        self._crashed = True
        for disk in self.disks:
            survived = self._random.randint(0, len(disk.unsynced))
            disk.synced += disk.unsynced[:survived]
            disk.unsynced = []
        longest = max((disk.synced for disk in self.disks), key=len)
        for disk in self.disks:
            assert disk.synced == longest[: len(disk.synced)], "copies differ"
            disk.synced = list(longest)
        return SimulatedCopies(self._time, self._random.getrandbits(32), self.disks), _tail(longest)

    def _sync(self, index: int) -> None:
        disk = self.disks[index]
        if self._syncing[index] or not disk.unsynced:
            return
        self._syncing[index] = True
        delay_us = SYNC_MIN_US + self._random.expovariate(1.0) * SYNC_MEAN_US
        if disk.stalled:
            delay_us += STALL_US
        count = len(disk.unsynced)
        self._time.call_in_ns(int(delay_us * 1000), lambda: self._synced(index, count))

    def _synced(self, index: int, count: int) -> None:
        if self._crashed:
            return
        disk = self.disks[index]
        disk.synced += disk.unsynced[:count]
        del disk.unsynced[:count]
        self._syncing[index] = False
        self._sync(index)
        durable = sorted(len(disk.synced) for disk in self.disks)[1]
        if durable > self._durable:
            self._durable = durable
            assert self._on_durable is not None
            self._on_durable(durable)


def _tail(records: list[bytes]) -> JournalTail:
    """Verifies the whole chain."""
    tail = JournalTail(epoch=1)
    for data in records:
        record = decode_record(data, 0, tail.sequence + 1, tail.digest)
        assert record is not None, f"record {tail.sequence + 1} doesn't continue the chain"
        t_last = record.transactions[-1].t_commit if record.transactions else tail.t_last
        tail = JournalTail(record.epoch, record.sequence, record.digest, t_last)
    return tail


def read_all(disk: SimulatedDisk) -> list[bytes]:
    """All synced records, each verified."""
    for data in disk.synced:
        decode_own_record(data)
    return disk.synced
