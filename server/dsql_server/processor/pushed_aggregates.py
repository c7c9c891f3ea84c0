"""Aggregates that storage computes: which queries they answer, and the query that the engine runs around them.

``SELECT count(*) + 1 FROM orders WHERE total > $1`` becomes ``SELECT $2 + 1 FROM (SELECT count(total) FROM orders WHERE
total > $1)``, with what storage counted as ``$2``. Names, types, formats and what surrounds the aggregates stay the
engine's; so does the check of privileges, for which the original query is kept inside: it always gives one row.

With GROUP BY, SELECT DISTINCT or DISTINCT inside of the aggregates, storage's answer is one row for each group; the
engine gets it as arrays. ``SELECT kind, count(*) FROM orders GROUP BY kind`` becomes ``SELECT stored.g1, stored.a1 FROM
(SELECT count(kind) FROM orders) AS permitted, ROWS FROM (unnest($1), unnest($2)) AS stored (g1, a1)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from struct import Struct, pack
from typing import Any, ClassVar

from pglast import ast

from dsql_server.catalog.state import Table
from dsql_server.encoding import numeric
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.arrays import ARRAY_OIDS, array_of
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import (
    Aggregate,
    Comparison,
    GroupColumn,
    ScanRequest,
    StorageReader,
    TooManyGroups,
)
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import NOT_EXACT, Access, Bound, Conditions, RangeGet
from dsql_server.processor.aggregate_query import (
    GROUPED,
    INTEGERS,
    AggregateQuery,
    StoredValues,
    Value,
    call_of,
    printed_calls,
)
from dsql_server.processor.conditions import MODIFIER_OFFSET, conjuncts, count_conjuncts
from dsql_server.processor.parse_tree import Node, is_a, parse_expression
from dsql_server.processor.plan import Scan
from dsql_server.processor.plan_reader import plan_nodes

#: Fewer rows than this are grouped by the engine, and so are rows of more groups than that.
GROUPED_ROWS_MIN = 1000
GROUPS_MAX = 20_000
_NODES_ABOVE = frozenset({"Limit", "Sort", "Incremental Sort"})
_GROUPING_NODES = frozenset({"Aggregate", "Group", "Unique"})
_CONDITIONS = ("Index Cond", "Recheck Cond", "Filter")
#: No row meets both.
_NEVER = (Comparison(0, oids.INT8, "isnull"), Comparison(0, oids.INT8, "notnull"))
_pack_int8 = Struct(">q").pack
INT8_MIN, INT8_MAX = -(2**63), 2**63 - 1


#: Asks storage, a step at a time; the generator returns its answer in binary format. None where the engine has to
#: answer: the values are out of range, or too many, or hardly worth it.
Asking = Generator[None, None, "list[bytes | None] | None"]


@dataclass(frozen=True)
class Pushed(ABC):
    """A query that storage can answer. ``sql`` has what storage says as its last parameters."""

    table: Table
    access: Access
    values: tuple[Value, ...]
    sql: str
    #: parameters, by number from 1, that count() has as its argument: they must not be NULL
    counted: frozenset[int]
    #: the conditions of FILTER, by their text
    filters: tuple[tuple[str, Access], ...]
    #: whether the engine describes the answer as it does the client's query, origins of columns included
    same_origins: ClassVar[bool] = True

    @property
    @abstractmethod
    def value_oids(self) -> tuple[int, ...]:
        """The types of these parameters."""

    def request(self, bound: Bound, t: Timestamp) -> ScanRequest | None:
        """What to ask of storage; None: the query has to run on the engine."""
        if self.table.relation_id in bound.dirty or any(bound.values[n - 1] is None for n in self.counted):
            return None
        try:
            interval, predicate = self.access.interval(bound), self.access.predicate(bound)
            self.aggregates(bound)
        except NOT_EXACT:
            return None
        if interval is None or predicate is None:
            return ScanRequest(self.access.start, self.access.start, t)  # no row at all
        return ScanRequest(*interval, t, predicate)

    def aggregates(self, bound: Bound) -> list[Aggregate]:
        """What to ask for. Raises what NOT_EXACT has."""
        predicates: dict[str | None, tuple[Comparison, ...]] = {None: ()}
        for condition, access in self.filters:
            predicate = access.predicate(bound)
            predicates[condition] = _NEVER if predicate is None else predicate
        return [value.aggregate._replace(predicate=predicates[value.condition]) for value in self.values]

    @abstractmethod
    def steps(self, storage: StorageReader, request: ScanRequest, bound: Bound) -> Asking:
        """Ask storage what :meth:`request` gave."""


class PushedAggregates(Pushed):
    """Aggregates of all rows that meet the conditions."""

    @property
    def value_oids(self) -> tuple[int, ...]:
        return tuple(value.type_oid for value in self.values)

    def steps(self, storage: StorageReader, request: ScanRequest, bound: Bound) -> Asking:
        results = yield from storage.aggregate_steps(request, self.aggregates(bound))
        encoded = [_binary(result, value) for result, value in zip(results, self.values, strict=True)]
        return None if _OUT_OF_RANGE in encoded else encoded


@dataclass(frozen=True)
class PushedGroups(Pushed):
    """Aggregates of each group of rows: an array for each column that groups them, and for each aggregate."""

    columns: tuple[GroupColumn, ...]
    #: The columns that group the rows come out of arrays, and are not described as those of the table.
    same_origins: ClassVar[bool] = False

    @property
    def value_oids(self) -> tuple[int, ...]:
        return tuple(ARRAY_OIDS[type_oid] for type_oid in self._type_oids)

    @property
    def _type_oids(self) -> list[int]:
        return [column.type_oid for column in self.columns] + [value.type_oid for value in self.values]

    def steps(self, storage: StorageReader, request: ScanRequest, bound: Bound) -> Asking:
        if storage.estimate_rows(request.start, request.end, request.t) < GROUPED_ROWS_MIN:
            return None
        try:
            groups = yield from storage.group_steps(request, self.columns, self.aggregates(bound), GROUPS_MAX)
        except TooManyGroups:
            return None
        keys = [[key[at] for key in groups] for at in range(len(self.columns))]
        results = [[_binary(found[at], value) for found in groups.values()] for at, value in enumerate(self.values)]
        if any(_OUT_OF_RANGE in column for column in results):
            return None
        return [array_of(oid, column) for oid, column in zip(self._type_oids, (*keys, *results), strict=True)]


_OUT_OF_RANGE = b"out of range"


def _binary(result: object, value: Value) -> bytes | None:
    if result is None or isinstance(result, bytes):
        return result
    if isinstance(result, Decimal):
        return numeric.from_decimal(result)
    assert isinstance(result, int), "floats are not pushed down"
    if value.type_oid == oids.NUMERIC:
        return numeric.from_decimal(Decimal(result))
    if value.type_oid == oids.INT8:
        return _pack_int8(result) if INT8_MIN <= result <= INT8_MAX else _OUT_OF_RANGE
    return result.to_bytes(INTEGERS[value.type_oid], "big", signed=True)


def bind_message(pushed: Pushed, name: bytes, portal: bytes, bound: Bound, results: bytes, given: Any) -> bytes:
    """The Bind message of :attr:`Pushed.sql`, prepared as ``name``.

    ``given``: what :meth:`Pushed.steps` returned. ``results``: the client's result formats, as its own
    Bind message has them.
    """
    formats = [*bound.formats, *(1 for _ in given)]
    values = [*bound.values, *given]
    body = [portal + b"\x00" + name + b"\x00", pack(f"!h{len(formats)}hh", len(formats), *formats, len(values))]
    body += [b"\xff\xff\xff\xff" if v is None else p.pack_i32(len(v)) + v for v in values]
    return p.message(b"B", b"".join(body) + results)


def find_pushed_aggregates(
    document: dict[str, Any], scan: Scan, sql: str, parameter_oids: Sequence[int], views: frozenset[str]
) -> Pushed | None:
    """The query as one that storage answers, where all of it can be pushed down.

    ``document`` is the engine's plan, ``scan`` its only scan, ``views`` the names of all views.
    """
    nodes = [node for node, _ in plan_nodes(document)]
    above = _above_the_scan(nodes)
    if above is None or not _reads_exactly(scan.access, nodes[-1]):
        return None
    printed = printed_calls(above, scan.alias) if above["Node Type"] == "Aggregate" else set()
    query = AggregateQuery.read(sql, scan.table, scan.alias) if printed is not None else None
    if query is None or scan.table.name in views or not query.take_conditions(above) or set(query.calls) != printed:
        return None
    is_plain = above.get("Strategy") == "Plain"
    if is_plain == bool(query.groups):
        return None
    filters = _filters(query, parameter_oids)
    if filters is None:
        return None
    if query.groups:
        return _grouped(query, scan.access, filters, len(parameter_oids))
    if any(call.distinct for call in query.calls):
        return None if filters else _of_distinct_values(query, scan.access, len(parameter_oids))
    return _of_all_rows(query, scan.access, filters, len(parameter_oids))


def _filters(query: AggregateQuery, parameter_oids: Sequence[int]) -> tuple[tuple[str, Access], ...] | None:
    """The conditions of FILTER; None where storage wouldn't apply one of them exactly."""
    found: dict[str, Access] = {}
    for call in query.calls:
        condition = call.condition
        if condition is None or condition in found:
            continue
        conditions = Conditions(query.table, conjuncts(condition, query.alias, frozenset()), parameter_oids, {})
        if len(conditions.pushed) != count_conjuncts(condition):
            return None
        found[condition] = Access(query.table, conditions)
    return tuple(found.items())


