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
    places = {parsed.index(location): is_column for location, is_column in _places(parsed).items()}
    for token in reversed(parser.scan(text)):
        if token.start in places:
            name = f" AS {_KEYWORD}" if places[token.start] else ""
            text = text[: token.start] + _CALL + name + text[token.end + 1 :]
    return text


def _places(parsed: Parsed) -> dict[int, bool]:
    """Where CURRENT_CATALOG is a value, and whether it is all of a result column without a name of its own.

    It may also be a label, which stays as it is.
    """
    found: dict[int, bool] = {}
    for kind, node in walk(parsed.tree):
        if kind == "SQLValueFunction" and node.get("op") == _OPERATION:
            found.setdefault(node.get("location", 0), False)
        elif kind == "ResTarget" and "name" not in node:
            function = node.get("val", {}).get("SQLValueFunction", {})
            if function.get("op") == _OPERATION:
                found[function.get("location", 0)] = True
    return found
