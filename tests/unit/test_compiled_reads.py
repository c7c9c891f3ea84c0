"""Compiled reads answer what their twin in Python answers, on rows, parameters and requests of all kinds."""

from __future__ import annotations

import struct
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_scene import Stored, T, index, table

from dsql_server import compiled
from dsql_server.catalog.state import Table
from dsql_server.encoding import executions, rows
from dsql_server.encoding import type_oids as oids
from dsql_server.interfaces import protocol as p
from dsql_server.processor.access import NOT_EXACT, choose_access
from dsql_server.processor.conditions import Conjunct, Constant, Parameter
from dsql_server.processor.direct_answer import Column, DirectAnswer, Order
from dsql_server.processor.direct_read import DirectRead
from dsql_server.processor.plan import Scan
from dsql_server.storage import recent_versions
from dsql_server.storage.recent_versions import RecentVersions

pytestmark = pytest.mark.skipif(compiled.reads is None, reason="this installation has no extension modules to compare")

_TYPES = (
    oids.INT2,
    oids.INT4,
    oids.INT8,
    oids.TEXT,
    oids.VARCHAR,
    oids.UUID,
    oids.TIMESTAMPTZ,
    oids.BOOL,
    oids.NUMERIC,
)
_FEW = {
    oids.INT2: [b"\0\1", b"\0\2", b"\xff\xff"],
    oids.INT4: [b"\0\0\0\1", b"\0\0\0\2", b"\xff\xff\xff\xff"],
    oids.INT8: [bytes(7) + b"\1", bytes(7) + b"\2", b"\xff" * 8],
    oids.TEXT: [b"", b"a", b"ab", b"\xc3\xa9"],
    oids.VARCHAR: [b"", b"a", b"b"],
    oids.UUID: [bytes(16), b"\xff" * 16, bytes(15) + b"\1"],
    oids.TIMESTAMPTZ: [struct.pack(">q", at) for at in (0, 1_500_000, -1, 2**63 - 1)],
    oids.BOOL: [b"\0", b"\1"],
    oids.NUMERIC: [bytes(8), struct.pack(">hhHHh", 1, 0, 0, 2, 7), struct.pack(">hhHHh", 1, 0, 0x4000, 0, 5)],
}
_OPERATORS = ("=", "=", "=", "<", "<=", ">", ">=")


def values(type_oid: int) -> st.SearchStrategy[bytes]:
    """Values of which many are equal; now and then bytes that are none, but for numbers: nothing lets such ones in."""
    few = st.sampled_from(_FEW[type_oid])
    return few if type_oid == oids.NUMERIC else few | few | few | st.binary(max_size=9)


@st.composite
def tables(draw: st.DrawFn, number: int) -> Table:
    """A table with a primary key of one or two columns, and perhaps an index on others."""
    types = draw(st.lists(st.sampled_from(_TYPES), min_size=2, max_size=5))
    columns = {f"c{at}": oid for at, oid in enumerate(types)}
    key = draw(st.lists(st.sampled_from(sorted(columns)), min_size=1, max_size=2, unique=True))
    indexed = draw(st.lists(st.integers(1, len(types)), max_size=2, unique=True))
    relation = 1000 + 10 * number
    more = [index(relation + 2, f"i{number}", indexed, [types[n - 1] for n in indexed])] if indexed else []
    return table(relation, f"t{number}", columns, key, more)


