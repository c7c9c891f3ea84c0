"""Brings storage nodes up to date: from the journals at a start, from the crossbar later."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dsql_server.interfaces.commit_path import StorageApplier, StorageRouter
from dsql_server.interfaces.messages import CommittedTransaction, Delivery, Mutation, Timestamp
from dsql_server.journal.record import decode_own_record
from dsql_server.journal.recovery import RecoveredJournal, read_records

#: Replayed transactions go to storage in batches of this many.
REPLAY_BATCH = 512


class StorageMismatch(Exception):
    """Storage and journals don't belong together."""


class StorageFeed:
    """A storage node's place in the crossbar's stream: applies each delivery."""

    def __init__(self, address: str, applier: StorageApplier) -> None:
        self.address = address
        self._apply_batch = applier.apply_batch
        self.handlers: dict[type, Any] = {Delivery: self._on_delivery}

    def _on_delivery(self, sender: str, delivery: Delivery) -> None:
        _, batch, positions, _ = delivery
        self._apply_batch(batch, dict(positions))


def check_positions(appliers: Sequence[StorageApplier], journals: Mapping[str, RecoveredJournal]) -> None:
    """Raises :class:`StorageMismatch` if a node has applied more than the journals have, or lacks what was trimmed."""
    for index, applier in enumerate(appliers):
        positions = applier.applied_positions()
        unknown = sorted(set(positions) - set(journals))
        if unknown:
            raise StorageMismatch(
                f"storage node {index} has applied {', '.join(unknown)}, which isn't among this cluster's journals "
                f"({', '.join(sorted(journals))}); start with as many adjudicators as the directory was created with"
            )
        for name, journal in journals.items():
            position = positions.get(name, 0)
            first = min(journal.segment_firsts.values())
            if position > journal.tail.sequence:
                raise StorageMismatch(
                    f"storage node {index} has applied {name} up to record {position}, but the journal ends at record "
                    f"{journal.tail.sequence}; restore the journal's directories that belong to this storage"
                )
            if position + 1 < first:
                raise StorageMismatch(
                    f"storage node {index} has applied {name} up to record {position}, but the journal starts at "
                    f"record {first}; restore the storage directory that belongs to these journals"
                )


def replay(
    router: StorageRouter, directories: Mapping[str, Sequence[Path]], journals: Mapping[str, RecoveredJournal]
) -> int:
    """Apply everything in the journals that a storage node may lack, in order of T_commit; returns how much that was.

    Nodes that have a transaction already take it again: that changes nothing.
    """
    appliers = router.appliers()
    applied = [applier.applied_positions() for applier in appliers]
    streams = [
        _transactions(paths, 1 + min([positions.get(name, 0) for positions in applied], default=0))
        for name, paths in directories.items()
    ]
    count = 0
    batches: list[list[tuple[Timestamp, list[Mutation]]]] = [[] for _ in appliers]
    for transaction in heapq.merge(*streams, key=_t_commit):
        count += 1
        for index, mutations in router.split(transaction.mutations):
            batches[index].append((transaction.t_commit, mutations))
        if count % REPLAY_BATCH == 0:
            # Positions move on at the end only: the journals are merged by time, not one after the other.
            _apply(appliers, batches, {})
            batches = [[] for _ in appliers]
    _apply(appliers, batches, {name: journal.tail.sequence for name, journal in journals.items()})
    return count


def _apply(
    appliers: Sequence[StorageApplier],
    batches: Sequence[Sequence[tuple[Timestamp, Sequence[Mutation]]]],
    positions: Mapping[str, int],
) -> None:
    for applier, batch in zip(appliers, batches, strict=True):
        if batch or positions:
            applier.apply_batch(batch, positions)


def _transactions(directories: Sequence[Path], from_sequence: int) -> Iterator[CommittedTransaction]:
    for data in read_records(directories, from_sequence):
        yield from decode_own_record(data).transactions


def _t_commit(transaction: CommittedTransaction) -> Timestamp:
    return transaction.t_commit
