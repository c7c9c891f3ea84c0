"""What a query processor and its engine say to each other: a batch goes out, and its answer resumes the session."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from typing import Any

from dsql_server.interfaces import protocol as p
from dsql_server.processor.engine_connection import Answer, EngineConnection
from dsql_server.processor.errors import EngineRefusal
from dsql_server.processor.query_processor import QueryProcessor
from dsql_server.processor.roles import ADMIN_ROLE, LOADER_ROLE


class _Wait:
    """Awaited where the answer comes by a callback that resumes the driver."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)


WAIT = _Wait()


class EngineConversation:
    """``resume`` continues the session's coroutine with a value; ``sink`` takes answers that are too long to keep."""

    def __init__(self, processor: QueryProcessor, resume: Callable[[Any], None], sink: Callable[[bytes], None]) -> None:
        assert processor.connection is not None
        self.processor = processor
        self.connection: EngineConnection = processor.connection
        self._resume = resume
        self._sink = sink
        self._own_names = itertools.count()
        switch = processor.role != ADMIN_ROLE
        self.connection.loads_as_loader = switch
        self._role_on = self._statement(f"SET ROLE {LOADER_ROLE}") if switch else b""
        self._role_off = self._statement("RESET ROLE") if switch else b""

    def _statement(self, sql: str) -> bytes:
        """Messages that run one of the machinery's statements, prepared once on this connection."""
        name = b"dsqlkit_own_%d" % next(self._own_names)
        # Prepared here and for good: these never fail, so their names stay trusted.
        self.connection.discard(p.parse(name, sql.encode()) + p.SYNC)
        return p.bind_statement(name) + p.EXECUTE_UNNAMED

    async def relay(
        self,
        batch: bytes,
        *,
        skip: int = 0,
        completions: int = 1,
        ready: bool = False,
        cut: bool = False,
        query: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> Answer:
        """Send a batch and wait for its answer; see :meth:`EngineConnection.relay`. ``meanwhile`` runs in between."""
        self.connection.relay(
            batch,
            skip=skip,
            completions=completions,
            ready=ready,
            on_done=self._resume,
            sink=self._sink,
            cut=cut,
            query=query,
        )
        if meanwhile is not None:
            meanwhile()
        answer: Answer = await WAIT
        if answer.error is None:
            self.connection.confirm_statements()
        else:
            self.connection.forget_statements()
            if not ready or (query and answer.injected_error):
                self.connection.discard(p.SYNC)
        return answer

    async def collect_as_loader(self, batch: bytes) -> Answer:
        """Run prepared statements of the machinery's own with the loader's rights, and wait for their rows."""
        if self._role_on:
            batch = self._role_on + batch + self._role_off
        return await self.collect(batch + p.SYNC)

    async def rows_as_loader(self, sql: str) -> list[bytes]:
        """The rows of a query of the machinery's own, values in binary format. Raises SqlError."""
        name, parse = self.connection.statement(sql)
        answer = await self.collect_as_loader(parse + p.bind_statement(name, binary_results=True) + p.EXECUTE_UNNAMED)
        if answer.error is not None:
            raise EngineRefusal(answer.error, hide_context=True)
        at = bool(self._role_on)
        return answer.rows[at] if len(answer.rows) > at else []

    async def collect(self, batch: bytes) -> Answer:
        """Send a batch of the machinery's own that ends with Sync or a Query, and wait for its rows."""
        self.connection.collect(batch, self._resume)
        answer: Answer = await WAIT
        if answer.error is None:
            self.connection.confirm_statements()
        else:
            self.connection.forget_statements()
        return answer