@st.composite
def scans(draw: st.DrawFn, table_: Table, parameters: list[int], keyed: bool) -> Scan:
    """A scan with random conditions, ``keyed``: one of them on the key; ``parameters`` gets the types of those that it
    has."""
    conjuncts = []
    if keyed:
        assert table_.primary_key is not None
        column = table_.columns[table_.primary_key.columns[0] - 1]
        parameters.append(column.type_oid)
        conjuncts.append(Conjunct(column.name, draw(st.sampled_from(_OPERATORS)), Parameter(len(parameters))))
    for column in draw(st.lists(st.sampled_from(table_.columns), max_size=3)):
        kind = draw(st.sampled_from(["parameter"] * 4 + ["cast", "constant", "null"]))
        oid = column.type_oid
        operand: Any = None
        if kind == "constant" and oid in (oids.INT4, oids.TEXT):
            operand = Constant(draw(st.sampled_from(["1", "2", "ab"] if oid == oids.TEXT else ["1", "2"])), oid)
        elif kind == "null":
            conjuncts.append(Conjunct(column.name, draw(st.sampled_from(["isnull", "notnull"]))))
            continue
        elif kind == "cast" and oid in (oids.INT2, oids.INT4, oids.INT8):
            parameters.append(draw(st.sampled_from([oids.INT2, oids.INT4, oids.INT8])))
            operand = Parameter(len(parameters), oid)
        else:
            parameters.append(oid)
            operand = Parameter(len(parameters))
        conjuncts.append(Conjunct(column.name, draw(st.sampled_from(_OPERATORS)), operand))
    return Scan(table_.name, table_, choose_access(table_, conjuncts, parameters, {}), conjuncts)


@st.composite
def reads(draw: st.DrawFn, keyed: bool = False) -> tuple[DirectRead, DirectAnswer]:
    parameters: list[int] = []
    scans_ = tuple(
        draw(scans(draw(tables(number)), parameters, keyed)) for number in range(draw(st.sampled_from([1, 1, 2, 3])))
    )
    every = [
        Column(at, column.number - 1, column.type_oid)
        for at, scan in enumerate(scans_)
        for column in scan.table.columns
    ]
    columns = draw(st.lists(st.sampled_from(every), min_size=1, max_size=8))
    orders = [Order(column, draw(st.booleans())) for column in draw(st.lists(st.sampled_from(every), max_size=2))]
    read = DirectRead(scans_, tuple(columns), tuple(parameters), tuple(orders))
    formats = draw(st.sampled_from([(), (0,), (1,)]) | st.tuples(*[st.integers(0, 1)] * len(columns)))
    answer = read.answering(formats, iso_dates=True, zone_is_utc=True)
    assert answer is not None
    return read, answer


@st.composite
def stored(draw: st.DrawFn, read: DirectRead, cut_off: int = 20) -> Stored:
    """Rows of the tables, some with fewer columns, one of ``cut_off`` (1: none) cut off; some entries are stale."""
    storage, numbers = Stored(), count()
    for scan in read.scans:
        encoders = [encoder for _, encoder in scan.table.plain_indexes]
        key_of = scan.table.key_encoder
        assert key_of is not None
        for _ in range(draw(st.integers(0, 6))):
            fields = [draw(st.none() | values(c.type_oid) | values(c.type_oid)) for c in scan.table.columns]
            other = [draw(values(c.type_oid)) for c in scan.table.columns]
            try:
                key = key_of.from_row(rows.join(fields))
                entries = [encoder.from_row(rows.join(draw(st.sampled_from([fields, other])))) for encoder in encoders]
            except NOT_EXACT:
                continue
            kept = fields[: draw(st.integers(0, len(fields)))] if draw(st.integers(0, 9)) == 0 else fields
            value = rows.join(kept)
            storage.rows[key] = (
                value[: draw(st.integers(0, len(value)))] if draw(st.integers(1, cut_off)) == cut_off > 1 else value
            )
            for entry in entries:
                storage.rows[entry + b"%d" % next(numbers)] = key
    return storage


