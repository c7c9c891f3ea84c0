"""Names that begin with the database's own, as in ``postgres.public.t``.

PostgreSQL takes them for the database that the session is connected to, which a query processor calls otherwise. So
they are left out of what it is given; blanks stand in their place, and every position stays true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pglast import parser

from dsql_server.statements.tree import Node, strings, walk

DATABASE = "postgres"
#: Kinds of objects whose names are a schema's: of three parts, the first is the database.
_IN_SCHEMAS = frozenset({"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_SEQUENCE", "OBJECT_INDEX", "OBJECT_DOMAIN"})
#: Statements that name objects without saying where they stand, and the field that says of which kind they are.
_LISTED_KIND = {"DropStmt": "removeType", "CommentStmt": "objtype"}
#: Lists of names with the place where they stand, and the parts of one that begins with a database.
_LOCATED = (("fields", 4), ("funcname", 3), ("names", 3))


def without_own_database(text: str, name: str, tree: Node, index: Callable[[int], int]) -> str:
    """The statement's text with blanks for its database. ``index``: the character at a location of the tree."""
    if DATABASE not in text.lower():
        return text
    places = {index(location) for location in _locations(tree)}
    lists_names = tree.get(_LISTED_KIND.get(name, "")) in _IN_SCHEMAS
    if not places and not lists_names:
        return text
    chars = list(text)
    tokens = parser.scan(text)
    for i, token in enumerate(tokens):
        if token.start in places or (lists_names and _begins_with_database(text, tokens[i : i + 5])):
            _blank(chars, token)
            dot = next(t for t in tokens[i + 1 :] if t.name == "ASCII_46")
            _blank(chars, dot)
    return "".join(chars)


def _blank(chars: list[str], token: parser.Token) -> None:
    chars[token.start : token.end + 1] = " " * (token.end + 1 - token.start)


def _begins_with_database(text: str, tokens: list[parser.Token]) -> bool:
    """Whether the tokens are ``postgres . schema . name``; a name of two parts may have a schema called so."""
    if len(tokens) < 5 or tokens[1].name != "ASCII_46" or tokens[3].name != "ASCII_46":
        return False
    word = text[tokens[0].start : tokens[0].end + 1]
    return word == f'"{DATABASE}"' or word.lower() == DATABASE


def _locations(tree: Any) -> Iterator[int]:
    for _, node in walk(tree):
        if node.get("catalogname") == DATABASE:
            yield node.get("location", 0)
            continue
        for field, parts in _LOCATED:
            if field in node and "location" in node:
                names = strings(node[field])
                if len(node[field]) >= parts and names[:1] == [DATABASE]:
                    yield node["location"]
