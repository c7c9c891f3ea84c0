"""One-row INSERTs whose stored row follows from their parameters.

The engine has planned such a statement and has run it once in the session before, which checked the role's privileges.
From then on the row is known without it: the transaction keeps it, and the engine is only told of it when a statement
needs the engine after all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pglast import ast
from pglast.enums import OverridingKind

from dsql_server.catalog.state import Column, Table
from dsql_server.encoding import numeric
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.parameter_rows import Field, ParameterField, parameter_row
from dsql_server.encoding.parameters import NotUnderstood, binary_from_text, check_binary, convert
from dsql_server.processor.access import Bound
from dsql_server.processor.conditions import MODIFIER_OFFSET, Constant, Parameter
from dsql_server.processor.inserts import InsertedRows
from dsql_server.processor.operands import NO_MODIFIER
from dsql_server.processor.parse_tree import Node, is_a
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.targets import UNKNOWN_MODIFIER, Certain

#: Types whose values are stored as a client sends them, once they are known to be valid.
_STORED = frozenset(
    {
        oids.BOOL, oids.INT2, oids.INT4, oids.INT8, oids.FLOAT4, oids.FLOAT8, oids.NUMERIC, oids.TEXT, oids.VARCHAR,
        oids.UUID, oids.BYTEA, oids.DATE, oids.TIMESTAMP, oids.TIMESTAMPTZ,
    }
)  # fmt: skip
#: Those that make more of an INSERT. RETURNING had another name in earlier grammars.
_CLAUSES = ("onConflictClause", "returningClause", "returningList", "withClause")


class DirectInsert(NamedTuple):
    """What a statement inserts: ``row`` makes the row of an execution as it will be stored. It raises one of
    :data:`dsql_server.processor.access.NOT_EXACT` where only the engine knows it, or refuses it.
    """

    table: Table
    fields: tuple[ParameterField, ...]
    row: Callable[[Bound], bytes]
    sql: str  #: for the engine, when it has to be told
    parameter_oids: tuple[int, ...]


def insert_directly(statement: Node, sql: str, plan: LoadPlan) -> DirectInsert | None:
    """The direct insert that a statement is, or None: one row of parameters and constants, and nothing else to do.

    CHECK constraints are the caller's to look for: neither ``plan`` nor the table shows them.
    """
    keys = plan.insert
    if keys is None or keys.rows is None or not plan.single_insert_only or not _is_plain_insert(statement):
        return None
    table = keys.table
    reads = plan.scans or plan.whole or plan.neighbours or plan.foreign_keys or plan.sequences
    acts = plan.side_effects or plan.key_shared or plan.may_defer_checks or plan.has_conflict_clause
    if reads or acts or keys.drawn or not _stores_plainly(table) or statement.relation.relname != table.name:
        return None
    if keys.rows.rows != 1:
        return None
    fields = [_field(keys.rows, column, plan.parameter_oids) for column in table.columns]
    known = [field for field in fields if field is not None]
    if len(known) < len(fields):
        return None
    return DirectInsert(table, tuple(known), parameter_row(known), sql, plan.parameter_oids)


def _is_plain_insert(statement: Node) -> bool:
    if not is_a(statement, ast.InsertStmt):
        return False
    clauses = [getattr(statement, name, None) for name in _CLAUSES]
    return not any(clauses) and statement.override == OverridingKind.OVERRIDING_NOT_SET


def _stores_plainly(table: Table) -> bool:
    """Whether a row is stored as it is, and its index entries follow from it."""
    if table.is_system or table.foreign_keys or table.unvalidated_checks:
        return False
    indexes = (*table.indexes, *((table.primary_key,) if table.primary_key is not None else ()))
    if any(not index.plain or not index.valid for index in indexes):
        return False
    return not any(column.generated for column in table.columns)


def _field(rows: InsertedRows, column: Column, parameter_oids: tuple[int, ...]) -> ParameterField | None:
    """What the column holds; None where it isn't certain."""
    if column.dropped:
        return ParameterField(_null, known=True)
    if column.type_oid not in _STORED or column.modifier == UNKNOWN_MODIFIER:
        return None
    written = rows.written(0, column.number)
    if written is Certain.NULL:
        return None if column.not_null else ParameterField(_null, known=True)
    if isinstance(written, Constant):
        constant = _constant(written, column)
        return None if constant is None else ParameterField(constant, known=True)
    if not isinstance(written, Parameter) or written.number > len(parameter_oids):
        return None
    oid = parameter_oids[written.number - 1]
    if column.type_oid != (oid if written.cast_oid is None else written.cast_oid):
        return None
    return _parameter_field(written.number - 1, oid, column, written.modifier)


def _parameter_field(at: int, oid: int, column: Column, modifier: int) -> ParameterField:
    size = modifier - MODIFIER_OFFSET
    length_max, precision, scale = None, 0, -1
    if modifier != NO_MODIFIER:
        if column.type_oid == oids.VARCHAR:
            length_max = size
        elif column.type_oid == oids.NUMERIC:
            precision, scale = size >> 16, size & 0xFFFF
        else:
            return ParameterField(_parameter(at, oid, column, modifier))
    read = _parameter(at, oid, column, modifier)
    return ParameterField(read, at, oid, column.type_oid, length_max, precision, scale, not_null=column.not_null)


def _constant(constant: Constant, column: Column) -> Field | None:
    """A constant, to which PostgreSQL has applied the column's type and modifier already."""
    if constant.type_oid != column.type_oid:
        return None
    try:
        value = binary_from_text(constant.type_oid, constant.text)
    except ValueError:
        return None
    return lambda bound: value


def _parameter(at: int, oid: int, column: Column, modifier: int) -> Field:
    target, not_null = column.type_oid, column.not_null
    is_cast, is_modified = oid != target, modifier != NO_MODIFIER

    def read(bound: Bound) -> bytes | None:
        value = bound.values[at]
        if value is None:
            if not_null:
                raise NotUnderstood("the engine refuses a NULL in its own words")
            return None
        if bound.formats[at]:
            check_binary(oid, value)
        else:
            value = binary_from_text(oid, value, bound.zone_is_utc)
        if is_cast:
            value = convert(oid, target, value, bound.zone_is_utc)
        return _fitted(target, modifier, value) if is_modified else value

    return read


def _fitted(type_oid: int, modifier: int, value: bytes) -> bytes:
    """The value under the column's modifier. Raises NotUnderstood where it would be cut, rounded or refused."""
    size = modifier - MODIFIER_OFFSET
    if type_oid == oids.NUMERIC:
        return numeric.fitted(value, size >> 16, size & 0xFFFF)
    if type_oid != oids.VARCHAR or len(value.decode()) > size:
        raise NotUnderstood("the value may be cut")
    return value


def _null(_bound: Bound) -> None:
    """A NULL that the text says, or that stands for a dropped column."""
