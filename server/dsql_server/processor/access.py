"""How a scan's stored rows are found: compiled once a plan, run at each execution.

Every path returns a superset of the rows that the scan needs. An operand that can't be turned into an exact key
raises NotUnderstood at run time, and the path widens to the whole table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dsql_server.catalog.state import Index, Table
from dsql_server.encoding.keys import NOT_NULL, prefix, prefix_end
from dsql_server.interfaces.commit_path import Comparison, ScanRequest, StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.conditions import INTEGERS, TEXTS, Conjunct, OtherColumn
from dsql_server.processor.operands import Getter, ListGetter, join_getter, list_getter, scalar_getter

Row = tuple[bytes, bytes]  #: key, stored value

#: More distinct values than this in an IN list or a join: one scan is cheaper than many look-ups.
POINTS_MAX = 2000
#: Up to so many keys are read one by one; more are grouped by node first.
FEW_KEYS = 6


@dataclass(slots=True)
class Bound:
    """One execution's parameters, and what the scans before this one found."""

    values: Sequence[bytes | None]
    formats: Sequence[int]  #: 0 text, 1 binary; one per value
    zone_is_utc: bool = True
    found: dict[str, list[Row]] = field(default_factory=dict)  #: by alias
    dirty: frozenset[int] | set[int] = frozenset()  #: tables with rows that storage doesn't have
    #: stored rows that the transaction has loaded, by the table's relation id
    loaded: Mapping[int, Mapping[bytes, bytes]] = field(default_factory=dict)


#: Rows by the conditions' operands.
Reader = Callable[[Sequence[bytes], StorageReader, Timestamp], list[Row]]

#: Raised where a bound value has no certain meaning: not understood, out of range, or no value of its type at all.
NOT_EXACT = (ValueError, IndexError, struct.error)


def comparable(column_oid: int, operand_oid: int) -> bool:
    """Whether equal values of the two types have equal encodings and the operator compares them as these do."""
    return (
        column_oid == operand_oid
        or (column_oid in INTEGERS and operand_oid in INTEGERS)
        or (column_oid in TEXTS and operand_oid in TEXTS)
    )


class Conditions:
    """A scan's conjuncts by column number, as readers of encoded operands."""

    def __init__(
        self, table: Table, conjuncts: Sequence[Conjunct], parameter_oids: Sequence[int], sources: dict[str, Table]
    ) -> None:
        self.equal: dict[int, Getter] = {}
        self.ranges: dict[int, list[tuple[str, Getter]]] = {}
        self.lists: dict[int, ListGetter] = {}
        self.pushed: list[tuple[int, int, str, Getter | ListGetter | None]] = []
        for conjunct in conjuncts:
            column = table.by_name.get(conjunct.column)
            if column is None or (conjunct.as_text and column.type_oid not in TEXTS):
                continue
            self._add(column.number, column.type_oid, conjunct, parameter_oids, sources)

    def _add(
        self, number: int, oid: int, conjunct: Conjunct, parameter_oids: Sequence[int], sources: dict[str, Table]
    ) -> None:
        operand = conjunct.operand
        if operand is None:
            self.pushed.append((number - 1, oid, conjunct.operator, None))
            return
        if isinstance(operand, OtherColumn):
            source = sources.get(operand.alias)
            joined = join_getter(source, operand.alias, operand.column) if source is not None else None
            if joined is not None and comparable(oid, joined[0]):
                self.lists.setdefault(number, joined[1])
                self.pushed.append((number - 1, oid, "in", joined[1]))
        elif conjunct.operator == "in":
            listed = list_getter(operand, parameter_oids)
            if listed is not None and comparable(oid, listed[0]):
                self.lists[number] = listed[1]
                self.pushed.append((number - 1, oid, "in", listed[1]))
        else:
            scalar = scalar_getter(operand, parameter_oids)
            if scalar is not None and comparable(oid, scalar[0]):
                if conjunct.operator == "=":
                    self.equal[number] = scalar[1]
                else:
                    self.ranges.setdefault(number, []).append((conjunct.operator, scalar[1]))
                self.pushed.append((number - 1, oid, conjunct.operator, scalar[1]))

    def places(self, getters: Sequence[Getter]) -> list[int]:
        """Where these readers stand among those of the pushed conditions."""
        pushed = [getter for _, _, _, getter in self.pushed]
        return [pushed.index(getter) for getter in getters]


