"""Command tags, as PostgreSQL reports them, without row counts."""

from __future__ import annotations

from dsql_server.statements.objects import words
from dsql_server.statements.tree import Node

_TAGS = {
    "SelectStmt": "SELECT",
    "InsertStmt": "INSERT",
    "UpdateStmt": "UPDATE",
    "DeleteStmt": "DELETE",
    "MergeStmt": "MERGE",
    "CreateStmt": "CREATE TABLE",
    "IndexStmt": "CREATE INDEX",
    "ViewStmt": "CREATE VIEW",
    "CreateSeqStmt": "CREATE SEQUENCE",
    "CreateDomainStmt": "CREATE DOMAIN",
    "CreateSchemaStmt": "CREATE SCHEMA",
    "CreateStatsStmt": "CREATE STATISTICS",
    "CreateRoleStmt": "CREATE ROLE",
    "CreateFunctionStmt": "CREATE FUNCTION",
    "AlterSeqStmt": "ALTER SEQUENCE",
    "AlterDomainStmt": "ALTER DOMAIN",
    "AlterStatsStmt": "ALTER STATISTICS",
    "AlterRoleStmt": "ALTER ROLE",
    "AlterRoleSetStmt": "ALTER ROLE",
    "AlterFunctionStmt": "ALTER FUNCTION",
    "AlterDefaultPrivilegesStmt": "ALTER DEFAULT PRIVILEGES",
    "DropRoleStmt": "DROP ROLE",
    "CommentStmt": "COMMENT",
    "VariableShowStmt": "SHOW",
    "ConstraintsSetStmt": "SET CONSTRAINTS",
    "ExplainStmt": "EXPLAIN",
    "CopyStmt": "COPY",
    "CallStmt": "CALL",
    "DeallocateStmt": "DEALLOCATE ALL",
}
_TRANSACTION_TAGS = {
    "TRANS_STMT_BEGIN": "BEGIN",
    "TRANS_STMT_START": "START TRANSACTION",
    "TRANS_STMT_COMMIT": "COMMIT",
    "TRANS_STMT_ROLLBACK": "ROLLBACK",
}
_ALTERING = {
    "AlterTableStmt": "objtype",
    "AlterObjectSchemaStmt": "objectType",
    "AlterOwnerStmt": "objectType",
}


def command_tag(name: str, node: Node) -> str:
    """The tag of a statement; empty for statements that are always refused."""
    if name in _TAGS:
        return _TAGS[name]
    if name == "TransactionStmt":
        return _TRANSACTION_TAGS.get(node["kind"], "")
    if name == "VariableSetStmt":
        return "RESET" if node["kind"] in ("VAR_RESET", "VAR_RESET_ALL") else "SET"
    if name == "DropStmt":
        return "DROP " + words(node["removeType"])
    if name in ("GrantStmt", "GrantRoleStmt"):
        tag = "GRANT" if node.get("is_grant") else "REVOKE"
        return tag + " ROLE" if name == "GrantRoleStmt" else tag
    if name in _ALTERING:
        return "ALTER " + words(node.get(_ALTERING[name], "OBJECT_TABLE"))
    if name == "RenameStmt":
        kind = node["renameType"]
        if kind in ("OBJECT_COLUMN", "OBJECT_TABCONSTRAINT"):
            kind = node.get("relationType", "OBJECT_TABLE") if kind == "OBJECT_COLUMN" else "OBJECT_TABLE"
        return "ALTER " + words(kind)
    if name == "VacuumStmt":
        return "VACUUM" if node.get("is_vacuumcmd") else "ANALYZE"
    return ""
