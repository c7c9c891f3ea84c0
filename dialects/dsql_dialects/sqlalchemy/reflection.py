"""Reflection: PostgreSQL's catalog queries, less what in DSQL is the same for every table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import __version__ as SQLALCHEMY_VERSION
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.base import PGDialect

#: Reflected options that say nothing in DSQL and that DDL refuses.
_INDEX_NOISE = ("postgresql_using", "postgresql_with", "postgresql_ops")
_ONLY_COLLATIONS = ("C", "default")

_LAST_BUILDS = text(
    "SELECT object_name, status FROM sys.jobs WHERE job_type = 'INDEX_BUILD' AND object_name = ANY (:names)"
    " ORDER BY start_time"
)

#: SQLAlchemy 2.0 doesn't tell valid indexes from others.
_TELLS_INVALID = not SQLALCHEMY_VERSION.startswith("2.0.")
_INVALID = text(
    "SELECT n.nspname, c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE NOT i.indisvalid"
)

Reflected = Iterable[tuple[Any, Any]]


class DSQLReflection(PGDialect):
    """Mixed into the dialect."""

    def get_multi_columns(self, connection: Any, *args: Any, **kw: Any) -> Reflected:
        for key, found in super().get_multi_columns(connection, *args, **kw):
            for column in found:
                if getattr(column["type"], "collation", None) in _ONLY_COLLATIONS:
                    column["type"].collation = None
            yield key, found

    def get_multi_pk_constraint(self, connection: Any, *args: Any, **kw: Any) -> Reflected:
        for key, found in super().get_multi_pk_constraint(connection, *args, **kw):
            # DSQL's primary key holds the whole row, whether or not one asked for it.
            found.pop("dialect_options", None)
            yield key, found

    def get_multi_table_options(self, connection: Any, *args: Any, **kw: Any) -> Reflected:
        # NotImplementedError with SQLAlchemy 2.0, as for every table of PostgreSQL.
        return [(key, {}) for key, _ in super().get_multi_table_options(connection, *args, **kw)]

    def get_multi_indexes(self, connection: Any, *args: Any, **kw: Any) -> Reflected:
        """As SQLAlchemy's. An index that can't be used yet, or ever, has ``postgresql_invalid`` among its
        ``dialect_options``, and its last build's status in ``dsql_build_status``: ``submitted``, ``processing`` or
        ``failed`` as in sys.jobs, or None if that is too long ago.
        """
        found = list(super().get_multi_indexes(connection, *args, **kw))
        if not _TELLS_INVALID and any(indexes for _, indexes in found):
            self._mark_invalid(connection, found)
        invalid = []
        for (schema, _), indexes in found:
            for index in indexes:
                options = index.get("dialect_options", {})
                for noise in _INDEX_NOISE:
                    options.pop(noise, None)
                if options.get("postgresql_invalid"):
                    invalid.append((schema or self.default_schema_name, index))
        if invalid:
            self._add_build_status(connection, invalid)
        return iter(found)

    def _mark_invalid(self, connection: Any, found: list[tuple[Any, Any]]) -> None:
        names = {tuple(row) for row in connection.execute(_INVALID)}
        for (schema, _), indexes in found:
            for index in indexes:
                if (schema or self.default_schema_name, index["name"]) in names:
                    index.setdefault("dialect_options", {})["postgresql_invalid"] = True

    def _add_build_status(self, connection: Any, invalid: list[tuple[str | None, Any]]) -> None:
        names = [f"{schema}.{index['name']}" for schema, index in invalid]
        last = dict(connection.execute(_LAST_BUILDS, {"names": names}).all())
        for name, (_, index) in zip(names, invalid, strict=True):
            index["dsql_build_status"] = last.get(name)
