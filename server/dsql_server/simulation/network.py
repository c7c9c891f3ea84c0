"""A seeded network: every message crosses it as bytes, late, out of order, sometimes twice, sometimes never."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from dsql_server.interfaces.environment import Actor, Clock, Message, Timer
from dsql_server.interfaces.wire import decode_message, encode_message
from dsql_server.simulation.virtual_time import VirtualTime


@dataclass(frozen=True)
class NetworkSettings:
    delay_min_us: int = 50
    delay_mean_us: int = 300  #: above the minimum, exponentially distributed: that reorders
    duplicate_share: float = 0.01
    loss_share: float = 0.0


class SimulatedNetwork:
    """Carries messages between actors and keeps a hash of everything it delivered."""

    def __init__(self, time: VirtualTime, seed: int, settings: NetworkSettings) -> None:
        self.time = time
        self.random = random.Random(seed)  # noqa: S311 (a simulation must be repeatable)
        self.settings = settings
        self.delivered = 0
        self._actors: dict[str, Actor] = {}
        self._cut_off: set[str] = set()
        self._history = blake2b(digest_size=16)

    def add(self, actor: Actor) -> None:
        """Connect an actor; one that is there already at its address is replaced."""
        self._actors[actor.address] = actor

    def remove(self, address: str) -> None:
        """Disconnect an actor: what is on its way to it gets lost."""
        self._actors.pop(address, None)

    def cut_off(self, *addresses: str) -> None:
        """Partition: these reach each other, and the others each other, until :meth:`heal`."""
        self._cut_off = set(addresses)

    def heal(self) -> None:
        self._cut_off = set()

    def send(self, sender: str, receiver: str, message: Message) -> None:
        roll = self.random.random()
        settings = self.settings
        if roll < settings.loss_share or (sender in self._cut_off) != (receiver in self._cut_off):
            return
        data = encode_message(message)
        self._carry(sender, receiver, data)
        if roll > 1 - settings.duplicate_share:
            self._carry(sender, receiver, data)

    def history_hash(self) -> str:
        """Of everything delivered so far: when, from whom, to whom, what."""
        return self._history.hexdigest()

    def _carry(self, sender: str, receiver: str, data: bytes) -> None:
        settings = self.settings
        delay_us = settings.delay_min_us + self.random.expovariate(1.0) * settings.delay_mean_us
        self.time.call_in_ns(int(delay_us * 1000), lambda: self._deliver(sender, receiver, data))

    def _deliver(self, sender: str, receiver: str, data: bytes) -> None:
        actor = self._actors.get(receiver)
        if actor is None:
            return
        self.delivered += 1
        self._history.update(f"{self.time.now_ns} {sender} {receiver} ".encode() + data)
        message = decode_message(data)
        actor.handlers[type(message)](sender, message)


class SimulatedEnvironment:
    """What one actor sees of the simulation. A stopped actor's timers and messages do nothing any more."""

    def __init__(self, network: SimulatedNetwork, clock: Clock, seed: int) -> None:
        self.clock = clock
        self.random = random.Random(seed)  # noqa: S311 (a simulation must be repeatable)
        self._network = network
        self._stopped = False

    def send(self, sender: str, receiver: str, message: Message) -> None:
        if not self._stopped:
            self._network.send(sender, receiver, message)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return self._network.time.call_later(delay_s, lambda: None if self._stopped else callback())

    def every(self, interval_s: float, callback: Callable[[], None]) -> None:
        """Call again and again, a little irregularly, until the actor stops."""

        def run() -> None:
            if not self._stopped:
                callback()
                self._network.time.call_later(interval_s * self.random.uniform(0.9, 1.1), run)

        self._network.time.call_later(interval_s * self.random.random(), run)

    def stop(self) -> None:
        self._stopped = True
