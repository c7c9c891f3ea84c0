"""The formats of EXPLAIN that programs read: documents of dictionaries and lists, read and written as PostgreSQL does.

A document is a list with one dictionary for each query. Whoever changes a document needs no more than its dictionaries;
the formats differ in how these are written only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

Document = list[dict[str, Any]]

_XML_NAMESPACE = "http://www.postgresql.org/2009/explain"
_YAML_ENTRY = re.compile(r"(?P<name>[^:]+): ?(?P<value>.*)")
#: Digits after the decimal point, by how a property's name ends.
_DECIMALS = {"Cost": 2, "Time": 3, "DPU": 5}
#: In XML nothing else tells that a value is a number.
_NUMBERS = re.compile(r".*(?:Cost|Time)$|Plan (?:Rows|Width)$|Actual (?:Rows|Loops)$")


class Format(NamedTuple):
    """One format."""

    read: Callable[[str], Document]
    write: Callable[[Document], str]


def format_of(text: str) -> Format | None:
    """The format that the text of an EXPLAIN is in, or None: it is meant for people."""
    return next((found for start, found in _FORMATS if text.startswith(start)), None)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        decimals = next((d for ending, d in _DECIMALS.items() if name.endswith(ending)), None)
        return repr(value) if decimals is None else f"{value:.{decimals}f}"
    return str(value)


# -- JSON -------------------------------------------------------------------------------------------------------------


def _write_json(document: Document) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


# -- YAML, as far as PostgreSQL uses it -------------------------------------------------------------------------------


def _read_yaml(text: str) -> Document:
    found, _ = _yaml_list(text.split("\n"), 0, 0)
    return found


def _yaml_list(lines: list[str], at: int, column: int) -> tuple[list[Any], int]:
    """The list whose items' dashes stand in the column, and where it ends."""
    found: list[Any] = []
    dash = " " * column + "- "
    while at < len(lines) and lines[at].startswith(dash):
        item = lines[at][len(dash) :]
        if item[:1] in ("[", '"'):
            found.append(json.loads(item))
            at += 1
        else:
            lines[at] = " " * len(dash) + item
            entries, at = _yaml_entries(lines, at, len(dash))
            found.append(entries)
    return found, at


def _yaml_entries(lines: list[str], at: int, column: int) -> tuple[dict[str, Any], int]:
    """The dictionary whose names begin in the column, and where it ends."""
    found: dict[str, Any] = {}
    while at < len(lines) and _column(lines[at]) == column:
        entry = _YAML_ENTRY.match(lines[at], column)
        if entry is None:
            break
        name, at = entry["name"], at + 1
        if entry["value"]:
            found[name] = json.loads(entry["value"])
        elif at < len(lines) and _column(lines[at]) > column and not lines[at].lstrip().startswith("- "):
            found[name], at = _yaml_entries(lines, at, _column(lines[at]))
        else:
            found[name], at = _yaml_list(lines, at, column + 2)
    return found, at


def _column(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _write_yaml(document: Document) -> str:
    return "\n".join(line for query in document for line in _dashed(_yaml_lines(query, 2), 0))


def _dashed(lines: Iterator[str], column: int) -> Iterator[str]:
    """An item of a list: its first line begins with a dash."""
    first = next(lines, "")
    yield " " * column + "- " + first.lstrip(" ")
    yield from lines


def _yaml_lines(entries: dict[str, Any], column: int) -> Iterator[str]:
    margin = " " * column
    for name, value in entries.items():
        if isinstance(value, dict):
            yield f"{margin}{name}: "
            yield from _yaml_lines(value, column + 2)
        elif isinstance(value, list):
            yield f"{margin}{name}: "
            for item in value:
                if isinstance(item, dict):
                    yield from _dashed(_yaml_lines(item, column + 4), column + 2)
                else:
                    yield f"{margin}  - {json.dumps(item, ensure_ascii=False)}"
        else:
            shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _shown(name, value)
            yield f"{margin}{name}: {shown}"


# -- XML --------------------------------------------------------------------------------------------------------------


def _read_xml(text: str) -> Document:
    return [_xml_value(query) for query in ElementTree.fromstring(text)]  # noqa: S314  our own engine's words


def _name(element: ElementTree.Element) -> str:
    return element.tag.removeprefix(f"{{{_XML_NAMESPACE}}}").replace("-", " ")


def _xml_value(element: ElementTree.Element) -> Any:
    children = list(element)
    name = _name(element)
    if not children:
        text = element.text or ""
        if "\n" in text and not text.strip():
            return []
        return float(text) if _NUMBERS.match(name) and "." in text else int(text) if _NUMBERS.match(name) else text
    names = {_name(child) for child in children}
    if names == {"Item"} or names == {name.removesuffix("s")}:
        return [_xml_value(child) for child in children]
    return {_name(child): _xml_value(child) for child in children}


def _write_xml(document: Document) -> str:
    lines = [f'<explain xmlns="{_XML_NAMESPACE}">']
    for query in document:
        lines += _xml_lines("Query", query, 2)
    return "\n".join((*lines, "</explain>"))


def _xml_lines(name: str, value: Any, column: int) -> Iterator[str]:
    tag, margin = name.replace(" ", "-"), " " * column
    if isinstance(value, dict):
        inner = [line for child, item in value.items() for line in _xml_lines(child, item, column + 2)]
    elif isinstance(value, list):
        inner = [
            line
            for item in value
            for line in _xml_lines(
                name.removesuffix("s") if isinstance(item, (dict, list)) else "Item", item, column + 2
            )
        ]
    else:
        yield f"{margin}<{tag}>{escape(_shown(name, value))}</{tag}>"
        return
    yield f"{margin}<{tag}>"
    yield from inner
    yield f"{margin}</{tag}>"


_FORMATS = (
    ("[", Format(json.loads, _write_json)),
    ("- ", Format(_read_yaml, _write_yaml)),
    ("<explain", Format(_read_xml, _write_xml)),
)
