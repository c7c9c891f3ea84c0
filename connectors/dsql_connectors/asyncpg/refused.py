"""The sockets of connections that came to nothing."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator

#: From the abort of a TLS transport to its socket's close it is three turns of the event loop; uvloop takes one more.
_TURNS_TO_CLOSE = 4


async def let_go(error: BaseException) -> None:
    """Close what asyncpg left open when connecting failed with ``error``.

    asyncpg begins to close a connection that is refused, or whose connect is cancelled, and doesn't wait for its end.
    A program that ends its event loop next, as one does whose only connection was refused, would be told of a leaked
    socket.
    """
    for transport in _transports(error):
        transport.abort()
    for _ in range(_TURNS_TO_CLOSE):
        await asyncio.sleep(0)


def _transports(error: BaseException | None) -> Iterator[asyncio.WriteTransport]:
    """The transports that the frames knew which gave up: asyncpg hands them to nobody."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            # Not by its class alone: uvloop's transports are of its own.
            if frame.f_globals.get("__name__") == "asyncpg.connect_utils" and hasattr(
                frame.f_locals.get("tr"), "abort"
            ):
                yield frame.f_locals["tr"]
        error = error.__cause__ or error.__context__
