"""Facts about Aurora DSQL as tests: each has a short id, the fact in words, and statements with their answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from psycopg import Connection, Error
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from dsql_server.testing import LocalCluster
from dsql_server.testing.clean import drop_user_objects


class Refused(NamedTuple):
    """An error; detail and hint are compared where they are given."""

    sqlstate: str
    message: str
    detail: str | None = None
    hint: str | None = None


class Done(NamedTuple):
    """A result: its tag, and the names of columns and the rows (as text) where they are given."""

    tag: str | None = None
    columns: list[str] | None = None
    rows: list[tuple[str | None, ...]] | None = None


Answer = Refused | Done


_SETTLED = "-- until no job is at work"


class Step(NamedTuple):
    """A statement of one session. Several results of one text: ``answers`` in their order."""

    sql: str
    answers: tuple[Answer, ...]
    session: str = "one"
    simple: bool = False


@dataclass(frozen=True)
class Fact:
    """What is known, and how it shows."""

    name: str
    words: str
    steps: tuple[Step, ...]
    given: tuple[str, ...] = ()


#: A scene for what needs no more than a row.
ONE_ROW = ("CREATE TABLE t (id int PRIMARY KEY, a int)", "INSERT INTO t VALUES (1, 10)")


def rows(*found: tuple[str | None, ...] | str | None) -> Done:
    """A result with these rows; one column's values may stand for themselves."""
    return Done(rows=[row if isinstance(row, tuple) else (row,) for row in found])


def refused(message: str, sqlstate: str = "0A000", detail: str | None = None, hint: str | None = None) -> Refused:
    return Refused(sqlstate, message, detail, hint)


def says(sql: str, answer: Answer | str, session: str = "one") -> Step:
    """``answer``: a tag, or all of it."""
    return Step(sql, (Done(answer) if isinstance(answer, str) else answer,), session)


def request(sql: str, *answers: Answer | str, session: str = "one") -> Step:
    """One Query message with several statements and all of its results."""
    return Step(sql, tuple(Done(a) if isinstance(a, str) else a for a in answers), session, simple=True)


def settled() -> Step:
    """Wait until no job is at work."""
    return Step(_SETTLED, ())


def fact(name: str, words: str, *steps: Step, given: Iterable[str] = ()) -> Fact:
    return Fact(name, words, steps, tuple(given))


def refusals(prefix: str, words: str, *pairs: tuple[str, str] | tuple[str, str, str]) -> list[Fact]:
    """Facts of one kind: each statement with its message, and its SQLSTATE unless it is 0A000."""
    found = []
    for number, (sql, message, *state) in enumerate(pairs, 1):
        found.append(fact(f"{prefix}-{number:02}", f"{words}: {sql}", says(sql, refused(message, *state))))
    return found


def parametrized(facts: Iterable[Fact]) -> Callable[[Any], Any]:
    """``pytest.mark.parametrize`` over facts."""
    found = list(facts)
    assert len({f.name for f in found}) == len(found), "every fact has a name of its own"
    return pytest.mark.parametrize("fact", [pytest.param(f, id=f.name) for f in found])


#: Tags of statements that change nothing.
_HARMLESS = (
    "SELECT",
    "SHOW",
    "BEGIN",
    "START",
    "COMMIT",
    "ROLLBACK",
    "SET",
    "RESET",
    "EXPLAIN",
    "DEALLOCATE",
    "ANALYZE",
)
_WRITES = ("INSERT", "UPDATE", "DELETE", "COPY")
_CREATES = re.compile(r"CREATE TABLE (\w+)")


class Witness:
    """Sessions of one cluster that facts are tried on, each fact on a database with nothing but what it is given."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._sessions: dict[str, Connection] = {}
        self._standing: tuple[str, ...] | None = None  #: what made all that is there; None: something else is, too
        self._rows_changed = False

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()

    def session(self, name: str) -> Connection:
        found = self._sessions.get(name)
        if found is None or found.closed:
            found = self._sessions[name] = self._cluster.connect(autocommit=True)
        return found

    def confirm(self, fact: Fact, given: tuple[str, ...] = ()) -> None:
        """Run the fact's statements, after those that are given here and with the fact, and compare."""
        self._set_the_scene((*given, *fact.given))
        try:
            for step in fact.steps:
                if step.sql == _SETTLED:
                    self._cluster.wait_for_jobs()
                    continue
                got = _run(self.session(step.session).pgconn, step)
                for answer in got:
                    if isinstance(answer, Done) and not (answer.tag or "").startswith(_HARMLESS):
                        self._rows_changed = True
                        if not (answer.tag or "").startswith(_WRITES):
                            self._standing = None
                wanted = [_comparable(a, g) for a, g in zip(step.answers, got, strict=False)]
                assert got[: len(wanted)] == wanted and len(got) == len(step.answers), f"{fact.words}\n{step.sql}"
        finally:
            sets = any(step.sql.upper().startswith(("SET", "RESET")) for step in fact.steps)
            for name, session in list(self._sessions.items()):
                if sets or name != "one" or session.closed:
                    self._sessions.pop(name).close()
                else:
                    session.pgconn.exec_(b"ROLLBACK")

    def _set_the_scene(self, given: tuple[str, ...]) -> None:
        one = self.session("one")
        if self._standing != given or (self._rows_changed and not _empty(one, given)):
            drop_user_objects(one)
            again = given
        else:
            again = tuple(sql for sql in given if self._rows_changed and sql.startswith("INSERT"))
        for sql in again:
            one.execute(sql.encode())
        self._standing, self._rows_changed = given, False


def _empty(session: Connection, given: tuple[str, ...]) -> bool:
    """Whether the tables could be emptied: more rows than a transaction may delete can't."""
    # What references comes behind what is referenced, and goes before it.
    for table in reversed([found[1] for sql in given if (found := _CREATES.match(sql))]):
        try:
            session.execute(f"DELETE FROM {table}".encode())
        except Error:
            return False
    return True


def _run(pgconn: PGconn, step: Step) -> list[Answer]:
    if not step.simple:
        return [_answer(pgconn.exec_params(step.sql.encode(), []))]
    pgconn.send_query(step.sql.encode())
    found = []
    while (result := pgconn.get_result()) is not None:
        found.append(_answer(result))
    return found


def _answer(result: PGresult) -> Answer:
    if result.status == ExecStatus.FATAL_ERROR:
        names = (
            DiagnosticField.SQLSTATE,
            DiagnosticField.MESSAGE_PRIMARY,
            DiagnosticField.MESSAGE_DETAIL,
            DiagnosticField.MESSAGE_HINT,
        )
        found = [None if (v := result.error_field(name)) is None else v.decode() for name in names]
        return Refused(found[0] or "", found[1] or "", found[2], found[3])
    columns = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
    values = [
        tuple(None if (v := result.get_value(r, c)) is None else v.decode() for c in range(result.nfields))
        for r in range(result.ntuples)
    ]
    return Done((result.command_status or b"").decode(), columns, values)


def _comparable(wanted: Answer, got: Answer) -> Answer:
    """What is wanted, completed by what it says nothing of."""
    if type(wanted) is not type(got):
        return wanted
    return type(wanted)(*(g if w is None else w for w, g in zip(wanted, got, strict=True)))
