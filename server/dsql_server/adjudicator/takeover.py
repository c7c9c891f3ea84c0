"""How a new owner takes over a shard whose adjudicator has stopped.

1. It sets itself as the journal's leader and appends a barrier: nothing of the owner before can get in any more.
2. It picks a floor above every bound that the owner before can have voted with, and promises never to commit at or
   below it. Whatever was decided with those votes lies at or below the floor.
3. It waits until everything up to the floor is merged, over all journals. Then the catalog's version is known.
4. It serves. A transaction from before the floor is refused, as the claims committed until then are not known.

The owner before must not vote any more when the new one picks the floor: that is for the membership service to see to,
by leases. Commits need no such care; the journal's epoch fences them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsql_server.adjudicator.adjudicator import HOLD_MAX_NS, Recovered
from dsql_server.interfaces.environment import Environment
from dsql_server.interfaces.messages import (
    Append,
    Appended,
    AppendRefused,
    CatalogAt,
    CatalogRequest,
    LeaderSet,
    SetLeader,
    Timestamp,
    Watermark,
)


class Takeover:
    """The actor at the adjudicator's address until it is ready; then ``on_ready`` gets what the adjudicator needs.

    Messages meant for the adjudicator are dropped meanwhile: their senders ask again, or give up.
    """

    def __init__(
        self,
        address: str,
        journal: str,
        crossbar: str,
        environment: Environment,
        epoch: int,
        on_ready: Callable[[Recovered], None],
    ) -> None:
        self.address = address
        self._journal = journal
        self._crossbar = crossbar
        self._environment = environment
        self._epoch = epoch
        self._on_ready = on_ready
        self._barrier = 0  # sequence of the barrier, once the journal has taken us as leader
        self._floor: Timestamp = 0  # once the barrier is durable
        self._finished = False
        self.handlers: dict[type, Any] = _DropOthers(
            {
                LeaderSet: self._on_leader_set,
                Appended: self._on_appended,
                AppendRefused: self._on_refused,
                CatalogAt: self._on_catalog,
            }
        )

    def tick(self) -> None:
        """Take, or repeat, the step we are at. To be called every now and then until it is ready."""
        send = self._environment.send
        if self._finished:
            return
        if not self._barrier:
            send(self.address, self._journal, SetLeader(self._epoch))
        elif not self._floor:
            send(self.address, self._journal, Append(self._epoch, self._barrier, ()))
        else:
            send(self.address, self._crossbar, Watermark(self._journal, self._barrier, self._floor))
            send(self.address, self._crossbar, CatalogRequest(self._floor))

    def _on_leader_set(self, sender: str, message: LeaderSet) -> None:
        if message.epoch == self._epoch and not self._barrier:
            self._barrier = message.next_sequence
            self.tick()

    def _on_appended(self, sender: str, message: Appended) -> None:
        if message.epoch == self._epoch and message.sequence == self._barrier and not self._floor:
            earliest, latest = self._environment.clock.now()
            # The clock of the owner before may have been ahead of ours by the whole width of the error.
            self._floor = latest + (latest - earliest) + HOLD_MAX_NS
            self.tick()

    def _on_refused(self, sender: str, message: AppendRefused) -> None:
        if message.epoch > self._epoch:
            self._finished = True  # somebody else took over after us

    def _on_catalog(self, sender: str, message: CatalogAt) -> None:
        if message.t == self._floor and not self._finished:
            self._finished = True
            self._on_ready(Recovered(self._epoch, self._barrier, message.catalog_version, self._floor, inherited=True))


class _DropOthers(dict[type, Callable[[str, Any], None]]):
    def __missing__(self, kind: type) -> Callable[[str, Any], None]:
        return _drop


def _drop(sender: str, message: Any) -> None:
    pass
