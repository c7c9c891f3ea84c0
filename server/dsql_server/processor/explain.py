"""EXPLAIN as Aurora DSQL answers it, made of the engine's own answer.

The engine plans on tables without rows and without DSQL's storage below; its plan's nodes, conditions and times stay,
while scans are shown as DSQL makes them, with what storage is asked for and what it did.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from pglast import parser

from dsql_server.processor.explain_conditions import join_conditions, names_others, split_condition
from dsql_server.processor.explain_costs import carry_up
from dsql_server.processor.explain_dpu import DpuEstimate, Work, estimate_dpu
from dsql_server.processor.explain_formats import Document
from dsql_server.processor.explain_json import BATCHED_JOIN, PlainPlan
from dsql_server.processor.explain_scans import SCAN_TITLE, Context, ScanFacts, scan_facts, shape_scan
from dsql_server.processor.explain_tree import PlanNode, read_plan

_JOIN = re.compile(r"Nested Loop(?: (?P<type>Left|Semi|Anti|Right|Full)(?: Join)?)?$")
_TIME = re.compile(r"(Planning|Execution) Time: ([\d.]+) ms$")
#: Of the engine's own storage, which DSQL doesn't have.
_ENGINE_PROPERTIES = ("Heap Fetches", "Heap Blocks")
#: Planner settings that are the engine's own; EXPLAIN (SETTINGS) lists them.
_ENGINE_SETTINGS = frozenset({"enable_bitmapscan", "enable_memoize", "jit", "max_parallel_workers_per_gather",
                              "plan_cache_mode", "random_page_cost"})  # fmt: skip
_IDENTIFIER_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_IDENTIFIER_LENGTH = 13


@dataclass
class Explanation:
    """One EXPLAIN. ``plan`` is the engine's for the same statement, with VERBOSE and in JSON."""

    sql: str  #: the statement that is explained
    plan: dict[str, Any]
    context: Context
    is_verbose: bool
    batches_joins: bool = True
    work: Work = field(default_factory=Work)  #: without the engine's own time
    storage_s: float = 0.0  #: what storage took, before the engine began

    def text(self, lines: list[str]) -> list[str]:
        """The answer in text format. Lines that aren't a plan stay as they are."""
        try:
            root, rest = read_plan(lines)
        except ValueError:
            return lines
        scans = [node for node in root.walk() if SCAN_TITLE.match(node.title)]
        facts = scan_facts(self.plan, self.context.state)
        if len(scans) == len(facts):
            before = {id(node): node.estimate for node in root.walk() if node.estimate is not None}
            shapes = {id(node): (node, found) for node, found in zip(scans, facts, strict=True) if found is not None}
            for node, found in shapes.values():
                _show_scan(node, found, self.context)
            if self.batches_joins:
                for node in root.walk():
                    _show_batched(node, shapes)
            carry_up(root, before)
        return [line for text in (*root.printed(), *self._ending(rest)) for line in text.split("\n")]

    def _ending(self, rest: list[str]) -> list[str]:
        found: list[str] = []
        has_times = False
        milliseconds = 0.0
        for line in rest:
            if line.startswith("Settings: "):
                line = _settings(line)
            if not line or line.startswith("Query Identifier:"):
                continue
            time = _TIME.match(line)
            if time is not None:
                has_times = True
                took = float(time.group(2)) + (self.storage_s * 1000 if time.group(1) == "Execution" else 0.0)
                milliseconds += took
                line = f"{time.group(1)} Time: {took:.3f} ms"
            found.append(line)
        if self.is_verbose:
            at = next((i for i, line in enumerate(found) if line.startswith("Planning")), len(found))
            found.insert(at, f"Query Identifier: {query_identifier(self.sql)}")
            if self.context.is_executed and has_times:
                found += self._dpu(milliseconds).lines()
        return found

    def _dpu(self, milliseconds: float) -> DpuEstimate:
        work = self.work
        return estimate_dpu(Work(milliseconds / 1000, work.rows_read, work.bytes_read, work.mutations))

    def change(self, document: Document) -> None:
        """Change the answer in a format that programs read."""
        top = document[0]
        facts = scan_facts(self.plan, self.context.state)
        PlainPlan(self.context, facts, self.batches_joins).show(top["Plan"])
        times = 0.0
        for name in ("Planning Time", "Execution Time"):
            if name in top:
                top[name] = round(top[name] + (self.storage_s * 1000 if name == "Execution Time" else 0.0), 3)
                times += top[name]
        if self.is_verbose:
            top["Query Identifier"] = query_identifier(self.sql)
            if self.context.is_executed and "Execution Time" in top:
                top["Statement DPU Estimate"] = self._dpu(times).plain()
        if "Settings" in top:
            top["Settings"] = {name: value for name, value in top["Settings"].items() if name not in _ENGINE_SETTINGS}
            if not top["Settings"]:
                del top["Settings"]


