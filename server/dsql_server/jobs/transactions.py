"""The jobs' own transactions: straight down the commit path, tried again until they are decided for."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from dsql_server.catalog.changes import Catalog, CatalogChange
from dsql_server.catalog.state import CatalogState
from dsql_server.interfaces.commit_path import CommitPath
from dsql_server.interfaces.messages import (
    CATALOG_ANY,
    Claim,
    CommitOutcome,
    CommitRequest,
    Committed,
    LockMode,
    Mutation,
    Timestamp,
)

#: Pause before a step that met a conflict is tried again, in seconds.
RETRY_PAUSE_S = 0.02
_TRANSACTION_ID_BYTES = 16


#: Keeps what a read at a timestamp sees from being removed, while the context is open.
HoldSnapshot = Callable[[Timestamp], AbstractContextManager[None]]


class Writes(NamedTuple):
    """What one transaction writes."""

    claims: Sequence[Claim] = ()
    mutations: Sequence[Mutation] = ()


class JobTransactions:
    """Commits what jobs write. Lost races are tried again: users' transactions never wait for a job."""

    def __init__(self, commit_path: CommitPath, catalog: Catalog, hold: HoldSnapshot | None = None) -> None:
        self.path = commit_path
        self.catalog = catalog
        self._hold = hold

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Timestamp]:
        """A timestamp to read at, for however long that takes."""
        t = self.path.begin()
        with self._hold(t) if self._hold is not None else contextlib.nullcontext():
            yield t

    async def commit(self, prepare: Callable[[Timestamp], Writes | None]) -> bool:
        """Commit what ``prepare`` makes of a snapshot, asked again after each conflict; False if it makes nothing."""
        while True:
            t = self.path.begin()
            writes = prepare(t)
            if writes is None:
                return False
            request = CommitRequest(
                os.urandom(_TRANSACTION_ID_BYTES), t, CATALOG_ANY, tuple(writes.claims), tuple(writes.mutations)
            )
            if isinstance(await self._outcome(request), Committed):
                return True
            await asyncio.sleep(RETRY_PAUSE_S)

    async def change_catalog(self, change_of: Callable[[CatalogState], CatalogChange | None], writes: Writes) -> bool:
        """Commit the change that ``change_of`` makes of the current catalog, and ``writes`` with it.

        False if there is no change to make any more.
        """
        while True:
            state = self.catalog.state
            change = change_of(state)
            if change is None:
                return False
            data = change.to_bytes()
            request = CommitRequest(
                os.urandom(_TRANSACTION_ID_BYTES),
                self.path.begin(),
                state.version,
                (Claim(change.log_key, LockMode.UPDATE), *writes.claims),
                (Mutation(change.log_key, data), *writes.mutations),
                data,
            )
            outcome = await self._outcome(request)
            if isinstance(outcome, Committed):
                self.catalog.append(change)
                return True
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _outcome(self, request: CommitRequest) -> CommitOutcome:
        future: asyncio.Future[CommitOutcome] = asyncio.get_running_loop().create_future()
        self.path.commit(request, lambda outcome: None if future.done() else future.set_result(outcome))
        return await future
