"""Refusals of ALTER TABLE, ALTER VIEW, ALTER SEQUENCE, ALTER INDEX and ALTER DOMAIN."""

from __future__ import annotations

from collections.abc import Iterator

from dsql_server.statements.model import Refusal
from dsql_server.statements.tables import (
    COLLATE_REFUSED,
    refuse_changed_cache,
    refuse_column_types,
    refuse_identity_cache,
)
from dsql_server.statements.tree import Node, tag_of

_ALLOWED = frozenset(
    {
        "AT_AddColumn",
        "AT_DropColumn",
        "AT_ColumnDefault",
        "AT_DropNotNull",
        "AT_DropExpression",
        "AT_AddIdentity",
        "AT_SetIdentity",
        "AT_DropIdentity",
        "AT_SetStorage",
        "AT_AlterConstraint",
        "AT_AddConstraint",
        "AT_DropConstraint",
        "AT_ValidateConstraint",
        "AT_ChangeOwner",
        # Published as parts of the grammar: nobody has triggers of his own, so they change nothing.
        "AT_EnableTrigAll",
        "AT_EnableTrigUser",
        "AT_DisableTrigAll",
        "AT_DisableTrigUser",
    }
)

#: How messages name a refused subcommand.
_NAMES = {
    "AT_SetNotNull": "ALTER COLUMN ... SET NOT NULL",
    "AT_SetExpression": "ALTER COLUMN ... SET EXPRESSION",
    "AT_SetStatistics": "ALTER COLUMN ... SET STATISTICS",
    "AT_SetOptions": "ALTER COLUMN ... SET",
    "AT_ResetOptions": "ALTER COLUMN ... RESET",
    "AT_SetCompression": "ALTER COLUMN ... SET COMPRESSION",
    "AT_AlterColumnType": "ALTER COLUMN ... SET DATA TYPE",
    "AT_AlterColumnGenericOptions": "ALTER COLUMN ... OPTIONS",
    "AT_ClusterOn": "CLUSTER ON",
    "AT_DropCluster": "SET WITHOUT CLUSTER",
    "AT_SetAccessMethod": "SET ACCESS METHOD",
    "AT_SetLogged": "SET LOGGED",
    "AT_SetUnLogged": "SET UNLOGGED",
    "AT_DropOids": "SET WITHOUT OIDS",
    "AT_SetTableSpace": "SET TABLESPACE",
    "AT_SetRelOptions": "SET",
    "AT_ResetRelOptions": "RESET",
    "AT_EnableTrig": "ENABLE TRIGGER",
    "AT_EnableAlwaysTrig": "ENABLE ALWAYS TRIGGER",
    "AT_EnableReplicaTrig": "ENABLE REPLICA TRIGGER",
    "AT_DisableTrig": "DISABLE TRIGGER",
    "AT_EnableRule": "ENABLE RULE",
    "AT_EnableAlwaysRule": "ENABLE ALWAYS RULE",
    "AT_EnableReplicaRule": "ENABLE REPLICA RULE",
    "AT_DisableRule": "DISABLE RULE",
    "AT_AddInherit": "INHERIT",
    "AT_DropInherit": "NO INHERIT",
    "AT_AddOf": "OF",
    "AT_DropOf": "NOT OF",
    "AT_ReplicaIdentity": "REPLICA IDENTITY",
    "AT_EnableRowSecurity": "ENABLE ROW SECURITY",
    "AT_DisableRowSecurity": "DISABLE ROW SECURITY",
    "AT_ForceRowSecurity": "FORCE ROW SECURITY",
    "AT_NoForceRowSecurity": "NO FORCE ROW SECURITY",
    "AT_GenericOptions": "OPTIONS",
    "AT_AttachPartition": "ATTACH PARTITION",
    "AT_DetachPartition": "DETACH PARTITION",
    "AT_DetachPartitionFinalize": "DETACH PARTITION ... FINALIZE",
}


#: Recorded as it stands, slashes included.
_UNIQUE_INITIALLY_DEFERRED = "ALTER TABLE / ADD CONSTRAINT UNIQUE / DEFERRED / INITIALLY DEFERRED not supported"


