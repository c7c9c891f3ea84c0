"""What comes from outside of a role: time, network, timers, randomness and the copies of a journal.

Roles are actors: they change state only when they handle a message and in callbacks that they asked their environment
for, one at a time. So one process can run a whole cluster: by calls, or on virtual time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from dsql_server.interfaces.messages import Timestamp

NANOSECONDS_PER_SECOND = 1_000_000_000

#: Any ``NamedTuple`` of :mod:`dsql_server.interfaces.messages`.
Message = Any


class Clock(Protocol):
    """The time service: true time lies between the two bounds."""

    def now(self) -> tuple[Timestamp, Timestamp]:
        """(earliest, latest), in nanoseconds since the Unix epoch. Neither bound ever goes back."""
        ...


class Timer(Protocol):
    def cancel(self) -> None: ...


class Environment(Protocol):
    """Everything an actor may touch beside its own state."""

    @property
    def clock(self) -> Clock: ...

    @property
    def random(self) -> random.Random: ...

    def send(self, sender: str, receiver: str, message: Message) -> None:
        """Send; never answers, never raises, and promises neither arrival nor order."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer: ...


class Actor(Protocol):
    """A role's instance, reached by its address."""

    @property
    def address(self) -> str: ...

    @property
    def handlers(self) -> Mapping[type, Callable[[str, Any], None]]:
        """For each type of message that the actor takes: what to call with the sender's address and the message."""
        ...


class JournalCopies(Protocol):
    """The three copies of one journal's records, each in its own zone."""

    def open(self, on_durable: Callable[[int], None], on_failure: Callable[[str], None]) -> None:
        """Start writing. ``on_durable(sequence)``: two copies have everything up to it. ``on_failure(reason)``: no
        two copies can be written any more. Both are called on the actor's own thread."""
        ...

    def write(self, sequence: int, record: bytes) -> None:
        """Append one record to all copies; ``sequence`` follows the last one written."""
        ...

    def read(self, from_sequence: int) -> Iterator[bytes]:
        """Durable records from ``from_sequence`` on, in order."""
        ...

    def trim(self, below_sequence: int) -> None:
        """Allow records below ``below_sequence`` to go; the last record always stays."""
        ...
