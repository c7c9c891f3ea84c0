"""SQL that differs from PostgreSQL's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.operations import BaseDatabaseOperations
from django.db.backends.postgresql.operations import DatabaseOperations as PostgresqlOperations

from dsql_dialects.django.flush import DeleteAll, empty_tables
from dsql_dialects.django.tables import foreign_keys, referencing


class DatabaseOperations(PostgresqlOperations):
    """SQL that differs from PostgreSQL's."""

    compiler_module = "dsql_dialects.django.compiler"

    cast_data_types = {
        "AutoField": "bigint",
        "BigAutoField": "bigint",
        "SmallAutoField": "bigint",
        # The types of these fields are bigint where they stand for a key; as expressions they are what they say.
        "IntegerField": "integer",
        "SmallIntegerField": "smallint",
    }

    def prepare_sql_script(self, sql: str) -> list[str]:
        """The script's statements: each of a RunSQL operation's is a transaction of its own."""
        statements: list[str] = BaseDatabaseOperations.prepare_sql_script(self, sql)
        return statements

    def tablespace_sql(self, tablespace: str, inline: bool = False) -> str:
        """Nothing: there are no tablespaces, and Django ignores those of models where there are none."""
        return ""

    def adapt_ipaddressfield_value(self, value: str | None) -> str | None:
        """Addresses are stored as text: inet can't be stored."""
        return value or None

    def lookup_cast(self, lookup_type: str, internal_type: str | None = None) -> str:
        """As PostgreSQL's, for addresses that are text."""
        if internal_type in ("IPAddressField", "GenericIPAddressField"):
            internal_type = "CharField"
        lookup: str = super().lookup_cast(lookup_type, internal_type)
        return lookup

    def sql_flush(
        self, style: Any, tables: Sequence[str], *, reset_sequences: bool = False, allow_cascade: bool = False
    ) -> list[str]:
        """One DELETE a table, because there is no TRUNCATE, and then the sequences."""
        names = list(tables)
        if allow_cascade and names:
            with self.connection.cursor() as cursor:
                names += sorted(referencing(names, foreign_keys(cursor)))
        statements: list[str] = [DeleteAll(f"DELETE FROM {self.quote_name(table)};", table) for table in names]
        if reset_sequences:
            with self.connection.cursor() as cursor:
                sequences = [found for table in names for found in self._sequences(cursor, table)]
            statements += self.sequence_reset_by_name_sql(style, sequences)
        return statements

    def execute_sql_flush(self, sql_list: Sequence[str]) -> None:
        """Empty the tables in as many transactions as DSQL's limits need, then run the other statements."""
        empty_tables(self.connection, [statement.table for statement in sql_list if isinstance(statement, DeleteAll)])
        with self.connection.cursor() as cursor:
            for statement in sql_list:
                if not isinstance(statement, DeleteAll):
                    cursor.execute(statement)

    def _sequences(self, cursor: Any, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.connection.introspection.get_sequences(cursor, table)
        return found
