"""Schema changes."""

from __future__ import annotations

from django.db.backends.postgresql.schema import DatabaseSchemaEditor as PostgresqlSchemaEditor


class DatabaseSchemaEditor(PostgresqlSchemaEditor):
    """Schema changes."""
