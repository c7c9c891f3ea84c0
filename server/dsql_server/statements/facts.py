"""One pass over a statement's parse tree: what it names, calls, locks and writes, and what refuses it."""

from __future__ import annotations

from typing import Any

from dsql_server.statements import datatypes, functions
from dsql_server.statements.model import LockStrength, Refusal, RelationName
from dsql_server.statements.planner_defects import refuse_left_lateral
from dsql_server.statements.settings import OWN_TABLES_PREFIX
from dsql_server.statements.tree import Node, constant, relation_name, strings

_Scope = frozenset[str]
_NO_NAMES: _Scope = frozenset()

_LOCKS = {"LCS_FORUPDATE": LockStrength.UPDATE, "LCS_FORKEYSHARE": LockStrength.KEY_SHARE}
_WRITES = frozenset({"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})

#: Its tables are written by jobs only.
_SYSTEM_SCHEMA = "sys"
#: Tables that only a superuser reads, by how their names begin: roles with their passwords, and the machinery's own.
_CLOSED_TABLES = ("pg_authid", OWN_TABLES_PREFIX)
#: A system view whose rule turns an UPDATE into set_config() of any parameter.
_SETTINGS_VIEW = frozenset({(None, "pg_settings"), ("pg_catalog", "pg_settings")})


class Facts:
    """What a walk over one statement found. Refusals are in the order of the text."""

    def __init__(self) -> None:
        self.functions: set[str] = set()
        self.operators: set[str] = set()
        self.relations: set[RelationName] = set()
        self.targets: set[RelationName] = set()
        self.refusals: list[Refusal] = []
        self.locking: LockStrength | None = None
        self.parameters = 0
        self.writes = 0  #: INSERT, UPDATE and DELETE anywhere in the statement
        self.writing_ctes = 0
        self.has_on_conflict = False

    def refuse(self, refusal: Refusal | None) -> None:
        if refusal is not None:
            self.refusals.append(refusal)


def collect(name: str, statement: Node) -> Facts:
    """Walk over the node ``statement`` of type ``name``; keeps its own stack, so no depth is too deep."""
    facts = Facts()
    stack: list[tuple[str, Any, _Scope]] = [(name, statement, _NO_NAMES)]
    while stack:
        key, node, scope = stack.pop()
        if isinstance(node, list):
            for item in reversed(node):
                if isinstance(item, (dict, list)):
                    stack.append((key, item, scope))
            continue
        visit = _VISITORS.get(key)
        if visit is not None:
            visit(facts, node)
        if "relname" in node:
            _visit_relation(facts, node, scope)
            continue
        if "funcname" in node and key != "CreateFunctionStmt":
            _visit_call(facts, node)
        skipped: str | None = None
        if key in _WRITES:
            skipped = "relation"
            _visit_write(facts, key, node)
        if "withClause" in node:
            scope = _open_ctes(facts, node["withClause"], scope, stack)
        for field in reversed(node):
            child = node[field]
            if isinstance(child, (dict, list)) and field != "withClause" and field != skipped:
                stack.append((field, child, scope))
    return facts


def _open_ctes(facts: Facts, clause: Node, scope: _Scope, stack: list[tuple[str, Any, _Scope]]) -> _Scope:
    """Queue the WITH queries, each with the names that it can see, and return the names that the statement sees."""
    expressions = [item["CommonTableExpr"] for item in clause.get("ctes", ())]
    visible = scope | {e["ctename"] for e in expressions}
    for expression in expressions:
        inner = visible if clause.get("recursive") else scope
        stack.append(("ctequery", expression["ctequery"], inner))
        facts.writing_ctes += next(iter(expression["ctequery"])) in _WRITES
        scope = scope | {expression["ctename"]}
    return visible


def _visit_relation(facts: Facts, node: Node, scope: _Scope) -> None:
    relation = relation_name(node)
    if relation[0] is not None or relation[1] not in scope:
        facts.relations.add(relation)
        facts.refuse(_refuse_closed(relation))


def _refuse_closed(relation: RelationName) -> Refusal | None:
    schema, name = relation
    if name.startswith(_CLOSED_TABLES) and schema in (None, "pg_catalog"):
        return Refusal("42501", f"permission denied for table {name}")
    return None


def _visit_call(facts: Facts, node: Node) -> None:
    name = functions.function_name(node)
    facts.functions.add(name)
    facts.refuse(functions.refuse_call(name, node))
    if name in datatypes.NEVER and len(node.get("args", ())) == 1:
        # PostgreSQL takes line('…') for a cast where there is no such function.
        facts.refuse(Refusal("0A000", f"datatype {datatypes.NEVER[name]} not supported"))


def _visit_write(facts: Facts, key: str, node: Node) -> None:
    facts.writes += 1
    target = relation_name(node["relation"])
    facts.targets.add(target)
    facts.relations.add(target)
    facts.refuse(_refuse_closed(target))
    if key == "MergeStmt":
        facts.refuse(Refusal("0A000", "unsupported statement type: MERGE"))
    elif "onConflictClause" in node:
        facts.has_on_conflict = True
    if target in _SETTINGS_VIEW or target[0] == _SYSTEM_SCHEMA:
        facts.refuse(Refusal("0A000", "feature not supported on system entity"))


def _visit_locking(facts: Facts, node: Node) -> None:
    strength = _LOCKS.get(node["strength"])
    if strength is None:
        facts.refuse(Refusal("0A000", "locking clauses other than FOR UPDATE/FOR KEY SHARE are not supported"))
    elif facts.locking is not LockStrength.UPDATE:
        facts.locking = strength
    node.pop("lockedRels", None)  # names of the FROM list, not of relations


def _visit_cast(facts: Facts, node: Node) -> None:
    type_name = node["typeName"]
    facts.refuse(datatypes.refuse_in_query(type_name))
    if strings(type_name.get("names"))[-1:] == ["regconfig"]:
        facts.refuse(functions.refuse_text_search_configuration(constant(node.get("arg"))))


def _visit_result(facts: Facts, node: Node) -> None:
    """Of a function."""
    facts.refuse(datatypes.refuse_result(node))


def _visit_expression(facts: Facts, node: Node) -> None:
    facts.operators.update(strings(node.get("name"))[-1:])


def _visit_parameter(facts: Facts, node: Node) -> None:
    facts.parameters = max(facts.parameters, node.get("number", 0))


def _visit_sample(facts: Facts, node: Node) -> None:
    facts.refuse(Refusal("0A000", "TABLESAMPLE clause not supported"))


def _visit_into(facts: Facts, node: Node) -> None:
    facts.refuse(Refusal("0A000", "unsupported statement: CreateTableAs"))


def _visit_join(facts: Facts, node: Node) -> None:
    facts.refuse(refuse_left_lateral(node))


_VISITORS = {
    "JoinExpr": _visit_join,
    "LockingClause": _visit_locking,
    "TypeCast": _visit_cast,
    "returnType": _visit_result,
    "A_Expr": _visit_expression,
    "ParamRef": _visit_parameter,
    "RangeTableSample": _visit_sample,
    "intoClause": _visit_into,
}
