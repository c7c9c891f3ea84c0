"""CURRENT_CATALOG in queries: PostgreSQL answers it from its own catalog, where a query processor has another name.

``current_database()`` is told the right one, so a query calls that instead.
"""

from __future__ import annotations

from pglast import parser

from dsql_server.statements.syntax import Parsed
from dsql_server.statements.tree import walk

_KEYWORD = "current_catalog"
_CALL = "pg_catalog.current_database()"
_OPERATION = "SVFOP_CURRENT_CATALOG"


def with_own_catalog(parsed: Parsed) -> str:
    """The engine's text of a query, with the call where CURRENT_CATALOG stood; a column keeps its name."""
    text = parsed.engine_sql
    if _KEYWORD not in text.lower():
        return text
    columns = {parsed.index(location) for location in _bare_columns(parsed)}
    for token in reversed(parser.scan(text)):
        if token.name == "CURRENT_CATALOG":
            name = f" AS {_KEYWORD}" if token.start in columns else ""
            text = text[: token.start] + _CALL + name + text[token.end + 1 :]
    return text


def _bare_columns(parsed: Parsed) -> list[int]:
    """Where a result column is nothing but CURRENT_CATALOG, without a name of its own."""
    found = []
    for kind, node in walk(parsed.tree):
        if kind == "ResTarget" and "name" not in node:
            function = node.get("val", {}).get("SQLValueFunction", {})
            if function.get("op") == _OPERATION:
                found.append(function.get("location", 0))
    return found
