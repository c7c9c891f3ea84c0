"""Emptying tables without TRUNCATE, in transactions that DSQL takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dsql_dialects.django.tables import columns_of, foreign_keys, referencing_first

#: Rows deleted at a time from a table that is too large for one transaction; leaves room for rows that go with them.
ROWS_AT_A_TIME = 1000

#: Tables asked about in one query.
TABLES_AT_A_TIME = 50

PROGRAM_LIMIT_EXCEEDED = "54000"


class DeleteAll(str):
    """``DELETE FROM table;`` that knows its table."""

    table: str

    def __new__(cls, statement: str, table: str) -> DeleteAll:
        """The statement as it is shown, for this table."""
        made = super().__new__(cls, statement)
        made.table = table
        return made


def empty_tables(connection: Any, tables: Sequence[str]) -> None:
    """Delete all rows of these tables: in one transaction if that is possible, else in batches.

    In batches, a table comes before those that it references.

    :param connection: Django's connection, outside of a transaction.
    """
    with connection.cursor() as cursor:
        filled = _filled(connection, cursor, tables)
        if not filled:
            return
        order = referencing_first(filled, foreign_keys(cursor))
        if _emptied_at_once(connection, order):
            return
        for table in order:
            _empty_in_batches(connection, cursor, table)


def is_over_limit(error: BaseException) -> bool:
    """Whether a transaction had more rows or bytes than DSQL takes."""
    cause = error.__cause__
    return PROGRAM_LIMIT_EXCEEDED in (getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None))


def _filled(connection: Any, cursor: Any, tables: Sequence[str]) -> list[str]:
    """The tables that have rows."""
    found: list[str] = []
    for start in range(0, len(tables), TABLES_AT_A_TIME):
        some = tables[start : start + TABLES_AT_A_TIME]
        questions = (
            f"SELECT {number} WHERE EXISTS (SELECT 1 FROM {connection.ops.quote_name(table)})"
            for number, table in enumerate(some)
        )
        cursor.execute(" UNION ALL ".join(questions))
        found.extend(some[number] for (number,) in cursor.fetchall())
    return found


def _emptied_at_once(connection: Any, tables: Iterable[str]) -> bool:
    from django.db import DatabaseError, transaction

    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            for table in tables:
                cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")
    except DatabaseError as error:
        if is_over_limit(error) and not connection.in_atomic_block:
            return False
        raise
    return True


def _empty_in_batches(connection: Any, cursor: Any, table: str) -> None:
    quote = connection.ops.quote_name
    columns = columns_of(cursor, table)
    key = ", ".join(map(quote, columns.key or columns.stored))
    batch = f"SELECT {key} FROM {quote(table)} LIMIT {ROWS_AT_A_TIME}"
    while True:
        cursor.execute(f"DELETE FROM {quote(table)} WHERE ({key}) IN ({batch})")
        if cursor.rowcount < ROWS_AT_A_TIME:
            return
