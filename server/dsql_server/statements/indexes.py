"""Refusals of CREATE INDEX, in the order in which Aurora DSQL looks.

Name, CONCURRENTLY, USING, number of key columns, mode (ASYNC), then predicate, keys and included columns; most of the
last three are PostgreSQL's own errors and come from the engine in the same order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from pglast import parser

from dsql_server.statements.model import IndexDefinition, Refusal
from dsql_server.statements.tables import KEY_COLUMNS_MAX, not_supported, too_many_key_columns
from dsql_server.statements.tree import COMMENTS, Node, relation_name

#: CREATE INDEX without ASYNC is allowed (on an empty table) while this parameter is off.
SYNC_PARAMETER = "disable_sync_create_index"
#: What is said of CREATE INDEX without ASYNC: on any table while that parameter is on, else on tables with rows.
UNSUPPORTED_MODE = "unsupported mode. please use CREATE INDEX ASYNC."

#: How Aurora DSQL's access method is called: the only one that USING may name.
INDEX_METHOD = "btree_index"
_DEFAULT_ACCESS_METHOD = "btree"  #: the grammar fills it in where nothing was written


def refuse_create_index(node: Node, is_async: bool, text: str) -> Iterator[Refusal]:
    command = "CREATE INDEX"
    if node.get("concurrent"):
        yield not_supported("CONCURRENTLY", command)
    method = node.get("accessMethod", _DEFAULT_ACCESS_METHOD)
    if method != INDEX_METHOD and (method != _DEFAULT_ACCESS_METHOD or _using(text) is not None):
        yield not_supported("USING", command)
    if "options" in node:
        yield not_supported("WITH clause", command)
    if "tableSpace" in node:
        yield not_supported("TABLESPACE clause", command)
    keys = [element["IndexElem"] for element in node.get("indexParams", ())]
    if len(keys) > KEY_COLUMNS_MAX:
        yield too_many_key_columns()
    if not is_async:
        yield Refusal("0A000", UNSUPPORTED_MODE, lifted_by=SYNC_PARAMETER)
    for key in keys:
        if key.get("ordering", "SORTBY_DEFAULT") != "SORTBY_DEFAULT":
            yield Refusal("0A000", "specifying sort order not supported for index keys")
        if "opclass" in key:
            yield Refusal("0A000", "opclass not supported for index keys")


def without_own_method(node: Node, text: str) -> str:
    """The text with blanks for ``USING btree_index``, which a PostgreSQL engine doesn't know."""
    found = _using(text) if node.get("accessMethod") == INDEX_METHOD else None
    if found is None:
        return text
    using, method = found
    return text[: using.start] + " " * (method.end + 1 - using.start) + text[method.end + 1 :]


def _using(text: str) -> tuple[parser.Token, parser.Token] | None:
    """USING and the method's name, where they were written: the tree doesn't tell USING btree from nothing written."""
    tokens = [token for token in parser.scan(text) if token.name not in COMMENTS]
    for token, following in itertools.pairwise(tokens):
        if token.name == "ASCII_40":
            return None  # the list of keys has begun
        if token.name == "USING":
            return token, following
    return None


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
