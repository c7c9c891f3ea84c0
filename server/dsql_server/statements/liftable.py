"""Which constants of a query may become parameters without changing what it means or how well it is planned.

Two kinds of places: values (target lists, VALUES, SET, LIMIT), where a constant stands for itself, and conditions,
where only an operand of a comparison may go, because an expression such as ``data ->> 'name'`` must stay as it is to
match an index. Not lifted are constants that PostgreSQL compares with others of the same query (GROUP BY, ORDER BY,
DISTINCT), that belong to the syntax (lengths, ``date '…'``), and strings whose type only the constant itself settles
(arguments of polymorphic functions, fields of rows).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from dsql_server.statements.tree import Node, strings


class _Place(Enum):
    KEEP = 0  #: nothing below is lifted, sub-queries aside
    VALUE = 1
    ASSIGNED = 2  #: a value of INSERT … VALUES or SET, whose type the column settles: also NULL, true and false
    ARGUMENT = 3  #: of a function: numbers only
    CONDITION = 4  #: nothing, but look for comparisons below
    OPERAND = 5  #: of a comparison


_LIFTING = frozenset({_Place.VALUE, _Place.ASSIGNED, _Place.OPERAND})

#: Comparisons by kind; of plain operators only those of btree.
_COMPARING_KINDS = frozenset(
    {
        "AEXPR_OP_ANY",
        "AEXPR_OP_ALL",
        "AEXPR_DISTINCT",
        "AEXPR_NOT_DISTINCT",
        "AEXPR_IN",
        "AEXPR_LIKE",
        "AEXPR_ILIKE",
        "AEXPR_BETWEEN",
        "AEXPR_NOT_BETWEEN",
        "AEXPR_BETWEEN_SYM",
        "AEXPR_NOT_BETWEEN_SYM",
    }
)
_COMPARING_OPERATORS = frozenset({"=", "<>", "!=", "<", "<=", ">", ">="})

#: Expressions that hand the place on to their parts.
_TRANSPARENT = frozenset(
    {
        "A_Expr",
        "BoolExpr",
        "CaseExpr",
        "CaseWhen",
        "CoalesceExpr",
        "MinMaxExpr",
        "NullTest",
        "BooleanTest",
        "A_ArrayExpr",
    }
)

_Item = tuple[str, Any, _Place]


def liftable_locations(statement: Node) -> frozenset[int]:
    """Locations (bytes of the text) of the liftable constants of a SELECT, INSERT, UPDATE or DELETE."""
    found: set[int] = set()
    stack: list[_Item] = [("", statement, _Place.KEEP)]
    while stack:
        name, node, place = stack.pop()
        if isinstance(node, list):
            stack.extend((name, item, place) for item in node)
        elif not isinstance(node, dict):
            continue
        elif name == "A_Const":
            if _is_liftable(node, place):
                found.add(node.get("location", 0))
        else:
            stack.extend(_parts(name, node, place))
    return frozenset(found)


def _is_liftable(constant: Node, place: _Place) -> bool:
    if "ival" in constant or "fval" in constant:
        return place in _LIFTING or place is _Place.ARGUMENT
    if "sval" in constant:
        return place in _LIFTING
    return place is _Place.ASSIGNED and "bsval" not in constant


def _parts(name: str, node: Node, place: _Place) -> Iterator[_Item]:
    if name in _STATEMENTS:
        yield from _statement_parts(name, node)
    elif name in ("larg", "rarg") and "op" in node:  # an arm of UNION
        yield from _statement_parts("SelectStmt", node, is_arm=True)
    elif name == "TypeCast":
        yield "", node.get("arg"), _cast_place(node, place)
    elif name == "FuncCall":
        yield from _call_parts(node, place)
    elif name == "A_Expr" and place is _Place.CONDITION:
        operand = _Place.OPERAND if _compares(node) else place
        yield from ((field, node.get(field), operand) for field in ("lexpr", "rexpr"))
    elif name == "SubLink":
        yield "", node.get("subselect"), _Place.KEEP
        yield "", node.get("testexpr"), _Place.OPERAND if place is _Place.CONDITION else _Place.KEEP
    elif name in _TRANSPARENT:
        inner = _inside(name, place)
        yield from ((field, child, inner) for field, child in node.items())
    elif name == "List" or (len(node) == 1 and next(iter(node))[:1].isupper()):
        yield from ((field, child, place) for field, child in node.items())
    else:
        inner = _Place.CONDITION if place in (_Place.CONDITION, _Place.OPERAND) else _Place.KEEP
        yield from ((field, child, inner) for field, child in node.items())


def _inside(name: str, place: _Place) -> _Place:
    if place is _Place.OPERAND and name != "A_ArrayExpr":
        return _Place.CONDITION
    return _Place.VALUE if place in (_Place.ASSIGNED, _Place.ARGUMENT) else place


def _compares(expression: Node) -> bool:
    if expression["kind"] == "AEXPR_OP":
        return strings(expression.get("name"))[-1:] != [] and strings(expression["name"])[-1] in _COMPARING_OPERATORS
    return expression["kind"] in _COMPARING_KINDS


def _cast_place(cast: Node, place: _Place) -> _Place:
    """``date '…'`` (no location of its own) is syntax; names of catalog objects are looked up when planning."""
    if cast.get("location") == -1 or strings(cast["typeName"].get("names"))[-1].startswith("reg"):
        return _Place.KEEP
    return _Place.VALUE if place in (_Place.ASSIGNED, _Place.ARGUMENT) else place


def _call_parts(call: Node, place: _Place) -> Iterator[_Item]:
    inner = place
    if place in (_Place.VALUE, _Place.ASSIGNED, _Place.ARGUMENT):
        inner = _Place.ARGUMENT
    elif place is _Place.OPERAND:
        inner = _Place.CONDITION
    yield "", call.get("args"), inner
    yield "", call.get("agg_filter"), _Place.CONDITION


_STATEMENTS = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "onConflictClause"})
_VALUES = frozenset({"limitCount", "limitOffset"})
_CONDITIONS = frozenset({"whereClause", "fromClause", "usingClause"})
_GROUPING = frozenset({"groupClause", "distinctClause", "havingClause", "windowClause"})


def _statement_parts(name: str, node: Node, is_arm: bool = False) -> Iterator[_Item]:
    is_plain = not (is_arm or node.keys() & _GROUPING or node.get("op", "SETOP_NONE") != "SETOP_NONE")
    for field, child in node.items():
        if field in ("targetList", "returningClause", "returningList"):
            if name in ("UpdateStmt", "onConflictClause") and field == "targetList":
                yield from _targets(child, _Place.ASSIGNED)
            elif field == "targetList":
                yield from _targets(child, _Place.VALUE if is_plain else _Place.KEEP)
            else:
                yield from _targets(child if isinstance(child, list) else child.get("exprs", []), _Place.VALUE)
        elif field == "valuesLists":
            yield "", child, _Place.ASSIGNED if name == "InsertValues" else _Place.VALUE
        elif field == "selectStmt" and "valuesLists" in child.get("SelectStmt", {}):
            yield from _statement_parts("InsertValues", child["SelectStmt"])
        elif field in _VALUES:
            yield "", child, _Place.VALUE
        elif field in _CONDITIONS:
            yield "", child, _Place.CONDITION
        elif isinstance(child, (dict, list)):
            yield field, child, _Place.KEEP


def _targets(targets: list[Node], place: _Place) -> Iterator[_Item]:
    for target in targets:
        yield "", target["ResTarget"].get("val"), place
