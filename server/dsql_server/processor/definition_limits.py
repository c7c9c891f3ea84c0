"""How many objects a cluster may have (Aurora DSQL's limits), checked in the engine that ran a definition."""

from __future__ import annotations

from dsql_server.catalog.changes import CatalogChange
from dsql_server.interfaces.limits import Limits
from dsql_server.processor.errors import SqlError

_RELATIONS_SQL = (
    "SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind = '{}' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'sys')"
)
#: Statement tag: (name of the limit, what Aurora DSQL says, what counts the objects).
_COUNTED = {
    "CREATE SCHEMA": (
        "schemas",
        "more than {} schemas not allowed",
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' "
        "AND nspname NOT IN ('information_schema', 'sys', 'public')",
    ),
    "CREATE TABLE": (
        "tables",
        "creating more than {} tables not allowed",
        _RELATIONS_SQL.format("r"),
    ),
    "CREATE VIEW": (
        "views",
        "creating more than {} views not allowed",
        _RELATIONS_SQL.format("v"),
    ),
    "CREATE SEQUENCE": (
        "sequences",
        "creating more than {} sequences is not allowed",
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_sequence",
    ),
    "CREATE STATISTICS": (
        "statistics_per_table",
        "more than {} extended statistics per table are not allowed",
        "SELECT coalesce(pg_catalog.max(n), 0) FROM (SELECT pg_catalog.count(*) AS n FROM pg_catalog.pg_statistic_ext "
        "GROUP BY stxrelid) AS counted",
    ),
}
#: A schema may come with tables and views of its own.
_WITH_ELEMENTS = {"CREATE SCHEMA": ("CREATE SCHEMA", "CREATE TABLE", "CREATE VIEW")}


def counting_sql(tag: str) -> list[str]:
    """The queries that :func:`check_counts` wants the answers of, for a statement with this tag."""
    return [_COUNTED[name][2] for name in _WITH_ELEMENTS.get(tag, (tag,)) if name in _COUNTED]


def check_counts(tag: str, counts: list[int], limits: Limits) -> None:
    """Raises SqlError if there are more objects than allowed. ``counts`` answer :func:`counting_sql`."""
    names = [name for name in _WITH_ELEMENTS.get(tag, (tag,)) if name in _COUNTED]
    for name, count in zip(names, counts, strict=True):
        limit_name, message, _ = _COUNTED[name]
        limit: int = getattr(limits, limit_name)
        if count > limit:
            raise SqlError("54000", message.format(limit))


def check_tables(change: CatalogChange, limits: Limits) -> None:
    """Raises SqlError if a table of the change has too many columns or indexes."""
    for table in change.upserts:
        if sum(not column.dropped for column in table.columns) > limits.columns_per_table:
            raise SqlError("54011", f"tables can have at most {limits.columns_per_table} columns")
        if len(table.indexes) + (table.primary_key is not None) > limits.indexes_per_table:
            raise SqlError("54000", f"more than {limits.indexes_per_table} indexes per table are not allowed")
