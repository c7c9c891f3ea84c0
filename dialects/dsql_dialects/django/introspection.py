"""Reading the catalog."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql.introspection import DatabaseIntrospection as PostgresqlIntrospection
from django.db.models import Index

from dsql_dialects.django.schema_names import NOT_NULL_SUFFIX
from dsql_dialects.django.schema_notes import JOURNAL_TABLE

#: What pg_am calls the one kind of index that there is; older answers have PostgreSQL's name.
INDEX_ACCESS_METHODS = ("btree_index", "btree")

_NOT_NULL_CHECKS = """
    SELECT k.conname, a.attname
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
    WHERE c.relname = %s AND pg_table_is_visible(c.oid) AND k.contype = 'c' AND k.convalidated
    AND cardinality(k.conkey) = 1 AND right(k.conname, %s) = %s
    AND pg_get_constraintdef(k.oid) LIKE 'CHECK ((%% IS NOT NULL))'
"""


class DatabaseIntrospection(PostgresqlIntrospection):
    """PostgreSQL's catalog, where indexes are of the access method ``btree_index``.

    A column that was made NOT NULL after its creation has a check in the place of it; it is reported as NOT NULL, and
    the check isn't.
    """

    index_default_access_method = INDEX_ACCESS_METHODS[0]
    ignored_tables = [*PostgresqlIntrospection.ignored_tables, JOURNAL_TABLE]

    def get_table_description(self, cursor: Any, table_name: str) -> list[Any]:
        """The columns of a table."""
        columns: list[Any] = super().get_table_description(cursor, table_name)
        not_null = set(self._not_null_checks(cursor, table_name).values())
        return [column._replace(null_ok=False) if column.name in not_null else column for column in columns]

    def get_constraints(self, cursor: Any, table_name: str) -> dict[str, dict[str, Any]]:
        """The constraints and indexes of a table."""
        constraints: dict[str, dict[str, Any]] = super().get_constraints(cursor, table_name)
        for name in self._not_null_checks(cursor, table_name):
            constraints.pop(name, None)
        for name, found in constraints.items():
            # A cluster says btree_index, and has no other kind.
            if found["index"] and found["type"] in INDEX_ACCESS_METHODS:
                found["type"] = "btree" if name.endswith("_btree") else Index.suffix
                found["orders"] = ["ASC"] * len(found["columns"])
        return constraints

    def _not_null_checks(self, cursor: Any, table_name: str) -> dict[str, str]:
        """Checks that stand for NOT NULL, each with its column."""
        cursor.execute(_NOT_NULL_CHECKS, [table_name, len(NOT_NULL_SUFFIX), NOT_NULL_SUFFIX])
        return dict(cursor.fetchall())
