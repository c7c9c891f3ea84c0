"""Partial aggregates of many groups at once: GROUP BY over batches of stored rows.

Each row of a batch gets the number of its group; from there on numpy adds up whole columns by these numbers. What has
no such form (extremes of texts, sums of extraordinary numerics) goes to one accumulator for each group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsql_server.encoding import type_oids as oid
from dsql_server.interfaces.commit_path import Aggregate, GroupColumn, TooManyGroups
from dsql_server.storage.aggregates import Accumulator, accumulator, combine, plus
from dsql_server.storage.column_tests import INTEGER_WIDTHS, FilteredBatches
from dsql_server.storage.columns import Column, Integers, RowBatch
from dsql_server.storage.numeric_sums import GroupedNumericSums, grown

GroupKey = tuple["bytes | None", ...]

#: Integers that lie so close together are ranked by counting, without sorting them.
COUNTED_SPAN_MAX = 1 << 16
_HALF_BITS = 32
_LOW_HALF = (1 << _HALF_BITS) - 1
_INT8 = np.iinfo(np.int64)
_SUMMED_INTEGERS = frozenset({oid.INT2, oid.INT4, oid.INT8})


class _GroupTotals:
    """One aggregate of each group; ``groups`` are the numbers of the rows' groups, below ``count``."""

    def add(self, values: Column, groups: Integers, count: int) -> None:
        """Take in a column without NULLs."""
        raise NotImplementedError

    def result(self, group: int) -> object:
        raise NotImplementedError


class _Counts(_GroupTotals):
    def __init__(self) -> None:
        self._counts: Integers = np.zeros(0, np.int64)

    def add_rows(self, groups: Integers, count: int) -> None:
        self._counts = grown(self._counts, count)
        self._counts[:count] += np.bincount(groups, minlength=count)

    def add(self, values: Column, groups: Integers, count: int) -> None:
        self.add_rows(groups, count)

    def result(self, group: int) -> object:
        return int(self._counts[group]) if group < len(self._counts) else 0


class _IntegerSums(_GroupTotals):
    def __init__(self, width: int) -> None:
        self._width = width
        self._seen = _Counts()
        # In halves: the sum of 8-byte integers needs more than 8 bytes.
        self._high: Integers = np.zeros(0, np.int64)
        self._low: Integers = np.zeros(0, np.int64)

    def add(self, values: Column, groups: Integers, count: int) -> None:
        numbers = values.integers(self._width)
        self._seen.add_rows(groups, count)
        self._high, self._low = grown(self._high, count), grown(self._low, count)
        # Sums of so few halves are exact in double precision.
        self._high[:count] += np.bincount(groups, numbers >> _HALF_BITS, count).astype(np.int64)
        self._low[:count] += np.bincount(groups, numbers & _LOW_HALF, count).astype(np.int64)

    def result(self, group: int) -> object:
        if not self._seen.result(group):
            return None
        return (int(self._high[group]) << _HALF_BITS) + int(self._low[group])


class _IntegerExtremes(_GroupTotals):
    def __init__(self, type_oid: int, greatest: bool) -> None:
        self._width = INTEGER_WIDTHS[type_oid]
        self._greatest = greatest
        self._is_number = type_oid in _SUMMED_INTEGERS
        self._seen = _Counts()
        self._best: Integers = np.zeros(0, np.int64)

    def add(self, values: Column, groups: Integers, count: int) -> None:
        self._seen.add_rows(groups, count)
        self._best = grown(self._best, count, _INT8.min if self._greatest else _INT8.max)
        take = np.maximum if self._greatest else np.minimum
        take.at(self._best, groups, values.integers(self._width))

    def result(self, group: int) -> object:
        if not self._seen.result(group):
            return None
        best = int(self._best[group])
        return best if self._is_number else best.to_bytes(self._width, "big", signed=True)


class _OneByOne(_GroupTotals):
    """Whatever has to be looked at value by value."""

    def __init__(self, aggregate: Aggregate) -> None:
        self._aggregate = aggregate
        self._by_group: dict[int, Accumulator] = {}

    def add(self, values: Column, groups: Integers, count: int) -> None:
        by_group = self._by_group
        for field, group in zip(values.fields(), groups.tolist(), strict=True):
            if group not in by_group:
                by_group[group] = accumulator(self._aggregate)
            by_group[group].add(field)

    def result(self, group: int) -> object:
        found = self._by_group.get(group)
        return None if found is None else found.result()


class _NumericSums(_GroupTotals):
    def __init__(self, aggregate: Aggregate) -> None:
        self._sums = GroupedNumericSums()
        self._rest = _OneByOne(aggregate)

    def add(self, values: Column, groups: Integers, count: int) -> None:
        rest = self._sums.add(values, groups, count)
        if rest.any():
            self._rest.add(Column(values.batch, values.at[rest], values.lengths[rest]), groups[rest], count)

    def result(self, group: int) -> object:
        total, rest = self._sums.result(group), self._rest.result(group)
        if total is None or rest is None:
            return rest if total is None else total
        assert not isinstance(rest, bytes | float) and isinstance(rest, type(total)), "sums of numerics are decimals"
        return plus(total, rest)