def _above_the_scan(nodes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The node that aggregates or groups the rows of the only scan, where nothing but sorting is done to them else."""
    working = [node for node in nodes[:-1] if node["Node Type"] not in _NODES_ABOVE]
    if len(working) != 1 or working[0]["Node Type"] not in _GROUPING_NODES or "Relation Name" not in nodes[-1]:
        return None
    below = nodes[nodes.index(working[0]) + 1 : -1]
    return working[0] if all(node["Node Type"] != "Limit" for node in below) else None


def _reads_exactly(access: Access, scan: dict[str, Any]) -> bool:
    """Whether storage applies all conditions itself, and reads the rows from one interval of the table's own keys."""
    if type(access) is not Access and not (
        isinstance(access, RangeGet) and access.index.primary and access.is_interval
    ):
        return False
    counts = [count_conjuncts(scan[name]) for name in _CONDITIONS if name in scan]
    return None not in counts and sum(c for c in counts if c is not None) == access.pushed_count


def _of_all_rows(
    query: AggregateQuery, access: Access, filters: tuple[tuple[str, Access], ...], parameters: int
) -> PushedAggregates | None:
    stored = StoredValues(query.table, lambda number: ast.ParamRef(number=parameters + number))

    def replace(node: Node) -> Node | None:
        call = call_of(node, query.alias) if is_a(node, ast.FuncCall) else None
        return None if call is None else stored.expression(call)

    sql = query.rewritten("", replace)
    if sql is None:
        return None
    return PushedAggregates(query.table, access, stored.values, sql, frozenset(query.counted), filters)


def _grouped(
    query: AggregateQuery, access: Access, filters: tuple[tuple[str, Access], ...], parameters: int
) -> PushedGroups | None:
    if any(call.distinct for call in query.calls):
        return None
    stored = StoredValues(query.table, lambda number: parse_expression(f"stored.a{number}"))
    for call in query.calls:
        stored.expression(call)

    def replace(node: Node) -> Node | None:
        if is_a(node, ast.FuncCall):
            call = call_of(node, query.alias)
            return None if call is None else stored.expression(call)
        column = query.column(node)
        if column is None:
            return None
        name = f"stored.g{query.groups.index(column) + 1}"
        if column.modifier == -1:
            return parse_expression(name)
        return parse_expression(f"{name}::pg_catalog.varchar({column.modifier - MODIFIER_OFFSET})")

    columns = tuple(GroupColumn(column.number - 1, column.type_oid) for column in query.groups)
    sql = query.rewritten(_arrays(parameters, len(columns), len(stored.values)), replace)
    if sql is None:
        return None
    return PushedGroups(query.table, access, stored.values, sql, frozenset(query.counted), filters, columns)


def _of_distinct_values(query: AggregateQuery, access: Access, parameters: int) -> PushedGroups | None:
    """Aggregates of one column's distinct values: those are the groups."""
    name = query.calls[0].column
    if name is None or not all(call.distinct and call.column == name for call in query.calls):
        return None
    column = query.table.by_name[name]
    if column.type_oid not in GROUPED:
        return None

    def replace(node: Node) -> Node | None:
        if not is_a(node, ast.FuncCall) or call_of(node, query.alias) is None:
            return None
        node.args, node.agg_distinct = (parse_expression("stored.g1"),), False
        return node

    sql = query.rewritten(_arrays(parameters, 1, 0), replace, keeps_aggregates=True)
    if sql is None:
        return None
    columns = (GroupColumn(column.number - 1, column.type_oid),)
    return PushedGroups(query.table, access, (), sql, frozenset(), (), columns)


def _arrays(parameters: int, groups: int, values: int) -> str:
    """The groups as a source of the query: columns g1 …, then a1 …"""
    arrays = ", ".join(f"pg_catalog.unnest(${parameters + number + 1})" for number in range(groups + values))
    names = [f"g{number + 1}" for number in range(groups)] + [f"a{number + 1}" for number in range(values)]
    return f", ROWS FROM ({arrays}) AS stored ({', '.join(names)})"
