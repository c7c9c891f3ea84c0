"""Cursors that run a lost autocommit statement again."""

from __future__ import annotations

import functools
from typing import Any

import psycopg2
from psycopg2 import extensions

from dsql_connectors.core.retry import RetryLoop, is_occ_error
from dsql_connectors.core.statements import is_single_statement
from dsql_connectors.core.transaction import run, statement_steps
from dsql_connectors.psycopg2.failures import ERRORS


class ReplayingCursor:
    """Mixed into psycopg2's cursors.

    ``execute`` in autocommit mode runs a statement again that was alone in its transaction and lost to a concurrent
    one (SQLSTATE 40001, OC000, OC001), within the connection's retry policy. Everything else is never replayed.
    """

    connection: Any
    name: Any

    def execute(self, query: Any, vars: Any = None) -> None:  # psycopg2's name
        """As in psycopg2.

        :raises RetriesExhausted: in autocommit mode, when the retry policy allows no further attempt.
        """
        alone = _alone(self.connection)
        try:
            super().execute(query, vars)  # type: ignore[misc]
            return
        except psycopg2.DatabaseError as error:
            if not (alone and is_occ_error(error) and is_single_statement(_text(query, self))):
                raise
            lost = error

        def execute() -> None:
            super(ReplayingCursor, self).execute(query, vars)  # type: ignore[misc]

        loop = RetryLoop(self.connection._dsql_policy, ERRORS)
        run(statement_steps(loop, lost, execute, lambda: _alone(self.connection)))


class Cursor(ReplayingCursor, extensions.cursor):  # type: ignore[misc]
    """psycopg2's ``cursor`` with replayed autocommit statements."""


@functools.lru_cache(maxsize=64)
def replaying(factory: type) -> type:
    """``factory``, a cursor class such as ``RealDictCursor``, with replayed autocommit statements."""
    if issubclass(factory, ReplayingCursor):
        return factory
    return type(factory.__name__, (ReplayingCursor, factory), {"__module__": factory.__module__})


def _alone(connection: Any) -> bool:
    """Whether a statement run now is a transaction of its own."""
    return bool(
        getattr(connection, "autocommit", False)
        and connection.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE
        and not connection.async_
    )


def _text(query: Any, cursor: Any) -> str | bytes:
    text: str | bytes = query.as_string(cursor) if hasattr(query, "as_string") else query
    return text
