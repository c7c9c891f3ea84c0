"""What the catalog says about tables that hold rows to be removed or put back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class ForeignKey(NamedTuple):
    """One foreign key between two tables that are found by their bare names."""

    table: str
    referenced: str
    changes_rows: bool  #: ON DELETE or ON UPDATE does something to the referencing rows


class Columns(NamedTuple):
    """The columns of a table."""

    stored: tuple[str, ...]  #: all but generated ones
    key: tuple[str, ...]  #: of the primary key; empty without one


_FOREIGN_KEYS = """
    SELECT c.relname, r.relname, k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class r ON r.oid = k.confrelid
    WHERE k.contype = 'f' AND pg_table_is_visible(c.oid) AND pg_table_is_visible(r.oid)
"""

_TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND pg_table_is_visible(c.oid)
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'sys') ORDER BY 1
"""

_COLUMNS = """
    SELECT a.attname, coalesce(a.attnum = ANY (i.indkey), false)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
    WHERE c.relname = %s AND pg_table_is_visible(c.oid) AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attgenerated = '' ORDER BY a.attnum
"""


def all_tables(cursor: Any) -> list[str]:
    """The names of all tables that the connection sees."""
    cursor.execute(_TABLES)
    return [name for (name,) in cursor.fetchall()]


def foreign_keys(cursor: Any) -> list[ForeignKey]:
    """All foreign keys between tables that the connection sees."""
    cursor.execute(_FOREIGN_KEYS)
    return [ForeignKey(*row) for row in cursor.fetchall()]


def columns_of(cursor: Any, table: str) -> Columns:
    """The columns of a table; none if there is no such table."""
    cursor.execute(_COLUMNS, [table])
    rows = cursor.fetchall()
    return Columns(tuple(name for name, _ in rows), tuple(name for name, in_key in rows if in_key))


def referencing_first(tables: Iterable[str], keys: Iterable[ForeignKey]) -> list[str]:
    """``tables`` so that each stands before those that it references; as far as cycles allow."""
    wanted = set(tables)
    references: dict[str, set[str]] = {table: set() for table in sorted(wanted)}
    for key in keys:
        if key.table in wanted and key.referenced in wanted and key.table != key.referenced:
            references[key.table].add(key.referenced)
    ordered: list[str] = []
    visiting: set[str] = set()

    def visit(table: str) -> None:
        if table in visiting:
            return
        visiting.add(table)
        for referenced in sorted(references[table]):
            visit(referenced)
        ordered.append(table)

    for table in references:
        visit(table)
    return ordered[::-1]


def affected_by(tables: Iterable[str], keys: Iterable[ForeignKey]) -> set[str]:
    """``tables`` and those whose rows a change to them can change by a foreign key's action."""
    dependents: dict[str, set[str]] = {}
    for key in keys:
        if key.changes_rows:
            dependents.setdefault(key.referenced, set()).add(key.table)
    affected: set[str] = set()
    waiting = list(tables)
    while waiting:
        table = waiting.pop()
        if table not in affected:
            affected.add(table)
            waiting.extend(dependents.get(table, ()))
    return affected


def referencing(tables: Iterable[str], keys: Iterable[ForeignKey]) -> set[str]:
    """The tables beside ``tables`` that reference them, directly or through others."""
    given = set(tables)
    found = set(given)
    edges = list(keys)
    while more := {key.table for key in edges if key.referenced in found} - found:
        found |= more
    return found - given
