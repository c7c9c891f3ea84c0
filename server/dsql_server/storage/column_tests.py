"""Pushed-down conditions on columns of a batch; what has no such form is tested row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dsql_server.encoding import type_oids as oid
from dsql_server.encoding.orderings import ORDERINGS
from dsql_server.interfaces.commit_path import Aggregate, Comparison
from dsql_server.storage.columns import Column, Flags, RowBatch
from dsql_server.storage.predicates import RowTest, compile_predicate

_ColumnTest = Callable[[Column], Flags]

#: Types whose values are integers that sort as the values do, with their width in bytes.
INTEGER_WIDTHS = {
    oid.INT2: 2, oid.INT4: 4, oid.INT8: 8, oid.DATE: 4, oid.TIME: 8, oid.TIMESTAMP: 8, oid.TIMESTAMPTZ: 8,
}  # fmt: skip
#: Types whose equal values have equal bytes; operands come with escapes and an end mark.
_TEXTS = frozenset({oid.TEXT, oid.VARCHAR, oid.BYTEA})
#: Types whose operands are the stored bytes.
_PLAIN = frozenset({oid.UUID, oid.BOOL})


class BatchTest:
    """Keeps the rows of a batch that satisfy every comparison.

    Raises ValueError and UnsupportedKeyType when built, as :func:`compile_predicate` does.
    """

    def __init__(self, predicate: Sequence[Comparison]) -> None:
        self._by_column: list[tuple[int, _ColumnTest]] = []
        rest: list[Comparison] = []
        for comparison in predicate:
            test = _column_test(comparison)
            if test is None:
                rest.append(comparison)
            else:
                self._by_column.append((comparison.column, test))
        self._row_test: RowTest | None = compile_predicate(tuple(rest)) if rest else None

    def wanted(self, batch: RowBatch) -> Flags:
        """Which rows of the batch those are."""
        found = np.ones(len(batch), np.bool_)
        for column, test in self._by_column:
            found &= test(batch.column(column))
        if self._row_test is not None:
            row_test = self._row_test
            found &= np.fromiter((row_test(row) for row in batch.rows()), np.bool_, len(batch))
        return found

    def apply(self, batch: RowBatch) -> None:
        """Take the other rows out of the batch."""
        for column, test in self._by_column:
            batch.keep(test(batch.column(column)))
        if self._row_test is not None:
            row_test = self._row_test
            batch.keep(np.fromiter((row_test(row) for row in batch.rows()), np.bool_, len(batch)))


class FilteredBatches:
    """Batches of rows as aggregates with FILTER see them: tests are built once, and made once for each batch."""

    def __init__(self, aggregates: Sequence[Aggregate]) -> None:
        """Raises ValueError and UnsupportedKeyType, as :class:`BatchTest` does."""
        self._tests = {a.predicate: BatchTest(a.predicate) for a in aggregates if a.predicate}

    def of(self, batch: RowBatch) -> dict[tuple[Comparison, ...], tuple[RowBatch, Flags | None]]:
        """By predicate, the rows of the batch for which it holds, and which ones they are; None: all."""
        found: dict[tuple[Comparison, ...], tuple[RowBatch, Flags | None]] = {(): (batch, None)}
        for predicate, test in self._tests.items():
            wanted = test.wanted(batch)
            view = batch.view()
            view.keep(wanted)
            found[predicate] = view, wanted
        return found


def _column_test(comparison: Comparison) -> _ColumnTest | None:
    name, type_oid, operands = comparison.operator, comparison.type_oid, comparison.operands
    if name == "isnull":
        return lambda column: ~column.present
    if name == "notnull":
        return lambda column: column.present
    width = INTEGER_WIDTHS.get(type_oid)
    if width is not None and (name in ORDERINGS or name == "in"):
        return _integer_test(name, width, [_integer(operand) for operand in operands])
    if name in ("=", "in") and (type_oid in _PLAIN or type_oid in _TEXTS):
        values = [operand if type_oid in _PLAIN else _without_escapes(operand) for operand in operands]
        return lambda column: _any_equals(column, values)
    return None


def _integer(encoded: bytes) -> int:
    """The integer that an order-preserving encoding stands for: two's complement with its first bit flipped."""
    return int.from_bytes(encoded, "big") - (1 << (8 * len(encoded) - 1))


def _without_escapes(operand: bytes) -> bytes:
    return operand[:-2].replace(b"\0\xff", b"\0")


def _integer_test(name: str, width: int, operands: list[int]) -> _ColumnTest:
    if name == "in":
        wanted = np.array(operands, np.int64)
        return lambda column: column.present & np.isin(column.integers(width), wanted)
    compare, operand = ORDERINGS[name], np.int64(operands[0])
    return lambda column: column.present & compare(column.integers(width), operand)


def _any_equals(column: Column, values: list[bytes]) -> Flags:
    found = np.zeros(len(column.lengths), np.bool_)
    for value in values:
        found |= column.equals(value)
    return found
