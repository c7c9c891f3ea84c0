"""Refusals of transaction control, SET, COPY and of the statements that Aurora DSQL doesn't have."""

from __future__ import annotations

from collections.abc import Iterator

from dsql_server.statements.model import CallArgument, Parameter, Refusal, RelationName, TransactionModes
from dsql_server.statements.settings import (
    CONSTANT_PARAMETERS,
    READS_ONLY_NOTE,
    refuse_change,
    refuse_encoding,
    refuse_parameter,
)
from dsql_server.statements.tree import Node, constant, relation_name, strings

ISOLATION_LEVEL = "repeatable read"
JOB_ARGUMENT = "job_id"  #: of sys.wait_for_job
#: Constants that are text, or become it.
_TEXTS = frozenset({"sval", "isnull"})

_TRANSACTION_REFUSED = {
    "TRANS_STMT_SAVEPOINT": "SAVEPOINT",
    "TRANS_STMT_RELEASE": "RELEASE",
    "TRANS_STMT_ROLLBACK_TO": "ROLLBACK TO",
    "TRANS_STMT_PREPARE": "PREPARE TRANSACTION",
    "TRANS_STMT_COMMIT_PREPARED": "COMMIT PREPARED",
    "TRANS_STMT_ROLLBACK_PREPARED": "ROLLBACK PREPARED",
}

#: Statements whose refusal has its own words; of the rest it names PostgreSQL's node type.
_OWN_WORDS = {
    "CreateTrigStmt": "CREATE TRIGGER not supported",
    "CreateEnumStmt": "CREATE TYPE not supported",
    "AlterEnumStmt": "ALTER TYPE not supported",
    "AlterTypeStmt": "ALTER TYPE not supported",
    "MergeStmt": "unsupported statement type: MERGE",
    "VacuumStmt": "unsupported VACUUM statement",
}


def refuse_unsupported(name: str, node: Node) -> Iterator[Refusal]:
    """For statements that don't exist in Aurora DSQL, by node type."""
    message = _OWN_WORDS.get(name)
    if message is None and name == "DefineStmt" and node.get("kind") == "OBJECT_TYPE":
        message = "CREATE TYPE not supported"
    yield Refusal("0A000", message or f"unsupported statement: {name.removesuffix('Stmt')}")


def refuse_transaction(node: Node) -> Iterator[Refusal]:
    kind = node["kind"]
    if kind in _TRANSACTION_REFUSED:
        yield Refusal("0A000", f"unsupported transaction statement: {_TRANSACTION_REFUSED[kind]}")
    if node.get("chain"):
        yield Refusal("0A000", "AND CHAIN not supported")
    yield from _refuse_modes(node.get("options", []))


def _refuse_modes(options: list[Node]) -> Iterator[Refusal]:
    for option in options:
        name, value = option["DefElem"]["defname"], constant(option["DefElem"].get("arg"))
        if name == "transaction_isolation" and value != ISOLATION_LEVEL:
            yield Refusal("0A000", f"Unsupported isolation level: {(value or '').upper()}")
        elif name == "transaction_deferrable" and value != "0":
            yield Refusal("0A000", "unsupported transaction mode: DEFERRABLE")


def transaction_modes(options: list[Node]) -> TransactionModes:
    isolation, read_only = None, None
    for option in options:
        if "DefElem" not in option:
            continue  # the name of SET TRANSACTION SNAPSHOT, which is refused
        name, value = option["DefElem"]["defname"], constant(option["DefElem"].get("arg"))
        if name == "transaction_isolation":
            isolation = value
        elif name == "transaction_read_only":
            read_only = value != "0"
    return TransactionModes(isolation, read_only)


def noted_characteristics(modes: TransactionModes | None) -> str | None:
    """What the engine runs for SET SESSION CHARACTERISTICS; None: the statement itself."""
    if modes is None or modes.read_only is None:
        return None
    return f"SET {READS_ONLY_NOTE} TO {'on' if modes.read_only else 'off'}"


