"""Claims that an adjudicator keeps free for transactions that another adjudicator, or a vote, has yet to decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dsql_server.interfaces.messages import Claim, LockMode, Timestamp

_KEY_SHARE = int(LockMode.KEY_SHARE)
_UPDATE = int(LockMode.UPDATE)


class HeldTransaction(NamedTuple):
    claims: tuple[Claim, ...]
    final: str  #: address of the adjudicator that decides
    not_after: Timestamp  #: the transaction commits at or before it, or never


def modes_conflict(one: int, other: int) -> bool:
    """KEY_SHARE goes with KEY_SHARE and NO_KEY_UPDATE; nothing else goes together."""
    return not ((one == _KEY_SHARE and other < _UPDATE) or (other == _KEY_SHARE and one < _UPDATE))


class Holds:
    """Held claims by key. A hold is bounded by ``not_after``, the last moment its transaction may commit at.

    Nobody waits for a hold. A transaction that meets one conflicts, unless it started after ``not_after``: then the
    held one, if it commits at all, is not within (T_start, T_commit] and so no reason to refuse.
    """

    __slots__ = ("_by_key", "_by_transaction", "_unindexed")

    def __init__(self) -> None:
        self._by_transaction: dict[bytes, HeldTransaction] = {}
        self._by_key: dict[bytes, dict[bytes, int]] = {}
        #: Held since the last question; most holds are released before anybody asks.
        self._unindexed: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._by_transaction)

    def __contains__(self, transaction_id: bytes) -> bool:
        return transaction_id in self._by_transaction

    def conflict(self, claims: Sequence[Claim], t_start: Timestamp) -> bytes | None:
        """The first key that is held in a conflicting mode, or None."""
        if not self._by_transaction:
            return None
        if self._unindexed:
            self._index()
        by_key = self._by_key
        for key, mode in claims:
            holders = by_key.get(key)
            if holders is None:
                continue
            for transaction_id, held_mode in holders.items():
                if modes_conflict(mode, held_mode) and self._by_transaction[transaction_id].not_after > t_start:
                    return key
        return None

    def hold(self, transaction_id: bytes, claims: tuple[Claim, ...], final: str, not_after: Timestamp) -> None:
        assert transaction_id not in self._by_transaction, "a transaction is held once"
        self._by_transaction[transaction_id] = HeldTransaction(claims, final, not_after)
        self._unindexed.add(transaction_id)

    def release(self, transaction_id: bytes) -> HeldTransaction | None:
        """Give the transaction's claims free; None if none are held."""
        held = self._by_transaction.pop(transaction_id, None)
        if held is None:
            return None
        if transaction_id in self._unindexed:
            self._unindexed.remove(transaction_id)
            return held
        by_key = self._by_key
        for key, _ in held.claims:
            holders = by_key.get(key)
            if holders is not None:
                holders.pop(transaction_id, None)
                if not holders:
                    del by_key[key]
        return held

    def _index(self) -> None:
        by_key = self._by_key
        for transaction_id in self._unindexed:
            for key, mode in self._by_transaction[transaction_id].claims:
                holders = by_key.setdefault(key, {})
                if holders.get(transaction_id, 0) < mode:
                    holders[transaction_id] = mode
        self._unindexed.clear()

    def bounded_below(self, t: Timestamp) -> list[tuple[bytes, HeldTransaction]]:
        """Held transactions with a bound below ``t``, oldest hold first."""
        return [item for item in self._by_transaction.items() if item[1].not_after < t]
