"""SQL that differs from PostgreSQL's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.backends.postgresql.operations import DatabaseOperations as PostgresqlOperations


class DatabaseOperations(PostgresqlOperations):
    """SQL that differs from PostgreSQL's."""

    cast_data_types = {
        "AutoField": "bigint",
        "BigAutoField": "bigint",
        "SmallAutoField": "bigint",
        # The types of these fields are bigint where they stand for a key; as expressions they are what they say.
        "IntegerField": "integer",
        "SmallIntegerField": "smallint",
    }

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
        """One DELETE a table: there is no TRUNCATE."""
        return [f"DELETE FROM {self.quote_name(table)};" for table in tables]
