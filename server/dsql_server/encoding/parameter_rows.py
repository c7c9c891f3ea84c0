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
_COMPUTED, _FIXED, _INSTANT, _TEXT, _NUMBER, _WIDER, _KNOWN = range(7)
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
    known: bool = False  #: it is the same whatever is bound: ``read`` needs nothing
    not_null: bool = True  #: what a NULL comes to is for ``read`` to say

    def compiled(self) -> tuple[int, int, int, Field | bytes | None]:
        """How the compiled twins make the field: from what, the parameter's place, what else there is to know of it,
        and what to call for values that aren't plain (or the field itself, if it is known)."""
        if self.known:
            return _KNOWN, -1, 0, self.read(None)
        source, size = _COMPUTED, 0
        oid, target = self.parameter_oid, self.column_oid
        if self.place >= 0:
            if oid == target and oid in _FIXED_BYTES:
                source, size = _FIXED, _FIXED_BYTES[oid]
            elif _INTEGER_BYTES.get(oid, 8) < _INTEGER_BYTES.get(target, 0):
                source, size = _WIDER, _INTEGER_BYTES[oid] << 8 | _INTEGER_BYTES[target]
            elif oid == target and oid in (oids.TIMESTAMP, oids.TIMESTAMPTZ):
                source = _INSTANT
            elif target in (oids.TEXT, oids.VARCHAR) and oid in (oids.TEXT, oids.VARCHAR, oids.UNKNOWN):
                source, size = _TEXT, _TEXT_BYTES_MAX if self.length_max is None else self.length_max
            elif target == oids.NUMERIC and oid in _INTEGER_BYTES and 0 <= self.scale <= self.precision <= _DIGITS_MAX:
                # An integer in the column's own scale: its width in bytes, the digits before the point, the scale.
                source = _NUMBER
                size = _INTEGER_BYTES[oid] << 24 | (self.precision - self.scale) << 12 | self.scale
        return source, self.place, size, self.read


def parameter_row(columns: Sequence[ParameterField]) -> Callable[[Any], bytes]:
    """A function that makes the stored row of an execution (:class:`dsql_server.processor.access.Bound`).

    It raises what the fields' ``read`` raises.
    """
    if compiled.encoding is not None:
        row: Callable[[Any], bytes] = compiled.encoding.ParameterRow([column.compiled() for column in columns])
        return row
    reads = [column.read for column in columns]
    return lambda bound: join([read(bound) for read in reads])
