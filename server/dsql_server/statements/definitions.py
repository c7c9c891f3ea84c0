"""What a DDL statement defines, alters or drops, for the catalog and for background jobs."""

from __future__ import annotations

from dsql_server.statements import alterations, indexes, objects
from dsql_server.statements.model import Definition, RelationName, RoleMapping
from dsql_server.statements.syntax import Parsed
from dsql_server.statements.tree import Node, qualified, relation_name, strings

#: Node type: (object type, field that holds a relation).
_RELATION_FIELDS = {
    "CreateStmt": ("TABLE", "relation"),
    "CreateSeqStmt": ("SEQUENCE", "sequence"),
    "AlterSeqStmt": ("SEQUENCE", "sequence"),
    "ViewStmt": ("VIEW", "view"),
}

#: Node type: (object type, field that holds a list of names).
_NAME_FIELDS = {
    "CreateDomainStmt": ("DOMAIN", "domainname"),
    "AlterDomainStmt": ("DOMAIN", "typeName"),
    "CreateFunctionStmt": ("FUNCTION", "funcname"),
    "CreateStatsStmt": ("STATISTICS", "defnames"),
    "AlterStatsStmt": ("STATISTICS", "defnames"),
}


def define(parsed: Parsed) -> Definition:
    name, node = parsed.name, parsed.tree
    exists = bool(node.get("missing_ok") or node.get("if_not_exists"))
    cascade = node.get("behavior") == "DROP_CASCADE"
    if name in _RELATION_FIELDS:
        object_type, field = _RELATION_FIELDS[name]
        return Definition(object_type, (relation_name(node[field]),), exists)
    if name in _NAME_FIELDS:
        object_type, field = _NAME_FIELDS[name]
        names = strings(node.get(field))
        return Definition(object_type, (qualified(names),) if names else (), exists)
    if name == "IndexStmt":
        index = indexes.define(node, parsed.is_async)
        own = () if index.name is None else ((index.relation[0], index.name),)
        return Definition("INDEX", own, exists, index=index)
    if name == "AlterTableStmt":
        return _alter_table(node)
    new_name = node.get("newname") if name == "RenameStmt" else None
    return Definition(_object_type(name, node), _names(name, node), exists, cascade, new_name=new_name)


def _alter_table(node: Node) -> Definition:
    added, dropped, identities = alterations.changed_columns(node)
    return Definition(
        objects.words(node.get("objtype", "OBJECT_TABLE")),
        (relation_name(node["relation"]),),
        bool(node.get("missing_ok")),
        any(c["AlterTableCmd"].get("behavior") == "DROP_CASCADE" for c in node.get("cmds", ())),
        validates=alterations.validated_constraint(node),
        added_columns=added,
        dropped_columns=dropped,
        identity_columns=identities,
    )


def _object_type(name: str, node: Node) -> str:
    kind = node.get("removeType") or node.get("renameType") or node.get("objectType") or node.get("objtype")
    if kind in ("OBJECT_COLUMN", "OBJECT_TABCONSTRAINT") and name == "RenameStmt":
        kind = node.get("relationType", "OBJECT_TABLE")
    if kind is not None:
        return objects.words(kind)
    return "SCHEMA" if name == "CreateSchemaStmt" else "ROLE" if "Role" in name else "PRIVILEGES"


def _names(name: str, node: Node) -> tuple[RelationName, ...]:
    if name == "CreateSchemaStmt":
        return ((None, node["schemaname"]),) if "schemaname" in node else ()
    if name == "CreateRoleStmt":
        return ((None, node["role"]),)
    if name in ("AlterRoleStmt", "AlterRoleSetStmt"):
        return _roles([{"RoleSpec": node["role"]}]) if "role" in node else ()
    if name == "DropRoleStmt":
        return _roles(node.get("roles", []))
    if "relation" in node:
        return (relation_name(node["relation"]),)
    if "subname" in node:
        return ((None, node["subname"]),)
    if "func" in node:
        return (qualified(strings(node["func"]["objname"])),)
    listed = [node["object"]] if "object" in node else node.get("objects", [])
    return tuple(objects.object_name(item) for item in listed)


def _roles(roles: list[Node]) -> tuple[RelationName, ...]:
    return tuple((None, role["RoleSpec"]["rolename"]) for role in roles if "rolename" in role["RoleSpec"])


def role_mapping(node: Node, arns: tuple[str, ...]) -> Definition:
    """AWS IAM GRANT and REVOKE."""
    roles = tuple(role["AccessPriv"].get("priv_name", "") for role in node.get("granted_roles", ()))
    mapping = RoleMapping(bool(node.get("is_grant")), roles, arns)
    return Definition("IAM", tuple((None, role) for role in roles), mapping=mapping)
