"""Asks an engine on an empty database how it would run a statement, and keeps the load plans."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from typing import Any, NamedTuple

from dsql_server.catalog.changes import Catalog
from dsql_server.catalog.state import Table, quote_literal
from dsql_server.encoding import type_oids as oids
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.messages import LockMode
from dsql_server.processor.direct_insert import insert_directly
from dsql_server.processor.direct_read import read_directly
from dsql_server.processor.engine_connection import EngineConnection, EngineError, EngineGone
from dsql_server.processor.errors import server_unavailable
from dsql_server.processor.parse_tree import is_a, walk
from dsql_server.processor.plan import LoadPlan, write_anything
from dsql_server.processor.plan_facts import WRITING_NODES, FactReader, PlanFacts
from dsql_server.processor.plan_reader import PlanReader
from dsql_server.processor.pool import ProcessorPool
from dsql_server.processor.pushed_aggregates import Pushed, find_pushed_aggregates
from dsql_server.processor.query_processor import DEFAULT_SEARCH_PATH, QueryProcessor
from dsql_server.processor.roles import PLANNER_ROLE
from dsql_server.processor.row_locks import scanned_locks, strongest_lock
from dsql_server.processor.sequence_uses import (
    RECALLING_FUNCTIONS,
    SEQUENCE_FUNCTIONS,
    SEQUENCES_VIEW,
    sequence_uses,
    takes_hidden_values,
    uses_of_any,
)
from dsql_server.processor.targets import read_targets
from dsql_server.statements import LiteralKind, Statement, lift_literals

#: Load plans kept, over all sessions.
PLANS_MAX = 4000
#: How EXPLAIN (FORMAT JSON) says that rows are locked; inside of its values, quotes are escaped.
_LOCK_ROWS = '"Node Type": "LockRows"'

#: PostgreSQL gives what users define numbers from here on.
FIRST_USER_OID = 16384
#: The types that domains are made of, in the end.
_BASE_TYPES_SQL = (
    "WITH RECURSIVE made (domain, type) AS (SELECT oid, typbasetype FROM pg_catalog.pg_type WHERE oid IN ({}) "
    "AND typtype = 'd' UNION ALL SELECT m.domain, t.typbasetype FROM made m JOIN pg_catalog.pg_type t "
    "ON t.oid = m.type AND t.typtype = 'd') SELECT m.domain::int8, m.type::int8 FROM made m "
    "JOIN pg_catalog.pg_type t ON t.oid = m.type AND t.typtype <> 'd'"
)

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

_LITERAL_OIDS = {
    LiteralKind.INTEGER: oids.INT4,
    LiteralKind.BIGINT: oids.INT8,
    LiteralKind.NUMERIC: oids.NUMERIC,
    LiteralKind.BOOLEAN: oids.BOOL,
    LiteralKind.STRING: 0,
    LiteralKind.NULL: 0,
}


class PlanSettings(NamedTuple):
    """Session settings that a statement's meaning depends on."""

    search_path: str = ""  #: as SHOW prints it; empty: the default
    time_zone: str = "UTC"
    date_style: str = "ISO, MDY"
    interval_style: str = "postgres"

    @property
    def reading(self) -> dict[str, str]:
        """The settings that decide how constants are read, by name, as far as they aren't the defaults."""
        names = {"time_zone": "TimeZone", "date_style": "DateStyle", "interval_style": "IntervalStyle"}
        return {
            name: getattr(self, field)
            for field, name in names.items()
            if getattr(self, field) != self._field_defaults[field]
        }


_PlanKey = tuple[str, tuple[int, ...], PlanSettings]


