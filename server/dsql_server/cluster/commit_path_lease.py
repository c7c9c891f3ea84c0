"""Leases of sequence values: small transactions on a counter's key.

A counter is stored as a row of one bigint field: the next free value. A lease reads it in a snapshot, and commits the
value behind the leased ones; so leases conflict like any other transactions, and two never overlap.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from dsql_server.interfaces.commit_path import LEASE_FAILED, CommitPath
from dsql_server.interfaces.messages import (
    CATALOG_ANY,
    Claim,
    CommitOutcome,
    CommitRequest,
    Committed,
    Conflict,
    LockMode,
    Mutation,
)

#: A COPY BINARY tuple: one field of eight bytes.
COUNTER_ROW = Struct("!hiq")
#: How often a lease that conflicts with another writer of the counter is tried,
LEASE_ATTEMPTS_MAX = 1000
#: and how long it leaves the other one to finish.
LEASE_RETRY_S = 0.001
#: Leases of one counter that wait for the one on its way are merged, up to this many values.
LEASE_COUNT_MAX = 1 << 40


class _Lease(NamedTuple):
    values: int
    on_lease: Callable[[int], None]


class SequenceLeases:
    """Hands out leases, one transaction at a time for each counter; those that wait share the next transaction."""

    def __init__(self, path: CommitPath, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._waiting: dict[bytes, deque[_Lease]] = {}

    def lease(self, key: bytes, count: int, on_lease: Callable[[int], None]) -> None:
        assert 0 < count <= LEASE_COUNT_MAX, f"a lease of {count} values"
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(_Lease(count, on_lease))
            return
        self._waiting[key] = deque()
        self._try(key, [_Lease(count, on_lease)], LEASE_ATTEMPTS_MAX)

    def _try(self, key: bytes, leases: list[_Lease], attempts: int) -> None:
        t_start = self._path.begin()
        stored = self._path.storage.get(key, t_start)
        first = 0 if stored is None else read_counter(stored)
        after = first + sum(lease.values for lease in leases)
        request = CommitRequest(
            os.urandom(16),
            t_start,
            CATALOG_ANY,
            (Claim(key, int(LockMode.UPDATE)),),
            (Mutation(key, counter_row(after)),),
        )

        def on_outcome(outcome: CommitOutcome) -> None:
            if type(outcome) is Conflict and attempts > 1:
                self._loop.call_later(LEASE_RETRY_S, self._try, key, leases, attempts - 1)
                return
            self._finish(key, leases, first if type(outcome) is Committed else LEASE_FAILED)

        self._path.commit(request, on_outcome)

    def _finish(self, key: bytes, leases: list[_Lease], first: int) -> None:
        waiting = self._waiting[key]
        if waiting:
            following = list(waiting)
            waiting.clear()
            self._try(key, following, LEASE_ATTEMPTS_MAX)
        else:
            del self._waiting[key]
        for values, on_lease in leases:
            on_lease(first)
            if first != LEASE_FAILED:
                first += values


def counter_row(value: int) -> bytes:
    """The stored row of a counter whose next free value is ``value``."""
    return COUNTER_ROW.pack(1, 8, value)


def read_counter(row: bytes) -> int:
    fields, length, value = COUNTER_ROW.unpack(row)
    assert (fields, length) == (1, 8), "a counter is a row of one bigint"
    return int(value)
