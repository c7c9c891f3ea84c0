"""Refusals of CREATE INDEX, in the order in which Aurora DSQL looks.

Name, CONCURRENTLY, USING, number of key columns, mode (ASYNC), then predicate, keys and included columns; most of the
last three are PostgreSQL's own errors and come from the engine in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator

from pglast import parser

from dsql_server.statements.model import IndexDefinition, Refusal
from dsql_server.statements.tables import KEY_COLUMNS_MAX, not_supported, too_many_key_columns
from dsql_server.statements.tree import Node, relation_name

#: CREATE INDEX without ASYNC is allowed (on an empty table) while this parameter is off.
SYNC_PARAMETER = "disable_sync_create_index"

_DEFAULT_ACCESS_METHOD = "btree"  #: the grammar fills it in where nothing was written


def refuse_create_index(node: Node, is_async: bool, text: str) -> Iterator[Refusal]:
    command = "CREATE INDEX"
    if node.get("concurrent"):
        yield not_supported("CONCURRENTLY", command)
    if node.get("accessMethod", _DEFAULT_ACCESS_METHOD) != _DEFAULT_ACCESS_METHOD or _names_access_method(text):
        yield not_supported("USING", command)
    if "options" in node:
        yield not_supported("WITH clause", command)
    if "tableSpace" in node:
        yield not_supported("TABLESPACE clause", command)
    keys = [element["IndexElem"] for element in node.get("indexParams", ())]
    if len(keys) > KEY_COLUMNS_MAX:
        yield too_many_key_columns()
    if not is_async:
        message = "unsupported mode. please use CREATE INDEX ASYNC."
        yield Refusal("0A000", message, lifted_by=SYNC_PARAMETER)
    for key in keys:
        if key.get("ordering", "SORTBY_DEFAULT") != "SORTBY_DEFAULT":
            yield Refusal("0A000", "specifying sort order not supported for index keys")
        if "opclass" in key:
            yield Refusal("0A000", "opclass not supported for index keys")


def _names_access_method(text: str) -> bool:
    """Whether USING btree was written: the tree doesn't tell it from nothing written."""
    depth = 0
    for token in parser.scan(text):
        if token.name == "ASCII_40":
            depth += 1
        elif token.name == "USING" and depth == 0:
            return True
        if depth:
            return False  # the list of keys has begun
    return False


def define(node: Node, is_async: bool) -> IndexDefinition:
    keys = [element["IndexElem"] for element in node.get("indexParams", ())]
    included = [element["IndexElem"] for element in node.get("indexIncludingParams", ())]
    return IndexDefinition(
        name=node.get("idxname"),
        relation=relation_name(node["relation"]),
        unique=bool(node.get("unique")),
        is_async=is_async,
        if_not_exists=bool(node.get("if_not_exists")),
        columns=tuple(key.get("name") for key in keys),
        included=tuple(element["name"] for element in included if "name" in element),
        has_predicate="whereClause" in node,
    )
