"""What a statement's own text says about its writes: the columns that it sets and the rows that it spells out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pglast import ast

from dsql_server.catalog.state import Column
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.parameters import binary_from_text
from dsql_server.processor.conditions import INTEGERS, Constant, Parameter, constant_or_parameter, type_modifier
from dsql_server.processor.limits import limits_rows
from dsql_server.processor.operands import NO_MODIFIER, check_unchanged
from dsql_server.processor.parse_tree import Node, is_a, parse_statement, walk

#: Types that have no modifiers: no length, scale or precision to cut or round to.
_UNMODIFIED = frozenset(
    {oids.BOOL, oids.INT2, oids.INT4, oids.INT8, oids.TEXT, oids.UUID, oids.BYTEA, oids.DATE, oids.FLOAT4, oids.FLOAT8}
)
#: Types whose modifiers are understood.
_MODIFIED = frozenset({oids.VARCHAR, oids.BPCHAR, oids.NUMERIC})
_NUMBERS = INTEGERS | {oids.NUMERIC}
_FLOATS = frozenset({oids.FLOAT4, oids.FLOAT8})
#: As the modifier of a column: of a domain, whose values have other rules, and other output functions and types.
UNKNOWN_MODIFIER = 0
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
    statement: Node = None
    #: some query in it has a LIMIT, or an OFFSET, which PostgreSQL's plans call a Limit too
    has_limit: bool = False

    def is_renamed(self, alias: str) -> bool:
        """Whether a scan's alias, as EXPLAIN prints it, may have other names for the table's columns."""
        return bool(self.renamed) and (alias in self.renamed or _NUMBERED.sub("", alias) in self.renamed)


def read_targets(sql: str) -> Targets:
    """Read a SELECT, INSERT, UPDATE or DELETE that PostgreSQL's parser accepts."""
    targets = Targets(statement=parse_statement(sql))
    for node in walk(targets.statement):
        if is_a(node, ast.SelectStmt):
            targets.has_limit = targets.has_limit or limits_rows(node)
        elif is_a(node, ast.RangeVar):
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
    if node is None:
        return None
    cast_modifier = type_modifier(node.typeName) if is_a(node, ast.TypeCast) else NO_MODIFIER
    if cast_modifier is None:
        return None
    if is_a(node, ast.A_Const) and node.isnull:
        return Certain.NULL
    if is_a(node, ast.A_Const) and is_a(node.val, ast.String):
        return _constant(Constant(node.val.sval, column.type_oid), column)
    operand = constant_or_parameter(node)
    if isinstance(operand, Constant):
        return _constant(operand, column, cast_modifier)
    return stored(operand, column, parameter_oids)


def _constant(constant: Constant, column: Column, cast_modifier: int = NO_MODIFIER) -> Constant | None:
    """A constant of the statement's text, perhaps under a cast, as the column will store it."""
    if constant.type_oid in _NUMBERS and column.type_oid in _NUMBERS | _FLOATS:
        constant = Constant(constant.text, column.type_oid)
    if constant.type_oid != column.type_oid or column.type_oid == oids.TIMESTAMPTZ:
        return None  # an instant depends on the session's time zone, too
    try:
        value = binary_from_text(column.type_oid, constant.text)
        if cast_modifier != NO_MODIFIER:
            check_unchanged(column.type_oid, cast_modifier, value)
        if not is_unmodified(column):
            check_unchanged(column.type_oid, column.modifier, value)
    except ValueError:
        return None
    return constant


def stored(operand: Parameter | None, column: Column, parameter_oids: tuple[int, ...]) -> Parameter | None:
    """A parameter as the column will store it: PostgreSQL casts it to the column's type, and shows no such cast."""
    if operand is None or operand.number > len(parameter_oids):
        return None
    oid = parameter_oids[operand.number - 1] if operand.cast_oid is None else operand.cast_oid
    if operand.cast_oid is not None:
        # It is cast twice: that is followed only where the second one changes nothing.
        same = oid == column.type_oid and (operand.modifier == column.modifier or is_unmodified(column))
        return operand if same else None
    if oid != column.type_oid and not (oid in _NUMBERS and column.type_oid in _NUMBERS | _FLOATS):
        return None
    if is_unmodified(column):
        return Parameter(operand.number, column.type_oid)
    is_known = column.modifier != UNKNOWN_MODIFIER and column.type_oid in _MODIFIED
    return Parameter(operand.number, column.type_oid, column.modifier) if is_known else None


def is_unmodified(column: Column) -> bool:
    """Whether the column stores values of its type as they are."""
    return column.type_oid in _UNMODIFIED or column.modifier == NO_MODIFIER
