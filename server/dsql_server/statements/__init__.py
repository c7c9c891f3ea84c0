"""Statements by their text alone: classification, refusals and lifting of literals. Pure functions, no I/O."""

from dsql_server.statements.classifier import classify
from dsql_server.statements.indexes import SYNC_PARAMETER, UNSUPPORTED_MODE
from dsql_server.statements.literals import Lifted, Literal, LiteralKind, lift_literals
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
from dsql_server.statements.settings import (
    BATCHED_JOINS_PARAMETER,
    BLOCK_READS_ONLY_NOTE,
    READS_ONLY_NOTE,
    is_utf8,
    refuse_change,
)

__all__ = [
    "BATCHED_JOINS_PARAMETER",
    "BLOCK_READS_ONLY_NOTE",
    "READS_ONLY_NOTE",
    "SYNC_PARAMETER",
    "UNSUPPORTED_MODE",
    "Definition",
    "IndexDefinition",
    "Lifted",
    "Literal",
    "LiteralKind",
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
    "is_utf8",
    "lift_literals",
    "refuse_change",
]
