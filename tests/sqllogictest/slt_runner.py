"""Runs a file on the cluster and on plain PostgreSQL in step, and judges every answer.

The corpus is SQLite's: here and there PostgreSQL itself answers otherwise. An answer is wrong if neither the file nor
PostgreSQL gives it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from slt_format import Query, Record, Script, Statement
from slt_servers import FEATURE_NOT_SUPPORTED, Server
from slt_values import Answer, are_expected, digest, formatted

#: INSERTs that follow each other share a transaction of at most so many; DSQL takes 3,000 rows.
INSERTS_PER_TRANSACTION_MAX = 1000
#: What DSQL refuses by design, where PostgreSQL doesn't.
REFUSALS = frozenset({FEATURE_NOT_SUPPORTED})


@dataclass(frozen=True)
class Wrong:
    """An answer that neither the file nor PostgreSQL gives."""

    record: Record
    ours: Answer
    theirs: Answer

    def __str__(self) -> str:
        expected = self.record.expected if isinstance(self.record, Query) else f"fails: {self.record.fails}"
        return (
            f"line {self.record.line}: {self.record.sql}\n  file:       {expected}"
            f"\n  ours:       {_brief(self.ours)}\n  PostgreSQL: {_brief(self.theirs)}"
        )


@dataclass
class Report:
    """What became of a file's records. A record is passed, dialect, refused or wrong."""

    statements: int = 0
    queries: int = 0
    passed: int = 0
    dialect: int = 0  #: PostgreSQL gives our answer, the file another
    refused: Counter[str] = field(default_factory=Counter)  #: by SQLSTATE and message
    wrong: list[Wrong] = field(default_factory=list)


@dataclass
class _Side:
    """A server, and the hashes of what it answered to labelled queries."""

    server: Server
    labels: dict[str, str] = field(default_factory=dict)

    def is_as_expected(self, record: Record, answer: Answer) -> bool:
        if isinstance(record, Statement):
            return (answer.sqlstate is not None) == record.fails
        values = formatted(answer, record)
        if values is None:
            return False
        is_same = record.label is None or self.labels.setdefault(record.label, digest(values)) == digest(values)
        return is_same and are_expected(values, record.expected)


def run(script: Script, ours: Server, theirs: Server) -> Report:
    """Run a script on both servers, from empty databases.

    :raises psycopg.OperationalError: a connection was lost.
    """
    report = Report()
    us, them = _Side(ours), _Side(theirs)
    for side in (us, them):
        side.server.clear()
    for batch in _batches(script.records):
        report.statements += sum(isinstance(record, Statement) for record in batch)
        report.queries += sum(isinstance(record, Query) for record in batch)
        if len(batch) > 1 and ours.run_together([record.sql for record in batch]):
            failed = [record for record in batch if theirs.run(record.sql).sqlstate is not None]
            assert not failed, f"PostgreSQL fails where we don't, in line {failed[0].line}: {failed[0].sql}"
            report.passed += len(batch)
            continue
        for record in batch:
            _judge(record, us, them, report)
    return report


def _judge(record: Record, us: _Side, them: _Side, report: Report) -> None:
    ours, theirs = us.server.run(record.sql), them.server.run(record.sql)
    is_theirs_expected = them.is_as_expected(record, theirs)
    if us.is_as_expected(record, ours):
        report.passed += 1
    elif ours.sqlstate in REFUSALS and theirs.sqlstate is None:
        report.refused[f"{ours.sqlstate} {ours.message}"] += 1
    elif not is_theirs_expected and _are_equal(record, ours, theirs):
        report.dialect += 1
    else:
        report.wrong.append(Wrong(record, ours, theirs))


def _are_equal(record: Record, ours: Answer, theirs: Answer) -> bool:
    if ours.sqlstate is not None or theirs.sqlstate is not None or isinstance(record, Statement):
        return ours.sqlstate == theirs.sqlstate
    if len(ours.column_types) != len(record.types):
        return sorted(map(str, ours.rows)) == sorted(map(str, theirs.rows))
    return formatted(ours, record) == formatted(theirs, record)


def _batches(records: tuple[Record, ...]) -> Iterator[list[Record]]:
    """Runs of INSERTs that have to work, and every other record alone."""
    batch: list[Record] = []
    for record in records:
        is_insert = isinstance(record, Statement) and not record.fails and record.sql.upper().startswith("INSERT")
        if batch and (not is_insert or len(batch) == INSERTS_PER_TRANSACTION_MAX):
            yield batch
            batch = []
        if is_insert:
            batch.append(record)
        else:
            yield [record]
    if batch:
        yield batch


def _brief(answer: Answer) -> str:
    if answer.sqlstate is not None:
        return f"{answer.sqlstate} {answer.message}"
    shown = ", ".join(str(row) for row in answer.rows[:20])
    return f"{len(answer.rows)} rows: {shown}"