def _totals(aggregate: Aggregate) -> _GroupTotals:
    function, type_oid = aggregate.function, aggregate.type_oid
    if function == "count":
        return _Counts()
    if function == "sum" and type_oid == oid.NUMERIC:
        return _NumericSums(aggregate)
    if function == "sum" and type_oid in _SUMMED_INTEGERS:
        return _IntegerSums(INTEGER_WIDTHS[type_oid])
    if function in ("min", "max") and type_oid in INTEGER_WIDTHS:
        return _IntegerExtremes(type_oid, function == "max")
    return _OneByOne(aggregate)


class Groups:
    """Accumulates the aggregates of each group over rows handed in batches.

    Groups are told apart by the stored bytes of their columns: those must be of types whose equal values have equal
    bytes. Raises ValueError when built, for unknown functions and for sums over types without one.
    """

    def __init__(self, columns: Sequence[GroupColumn], aggregates: Sequence[Aggregate], groups_max: int) -> None:
        assert columns, "without columns to group by there is one group"
        self._columns = columns
        self._groups_max = groups_max
        self._numbers: dict[GroupKey, int] = {}
        self._aggregates = [(aggregate, _totals(aggregate)) for aggregate in aggregates]
        self._batches = FilteredBatches(aggregates)
        for aggregate in aggregates:
            accumulator(aggregate)

    def add_batch(self, batch: RowBatch) -> None:
        """Take in the rows of a batch. Raises TooManyGroups."""
        if not len(batch):
            return
        groups = self._groups_of(batch)
        count = len(self._numbers)
        batches = self._batches.of(batch)
        for aggregate, totals in self._aggregates:
            rows, wanted = batches[aggregate.predicate]
            if len(rows):
                _add(aggregate, totals, rows, groups if wanted is None else groups[wanted], count)

    def _groups_of(self, batch: RowBatch) -> Integers:
        """The number of each row's group."""
        codes: Integers = np.zeros(len(batch), np.int64)
        values: list[list[bytes | None]] = []
        for number, type_oid in self._columns:
            of_column, distinct = _encoded(batch.column(number), INTEGER_WIDTHS.get(type_oid))
            if values:
                # Numbered anew for each column: the product of all counts might not fit.
                combined, codes = np.unique(codes * len(distinct) + of_column, return_inverse=True)
                before, last = (combined // len(distinct)).tolist(), (combined % len(distinct)).tolist()
                values = [[known[at] for at in before] for known in values]
                values.append([distinct[at] for at in last])
            else:
                values, codes = [distinct], of_column
        numbers = self._numbers
        used = np.zeros(len(values[0]), np.bool_)
        used[codes] = True
        known = np.zeros(len(used), np.int64)
        keys = list(zip(*values, strict=True))
        for at in np.flatnonzero(used).tolist():
            known[at] = numbers.setdefault(keys[at], len(numbers))
        if len(numbers) > self._groups_max:
            raise TooManyGroups(f"more than {self._groups_max} groups")
        groups: Integers = known[codes]
        return groups

    def results(self) -> dict[GroupKey, list[object]]:
        """The values of each group's columns, and of its aggregates, in their order."""
        return {key: [totals.result(group) for _, totals in self._aggregates] for key, group in self._numbers.items()}


def _add(aggregate: Aggregate, totals: _GroupTotals, batch: RowBatch, groups: Integers, count: int) -> None:
    if aggregate.column is None:
        assert isinstance(totals, _Counts), "only count needs no column"
        totals.add_rows(groups, count)
        return
    column = batch.column(aggregate.column)
    present = column.present
    if present.all():
        totals.add(column, groups, count)
    elif present.any():
        totals.add(column.values(), groups[present], count)


def _encoded(column: Column, width: int | None) -> tuple[Integers, list[bytes | None]]:
    """Each row's field as a number, and what the numbers stand for; 0 is NULL."""
    present = column.present
    codes: Integers = np.zeros(len(present), np.int64)
    if width is not None:
        if present.any():
            distinct, codes[present] = _ranked(column.values().integers(width))
            return codes, [None, *(value.to_bytes(width, "big", signed=True) for value in distinct.tolist())]
        return codes, [None]
    numbers: dict[bytes, int] = {}
    # One more than the length before: NULL keeps the 0.
    codes[present] = [numbers.setdefault(field, len(numbers) + 1) for field in column.values().fields()]
    return codes, [None, *numbers]


def _ranked(numbers: Integers) -> tuple[Integers, Integers]:
    """The distinct numbers in order, and of each number which of them it is, from 1."""
    lowest = int(numbers.min())
    span = int(numbers.max()) - lowest + 1
    if span > COUNTED_SPAN_MAX:
        distinct, found = np.unique(numbers, return_inverse=True)
        return distinct, found + 1
    offsets = numbers - lowest
    is_there = np.zeros(span, np.bool_)
    is_there[offsets] = True
    ranks: Integers = np.cumsum(is_there, dtype=np.int64)
    found_there: Integers = np.flatnonzero(is_there).astype(np.int64)
    return found_there + lowest, ranks[offsets]


def combine_groups(
    aggregates: Sequence[Aggregate], partials: Sequence[dict[GroupKey, list[object]]], groups_max: int
) -> dict[GroupKey, list[object]]:
    """The groups over all shards from their partial results, given in key order. Raises TooManyGroups."""
    parts: dict[GroupKey, list[list[object]]] = {}
    for partial in partials:
        for key, values in partial.items():
            parts.setdefault(key, []).append(values)
    if len(parts) > groups_max:
        raise TooManyGroups(f"more than {groups_max} groups")
    return {key: values[0] if len(values) == 1 else combine(aggregates, values) for key, values in parts.items()}