class Planner:
    """Load plans by statement text, parameter types and settings, for the catalog's current version.

    Texts that differ in their literals only share a plan: it is made for the text with parameters in their place.
    """

    def __init__(self, pool: ProcessorPool, catalog: Catalog) -> None:
        self._pool = pool
        self._catalog = catalog
        self._processor: QueryProcessor | None = None
        self._plans: OrderedDict[_PlanKey, LoadPlan] = OrderedDict()
        self._templates: OrderedDict[_PlanKey, LoadPlan] = OrderedDict()
        self._refused_templates: dict[_PlanKey, int] = {}  #: with the catalog version that refused them
        self._lock = asyncio.Lock()
        self._settings = PlanSettings()
        self._fact_reader = FactReader()
        self._facts = PlanFacts()
        self._facts_version = -1
        self.planned = 0
        self.scans = 0  #: base scans in all plans made
        self.aggregates_pushed = 0  #: plans whose aggregates storage computes
        self.scans_narrowed = 0  #: of these, the ones that don't read their whole table
        self.direct_reads = 0  #: statements that storage has answered without an engine
        self.direct_inserts = 0  #: rows inserted without one

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

    def metrics(self) -> dict[str, int]:
        """Counters since the start."""
        return {
            "planned": self.planned,
            "scans": self.scans,
            "scans_narrowed": self.scans_narrowed,
            "aggregates_pushed": self.aggregates_pushed,
            "direct_reads": self.direct_reads,
            "direct_inserts": self.direct_inserts,
        }

    def may_read_tables(self, statement: Statement) -> bool:
        """Whether the statement can touch a stored table: it names a user's relation, or calls a user's function."""
        if not statement.functions.isdisjoint(SEQUENCE_FUNCTIONS | RECALLING_FUNCTIONS):
            return True
        is_stale = self._facts_version != self._catalog.version
        for schema, name in statement.relations:
            if name == SEQUENCES_VIEW:
                return True
            if schema not in ("pg_catalog", "information_schema") and not (schema is None and name.startswith("pg_")):
                return True
            # A user's relation may be called like PostgreSQL's own, which come first where both have the name.
            if schema is None and (is_stale or name in self._facts.views or self._is_table(name)):
                return True
        if is_stale:
            return bool(statement.functions)
        return not _bare(statement.functions).isdisjoint(self._facts.functions)

    def _is_table(self, name: str) -> bool:
        """Whether a user's table in some schema has this name."""
        return any(table == name for _, table in self._catalog.state.by_name)

    def cached(self, sql: str, oids: tuple[int, ...], settings: PlanSettings) -> LoadPlan | None:
        """The plan if it is known and of the catalog's current version."""
        plan = self._plans.get((sql, oids, settings))
        return plan if plan is not None and plan.version == self._catalog.version else None

    async def plan(self, sql: str, oids: tuple[int, ...], settings: PlanSettings) -> LoadPlan | None:
        """The load plan; None where PostgreSQL refuses the statement: running it gives the same refusal."""
        plan = self.cached(sql, oids, settings)
        if plan is not None:
            return plan
        if not oids and "$" not in sql:
            plan = await self._plan_lifted(sql, settings)
        if plan is None:
            async with self._lock:
                plan = await self._plan(sql, oids, settings)
        if plan is not None:
            _keep(self._plans, (sql, oids, settings), plan)
        return plan

    async def _plan_lifted(self, sql: str, settings: PlanSettings) -> LoadPlan | None:
        """The plan of the text with parameters for its literals, bound to them; None: plan the exact text."""
        lifted = lift_literals(sql)
        if lifted is None:
            return None
        oids = tuple(_LITERAL_OIDS[literal.kind] for literal in lifted.literals)
        key = (lifted.sql, oids, settings)
        template = self._templates.get(key)
        if template is None or template.version != self._catalog.version:
            if self._refused_templates.get(key) == self._catalog.version:
                return None
            async with self._lock:
                template = await self._plan(lifted.sql, oids, settings)
            if template is None or len(template.parameter_oids) != len(oids):
                if len(self._refused_templates) >= PLANS_MAX:
                    self._refused_templates.clear()
                self._refused_templates[key] = self._catalog.version
                return None
            _keep(self._templates, key, template)
        values = [None if literal.text is None else literal.text.encode() for literal in lifted.literals]
        return template.with_literals(values)

    async def reads_unnamed(self, statement: Statement, written: list[Table], settings: PlanSettings) -> bool:
        """Whether a COPY may read tables that it doesn't name: by a view, or by a function that it or a table calls."""
        async with self._lock:
            await self._current_connection(settings)
        facts = self._facts
        if written and not facts.table_functions.isdisjoint(facts.hidden_readers):
            return True
        return not _named(statement).isdisjoint(facts.views | facts.functions)

    async def may_take_values(self, statement: Statement, written: list[Table], settings: PlanSettings) -> bool:
        """Whether a COPY may take values from sequences that its tables don't own: in its query, or by a default."""
        async with self._lock:
            await self._current_connection(settings)
        users = self._facts.sequence_users
        if not _named(statement).isdisjoint(SEQUENCE_FUNCTIONS | users.names | self._facts.sequence_views):
            return True
        return any(takes_hidden_values(column, users) for table in written for column in table.columns)

    async def may_write(self, statement: Statement, settings: PlanSettings) -> bool:
        """Whether a view or function that the statement names may write or lock rows."""
        if not (statement.functions or statement.relations):
            return False
        async with self._lock:
            await self._current_connection(settings)
        return not _named(statement).isdisjoint(self._facts.hidden_writers)

    async def lock_by_view(self, statement: Statement, settings: PlanSettings) -> LockMode | None:
        """The strongest lock that a view takes which a COPY names; None: it names no such view."""
        async with self._lock:
            await self._current_connection(settings)
        named = _named(statement)
        if not named.isdisjoint(self._facts.update_lockers):
            return LockMode.UPDATE
        return None if named.isdisjoint(self._facts.lockers) else LockMode.KEY_SHARE

    async def _current_connection(self, settings: PlanSettings) -> EngineConnection:
        """The planner's own, its catalog and settings as they are now."""
        await self._pool.until_admitted()
        assert self._processor is not None, "opened before it plans"
        connection = self._processor.connection
        if connection is None:
            raise EngineGone  # the server stops
        while self._processor.version < self._catalog.version:
            try:
                await self._processor.replay(self._catalog)
            except EngineError as error:
                raise server_unavailable() from error
        await self._prepare_settings(connection, settings)
        return connection

    async def _plan(self, sql: str, oids: tuple[int, ...], settings: PlanSettings) -> LoadPlan | None:
        connection = await self._current_connection(settings)
        state = self._catalog.state
        self.planned += 1
        try:
            answer = await connection.run(p.parse(b"plan", sql.encode(), oids) + p.describe_statement(b"plan") + p.SYNC)
        except EngineError:
            return None
        parameter_oids = await _without_domains(connection, sql, _parameter_oids(answer.described))
        arguments = "(" + ", ".join(["NULL"] * len(parameter_oids)) + ")" if parameter_oids else ""
        try:
            explained = await connection.execute(f"EXPLAIN (VERBOSE, FORMAT JSON, COSTS OFF) EXECUTE plan{arguments}")
        except EngineError:
            return self._plan_unseen(sql, parameter_oids)
        finally:
            await connection.run(p.close_statement(b"plan") + p.SYNC)
        text = b"\n".join(p.data_row_fields(row)[0] or b"" for row in explained.rows[0]).decode()
        document: dict[str, Any] = json.loads(text)[0]["Plan"]
        targets = read_targets(sql)
        targets.renamed |= self._facts.renamed
        targets.has_limit = targets.has_limit or self._facts.has_limit
        plan = PlanReader(document, state, parameter_oids, targets, self._facts.views).read()
        if state.sequences:
            plan.sequences = await sequence_uses(connection, state, sql, text, document, self._facts.sequence_users)
        facts = self._facts
        if _LOCK_ROWS in text:
            plan.locked = scanned_locks(plan.scans, targets.statement, facts.views, self._view_locks(sql))
        plan.aggregates = await self._pushed_aggregates(connection, document, plan, sql, answer.row_description)
        called = facts.table_functions if plan.written else frozenset()
        if not called.isdisjoint(facts.hidden_readers) or facts.may_call(facts.hidden_readers, sql, text):
            plan.whole = list(state.tables.values())
        if not called.isdisjoint(facts.hidden_writers) or facts.may_call(facts.hidden_writers, sql, text):
            write_anything(plan, state, facts.locks)
        # Last: what it asks of the plan is kept from then on.
        width = p.unpack_i16(answer.row_description)[0] if answer.row_description else None
        plan.direct = read_directly(targets, document, plan, width)
        if plan.insert is not None:
            plan.direct_insert = insert_directly(targets.statement, sql, plan)
            if plan.direct_insert is not None and await _has_checks(connection, plan.direct_insert.table):
                plan.direct_insert = None
        self.scans += len(plan.scans)
        self.scans_narrowed += sum(scan.access.restricted for scan in plan.scans)
        return plan

    def _plan_unseen(self, sql: str, parameter_oids: tuple[int, ...]) -> LoadPlan:
        """The plan of a statement that PostgreSQL has parsed and doesn't plan: not without values, or not for us."""
        state = self._catalog.state
        plan = LoadPlan(state.version, parameter_oids, whole=list(state.tables.values()))
        statement = read_targets(sql).statement
        writes = any(is_a(node, *WRITING_NODES) for node in walk(statement))
        if writes or self._facts.may_call(self._facts.hidden_writers, sql):
            write_anything(plan, state, self._facts.locks)
        modes = [mode for mode in (strongest_lock(statement), self._view_locks(sql)) if mode is not None]
        if modes:
            plan.locked = [(table, max(modes)) for table in state.tables.values() if not table.is_system]
        if state.sequences and (plan.written or self._facts.may_call(SEQUENCE_FUNCTIONS, sql)):
            plan.sequences = uses_of_any(state)
        return plan

    def _view_locks(self, sql: str) -> LockMode | None:
        """The strongest lock that a view takes which the statement reads, perhaps by others; None: there is none."""
        facts = self._facts
        if facts.may_call(facts.update_lockers, sql):
            return LockMode.UPDATE
        return LockMode.KEY_SHARE if facts.may_call(facts.lockers, sql) else None

    async def _pushed_aggregates(
        self, connection: EngineConnection, document: dict[str, Any], plan: LoadPlan, sql: str, description: bytes
    ) -> Pushed | None:
        """The query with aggregates from storage, if the engine says that its answer looks the same."""
        if len(plan.scans) != 1 or plan.whole or plan.written or plan.locked or plan.sequences is not None:
            return None
        pushed = find_pushed_aggregates(document, plan.scans[0], sql, plan.parameter_oids, self._facts.views)
        if pushed is None:
            return None
        oids = (*plan.parameter_oids, *pushed.value_oids)
        batch = p.parse(b"pushed", pushed.sql.encode(), oids) + p.describe_statement(b"pushed")
        try:
            answer = await connection.run(batch + p.close_statement(b"pushed") + p.SYNC)
        except EngineError:
            return None
        described = (answer.row_description, description)
        if not pushed.same_origins:
            described = (p.without_origins(described[0]), p.without_origins(described[1]))
        if described[0] != described[1]:
            return None
        self.aggregates_pushed += 1
        return pushed

    async def _prepare_settings(self, connection: EngineConnection, settings: PlanSettings) -> None:
        assert self._processor is not None
        if self._facts_version != self._processor.version:
            self._facts = await self._fact_reader.read(connection)
            self._facts_version = self._processor.version
        if settings != self._settings:
            path = settings.search_path or DEFAULT_SEARCH_PATH
            order = settings.date_style.partition(",")[2].strip() or "MDY"
            await connection.execute(
                f"SELECT pg_catalog.set_config('search_path', {_quoted(path)}, false), "
                f"pg_catalog.set_config('TimeZone', {_quoted(settings.time_zone)}, false), "
                f"pg_catalog.set_config('DateStyle', {_quoted('ISO, ' + order)}, false)"
            )
            self._settings = settings


