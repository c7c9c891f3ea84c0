"""Remembers the way of the last committed transactions, to show one of them."""

from __future__ import annotations

from collections import OrderedDict
from time import perf_counter_ns
from typing import Any, NamedTuple

from dsql_server.interfaces.messages import Claim, Stream, Timestamp
from dsql_server.interfaces.shard_map import ShardMap

#: How many committed transactions are remembered.
TRACES_MAX = 256
#: Of larger transactions only the adjudicators are remembered, and not the keys.
TRACED_CLAIMS_MAX = 16
_NS_PER_US = 1000


class _Decided(NamedTuple):
    received_ns: int
    decided_ns: int


class _Durable(NamedTuple):
    decided: _Decided
    durable_ns: int
    journal: str
    sequence: int
    t_start: Timestamp
    t_commit: Timestamp
    claims: tuple[Claim, ...]  #: those of a small transaction; otherwise
    owners: tuple[int, ...]  #: the adjudicators by number


class _Applied(NamedTuple):
    durable: _Durable
    applied_ns: int


class TraceLog:
    """Takes the journals' streams too: it is told of every record as soon as two copies have it."""

    address = "trace"

    def __init__(self, shard_map: ShardMap) -> None:
        self._shard_map = shard_map
        self._decided: dict[bytes, _Decided] = {}
        self._durable: dict[bytes, _Durable] = {}
        self._applied: OrderedDict[bytes, _Applied] = OrderedDict()
        self.handlers: dict[type, Any] = {Stream: self._on_stream}

    def decided(self, transaction_id: bytes, received_ns: int) -> None:
        """The transaction was received at ``received_ns`` (performance counter) and is decided now."""
        self._decided[transaction_id] = _Decided(received_ns, perf_counter_ns())

    def _on_stream(self, sender: str, record: Stream) -> None:
        now_ns = perf_counter_ns()
        journal, sequence, transactions = record
        for transaction in transactions:
            transaction_id, t_commit, t_start, _, claims, _, catalog_change = transaction
            decided = self._decided.pop(transaction_id, None)
            if decided is None:
                continue
            owners: tuple[int, ...] = ()
            if catalog_change is not None:
                owners = tuple(sorted(set(self._shard_map.owners)))
            elif len(claims) > TRACED_CLAIMS_MAX:
                claims, owners = (), _owners(claims, self._shard_map)
            self._durable[transaction_id] = _Durable(
                decided, now_ns, journal, sequence, t_start, t_commit, claims, owners
            )

    def applied(self, transaction_id: bytes) -> None:
        """Storage has applied the transaction now; its client is about to be answered."""
        durable = self._durable.pop(transaction_id, None)
        if durable is not None:
            self._applied[transaction_id] = _Applied(durable, perf_counter_ns())
            if len(self._applied) > TRACES_MAX:
                self._applied.popitem(last=False)

    def drop(self, transaction_id: bytes) -> None:
        """The transaction isn't committed, or nobody knows."""
        self._decided.pop(transaction_id, None)
        self._durable.pop(transaction_id, None)

    def transaction_ids(self) -> list[bytes]:
        """Oldest first."""
        return list(self._applied)

    def get(self, transaction_id: bytes) -> dict[str, object] | None:
        """The way of one transaction, or None if it isn't among the last ones committed."""
        applied = self._applied.get(transaction_id)
        if applied is None:
            return None
        (received_ns, decided_ns), durable_ns, journal, sequence, t_start, t_commit, claims, owners = applied.durable
        return {
            "t_start": t_start,
            "t_commit": t_commit,
            "adjudicators": [f"adjudicator-{owner}" for owner in owners or _owners(claims, self._shard_map)],
            "final_adjudicator": journal.replace("journal", "adjudicator"),
            "journal": journal,
            "sequence": sequence,
            "stages_us": {
                "adjudicate": (decided_ns - received_ns) / _NS_PER_US,
                "journal": (durable_ns - decided_ns) / _NS_PER_US,
                "apply": (applied.applied_ns - durable_ns) / _NS_PER_US,
                "total": (applied.applied_ns - received_ns) / _NS_PER_US,
            },
        }


def _owners(claims: tuple[Claim, ...], shard_map: ShardMap) -> tuple[int, ...]:
    return tuple(sorted({shard_map.owner(claim.key) for claim in claims}))