def _show_scan(node: PlanNode, facts: ScanFacts, context: Context) -> None:
    title = SCAN_TITLE.match(node.title)
    assert title is not None, "only scans have facts"
    condition = node.value("Index Cond")
    shape = shape_scan(title, facts, condition, node.value("Filter"), node.estimate, context)
    using = f" using {shape.index}" if shape.index is not None else ""
    node.title = f"{shape.kind}{title['backward'] or ''}{using} on {title['target']}"
    node.put("Filter", shape.filter)
    for name in _ENGINE_PROPERTIES:
        node.put(name, None)
    if not shape.is_filtered_by_processor:
        node.put("Rows Removed by Filter", None)
    node.estimate = shape.estimate
    node.storage = shape.storage


def _show_batched(node: PlanNode, shapes: dict[int, tuple[PlanNode, ScanFacts]]) -> None:
    """A nested loop whose inner side is a scan collects rows of its outer side, and asks storage for all at once."""
    join = _JOIN.match(node.title)
    inputs = [child for child in node.children if not _is_subplan(node, child)]
    if join is None or len(inputs) != 2 or id(inputs[1]) not in shapes:
        return
    inner, facts = shapes[id(inputs[1])]
    printed = split_condition(inner.value("Index Cond"))
    joining = [
        text for text, full in zip(printed, facts.index_condition, strict=False) if names_others(full, facts.alias)
    ]
    node.title = BATCHED_JOIN
    join_filter, condition = node.value("Join Filter"), node.value("Filter")
    node.put("Join Filter", None)
    node.put("Filter", None)
    lines = [
        ("Filter", condition),
        ("Join Type", join["type"]),
        ("Recheck Cond", join_conditions(joining)),
        ("Join Filter", join_filter),
    ]
    at = 1 if node.value("Output") is not None else 0
    node.insert(at, *(f"{name}: {value}" for name, value in lines if value is not None))


def _is_subplan(node: PlanNode, child: PlanNode) -> bool:
    """Sub-plans stand below a label of their own, so further right."""
    return child.column > min(c.column for c in node.children)


def _settings(line: str) -> str:
    """The line of EXPLAIN (SETTINGS) with the session's own settings; empty where there are none."""
    items = line.removeprefix("Settings: ").split(", ")
    own = [item for item in items if item.partition(" ")[0] not in _ENGINE_SETTINGS]
    return f"Settings: {', '.join(own)}" if own else ""


def query_identifier(sql: str) -> str:
    """An identifier that queries share which differ in their constants only."""
    try:
        shared = parser.fingerprint(sql)
    except parser.ParseError:
        shared = sql
    number = int.from_bytes(sha256(shared.encode()).digest(), "big")
    letters = []
    for _ in range(_IDENTIFIER_LENGTH):
        number, letter = divmod(number, len(_IDENTIFIER_LETTERS))
        letters.append(_IDENTIFIER_LETTERS[letter])
    return "".join(letters)
