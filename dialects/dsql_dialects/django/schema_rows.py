"""Moving many rows, each batch a transaction below DSQL's limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import DatabaseError, NotSupportedError

from dsql_dialects.django.schema_steps import Backfill, CopyRows, DeleteVanished, RestartIdentity

#: Rows a transaction; DSQL allows 3,000 changed ones, and 10 MiB.
BATCH_ROWS_MAX = 2000

#: "transaction row limit exceeded", "transaction size limit 10mb exceeded".
PROGRAM_LIMIT_EXCEEDED = "54000"


class RowMover:
    """Runs the steps that change rows, over a Django connection in autocommit mode.

    Each batch is one statement, which the connector runs again if it loses to a concurrent transaction. Running a step
    again after an interruption does what is left.
    """

    def __init__(self, connection: Any, batch_rows: int = BATCH_ROWS_MAX) -> None:
        self._connection = connection
        self._batch_rows = batch_rows

    def backfill(self, step: Backfill) -> None:
        """Fill a column.

        :raises NotSupportedError: for a table without primary key that has more rows than a transaction can change.
        """
        sql = f"UPDATE {step.table} SET {step.assignment} WHERE ({step.where})"
        self._in_batches(step.table, step.key, sql)

    def copy(self, step: CopyRows) -> None:
        """Copy a table's rows into another one.

        :raises NotSupportedError: as :meth:`backfill`.
        """
        kept = step.key_is_kept and step.key
        if not kept:
            self.clear(step.target)
        matched = " AND ".join(f"n.{column} = {step.source}.{column}" for column in step.key)
        missing = f"NOT EXISTS (SELECT 1 FROM {step.target} n WHERE {matched})" if kept else "true"
        sql = (
            f"INSERT INTO {step.target} ({', '.join(step.columns)}) SELECT {', '.join(step.expressions)} "
            f"FROM {step.source} WHERE {missing}"
        )
        self._in_batches(step.source, step.key, sql)

    def delete_vanished(self, step: DeleteVanished) -> None:
        """Delete copies of rows that were deleted since."""
        matched = " AND ".join(f"o.{column} = {step.target}.{column}" for column in step.key)
        sql = f"DELETE FROM {step.target} WHERE NOT EXISTS (SELECT 1 FROM {step.source} o WHERE {matched})"
        self._in_batches(step.target, step.key, sql)

    def restart_identity(self, step: RestartIdentity) -> None:
        """Set the identity's next value."""
        quoted = self._connection.ops.quote_name(step.column)
        (highest,) = self._row(f"SELECT coalesce(max({quoted}), 0) FROM {step.target}")
        if step.source_has_identity:
            (sequence,) = self._row("SELECT pg_get_serial_sequence(%s, %s)", (step.source, step.column))
            last, is_called = self._row(f"SELECT last_value, is_called FROM {sequence}")
            highest = max(highest, last if is_called else last - 1)
        (sequence,) = self._row("SELECT pg_get_serial_sequence(%s, %s)", (step.target, step.column))
        self._run(f"ALTER SEQUENCE {sequence} RESTART WITH {int(highest) + 1}", ())

    def clear(self, table: str) -> None:
        """Delete what an interrupted copy left, in batches."""
        while self._row(f"SELECT EXISTS (SELECT 1 FROM {table})") == (True,):
            key = self._primary_key(table)
            if not key:
                self._run(f"DELETE FROM {table}", ())
                return
            columns = ", ".join(key)
            self._run(
                f"DELETE FROM {table} WHERE ({columns}) IN (SELECT {columns} FROM {table} LIMIT {self._batch_rows})", ()
            )

    def _primary_key(self, table: str) -> list[str]:
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT quote_ident(a.attname) FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid "
                "AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1]) "
                "WHERE x.indisprimary AND x.indrelid = to_regclass(%s)",
                (table,),
            )
            return [name for (name,) in cursor.fetchall()]

    def _in_batches(self, table: str, key: Sequence[str], sql: str) -> None:
        """Run ``sql``, which ends in a condition, for one range of the key after the other."""
        if not key:
            self._all_at_once(table, sql)
            return
        columns = ", ".join(key)
        last: tuple[Any, ...] | None = None
        rows = self._batch_rows
        while True:
            after, values = _after(columns, last)
            where = f" WHERE {after}" if after else ""
            bound = self._row(
                f"SELECT {columns} FROM {table}{where} ORDER BY {columns} LIMIT 1 OFFSET {rows - 1}", values
            )
            range_sql, range_values = after, list(values)
            if bound is not None:
                up_to = f"({columns}) <= ({', '.join(['%s'] * len(key))})"
                range_sql, range_values = (f"{after} AND {up_to}" if after else up_to), [*values, *bound]
            try:
                self._run_range(sql, range_sql, range_values)
            except DatabaseError as error:
                if not _is_over_limit(error) or rows == 1:
                    raise
                rows = max(1, rows // 4)  # wide rows: less than 10 MiB a transaction
                continue
            if bound is None:
                return
            last = bound

    def _run_range(self, sql: str, range_sql: str, values: Sequence[Any]) -> None:
        if not range_sql:
            self._run(sql, ())
        else:
            # Only the range has placeholders.
            self._run(f"{sql.replace('%', '%%')} AND {range_sql}", values)

    def _all_at_once(self, table: str, sql: str) -> None:
        try:
            self._run(sql, ())
        except DatabaseError as error:
            if not _is_over_limit(error):
                raise
            raise NotSupportedError(
                f"{table} has no primary key and more rows than one transaction can change, so they can't be taken in "
                "batches; give it a primary key first"
            ) from error

    def _run(self, sql: str, values: Sequence[Any]) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values or None)

    def _row(self, sql: str, values: Sequence[Any] = ()) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchone()


def batch_sql(step: Backfill | CopyRows, batch_rows: int = BATCH_ROWS_MAX) -> Iterator[str]:
    """The statement to be repeated, for ``sqlmigrate``: it takes rows that are left until there are none."""
    yield f"-- Repeat until it changes no row: one transaction takes {batch_rows} rows at most."
    if isinstance(step, CopyRows):
        key = ", ".join(step.key)
        yield (
            f"INSERT INTO {step.target} ({', '.join(step.columns)}) SELECT {', '.join(step.expressions)} "
            f"FROM {step.source} WHERE ({key}) NOT IN (SELECT {key} FROM {step.target}) LIMIT {batch_rows};"
            if step.key and step.key_is_kept
            else f"INSERT INTO {step.target} ({', '.join(step.columns)}) SELECT {', '.join(step.expressions)} "
            f"FROM {step.source};"
        )
        return
    if not step.key:
        yield f"UPDATE {step.table} SET {step.assignment} WHERE {step.where};"
        return
    key = ", ".join(step.key)
    yield (
        f"UPDATE {step.table} SET {step.assignment} WHERE ({key}) IN "
        f"(SELECT {key} FROM {step.table} WHERE {step.where} LIMIT {batch_rows});"
    )


def _after(columns: str, last: tuple[Any, ...] | None) -> tuple[str, tuple[Any, ...]]:
    if last is None:
        return "", ()
    return f"({columns}) > ({', '.join(['%s'] * len(last))})", last


def _is_over_limit(error: BaseException) -> bool:
    cause = error.__cause__
    return PROGRAM_LIMIT_EXCEEDED in (getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None))
