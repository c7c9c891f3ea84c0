"""Remembers the way of the last committed transactions, to show one of them."""

from __future__ import annotations

from collections import OrderedDict
from time import perf_counter_ns

from dsql_server.interfaces.environment import Message
from dsql_server.interfaces.messages import Claim, CommittedTransaction, Stream
from dsql_server.interfaces.shard_map import ShardMap

#: How many committed transactions are remembered.
TRACES_MAX = 256
#: Of larger transactions only the adjudicators are remembered, and not the keys.
TRACED_CLAIMS_MAX = 16
_NS_PER_US = 1000


class _Trace:
    __slots__ = (
        "adjudicators",
        "applied_ns",
        "claims",
        "decided_ns",
        "durable_ns",
        "journal",
        "received_ns",
        "sequence",
        "t_commit",
        "t_start",
    )

    def __init__(self, received_ns: int, decided_ns: int) -> None:
        self.received_ns = received_ns
        self.decided_ns = decided_ns
        self.durable_ns = 0
        self.applied_ns = 0
        self.journal = ""
        self.sequence = 0
        self.t_start = 0
        self.t_commit = 0
        self.claims: tuple[Claim, ...] = ()
        self.adjudicators: tuple[int, ...] = ()


class TraceLog:
    """Takes the journals' streams too: it is told of every record as soon as two copies have it."""

    address = "trace"

    def __init__(self, shard_map: ShardMap) -> None:
        self._shard_map = shard_map
        self._open: dict[bytes, _Trace] = {}
        self._closed: OrderedDict[bytes, _Trace] = OrderedDict()

    def decided(self, transaction_id: bytes, received_ns: int) -> None:
        """The transaction was received at ``received_ns`` (performance counter) and is decided now."""
        self._open[transaction_id] = _Trace(received_ns, perf_counter_ns())

    def receive(self, sender: str, message: Message) -> None:
        assert type(message) is Stream, f"traces are of records, not of {message!r}"
        now_ns = perf_counter_ns()
        journal, sequence, transactions = message
        opened = self._open
        for transaction in transactions:
            trace = opened.get(transaction.transaction_id)
            if trace is not None:
                trace.durable_ns = now_ns
                trace.journal = journal
                trace.sequence = sequence
                _copy(trace, transaction, self._shard_map)

    def applied(self, transaction_id: bytes) -> None:
        """Storage has applied the transaction now; its client is about to be answered."""
        trace = self._open.pop(transaction_id, None)
        if trace is None:
            return
        trace.applied_ns = perf_counter_ns()
        self._closed[transaction_id] = trace
        if len(self._closed) > TRACES_MAX:
            self._closed.popitem(last=False)

    def drop(self, transaction_id: bytes) -> None:
        """The transaction wasn't committed after all."""
        self._open.pop(transaction_id, None)

    def transaction_ids(self) -> list[bytes]:
        return list(self._closed)

    def get(self, transaction_id: bytes) -> dict[str, object] | None:
        trace = self._closed.get(transaction_id)
        if trace is None:
            return None
        owners = trace.adjudicators or _owners(trace.claims, self._shard_map)
        return {
            "t_start": trace.t_start,
            "t_commit": trace.t_commit,
            "adjudicators": [f"adjudicator-{owner}" for owner in owners],
            "final_adjudicator": trace.journal.replace("journal", "adjudicator"),
            "journal": trace.journal,
            "sequence": trace.sequence,
            "stages_us": {
                "adjudicate": (trace.decided_ns - trace.received_ns) / _NS_PER_US,
                "journal": (trace.durable_ns - trace.decided_ns) / _NS_PER_US,
                "apply": (trace.applied_ns - trace.durable_ns) / _NS_PER_US,
                "total": (trace.applied_ns - trace.received_ns) / _NS_PER_US,
            },
        }


def _copy(trace: _Trace, transaction: CommittedTransaction, shard_map: ShardMap) -> None:
    trace.t_start = transaction.t_start
    trace.t_commit = transaction.t_commit
    if transaction.catalog_change is not None:
        trace.adjudicators = tuple(sorted(set(shard_map.owners)))
    elif len(transaction.claims) <= TRACED_CLAIMS_MAX:
        trace.claims = transaction.claims
    else:
        trace.adjudicators = _owners(transaction.claims, shard_map)


def _owners(claims: tuple[Claim, ...], shard_map: ShardMap) -> tuple[int, ...]:
    return tuple(sorted({shard_map.owner(claim.key) for claim in claims}))
