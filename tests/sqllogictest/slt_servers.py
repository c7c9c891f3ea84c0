"""The two servers that run the files: the cluster under test, and a plain PostgreSQL 16 to tell a dialect by."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Protocol

import psycopg
from psycopg import pq
from slt_values import Answer

from dsql_server.testing import LocalCluster
from dsql_server.testing.clean import drop_user_objects
from dsql_server.testing.plain_postgresql import plain_postgresql

FEATURE_NOT_SUPPORTED = "0A000"
#: The job of CREATE INDEX ASYNC ended without an index. No SQLSTATE: jobs don't say one.
JOB_FAILED = "job failed"
_CREATE_INDEX = re.compile(r"\s*CREATE\s+(UNIQUE\s+)?INDEX\s", re.IGNORECASE)
_SORT_ORDER = re.compile(r"\s+(DESC|ASC)\b", re.IGNORECASE)


class Server(Protocol):
    """Runs statements, each its own transaction."""

    def clear(self) -> None:
        """Drop everything that a file made."""

    def run(self, sql: str) -> Answer:
        """Run one statement."""

    def run_together(self, statements: list[str]) -> bool:
        """Run statements in one transaction; False when one failed, and then none has happened."""


class PlainServer:
    """Any PostgreSQL, through a psycopg connection in autocommit mode."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        assert connection.autocommit, "the runner says itself where transactions begin"
        self._connection = connection

    def clear(self) -> None:
        """Drop everything in the schema ``public``."""
        self._connection.execute("DROP SCHEMA public CASCADE")
        self._connection.execute("CREATE SCHEMA public")

    def run(self, sql: str) -> Answer:
        """Run one statement.

        :raises psycopg.OperationalError: the connection is lost.
        """
        result = self._connection.pgconn.exec_(sql.encode())
        if result.status == pq.ExecStatus.FATAL_ERROR:
            if self._connection.pgconn.status != pq.ConnStatus.OK:
                raise psycopg.OperationalError(f"the connection was lost in {sql}")
            state, message = (
                (result.error_field(field) or b"").decode()
                for field in (pq.DiagnosticField.SQLSTATE, pq.DiagnosticField.MESSAGE_PRIMARY)
            )
            return Answer(sqlstate=state, message=message)
        columns = range(result.nfields)
        rows = tuple(
            tuple(None if (v := result.get_value(r, c)) is None else v.decode() for c in columns)
            for r in range(result.ntuples)
        )
        return Answer(rows, tuple(result.ftype(c) for c in columns))

    def run_together(self, statements: list[str]) -> bool:
        """Run statements in one transaction; False when one failed, and then none has happened."""
        self.run("BEGIN")
        is_done = all(self.run(sql).sqlstate is None for sql in statements)
        return self.run("COMMIT" if is_done else "ROLLBACK").sqlstate is None and is_done


class DsqlServer(PlainServer):
    """The cluster: indexes are built by jobs, and waited for."""

    def clear(self) -> None:
        """Drop all that users made."""
        drop_user_objects(self._connection)

    def run(self, sql: str) -> Answer:
        """Run one statement, CREATE INDEX as CREATE INDEX ASYNC.

        A sort order of index columns, which DSQL doesn't take, is answered with its refusal; but then the index is
        built without, so that the file's queries still have one to use.
        """
        created = _CREATE_INDEX.match(sql)
        if created is None:
            return super().run(sql)
        asynchronous = f"{created[0]}ASYNC {sql[created.end() :]}"
        answer = super().run(asynchronous)
        if answer.sqlstate == FEATURE_NOT_SUPPORTED and _SORT_ORDER.search(sql):
            without_order = self._wait_for_job(super().run(_SORT_ORDER.sub("", asynchronous)))
            return answer if without_order.sqlstate is None else without_order
        return self._wait_for_job(answer)

    def _wait_for_job(self, started: Answer) -> Answer:
        if started.sqlstate is not None:
            return started
        ((job_id,),) = started.rows
        waited = super().run(f"CALL sys.wait_for_job('{job_id}')")
        if waited.sqlstate is not None:
            return waited
        return Answer() if waited.rows == (("t",),) else Answer(sqlstate=JOB_FAILED, message=f"job {job_id} failed")


@contextlib.contextmanager
def dsql(cluster: LocalCluster) -> Iterator[Server]:
    """The cluster as admin."""
    with cluster.connect(autocommit=True) as connection:
        yield DsqlServer(connection)


@contextlib.contextmanager
def postgresql() -> Iterator[Server]:
    """A PostgreSQL 16 of our own, for as long as the block lasts."""
    with plain_postgresql() as connection:
        yield PlainServer(connection)
