"""Reading the catalog."""

from __future__ import annotations

from django.db.backends.postgresql.introspection import DatabaseIntrospection as PostgresqlIntrospection


class DatabaseIntrospection(PostgresqlIntrospection):
    """PostgreSQL's catalog, where indexes are of the access method ``btree_index``."""

    index_default_access_method = "btree_index"