def _unsupported(subcommand: str) -> Refusal:
    return Refusal("0A000", f"unsupported ALTER TABLE {subcommand} statement")


def refuse_alter_table(node: Node, is_async: bool) -> Iterator[Refusal]:
    if node.get("objtype") == "OBJECT_TYPE":  # attributes of a composite type
        yield Refusal("0A000", "ALTER TYPE not supported")
        return
    commands = [command["AlterTableCmd"] for command in node.get("cmds", ())]
    if is_async and [c["subtype"] for c in commands] != ["AT_ValidateConstraint"]:
        yield Refusal(
            "0A000",
            "ALTER TABLE ASYNC is supported for VALIDATE CONSTRAINT only",
            hint="Leave ASYNC out, or validate one constraint.",
        )
    for command in commands:
        subtype = command["subtype"]
        if subtype not in _ALLOWED:
            yield _unsupported(_NAMES.get(subtype, subtype.removeprefix("AT_")))
        elif subtype == "AT_AddColumn":
            yield from _refuse_add_column(command["def"]["ColumnDef"])
        elif subtype == "AT_AddConstraint":
            yield from _refuse_add_constraint(command["def"]["Constraint"])
        elif subtype == "AT_ValidateConstraint" and not is_async:
            yield _unsupported("VALIDATE CONSTRAINT")
        elif subtype == "AT_AddIdentity":
            yield from refuse_identity_cache(command["def"]["Constraint"].get("options", []))
        elif subtype == "AT_SetIdentity":
            yield from refuse_changed_cache(command["def"]["List"].get("items", []))


def _refuse_add_column(column: Node) -> Iterator[Refusal]:
    if "collClause" in column:
        yield COLLATE_REFUSED
    if "compression" in column:
        yield Refusal("0A000", "COMPRESSION clause not supported")
    if column.get("constraints"):
        yield Refusal("0A000", "ALTER TABLE ADD COLUMN with constraint not supported")
    yield from refuse_column_types(column)


def _refuse_add_constraint(constraint: Node) -> Iterator[Refusal]:
    kind = constraint["contype"]
    unchecked = constraint.get("skip_validation", False)
    if kind == "CONSTR_UNIQUE" and "indexname" in constraint:
        if constraint.get("initdeferred"):
            yield Refusal("0A000", _UNIQUE_INITIALLY_DEFERRED)
        elif constraint.get("deferrable"):
            yield Refusal("0A000", "DEFERRABLE constraint not supported")
    elif kind not in ("CONSTR_CHECK", "CONSTR_FOREIGN") or not unchecked:
        yield _unsupported("ADD CONSTRAINT")


#: Letters of AlterDomainStmt that need every stored value of the domain checked.
_DOMAIN_SUBCOMMANDS = {"O": "SET NOT NULL", "C": "ADD CONSTRAINT", "V": "VALIDATE CONSTRAINT"}


def refuse_alter_domain(node: Node) -> Iterator[Refusal]:
    subcommand = _DOMAIN_SUBCOMMANDS.get(node.get("subtype", ""))
    if subcommand is not None:
        yield Refusal("0A000", f"unsupported ALTER DOMAIN {subcommand} statement")


def changed_columns(node: Node) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of the columns that an ALTER TABLE adds, drops and makes identity columns."""
    added, dropped, identities = [], [], []
    for command in node.get("cmds", ()):
        fields = command["AlterTableCmd"]
        if fields["subtype"] == "AT_AddColumn":
            added.append(tag_of(fields["def"])[1]["colname"])
        elif fields["subtype"] == "AT_DropColumn":
            dropped.append(fields["name"])
        elif fields["subtype"] == "AT_AddIdentity":
            identities.append(fields["name"])
    return tuple(added), tuple(dropped), tuple(identities)


def validated_constraint(node: Node) -> str | None:
    """The constraint of VALIDATE CONSTRAINT."""
    for command in node.get("cmds", ()):
        fields = command["AlterTableCmd"]
        if fields["subtype"] == "AT_ValidateConstraint":
            return str(fields["name"])
    return None
