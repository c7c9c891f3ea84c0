"""The same statements on the cluster under test and on a plain PostgreSQL 16, and the comparison of their answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
from psycopg import pq

from dsql_server.testing import LocalCluster


class Parameter(NamedTuple):
    """A bound value in one of the protocol's two formats; ``oid`` 0 leaves the type to the server."""

    value: bytes | None
    oid: int = 0
    binary: bool = False


@dataclass(frozen=True)
class Step:
    """One statement of a script.

    ``parameters`` None: the simple query protocol. ``name``: through a named prepared statement. ``ordered``: the
    order of the rows is part of the answer. ``ambiguous``: several rows may raise errors, and PostgreSQL's physical
    order says which comes first; only the class of the SQLSTATE is compared. ``then``: statements that follow in the
    same pipeline; the answer is the first error, or the last statement's.
    """

    sql: str
    parameters: tuple[Parameter, ...] | None = None
    binary_results: bool = False
    name: str | None = None
    ordered: bool = False
    ambiguous: bool = False
    then: tuple[Step, ...] = ()


@dataclass
class Answer:
    """What a client sees of a statement."""

    tag: str = ""
    columns: tuple[tuple[str, int], ...] = ()
    rows: list[tuple[bytes | None, ...]] = field(default_factory=list)
    error: tuple[str, str, str] | None = None  #: SQLSTATE, message, detail

    def comparable(self, step: Step) -> tuple[Any, ...]:
        """Equal for equal answers."""
        pipeline = (step, *step.then)
        if self.error is not None:
            ambiguous = any(each.ambiguous for each in pipeline)
            return ("error", self.error[0][:2]) if ambiguous else ("error", *self.error)
        rows: Any = self.rows if pipeline[-1].ordered else Counter(self.rows)
        return self.tag, self.columns, rows


class Client:
    """A connection on the wire protocol's level, so that answers are compared byte by byte."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._prepared: dict[str, str] = {}

    def run(self, step: Step) -> Answer:
        """Run one statement, and those that follow in its pipeline."""
        if not step.then:
            return _answer(self._send(step))
        connection = self.connection.pgconn
        connection.enter_pipeline_mode()
        for each in (step, *step.then):
            values = [p.value for p in each.parameters or ()]
            types = [p.oid for p in each.parameters or ()]
            formats = [int(p.binary) for p in each.parameters or ()]
            connection.send_query_params(each.sql.encode(), values, types, formats, int(each.binary_results))
        connection.pipeline_sync()
        answers = []
        while (result := connection.get_result()) is None or result.status != pq.ExecStatus.PIPELINE_SYNC:
            if result is not None:  # the end of one statement's results
                answers.append(_answer(result))
            assert connection.status == pq.ConnStatus.OK, "the connection is lost"
        connection.exit_pipeline_mode()
        # More answers than statements: COMMIT, which the Sync stands for, has failed.
        return next((answer for answer in answers if answer.error is not None), answers[-1])

    def forget_prepared(self) -> None:
        """Drop named statements: the next schema uses the names again."""
        for name in self._prepared:
            self.connection.pgconn.close_prepared(name.encode())
        self._prepared.clear()

    def _send(self, step: Step) -> pq.abc.PGresult:
        connection = self.connection.pgconn
        sql = step.sql.encode()
        if step.parameters is None:
            return connection.exec_(sql)
        values = [p.value for p in step.parameters]
        types = [p.oid for p in step.parameters]
        formats = [int(p.binary) for p in step.parameters]
        if step.name is None:
            return connection.exec_params(sql, values, types, formats, int(step.binary_results))
        if step.name not in self._prepared:
            prepared = connection.prepare(step.name.encode(), sql, types)
            if prepared.status != pq.ExecStatus.COMMAND_OK:
                return prepared
            self._prepared[step.name] = step.sql
        assert self._prepared[step.name] == step.sql, "one name, one statement"
        return connection.exec_prepared(step.name.encode(), values, formats, int(step.binary_results))


def _answer(result: pq.abc.PGresult) -> Answer:
    status = result.status
    if status == pq.ExecStatus.FATAL_ERROR:
        wanted = (pq.DiagnosticField.SQLSTATE, pq.DiagnosticField.MESSAGE_PRIMARY, pq.DiagnosticField.MESSAGE_DETAIL)
        state, message, detail = ((result.error_field(f) or b"").decode() for f in wanted)
        return Answer(error=(state, message, detail))
    if status == pq.ExecStatus.PIPELINE_ABORTED:
        return Answer()
    assert status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY), status
    columns = tuple(((result.fname(i) or b"").decode(), result.ftype(i)) for i in range(result.nfields))
    rows = [tuple(result.get_value(r, c) for c in range(result.nfields)) for r in range(result.ntuples)]
    return Answer((result.command_status or b"").decode(), columns, rows)


class Difference(AssertionError):
    """The two servers answered differently. ``steps`` is the script up to there."""

    def __init__(self, steps: list[Step], ours: Answer, theirs: Answer) -> None:
        self.steps = steps
        super().__init__(f"after {len(steps)} statements:\n  {steps[-1]!r}\n  ours:   {ours}\n  theirs: {theirs}")


class TwoServers:
    """The cluster and PostgreSQL side by side."""

    def __init__(self, cluster: LocalCluster, reference: psycopg.Connection[Any]) -> None:
        self._cluster = cluster
        self._reference = Client(reference)
        self._ours = Client(cluster.connect(autocommit=True))
        self.statements: Counter[str] = Counter()  #: by command tag, or by SQLSTATE
        self.rows = 0

    def close(self) -> None:
        self._ours.connection.close()

    def define(self, sql: str) -> None:
        """A DDL statement on both; a CREATE INDEX ASYNC is waited for."""
        theirs = self._reference.run(Step(sql.replace(" INDEX ASYNC ", " INDEX ")))
        ours = self._ours.run(Step(sql))
        if ours.error is not None or theirs.error is not None:
            raise AssertionError(f"{sql}\n  ours: {ours}\n  theirs: {theirs}")
        if " INDEX ASYNC " in sql:
            (job,) = ours.rows[0]
            assert job is not None
            waited = self._ours.run(Step(f"CALL sys.wait_for_job('{job.decode()}')"))
            assert waited.error is None, waited

    def run(self, steps: list[Step]) -> None:
        """Run a script on both; raises Difference at the first answer that differs.

        What follows an error in a block is left out, up to the block's end.
        """
        is_block = has_failed = False
        for at, step in enumerate(steps):
            if step.sql in ("COMMIT", "ROLLBACK"):
                is_block = has_failed = False
            elif has_failed:
                continue
            theirs, ours = self._reference.run(step), self._ours.run(step)
            self.statements[theirs.tag.split(" ")[0] if theirs.error is None else theirs.error[0]] += 1
            self.rows += len(theirs.rows)
            is_block = is_block or step.sql == "BEGIN"
            has_failed = is_block and theirs.error is not None
            if ours.comparable(step) != theirs.comparable(step):
                raise Difference(steps[: at + 1], ours, theirs)

    def reset(self) -> None:
        """End transactions on both, and forget prepared statements. A lost connection is made anew."""
        if self._ours.connection.pgconn.status != pq.ConnStatus.OK:
            self._ours = Client(self._cluster.connect(autocommit=True))
        for client in (self._reference, self._ours):
            client.run(Step("ROLLBACK"))
            client.forget_prepared()
