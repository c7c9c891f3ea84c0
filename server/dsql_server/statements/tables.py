"""Refusals of CREATE TABLE, CREATE DOMAIN, CREATE SEQUENCE, CREATE VIEW and of their parts.

Aurora DSQL refuses some clauses in its grammar and the rest when it analyses the statement. The first kind comes
first, whatever stands earlier in the text; :func:`refuse_create_table` keeps that order.
"""

from __future__ import annotations

from collections.abc import Iterator

from pglast import parser

from dsql_server.statements import datatypes
from dsql_server.statements.model import Refusal
from dsql_server.statements.syntax import Parsed
from dsql_server.statements.tree import Node, constant, strings, tag_of

COLUMNS_MAX = 255  #: columns of a table
KEY_COLUMNS_MAX = 8  #: columns of a primary key, unique constraint or index
SEQUENCE_CACHE_MIN = 65536  #: smallest CACHE above 1
NUMERIC_DEFAULT = "(18,6)"  #: precision and scale of a numeric column that states none

_CACHE_HINT = f"please define CACHE greater than or equal to {SEQUENCE_CACHE_MIN} or equal to 1"
COLLATE_REFUSED = Refusal("0A000", "COLLATE clause not supported")
_DEFERRED = frozenset({"CONSTR_ATTR_DEFERRABLE", "CONSTR_ATTR_DEFERRED"})
_KEYS = frozenset({"CONSTR_PRIMARY", "CONSTR_UNIQUE"})


def not_supported(clause: str, command: str) -> Refusal:
    return Refusal("0A000", f"{clause} not supported for {command}")


def refuse_create_table(node: Node) -> Iterator[Refusal]:
    elements = [tag_of(e) for e in node.get("tableElts", ())]
    columns = [e for tag, e in elements if tag == "ColumnDef"]
    constraints = [e for tag, e in elements if tag == "Constraint"]
    yield from _refuse_clauses(node)
    for column in columns:
        yield from _refuse_column_clauses(column)
    for constraint in constraints:
        yield from _refuse_constraint_clauses(constraint)
    for column in columns:
        yield from refuse_column_types(column)
    yield from _refuse_keys(columns, constraints)
    if len(columns) > COLUMNS_MAX:
        yield Refusal("54011", f"tables can have at most {COLUMNS_MAX} columns")


def _refuse_clauses(node: Node) -> Iterator[Refusal]:
    command = "CREATE TABLE"
    yield from refuse_persistence(node["relation"], "table", command)
    if "partbound" in node:
        yield not_supported("PARTITION OF clause", command)
    elif "inhRelations" in node:
        yield not_supported("INHERITS clause", command)
    if "ofTypename" in node:
        yield not_supported("OF clause", command)
    if "partspec" in node:
        yield not_supported("PARTITION BY clause", command)
    if "accessMethod" in node:
        yield not_supported("USING clause", command)
    if "options" in node:
        yield not_supported("WITH clause", command)
    if node.get("oncommit", "ONCOMMIT_NOOP") != "ONCOMMIT_NOOP":
        yield not_supported("ON COMMIT clause", command)
    if "tablespacename" in node:
        yield not_supported("TABLESPACE clause", command)


def refuse_persistence(relation: Node, noun: str, command: str) -> Iterator[Refusal]:
    if relation.get("relpersistence") == "t":
        yield not_supported(f"TEMPORARY or TEMP {noun}", command)
    elif relation.get("relpersistence") == "u":
        yield not_supported(f"UNLOGGED {noun}", command)


def _refuse_column_clauses(column: Node) -> Iterator[Refusal]:
    """What Aurora DSQL's grammar refuses in a column of CREATE TABLE."""
    if "collClause" in column:
        yield COLLATE_REFUSED
    if "compression" in column:
        yield Refusal("0A000", "COMPRESSION clause not supported")
    owner = ""
    for wrapped in column.get("constraints", ()):
        tag, constraint = tag_of(wrapped)
        if tag == "CollateClause":
            yield COLLATE_REFUSED
            continue
        kind = constraint["contype"]
        if kind in _DEFERRED and owner in _KEYS:
            yield Refusal("0A000", "DEFERRABLE constraint not supported")
        elif not kind.startswith("CONSTR_ATTR"):
            owner = kind
            yield from _refuse_constraint_clauses(constraint)


def _refuse_constraint_clauses(constraint: Node) -> Iterator[Refusal]:
    kind = constraint["contype"]
    if kind == "CONSTR_EXCLUSION":
        yield Refusal("0A000", "EXCLUDE constraint not supported")
    if kind in _KEYS:
        if constraint.get("deferrable") or constraint.get("initdeferred"):
            yield Refusal("0A000", "DEFERRABLE constraint not supported")
        if "options" in constraint:
            yield Refusal("0A000", "WITH clause not supported for constraints")
    if kind == "CONSTR_IDENTITY":
        yield from refuse_identity_cache(constraint.get("options", []))