class Access:
    """A way to the rows of one scan. ``describe`` names it for EXPLAIN and tests."""

    describe = "full scan"

    def __init__(self, table: Table, conditions: Conditions) -> None:
        self.table = table
        self.conditions = conditions
        self._pushed = conditions.pushed
        self.start = prefix(table.relation_id)
        self.end = prefix_end(self.start)

    @property
    def restricted(self) -> bool:
        """Whether any condition narrows it."""
        return bool(self._pushed)

    @property
    def pushed_count(self) -> int:
        """How many of the scan's conditions storage can apply, exactly."""
        return len(self._pushed)

    def interval(self, bound: Bound) -> tuple[bytes, bytes] | None:
        """The keys to look at, from the first to below the last; None: none."""
        return self.start, self.end

    def rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        """Rows as of ``t``; a superset of what the scan needs."""
        try:
            return self._rows(bound, storage, t)
        except NOT_EXACT:
            return storage.scan(ScanRequest(self.start, self.end, t)).rows

    def reader(self) -> Reader | None:
        """The same as :meth:`rows` for operands that have been read, in the order of the pushed conditions and none of
        them NULL; None where that is no shorter way."""
        return None

    def _rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        predicate = self.predicate(bound)
        if predicate is None:
            return []
        return storage.scan(ScanRequest(self.start, self.end, t, predicate)).rows

    def predicate(self, bound: Bound) -> tuple[Comparison, ...] | None:
        """The pushed-down conditions; None where a comparison with NULL refuses every row."""
        comparisons = []
        for column, oid, operator, getter in self._pushed:
            if getter is None:
                comparisons.append(Comparison(column, oid, operator))
                continue
            operand = getter(bound)
            if operand is None:
                return None
            operands = tuple(operand) if isinstance(operand, list) else (operand,)
            if operator == "in" and not operands:
                return None
            comparisons.append(Comparison(column, oid, operator, operands))
        return tuple(comparisons)


class PointGet(Access):
    """All primary key columns are equal to something."""

    describe = "primary key"

    def __init__(self, table: Table, conditions: Conditions, getters: list[Getter]) -> None:
        super().__init__(table, conditions)
        self._getters = getters
        self._single = getters[0] if len(getters) == 1 else None
        self._start_not_null = self.start + NOT_NULL
        self.places = conditions.places(getters)  #: of the key's conditions among those that storage can apply

    def reader(self) -> Reader:
        start, places = self.start, self.places

        def read(operands: Sequence[bytes], storage: StorageReader, t: Timestamp) -> list[Row]:
            key = start
            for place in places:
                key += NOT_NULL + operands[place]
            row = storage.get(key, t)
            return [] if row is None else [(key, row)]

        return read

    def _rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        if self._single is not None:
            value = self._single(bound)
            if value is None:
                return []
            key = self._start_not_null + value
        else:
            key = self.start
            for getter in self._getters:
                value = getter(bound)
                if value is None:
                    return []
                key += NOT_NULL + value
        row = storage.get(key, t)
        return [] if row is None else [(key, row)]


