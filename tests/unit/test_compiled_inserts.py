"""Direct inserts in a block: the compiled way leaves behind just what its twin in Python does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compiled import _TAIL, _TAKEN, values

from dsql_server import compiled
from dsql_server.catalog.changes import Catalog
from dsql_server.catalog.state import CatalogState, Column, Index, Table
from dsql_server.encoding import executions, rows
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.parameter_rows import ParameterField, parameter_row
from dsql_server.frontend import block_inserts
from dsql_server.frontend.session import Session
from dsql_server.frontend.shown import ShownStatements
from dsql_server.frontend.statements import Portal, Prepared
from dsql_server.frontend.transactions import BLOCK, IDLE, Client, Services
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.limits import Limits
from dsql_server.interfaces.messages import CommitOutcome, CommitRequest, Committed, Conflict, ConflictKind
from dsql_server.processor.access import NOT_EXACT, Bound
from dsql_server.processor.direct_insert import DirectInsert, _parameter_field
from dsql_server.processor.engine_connection import Answer
from dsql_server.processor.executor import Executor
from dsql_server.processor.plan import LoadPlan
from dsql_server.statements import Statement

pytestmark = pytest.mark.skipif(
    compiled.inserts is None, reason="this installation has no extension modules to compare"
)

TABLE_ID, INDEX_ID, VERSION = 1000, 1001, 7
NAME, RESULTS = b"s1", b"\0\1\0\0"
BEGIN, COMMIT = p.query("BEGIN"), p.query("COMMIT")
LIMITS = Limits(transaction_rows=5, row_size_bytes=90, transaction_size_bytes=700)
#: Fields that the statement's text says.
CONSTANTS = (b"\0\0\0\x05", None)


class Case(NamedTuple):
    table: Table
    fields: tuple[ParameterField, ...]
    parameter_oids: tuple[int, ...]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A table with rows whose fields are parameters and constants, a primary key, and perhaps an index."""
    taken = draw(st.lists(st.sampled_from(_TAKEN), min_size=1, max_size=5))
    in_key = draw(st.lists(st.integers(1, len(taken)), min_size=1, max_size=2, unique=True))
    columns, fields = [], []
    for at, (oid, target, modifier) in enumerate(taken):
        not_null = at + 1 in in_key or draw(st.booleans())
        columns.append(Column(at + 1, f"c{at}", target, not_null, modifier=modifier))
        fields.append(_parameter_field(at, oid, columns[-1], modifier))
    for value in CONSTANTS if draw(st.booleans()) else ():
        columns.append(Column(len(columns) + 1, f"c{len(columns)}", oids.INT4))
        fields.append(ParameterField(lambda bound, value=value: value, known=True))  # type: ignore[misc]
    indexes = ()
    if draw(st.booleans()):
        indexed = draw(st.lists(st.sampled_from(range(1, len(columns) + 1)), min_size=1, max_size=3, unique=True))
        indexes = (index(INDEX_ID, indexed, columns, primary=False),)
    table = Table(TABLE_ID, "public", "one", tuple(columns), index(TABLE_ID, in_key, columns, primary=True), indexes)
    return Case(table, tuple(fields), tuple(oid for oid, _, _ in taken))


def index(relation_id: int, numbers: list[int], columns: list[Column], *, primary: bool) -> Index:
    types = tuple(columns[number - 1].type_oid for number in numbers)
    return Index(relation_id, "public", "i", primary, primary, True, tuple(numbers), types, (False,) * len(numbers))


@st.composite
def requests(draw: st.DrawFn, case: Case) -> bytes:
    """An execution, mostly a whole one with values of the right types."""
    found, formats = [], []
    for oid in case.parameter_oids:
        drawn = values(oids.TEXT if oid == oids.UNKNOWN else oid)
        odd = draw(st.integers(0, 9))
        value = draw(drawn if odd else st.none() | st.binary(max_size=20))
        if oid in (oids.INT2, oids.INT4, oids.INT8) and odd > 2:
            width = {oids.INT2: 2, oids.INT4: 4, oids.INT8: 8}[oid]
            value = draw(st.integers(-3, 30)).to_bytes(width, "big", signed=True)
        found.append(value)
        formats.append(1 if odd != 1 else 0)
    bind = p.bind_values(found, tuple(formats), draw(st.sampled_from([NAME] * 9 + [b"other"])))
    described = executions._DESCRIBE if draw(st.booleans()) else b""
    request = with_results(bind, RESULTS if draw(st.integers(0, 9)) else b"\0\0") + described + _TAIL
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(request) - 1))
        return request[:at] + bytes([draw(st.integers(0, 255))]) + request[at + draw(st.integers(0, 1)) :]
    return request


