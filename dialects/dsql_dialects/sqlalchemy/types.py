"""Column types: which ones DSQL stores, and what stands in for those that it doesn't."""

from __future__ import annotations

from typing import Any

from sqlalchemy import types as sqltypes
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ranges
from sqlalchemy.dialects.postgresql.base import PGTypeCompiler
from sqlalchemy.types import TypeEngine

from dsql_dialects.sqlalchemy.errors import UnsupportedError

#: Whose type variants are taken where there is none of our own.
POSTGRESQL = "postgresql"

CHAR_LENGTH_MAX = 4096  #: characters
VARCHAR_LENGTH_MAX = 65535  #: characters
NUMERIC_PRECISION_MAX = 1000  #: digits
KEY_COLUMNS_MAX = 8  #: columns of a primary key, unique constraint or index

_CHILD_TABLE = "use a table of its own with a foreign key, or JSONB"
_TWO_COLUMNS = "use two columns for the bounds"
_TEXT = "use Text or String"

#: Types that no column can have: why, and what to use instead. The first that fits decides.
_REFUSED: tuple[tuple[type[TypeEngine[Any]], str, str], ...] = (
    (sqltypes.ARRAY, "DSQL has arrays in queries only", _CHILD_TABLE),
    (ranges.AbstractRange, "DSQL has no range types", _TWO_COLUMNS),
    (postgresql.HSTORE, "DSQL has no extensions", "use JSONB"),
    (postgresql.CITEXT, "DSQL has no extensions", "use Text and an index on lower(column)"),
    (postgresql.BIT, "DSQL has no bit strings", "use an integer, or LargeBinary"),
    (postgresql.MONEY, "DSQL has no money type", "use Numeric"),
    (postgresql.TSVECTOR, "DSQL has no text search", _TEXT),
    (postgresql.TSQUERY, "DSQL has no text search", _TEXT),
    (postgresql.INET, "DSQL has inet in queries only", _TEXT),
    (postgresql.CIDR, "DSQL has cidr in queries only", _TEXT),
    (postgresql.MACADDR, "DSQL has macaddr in queries only", _TEXT),
    (postgresql.MACADDR8, "DSQL has macaddr8 in queries only", _TEXT),
    (postgresql.OID, "DSQL has oid in queries only", "use BigInteger"),
    (postgresql.REGCLASS, "DSQL has regclass in queries only", _TEXT),
    (postgresql.REGCONFIG, "DSQL has no text search", _TEXT),
    (postgresql.JSONPATH, "DSQL has jsonpath in queries only", _TEXT),
)

_REFUSED_KINDS = tuple(kind for kind, _, _ in _REFUSED)

#: Storable, but in no key: DSQL has no order for them in an index.
_NOT_IN_KEYS: tuple[type[TypeEngine[Any]], ...] = (
    sqltypes.JSON,
    sqltypes._Binary,
    sqltypes.Interval,
    postgresql.INTERVAL,
)


def implementation(type_: TypeEngine[Any], dialect: Any) -> TypeEngine[Any]:
    """The type that a column really has: decorators and variants resolved."""
    variant = variant_for(type_, dialect)
    found = variant.dialect_impl(dialect)
    while isinstance(found, sqltypes.TypeDecorator):
        found = found.impl_instance.dialect_impl(dialect)
    return found


def variant_for(type_: TypeEngine[Any], dialect: Any) -> TypeEngine[Any]:
    """The variant for this dialect, else the one for PostgreSQL, else the type itself."""
    variants = type_._variant_mapping
    if not variants:
        return type_
    return variants.get(dialect.name) or variants.get(POSTGRESQL) or type_


def check_column_type(type_: TypeEngine[Any], dialect: Any) -> None:
    """Refuse what DSQL cannot store.

    :raises UnsupportedError: with the reason and the alternative.
    """
    found = implementation(type_, dialect)
    if isinstance(found, postgresql.DOMAIN):
        check_column_type(found.data_type, dialect)
        return
    if isinstance(found, _REFUSED_KINDS):
        reason, alternative = next(words for kind, *words in _REFUSED if isinstance(found, kind))
        raise UnsupportedError(f"type {type_!r}", reason, alternative)
    _check_size(type_, found)


def _check_size(type_: TypeEngine[Any], found: TypeEngine[Any]) -> None:
    size, limit, what = 0, 0, ""
    if isinstance(found, sqltypes.Numeric) and not isinstance(found, sqltypes.Float):
        size, limit, what = found.precision or 0, NUMERIC_PRECISION_MAX, "numeric has at most {} digits"
    elif isinstance(found, sqltypes.CHAR):
        size, limit, what = found.length or 0, CHAR_LENGTH_MAX, "char has at most {} characters"
    elif isinstance(found, sqltypes.String) and not isinstance(found, sqltypes.Text):
        size, limit, what = found.length or 0, VARCHAR_LENGTH_MAX, "varchar has at most {} characters"
    if size > limit:
        raise UnsupportedError(f"type {type_!r}", f"DSQL's {what.format(limit)}", "use Text")
    collation = getattr(found, "collation", None)
    if collation not in (None, "C", "default"):
        raise UnsupportedError(
            f"collation {collation!r}", "DSQL has the C collation only", "leave it out and sort in the application"
        )


def check_key_type(type_: TypeEngine[Any], dialect: Any, where: str) -> None:
    """Refuse what DSQL cannot index.

    :param where: what the key is, for the message.
    :raises UnsupportedError: with the reason and the alternative.
    """
    found = implementation(type_, dialect)
    timetz = isinstance(found, sqltypes.Time) and found.timezone
    if isinstance(found, _NOT_IN_KEYS) or timetz:
        raise UnsupportedError(
            where, f"DSQL supports no {type_!r} in a key", "index an expression of another type, or another column"
        )


def check_key_width(count: int, where: str) -> None:
    """Refuse keys of more columns than DSQL takes.

    :raises UnsupportedError: with the limit.
    """
    if count > KEY_COLUMNS_MAX:
        raise UnsupportedError(
            where,
            f"DSQL's keys have at most {KEY_COLUMNS_MAX} columns, not {count}",
            "INCLUDE the others, or hash them",
        )


class DSQLTypeCompiler(PGTypeCompiler):
    """Renders type names."""

    def process(self, type_: TypeEngine[Any], **kw: Any) -> str:
        if type_._variant_mapping:
            type_ = variant_for(type_, self.dialect)
        rendered: str = super().process(type_, **kw)
        return rendered

    def render_column_type(self, type_: TypeEngine[Any], **kw: Any) -> str:
        """A column's type in DDL: refused, if DSQL stores none such, and without DSQL's only collation."""
        check_column_type(type_, self.dialect)
        return self.process(type_, **kw).removesuffix(' COLLATE "C"').removesuffix(' COLLATE "default"')

    def visit_ENUM(self, type_: Any, identifier_preparer: Any = None, **kw: Any) -> str:
        """DSQL has no enum types: the same as SQLAlchemy's Enum where there is no native one."""
        return str(self.visit_VARCHAR(type_, **kw))
