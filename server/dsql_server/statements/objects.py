"""Refusals of DROP, RENAME, SET SCHEMA, OWNER TO, COMMENT, GRANT, roles and functions."""

from __future__ import annotations

from collections.abc import Iterator

from dsql_server.statements.model import Refusal, RelationName
from dsql_server.statements.settings import refuse_change
from dsql_server.statements.tables import not_supported
from dsql_server.statements.tree import Node, constant, qualified, relation_name, strings, tag_of

CATALOG_SCHEMAS = frozenset({"pg_catalog", "information_schema", "sys"})
SYSTEM_SCHEMAS = CATALOG_SCHEMAS | {"public"}
ADMIN_ROLE = "admin"
STATISTICS_TARGET_MAX = 100

_SYSTEM_NAMES = {("OBJECT_ROLE", ADMIN_ROLE), *(("OBJECT_SCHEMA", name) for name in SYSTEM_SCHEMAS)}
SYSTEM_ENTITY = Refusal("0A000", "feature not supported on system entity")
PROCEDURE = Refusal("0A000", "PROCEDURE is not supported")
_ALTER_FUNCTION = Refusal("0A000", "unsupported statement: AlterFunction")

_RELATIONS = frozenset({"OBJECT_TABLE", "OBJECT_SEQUENCE", "OBJECT_VIEW", "OBJECT_INDEX"})
_ROUTINES = frozenset({"OBJECT_FUNCTION", "OBJECT_ROUTINE"})
_COMMON = _RELATIONS | _ROUTINES | {"OBJECT_SCHEMA", "OBJECT_STATISTIC_EXT"}
#: The published grammar has the last two, of which there never is one.
_DROPPABLE = _COMMON | {"OBJECT_DOMAIN", "OBJECT_TRIGGER", "OBJECT_EVENT_TRIGGER"}
_RENAMABLE = _COMMON | {"OBJECT_COLUMN", "OBJECT_TABCONSTRAINT", "OBJECT_ROLE"}
_MOVABLE = _COMMON | {"OBJECT_DOMAIN"}
_OWNABLE = _COMMON | {"OBJECT_DOMAIN"}
_COMMENTABLE = _COMMON | {
    "OBJECT_COLUMN",
    "OBJECT_TABCONSTRAINT",
    "OBJECT_DOMCONSTRAINT",
    "OBJECT_DOMAIN",
    "OBJECT_ROLE",
}
_GRANTABLE = _RELATIONS | _ROUTINES | {"OBJECT_SCHEMA", "OBJECT_COLUMN", "OBJECT_DOMAIN"}

#: Role options that would reach beyond the cluster's own roles.
_REFUSED_ROLE_OPTIONS = {
    "superuser": "SUPERUSER",
    "isreplication": "REPLICATION",
    "bypassrls": "BYPASSRLS",
    "createdb": "CREATEDB",
    "password": "PASSWORD",
    "validUntil": "VALID UNTIL",
    "connectionlimit": "CONNECTION LIMIT",
}


def words(object_type: str) -> str:
    """ "OBJECT_TABLE" as in a command: "TABLE"."""
    return {
        "OBJECT_TABCONSTRAINT": "CONSTRAINT",
        "OBJECT_DOMCONSTRAINT": "CONSTRAINT",
        "OBJECT_STATISTIC_EXT": "STATISTICS",
        "OBJECT_MATVIEW": "MATERIALIZED VIEW",
    }.get(object_type, object_type.removeprefix("OBJECT_").replace("_", " "))


def object_name(node: Node) -> RelationName:
    """The name of an object as DROP, COMMENT, ALTER … OWNER and GRANT hold it."""
    tag, fields = tag_of(node)
    if tag == "RangeVar":
        return relation_name(fields)
    if tag == "List":
        return qualified(strings(fields.get("items")) or [""])
    if tag == "String":
        return None, fields.get("sval", "")
    if tag == "TypeName":
        return qualified(strings(fields.get("names")) or [""])
    if tag == "ObjectWithArgs":
        return qualified(strings(fields.get("objname")) or [""])
    return None, ""


def refuse_drop(node: Node) -> Iterator[Refusal]:
    kind = node["removeType"]
    if kind == "OBJECT_PROCEDURE":
        yield PROCEDURE
    elif kind not in _DROPPABLE:
        yield Refusal("0A000", "unsupported object in DROP statement")
    if node.get("concurrent"):
        yield not_supported("CONCURRENTLY", "DROP INDEX")
    if kind == "OBJECT_SCHEMA" and any(object_name(o)[1] in SYSTEM_SCHEMAS for o in node.get("objects", ())):
        yield SYSTEM_ENTITY


def refuse_rename(node: Node) -> Iterator[Refusal]:
    kind = node["renameType"]
    if kind == "OBJECT_PROCEDURE":
        yield PROCEDURE
    elif kind not in _RENAMABLE:
        yield Refusal("0A000", "unsupported object in RENAME statement")
    elif (kind, node.get("subname")) in _SYSTEM_NAMES:
        yield SYSTEM_ENTITY


def refuse_set_schema(node: Node) -> Iterator[Refusal]:
    yield from _refuse_object(node["objectType"], _MOVABLE, "SET SCHEMA")


def refuse_owner(node: Node) -> Iterator[Refusal]:
    yield from _refuse_object(node["objectType"], _OWNABLE, "OWNER TO")
    if ("OBJECT_SCHEMA", object_name(node["object"])[1]) in _SYSTEM_NAMES and node["objectType"] == "OBJECT_SCHEMA":
        yield SYSTEM_ENTITY


