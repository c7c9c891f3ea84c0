"""Queries that PostgreSQL answers and Aurora DSQL's planner doesn't (September 2026).

Refused, so that an application finds out before the cloud tells it. To be removed when Aurora DSQL is mended.
"""

from __future__ import annotations

from dsql_server.statements.model import Refusal
from dsql_server.statements.tree import Node, strings, walk

#: A subquery with any of these is planned on its own and comes out right.
_NOT_PULLED_UP = frozenset(
    {
        "distinctClause",
        "groupClause",
        "havingClause",
        "limitCount",
        "limitOffset",
        "lockingClause",
        "valuesLists",
        "windowClause",
        "withClause",
    }
)


def refuse_left_lateral(join: Node) -> Refusal | None:
    """LEFT JOIN LATERAL of a plain SELECT from one table that returns a value computed from the left side."""
    subselect = join.get("rarg", {}).get("RangeSubselect")
    if join.get("jointype") != "JOIN_LEFT" or subselect is None or not subselect.get("lateral"):
        return None
    select = subselect["subquery"].get("SelectStmt", {})
    tables = [item["RangeVar"] for item in select.get("fromClause", ()) if "RangeVar" in item]
    if select.keys() & _NOT_PULLED_UP or select.get("op") != "SETOP_NONE" or len(select.get("fromClause", ())) != 1:
        return None
    targets = [target["ResTarget"] for target in select.get("targetList", ())]
    if len(tables) != 1 or any("FuncCall" in node for target in targets for _, node in walk(target) if _is_set(node)):
        return None
    inner = {tables[0]["relname"], tables[0].get("alias", {}).get("aliasname")}
    for target in targets:
        for name, node in walk(target):
            fields = strings(node.get("fields")) if name == "ColumnRef" else []
            if len(fields) == 2 and fields[0] not in inner:
                return Refusal("42804", f"attribute 1 of type {tables[0]['relname']} has wrong type")
    return None


def _is_set(node: Node) -> bool:
    """Whether a node is a call of an aggregate or window function, as far as the text tells."""
    call = node.get("FuncCall")
    return call is not None and (strings(call["funcname"])[-1] in _AGGREGATES or "over" in call)


_AGGREGATES = frozenset(
    {
        "any_value",
        "array_agg",
        "avg",
        "bit_and",
        "bit_or",
        "bit_xor",
        "bool_and",
        "bool_or",
        "count",
        "every",
        "generate_series",
        "json_agg",
        "json_object_agg",
        "jsonb_agg",
        "jsonb_object_agg",
        "max",
        "min",
        "string_agg",
        "sum",
        "unnest",
    }
)
