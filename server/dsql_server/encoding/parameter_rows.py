"""Stored rows made of an execution's parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dsql_server import compiled
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.rows import join

#: Reads one field of the row from an execution's parameters; None is NULL.
Field = Callable[[Any], "bytes | None"]

#: How the compiled twin reads plain values; what isn't plain it asks :class:`ParameterField`'s ``read`` for.
_COMPUTED, _FIXED, _INSTANT, _TEXT, _NUMBER, _WIDER = range(6)
_FIXED_BYTES = {oids.INT2: 2, oids.INT4: 4, oids.INT8: 8, oids.UUID: 16}
_INTEGER_BYTES = {oids.INT2: 2, oids.INT4: 4, oids.INT8: 8}
_TEXT_BYTES_MAX = 1 << 20
_DIGITS_MAX = 0xFFF  #: digits and scales of numeric columns that the compiled twin takes


class ParameterField(NamedTuple):
    """One column: ``read`` says what it holds, the rest is what is known of it beforehand."""

    read: Field
    place: int = -1  #: the parameter that it takes, from 0; -1: none
    parameter_oid: int = 0
    column_oid: int = 0
    length_max: int | None = None  #: of varchar(n), in characters
    precision: int = 0  #: of numeric(p,s)
    scale: int = 0


def parameter_row(columns: Sequence[ParameterField]) -> Callable[[Any], bytes]:
    """A function that makes the stored row of an execution (:class:`dsql_server.processor.access.Bound`).

    It raises what the fields' ``read`` raises.
    """
    if compiled.encoding is not None:
        row: Callable[[Any], bytes] = compiled.encoding.ParameterRow([_compiled(column) for column in columns])
        return row
    reads = [column.read for column in columns]
    return lambda bound: join([read(bound) for read in reads])


def _compiled(column: ParameterField) -> tuple[int, int, int, Field]:
    source, size = _COMPUTED, 0
    oid, target = column.parameter_oid, column.column_oid
    if column.place >= 0:
        if oid == target and oid in _FIXED_BYTES:
            source, size = _FIXED, _FIXED_BYTES[oid]
        elif _INTEGER_BYTES.get(oid, 8) < _INTEGER_BYTES.get(target, 0):
            source, size = _WIDER, _INTEGER_BYTES[oid] << 8 | _INTEGER_BYTES[target]
        elif oid == target and oid in (oids.TIMESTAMP, oids.TIMESTAMPTZ):
            source = _INSTANT
        elif target in (oids.TEXT, oids.VARCHAR) and oid in (oids.TEXT, oids.VARCHAR, oids.UNKNOWN):
            source, size = _TEXT, _TEXT_BYTES_MAX if column.length_max is None else column.length_max
        elif target == oids.NUMERIC and oid in _INTEGER_BYTES and 0 <= column.scale <= column.precision <= _DIGITS_MAX:
            # An integer in the column's own scale: its width in bytes, the digits before the point, the scale.
            source = _NUMBER
            size = _INTEGER_BYTES[oid] << 24 | (column.precision - column.scale) << 12 | column.scale
    return source, column.place, size, column.read
