"""What a statement's own text says about its writes: the columns that it sets and the rows that it spells out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pglast import ast

from dsql_server.catalog.state import Column
from dsql_server.encoding import type_oids as oids
from dsql_server.processor.conditions import INTEGERS, Constant, Parameter, constant_or_parameter
from dsql_server.processor.parse_tree import Node, is_a, parse_statement, walk

#: Types that have no modifiers: no length, scale or precision to cut or round to.
_UNMODIFIED = frozenset(
    {oids.BOOL, oids.INT2, oids.INT4, oids.INT8, oids.TEXT, oids.UUID, oids.BYTEA, oids.DATE, oids.FLOAT4, oids.FLOAT8}
)
_CHARACTERS = frozenset({oids.VARCHAR, oids.BPCHAR})
_NO_MODIFIER, _UNKNOWN_MODIFIER = -1, 0
_DECIMAL = re.compile(r"-?[0-9]+(?:\.([0-9]*))?")
_NUMBERED = re.compile(r"_\d+$")


class Certain(Enum):
    """Values that are certain although no constant says them."""

    NULL = "NULL"
    RANDOM = "gen_random_uuid()"  #: in no snapshot but by a miracle; COMMIT would refuse it all the same


#: A value that a statement writes; None: not known before it runs.
Written = Constant | Parameter | Certain | None


@dataclass
class Targets:
    """See the module. Names are as PostgreSQL folds them."""

    #: by the target's name without its schema: columns that an UPDATE sets to something, and to what
    updated: dict[str, dict[str, Node]] = field(default_factory=dict)
    #: by the target's name: columns that ON CONFLICT DO UPDATE sets, and to what
    upserted: dict[str, dict[str, Node]] = field(default_factory=dict)
    #: by the target's name: the rows of INSERT … VALUES
    inserted: dict[str, list[tuple[Node, ...]]] = field(default_factory=dict)
    #: targets named more than once
    repeated: set[str] = field(default_factory=set)
    #: aliases of tables that come with a list of column names
    renamed: set[str] = field(default_factory=set)

    def is_renamed(self, alias: str) -> bool:
        """Whether a scan's alias, as EXPLAIN prints it, may have other names for the table's columns."""
        return bool(self.renamed) and (alias in self.renamed or _NUMBERED.sub("", alias) in self.renamed)


def read_targets(sql: str) -> Targets:
    """Read a SELECT, INSERT, UPDATE or DELETE that PostgreSQL's parser accepts."""
    targets = Targets()
    for node in walk(parse_statement(sql)):
        if is_a(node, ast.RangeVar):
            if node.alias is not None and node.alias.colnames:
                targets.renamed.add(node.alias.aliasname)
        elif is_a(node, ast.UpdateStmt):
            _add(targets, targets.updated, node.relation.relname, _assignments(node.targetList))
        elif is_a(node, ast.InsertStmt):
            _read_insert(targets, node)
    return targets


def _read_insert(targets: Targets, node: Node) -> None:
    name = node.relation.relname
    clause, source = node.onConflictClause, node.selectStmt
    if clause is not None and clause.targetList:
        _add(targets, targets.upserted, name, _assignments(clause.targetList))
    if source is not None and source.valuesLists:
        _add(targets, targets.inserted, name, list(source.valuesLists))
    elif name in targets.inserted:
        targets.repeated.add(name)


def _add(targets: Targets, by_name: dict[str, Any], name: str, value: object) -> None:
    if name in by_name:
        targets.repeated.add(name)
    by_name[name] = value


def _assignments(items: tuple[Node, ...]) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for item in items:
        found[item.name] = None if is_a(item.val, ast.MultiAssignRef) or item.indirection else item.val
    return found


def written_value(node: Node, column: Column, parameter_oids: tuple[int, ...]) -> Written:
    """What an INSERT or UPDATE assigns to a column, as far as it is certain before the statement runs."""
    if is_a(node, ast.FuncCall) and not node.args and node.funcname[-1].sval == "gen_random_uuid":
        return Certain.RANDOM
    if node is None or is_a(node, ast.ColumnRef) or (is_a(node, ast.TypeCast) and node.typeName.typmods):
        return None
    if is_a(node, ast.A_Const):
        return _constant(node, column)
    operand = constant_or_parameter(node)
    if isinstance(operand, Constant):
        same = operand.type_oid == column.type_oid or {operand.type_oid, column.type_oid} <= INTEGERS
        return operand if same and _fits(column, operand.text) else None
    if operand is None or operand.cast_oid is not None or operand.number > len(parameter_oids):
        return None
    return _parameter(operand.number, parameter_oids[operand.number - 1], column)


def _constant(node: Node, column: Column) -> Written:
    if node.isnull:
        return Certain.NULL
    if is_a(node.val, ast.String):
        return Constant(node.val.sval, column.type_oid) if _fits(column, node.val.sval) else None
    if is_a(node.val, ast.Integer):
        text = str(node.val.ival)
        fits = column.type_oid in INTEGERS or (column.type_oid == oids.NUMERIC and _fits(column, text))
        return Constant(text, column.type_oid) if fits else None
    if is_a(node.val, ast.Float):
        return Constant(node.val.fval, oids.NUMERIC) if _fits(column, node.val.fval, oids.NUMERIC) else None
    return constant_or_parameter(node)


def _parameter(number: int, oid: int, column: Column) -> Parameter | None:
    """The parameter as the column will store it."""
    if oid in INTEGERS and column.type_oid in INTEGERS:
        return Parameter(number)
    if column.type_oid == oids.NUMERIC and (oid in INTEGERS or oid == oids.NUMERIC):
        scale = _scale(column)
        if column.modifier == _NO_MODIFIER or scale is not None:
            return Parameter(number, oids.NUMERIC, scale=scale)
    elif oid == column.type_oid:
        if oid in _UNMODIFIED or column.modifier == _NO_MODIFIER:
            return Parameter(number)
        if oid in _CHARACTERS:
            return Parameter(number, oid, trimmed=True)
    return None


def _fits(column: Column, text: str, type_oid: int | None = None) -> bool:
    """Whether the column stores a constant of its own type as it stands, if it takes it at all."""
    if type_oid is not None and type_oid != column.type_oid:
        return False
    if column.type_oid == oids.TIMESTAMPTZ:
        return False  # which instant it is depends on the session's time zone
    if column.type_oid in _UNMODIFIED or column.modifier == _NO_MODIFIER:
        return True
    if column.type_oid in _CHARACTERS:
        return not text.endswith(" ")
    scale = _scale(column)
    decimal = _DECIMAL.fullmatch(text)
    return scale is not None and decimal is not None and len(decimal[1] or "") <= scale


def _scale(column: Column) -> int | None:
    """Digits behind the point of a ``numeric`` with a modifier; None: none, or not known."""
    if column.type_oid != oids.NUMERIC or column.modifier in (_NO_MODIFIER, _UNKNOWN_MODIFIER):
        return None
    scale = (column.modifier - 4) & 0x7FF
    return scale if scale < 0x400 else None
