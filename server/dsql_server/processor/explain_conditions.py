"""Conditions as EXPLAIN prints them, cut into conjuncts, and which of those storage applies."""

from __future__ import annotations

from collections.abc import Sequence

from pglast import ast

from dsql_server.catalog.state import Table
from dsql_server.encoding.keys import KEY_TYPE_OIDS
from dsql_server.processor.access import Conditions
from dsql_server.processor.conditions import OtherColumn, Parameter, conjuncts
from dsql_server.processor.explain_costs import EQUALITY_SELECTIVITY, INEQUALITY_SELECTIVITY
from dsql_server.processor.parse_tree import is_a, parse_expression, walk

_AND = " AND "
_SELECTIVITIES = {
    "=": EQUALITY_SELECTIVITY,
    "in": EQUALITY_SELECTIVITY,
    "isnull": EQUALITY_SELECTIVITY,
    "<>": 1 - EQUALITY_SELECTIVITY,
    "notnull": 1 - EQUALITY_SELECTIVITY,
}


def split_condition(condition: str | None) -> list[str]:
    """The conjuncts of a condition, each as it is printed."""
    if not condition:
        return []
    if not (condition.startswith("(") and condition.endswith(")")):
        return [condition]
    parts: list[str] = []
    depth, start, quote = 0, 1, ""
    for at, character in enumerate(condition):
        if quote:
            if character == quote:
                quote = ""
        elif character in "'\"":
            quote = character
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if not depth and at < len(condition) - 1:
                return [condition]  # (a) … (b): no parentheses around the whole
        elif depth == 1 and character == " " and condition.startswith(_AND, at):
            parts.append(condition[start:at])
            start = at + len(_AND)
    return [*parts, condition[start:-1]] if parts else [condition]


def join_conditions(parts: Sequence[str]) -> str | None:
    """The inverse of :func:`split_condition`."""
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else f"({_AND.join(parts)})"


def is_pushed(conjunct: str, table: Table, alias: str) -> bool:
    """Whether storage applies the condition, printed with all columns' aliases."""
    found = conjuncts(conjunct, alias, frozenset())
    if len(found) != 1 or isinstance(found[0].operand, OtherColumn):
        return False
    if isinstance(found[0].operand, Parameter):
        column = table.by_name.get(found[0].column)
        return column is not None and column.type_oid in KEY_TYPE_OIDS
    return bool(Conditions(table, found, (), {}).pushed)


def selectivity(conjunct: str, alias: str) -> float:
    """The share of rows that PostgreSQL expects to satisfy the condition, without knowledge of the values."""
    found = conjuncts(conjunct, alias, frozenset())
    return _SELECTIVITIES.get(found[0].operator, INEQUALITY_SELECTIVITY) if found else INEQUALITY_SELECTIVITY


def equal_columns(printed: Sequence[str], table: Table, alias: str) -> set[int]:
    """Numbers of the columns that are equal to something."""
    found = [c for text in printed for c in conjuncts(text, alias, frozenset()) if c.operator == "="]
    return {table.by_name[c.column].number for c in found if c.column in table.by_name}


def columns_of(expression: str, table: Table, alias: str) -> set[str] | None:
    """The table's columns that an expression names; None where it isn't understood, or all may be meant."""
    tree = parse_expression(expression)
    if tree is None:
        return None
    found: set[str] = set()
    for node in walk(tree):
        if not is_a(node, ast.ColumnRef):
            continue
        fields = [f.sval if is_a(f, ast.String) else None for f in node.fields]
        if len(fields) == 2 and fields[0] != alias:
            continue
        if fields[-1] is None or fields[-1] not in table.by_name:
            return None
        found.add(fields[-1])
    return found


def names_others(conjunct: str, alias: str) -> bool:
    """Whether the condition, printed with all aliases, has a column of another relation."""
    tree = parse_expression(conjunct)
    return tree is not None and any(
        is_a(node, ast.ColumnRef) and len(node.fields) == 2 and node.fields[0].sval != alias for node in walk(tree)
    )