def refuse_column_types(column: Node) -> Iterator[Refusal]:
    """Types that can't be stored, and identity columns of another type than bigint."""
    type_name = column.get("typeName")
    if type_name is None:
        return
    refusal = datatypes.refuse_column_type(type_name)
    if refusal is not None:
        yield refusal
    for wrapped in column.get("constraints", ()):
        tag, constraint = tag_of(wrapped)
        if (
            tag == "Constraint"
            and constraint["contype"] == "CONSTR_IDENTITY"
            and datatypes.base_name(type_name) != "int8"
        ):
            shown = datatypes.display_name(type_name)
            yield Refusal("0A000", f"datatype {shown} not supported, identity column type must be bigint")


def _refuse_keys(columns: list[Node], constraints: list[Node]) -> Iterator[Refusal]:
    types = {c["colname"]: c["typeName"] for c in columns if "typeName" in c}
    keys = [
        [column["colname"]]
        for column in columns
        for tag, constraint in map(tag_of, column.get("constraints", ()))
        if tag == "Constraint" and constraint["contype"] in _KEYS
    ]
    keys += [strings(c.get("keys")) for c in constraints if c["contype"] in _KEYS]
    for key in keys:
        if len(key) > KEY_COLUMNS_MAX:
            yield too_many_key_columns()
        for name in key:
            refusal = datatypes.refuse_key_type(types[name]) if name in types else None
            if refusal is not None:
                yield refusal


def too_many_key_columns() -> Refusal:
    return Refusal("54011", f"more than {KEY_COLUMNS_MAX} column keys in an index are not supported")


def _option(options: list[Node], name: str) -> str | None:
    for option in options:
        if option["DefElem"]["defname"] == name:
            return constant(option["DefElem"].get("arg")) or ""
    return None


def _refuse_cache(options: list[Node], unstated: str | None) -> Iterator[Refusal]:
    """CACHE must be stated: 1, or a block large enough to be leased from the cluster.

    ``unstated``: what to say if it isn't stated; None where it needn't be.
    """
    size = _option(options, "cache")
    if size is None:
        if unstated is not None:
            yield Refusal("0A000", f"{unstated} is not supported without an explicit cache size. {_CACHE_HINT}")
    elif not size.isdecimal() or 1 < int(size) < SEQUENCE_CACHE_MIN or int(size) < 1:
        yield Refusal("22023", f"CACHE ({size}) must be greater than or equal to {SEQUENCE_CACHE_MIN} or equal to 1")


def refuse_identity_cache(options: list[Node]) -> Iterator[Refusal]:
    return _refuse_cache(options, "identity column")


def refuse_changed_cache(options: list[Node]) -> Iterator[Refusal]:
    """For commands that may leave the cache size alone."""
    yield from _refuse_sequence_type(options)
    yield from _refuse_cache(options, None)


def refuse_create_sequence(node: Node) -> Iterator[Refusal]:
    yield from refuse_persistence(node["sequence"], "sequence", "CREATE SEQUENCE")
    options = node.get("options", [])
    yield from _refuse_sequence_type(options)
    yield from _refuse_cache(options, "CREATE SEQUENCE")


def _refuse_sequence_type(options: list[Node]) -> Iterator[Refusal]:
    for option in options:
        element = option["DefElem"]
        if element["defname"] == "as" and datatypes.base_name(element["arg"]["TypeName"]) != "int8":
            yield Refusal("22023", "sequence type must be bigint")


def refuse_create_domain(node: Node) -> Iterator[Refusal]:
    if "collClause" in node:
        yield COLLATE_REFUSED
    refusal = datatypes.refuse_column_type(node["typeName"])
    if refusal is not None:
        yield refusal


def refuse_create_view(node: Node) -> Iterator[Refusal]:
    command = "CREATE VIEW"
    yield from refuse_persistence(node["view"], "view", command)
    if "options" in node:
        yield not_supported("WITH clause", command)
    if node.get("withCheckOption", "NO_CHECK_OPTION") != "NO_CHECK_OPTION":
        yield not_supported("WITH CHECK OPTION", command)


def default_precisions(columns: list[Node], parsed: Parsed) -> str:
    """The engine's text with the default precision and scale put behind every bare numeric.

    PostgreSQL's numeric without precision holds anything; Aurora DSQL's is a numeric(18,6).
    """
    starts = {
        parsed.index(column["typeName"]["location"])
        for column in columns
        if "typeName" in column
        and datatypes.base_name(column["typeName"]) == "numeric"
        and not column["typeName"].keys() & {"typmods", "arrayBounds", "setof"}
    }
    text = parsed.engine_sql
    if not starts:
        return text
    tokens = parser.scan(text)
    for i in reversed(range(len(tokens))):
        if tokens[i].start in starts:
            if i + 2 < len(tokens) and tokens[i + 1].name == "ASCII_46":  # pg_catalog.numeric
                i += 2
            end = tokens[i].end + 1
            text = text[:end] + NUMERIC_DEFAULT + text[end:]
    return text
