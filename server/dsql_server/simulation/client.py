"""A virtual client: reads a few keys in a snapshot, writes some, locks some, commits, and remembers what it saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dsql_server.interfaces.environment import Environment
from dsql_server.interfaces.messages import (
    Claim,
    CommitRequest,
    Committed,
    Conflict,
    Get,
    Got,
    Inquire,
    LockMode,
    Mutation,
    Timestamp,
    Unavailable,
)
from dsql_server.interfaces.shard_map import ShardMap

#: The catalog's version lies in storage as a row of its own, so that a snapshot fixes it too.
CATALOG_KEY = b"\0\0\0\0catalog"
RESEND_READS_S = 0.05
#: A commit that isn't answered for this long is asked after.
INQUIRE_S = 0.25
CHANGES_CATALOG_SHARE = 0.002
BLIND_SHARE = 0.05
MODES = (int(LockMode.KEY_SHARE), int(LockMode.NO_KEY_UPDATE), int(LockMode.UPDATE))


@dataclass
class Attempt:
    """One transaction as its client saw it; times are true virtual time."""

    transaction_id: bytes
    began_ns: int
    t_start: Timestamp
    reads: dict[bytes, bytes | None] = field(default_factory=dict)
    request: CommitRequest | None = None
    outcome: Committed | Conflict | Unavailable | None = None
    answered_ns: int = 0


class SimulatedClient:
    """Runs one transaction after the other, until told to stop."""

    def __init__(
        self,
        address: str,
        environment: Environment,
        shard_map: ShardMap,
        adjudicators: tuple[str, ...],
        storage_of: Callable[[bytes], str],
        true_now: Callable[[], int],
        keys: list[bytes],
        think_time_s: float,
    ) -> None:
        self.address = address
        self.attempts: list[Attempt] = []
        self.stopping = False
        self._environment = environment
        self._random = environment.random
        self._shard_map = shard_map
        self._adjudicators = adjudicators
        self._storage_of = storage_of
        self._true_now = true_now
        self._keys = keys
        self._think_time_s = think_time_s
        self._attempt: Attempt | None = None
        self._missing: dict[int, bytes] = {}  # request number to key
        self._request_number = 0
        self._final = ""
        self.handlers: dict[type, Any] = {
            Got: self._on_got,
            Committed: self._on_outcome,
            Conflict: self._on_outcome,
            Unavailable: self._on_outcome,
        }

    @property
    def idle(self) -> bool:
        return self._attempt is None

    def begin(self) -> None:
        random = self._random
        t_start = self._environment.clock.now()[1]
        attempt = Attempt(random.randbytes(16), self._true_now(), t_start)
        self._attempt = attempt
        self.attempts.append(attempt)
        wanted = [CATALOG_KEY, *random.sample(self._keys, random.randint(1, 3))]
        self._missing = {}
        for key in wanted:
            self._request_number += 1
            self._missing[self._request_number] = key
        self._read(attempt)

    def _read(self, attempt: Attempt) -> None:
        """Ask for what is missing, again and again."""
        if self._attempt is not attempt or not self._missing:
            return
        for number, key in self._missing.items():
            self._environment.send(self.address, self._storage_of(key), Get(number, key, attempt.t_start))
        self._environment.call_later(RESEND_READS_S, lambda: self._read(attempt))

    def _on_got(self, sender: str, got: Got) -> None:
        key = self._missing.pop(got.request_number, None)
        if key is None:
            return
        attempt = self._attempt
        assert attempt is not None
        attempt.reads[key] = got.value
        if not self._missing:
            self._commit(attempt)

    def _commit(self, attempt: Attempt) -> None:
        stored = attempt.reads[CATALOG_KEY]
        catalog_version = int(stored) if stored is not None else 0
        if self._random.random() < CHANGES_CATALOG_SHARE:
            request = self._catalog_change(attempt, catalog_version)
            self._final = self._adjudicators[0]
        else:
            request = self._write(attempt, catalog_version)
            self._final = self._adjudicators[self._shard_map.owner(request.claims[0].key)]
        attempt.request = request
        self._environment.send(self.address, self._final, request)
        self._environment.call_later(INQUIRE_S, lambda: self._inquire(attempt))

    def _catalog_change(self, attempt: Attempt, catalog_version: int) -> CommitRequest:
        mutation = Mutation(CATALOG_KEY, str(catalog_version + 1).encode())
        claims = (Claim(CATALOG_KEY, int(LockMode.UPDATE)),)
        return CommitRequest(
            attempt.transaction_id, attempt.t_start, catalog_version, claims, (mutation,), b"a change of the catalog"
        )

    def _write(self, attempt: Attempt, catalog_version: int) -> CommitRequest:
        random = self._random
        keys = [key for key in attempt.reads if key != CATALOG_KEY]
        if random.random() < BLIND_SHARE:  # a write of a key that wasn't read
            keys.append(random.choice(self._keys))
        claims = []
        mutations = []
        for key in dict.fromkeys(keys):
            mode = random.choice(MODES)
            claims.append(Claim(key, mode))
            if mode != LockMode.KEY_SHARE:
                value = None if random.random() < 0.05 else attempt.transaction_id
                mutations.append(Mutation(key, value))
        return CommitRequest(attempt.transaction_id, attempt.t_start, catalog_version, tuple(claims), tuple(mutations))

    def _inquire(self, attempt: Attempt) -> None:
        """No answer yet: it may be lost, or the request. Both are asked in one way or the other."""
        if self._attempt is not attempt:
            return
        assert attempt.request is not None
        question = attempt.request if self._random.random() < 0.3 else Inquire(attempt.transaction_id)
        self._environment.send(self.address, self._final, question)
        self._environment.call_later(INQUIRE_S, lambda: self._inquire(attempt))

    def _on_outcome(self, sender: str, outcome: Committed | Conflict | Unavailable) -> None:
        attempt = self._attempt
        if attempt is None or outcome.transaction_id != attempt.transaction_id:
            return
        attempt.outcome = outcome
        attempt.answered_ns = self._true_now()
        self._attempt = None
        if not self.stopping:
            self._environment.call_later(self._random.random() * self._think_time_s, self.begin)
