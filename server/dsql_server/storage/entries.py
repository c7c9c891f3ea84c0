"""Entries of a database, read many at a time and joined to few buffers while the processor has them in its cache."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice

from dsql_server.storage import rocks

VERSION_BYTES = 8
#: Entries that are fetched before they are joined: the first time, twice as many each time, and at most.
FIRST_PIECE_ENTRIES = 16
PIECE_ENTRIES = 512
#: A run with so many bytes of values ends, however few its entries are.
RUN_BYTES_MAX = 8 * 1024 * 1024


class Run:
    """Some entries in order: physical keys and stored values, joined, with the length of each."""

    __slots__ = ("_keys", "_values", "key_lengths", "size_bytes", "value_lengths")

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self.key_lengths: list[int] = []
        self.value_lengths: list[int] = []
        self.size_bytes = 0  #: of the values

    def __len__(self) -> int:
        return len(self.key_lengths)

    def add(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Take in further entries."""
        self._keys.append(b"".join(keys))
        self._values.append(b"".join(values))
        self.size_bytes += len(self._values[-1])
        self.key_lengths += map(len, keys)
        self.value_lengths += map(len, values)

    @property
    def keys(self) -> bytes:
        """All physical keys, one behind the other."""
        return b"".join(self._keys)

    def values(self, padding: bytes) -> bytes:
        """All values, one behind the other, and the padding behind them."""
        return b"".join((*self._values, padding))


class Entries:
    """A database's entries in order: goes on where it stopped, and looks anew once somebody has written."""

    def __init__(self, database: rocks.Database, end: bytes) -> None:
        """``end`` is physical: no entry from there on is read."""
        self._database = database
        self._options = rocks.sweeping_read(end)
        self._piece_entries = FIRST_PIECE_ENTRIES
        self._iterator: Iterator[tuple[bytes, bytes]] = iter(())
        self._sequence: int | None = None  #: the database's last write that the iterator sees
        self._position = b""
        #: Fetched, but behind what was taken.
        self._keys: Sequence[bytes] = ()
        self._values: Sequence[bytes] = ()

    def take(self, start: bytes, limit: bytes, entries_max: int | None) -> tuple[Run, bytes]:
        """The entries of start <= key < end, and that end.

        It is ``limit``, or where ``entries_max`` or RUN_BYTES_MAX are reached: in front of a key, which is never cut
        in two. Without ``entries_max`` it is ``limit``.
        """
        self._seek(start)
        run = Run()
        while self._keys or self._fetch():
            left = None if entries_max is None else entries_max - len(run) if run.size_bytes < RUN_BYTES_MAX else 0
            cut, end = self._cut(start, limit, left)
            first = 0
            # A key that the start prolongs: its versions may sort behind the start.
            while first < cut and self._keys[first][:-VERSION_BYTES] < start:
                first += 1
            run.add(self._keys[first:cut], self._values[first:cut])
            self._keys, self._values = self._keys[cut:], self._values[cut:]
            if end is not None:
                break
        else:
            end = limit
        self._position = end
        return run, end

    def _cut(self, start: bytes, limit: bytes, entries_max: int | None) -> tuple[int, bytes | None]:
        """How many of the fetched entries to take; and where the run ends, if it ends with them."""
        keys = self._keys
        last = keys[-1][:-VERSION_BYTES]
        if last >= limit:
            return bisect_left(keys, limit, key=_without_version), limit
        if entries_max is not None and len(keys) >= entries_max and last > start:
            # The last key's versions may go on: the next run begins with them, unless this one has got some already.
            begin_of_last = bisect_left(keys, last, key=_without_version)
            if begin_of_last:
                return begin_of_last, last
        return len(keys), None

    def _seek(self, start: bytes) -> None:
        sequence = self._database.latest_sequence_number()
        if start == self._position and sequence == self._sequence:
            return
        self._keys, self._values = (), ()
        self._iterator = self._database.items(False, start, self._options)
        self._sequence = sequence

    def _fetch(self) -> bool:
        """Whether there are further entries."""
        pairs = list(islice(self._iterator, min(self._piece_entries, PIECE_ENTRIES)))
        self._piece_entries *= 2
        if not pairs:
            return False
        self._keys, self._values = zip(*pairs, strict=True)
        return True


def _without_version(physical: bytes) -> bytes:
    return physical[:-VERSION_BYTES]
