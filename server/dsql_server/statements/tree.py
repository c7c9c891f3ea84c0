"""Reading PostgreSQL's parse trees as pglast prints them in JSON.

A node is a dict; an untyped field holds ``{"NodeName": {…}}``, a typed one the inner dict at once. Fields with their
default value (0, false, empty) are left out. The plain dicts cost a tenth of pglast's node objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]

#: Tokens of a text that are in no parse tree.
COMMENTS = frozenset({"SQL_COMMENT", "C_COMMENT"})


def load(text: str) -> Node:
    """Decode a parse tree. Deep ones (a sum of a thousand terms) don't fit into Python's recursion limit."""
    try:
        tree = json.loads(text)
    except RecursionError:
        tree = _load_deep(text)
    assert isinstance(tree, dict)
    return tree


def _load_deep(text: str) -> Any:
    """Decode JSON without recursion; only what pglast writes: no blanks, no malformed input."""
    root: list[Any] = []
    stack: list[list[Any] | Node] = []
    container: list[Any] | Node = root
    key: str | None = None
    decode = json.JSONDecoder().raw_decode
    i, end = 0, len(text)
    while i < end:
        c = text[i]
        if c in ",:":
            i += 1
            continue
        if c in "]}":
            container = stack.pop()
            i += 1
            continue
        opened: list[Any] | Node | None = None
        value: Any
        if c == "{":
            value = opened = {}
            i += 1
        elif c == "[":
            value = opened = []
            i += 1
        elif c == '"':
            value, i = decode(text, i)
            if isinstance(container, dict) and key is None:
                key = value
                continue
        else:
            start = i
            while i < end and text[i] not in ",]}":
                i += 1
            value = json.loads(text[start:i])
        if isinstance(container, dict):
            assert key is not None, "a value without a key"
            container[key] = value
            key = None
        else:
            container.append(value)
        if opened is not None:
            stack.append(container)
            container = opened
    assert len(root) == 1 and not stack, "unbalanced parse tree"
    return root[0]


def tag_of(node: Node) -> tuple[str, Node]:
    """The name and the fields of an untyped node."""
    assert len(node) == 1, "an untyped node has one key"
    return next(iter(node.items()))


def strings(nodes: list[Node] | None) -> list[str]:
    """The texts of a list of String nodes, for names such as ``pg_catalog.int4``."""
    return [n["String"].get("sval", "") for n in nodes or () if "String" in n]


def relation_name(range_var: Node) -> tuple[str | None, str]:
    return range_var.get("schemaname"), range_var["relname"]


def qualified(names: list[str]) -> tuple[str | None, str]:
    """Split ``[catalog,] [schema,] name``."""
    return (names[-2] if len(names) > 1 else None), names[-1]


def constant(node: Node | None) -> str | None:
    """The text of a constant, or None for anything else (NULL included)."""
    if node is None:
        return None
    value = node.get("A_Const")
    if value is None:
        for kind, field in (("Integer", "ival"), ("Float", "fval"), ("String", "sval"), ("Boolean", "boolval")):
            if kind in node:
                return str(node[kind].get(field, 0 if kind == "Integer" else ""))
        return None
    if "ival" in value:
        return str(value["ival"].get("ival", 0))
    if "sval" in value:
        return str(value["sval"].get("sval", ""))
    if "fval" in value:
        return str(value["fval"].get("fval", ""))
    if "boolval" in value:
        return "true" if value["boolval"].get("boolval") else "false"
    return None


def walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Every ``(field or node name, dict)`` below ``root``, without recursion and roughly in text order."""
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        name, node = stack.pop()
        if isinstance(node, dict):
            yield name, node
            for key in reversed(node):
                child = node[key]
                if isinstance(child, (dict, list)):
                    stack.append((key, child))
        else:
            stack.extend((name, item) for item in reversed(node) if isinstance(item, (dict, list)))