def refuse_set(node: Node) -> Iterator[Refusal]:
    """SET and RESET."""
    kind = node["kind"]
    if kind == "VAR_RESET_ALL":
        return
    name = node["name"]
    if kind == "VAR_SET_MULTI":
        if name == "SESSION CHARACTERISTICS":
            yield from _refuse_modes(node.get("args", []))
        else:
            yield refuse_parameter(name)
    elif not is_constant(node):
        refusal = refuse_change(name)
        values = parameter(node).values
        if name.lower() == "client_encoding" and values is not None:
            refusal = refuse_encoding(", ".join(values))
        if refusal is not None:
            yield refusal


def is_constant(node: Node) -> bool:
    """Whether a SET or RESET leaves a parameter at the only value that it can have."""
    return node["kind"] in ("VAR_SET_DEFAULT", "VAR_RESET") and node["name"].lower() in CONSTANT_PARAMETERS


def parameter(node: Node) -> Parameter:
    """Of SET and RESET of a single parameter, and of SHOW."""
    name = "all" if node.get("kind") == "VAR_RESET_ALL" else node.get("name", "").lower()
    values: tuple[str, ...] | None = None
    if node.get("kind") == "VAR_SET_VALUE":
        values = tuple(_value(argument) for argument in node.get("args", ()))
    return Parameter(name, values, bool(node.get("is_local")))


def _value(argument: Node) -> str:
    text = constant(argument)
    if text is None and "TypeCast" in argument:  # SET TIME ZONE INTERVAL '…'
        text = constant(argument["TypeCast"].get("arg"))
    return text or ""


def refuse_copy(node: Node) -> Iterator[Refusal]:
    if node.get("is_program"):
        yield Refusal("0A000", "COPY with PROGRAM not supported", hint="Use COPY FROM STDIN or COPY TO STDOUT.")
    elif "filename" in node:
        yield Refusal("0A000", "COPY with a file not supported", hint="Use COPY FROM STDIN or COPY TO STDOUT.")


def refuse_call(node: Node) -> Iterator[Refusal]:
    if "SubLink" in _node_types(node):
        yield Refusal("0A000", "cannot use subquery in CALL argument")
    elif any(_call_argument(argument) is None for argument in node["funccall"].get("args", ())):
        yield Refusal("0A000", "only constants and parameters are supported in CALL arguments")


def call_arguments(node: Node) -> tuple[CallArgument, ...]:
    """The arguments of CALL as far as they are constants and parameters; the others are refused."""
    found = (_call_argument(argument) for argument in node["funccall"].get("args", ()))
    return tuple(argument for argument in found if argument is not None)


def _call_argument(node: Node) -> CallArgument | None:
    is_unfit = False
    if "NamedArgExpr" in node:
        is_unfit = node["NamedArgExpr"]["name"] != JOB_ARGUMENT
        node = node["NamedArgExpr"]["arg"]
    is_cast = "TypeCast" in node
    while "TypeCast" in node:
        node = node["TypeCast"]["arg"]
    if "ParamRef" in node:
        return CallArgument(parameter=node["ParamRef"]["number"], is_unfit=is_unfit)
    if "A_Const" in node:
        is_text = is_cast or not _TEXTS.isdisjoint(node["A_Const"])
        return CallArgument(constant(node), is_unfit=is_unfit or not is_text)
    return None


def analyzed_columns(node: Node) -> tuple[tuple[RelationName, str], ...]:
    """The columns that ANALYZE names, each with its table."""
    relations = [wrapped["VacuumRelation"] for wrapped in node.get("rels", ())]
    return tuple((relation_name(r["relation"]), column) for r in relations for column in strings(r.get("va_cols")))


def _node_types(node: Node) -> set[str]:
    """Names of all fields and node types below ``node``."""
    found: set[str] = set()
    stack: list[object] = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            found |= item.keys()
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return found


def refuse_deallocate(node: Node) -> Iterator[Refusal]:
    if not node.get("isall"):
        yield Refusal("0A000", "unsupported statement: Deallocate", hint="DEALLOCATE ALL is supported.")
