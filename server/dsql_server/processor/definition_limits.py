"""How many objects a cluster may have (Aurora DSQL's limits), checked in the engine that ran a definition."""

from __future__ import annotations

from dsql_server.catalog.changes import CatalogChange
from dsql_server.processor.errors import SqlError

SCHEMAS_MAX = 10
TABLES_MAX = 1000
VIEWS_MAX = 5000
SEQUENCES_MAX = 5000
INDEXES_A_TABLE_MAX = 24
COLUMNS_A_TABLE_MAX = 255
STATISTICS_A_TABLE_MAX = 5

_RELATIONS_SQL = (
    "SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind = '{}' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'sys')"
)
#: Statement tag: (limit, what Aurora DSQL says, what counts the objects).
_COUNTED = {
    "CREATE SCHEMA": (
        SCHEMAS_MAX,
        f"more than {SCHEMAS_MAX} schemas not allowed",
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' "
        "AND nspname NOT IN ('information_schema', 'sys', 'public')",
    ),
    "CREATE TABLE": (
        TABLES_MAX,
        f"creating more than {TABLES_MAX} tables not allowed",
        _RELATIONS_SQL.format("r"),
    ),
    "CREATE VIEW": (
        VIEWS_MAX,
        f"creating more than {VIEWS_MAX} views not allowed",
        _RELATIONS_SQL.format("v"),
    ),
    "CREATE SEQUENCE": (
        SEQUENCES_MAX,
        f"creating more than {SEQUENCES_MAX} sequences is not allowed",
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_sequence",
    ),
    "CREATE STATISTICS": (
        STATISTICS_A_TABLE_MAX,
        f"more than {STATISTICS_A_TABLE_MAX} extended statistics per table are not allowed",
        "SELECT coalesce(pg_catalog.max(n), 0) FROM (SELECT pg_catalog.count(*) AS n FROM pg_catalog.pg_statistic_ext "
        "GROUP BY stxrelid) AS counted",
    ),
}
#: A schema may come with tables and views of its own.
_WITH_ELEMENTS = {"CREATE SCHEMA": ("CREATE SCHEMA", "CREATE TABLE", "CREATE VIEW")}


def counting_sql(tag: str) -> list[str]:
    """The queries that :func:`check_counts` wants the answers of, for a statement with this tag."""
    return [_COUNTED[name][2] for name in _WITH_ELEMENTS.get(tag, (tag,)) if name in _COUNTED]


def check_counts(tag: str, counts: list[int]) -> None:
    """Raises SqlError if there are more objects than allowed. ``counts`` answer :func:`counting_sql`."""
    names = [name for name in _WITH_ELEMENTS.get(tag, (tag,)) if name in _COUNTED]
    for name, count in zip(names, counts, strict=True):
        limit, message, _ = _COUNTED[name]
        if count > limit:
            raise SqlError("54000", message)


def check_tables(change: CatalogChange) -> None:
    """Raises SqlError if a table of the change has too many columns or indexes."""
    for table in change.upserts:
        if sum(not column.dropped for column in table.columns) > COLUMNS_A_TABLE_MAX:
            raise SqlError("54011", f"tables can have at most {COLUMNS_A_TABLE_MAX} columns")
        if len(table.indexes) + (table.primary_key is not None) > INDEXES_A_TABLE_MAX:
            raise SqlError("54000", f"more than {INDEXES_A_TABLE_MAX} indexes per table are not allowed")
