"""``manage.py dbshell``."""

from __future__ import annotations

from django.db.backends.postgresql.client import DatabaseClient as PostgresqlClient


class DatabaseClient(PostgresqlClient):
    """psql."""
