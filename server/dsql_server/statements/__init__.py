"""Statements by their text alone: classification, refusals and lifting of literals. Pure functions, no I/O."""

from dsql_server.statements.classifier import classify
from dsql_server.statements.model import (
    Definition,
    IndexDefinition,
    LockStrength,
    Parameter,
    Refusal,
    RelationName,
    RoleMapping,
    SqlSyntaxError,
    Statement,
    StatementKind,
    TransactionModes,
)

__all__ = [
    "Definition",
    "IndexDefinition",
    "LockStrength",
    "Parameter",
    "Refusal",
    "RelationName",
    "RoleMapping",
    "SqlSyntaxError",
    "Statement",
    "StatementKind",
    "TransactionModes",
    "classify",
]