class RangeGet(Access):
    """A beginning of a key's columns is equal to something, and the next one perhaps bounded or in a list."""

    def __init__(
        self,
        table: Table,
        conditions: Conditions,
        index: Index,
        equal: list[Getter],
        ranges: list[tuple[str, Getter]],
        listed: ListGetter | None,
    ) -> None:
        super().__init__(table, conditions)
        self.index = index
        self.describe = "primary key range" if index.primary else f"index {index.name}"
        self._equal = equal
        self._ranges = ranges
        self._listed = listed
        self._key_start = self.start if index.primary else prefix(index.relation_id)
        self._complete = index.primary and len(equal) + 1 == len(index.columns)

    @property
    def is_interval(self) -> bool:
        """Whether what it reads is one interval of keys."""
        return self._listed is None

    @property
    def interval_conditions(self) -> int:
        """How many conditions the interval stands for."""
        return len(self._equal) + len(self._ranges)

    @property
    def key_conditions(self) -> tuple[bytes, list[int], list[tuple[int, str]]]:
        """What the keys begin with; the numbers, among the conditions that storage can apply, of those that say what
        the first columns are equal to; number and operator of those that bound the next one."""
        ranges = self.conditions.places([getter for _, getter in self._ranges])
        operators = [operator for operator, _ in self._ranges]
        return self._key_start, self.conditions.places(self._equal), list(zip(ranges, operators, strict=True))

    def interval(self, bound: Bound) -> tuple[bytes, bytes] | None:
        assert self._listed is None, "a list is many intervals"
        start = self._start(bound)
        values = [getter(bound) for _, getter in self._ranges]
        known = [value for value in values if value is not None]
        return None if start is None or len(known) < len(values) else self._interval(start, known)

    def _interval(self, start: bytes, values: list[bytes]) -> tuple[bytes, bytes] | None:
        """``start``: the beginning of the keys; ``values``: what the next column is compared with."""
        if not values:
            return start, prefix_end(start)
        low, high = start + NOT_NULL, prefix_end(start + NOT_NULL)
        for (operator, _), value in zip(self._ranges, values, strict=True):
            point = start + NOT_NULL + value
            if operator == ">=":
                low = max(low, point)
            elif operator == ">":
                low = max(low, prefix_end(point))
            elif operator == "<":
                high = min(high, point)
            else:
                high = min(high, prefix_end(point))
        return (low, high) if low < high else None

    def reader(self) -> Reader | None:
        if self._listed is not None:
            return None
        places = self.conditions.places(self._equal)
        ranges = self.conditions.places([getter for _, getter in self._ranges])

        def read(operands: Sequence[bytes], storage: StorageReader, t: Timestamp) -> list[Row]:
            start = self._key_start
            for place in places:
                start += NOT_NULL + operands[place]
            interval = self._interval(start, [operands[place] for place in ranges])
            return [] if interval is None else self._between(*interval, storage, t)

        return read

    def _start(self, bound: Bound) -> bytes | None:
        """The beginning of the keys that are equal to something; None where that is NULL."""
        start = self._key_start
        for getter in self._equal:
            value = getter(bound)
            if value is None:
                return None
            start += NOT_NULL + value
        return start

    def _rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        if self._listed is None:
            interval = self.interval(bound)
            return [] if interval is None else self._between(*interval, storage, t)
        start = self._start(bound)
        if start is None:
            return []
        values = sorted(set(self._listed(bound)))
        if len(values) > POINTS_MAX:
            return super()._rows(bound, storage, t)
        return self._rows_in_list(start, values, storage, t)

    def _rows_in_list(self, start: bytes, values: list[bytes], storage: StorageReader, t: Timestamp) -> list[Row]:
        points = [start + NOT_NULL + v for v in values]
        if self._complete:
            found = storage.get_many(points, t)
            return [(k, v) for k, v in zip(points, found, strict=True) if v is not None]
        rows: list[Row] = []
        for point in points:
            rows += self._between(point, prefix_end(point), storage, t)
        if self.index.primary:
            return rows
        return list(dict(rows).items())  # a stale entry may have found the row under another point, too

    def _between(self, low: bytes, high: bytes, storage: StorageReader, t: Timestamp) -> list[Row]:
        entries = storage.scan(ScanRequest(low, high, t)).rows
        if self.index.primary or not entries:
            return entries
        return fetch_entries(entries, storage, t)


def fetch_entries(entries: list[Row], storage: StorageReader, t: Timestamp) -> list[Row]:
    """The rows that index entries point to, each once. An entry's value is its row's key; some entries are stale."""
    keys = [key for _, key in entries]
    if len(keys) > 1 and len(set(keys)) < len(keys):
        keys = list(dict.fromkeys(keys))
    if len(keys) <= FEW_KEYS:
        get = storage.get
        return [(key, row) for key in keys if (row := get(key, t)) is not None]
    return [(k, v) for k, v in zip(keys, storage.get_many(keys, t), strict=True) if v is not None]


def choose_access(
    table: Table, conjuncts: Sequence[Conjunct], parameter_oids: Sequence[int], sources: dict[str, Table]
) -> Access:
    """The cheapest path that the conjuncts allow: the whole primary key, then the longest beginning of a key."""
    conditions = Conditions(table, conjuncts, parameter_oids, sources)
    key = table.primary_key
    if key is not None and all(n in conditions.equal for n in key.columns):
        return PointGet(table, conditions, [conditions.equal[n] for n in key.columns])
    best: tuple[int, RangeGet] | None = None
    for index in (*([key] if key is not None else []), *table.indexes):
        if not (index.plain and (index.valid or index.primary)):
            continue
        candidate = _range_get(table, conditions, index)
        if candidate is not None and (best is None or candidate[0] > best[0]):
            best = candidate
    return best[1] if best is not None else Access(table, conditions)


def _range_get(table: Table, conditions: Conditions, index: Index) -> tuple[int, RangeGet] | None:
    equal: list[Getter] = []
    score = 0
    for number in index.columns:
        if number in conditions.equal:
            equal.append(conditions.equal[number])
            score += 10
            continue
        listed, ranges = conditions.lists.get(number), conditions.ranges.get(number, [])
        if listed is not None:
            return score + 8, RangeGet(table, conditions, index, equal, [], listed)
        if ranges:
            return score + 2 + len(ranges), RangeGet(table, conditions, index, equal, ranges, None)
        break
    if not equal:
        return None
    return score, RangeGet(table, conditions, index, equal, [], None)
