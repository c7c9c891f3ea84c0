"""Cursors that run a lost autocommit statement again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq, sql
from psycopg.rows import Row

from dsql_connectors.core.retry import RetryLoop, is_occ_error
from dsql_connectors.core.statements import is_single_statement
from dsql_connectors.core.transaction import run, run_async, statement_steps
from dsql_connectors.psycopg.failures import ERRORS

if TYPE_CHECKING:
    from psycopg.abc import Params, Query
    from typing_extensions import Self

IDLE = pq.TransactionStatus.IDLE


class ReplayingCursor:
    """Mixed into psycopg's synchronous cursors.

    ``execute`` in autocommit mode runs a statement again that was alone in its transaction and lost to a concurrent
    one (SQLSTATE 40001, OC000, OC001), within the connection's retry policy. ``executemany``, ``copy``, ``stream`` and
    pipelines are never replayed.
    """

    _conn: Any

    def execute(
        self, query: Query, params: Params | None = None, *, prepare: bool | None = None, binary: bool | None = None
    ) -> Self:
        """As in psycopg.

        :raises RetriesExhausted: in autocommit mode, when the retry policy allows no further attempt.
        """
        alone = _alone(self._conn)
        try:
            return super().execute(query, params, prepare=prepare, binary=binary)  # type: ignore[misc,no-any-return]
        except psycopg.DatabaseError as error:
            if not alone or not is_occ_error(error) or not _is_single(query, self._conn):
                raise
            lost = error

        def execute() -> Any:
            return super(ReplayingCursor, self).execute(query, params, prepare=prepare, binary=binary)  # type: ignore[misc]

        loop = RetryLoop(self._conn._dsql_policy, ERRORS)
        again: Self = run(statement_steps(loop, lost, execute, lambda: _alone(self._conn)))
        return again


class AsyncReplayingCursor:
    """Mixed into psycopg's asynchronous cursors; see :class:`ReplayingCursor`."""

    _conn: Any

    async def execute(
        self, query: Query, params: Params | None = None, *, prepare: bool | None = None, binary: bool | None = None
    ) -> Self:
        """As in psycopg.

        :raises RetriesExhausted: in autocommit mode, when the retry policy allows no further attempt.
        """
        alone = _alone(self._conn)
        try:
            return await super().execute(query, params, prepare=prepare, binary=binary)  # type: ignore[misc,no-any-return]
        except psycopg.DatabaseError as error:
            if not alone or not is_occ_error(error) or not _is_single(query, self._conn):
                raise
            lost = error

        def execute() -> Any:
            return super(AsyncReplayingCursor, self).execute(query, params, prepare=prepare, binary=binary)  # type: ignore[misc]

        loop = RetryLoop(self._conn._dsql_policy, ERRORS)
        again: Self = await run_async(statement_steps(loop, lost, execute, lambda: _alone(self._conn)))
        return again


class Cursor(ReplayingCursor, psycopg.Cursor[Row]):
    """psycopg's ``Cursor`` with replayed autocommit statements."""


class ClientCursor(ReplayingCursor, psycopg.ClientCursor[Row]):
    """psycopg's ``ClientCursor`` with replayed autocommit statements."""


class RawCursor(ReplayingCursor, psycopg.RawCursor[Row]):
    """psycopg's ``RawCursor`` with replayed autocommit statements."""


class AsyncCursor(AsyncReplayingCursor, psycopg.AsyncCursor[Row]):
    """psycopg's ``AsyncCursor`` with replayed autocommit statements."""


class AsyncClientCursor(AsyncReplayingCursor, psycopg.AsyncClientCursor[Row]):
    """psycopg's ``AsyncClientCursor`` with replayed autocommit statements."""


class AsyncRawCursor(AsyncReplayingCursor, psycopg.AsyncRawCursor[Row]):
    """psycopg's ``AsyncRawCursor`` with replayed autocommit statements."""


def _alone(connection: Any) -> bool:
    """Whether a statement run now is a transaction of its own."""
    return bool(
        connection.autocommit
        and connection.pgconn.transaction_status == IDLE
        and connection.pgconn.pipeline_status == pq.PipelineStatus.OFF
    )


def _is_single(query: Query, connection: Any) -> bool:
    if isinstance(query, sql.Composable):
        return is_single_statement(query.as_string(connection))
    if isinstance(query, (str, bytes)):
        return is_single_statement(query)
    return is_single_statement("".join(query.strings))  # a template string's parts around its values
