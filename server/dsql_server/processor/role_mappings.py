"""AWS IAM GRANT and REVOKE: which IAM identities may connect as which role, in ``sys.iam_pg_role_mappings``."""

from __future__ import annotations

import re
import zlib
from struct import Struct

from dsql_server.catalog.state import IAM_MAPPINGS_RELATION_ID
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.keys import NOT_NULL, KeyEncoder, encode_value, prefix, prefix_end
from dsql_server.encoding.rows import fields, join
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import ScanRequest, StorageReader
from dsql_server.interfaces.messages import Claim, LockMode, Mutation, Timestamp
from dsql_server.processor.errors import EngineRefusal, SqlError
from dsql_server.processor.executor import Executor
from dsql_server.processor.roles import ADMIN_ROLE
from dsql_server.statements import Statement

_ARN = re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::\d{12}:[a-z-]+(?:/[\w+=,.@/-]+|)")
_ASSUMED_ROLE = re.compile(r"(arn:aws[a-z-]*:)sts::(\d{12}):assumed-role/([\w+=,.@-]+)/.*")
#: PostgreSQL's own roles have names that begin so.
_PREDEFINED_PREFIX = "pg_"
_U32 = Struct("!I")
_ARN_FIELD, _ROLE_FIELD = 1, 3
_KEY = KeyEncoder(IAM_MAPPINGS_RELATION_ID, [(_ROLE_FIELD, oids.TEXT), (_ARN_FIELD, oids.TEXT)])


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


async def change_mappings(executor: Executor, statement: Statement) -> tuple[list[Claim], list[Mutation]]:
    """What the statement commits. Raises SqlError if a role or an ARN won't do."""
    definition = statement.definition
    assert definition is not None and definition.mapping is not None, "the statement is AWS IAM GRANT or REVOKE"
    mapping = definition.mapping
    for arn in mapping.arns:
        if not _ARN.fullmatch(arn):
            raise SqlError("22023", "IAM role must look like an IAM ARN", detail=f'"{arn}" is none.')
    grantor = executor.processor.role
    if grantor != ADMIN_ROLE:
        raise SqlError("42501", f"permission denied to grant IAM trust with role {mapping.roles[0]}")
    known = await _roles(executor, [*mapping.roles, grantor])
    claims: list[Claim] = []
    mutations: list[Mutation] = []
    for role in mapping.roles:
        if role == ADMIN_ROLE:
            raise SqlError("0A000", f"Role {role} not supported")
        if role not in known:
            raise SqlError("42704", f'role "{role}" does not exist')
        if role.startswith(_PREDEFINED_PREFIX):
            raise SqlError("0A000", f"Cannot establish trust with role {role}")
        role_oid, can_log_in = known[role]
        if mapping.grant and not can_log_in:
            raise SqlError("0A000", f"role {role} must have the LOGIN attribute")
        for arn in mapping.arns:
            row = [
                _U32.pack(zlib.crc32(f"{role} {arn}".encode()) or 1),
                arn.encode(),
                _U32.pack(role_oid),
                role.encode(),
                _U32.pack(known[grantor][0]),
                grantor.encode(),
            ]
            key = _KEY.from_fields(row)
            claims.append(Claim(key, LockMode.UPDATE))
            mutations.append(Mutation(key, join(row) if mapping.grant else None))
    return claims, mutations


async def _roles(executor: Executor, names: list[str]) -> dict[str, tuple[int, bool]]:
    """Oid and LOGIN of those roles that there are."""
    listed = ", ".join(map(_literal, names))
    answer = await executor.collect(
        p.query(f"SELECT rolname, oid::int8, rolcanlogin FROM pg_catalog.pg_roles WHERE rolname IN ({listed})")
    )
    if answer.error is not None:
        raise EngineRefusal(answer.error, hide_context=True)
    found = (p.data_row_fields(row) for row in answer.rows[0])
    return {(name or b"").decode(): (int(oid or 0), can_log_in == b"t") for name, oid, can_log_in in found}


def trusts(role: str, principal_arn: str, stands_for_any: bool, storage: StorageReader, t: Timestamp) -> bool:
    """Whether the IAM identity may connect as the role.

    ``principal_arn`` may be of a session of an IAM role: the role itself is what is trusted.
    """
    arns = _mapped(role, storage, t)
    return bool(arns) if stands_for_any else _identity(principal_arn) in arns


def _identity(principal_arn: str) -> str:
    """The IAM user or role behind a principal: ``assumed-role/name/session`` stands for ``role/name``."""
    found = _ASSUMED_ROLE.fullmatch(principal_arn)
    return f"{found[1]}iam::{found[2]}:role/{found[3]}" if found is not None else principal_arn


def _mapped(role: str, storage: StorageReader, t: Timestamp) -> list[str]:
    """The IAM identities that may connect as the role."""
    return [(row[_ARN_FIELD] or b"").decode() for _, row in _rows(role, storage, t)]


def _rows(role: str, storage: StorageReader, t: Timestamp) -> list[tuple[bytes, list[bytes | None]]]:
    """Keys and rows of the role's mappings."""
    start = prefix(IAM_MAPPINGS_RELATION_ID) + NOT_NULL + encode_value(oids.TEXT, role.encode())
    stored = storage.scan(ScanRequest(start, prefix_end(start), t)).rows
    found = [(key, list(fields(value))) for key, value in stored]
    return [(key, row) for key, row in found if row[_ROLE_FIELD] == role.encode()]


def renamed_mappings(
    before: str, after: str, storage: StorageReader, t: Timestamp
) -> tuple[list[Claim], list[Mutation]]:
    """What a role's new name changes: its IAM identities stay trusted."""
    claims: list[Claim] = []
    mutations: list[Mutation] = []
    for key, row in _rows(before, storage, t):
        row[_ROLE_FIELD] = after.encode()
        renamed = _KEY.from_fields(row)
        claims += [Claim(key, LockMode.UPDATE), Claim(renamed, LockMode.UPDATE)]
        mutations += [Mutation(key, None), Mutation(renamed, join(row))]
    return claims, mutations


def refuse_mapped(role: str, storage: StorageReader, t: Timestamp) -> None:
    """Raises SqlError if an IAM identity may still connect as the role: it can't be dropped then."""
    arns = _mapped(role, storage, t)
    if arns:
        raise SqlError(
            "2BP01",
            f'role "{role}" cannot be dropped because some objects depend on it',
            detail="\n".join(f"IAM trust of {arn}" for arn in arns),
            hint="Use AWS IAM REVOKE first.",
        )
