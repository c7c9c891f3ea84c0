"""The newest versions of keys that were written lately, or read a few together: both are often read next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from dsql_server import compiled
from dsql_server.interfaces.messages import Mutation, Timestamp

#: How many keys are remembered at most, and how long a value may be, in bytes.
KEYS_MAX = 8192
VALUE_BYTES_MAX = 1024
#: A larger transaction is rather a load than something that is read next.
MUTATIONS_MAX = 256
#: How many keys that are read together are a page of rows: one alone is read as fast from the database, and more would
#: leave no room for others.
READS_MIN, READS_MAX = 4, 128


class RecentVersions:
    """The newest version by key. A snapshot at or behind it sees just that; one before it needs the database.

    Nodes may share it: each notes keys of its own.
    """

    __slots__ = ("find", "newest")

    def __init__(self) -> None:
        #: T_commit, or a later time from which on it is known, and value (None: deleted) by key; never another object
        self.newest: dict[bytes, tuple[Timestamp, bytes | None]] = {}
        #: the same of one key; None where it isn't remembered
        self.find = self.newest.get

    def values(self, keys: Sequence[bytes], t: Timestamp) -> tuple[list[bytes | None], list[int]]:
        """The values as of ``t``, in the keys' order, and the places of those that aren't known here."""
        return _values(self.newest, keys, t)

    def note(self, batch: Sequence[tuple[Timestamp, Sequence[Mutation]]], applied_up_to: Timestamp) -> None:
        """Take in transactions that were applied, in order of T_commit.

        ``applied_up_to``: the greatest T_commit before. What isn't newer is applied again, perhaps behind a newer one.
        """
        newest = self.newest
        for t, mutations in batch:
            if len(mutations) > MUTATIONS_MAX:
                newest.clear()
                continue
            for key, value in mutations:
                if t > applied_up_to and (value is None or len(value) <= VALUE_BYTES_MAX):
                    newest[key] = t, value
                else:
                    newest.pop(key, None)
        self._make_room()

    def note_read(self, keys: Sequence[bytes], values: Sequence[bytes | None], applied_up_to: Timestamp) -> None:
        """Take in what was read as of a time when nothing newer than ``applied_up_to`` had been applied."""
        if not READS_MIN <= len(keys) <= READS_MAX:
            return
        newest = self.newest
        for key, value in zip(keys, values, strict=True):
            if value is not None and len(value) <= VALUE_BYTES_MAX:
                newest[key] = applied_up_to, value
        self._make_room()

    def _make_room(self) -> None:
        newest = self.newest
        if len(newest) > KEYS_MAX:
            for key in list(islice(newest, KEYS_MAX // 2)):
                del newest[key]


def _remembered(
    newest: dict[bytes, tuple[Timestamp, bytes | None]], keys: Sequence[bytes], t: Timestamp
) -> tuple[list[bytes | None], list[int]]:
    """See :meth:`RecentVersions.values`."""
    values: list[bytes | None] = []
    unknown: list[int] = []
    for key in keys:
        found = newest.get(key)
        if found is not None and found[0] <= t:
            values.append(found[1])
        else:
            unknown.append(len(values))
            values.append(None)
    return values, unknown


_values = _remembered if compiled.storage is None else compiled.storage.remembered
