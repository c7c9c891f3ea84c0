"""The dialect's options on indexes, constraints and tables.

They are PostgreSQL's, by PostgreSQL's names (``postgresql_include`` …), so that models serve both; the official
dialect's names (``auroradsql_include`` …) say the same. SQLAlchemy takes no underscore in the prefix of an option, so
those of ``aws_dsql`` can be given in ``dialect_options`` only.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import schema

PREFIXES = ("aws_dsql", "postgresql", "auroradsql")

#: Options of the official dialect's names, and their defaults.
OFFICIAL_ARGUMENTS: list[tuple[Any, dict[str, Any]]] = [
    (schema.Index, {"include": None, "nulls_not_distinct": None, "where": None}),
    (schema.PrimaryKeyConstraint, {"include": None}),
    (schema.UniqueConstraint, {"include": None, "nulls_not_distinct": None}),
    (schema.CheckConstraint, {"not_valid": False}),
    (schema.ForeignKeyConstraint, {"not_valid": False}),
]

#: What an option has that nobody gave, where that isn't None.
_DEFAULTS: dict[str, Any] = {"using": False, "ops": {}, "with": {}, "concurrently": False, "not_valid": False}


def option(element: Any, name: str) -> Any:
    """The value that the user gave, by whichever name; None if none was given."""
    if not element.dialect_options:  # nobody gave any
        return None
    for prefix in PREFIXES:
        given = element.dialect_options.get(prefix, {})  # which doesn't look for a dialect by that name
        value = given.get(name, None)
        if value is not None and not (name in _DEFAULTS and value == _DEFAULTS[name]):
            return value
    return None
