"""How a scan's stored rows are found: compiled once a plan, run at each execution.

Every path returns a superset of the rows that the scan needs. An operand that can't be turned into an exact key
raises NotUnderstood at run time, and the path widens to the whole table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dsql_server.catalog.state import Index, Table
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.arrays import array_elements, array_elements_from_text
from dsql_server.encoding.keys import KEY_TYPE_OIDS, NOT_NULL, encode_value, prefix, prefix_end, value_encoder
from dsql_server.encoding.parameters import NotUnderstood, binary_from_text, convert
from dsql_server.encoding.rows import field_count, field_reader
from dsql_server.interfaces.commit_path import Comparison, ScanRequest, StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.conditions import (
    INTEGERS,
    MODIFIER_OFFSET,
    TEXTS,
    Conjunct,
    Constant,
    OtherColumn,
    Parameter,
)

Row = tuple[bytes, bytes]  #: key, stored value

#: More distinct values than this in an IN list or a join: one scan is cheaper than many look-ups.
POINTS_MAX = 2000
NO_MODIFIER = -1
_SCALE_BITS, _SCALE_NEGATIVE = 0x7FF, 0x400
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


#: Raised where a bound value has no certain meaning: not understood, out of range, or no value of its type at all.
NOT_EXACT = (ValueError, IndexError, struct.error)

#: Encoded operand (None: SQL NULL), or a list of them for ``in``.
Getter = Callable[[Bound], "bytes | None"]
ListGetter = Callable[[Bound], list[bytes]]


def comparable(column_oid: int, operand_oid: int) -> bool:
    """Whether equal values of the two types have equal encodings and the operator compares them as these do."""
    return (
        column_oid == operand_oid
        or (column_oid in INTEGERS and operand_oid in INTEGERS)
        or (column_oid in TEXTS and operand_oid in TEXTS)
    )


def scalar_getter(operand: Constant | Parameter, parameter_oids: Sequence[int]) -> tuple[int, Getter] | None:
    """The operand's type and its reader, or None where its value can't be known exactly."""
    if isinstance(operand, Constant):
        try:
            encoded = encode_value(operand.type_oid, binary_from_text(operand.type_oid, operand.text))
        except ValueError:
            return None
        return operand.type_oid, lambda bound: encoded
    if operand.number > len(parameter_oids):
        return None
    at, oid = operand.number - 1, parameter_oids[operand.number - 1]
    target = oid if operand.cast_oid is None else operand.cast_oid
    if target not in KEY_TYPE_OIDS:
        return None
    encode = value_encoder(target)
    is_cast, modifier = oid != target, operand.modifier

    def read(bound: Bound) -> bytes | None:
        value = bound.values[at]
        if value is None:
            return None
        if bound.formats[at] == 0:
            value = binary_from_text(oid, value, bound.zone_is_utc)
        if is_cast:
            value = convert(oid, target, value, bound.zone_is_utc)
        if modifier != NO_MODIFIER:
            check_unchanged(target, modifier, value)
        return encode(value)

    return target, read


def check_unchanged(type_oid: int, modifier: int, value: bytes) -> None:
    """Raises NotUnderstood unless a cast to the type with this modifier leaves the value as it is, or refuses it."""
    if type_oid == oids.NUMERIC:
        scale = (modifier - MODIFIER_OFFSET) & _SCALE_BITS
        is_same = int.from_bytes(value[6:8], "big") <= scale < _SCALE_NEGATIVE
    elif type_oid == oids.VARCHAR:
        is_same = len(value.decode()) <= modifier - MODIFIER_OFFSET and not value.endswith(b" ")
    elif type_oid == oids.BPCHAR:
        is_same = len(value.decode().rstrip(" ")) <= modifier - MODIFIER_OFFSET
    else:
        is_same = False
    if not is_same:
        raise NotUnderstood("the value may be cut or rounded")


_ARRAY_ELEMENTS = {
    1000: oids.BOOL, 1001: oids.BYTEA, 1005: oids.INT2, 1007: oids.INT4, 1009: oids.TEXT, 1014: oids.BPCHAR,
    1015: oids.VARCHAR, 1016: oids.INT8, 1021: oids.FLOAT4, 1022: oids.FLOAT8, 1115: oids.TIMESTAMP,
    1182: oids.DATE, 1185: oids.TIMESTAMPTZ, 1231: oids.NUMERIC, 2951: oids.UUID,
}  # fmt: skip


def _list_getter(operand: Constant | Parameter, parameter_oids: Sequence[int]) -> tuple[int, ListGetter] | None:
    if isinstance(operand, Constant):
        oid = operand.type_oid
        try:
            encoded = [encode_value(oid, v) for v in array_elements_from_text(oid, operand.text) if v is not None]
        except ValueError:
            return None
        return oid, lambda bound: encoded
    if operand.number > len(parameter_oids) or operand.cast_oid is not None:
        return None
    at = operand.number - 1
    element = _ARRAY_ELEMENTS.get(parameter_oids[at])
    if element is None:
        return None

    def read(bound: Bound) -> list[bytes]:
        value = bound.values[at]
        if value is None:
            return []
        if bound.formats[at] == 0:
            elements = array_elements_from_text(element, value, bound.zone_is_utc)
        else:
            actual, elements = array_elements(value)
            if actual != element and elements:
                raise NotUnderstood("the array's elements are of another type")
        return [encode_value(element, e) for e in elements if e is not None]

    return element, read


def _join_getter(source: Table, alias: str, column: str) -> tuple[int, ListGetter] | None:
    other = source.by_name.get(column)
    if other is None or other.type_oid not in KEY_TYPE_OIDS:
        return None
    position, oid = other.number - 1, other.type_oid
    read_field = field_reader(position)

    def read(bound: Bound) -> list[bytes]:
        if source.relation_id in bound.dirty or alias not in bound.found:
            raise NotUnderstood("the joined rows aren't all known to storage")
        values = set()
        for _, row in bound.found[alias]:
            if field_count(row) > position:
                value = read_field(row)
                if value is not None:
                    values.add(encode_value(oid, value))
        return list(values)

    return oid, read


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
            joined = _join_getter(source, operand.alias, operand.column) if source is not None else None
            if joined is not None and comparable(oid, joined[0]):
                self.lists.setdefault(number, joined[1])
                self.pushed.append((number - 1, oid, "in", joined[1]))
        elif conjunct.operator == "in":
            listed = _list_getter(operand, parameter_oids)
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


class Access:
    """A way to the rows of one scan. ``describe`` names it for EXPLAIN and tests."""

    describe = "full scan"

    def __init__(self, table: Table, conditions: Conditions) -> None:
        self.table = table
        self._pushed = conditions.pushed
        self.start = prefix(table.relation_id)
        self.end = prefix_end(self.start)

    @property
    def restricted(self) -> bool:
        """Whether any condition narrows it."""
        return bool(self._pushed)

    def rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        """Rows as of ``t``; a superset of what the scan needs."""
        try:
            return self._rows(bound, storage, t)
        except NOT_EXACT:
            return storage.scan(ScanRequest(self.start, self.end, t)).rows

    def _rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        predicate = self._predicate(bound)
        if predicate is None:
            return []
        return storage.scan(ScanRequest(self.start, self.end, t, predicate)).rows

    def _predicate(self, bound: Bound) -> tuple[Comparison, ...] | None:
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

    def _rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        start = self._key_start
        for getter in self._equal:
            value = getter(bound)
            if value is None:
                return []
            start += NOT_NULL + value
        if self._listed is not None:
            values = sorted(set(self._listed(bound)))
            if len(values) > POINTS_MAX:
                return super()._rows(bound, storage, t)
            return self._rows_in_list(start, values, storage, t)
        if not self._ranges:
            return self._between(start, prefix_end(start), storage, t)
        low, high = start + NOT_NULL, prefix_end(start + NOT_NULL)
        for operator, getter in self._ranges:
            value = getter(bound)
            if value is None:
                return []
            point = start + NOT_NULL + value
            if operator == ">=":
                low = max(low, point)
            elif operator == ">":
                low = max(low, prefix_end(point))
            elif operator == "<":
                high = min(high, point)
            else:
                high = min(high, prefix_end(point))
        return self._between(low, high, storage, t) if low < high else []

    def _rows_in_list(self, start: bytes, values: list[bytes], storage: StorageReader, t: Timestamp) -> list[Row]:
        points = [start + NOT_NULL + v for v in values]
        if self._complete:
            found = storage.get_many(points, t)
            return [(k, v) for k, v in zip(points, found, strict=True) if v is not None]
        rows: list[Row] = []
        for point in points:
            rows += self._between(point, prefix_end(point), storage, t)
        return rows

    def _between(self, low: bytes, high: bytes, storage: StorageReader, t: Timestamp) -> list[Row]:
        entries = storage.scan(ScanRequest(low, high, t)).rows
        if self.index.primary or not entries:
            return entries
        return fetch_entries(entries, storage, t)


def fetch_entries(entries: list[Row], storage: StorageReader, t: Timestamp) -> list[Row]:
    """The rows that index entries point to. An entry's value is its row's key."""
    if len(entries) <= FEW_KEYS:
        get = storage.get
        return [(key, row) for _, key in entries if (row := get(key, t)) is not None]
    keys = [key for _, key in entries]
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
