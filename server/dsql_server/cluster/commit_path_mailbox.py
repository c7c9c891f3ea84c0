"""The environment of actors that share one process: messages are calls, time is the machine's."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from dsql_server import compiled
from dsql_server.interfaces.environment import Actor, Clock, Message, Timer
from dsql_server.interfaces.messages import Committed


class Mailbox:
    """Delivers messages at once, one at a time: no actor is entered while another runs. They come in the order that
    they were sent in, but answers to commits come first.

    An exception that an actor raises is a defect, and its state can't be trusted any more: ``on_defect`` is told once,
    and no message is delivered from then on.
    """

    __slots__ = ("_delivering", "_loop", "_on_defect", "_queue", "_receivers", "clock", "random")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        on_defect: Callable[[BaseException], None],
        random: random.Random,
    ) -> None:
        self.clock = clock
        self.random = random
        self._loop = loop
        self._on_defect = on_defect
        self._receivers: dict[str, Mapping[type, Callable[[str, Any], None]]] = {}
        self._queue: deque[tuple[Callable[[str, Message], None], str, Message]] = deque()
        self._delivering = False

    def add(self, actor: Actor) -> None:
        assert actor.address not in self._receivers, f"two actors at {actor.address}"
        self._receivers[actor.address] = actor.handlers

    def send(self, sender: str, receiver: str, message: Message) -> None:
        kind = type(message)
        # Somebody waits for an answer; what is sent to storage at the same time can wait.
        add = self._queue.appendleft if kind is Committed else self._queue.append
        add((self._receivers[receiver][kind], sender, message))
        if not self._delivering:
            self._deliver()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return self._loop.call_later(delay_s, callback)

    def gathered(self, callback: Callable[[int], None]) -> Callable[[int], None]:
        """The callback, with what it sends delivered when it is through: all of it is under way then."""

        def call(argument: int) -> None:
            outer, self._delivering = self._delivering, True
            try:
                callback(argument)
            finally:
                self._delivering = outer
            if not outer:
                self._deliver()

        return call

    def catch_up(self) -> None:
        """Deliver what is under way. For a receiver that has finished with its own message, and with nothing else."""
        self._deliver()

    def _deliver(self) -> None:
        queue = self._queue
        popleft = queue.popleft
        outer, self._delivering = self._delivering, True
        try:
            while queue:
                handle, sender, message = popleft()
                handle(sender, message)
        except BaseException as error:
            queue.clear()
            self._receivers = dict.fromkeys(self._receivers, _Deaf())
            self._on_defect(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._delivering = outer


def open_mailbox(loop: asyncio.AbstractEventLoop, clock: Clock, on_defect: Callable[[BaseException], None]) -> Mailbox:
    """A mailbox, the compiled one where there is one."""
    chance = random.Random()  # noqa: S311 (no secret depends on it)
    if compiled.commit_path is None:
        return Mailbox(loop, clock, on_defect, chance)
    mailbox: Mailbox = compiled.commit_path.Mailbox(loop, clock, on_defect, chance, Committed, _Deaf)
    return mailbox


class _Deaf(dict[type, Callable[[str, Any], None]]):
    """The handlers of every actor after a defect."""

    def __missing__(self, kind: type) -> Callable[[str, Any], None]:
        return _ignore


def _ignore(sender: str, message: Message) -> None:
    pass
