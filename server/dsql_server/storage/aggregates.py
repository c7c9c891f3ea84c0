"""Partial aggregates over stored rows, and how the partial results of several shards combine.

Counts, and sums and extremes of the usual numbers, are computed column by column; the rest value by value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from struct import Struct
from typing import TYPE_CHECKING

from dsql_server.encoding import numeric
from dsql_server.encoding import type_oids as oid
from dsql_server.encoding.keys import encode_value, value_encoder
from dsql_server.encoding.rows import fields_reader
from dsql_server.interfaces.commit_path import Aggregate
from dsql_server.storage.predicates import compile_predicate

if TYPE_CHECKING:
    from dsql_server.storage.columns import Column, RowBatch

_unpack_float4 = Struct(">f").unpack
_unpack_float8 = Struct(">d").unpack

#: Exact for every sum of numerics; special values follow PostgreSQL (Infinity - Infinity is NaN).
_EXACT = Context(prec=numeric.INTEGER_DIGITS_MAX + numeric.SCALE_MAX + 20, traps=[])


def _decode_integer(binary: bytes) -> int:
    return int.from_bytes(binary, "big", signed=True)


def _decode_float4(binary: bytes) -> float:
    number: float = _unpack_float4(binary)[0]
    return number


def _decode_float8(binary: bytes) -> float:
    number: float = _unpack_float8(binary)[0]
    return number


#: Types that sum, and whose extremes come back as numbers; extremes of other types come back as stored.
_DECODERS: dict[int, Callable[[bytes], int | float | Decimal]] = {
    oid.INT2: _decode_integer,
    oid.INT4: _decode_integer,
    oid.INT8: _decode_integer,
    oid.FLOAT4: _decode_float4,
    oid.FLOAT8: _decode_float8,
    oid.NUMERIC: numeric.to_decimal,
}


_INTEGER_WIDTHS = {oid.INT2: 2, oid.INT4: 4, oid.INT8: 8}
_HALF_BITS = 32


class Accumulator:
    """One aggregate over the values of one column; never called for rows where the column is NULL."""

    def add(self, field: bytes) -> None:
        raise NotImplementedError

    def add_column(self, values: Column) -> None:
        """Take in a column without NULLs."""
        add = self.add
        for field in values.fields():
            add(field)

    def result(self) -> object:
        raise NotImplementedError


class _Count(Accumulator):
    def __init__(self) -> None:
        self.count = 0

    def add(self, field: bytes) -> None:
        self.count += 1

    def add_column(self, values: Column) -> None:
        self.count += len(values.lengths)

    def result(self) -> object:
        return self.count


class _Sum(Accumulator):
    def __init__(self, type_oid: int) -> None:
        self.decode = _decoder(type_oid)
        self.total: int | float | Decimal | None = None

    def add(self, field: bytes) -> None:
        self.total = plus(self.total, self.decode(field))

    def result(self) -> object:
        return self.total


class _IntegerSum(_Sum):
    def __init__(self, type_oid: int) -> None:
        super().__init__(type_oid)
        self.width = _INTEGER_WIDTHS[type_oid]

    def add_column(self, values: Column) -> None:
        if not len(values.lengths):
            return
        numbers = values.integers(self.width)
        # In halves: the sum of 8-byte integers needs more than 8 bytes.
        high, low = int((numbers >> _HALF_BITS).sum()), int((numbers & (1 << _HALF_BITS) - 1).sum())
        self.total = plus(self.total, (high << _HALF_BITS) + low)


class _NumericSum(_Sum):
    def __init__(self) -> None:
        from dsql_server.storage.numeric_sums import NumericSum  # numpy is loaded where it is used

        super().__init__(oid.NUMERIC)
        self.sum = NumericSum()

    def add_column(self, values: Column) -> None:
        for field in self.sum.add(values).fields():
            self.add(field)

    def result(self) -> object:
        total = self.sum.result()
        return self.total if total is None else plus(self.total, total)


class _Extreme(Accumulator):
    def __init__(self, type_oid: int, greatest: bool) -> None:
        self.encode = value_encoder(type_oid)
        self.decode = _DECODERS.get(type_oid)
        self.greatest = greatest
        self.best: bytes | None = None
        self.best_key = b""

    def add(self, field: bytes) -> None:
        key = self.encode(field)
        # Of equal values (1.0 and 1.00) the later one stays, as PostgreSQL's min and max do.
        if self.best is None or (key >= self.best_key if self.greatest else key <= self.best_key):
            self.best, self.best_key = field, key

    def result(self) -> object:
        if self.best is None or self.decode is None:
            return self.best
        return self.decode(self.best)


class _IntegerExtreme(_Extreme):
    def __init__(self, type_oid: int, greatest: bool) -> None:
        super().__init__(type_oid, greatest)
        self.width = _INTEGER_WIDTHS[type_oid]

    def add_column(self, values: Column) -> None:
        if len(values.lengths):
            numbers = values.integers(self.width)
            best = int(numbers.max() if self.greatest else numbers.min())
            self.add(best.to_bytes(self.width, "big", signed=True))


def _decoder(type_oid: int) -> Callable[[bytes], int | float | Decimal]:
    decode = _DECODERS.get(type_oid)
    if decode is None:
        raise ValueError(f"type with OID {type_oid} has no sum in storage; let the query processor compute it")
    return decode


def plus(left: int | float | Decimal | None, right: int | float | Decimal) -> int | float | Decimal:
    """The sum, exact where both are; None counts as no value."""
    if left is None:
        return right
    if isinstance(right, Decimal):
        assert isinstance(left, Decimal), "partial sums of one column have one type"
        return _EXACT.add(left, right)
    assert not isinstance(left, Decimal), "partial sums of one column have one type"
    return left + right


def accumulator(aggregate: Aggregate) -> Accumulator:
    """A new one for an aggregate of a column. Raises ValueError where storage has none."""
    if aggregate.function == "count":
        return _Count()
    type_oid = aggregate.type_oid
    if aggregate.function == "sum":
        if type_oid == oid.NUMERIC:
            return _NumericSum()
        return _IntegerSum(type_oid) if type_oid in _INTEGER_WIDTHS else _Sum(type_oid)
    if aggregate.function in ("min", "max"):
        kind = _IntegerExtreme if type_oid in _INTEGER_WIDTHS else _Extreme
        return kind(type_oid, aggregate.function == "max")
    raise ValueError(f"storage has no aggregate {aggregate.function!r}; known: count, sum, min, max")


class PartialAggregates:
    """Accumulates several aggregates over rows handed in pieces.

    Raises ValueError when built, for unknown functions and for sums over types without one.
    """

    def __init__(self, aggregates: Sequence[Aggregate]) -> None:
        from dsql_server.storage.column_tests import FilteredBatches  # numpy is loaded where it is used

        assert all(a.function == "count" for a in aggregates if a.column is None), "only count needs no column"
        self._aggregates = [(aggregate, accumulator(aggregate)) for aggregate in aggregates]
        self._rows = {aggregate.predicate: 0 for aggregate in aggregates}
        self._batches = FilteredBatches(aggregates)

    def add(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Take in some rows (key, value), one by one."""
        tests = {predicate: compile_predicate(predicate) if predicate else None for predicate in self._rows}
        read = fields_reader(max((a.column for a, _ in self._aggregates if a.column is not None), default=0))
        for _, value in rows:
            row = read(value)
            holds = {predicate: test is None or test(value) for predicate, test in tests.items()}
            for predicate in self._rows:
                self._rows[predicate] += holds[predicate]
            for aggregate, accumulator in self._aggregates:
                field = None if aggregate.column is None else row[aggregate.column]
                if field is not None and holds[aggregate.predicate]:
                    accumulator.add(field)

    def add_batch(self, batch: RowBatch) -> None:
        """Take in the rows of a batch."""
        batches = self._batches.of(batch)
        for predicate in self._rows:
            self._rows[predicate] += len(batches[predicate][0])
        for aggregate, accumulator in self._aggregates:
            if aggregate.column is not None:
                accumulator.add_column(batches[aggregate.predicate][0].column(aggregate.column).values())

    def results(self) -> list[object]:
        """One value per aggregate, in their order; None where there was no value at all."""
        return [
            self._rows[aggregate.predicate] if aggregate.column is None else accumulator.result()
            for aggregate, accumulator in self._aggregates
        ]


