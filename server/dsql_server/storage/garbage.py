"""Which versions nobody can read any more: those superseded before the horizon, and deletions that hide nothing.

No transaction reads below the horizon. Of each key the newest version at or below it is still visible; all older
ones are garbage, and so is that version itself if it is a tombstone.
"""

from __future__ import annotations

from dsql_server.interfaces.messages import Timestamp
from dsql_server.storage.rocks import Batch, Database, new_batch

_TOMBSTONE_TAG = 0


class Sweep:
    """Walks the versions of a node a little at a time, round after round, and remembers where it stopped."""

    def __init__(self) -> None:
        self._position = b""  #: the physical key to go on at
        self._key: bytes | None = None  #: the key whose versions were being looked at
        self._visible_seen = False  #: its newest version at or below the horizon has been passed
        self._tombstone: bytes | None = None  #: that version, if it is a deletion: goes only after all it hides
        self._round_horizon: Timestamp = 0  #: the lowest horizon that this round has used
        self._clean_up_to: Timestamp = -1  #: no garbage is left that a horizon up to here would find

    def is_needless(self, applied_up_to: Timestamp) -> bool:
        """Whether the last full round already saw every version there is at or below its horizon."""
        return self._position == b"" and self._clean_up_to >= applied_up_to

    def collect(self, database: Database, end: bytes, newest_kept: bytes, horizon: Timestamp, budget: int) -> Batch:
        """The deletions found among the next ``budget`` versions before physical key ``end``.

        ``newest_kept`` is the inverted horizon. The caller must write the batch.
        """
        batch = new_batch()
        delete = batch.delete
        if self._position == b"":
            self._round_horizon = horizon
        for physical, stored in database.items(False, self._position):
            if physical >= end:
                break
            key = physical[:-8]
            if key != self._key:
                self._finish_key(batch)
                self._key = key
            if budget <= 0:
                self._position = physical
                return batch
            budget -= 1
            if self._visible_seen:
                delete(physical)
            elif physical[-8:] >= newest_kept:
                self._visible_seen = True
                if stored[0] == _TOMBSTONE_TAG:
                    self._tombstone = physical
        self._finish_key(batch)
        self._key = None
        self._position = b""
        self._clean_up_to = self._round_horizon
        return batch

    def _finish_key(self, batch: Batch) -> None:
        if self._tombstone is not None:
            batch.delete(self._tombstone)
        self._tombstone = None
        self._visible_seen = False