def _bare(functions: frozenset[str]) -> frozenset[str]:
    """The functions' names without schemas; a dot in a name only takes more statements for callers."""
    return frozenset(part for name in functions for part in (name, name.rpartition(".")[2]))


async def _without_domains(connection: EngineConnection, sql: str, parameter_oids: tuple[int, ...]) -> tuple[int, ...]:
    """The parameters' types, domains' base types in their place; the statement ``plan`` is prepared anew with them.

    It is planned with NULL for every parameter, which a domain may refuse.
    """
    domains = {oid for oid in parameter_oids if oid >= FIRST_USER_OID}
    if not domains:
        return parameter_oids
    answer = await connection.execute(_BASE_TYPES_SQL.format(", ".join(map(str, sorted(domains)))))
    bases = {}
    for row in answer.rows[0]:
        domain, base = (int(value or 0) for value in p.data_row_fields(row))
        bases[domain] = base
    replaced = tuple(bases.get(oid, oid) for oid in parameter_oids)
    await connection.run(p.close_statement(b"plan") + p.parse(b"plan", sql.encode(), replaced) + p.SYNC)
    return replaced


async def _has_checks(connection: EngineConnection, table: Table) -> bool:
    """Whether values of the table's rows are checked by more than their types and NOT NULL."""
    name = quote_literal(table.qualified_name)
    answer = await connection.execute(
        f"SELECT FROM pg_catalog.pg_constraint WHERE conrelid = {name}::pg_catalog.regclass AND contype = 'c' LIMIT 1"
    )
    return bool(answer.rows[0])


def _named(statement: Statement) -> set[str]:
    """The names of functions and relations in a statement."""
    return {name.rpartition(".")[2] for name in statement.functions} | {name for _, name in statement.relations}


def _parameter_oids(description: bytes) -> tuple[int, ...]:
    if not description:
        return ()
    count = p.unpack_i16(description)[0]
    return tuple(p.unpack_i32(description, 2 + 4 * i)[0] & 0xFFFFFFFF for i in range(count))


def _keep(plans: OrderedDict[_PlanKey, LoadPlan], key: _PlanKey, plan: LoadPlan) -> None:
    plans[key] = plan
    if len(plans) > PLANS_MAX:
        plans.popitem(last=False)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
