"""A storage node's place on the network: takes deliveries in order, and answers a read once it has everything."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

from dsql_server.interfaces.environment import Environment
from dsql_server.interfaces.messages import Delivery, Get, Got, Resend, Timestamp
from dsql_server.simulation.memory_storage import MemoryNode


class SimulatedStorage:
    """Serves one :class:`MemoryNode`."""

    def __init__(self, address: str, crossbar: str, environment: Environment, node: MemoryNode) -> None:
        self.address = address
        self.node = node
        self.watermark: Timestamp = 0
        self._crossbar = crossbar
        self._environment = environment
        self._next = 1
        self._early: dict[int, Delivery] = {}
        #: reads that wait for the watermark: (t, number, client, request)
        self._reads: list[tuple[Timestamp, int, str, Get]] = []
        self._read_number = 0
        self.handlers: dict[type, Any] = {Delivery: self._on_delivery, Get: self._on_get}

    def _on_delivery(self, sender: str, delivery: Delivery) -> None:
        if delivery.number < self._next:
            return
        self._early[delivery.number] = delivery
        while (following := self._early.pop(self._next, None)) is not None:
            self._next += 1
            assert following.watermark >= self.watermark, "watermarks rise"
            assert all(self.watermark < t <= following.watermark for t, _ in following.batch), "T_commit order"
            self.node.apply_batch(following.batch, dict(following.positions))
            self.watermark = following.watermark
        self._answer()

    def _on_get(self, sender: str, request: Get) -> None:
        self._read_number += 1
        heappush(self._reads, (request.t, self._read_number, sender, request))
        self._answer()

    def _answer(self) -> None:
        reads = self._reads
        while reads and reads[0][0] <= self.watermark:
            _, _, client, request = heappop(reads)
            value = self.node.get(request.key, request.t)
            self._environment.send(self.address, client, Got(request.request_number, value))

    def tick(self) -> None:
        """Ask again for a delivery that got lost."""
        if self._early:
            self._environment.send(self.address, self._crossbar, Resend(self._next))
