"""The planner: one EXPLAIN for all texts that differ in their literals, none for what is known already."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from plan_scene import PLAIN, USERS, Stored, T, scan

from dsql_server.catalog.changes import Catalog, CatalogChange
from dsql_server.encoding import type_oids as oids
from dsql_server.processor.access import Bound
from dsql_server.processor.engine_connection import Answer, EngineError
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.planner import Planner, PlanSettings

SETTINGS = PlanSettings()
REFUSAL = b"SERROR\0VERROR\0C42P18\0Mcould not determine data type of parameter $1\0\0"


class Engine:
    """Answers what the planner asks: the plan that is set, for statements with these parameters."""

    def __init__(self) -> None:
        self.plan: dict[str, Any] = scan(USERS, Index_Cond="(users.id = $1)")
        self.parameter_oids: Sequence[int] = (oids.INT4,)
        self.parsed: list[bytes] = []
        self.asked: list[bytes | str] = []  #: all that came, in order
        self.views: dict[str, str] = {}
        self.functions: dict[str, str] = {}
        self.table_functions: list[str] = []
        self.refused: set[bytes] = set()

    async def run(self, batch: bytes) -> Answer:
        self.asked.append(batch)
        answer = Answer()
        if batch[:1] == b"P":
            text = batch[5:].split(b"\0")[1]
            if text in self.refused:
                raise EngineError(REFUSAL)
            self.parsed.append(text)
            count = len(self.parameter_oids)
            answer.described = struct.pack(f">h{count}i", count, *self.parameter_oids)
        return answer

    async def execute(self, sql: str) -> Answer:
        self.asked.append(sql)
        answer = Answer()
        text = ""
        if sql.startswith("EXPLAIN"):
            text = json.dumps([{"Plan": self.plan}])
        elif "json_build_object" in sql:
            named = {"views": list(self.views), "functions": list(self.functions)}
            listed = {kind: [[n, i, "1"] for i, n in enumerate(names)] for kind, names in named.items()}
            text = json.dumps({**listed, "called": self.table_functions, "domain_defaults": []})
        elif "pg_get_viewdef" in sql:
            text = list(self.views.values())[int(sql.split("(")[1].split(":")[0])]
        elif "sqlbody" in sql:
            text = list(self.functions.values())[int(sql.rsplit("=", 1)[1])]
        answer.rows = [[struct.pack(">hi", 1, len(text.encode())) + text.encode()]]
        return answer


class Processor:
    def __init__(self, engine: Engine) -> None:
        self.connection = engine
        self.version = 1

    async def replay(self, catalog: Catalog) -> None:
        self.version = catalog.version


class Pool:
    async def until_admitted(self) -> None:
        """Nobody is kept waiting."""


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def planner(engine: Engine) -> Planner:
    catalog = Catalog()
    catalog.state = PLAIN
    found = Planner(Pool(), catalog)  # type: ignore[arg-type]
    found._processor = Processor(engine)  # type: ignore[assignment]
    return found


def plan(planner: Planner, sql: str, oids_: tuple[int, ...] = (), settings: PlanSettings = SETTINGS) -> LoadPlan:
    found = asyncio.run(planner.plan(sql, oids_, settings))
    assert found is not None
    return found


def test_texts_that_differ_in_literals_share_a_plan(planner: Planner, engine: Engine) -> None:
    storage = Stored()
    storage.put(USERS, *((i, None, None, None) for i in range(10)))
    for number in (3, 8, 3):
        found = plan(planner, f"SELECT * FROM users WHERE id = {number}")
        bound = Bound((), ())
        found.bind_literals(bound)
        ((_, rows),) = found.rows(bound, storage, T)
        assert [key[-4:] for key, _ in rows] == [struct.pack(">i", number)]
    assert planner.planned == 1
    assert len(engine.parsed) == 1


def test_parameters_are_not_mixed_with_literals(planner: Planner, engine: Engine) -> None:
    found = plan(planner, "SELECT * FROM users WHERE id = $1 AND age = 5")
    assert not found.literals
    assert engine.parsed == [b"SELECT * FROM users WHERE id = $1 AND age = 5"]


def test_what_can_not_be_planned_with_parameters_is_planned_as_it_is(planner: Planner, engine: Engine) -> None:
    sql = "SELECT * FROM users WHERE id = 5"
    engine.parameter_oids = ()
    engine.plan = scan(USERS, Index_Cond="(users.id = 5)")
    found = plan(planner, sql)  # one parameter given, none found: this isn't the same statement
    assert not found.literals
    assert engine.parsed[-1] == sql.encode()
    planned = planner.planned
    plan(planner, "SELECT * FROM users WHERE id = 6")
    assert planner.planned == planned + 1  # the template isn't tried again


def test_a_refused_statement_has_no_plan(planner: Planner, engine: Engine) -> None:
    engine.refused = {b"SELECT * FROM nowhere"}
    assert asyncio.run(planner.plan("SELECT * FROM nowhere", (), SETTINGS)) is None


def test_plans_are_of_one_catalog_version_and_of_one_set_of_settings(planner: Planner, engine: Engine) -> None:
    sql = "SELECT * FROM users WHERE id = $1"
    plan(planner, sql)
    plan(planner, sql)
    assert planner.planned == 1
    plan(planner, sql, (oids.INT8,))
    assert planner.planned == 2
    plan(planner, sql, (), PlanSettings(time_zone="Asia/Tokyo"))
    assert planner.planned == 3
    planner._catalog.append(CatalogChange(2, "COMMENT ON TABLE users IS 'x'", "admin", ""))
    plan(planner, sql)
    assert planner.planned == 4


def test_views_that_rename_columns_do_not_narrow(planner: Planner, engine: Engine) -> None:
    engine.views = {"v": "SELECT s.age FROM users s(age, email, id, city)"}
    engine.plan = scan(USERS, "s", Index_Cond="(s.id = $1)")
    found = plan(planner, "SELECT * FROM v WHERE age = $1")
    assert [s.access.describe for s in found.scans] == ["full scan"]
    metrics = planner.metrics()
    assert (metrics["planned"], metrics["scans"], metrics["scans_narrowed"]) == (1, 1, 0)


def test_functions_that_read_tables_load_them_all(planner: Planner, engine: Engine) -> None:
    engine.functions = {"reads": "SELECT count(*) FROM users", "harmless": "SELECT 1"}
    engine.views = {"v": "SELECT 1 WHERE reads() > 0", "w": "SELECT * FROM v"}
    engine.plan = {"Node Type": "Result"}
    engine.parameter_oids = ()
    assert not plan(planner, "SELECT harmless()").whole
    for sql in ("SELECT reads()", "SELECT * FROM v", "SELECT * FROM w"):
        assert plan(planner, sql).whole == [USERS]


def test_functions_that_write_may_write_anything(planner: Planner, engine: Engine) -> None:
    engine.functions = {"writes": "DELETE FROM users", "calls": "SELECT writes()", "harmless": "SELECT 1"}
    engine.plan = {"Node Type": "Result"}
    engine.parameter_oids = ()
    assert not plan(planner, "SELECT harmless()").written
    for sql in ("SELECT writes()", "SELECT calls()"):
        found = plan(planner, sql)
        assert (found.whole, found.written, found.losing) == ([USERS], [USERS], {USERS.relation_id})


def test_a_known_template_asks_the_engine_nothing(planner: Planner, engine: Engine) -> None:
    """Drivers that write values into their texts must not pay an EXPLAIN a statement."""
    plan(planner, "SELECT id, email FROM users WHERE id = 0")
    asked = len(engine.asked)
    for number in range(1, 300):
        plan(planner, f"SELECT id, email FROM users WHERE id = {number}")
    assert (planner.planned, len(engine.asked)) == (1, asked)
