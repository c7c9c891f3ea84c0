"""DDL elements that take more than one statement in DSQL, each of which is a transaction of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import schema

from dsql_dialects.sqlalchemy.ddl import unique_constraint_name
from dsql_dialects.sqlalchemy.options import option


class Step(NamedTuple):
    """A statement that follows the one that a DDL element compiles to."""

    statement: str
    awaits_jobs: bool  #: whether the jobs that earlier steps began have to be finished before


def following_steps(element: Any, compiler: Any) -> list[Step]:
    """What has to follow ``element`` once it has been executed.

    A foreign key or check is added NOT VALID and then validated, unless the user asked for NOT VALID. A unique
    constraint of an existing table is made from an index, once that is built.
    """
    if not isinstance(element, schema.AddConstraint):
        return []
    constraint = element.element
    table = compiler.preparer.format_table(constraint.table)
    if isinstance(constraint, schema.UniqueConstraint):
        name = unique_constraint_name(compiler, constraint)
        return [Step(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}", awaits_jobs=True)]
    if option(constraint, "not_valid"):
        return []
    known = compiler.preparer.format_constraint(constraint) if constraint.name is not None else None
    if known is None:
        # Without a name there is nothing to say in VALIDATE CONSTRAINT.
        return []
    return [Step(f"ALTER TABLE ASYNC {table} VALIDATE CONSTRAINT {known}", awaits_jobs=False)]


def needs_unique_indexes(element: Any) -> bool:
    """Whether the statement refers to unique indexes, which have to be valid by then: a foreign key's target."""
    if isinstance(element, schema.CreateTable):
        return bool(element.element.foreign_keys)
    return isinstance(element, schema.AddConstraint) and isinstance(element.element, schema.ForeignKeyConstraint)
