"""Rows as a snapshot sees them, read many at a time out of a database's versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsql_server import compiled
from dsql_server.interfaces.messages import Timestamp
from dsql_server.storage import entries, rocks
from dsql_server.storage.columns import PADDING, Integers, visible_places
from dsql_server.storage.entries import VERSION_BYTES, Entries

TIMESTAMP_MAX = 2**64 - 1


class VisibleRun(NamedTuple):
    """The visible versions of some keys in order."""

    stored: bytes  #: one behind the other, each with its tag, and PADDING
    lengths: Sequence[int] | NDArray[Any]  #: of these values and perhaps of others among them
    places: Integers  #: which of the values are visible; tombstones may be among them
    examined: int  #: versions read
    changed: Timestamp | None  #: the first change of one of the keys behind the snapshot


class VisibleRows:
    """A database's rows in order: goes on where it stopped, and looks anew once somebody has written."""

    def __init__(self, database: rocks.Database, end: bytes) -> None:
        """``end`` is physical: no entry from there on is read."""
        self._database = database
        self._entries = Entries(database, end)
        self._options = rocks.sweeping_read(end)
        self._iterator: Iterator[tuple[bytes, bytes]] = iter(())
        self._sequence: int | None = None  #: the database's last write that the iterator sees
        self._position = b""
        self._pending: tuple[bytes, bytes] | None = None  #: fetched, but behind what was taken

    def take(self, start: bytes, limit: bytes, entries_max: int | None, t: Timestamp) -> tuple[VisibleRun, bytes]:
        """The rows of start <= key < end as of ``t``, and that end.

        It is ``limit``, or where so many entries were read, or RUN_BYTES_MAX: in front of a key, which is never cut
        in two. Without ``entries_max`` it is ``limit``.
        """
        newest = (TIMESTAMP_MAX - t).to_bytes(VERSION_BYTES, "big")
        if compiled.storage is None:
            run, end = self._entries.take(start, limit, entries_max)
            places, later = visible_places(run.keys, run.key_lengths, newest)
            changed = None if later is None else TIMESTAMP_MAX - later
            return VisibleRun(run.values(PADDING), run.value_lengths, places, len(run), changed), end
        sequence = self._database.latest_sequence_number()
        if start != self._position or sequence != self._sequence:
            self._iterator = self._database.items(False, start, self._options)
            self._sequence, self._pending = sequence, None
        no_limit = entries_max is None
        stored, sizes, examined, version, ended, self._pending = compiled.storage.visible_run(
            self._iterator,
            self._pending,
            start,
            limit,
            newest,
            -1 if no_limit else entries_max,
            -1 if no_limit else entries.RUN_BYTES_MAX,
        )
        lengths = np.frombuffer(sizes, np.uint32)
        changed = None if version is None else TIMESTAMP_MAX - int.from_bytes(version, "big")
        self._position = limit if ended is None else ended
        return VisibleRun(stored, lengths, np.arange(len(lengths)), examined, changed), self._position
