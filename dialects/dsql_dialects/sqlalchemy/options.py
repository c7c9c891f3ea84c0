"""The dialect's options on indexes, constraints and tables.

They are PostgreSQL's, by PostgreSQL's names (``postgresql_include`` …), so that models serve both; the official
dialect's names (``auroradsql_include`` …) say the same. SQLAlchemy takes no underscore in the prefix of an option, so
there are none by the name ``aws_dsql``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import schema

PREFIXES = ("postgresql", "auroradsql")

#: Options of the official dialect's names, and their defaults.
OFFICIAL_ARGUMENTS: list[tuple[Any, dict[str, Any]]] = [
    (schema.Index, {"include": None, "nulls_not_distinct": None, "where": None}),
    (schema.PrimaryKeyConstraint, {"include": None}),
    (schema.UniqueConstraint, {"include": None, "nulls_not_distinct": None}),
    (schema.CheckConstraint, {"not_valid": False}),
    (schema.ForeignKeyConstraint, {"not_valid": False}),
]


def option(element: Any, name: str) -> Any:
    """The value that the user gave, by whichever name; None if none was given."""
    given = element.dialect_kwargs
    for prefix in PREFIXES:
        if f"{prefix}_{name}" in given:
            return given[f"{prefix}_{name}"]
    return None
