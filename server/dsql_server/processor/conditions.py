"""Conditions that PostgreSQL's planner attached to a base scan, read back from EXPLAIN's text.

The text is parsed by PostgreSQL's own parser. A conjunct that isn't one of a few exact shapes is left out, which
widens what is loaded: wider is always right, narrower never is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pglast import ast
from pglast.enums import A_Expr_Kind, BoolExprType, NullTestType

from dsql_server.encoding import type_oids as oids
from dsql_server.processor.parse_tree import Node, is_a, parse_expression

_INITPLAN_OUTPUTS = re.compile(r"\(returns ([^)]*)\)")

ORDERINGS = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}  #: operator → the same with its sides swapped

INTEGERS = frozenset({oids.INT2, oids.INT4, oids.INT8})
#: What PostgreSQL adds to a length, and to precision and scale, to make a typmod of them.
MODIFIER_OFFSET = 4
TEXTS = frozenset({oids.TEXT, oids.VARCHAR})

_TYPE_NAMES = {
    "int2": oids.INT2, "int4": oids.INT4, "int8": oids.INT8, "bool": oids.BOOL, "text": oids.TEXT,
    "varchar": oids.VARCHAR, "bpchar": oids.BPCHAR, "uuid": oids.UUID, "numeric": oids.NUMERIC, "date": oids.DATE,
    "timestamp": oids.TIMESTAMP, "timestamptz": oids.TIMESTAMPTZ, "float4": oids.FLOAT4, "float8": oids.FLOAT8,
    "bytea": oids.BYTEA,
}  # fmt: skip


@dataclass(frozen=True)
class Constant:
    """A literal with its type; ``text`` as EXPLAIN prints it."""

    text: str
    type_oid: int


@dataclass(frozen=True)
class Parameter:
    """A parameter of the statement, perhaps under a cast to a type with a modifier (PostgreSQL's typmod; -1: none)."""

    number: int  #: from 1
    cast_oid: int | None = None
    modifier: int = -1


@dataclass(frozen=True)
class OtherColumn:
    """A column of another scan of the same plan."""

    alias: str
    column: str


@dataclass(frozen=True)
class Conjunct:
    """``column operator operand``; ``in`` takes an array constant or parameter, the NULL tests take nothing.

    ``as_text`` says that the column was cast to text before it was compared.
    """

    column: str
    operator: str
    operand: Constant | Parameter | OtherColumn | None = None
    as_text: bool = False


def initplan_outputs(subplan_name: str) -> set[int]:
    """Numbers printed as ``$n`` that are an InitPlan's outputs, not statement parameters."""
    found = _INITPLAN_OUTPUTS.search(subplan_name)
    return {int(n) for n in re.findall(r"\$(\d+)", found.group(1))} if found else set()


def conjuncts(condition: str, alias: str, not_parameters: frozenset[int]) -> list[Conjunct]:
    """The conjuncts of ``condition`` on columns of the scan ``alias`` that are understood."""
    expression = parse_expression(condition)
    if expression is None:
        return []
    found = [_conjunct(part, alias, not_parameters) for part in _flatten(expression)]
    return [c for c in found if c is not None]


def count_conjuncts(condition: str) -> int | None:
    """How many conjuncts a condition has, understood or not; None if it can't be parsed."""
    expression = parse_expression(condition)
    return None if expression is None else len(_flatten(expression))


def operand_of(
    expression: str, not_parameters: frozenset[int], columns: bool = False
) -> Constant | Parameter | OtherColumn | None:
    """A printed output expression as a constant or a parameter, with ``columns`` also as a column, or None."""
    node = parse_expression(expression)
    operand = _operand(node, not_parameters) if node is not None else None
    return None if isinstance(operand, OtherColumn) and not columns else operand


def constant_or_parameter(node: Node) -> Constant | Parameter | None:
    """A node of a statement's own text as a constant or a parameter, or None."""
    operand = _operand(node, frozenset())
    return None if isinstance(operand, OtherColumn) else operand


def _flatten(node: Node) -> list[Node]:
    if is_a(node, ast.BoolExpr) and node.boolop == BoolExprType.AND_EXPR:
        return [leaf for arg in node.args for leaf in _flatten(arg)]
    return [node]


def _conjunct(node: Node, alias: str, not_parameters: frozenset[int]) -> Conjunct | None:
    flag = _flag(node, alias)
    if flag is not None:
        return flag
    if is_a(node, ast.NullTest):
        column = _own_column(node.arg, alias)
        if column is None or column[1]:
            return None
        return Conjunct(column[0], "isnull" if node.nulltesttype == NullTestType.IS_NULL else "notnull")
    if not is_a(node, ast.A_Expr) or len(node.name) != 1:
        return None
    operator = node.name[0].sval
    if node.kind == A_Expr_Kind.AEXPR_OP_ANY and operator == "=":
        column = _own_column(node.lexpr, alias)
        operand = _operand(node.rexpr, not_parameters)
        if column is None or not isinstance(operand, Constant | Parameter):
            return None
        return Conjunct(column[0], "in", operand, column[1])
    if node.kind != A_Expr_Kind.AEXPR_OP or operator not in ORDERINGS or node.lexpr is None:
        return None
    for own, other, op in ((node.lexpr, node.rexpr, operator), (node.rexpr, node.lexpr, ORDERINGS[operator])):
        column = _own_column(own, alias)
        operand = _operand(other, not_parameters)
        if column is not None and operand is not None:
            if isinstance(operand, OtherColumn) and (operand.alias == alias or op != "="):
                return None
            return Conjunct(column[0], op, operand, column[1])
    return None


def _flag(node: Node, alias: str) -> Conjunct | None:
    """A boolean column that stands for itself, or its negation."""
    value = "true"
    if is_a(node, ast.BoolExpr) and node.boolop == BoolExprType.NOT_EXPR:
        node, value = node.args[0], "false"
    named = _column(node)
    if named is None or named[0] != alias:
        return None
    return Conjunct(named[1], "=", Constant(value, oids.BOOL))


def _column(node: Node) -> tuple[str, str] | None:
    if is_a(node, ast.ColumnRef) and len(node.fields) == 2 and all(is_a(f, ast.String) for f in node.fields):
        return node.fields[0].sval, node.fields[1].sval
    return None


def _own_column(node: Node, alias: str) -> tuple[str, bool] | None:
    """The column's name, and whether it stands under a cast to text."""
    as_text = False
    if is_a(node, ast.TypeCast) and _type_oid(node.typeName) == oids.TEXT:
        node, as_text = node.arg, True
    named = _column(node)
    return (named[1], as_text) if named is not None and named[0] == alias else None


def _type_oid(name: Node) -> int | None:
    if name.arrayBounds or name.typmods:
        return None
    return _named_type(name)


def _named_type(name: Node) -> int | None:
    """The oid of one of PostgreSQL's own types; a domain of the same name is printed with its schema."""
    if len(name.names) > 1 and name.names[0].sval != "pg_catalog":
        return None
    return _TYPE_NAMES.get(name.names[-1].sval)


def _operand(node: Node, not_parameters: frozenset[int]) -> Constant | Parameter | OtherColumn | None:
    if is_a(node, ast.ParamRef):
        return None if node.number in not_parameters or node.number < 1 else Parameter(node.number)
    if is_a(node, ast.ColumnRef):
        named = _column(node)
        return OtherColumn(*named) if named is not None else None
    if is_a(node, ast.A_Const) and not node.isnull:
        value = node.val
        if is_a(value, ast.Integer):
            return Constant(str(value.ival), oids.INT4)
        if is_a(value, ast.Float):
            return Constant(value.fval, oids.NUMERIC if not value.fval.lstrip("-").isdigit() else oids.INT8)
        if is_a(value, ast.Boolean):
            return Constant("true" if value.boolval else "false", oids.BOOL)
        return None
    if is_a(node, ast.TypeCast):
        return _cast_operand(node, not_parameters)
    return None


def _cast_operand(cast: Node, not_parameters: frozenset[int]) -> Constant | Parameter | None:
    name, inner = cast.typeName, cast.arg
    if is_a(inner, ast.A_Const) and not inner.isnull:
        type_oid = _array_or_scalar(name)
        if type_oid is not None and is_a(inner.val, ast.String):
            return Constant(inner.val.sval, type_oid)
        if type_oid == oids.NUMERIC and is_a(inner.val, ast.Integer, ast.Float):
            return Constant(str(inner.val.ival) if is_a(inner.val, ast.Integer) else inner.val.fval, type_oid)
    elif is_a(inner, ast.ParamRef) and not name.arrayBounds:
        type_oid, own = _named_type(name), _operand(inner, not_parameters)
        if type_oid is None or not isinstance(own, Parameter):
            return None
        modifier = type_modifier(name)
        return None if modifier is None else Parameter(own.number, type_oid, modifier)
    return None


def type_modifier(name: Node) -> int | None:
    """PostgreSQL's typmod of a type's name: -1 for none, None where values can't be followed through such a cast."""
    if not name.typmods:
        return -1
    type_oid = _named_type(name)
    arguments = [t.val.ival for t in name.typmods if is_a(t, ast.A_Const) and is_a(t.val, ast.Integer)]
    if type_oid in (oids.VARCHAR, oids.BPCHAR) and len(arguments) == 1:
        return int(arguments[0]) + MODIFIER_OFFSET
    if type_oid == oids.NUMERIC and len(arguments) == 2 and arguments[1] >= 0:
        return int(arguments[0] << 16 | arguments[1]) + MODIFIER_OFFSET
    return None


def _array_or_scalar(name: Node) -> int | None:
    """The type's oid; for an array the element's (only ``in`` takes arrays)."""
    if name.typmods and len(name.typmods) > 0 and name.names[-1].sval not in ("numeric", "varchar", "bpchar"):
        return None
    return _named_type(name)
