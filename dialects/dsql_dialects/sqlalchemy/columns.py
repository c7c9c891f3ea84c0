"""What a column's declaration becomes in DSQL: identity columns, and the integers that refer to them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import exc
from sqlalchemy import types as sqltypes
from sqlalchemy.schema import Column, Identity, Sequence
from sqlalchemy.types import TypeEngine

from dsql_dialects.sqlalchemy.errors import UnsupportedError
from dsql_dialects.sqlalchemy.types import implementation

#: Values that a session takes from a sequence at once. DSQL wants it stated: 1, or at least this.
IDENTITY_CACHE = 65536

_IDENTITY_TYPE = sqltypes.BigInteger()


def is_generated(column: Column[Any], dialect: Any) -> bool:
    """Whether the database draws the column's values from a sequence of its own."""
    if column.identity is not None:
        return True
    table = column.table
    return (
        table is not None
        and column.primary_key
        and column is table._autoincrement_column
        and column.server_default is None
        and (column.default is None or (isinstance(column.default, Sequence) and column.default.optional))
        and isinstance(implementation(column.type, dialect), sqltypes.Integer)
    )


def stored_type(column: Column[Any], dialect: Any) -> TypeEngine[Any]:
    """The type to declare: BIGINT for every integer that a sequence feeds, and for what refers to one.

    DSQL's identity columns are BIGINT. A cache of 65,536 values a session leaves 32,767 sessions until an INTEGER is
    full, so foreign keys have to follow.
    """
    return _IDENTITY_TYPE if _is_widened(column, dialect, set()) else column.type


def _is_widened(column: Column[Any], dialect: Any, seen: set[int]) -> bool:
    found = implementation(column.type, dialect)
    if not isinstance(found, sqltypes.Integer) or isinstance(found, sqltypes.BigInteger) or id(column) in seen:
        return False
    seen.add(id(column))
    if is_generated(column, dialect) or isinstance(column.default, Sequence):
        return True
    for key in column.foreign_keys:
        try:
            target = key.column
        except exc.InvalidRequestError:  # the other table isn't known here
            continue
        if _is_widened(target, dialect, seen):
            return True
        target_type = implementation(target.type, dialect)
        if isinstance(target_type, sqltypes.BigInteger) and is_generated(target, dialect):
            return True
    return False


def check_identity_type(column: Column[Any], dialect: Any) -> None:
    """Refuse identity columns that are no integers.

    :raises UnsupportedError: naming the column.
    """
    if column.identity is not None and not isinstance(implementation(column.type, dialect), sqltypes.Integer):
        raise UnsupportedError(
            f"Identity() on column {column.name!r} of type {column.type!r}",
            "DSQL's identity columns are BIGINT",
            "declare BigInteger",
        )


def check_cache(cache: int | None, what: str) -> None:
    """Refuse a cache that DSQL refuses.

    :raises UnsupportedError: with the sizes that are allowed.
    """
    if cache is not None and cache != 1 and cache < IDENTITY_CACHE:
        raise UnsupportedError(
            f"{what} with cache={cache}",
            f"DSQL takes a cache of 1, or of {IDENTITY_CACHE} and more",
            f"leave it out for {IDENTITY_CACHE}, which scales, or give 1 for values without gaps",
        )


def implied_identity(column: Column[Any]) -> Identity:
    """What SERIAL is in PostgreSQL: an identity column that takes explicit values too."""
    sequence = column.default if isinstance(column.default, Sequence) else None
    return Identity(
        start=getattr(sequence, "start", None),
        increment=getattr(sequence, "increment", None),
        cache=getattr(sequence, "cache", None),
    )
