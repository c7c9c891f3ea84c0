"""What is compiled does what its twin in Python says, for plain values and for everything else."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsql_server import compiled
from dsql_server.compiled import VERSION
from dsql_server.encoding import executions, keys, output, parameter_rows, rows
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.parameter_rows import ParameterField
from dsql_server.encoding.parameters import binary_from_text
from dsql_server.interfaces import protocol as p
from dsql_server.processor.access import NOT_EXACT, Bound
from dsql_server.processor.conditions import MODIFIER_OFFSET
from dsql_server.processor.direct_insert import _parameter_field

pytestmark = pytest.mark.skipif(
    compiled.encoding is None, reason="this installation has no extension modules to compare"
)

_TYPES = (
    oids.BOOL, oids.INT2, oids.INT4, oids.INT8, oids.FLOAT8, oids.NUMERIC, oids.TEXT, oids.VARCHAR, oids.UUID,
    oids.BYTEA, oids.DATE, oids.TIMESTAMP, oids.TIMESTAMPTZ,
)  # fmt: skip
_WIDTHS = {oids.BOOL: 1, oids.INT2: 2, oids.INT4: 4, oids.INT8: 8, oids.FLOAT8: 8, oids.UUID: 16, oids.DATE: 4}


def numerics() -> st.SearchStrategy[bytes]:
    texts = st.decimals(allow_nan=False, allow_infinity=False, places=6).map(str)
    odd = st.sampled_from(["0", "0.000000", "-0.5", "10000", "9999.9999", "1e30", "NaN", "12.340", "-100000000.01"])
    return (texts | odd).map(lambda text: binary_from_text(oids.NUMERIC, text))


def values(type_oid: int) -> st.SearchStrategy[bytes]:
    """Valid values in binary format."""
    if type_oid == oids.NUMERIC:
        valid: st.SearchStrategy[bytes] = numerics()
    elif type_oid in (oids.TEXT, oids.VARCHAR):
        valid = st.text(max_size=12).map(str.encode)
    elif type_oid == oids.BYTEA:
        valid = st.binary(max_size=12)
    elif type_oid in (oids.TIMESTAMP, oids.TIMESTAMPTZ):
        instants = st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**17), 3 * 10**17)
        whole = st.integers(-(10**10), 10**10).map(lambda seconds: seconds * 1_000_000)
        valid = (instants | whole).map(struct.Struct(">q").pack)
    else:
        width = _WIDTHS[type_oid]
        valid = st.binary(min_size=width, max_size=width)
    return valid


@st.composite
def typed_rows(draw: st.DrawFn, damaged: bool = True) -> tuple[list[int], bytes]:
    """Column types, and a row that may have fewer columns; if ``damaged``, with values of wrong lengths."""
    types = draw(st.lists(st.sampled_from(_TYPES), min_size=1, max_size=6))
    anything = st.binary(max_size=20) if damaged else st.nothing()
    found = [draw(st.none() | values(type_oid) | anything) for type_oid in types]
    found = found[: draw(st.integers(0, len(found)))] if draw(st.booleans()) else found
    return types, rows.join(found)


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns; of what it raises, that it does: statements are left to the engine, and damaged values found."""
    try:
        return call(*arguments)
    except (*NOT_EXACT, LookupError):
        return NOT_EXACT


@settings(max_examples=150)
@given(typed_rows(), st.booleans(), st.data())
def test_rows_are_written_alike(drawn: tuple[list[int], bytes], binary: bool, data: st.DataObject) -> None:
    types, row = drawn
    columns = []
    for position, type_oid in enumerate(types):
        text = output.text_field(type_oid, iso_dates=True, zone_is_utc=True)
        columns.append((position, output.binary_field if binary or text is None else text))
    columns = data.draw(st.permutations(columns))
    assert outcome(output.row_writer(columns), row) == outcome(output._RowWriter(columns), row)


@given(typed_rows(), st.data())
def test_a_row_that_is_cut_off_is_read_no_further(drawn: tuple[list[int], bytes], data: st.DataObject) -> None:
    types, row = drawn
    cut = row[: data.draw(st.integers(0, len(row) - 1))]
    columns = [(position, output.binary_field) for position in range(len(types))]
    with pytest.raises(ValueError, match="cut off"):
        output.row_writer(columns)(cut)
    with pytest.raises(ValueError, match="cut off"):
        keys.KeyEncoder(77, [(len(types) - 1, oids.TEXT)]).from_row(cut)


@settings(max_examples=100)
@given(typed_rows(damaged=False), st.booleans(), st.data())
def test_keys_are_made_alike(drawn: tuple[list[int], bytes], nulls_first: bool, data: st.DataObject) -> None:
    types, row = drawn
    columns = data.draw(st.permutations(list(enumerate(types))))
    encoder = keys.KeyEncoder(77, columns, [nulls_first] * len(columns))
    twin = python_key(columns, [nulls_first] * len(columns))
    assert outcome(encoder.from_row, row) == outcome(twin.from_row, row)


def python_key(columns: list[tuple[int, int]], nulls_first: list[bool]) -> keys.KeyEncoder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys.compiled, "encoding", None)
        return keys.KeyEncoder(77, columns, nulls_first)


