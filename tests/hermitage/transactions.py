"""Transactions that are open side by side, driven by one thread: a statement that waits for another one is an error."""

from __future__ import annotations

import select
import time
from typing import Any

import psycopg
from psycopg import pq

#: One thread drives all transactions, so a statement that waits for another one waits for ever. This long is for ever,
#: even on a machine that stands still for a while.
ANSWER_S_MAX = 120.0

Row = tuple[int, ...]


class Waited(AssertionError):
    """A statement did not answer while other transactions were open."""


class ServerError(Exception):
    """What the server said no with."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate} {message}")
        self.sqlstate = sqlstate
        self.message = message


class Transaction:
    """One transaction on a connection of its own, begun at once."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        assert connection.autocommit, "BEGIN and COMMIT are sent as the test says"
        self._connection = connection
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ")

    def run(self, sql: str) -> list[Row]:
        """The rows that a statement answers.

        :raises Waited: no answer within ANSWER_S_MAX.
        :raises ServerError: the server refused it.
        """
        pgconn = self._connection.pgconn
        deadline_s = time.monotonic() + ANSWER_S_MAX
        pgconn.send_query(sql.encode())
        rows: list[Row] = []
        error: ServerError | None = None
        while True:
            while pgconn.is_busy():
                remaining_s = max(0.0, deadline_s - time.monotonic())
                if not select.select([pgconn.socket], [], [], remaining_s)[0]:
                    self._connection.close()  # nothing else can be asked on it now
                    raise Waited(f"no answer within {ANSWER_S_MAX:g} s: {sql}")
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            if result.status == pq.ExecStatus.FATAL_ERROR:
                error = _server_error(result)
            rows += [
                tuple(int(result.get_value(r, c) or b"") for c in range(result.nfields)) for r in range(result.ntuples)
            ]
        if error is not None:
            raise error
        return rows

    def commit(self) -> None:
        """COMMIT; see :meth:`run`."""
        self.run("COMMIT")

    def roll_back(self) -> None:
        """ROLLBACK; see :meth:`run`."""
        self.run("ROLLBACK")


def _server_error(result: pq.abc.PGresult) -> ServerError:
    state, message = (
        (result.error_field(field) or b"").decode()
        for field in (pq.DiagnosticField.SQLSTATE, pq.DiagnosticField.MESSAGE_PRIMARY)
    )
    return ServerError(state, message)