def with_results(bind: bytes, results: bytes) -> bytes:
    return p.message(b"B", bind[5:-2] + results)


class Storage:
    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self._rows = rows

    def get(self, key: bytes, t: int) -> bytes | None:
        return self._rows.get(key)


class Scene:
    """A session in front of an engine that is never asked. ``python``: nothing of a block is compiled."""

    def __init__(self, case: Case, stored: dict[bytes, bytes], python: bool, limits: Limits = LIMITS) -> None:
        self.sent: list[bytes] = []
        self.requests: list[CommitRequest] = []
        self.outcome: CommitOutcome = Committed(b"", 200)
        self.catalog = Catalog()
        self.catalog.state = CatalogState(VERSION, {TABLE_ID: case.table})
        self.planner = SimpleNamespace(direct_inserts=0, direct_reads=0)
        path: Any = SimpleNamespace(storage=Storage(stored), begin=lambda session: 100, commit=self._commit)
        planner: Any = self.planner
        services = Services(MagicMock(), planner, self.catalog, path, MagicMock(), lambda: 0, ShownStatements(), limits)
        self.session = session = Session(services, Client("admin", {}, self.sent.append, lambda error: None))
        processor = MagicMock(version=VERSION, role="admin", dead_rows={})
        session.executor = Executor(
            processor, path, self.catalog, lambda value: None, self.sent.append, limits, services.cluster_size
        )
        session._settings_stale = False
        session._go_on = lambda: None  # type: ignore[method-assign]
        self.python = python
        row = parameter_row(case.fields)
        insert = DirectInsert(case.table, case.fields, row, "INSERT …", case.parameter_oids)
        plan = LoadPlan(VERSION, case.parameter_oids, direct_insert=insert)
        statement: Any = MagicMock(spec=Statement, parameters=len(case.parameter_oids), refusals=(), functions=())
        prepared = session._prepared[NAME] = Prepared("INSERT …", statement, case.parameter_oids)
        session._learn(Portal(prepared, Bound((), ()), RESULTS), plan, Answer())
        assert prepared.direct is not None

    def _commit(self, request: CommitRequest, on_outcome: Any) -> None:
        self.requests.append(request._replace(transaction_id=b""))
        on_outcome(self.outcome)

    def feed(self, request: bytes) -> bool:
        """Whether the request was answered at once."""
        if self.python:
            self.session._open_block = None
        try:
            return self.session._answered_at_once(request)
        except NOT_EXACT:
            pytest.fail("only the engine's turn is told")

    @property
    def left(self) -> tuple[Any, ...]:
        """What all of it has left behind."""
        session = self.session
        assert session.executor is not None
        state = (self.sent, self.requests, session._block, session._wrote, self.planner.direct_inserts)
        workspace = session.executor.workspace
        if workspace is None:
            return state
        untold = [
            (u.sql, u.parameter_oids, list(u.bound.values), tuple(u.bound.formats), u.bound.zone_is_utc, u.changes())
            for u in workspace.untold
        ]
        works = {k: (w.written, w.verified, w.loaded) for k, w in workspace.tables.items() if w.written}
        return *state, untold, works, workspace.row_count


@settings(max_examples=200)
@given(st.data())
def test_blocks_of_inserts_end_alike(data: st.DataObject) -> None:
    case = data.draw(cases())
    sent = data.draw(st.lists(requests(case), max_size=7))
    sent += data.draw(st.lists(st.sampled_from(sent), max_size=2)) if sent else []
    stored: dict[bytes, bytes] = {}
    if data.draw(st.booleans()):  # the first row is there already
        first = Scene(case, {}, python=True)
        for request in (BEGIN, *sent[:1], COMMIT):
            first.feed(request)
        stored = {key: value for made in first.requests for key, value in made.mutations if value is not None}
    one, twin = Scene(case, stored, python=False), Scene(case, stored, python=True)
    for request in (BEGIN, *sent, COMMIT):
        assert one.feed(request) == twin.feed(request), request
        assert one.left == twin.left