def refuse_comment(node: Node) -> Iterator[Refusal]:
    yield from _refuse_object(node["objtype"], _COMMENTABLE, "COMMENT")


def _refuse_object(kind: str, allowed: frozenset[str], command: str) -> Iterator[Refusal]:
    if kind == "OBJECT_PROCEDURE":
        yield PROCEDURE
    elif kind == "OBJECT_TYPE" and command in ("SET SCHEMA", "OWNER TO"):
        yield Refusal("0A000", "ALTER TYPE not supported")
    elif kind not in allowed:
        yield Refusal("0A000", f"unsupported object in {command} statement")


def refuse_grant(node: Node) -> Iterator[Refusal]:
    kind = node["objtype"]
    if kind == "OBJECT_PROCEDURE":
        yield PROCEDURE
    elif kind not in _GRANTABLE:
        yield Refusal("0A000", "unsupported object type in GRANT")
    if node.get("targtype") == "ACL_TARGET_OBJECT":
        for item in node.get("objects", ()):
            schema, name = object_name(item)
            if name in SYSTEM_SCHEMAS if kind == "OBJECT_SCHEMA" else schema in CATALOG_SCHEMAS:
                yield SYSTEM_ENTITY
                return


def refuse_grant_role(node: Node) -> Iterator[Refusal]:
    for privilege in node.get("granted_roles", ()):
        role = privilege["AccessPriv"].get("priv_name", "")
        if role.startswith("pg_") or role == ADMIN_ROLE:
            yield Refusal("0A000", f"Role {role} not supported")


def refuse_create_role(node: Node) -> Iterator[Refusal]:
    yield from _refuse_role_options(node)
    for option in node.get("options", ()):
        if option["DefElem"]["defname"] == "addroleto":
            for role in option["DefElem"]["arg"]["List"].get("items", ()):
                name = role["RoleSpec"].get("rolename", "")
                if name.startswith("pg_") or name == ADMIN_ROLE:
                    yield Refusal("0A000", f"Role {name} not supported")


def refuse_alter_role(node: Node) -> Iterator[Refusal]:
    if node["role"].get("rolename") == ADMIN_ROLE:
        yield SYSTEM_ENTITY
    yield from _refuse_role_options(node)


def _refuse_role_options(node: Node) -> Iterator[Refusal]:
    for option in node.get("options", ()):
        name, value = option["DefElem"]["defname"], option["DefElem"].get("arg")
        if name in _REFUSED_ROLE_OPTIONS and constant(value) != "False":
            yield Refusal("0A000", f"role option {_REFUSED_ROLE_OPTIONS[name]} not supported")


def refuse_alter_role_setting(node: Node) -> Iterator[Refusal]:
    if node.get("role", {}).get("rolename") == ADMIN_ROLE:
        yield SYSTEM_ENTITY
    if "database" in node:
        yield not_supported("IN DATABASE", "ALTER ROLE")
    name = node["setstmt"].get("name")
    refusal = refuse_change(name) if name else None
    if refusal is not None:
        yield refusal


def refuse_drop_role(node: Node) -> Iterator[Refusal]:
    if any(role["RoleSpec"].get("rolename") == ADMIN_ROLE for role in node.get("roles", ())):
        yield SYSTEM_ENTITY


def refuse_create_function(node: Node) -> Iterator[Refusal]:
    if node.get("is_procedure"):
        yield PROCEDURE
        return
    for option in node.get("options", ()):
        fields = option["DefElem"]
        if fields["defname"] == "language":
            language = constant(fields.get("arg")) or ""
            if language.lower() != "sql":
                yield Refusal("0A000", f"CREATE FUNCTION with language {language} not supported")
    yield from refuse_function_settings(node.get("options", []))


def refuse_alter_function(node: Node) -> Iterator[Refusal]:
    """Changes of a function's properties; it can only be renamed, moved and given to another owner."""
    yield PROCEDURE if node.get("objtype") == "OBJECT_PROCEDURE" else _ALTER_FUNCTION


def refuse_function_settings(options: list[Node]) -> Iterator[Refusal]:
    """SET clauses of a function follow the rules of SET."""
    for option in options:
        if option["DefElem"]["defname"] == "set":
            name = option["DefElem"]["arg"]["VariableSetStmt"].get("name")
            refusal = refuse_change(name) if name else None
            if refusal is not None:
                yield refusal


def function_body(node: Node) -> str | None:
    """The SQL text of AS '…', None for BEGIN ATOMIC and RETURN (which are in the tree)."""
    for option in node.get("options", ()):
        if option["DefElem"]["defname"] == "as":
            texts = strings(option["DefElem"]["arg"]["List"].get("items"))
            return texts[0] if texts else None
    return None


def refuse_statistics_target(node: Node) -> Iterator[Refusal]:
    target = constant(node.get("stxstattarget"))
    if target is None:
        yield Refusal(
            "0A000",
            "SET STATISTICS DEFAULT not supported for ALTER STATISTICS",
            hint="Use SET STATISTICS -1 to restore the default.",
        )
    elif int(target) > STATISTICS_TARGET_MAX:
        limit = STATISTICS_TARGET_MAX
        yield Refusal("22023", f"statistics target {target} exceeds maximum allowed value of {limit}")