#: (parameter's type, column's type, the column's modifier)
_TAKEN = (
    (oids.INT2, oids.INT2, -1), (oids.INT4, oids.INT4, -1), (oids.INT8, oids.INT8, -1), (oids.UUID, oids.UUID, -1),
    (oids.INT2, oids.INT8, -1), (oids.INT2, oids.INT4, -1), (oids.INT4, oids.INT8, -1),
    (oids.INT8, oids.INT2, -1), (oids.TIMESTAMPTZ, oids.TIMESTAMPTZ, -1),
    (oids.TIMESTAMP, oids.TIMESTAMP, -1), (oids.DATE, oids.TIMESTAMPTZ, -1), (oids.TEXT, oids.TEXT, -1),
    (oids.UNKNOWN, oids.TEXT, -1), (oids.TEXT, oids.VARCHAR, MODIFIER_OFFSET + 5), (oids.BOOL, oids.BOOL, -1),
    (oids.INT2, oids.NUMERIC, MODIFIER_OFFSET + (18 << 16) + 6), (oids.INT4, oids.NUMERIC, -1),
    (oids.INT8, oids.NUMERIC, MODIFIER_OFFSET + (3 << 16) + 1), (oids.NUMERIC, oids.NUMERIC, -1),
    (oids.NUMERIC, oids.NUMERIC, MODIFIER_OFFSET + (18 << 16) + 6), (oids.FLOAT8, oids.FLOAT8, -1),
)  # fmt: skip


class _Column:
    """What is asked of a column of the catalog."""

    def __init__(self, type_oid: int, not_null: bool) -> None:
        self.type_oid = type_oid
        self.not_null = not_null


@st.composite
def executed(draw: st.DrawFn) -> tuple[list[ParameterField], Bound]:
    taken = draw(st.lists(st.sampled_from(_TAKEN), min_size=1, max_size=5))
    columns, given_values, formats = [], [], []
    for at, (oid, target, modifier) in enumerate(taken):
        column: Any = _Column(target, draw(st.booleans()))
        columns.append(_parameter_field(at, oid, column, modifier))
        drawn = values(oids.TEXT if oid == oids.UNKNOWN else oid) | st.binary(max_size=20)
        value = draw(st.none() | drawn)
        if oid in (oids.INT2, oids.INT4, oids.INT8) and draw(st.booleans()):
            value = draw(st.integers(-3, 10_001)).to_bytes(_WIDTHS[oid], "big", signed=True)
        given_values.append(value)
        formats.append(draw(st.sampled_from([0, 1, 1])))
    kind = draw(st.sampled_from([list, tuple]))
    return columns, Bound(kind(given_values), kind(formats))


@settings(max_examples=150)
@given(executed())
def test_rows_of_parameters_are_made_alike(drawn: tuple[list[ParameterField], Bound]) -> None:
    columns, bound = drawn

    def twin(bound: Bound) -> bytes:
        return rows.join([column.read(bound) for column in columns])

    assert outcome(parameter_rows.parameter_row(columns), bound) == outcome(twin, bound)


_TAIL = executions._EXECUTE_AND_SYNC


@settings(max_examples=150)
@given(st.data())
@example(None)
def test_executions_are_split_alike(data: st.DataObject | None) -> None:
    """Whole requests, and requests with a byte changed, cut off or added."""
    if data is None:
        request = p.bind_values([b"1", None], (1, 0), b"s") + _TAIL
    else:
        given_values = data.draw(st.lists(st.none() | st.binary(max_size=5), max_size=4))
        formats = data.draw(st.lists(st.integers(0, 2), max_size=4).map(tuple))
        request = p.bind_values(given_values, formats, data.draw(st.binary(max_size=3)))
        request += executions._DESCRIBE * data.draw(st.integers(0, 2)) + _TAIL
        damage = data.draw(st.integers(0, 3))
        at = data.draw(st.integers(0, len(request) - 1))
        if damage == 1:
            request = request[:at] + bytes([data.draw(st.integers(0, 255))]) + request[at + 1 :]
        elif damage == 2:
            request = request[:at]
        elif damage == 3:
            request = request[:at] + b"\0" + request[at:]
    assert compiled.encoding.split_execution(request) == executions._split_execution(request)


def test_a_request_is_split() -> None:
    request = p.bind_values([b"12", None], (1, 0), b"s1") + executions._DESCRIBE + _TAIL
    assert executions.split_execution(request) == (b"s1", [b"12", None], (1, 0), b"\0\0", True)
    assert executions.split_execution(request[:-1]) is None
    assert executions.split_execution(request + _TAIL) is None


@given(st.integers(0, 300), st.lists(st.binary(max_size=9)))
def test_data_rows_are_made_alike(width: int, segments: list[bytes]) -> None:
    assert compiled.encoding.data_row(width, segments) == output._data_row(width, segments)


def test_an_extension_of_another_version_is_not_used() -> None:
    modules = (
        compiled.encoding,
        compiled.reads,
        compiled.storage,
        compiled.journal,
        compiled.inserts,
        compiled.commit_path,
    )
    assert {module.VERSION for module in modules} == {VERSION}
