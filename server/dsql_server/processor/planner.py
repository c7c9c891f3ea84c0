"""Asks an engine on an empty database how it would run a statement, and keeps the load plans."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from typing import Any, NamedTuple

from dsql_server.catalog.changes import Catalog
from dsql_server.interfaces import protocol as p
from dsql_server.processor.engine_connection import EngineConnection, EngineError
from dsql_server.processor.plan import LoadPlan, PlanReader
from dsql_server.processor.pool import ProcessorPool, QueryProcessor
from dsql_server.processor.roles import PLANNER_ROLE
from dsql_server.statements import Statement

#: Load plans kept, over all sessions.
PLANS_MAX = 4000

#: A base scan must show all of its conditions, and joins what the inner side is asked for.
_PLANNER_SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "enable_memoize": "off",
    "enable_bitmapscan": "off",
    "max_parallel_workers_per_gather": "0",
    "IntervalStyle": "postgres",
}

_USER_FUNCTIONS_SQL = (
    "SELECT coalesce(json_agg(DISTINCT p.proname), '[]')::text FROM pg_catalog.pg_proc p "
    "JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'sys') AND p.prolang = 14"
)


class PlanSettings(NamedTuple):
    """Session settings that a statement's meaning depends on."""

    search_path: str = ""  #: as SHOW prints it; empty: the default
    time_zone: str = "UTC"
    date_style: str = "ISO, MDY"


class Planner:
    """Load plans by statement text, parameter types and settings, for the catalog's current version."""

    def __init__(self, pool: ProcessorPool, catalog: Catalog) -> None:
        self._pool = pool
        self._catalog = catalog
        self._processor: QueryProcessor | None = None
        self._plans: OrderedDict[tuple[str, tuple[int, ...], PlanSettings], LoadPlan] = OrderedDict()
        self._lock = asyncio.Lock()
        self._settings = PlanSettings()
        self._user_functions: set[str] = set()
        self._functions_version = -1
        self.planned = 0

    async def open(self) -> None:
        """Connect to the pool's engine, once for each engine. Raises EngineError, EngineGone or OSError."""
        processor = await self._pool.provision_processor()
        await processor.open(PLANNER_ROLE, _PLANNER_SETTINGS)
        assert processor.connection is not None
        processor.connection.on_lost = self._pool.engine_lost
        self._processor, self._settings = processor, PlanSettings()

    def close(self) -> None:
        if self._processor is not None:
            self._processor.close()

    def may_read_tables(self, statement: Statement) -> bool:
        """Whether the statement can touch a stored table: it names a user's relation or calls a user's function."""
        for schema, name in statement.relations:
            if schema not in ("pg_catalog", "information_schema") and not (schema is None and name.startswith("pg_")):
                return True
        return bool(statement.functions) and (
            self._functions_version != self._catalog.version or not statement.functions.isdisjoint(self._user_functions)
        )

    def cached(self, sql: str, oids: tuple[int, ...], settings: PlanSettings) -> LoadPlan | None:
        """The plan if it is known and of the catalog's current version."""
        plan = self._plans.get((sql, oids, settings))
        return plan if plan is not None and plan.version == self._catalog.version else None

    async def plan(self, sql: str, oids: tuple[int, ...], settings: PlanSettings) -> LoadPlan | None:
        """The load plan; None where PostgreSQL refuses the statement: running it gives the same refusal."""
        found = self.cached(sql, oids, settings)
        if found is not None:
            return found
        async with self._lock:
            await self._pool.until_admitted()
            plan = await self._plan(sql, oids, settings)
        if plan is not None:
            self._plans[(sql, oids, settings)] = plan
            if len(self._plans) > PLANS_MAX:
                self._plans.popitem(last=False)
        return plan

    async def _plan(self, sql: str, oids: tuple[int, ...], settings: PlanSettings) -> LoadPlan | None:
        assert self._processor is not None and self._processor.connection is not None
        connection = self._processor.connection
        version = self._catalog.version
        if self._processor.version < version:
            await self._processor.replay(self._catalog.since(self._processor.version))
        await self._prepare_settings(connection, settings)
        state = self._catalog.state
        self.planned += 1
        try:
            answer = await connection.run(p.parse(b"plan", sql.encode(), oids) + p.describe_statement(b"plan") + p.SYNC)
        except EngineError:
            return None
        parameter_oids = _parameter_oids(answer.described)
        arguments = "(" + ", ".join(["NULL"] * len(parameter_oids)) + ")" if parameter_oids else ""
        try:
            explained = await connection.execute(f"EXPLAIN (VERBOSE, FORMAT JSON, COSTS OFF) EXECUTE plan{arguments}")
        except EngineError:
            return LoadPlan(state.version, parameter_oids, whole=list(state.tables.values()))
        finally:
            await connection.run(p.close_statement(b"plan") + p.SYNC)
        text = b"\n".join(p.data_row_fields(row)[0] or b"" for row in explained.rows[0]).decode()
        document: dict[str, Any] = json.loads(text)[0]["Plan"]
        plan = PlanReader(document, state, parameter_oids).read()
        if any(name in text for name in self._user_functions):
            plan.whole = list(state.tables.values())
        return plan

    async def _prepare_settings(self, connection: EngineConnection, settings: PlanSettings) -> None:
        if self._functions_version != self._catalog.version:
            answer = await connection.execute(_USER_FUNCTIONS_SQL)
            self._user_functions = set(json.loads((p.data_row_fields(answer.rows[0][0])[0] or b"[]").decode()))
            self._functions_version = self._catalog.version
        if settings != self._settings:
            order = settings.date_style.partition(",")[2].strip() or "MDY"
            await connection.execute(
                f"SET search_path = {settings.search_path or 'DEFAULT'}; SET TimeZone = {_quoted(settings.time_zone)}; "
                f"SET DateStyle = 'ISO, {order}'"
            )
            self._settings = settings


def _parameter_oids(description: bytes) -> tuple[int, ...]:
    if not description:
        return ()
    count = p.unpack_i16(description)[0]
    return tuple(p.unpack_i32(description, 2 + 4 * i)[0] & 0xFFFFFFFF for i in range(count))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
