"""What EXPLAIN needs of the engine and of storage besides the client's own answer."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from dsql_server.catalog.state import Table
from dsql_server.encoding.keys import prefix, prefix_end
from dsql_server.interfaces import protocol as p
from dsql_server.processor.access import NOT_EXACT, Bound
from dsql_server.processor.executor import Executor
from dsql_server.processor.explain import Explanation
from dsql_server.processor.explain_dpu import Work
from dsql_server.processor.explain_formats import format_of
from dsql_server.processor.explain_reads import ReadMeter
from dsql_server.processor.explain_scans import Context, TableSizes, scan_facts
from dsql_server.processor.limits import LimitedScan
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.targets import read_targets
from dsql_server.statements import BATCHED_JOINS_PARAMETER


class ExplainRequest:
    """One EXPLAIN that a client sent, and what was noted while it ran."""

    def __init__(self, sql: str, options: frozenset[str], oids: tuple[int, ...], plan: LoadPlan) -> None:
        self.sql = sql  #: the statement that is explained
        self.is_generic = "generic_plan" in options
        self.is_executed = "analyze" in options
        self.is_verbose = "verbose" in options
        self.oids = oids
        self.plan = plan
        self.meter = ReadMeter()

    @cached_property
    def loading_plan(self) -> LoadPlan:
        """What to load: nothing, unless the statement is executed."""
        return self.meter.metered(self.plan) if self.is_executed else LoadPlan(self.plan.version)

    async def explanation(self, executor: Executor, bound: Bound, answer: list[str]) -> Explanation | None:
        """How to show the engine's answer, whose lines are ``answer``; None: as it is."""
        workspace = executor.workspace
        assert workspace is not None
        values = () if bound.values is self.plan.literals else bound.values
        found = await self._plan(executor, Bound(values, bound.formats[: len(values)]))
        if found is None:
            return None
        document, batches_joins = found
        context = Context(workspace.catalog, self.is_executed, reads=self.meter.by_alias)
        tables = {f.table.relation_id: f.table for f in scan_facts(document, workspace.catalog) if f is not None}
        assumed = await self._assumed_rows(executor, list(tables.values()))
        for table in tables.values():
            start = prefix(table.relation_id)
            stored = executor.storage.estimate_rows(start, prefix_end(start), workspace.t_start)
            context.sizes[table.relation_id] = TableSizes(stored, assumed.get(table.relation_id, stored))
        context.limits = self._limits(bound)
        total = self.meter.total
        work = Work(0.0, total.rows, total.size_bytes, self._mutations(answer) if self.is_executed else 0)
        return Explanation(self.sql, document, context, self.is_verbose, batches_joins, work, storage_s=total.seconds)

    async def _plan(self, executor: Executor, bound: Bound) -> tuple[dict[str, Any], bool] | None:
        """The engine's plan, and whether the session lets joins be batched."""
        setting = f"SELECT pg_catalog.current_setting('{BATCHED_JOINS_PARAMETER}', true) = ANY ('{{off,false,no,0}}')"
        if self.is_generic:
            # Its parameters stay without values, so it can't be bound.
            batch = p.query(f"{setting}; EXPLAIN (VERBOSE, GENERIC_PLAN, FORMAT JSON) {self.sql}")
        else:
            batch = p.parse(b"", setting.encode()) + p.bind_statement(b"") + p.EXECUTE_UNNAMED
            sql = f"EXPLAIN (VERBOSE, FORMAT JSON) {self.sql}"
            batch += p.parse(b"", sql.encode(), self.oids) + p.bind_values(bound.values, bound.formats)
            batch += p.EXECUTE_UNNAMED + p.SYNC
        answer = await executor.collect(batch)
        if answer.error is not None:
            return None
        document: dict[str, Any] = json.loads(_text(answer.rows[1]))[0]["Plan"]
        return document, _text(answer.rows[0]) != "t"

    async def _assumed_rows(self, executor: Executor, tables: list[Table]) -> dict[int, int]:
        """How many rows the engine takes the tables to have."""
        if not tables:
            return {}
        batch = b""
        for table in tables:
            sql = f"EXPLAIN (FORMAT JSON) SELECT FROM ONLY {table.qualified_name}"
            batch += p.parse(b"", sql.encode()) + p.bind_statement(b"") + p.EXECUTE_UNNAMED
        answer = await executor.collect_as_loader(batch)
        if answer.error is not None:
            return {}
        plans = [json.loads(_text(rows))[0]["Plan"] for rows in answer.rows if rows]
        return {table.relation_id: plan["Plan Rows"] for table, plan in zip(tables, plans, strict=False)}

    def _limits(self, bound: Bound) -> dict[str, int]:
        found: dict[str, int] = {}
        if self.plan.literals and not bound.values:
            self.plan.bind_literals(bound)
        for scan in self.plan.scans:
            if isinstance(scan.access, LimitedScan):
                try:
                    count = scan.access.rows_wanted(bound)
                except NOT_EXACT:
                    continue
                if count is not None:
                    found[scan.alias] = count
        return found

    def _mutations(self, answer: list[str]) -> int:
        """Rows and index entries that the statement has written."""
        if not self.plan.written or not answer:
            return 0
        table = self.plan.written[0]
        child = next((line for line in answer[1:] if "->  " in line), answer[0])
        actual = child.partition("(actual ")[2]
        rows = int(actual.partition("rows=")[2].partition(" ")[0] or 0) if actual else 0
        if not answer[0].startswith("Update"):
            return rows * (1 + len(table.indexes))
        changed = read_targets(self.sql).updated.get(table.name, {})
        numbers = {table.by_name[name].number for name in changed if name in table.by_name}
        moved = [index for index in table.indexes if numbers & table.deciding_columns(index)]
        return rows * (1 + 2 * len(moved))


def _text(rows: list[bytes]) -> str:
    return b"\n".join(p.data_row_fields(row)[0] or b"" for row in rows).decode()


def shown(explanation: Explanation, texts: list[str]) -> list[str]:
    """The fields of the engine's answer as they are to be shown."""
    format_ = format_of(texts[0]) if len(texts) == 1 and "\n" in texts[0] else None
    if format_ is None:
        return explanation.text(texts)
    document = format_.read(texts[0])
    explanation.change(document)
    return [format_.write(document)]