def scene(**limits: int) -> Scene:
    columns = (Column(1, "id", oids.INT4, True, modifier=-1), Column(2, "t", oids.TEXT, modifier=-1))
    table = Table(TABLE_ID, "public", "one", columns, index(TABLE_ID, [1], list(columns), primary=True))
    fields = tuple(_parameter_field(at, c.type_oid, c, -1) for at, c in enumerate(columns))
    return Scene(Case(table, fields, (oids.INT4, oids.TEXT)), {}, python=False, limits=Limits(**limits))


def put(key: int, text: bytes | None = b"x") -> bytes:
    return with_results(p.bind_values([key.to_bytes(4, "big"), text], (1, 1), NAME), RESULTS) + _TAIL


def test_plain_rows_are_inserted_by_the_compiled_block() -> None:
    made = scene()
    assert made.feed(BEGIN)
    block = made.session._open_block
    assert block.insert(put(1)) == p.BIND_COMPLETE_MESSAGE + p.command_complete("INSERT 0 1") + p.ready_for_query(BLOCK)
    block.settle()
    assert block.insert(put(2, None)) is not None
    block.settle()
    assert block.insert(put(1)) is None
    assert [len(part) for part in block.request()[3:5]] == [2, 2]
    assert made.feed(COMMIT) and made.session._block == IDLE
    assert [value for _, value in made.requests[0].mutations] == [
        rows.join([b"\0\0\0\1", b"x"]), rows.join([b"\0\0\0\2", None])
    ]  # fmt: skip


@pytest.mark.parametrize(
    "limits", [{"transaction_rows": 1}, {"row_size_bytes": 20}, {"transaction_age_s": -1}], ids=str
)
def test_limits_are_kept(limits: dict[str, int]) -> None:
    made = scene(**limits)
    made.feed(BEGIN)
    made.feed(put(1))
    assert made.session._open_block.insert(put(2, b"x" * 20)) is None


def test_a_row_on_its_own_is_committed_at_once() -> None:
    made = scene()
    assert made.feed(put(1))
    answer = p.BIND_COMPLETE_MESSAGE + p.command_complete("INSERT 0 1") + p.ready_for_query(IDLE)
    assert made.sent == [answer]
    assert [value for _, value in made.requests[0].mutations] == [rows.join([b"\0\0\0\1", b"x"])]
    assert made.session._waiting is False and made.planner.direct_inserts == 1
    assert made.session.executor is not None and made.session.executor.workspace is None


def test_a_row_on_its_own_that_conflicts_is_refused() -> None:
    made = scene()
    made.outcome = Conflict(b"", ConflictKind.DATA, b"")
    assert made.feed(put(1))
    (sent,) = made.sent
    assert sent.startswith(p.BIND_COMPLETE_MESSAGE + b"E") and b"OC000" in sent
    assert sent.endswith(p.ready_for_query(IDLE)) and b"INSERT" not in sent


def test_a_row_on_its_own_is_left_to_the_coroutine_where_it_is_not_plain() -> None:
    made = scene(row_size_bytes=20)
    assert not made.feed(put(1, b"x" * 20))
    made.session._read_only_by_default = True
    assert not made.feed(put(1))
    assert not made.requests and not made.sent
    assert made.session.executor is not None and made.session.executor.workspace is None


def test_a_block_that_is_too_large_is_not_committed_by_itself() -> None:
    made = scene(transaction_size_bytes=100)
    made.feed(BEGIN)
    for key in range(9):
        assert made.feed(put(key))
    assert made.session._open_block.request() is None
    assert not made.feed(COMMIT)
    assert not made.requests