def combine(aggregates: Sequence[Aggregate], partials: Sequence[Sequence[object]]) -> list[object]:
    """The aggregates over all shards from their partial results, given in key order."""
    combined: list[object] = []
    for at, aggregate in enumerate(aggregates):
        values = [partial[at] for partial in partials if partial[at] is not None]
        if aggregate.function in ("count", "sum"):
            total: int | float | Decimal | None = 0 if aggregate.function == "count" else None
            for value in values:
                assert isinstance(value, int | float | Decimal), "counts and sums are numbers"
                total = plus(total, value)
            combined.append(total)
        else:
            combined.append(_extreme(aggregate, values))
    return combined


def _extreme(aggregate: Aggregate, values: Sequence[object]) -> object:
    best: object = None
    best_key: tuple[int, object] | None = None
    for value in values:
        key = _sort_key(aggregate.type_oid, value)
        if best_key is None or (key >= best_key if aggregate.function == "max" else key <= best_key):
            best, best_key = value, key
    return best


def _sort_key(type_oid: int, value: object) -> tuple[int, object]:
    """NaN above all numbers, and values that stayed binary by their encoding."""
    if isinstance(value, bytes):
        return (0, encode_value(type_oid, value))
    if isinstance(value, Decimal):
        return (1, 0) if value.is_nan() else (0, value)
    if isinstance(value, float) and math.isnan(value):
        return (1, 0)
    return (0, value)
