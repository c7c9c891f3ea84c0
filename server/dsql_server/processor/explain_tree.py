"""Plans as EXPLAIN prints them in text format: read into a tree, and printed again.

Nothing is known here of kinds of nodes: a node is its title, its numbers, and the lines and nodes below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_ARROW = "->  "
#: Title, estimates and what was measured. Without COSTS there are no estimates.
_NODE = re.compile(
    r"(?P<title>.*?)(?:  \(cost=(?P<startup>[\d.]+)\.\.(?P<total>[\d.]+) rows=(?P<rows>\d+) width=(?P<width>\d+)\))?"
    r"(?P<actual>(?: | {2})\((?:actual .*|never executed)\))?$"
)
_ACTUAL_ROWS = re.compile(r"rows=(\d+) loops=(\d+)")


@dataclass(frozen=True)
class Estimate:
    """What the planner expects of a node, in its own units of cost, and in rows and bytes."""

    startup: float
    total: float
    rows: int
    width: int

    def __str__(self) -> str:
        return f"cost={self.startup:.2f}..{self.total:.2f} rows={self.rows} width={self.width}"

    def plain(self) -> dict[str, float | int]:
        """The numbers as EXPLAIN (FORMAT JSON) calls them."""
        return {
            "Startup Cost": round(self.startup, 2),
            "Total Cost": round(self.total, 2),
            "Plan Rows": self.rows,
            "Plan Width": self.width,
        }


@dataclass
class StorageNode:
    """A node of the storage layer, below a scan."""

    title: str
    estimate: Estimate | None
    actual_rows: int | None
    properties: list[tuple[str, str]] = field(default_factory=list)  #: names and values
    children: list[StorageNode] = field(default_factory=list)

    def printed(self, indent: int) -> Iterator[str]:
        """The lines of the node and of those below it."""
        numbers = ""
        if self.estimate is not None:
            numbers = f"  ({self.estimate} loops=1)"
        if self.actual_rows is not None:
            numbers += f" (actual rows={self.actual_rows} loops=1)"
        yield f"{' ' * indent}-> {self.title}{numbers}"
        for name, value in self.properties:
            yield f"{' ' * (indent + 4)}{name}: {value}"
        for child in self.children:
            yield from child.printed(indent + 4)

    def plain(self) -> dict[str, Any]:
        """The node for the formats that programs read."""
        kind, _, relation = self.title.partition(" on ")
        found: dict[str, Any] = {"Node Type": kind, "Parent Relationship": "Outer", "Relation Name": relation}
        if self.estimate is not None:
            found |= self.estimate.plain()
        if self.actual_rows is not None:
            found |= {"Actual Rows": self.actual_rows, "Actual Loops": 1}
        found |= {name: int(value) if value.isdecimal() else value for name, value in self.properties}
        if self.children:
            found["Plans"] = [child.plain() for child in self.children]
        return found


@dataclass
class PlanNode:
    """A node of the plan. ``body`` has what is below it in order: properties, labels of sub-plans, and nodes."""

    title: str
    column: int  #: where its title begins
    estimate: Estimate | None = None
    actual: str = ""  #: as printed, with the blanks before it
    body: list[tuple[int, str] | PlanNode] = field(default_factory=list)  #: lines with their columns
    storage: list[StorageNode] = field(default_factory=list)

    @property
    def children(self) -> list[PlanNode]:
        return [item for item in self.body if isinstance(item, PlanNode)]

    @property
    def properties(self) -> list[str]:
        """The node's own lines."""
        return [item[1] for item in self._own_lines()]

    def _own_lines(self) -> list[tuple[int, str]]:
        return [item for item in self.body if isinstance(item, tuple) and item[0] == self.column + 2]

    def value(self, name: str) -> str | None:
        """The value of a property, or None."""
        return next((line[len(name) + 2 :] for line in self.properties if line.startswith(f"{name}: ")), None)

    def put(self, name: str, value: str | None) -> None:
        """Change a property in its place, or take it out."""
        changed: list[tuple[int, str] | PlanNode] = []
        for item in self.body:
            if isinstance(item, tuple) and item[0] == self.column + 2 and item[1].startswith(f"{name}: "):
                if value is not None:
                    changed.append((item[0], f"{name}: {value}"))
            else:
                changed.append(item)
        self.body = changed

    def insert(self, at: int, *lines: str) -> None:
        """Put properties in front of the body's item number ``at``."""
        self.body[at:at] = [(self.column + 2, line) for line in lines]

    @property
    def is_timed(self) -> bool:
        """Whether the plan was executed."""
        return bool(self.actual)

    @property
    def actual_rows(self) -> int:
        """Rows of all loops; 0 where it was never executed."""
        found = _ACTUAL_ROWS.search(self.actual)
        return int(found.group(1)) * int(found.group(2)) if found else 0

    def walk(self) -> Iterator[PlanNode]:
        """The node and all below it, in the order in which they are printed."""
        yield self
        for child in self.children:
            yield from child.walk()

    def printed(self) -> Iterator[str]:
        """The lines of the node and of those below it."""
        arrow = _ARROW if self.column else ""
        numbers = f"  ({self.estimate})" if self.estimate is not None else ""
        yield f"{' ' * (self.column - len(arrow))}{arrow}{self.title}{numbers}{self.actual}"
        pending = self.storage
        for item in self.body:
            is_property = isinstance(item, tuple) and item[0] == self.column + 2 and ": " in item[1]
            if pending and not is_property:
                yield from self._printed_storage()
                pending = []
            if isinstance(item, PlanNode):
                yield from item.printed()
            else:
                yield f"{' ' * item[0]}{item[1]}"
        if pending:
            yield from self._printed_storage()

    def _printed_storage(self) -> Iterator[str]:
        for node in self.storage:
            yield from node.printed(self.column + 2)


def read_plan(lines: list[str]) -> tuple[PlanNode, list[str]]:
    """The tree, and the lines behind it (times, triggers). Raises ValueError where there is no plan."""
    if not lines or not lines[0] or lines[0][0] == " ":
        raise ValueError("EXPLAIN printed no plan")
    lines = _joined(lines)
    root = _node(lines[0], 0)
    open_nodes = [root]
    for number, line in enumerate(lines[1:], 1):
        text = line.lstrip(" ")
        column = len(line) - len(text)
        if column == 0:
            return root, lines[number:]
        is_node = text.startswith(_ARROW)
        if is_node:
            column += len(_ARROW)
        while len(open_nodes) > 1 and open_nodes[-1].column >= column:
            open_nodes.pop()
        if is_node:
            node = _node(text[len(_ARROW) :], column)
            open_nodes[-1].body.append(node)
            open_nodes.append(node)
        else:
            open_nodes[-1].body.append((column, text))
    return root, []


def _joined(lines: list[str]) -> list[str]:
    """The lines with those together that a literal's line breaks have parted."""
    joined: list[str] = []
    is_open = False
    for line in lines:
        if is_open:
            joined[-1] += "\n" + line
        else:
            joined.append(line)
        is_open ^= line.count("'") % 2 == 1  # a quote within a literal is doubled
    return joined


def _node(text: str, column: int) -> PlanNode:
    found = _NODE.match(text)
    assert found is not None, "every text has a title"
    estimate = None
    if found["startup"] is not None:
        estimate = Estimate(float(found["startup"]), float(found["total"]), int(found["rows"]), int(found["width"]))
    return PlanNode(found["title"], column, estimate, found["actual"] or "")
