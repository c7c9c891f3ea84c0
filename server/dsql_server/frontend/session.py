"""One client's session: protocol messages in, statements to the query processor, answers out."""

from __future__ import annotations

from dsql_server.frontend.extended_query import ExtendedQuery
from dsql_server.interfaces import protocol as p

#: Messages without a Sync or Flush behind them are handled when there are so many, in bytes.
BATCH_MAX_BYTES = 1024 * 1024
_EXTENDED = frozenset({p.PARSE, p.BIND, p.DESCRIBE, p.EXECUTE, p.CLOSE})


class Session(ExtendedQuery):
    """The loop over a client's messages."""

    async def _run(self) -> None:
        try:
            await self._lease_ahead()
            batch: list[tuple[int, bytes]] = []
            batch_bytes = 0
            while True:
                self._resting = not batch and not self._skipping
                received = await self._next()
                self._resting = False
                self._close_block()
                if received is None or received[0] == p.TERMINATE:
                    return
                kind = received[0]
                if self._skipping and kind != p.SYNC_TYPE:
                    continue
                if kind in _EXTENDED:
                    batch.append(received)
                    batch_bytes += len(received[1])
                    if batch_bytes > BATCH_MAX_BYTES and kind == p.EXECUTE:
                        await self._extended(batch, synced=False)
                        batch, batch_bytes = [], 0
                elif kind == p.SYNC_TYPE:
                    await self._extended(batch, synced=True)
                    batch, batch_bytes = [], 0
                    await self._sync()
                elif kind == p.FLUSH_TYPE:
                    await self._extended(batch, synced=False)
                    batch, batch_bytes = [], 0
                    self._flush()
                elif kind == p.QUERY:
                    if batch:
                        await self._extended(batch, synced=False)
                        batch, batch_bytes = [], 0
                    if not self._skipping:
                        await self._simple(received[1])
                elif kind == p.FUNCTION_CALL:
                    self._refuse_function_call()
                elif kind in (p.COPY_DATA, p.COPY_DONE, p.COPY_FAIL):
                    continue  # left over from a COPY that failed
                else:
                    self._out.append(
                        p.error_response("08P01", f"invalid frontend message type {kind}", severity="FATAL")
                    )
                    self._flush()
                    return
        finally:
            self._release()
