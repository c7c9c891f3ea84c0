"""Test databases."""

from __future__ import annotations

from django.db.backends.postgresql.creation import DatabaseCreation as PostgresqlCreation


class DatabaseCreation(PostgresqlCreation):
    """Test databases."""
