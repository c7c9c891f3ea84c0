"""NOT NULL on a column that is there already: in DSQL a CHECK, added NOT VALID and validated."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import CheckConstraint, Column, MetaData, Table, schema

_IS_NOT_NULL = re.compile(r'\(?"?(?P<column>[^"()]+)"? IS NOT NULL\)?', re.IGNORECASE)
_NAME_MAX = 63  #: bytes of an identifier


class NotNullCheck:
    """The CHECK that stands for a column's NOT NULL."""

    @staticmethod
    def _constraint(table_name: str, column_name: str, schema_name: str | None, name: str | None) -> CheckConstraint:
        column: Column[Any] = Column(column_name)
        table = Table(table_name, MetaData(), column, schema=schema_name)
        constraint = CheckConstraint(
            column.is_not(None), name=name or f"{table_name}_{column_name}_not_null"[:_NAME_MAX]
        )
        table.append_constraint(constraint)
        return constraint

    @classmethod
    def add(cls, table_name: str, column_name: str, schema_name: str | None) -> schema.AddConstraint:
        """The statement that adds it; what follows validates it."""
        return schema.AddConstraint(cls._constraint(table_name, column_name, schema_name, None))

    @classmethod
    def drop(cls, table_name: str, column_name: str, schema_name: str | None, name: str) -> schema.DropConstraint:
        """The statement that drops it."""
        return schema.DropConstraint(cls._constraint(table_name, column_name, schema_name, name))


def not_null_columns(inspector: Any, table_name: str, schema_name: str | None) -> dict[str, str]:
    """Columns that a validated CHECK keeps from being NULL, with its name."""
    found: dict[str, str] = {}
    for check in inspector.get_check_constraints(table_name, schema=schema_name):
        match = _IS_NOT_NULL.fullmatch(check["sqltext"].strip())
        if match is not None and not check.get("dialect_options", {}).get("not_valid"):
            found[match["column"]] = check["name"]
    return found