def outcome(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except NOT_EXACT:
        return NOT_EXACT


def is_whole(value: bytes) -> bool:
    """Whether a row isn't cut off: Python takes one that ends inside a value for a shorter one."""
    try:
        return rows.join(rows.fields(value)) == value
    except NOT_EXACT:
        return False


@settings(max_examples=150, deadline=None)
@given(reads(), st.data())
def test_reads_are_answered_alike(drawn: tuple[DirectRead, DirectAnswer], data: st.DataObject) -> None:
    read, answer = drawn
    storage = data.draw(stored(read))
    own = [key for key in storage.rows if key[:4] in prefixes(read)]
    damaged = [key for key in own if not is_whole(storage.rows[key])]
    for _ in range(3):
        given_values = [data.draw(st.none() | values(oid) | values(oid)) for oid in read.parameter_oids]
        formats = [data.draw(st.sampled_from([0, 1, 1, 1, 1])) for _ in given_values]
        given_values, formats = given_values[: data.draw(st.sampled_from([9, 9, 9, 1]))], formats
        found = outcome(answer.messages, given_values, formats[: len(given_values)], storage, T)
        if found is NOT_EXACT and damaged:
            continue
        assert found == outcome(answer.messages_in_python, given_values, formats[: len(given_values)], storage, T)


class _Catalog:
    """A catalog in some state."""

    state = 1


_READY, _READY_IN_BLOCK = p.ready_for_query(b"I"), p.ready_for_query(b"T")
_NAME, _DESCRIPTION = b"s1", b"T\0\0\0\6\0\0"
_RESULTS = b"\0\0"


def answered_in_python(request: bytes, answer: DirectAnswer, storage: Stored, description: bytes) -> bytes | None:
    """The whole answer to a request that executes the statement that is kept; None: to any other."""
    execution = executions._split_execution(request)
    if execution is None:
        return None
    name, given_values, formats, results, described = execution
    if (name, results) != (_NAME, _RESULTS) or (described and not description):
        return None
    found = answer.messages_in_python(given_values, formats, storage, T)
    if found is None:
        return None
    before = p.BIND_COMPLETE_MESSAGE + (description if described else b"")
    return before + found[0] + p.command_complete(f"SELECT {found[1]}") + _READY


@settings(max_examples=150, deadline=None)
@given(reads(keyed=True), st.sampled_from([b"", _DESCRIPTION]), st.data())
def test_requests_are_answered_alike(
    drawn: tuple[DirectRead, DirectAnswer], description: bytes, data: st.DataObject
) -> None:
    """Whole requests, and requests with a byte changed, cut off or added."""
    read, answer = drawn
    storage = data.draw(stored(read, cut_off=1))
    catalog, tables = _Catalog(), frozenset(scan.table.relation_id for scan in read.scans)
    statements = compiled.reads.Statements(catalog, lambda session: T + session, storage, _READY, _READY_IN_BLOCK)
    statements.keep(b"another", _RESULTS, description, tables, answer.messages)
    statements.keep(_NAME, _RESULTS, description, tables, answer.messages)
    for _ in range(3):
        given_values = [data.draw(st.none() | values(oid) | values(oid)) for oid in read.parameter_oids]
        formats = data.draw(st.sampled_from([(), (1,)]) | st.tuples(*[st.integers(0, 1)] * len(given_values)))
        request = p.bind_values(given_values, formats, data.draw(st.sampled_from([_NAME, _NAME, _NAME, b"s2"])))
        request += executions._DESCRIBE * data.draw(st.integers(0, 1)) + executions._EXECUTE_AND_SYNC
        at, damage = data.draw(st.integers(0, len(request) - 1)), data.draw(st.integers(0, 9))
        if damage == 1:
            request = request[:at] + bytes([data.draw(st.integers(0, 255))]) + request[at + 1 :]
        elif damage == 2:
            request = request[:at]
        elif damage == 3:
            request = request[:at] + b"\0" + request[at:]
        found = outcome(statements.answer, request, 0)
        assert found == outcome(answered_in_python, request, answer, storage, description)
        in_block = outcome(statements.answer_in_block, request, T, {7})
        assert in_block == (found[: -len(_READY)] + _READY_IN_BLOCK if isinstance(found, bytes) else found)
        if found is not NOT_EXACT:
            assert statements.answer_in_block(request, T, {7, min(tables)}) is None
    catalog.state = 2
    assert statements.answer(request, 0) is None
    catalog.state = 1
    statements.forget()
    assert statements.answer(request, 0) is None


def prefixes(read: DirectRead) -> set[bytes]:
    return {scan.table.relation_id.to_bytes(4, "big") for scan in read.scans}


@given(reads(keyed=True))
def test_reads_by_keys_are_compiled(drawn: tuple[DirectRead, DirectAnswer]) -> None:
    _, answer = drawn
    assert isinstance(answer.messages, compiled.reads.Read)


def scan_of(**changed: Any) -> Any:
    """A compiled scan by a key of one parameter, with something else about it."""
    parts: dict[str, Any] = {
        "path": 0, "start": b"\0\0\0\1", "operands": [(2, 0, 1, bytes)], "key": [0], "ranges": [], "checks": [],
        "segments": [[(0, 1, bytes)]], "sorts": [],
    }  # fmt: skip
    return compiled.reads.Scan(*{**parts, **changed}.values())


@pytest.mark.parametrize(
    "changed",
    [
        {"key": [1]}, {"key": [-1]}, {"ranges": [(1, 4)]}, {"ranges": [(0, 2)]}, {"ranges": [(0, 8)]},
        {"operands": [(4, 0, 1, bytes)]}, {"operands": [(2, -1, 1, bytes)]}, {"operands": [(2, 0, 99, bytes)]},
        {"checks": [(0, 1, bytes, 2, 1)]}, {"checks": [(-1, 1, bytes, 2, 0)]}, {"checks": [(0, 1, bytes, 9, 0)]},
        {"segments": [[(100_000, 1, bytes)]]}, {"segments": [[(0, 10, bytes)]]}, {"sorts": [(0, 6, bytes)]},
    ],
)  # fmt: skip
def test_what_would_be_read_out_of_bounds_is_refused(changed: dict[str, Any]) -> None:
    scan_of()
    with pytest.raises(ValueError, match="range"):
        scan_of(**changed)


@pytest.mark.parametrize(
    ("places", "sorts", "width"),
    [([(1, 0)], [], 1), ([(0, 1)], [], 1), ([(0, 0)], [(0, 0, False)], 1), ([(0, 0)], [], 0), ([(0, 0)], [], 40_000)],
)
def test_a_read_of_what_its_scans_lack_is_refused(places: Any, sorts: Any, width: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        compiled.reads.Read([scan_of()], width, places, sorts, [4], 10, None, None, None)


class _Storage:
    """Answers with whatever it has."""

    def __init__(self, row: Any) -> None:
        self.row = row

    def get(self, key: bytes, t: int) -> Any:
        return self.row


def test_storage_that_answers_with_something_else_is_refused() -> None:
    read = compiled.reads.Read([scan_of()], 1, [(0, 0)], [], [16], 10, lambda at, value, f: value, None, None)
    assert read([bytes(16)], [1], _Storage(rows.join([b"x"])), T) == (b"D\0\0\0\x0b\0\1\0\0\0\1x", 1)
    assert read([bytes(16)], [1], _Storage(None), T) == (b"", 0)
    assert read([None], [1], _Storage(None), T) == (b"", 0)
    assert read([], [], _Storage(None), T) is None
    assert read([bytes(16)], [], _Storage(None), T) is None
    for row in ("a text", 7, (b"",)):
        with pytest.raises(TypeError):
            read([bytes(16)], [1], _Storage(row), T)
    for row in (b"", b"\0", b"\0\1", b"\0\1\0\0\0\2x"):
        with pytest.raises(ValueError, match="cut off"):
            read([bytes(16)], [1], _Storage(row), T)


@given(
    st.dictionaries(st.binary(max_size=2), st.tuples(st.integers(0, 9), st.none() | st.binary(max_size=2))),
    st.lists(st.binary(max_size=2)),
    st.integers(0, 9),
)
def test_late_writes_are_remembered_alike(newest: dict[bytes, Any], keys: list[bytes], t: int) -> None:
    assert compiled.storage.remembered(newest, keys, t) == recent_versions._remembered(newest, keys, t)


def test_values_of_late_writes() -> None:
    recent = RecentVersions()
    recent.note([(5, [(b"a", b"1"), (b"b", None)])], 4)  # type: ignore[list-item]
    assert recent.values([b"b", b"c", b"a"], 5) == ([None, None, b"1"], [1])
    assert recent.values([b"b", b"a"], 4) == ([None, None], [0, 1])
