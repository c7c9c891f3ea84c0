"""What makes ``TestCase`` work without savepoints.

Django wraps a test class and each of its tests in transactions, and undoes a test by a savepoint. DSQL has none, and
code that is tested shall find the transactions that it will find in the cloud: its outermost ``atomic`` block can fail
and be caught, and what is nested in that one has no savepoint of its own.

So, as long as all enclosing blocks are the test case's own, a savepoint is a COMMIT of what was written before, if
anything was, and rolling back to it is a ROLLBACK. What was committed on the way is undone when the block that it was
written in is rolled back: the rows of each table written to were read before that COMMIT, and only the difference is
put back. A test that commits nothing costs a ROLLBACK.

What a test does outside of such blocks is many transactions in production, and one here. Since a transaction takes
3,000 rows, it is committed in between, too, once it has become large.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from dsql_dialects.django.tables import (
    Columns,
    ForeignKey,
    affected_by,
    all_tables,
    columns_of,
    foreign_keys,
    referencing_first,
)

#: Rows put back in one transaction; DSQL takes 3,000.
ROWS_MAX = 2500

#: After so many written rows, a test's next transaction begins where it would begin in production.
ROWS_BEFORE_COMMIT = 500

_BLANKS = re.compile(r"\s+|--[^\n]*\n|/\*.*?\*/", re.DOTALL)
_WRITE = re.compile(
    r"(?:INSERT\s+INTO|UPDATE(?!\s+ONLY\b)|DELETE\s+FROM(?!\s+ONLY\b)|COPY)\s+"
    r"(?:\"((?:[^\"]|\"\")+)\"|(\w+)\b)(?!\s*\.)",
    re.IGNORECASE,
)
_READ = re.compile(r"(?:SELECT|SHOW|SET|VALUES|TABLE|EXPLAIN(?!.*\bANALYZE\b))\b", re.IGNORECASE | re.DOTALL)
_WRITING_WORD = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)


def tables_written(statement: str) -> frozenset[str] | None:
    """The tables that a statement names as its target; None if it may write anywhere."""
    position = 0
    while found := _BLANKS.match(statement, position):
        position = found.end()
    text = statement[position:].rstrip().rstrip(";")
    if ";" in text:
        return None
    if _READ.match(text):
        return frozenset()
    if found := _WRITE.match(text):
        # CTEs stand before INSERT, and an unquoted name is in lower case.
        quoted, bare = found.groups()
        return frozenset({quoted.replace('""', '"') if quoted else bare.lower()})
    if text[:4].upper() == "WITH" and not _WRITING_WORD.search(text):
        return frozenset()
    return None


Row = tuple["str | None", ...]


class Snapshot(NamedTuple):
    """The rows of a table, every value as text."""

    columns: Columns
    rows: Counter[Row]


class Change(NamedTuple):
    """A statement that changes one row, and its parameters."""

    statement: str
    values: Row


class Difference(NamedTuple):
    """What puts a table back."""

    removed: list[Change]
    put_back: list[Change]


class Level(NamedTuple):
    """A block of a test case, and what the tables held that were written to in it and committed since."""

    sid: str | None
    before: dict[str, Snapshot]


class Isolation:
    """Undoes what a test case commits. Belongs to one connection of a test run.

    :param connection: Django's connection; a second one is opened when something has to be read or put back.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._reader: Any = None
        self._levels = [Level(None, {})]
        self._written: set[str] = set()
        self._written_anywhere = False
        self._rows_written = 0  #: since the last COMMIT
        self.constraints_are_immediate = False  #: until the next statement or ROLLBACK
        self._writing_block: Any = None  #: the outermost block of the code that is tested, as of the last statement
        self._keys: list[ForeignKey] | None = None

    @property
    def in_test_case_only(self) -> bool:
        """Whether all open blocks are the test case's, and there is one."""
        blocks = self._connection.atomic_blocks
        return bool(blocks) and all(block._from_testcase for block in blocks)

    @property
    def wrote_nothing(self) -> bool:
        """Whether the test case's transaction has written nothing since its last COMMIT: there is nothing to check."""
        return self.in_test_case_only and not self._written and not self._written_anywhere

    def saw(self, statement: str) -> None:
        """Take note of a statement that is about to run."""
        blocks = self._connection.atomic_blocks
        if not blocks or not blocks[0]._from_testcase:
            return
        if self.constraints_are_immediate:
            self.constraints_are_immediate = False
            with self._connection.connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        block = next((block for block in blocks if not block._from_testcase), None)
        if self._rows_written >= ROWS_BEFORE_COMMIT and (block is None or block is not self._writing_block):
            self.keep_written()
        self._writing_block = block
        if self._written_anywhere:
            return
        tables = tables_written(statement)
        if tables is None:
            self._written_anywhere = True
        else:
            self._written |= tables

    def changed(self, rows: int) -> None:
        """A statement is over, and has changed so many rows, or read them if it didn't write."""
        if self._written or self._written_anywhere:
            self._rows_written += max(rows, 0)

    def savepoint(self, sid: str) -> None:
        """A block begins in the test case's: keep what it would lose when it fails."""
        self.keep_written()
        self._levels.append(Level(sid, {}))

    def release(self, sid: str) -> None:
        """A block has ended. What it left behind is its enclosing block's to undo."""
        if not any(level.sid == sid for level in self._levels):
            return
        while True:
            level = self._levels.pop()
            for table, snapshot in level.before.items():
                self._levels[-1].before.setdefault(table, snapshot)
            if level.sid == sid:
                return

    def rollback(self, sid: str) -> None:
        """A block has failed, or a test is over: undo everything since its savepoint."""
        self._connection.connection.rollback()
        self._forget_written()
        for position, level in enumerate(self._levels):
            if level.sid == sid:
                self._restore(self._levels[position:])

    def end(self) -> None:
        """The outermost block has ended, by a rollback or with its connection."""
        self._forget_written()
        self._restore(self._levels)
        self._levels = [Level(None, {})]
        self._keys = None

    def close(self) -> None:
        """Close the second connection, which is kept from class to class."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _forget_written(self) -> None:
        self._written.clear()
        self._written_anywhere = False
        self._rows_written = 0
        self.constraints_are_immediate = False

    def keep_written(self) -> None:
        """Commit what was written since the last COMMIT, so that it can be undone all the same."""
        if self._written or self._written_anywhere:
            before = self._levels[-1].before
            with self._cursor() as cursor:
                tables = all_tables(cursor) if self._written_anywhere else self._affected(cursor)
                for table in tables:
                    if table not in before:
                        before[table] = _read(cursor, table)
            self._connection.connection.commit()
        self._forget_written()

    def _affected(self, cursor: Any) -> set[str]:
        return affected_by(self._written, self._foreign_keys(cursor))

    def _foreign_keys(self, cursor: Any) -> list[ForeignKey]:
        if self._keys is None:
            self._keys = foreign_keys(cursor)
        return self._keys

    def _cursor(self) -> Any:
        """Of the second connection, which is in autocommit mode and sees what is committed."""
        if self._reader is None:
            self._reader = self._connection.copy()
            self._reader.settings_dict["OPTIONS"].pop("pool", None)  # whose connections are watched
        self._reader.close_if_unusable_or_obsolete()
        self._reader.ensure_connection()
        return self._reader.connection.cursor()

    def _restore(self, levels: Iterable[Level]) -> None:
        """Bring the tables of these levels, outermost first, back to what they held before."""
        before: dict[str, Snapshot] = {}
        for level in levels:
            for table, snapshot in level.before.items():
                before.setdefault(table, snapshot)
            level.before.clear()
        if not before:
            return
        with self._cursor() as cursor:
            order = referencing_first(before, self._foreign_keys(cursor))
            removed: list[Change] = []
            put_back: list[Change] = []
            for table in order:
                difference = _difference(table, _read(cursor, table, before[table].columns), before[table])
                removed += difference.removed
                put_back[:0] = difference.put_back
            changes = removed + put_back
        for start in range(0, len(changes), ROWS_MAX):
            batch = changes[start : start + ROWS_MAX]
            self._reader.connection.run_transaction(lambda connection, batch=batch: _apply(connection, batch))


def _apply(connection: Any, changes: Iterable[Change]) -> None:
    with connection.cursor() as cursor:
        for change in changes:
            cursor.execute(change.statement, change.values)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def _read(cursor: Any, table: str, columns: Columns | None = None) -> Snapshot:
    columns = columns or columns_of(cursor, table)
    if not columns.stored:
        return Snapshot(columns, Counter())
    texts = ", ".join(f"{_quoted(column)}::text" for column in columns.stored)
    cursor.execute(f"SELECT {texts} FROM {_quoted(table)}", ())
    return Snapshot(columns, Counter(tuple(row) for row in cursor.fetchall()))


def _difference(table: str, now: Snapshot, then: Snapshot) -> Difference:
    """What turns ``now`` into ``then``: rows are removed, changed in place (their keys are referenced) or added."""
    columns = then.columns
    positions = [columns.stored.index(name) for name in columns.key]

    def key_of(row: Row) -> Row:
        return tuple(row[position] for position in positions)

    surplus, missing = list((now.rows - then.rows).elements()), list((then.rows - now.rows).elements())
    stays = {key_of(row) for row in missing} & {key_of(row) for row in surplus} if columns.key else set()
    where = " AND ".join(f"{_quoted(name)} = %s" for name in columns.key)
    if not columns.key:
        where = " AND ".join(f"{_quoted(name)}::text IS NOT DISTINCT FROM %s" for name in columns.stored)
    delete = f"DELETE FROM {_quoted(table)} WHERE {where}"
    update = (
        f"UPDATE {_quoted(table)} SET {', '.join(f'{_quoted(name)} = %s' for name in columns.stored)} WHERE {where}"
    )
    names = ", ".join(map(_quoted, columns.stored))
    places = ", ".join("%s" for _ in columns.stored)
    insert = f"INSERT INTO {_quoted(table)} ({names}) OVERRIDING SYSTEM VALUE VALUES ({places})"
    return Difference(
        [Change(delete, key_of(row) or row) for row in surplus if key_of(row) not in stays],
        [Change(update, row + key_of(row)) if key_of(row) in stays else Change(insert, row) for row in missing],
    )