def test_a_catalog_that_moves_on_ends_it() -> None:
    made = scene()
    made.feed(BEGIN)
    assert made.feed(put(1))
    made.catalog.state = CatalogState(VERSION + 1, made.catalog.state.tables)
    block = made.session._open_block
    assert block.insert(put(2)) is None and block.request() is None
    assert not made.feed(put(2)) and not made.feed(COMMIT)
    assert not made.requests


def test_a_row_inserted_otherwise_is_committed_too() -> None:
    made = scene()
    made.feed(BEGIN)
    assert made.feed(put(1))
    made.session._open_block = None
    assert made.feed(put(2))
    block = made.session._open_block
    assert block.insert(put(1)) is None and block.insert(put(2)) is None
    assert block.insert(put(3)) is not None
    block.settle()
    assert block.request() is None
    assert made.feed(COMMIT)
    assert len(made.requests[0].mutations) == 3


def test_rows_of_a_block_are_those_of_its_table_whichever_statement_inserts_them() -> None:
    made = scene()
    made.session._prepared[b"s2"] = made.session._prepared[NAME]
    made.session._prepared[b"s3"] = Prepared("INSERT …", made.session._prepared[NAME].statement, ())
    other = made.session._prepared[b"s3"]
    learned = made.session._prepared[NAME].direct
    assert learned is not None
    at_once = block_inserts.compiled_insert(learned.plan, learned.settings_changes, True, RESULTS)
    other.direct = learned._replace(at_once=at_once)
    for _ in range(2):  # in the second block, the statements are at hand
        made.feed(BEGIN)
        block = made.session._open_block
        for name in (b"s1", b"s2", b"s3"):
            named = put(1).replace(b"s1", name)
            assert (block.insert(named) is None) == (name != b"s1")
            block.settle()
        executor = made.session.executor
        assert executor is not None and executor.workspace is not None
        assert executor.workspace.dirty_tables() == {TABLE_ID}
        executor.rollback()
        made.session._block = IDLE


def test_statements_with_other_unique_keys_are_not_compiled() -> None:
    columns = (Column(1, "id", oids.INT4, True), Column(2, "t", oids.TEXT))
    primary = index(TABLE_ID, [1], list(columns), primary=True)
    unique = Index(INDEX_ID, "public", "u", True, False, True, (2,), (oids.TEXT,), (False,))
    for table in (
        Table(TABLE_ID, "public", "one", columns, primary, (unique,)),
        Table(TABLE_ID, "public", "one", columns),
    ):
        fields = tuple(_parameter_field(at, c.type_oid, c, -1) for at, c in enumerate(columns))
        insert = DirectInsert(table, fields, parameter_row(fields), "INSERT …", (oids.INT4, oids.TEXT))
        plan = LoadPlan(VERSION, insert.parameter_oids, direct_insert=insert)
        assert block_inserts.compiled_insert(plan, 0, True, RESULTS) is None


@pytest.mark.parametrize("outcome", [Committed(b"", 200), Conflict(b"", ConflictKind.DATA, b"")], ids=["wins", "loses"])
def test_the_engine_is_told_of_a_named_statement_however_its_execution_ends(outcome: CommitOutcome) -> None:
    made = scene()
    made.outcome = outcome
    session, sql = made.session, "INSERT …"
    statement: Any = MagicMock(spec=Statement, parameters=2, refusals=(), functions=(), engine_sql=sql, text=sql)
    session._classify_one = lambda sql: statement  # type: ignore[method-assign]
    assert session.executor is not None
    discard = session.executor.connection.discard
    discard.reset_mock()  # type: ignore[attr-defined]
    parse = p.parse(b"named", sql.encode(), (oids.INT4, oids.TEXT))
    session.services.pool.may_lease_ahead = False  # type: ignore[misc]
    session.start()
    session.feed(parse + with_results(p.bind_values([b"\0\0\0\1", b"x"], (1, 1), b"named"), RESULTS) + _TAIL)
    discard.assert_called_once_with(parse + p.SYNC)  # type: ignore[attr-defined]
    (sent,) = made.sent
    assert sent.startswith(p.PARSE_COMPLETE_MESSAGE + p.BIND_COMPLETE_MESSAGE)
    assert (b"OC000" in sent) == isinstance(outcome, Conflict) and sent.endswith(p.ready_for_query(IDLE))
