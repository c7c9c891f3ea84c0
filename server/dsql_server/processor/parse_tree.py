"""PostgreSQL's parse trees, as pglast gives them.

pglast declares every field as optional, although the parser guarantees those that are read here; so nodes are ``Any``
to the type checker, and :func:`is_a` tells their kinds apart without narrowing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, parser

Node = Any


def parse_statement(sql: str) -> Node:
    """The tree of the first statement in ``sql``. Raises ``pglast.parser.ParseError``."""
    return parser.parse_sql(sql)[0].stmt


def parse_expression(text: str) -> Node | None:
    """The tree of an expression as PostgreSQL prints it, or None where that isn't SQL (sub-plans, for example)."""
    try:
        return parse_statement(f"SELECT {text}").targetList[0].val
    except parser.ParseError:
        return None


def is_a(node: Node, *kinds: type[ast.Node]) -> bool:
    """Whether the node is of one of the kinds."""
    return isinstance(node, kinds)


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    if isinstance(node, ast.Node):
        yield node
        for name in node:
            yield from walk(getattr(node, name))
    elif isinstance(node, tuple):
        for item in node:
            yield from walk(item)
