"""When each key was last claimed by a committed transaction, for as long as that can matter."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from dsql_server import compiled
from dsql_server.interfaces.messages import Claim, LockMode, Timestamp

#: Beyond this many remembered claims the oldest are forgotten early, and transactions from before have to retry.
RECENT_CLAIMS_MAX = 2_000_000

_UPDATE = int(LockMode.UPDATE)
_NO_KEY_UPDATE = int(LockMode.NO_KEY_UPDATE)

#: T_commit by key
_Table = dict[bytes, Timestamp]


def _conflict(
    claims: Iterable[Claim], t_start: Timestamp, updates: _Table, no_key_updates: _Table, key_shares: _Table
) -> bytes | None:
    """The first key with a conflicting claim committed after ``t_start``, or None."""
    for key, mode in claims:
        if updates.get(key, 0) > t_start:
            return key
        if mode == _UPDATE:
            if no_key_updates.get(key, 0) > t_start or key_shares.get(key, 0) > t_start:
                return key
        elif mode == _NO_KEY_UPDATE and no_key_updates.get(key, 0) > t_start:
            return key
    return None


def _record(
    claims: Iterable[Claim], t_commit: Timestamp, updates: _Table, no_key_updates: _Table, key_shares: _Table
) -> tuple[bytes, ...]:
    """Remember the claims at ``t_commit``, where none is remembered at a later time; returns their keys."""
    keys = []
    for key, mode in claims:
        table = updates if mode == _UPDATE else no_key_updates if mode == _NO_KEY_UPDATE else key_shares
        if table.get(key, 0) < t_commit:
            table[key] = t_commit
        keys.append(key)
    return tuple(keys)


_find_conflict = _conflict if compiled.commit_path is None else compiled.commit_path.conflict
_remember = _record if compiled.commit_path is None else compiled.commit_path.record


class RecentClaims:
    """The last T_commit of every key, by the mode it was claimed in.

    ``forgotten_up_to`` is the largest T_commit no longer remembered: a transaction that started before it can't be
    judged.
    """

    __slots__ = ("_claims_max", "_count", "_key_shares", "_log", "_no_key_updates", "_updates", "forgotten_up_to")

    def __init__(self, forgotten_up_to: Timestamp = 0, claims_max: int = RECENT_CLAIMS_MAX) -> None:
        self.forgotten_up_to = forgotten_up_to
        self._claims_max = claims_max
        self._count = 0
        self._updates: dict[bytes, Timestamp] = {}
        self._no_key_updates: dict[bytes, Timestamp] = {}
        self._key_shares: dict[bytes, Timestamp] = {}
        #: (T_commit, key …), plain tuples: the cyclic garbage collector leaves those alone
        self._log: deque[tuple[Timestamp, tuple[bytes, ...]]] = deque()

    def __len__(self) -> int:
        return self._count

    def conflict(self, claims: Iterable[Claim], t_start: Timestamp) -> bytes | None:
        """The first key with a conflicting claim committed after ``t_start``, or None."""
        key: bytes | None = _find_conflict(claims, t_start, self._updates, self._no_key_updates, self._key_shares)
        return key

    def record(self, claims: Iterable[Claim], t_commit: Timestamp) -> None:
        """Remember the claims of a transaction that commits at ``t_commit``. Calls need not come in order of time."""
        keys = _remember(claims, t_commit, self._updates, self._no_key_updates, self._key_shares)
        self._log.append((t_commit, keys))
        self._count += len(keys)
        if self._count > self._claims_max:
            self._forget_oldest()

    def forget(self, up_to: Timestamp) -> None:
        """Forget claims committed at or before ``up_to``."""
        log = self._log
        while log and log[0][0] <= up_to:
            self._forget_oldest()
        if up_to > self.forgotten_up_to:
            self.forgotten_up_to = up_to

    def _forget_oldest(self) -> None:
        t_commit, keys = self._log.popleft()
        self._count -= len(keys)
        if t_commit > self.forgotten_up_to:
            self.forgotten_up_to = t_commit
        for key in keys:
            for table in (self._updates, self._no_key_updates, self._key_shares):
                if table.get(key, t_commit + 1) <= t_commit:
                    del table[key]
