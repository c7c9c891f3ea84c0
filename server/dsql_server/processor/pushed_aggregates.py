"""Aggregates that storage computes: which queries they answer, and the query that the engine runs around them.

``SELECT count(*) + 1 FROM orders WHERE total > $1`` becomes ``SELECT $2 + 1 FROM (SELECT count(total) FROM orders WHERE
total > $1)``, with what storage counted as ``$2``. Names, types, formats and what surrounds the aggregates stay the
engine's; so does the check of privileges, for which the original query is kept inside: it always gives one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from struct import Struct, pack
from typing import Any, NamedTuple

from pglast import ast
from pglast.stream import RawStream

from dsql_server.catalog.state import Column, Table
from dsql_server.encoding import numeric
from dsql_server.encoding import type_oids as oids
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import Aggregate, ScanRequest, Steps, StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import NOT_EXACT, Access, Bound, RangeGet
from dsql_server.processor.conditions import count_conjuncts
from dsql_server.processor.parse_tree import Node, is_a, parse_expression, parse_statement, walk
from dsql_server.processor.plan import Scan
from dsql_server.processor.plan_reader import plan_nodes

_INTEGERS = {oids.INT2: 2, oids.INT4: 4, oids.INT8: 8}
#: Types whose extremes are exactly one stored value, whatever the order of the rows.
_EXTREMES = frozenset({*_INTEGERS, oids.DATE, oids.TIME, oids.TIMESTAMP, oids.TIMESTAMPTZ, oids.TEXT, oids.VARCHAR})
_SUMS = frozenset({*_INTEGERS, oids.NUMERIC})
_FUNCTIONS = frozenset({"count", "sum", "avg", "min", "max"})
#: Functions that may stand around the aggregates.
_SCALAR_FUNCTIONS = frozenset({"abs", "ceil", "ceiling", "floor", "round", "trunc"})
_NODES_ABOVE = frozenset({"Limit", "Sort"})
_CONDITIONS = ("Index Cond", "Recheck Cond", "Filter")
_pack_int8 = Struct(">q").pack
INT8_MIN, INT8_MAX = -(2**63), 2**63 - 1


class _Call(NamedTuple):
    """An aggregate as a query says it: ``column`` None for all rows."""

    function: str
    column: str | None


class _Value(NamedTuple):
    """What storage is asked for, and the type as which the engine gets it."""

    aggregate: Aggregate
    type_oid: int


@dataclass(frozen=True)
class PushedAggregates:
    """A query that storage can answer. ``sql`` has the aggregates' values as its last parameters."""

    table: Table
    access: Access
    values: tuple[_Value, ...]
    sql: str
    #: parameters, by number from 1, that count() has as its argument: they must not be NULL
    counted: frozenset[int]

    @property
    def value_oids(self) -> tuple[int, ...]:
        return tuple(value.type_oid for value in self.values)

    def request(self, bound: Bound, t: Timestamp) -> ScanRequest | None:
        """What to ask of storage; None: the query has to run on the engine."""
        if self.table.relation_id in bound.dirty or any(bound.values[n - 1] is None for n in self.counted):
            return None
        try:
            interval, predicate = self.access.interval(bound), self.access.predicate(bound)
        except NOT_EXACT:
            return None
        if interval is None or predicate is None:
            return ScanRequest(self.access.start, self.access.start, t)  # no row at all
        return ScanRequest(*interval, t, predicate)

    def steps(self, storage: StorageReader, request: ScanRequest) -> Steps:
        """Ask storage, a step at a time."""
        return storage.aggregate_steps(request, [value.aggregate for value in self.values])

    def parameters(self, results: Sequence[object]) -> list[bytes | None] | None:
        """Storage's results in binary format; None where the engine has to say that they are out of range."""
        encoded = [_binary(result, value) for result, value in zip(results, self.values, strict=True)]
        return None if any(e is _OUT_OF_RANGE for e in encoded) else encoded


_OUT_OF_RANGE = b"out of range"


def _binary(result: object, value: _Value) -> bytes | None:
    if result is None or isinstance(result, bytes):
        return result
    if isinstance(result, Decimal):
        return numeric.from_decimal(result)
    assert isinstance(result, int), "floats are not pushed down"
    if value.type_oid == oids.NUMERIC:
        return numeric.from_decimal(Decimal(result))
    if value.type_oid == oids.INT8:
        return _pack_int8(result) if INT8_MIN <= result <= INT8_MAX else _OUT_OF_RANGE
    return result.to_bytes(_INTEGERS[value.type_oid], "big", signed=True)


def bind_message(
    pushed: PushedAggregates, name: bytes, portal: bytes, bound: Bound, results: bytes, given: Any
) -> bytes:
    """The Bind message of :attr:`PushedAggregates.sql`, prepared as ``name``.

    ``given``: the values of :meth:`PushedAggregates.parameters`. ``results``: the client's result formats, as its own
    Bind message has them.
    """
    formats = [*bound.formats, *(1 for _ in given)]
    values = [*bound.values, *given]
    body = [portal + b"\x00" + name + b"\x00", pack(f"!h{len(formats)}hh", len(formats), *formats, len(values))]
    body += [b"\xff\xff\xff\xff" if v is None else p.pack_i32(len(v)) + v for v in values]
    return p.message(b"B", b"".join(body) + results)


def find_pushed_aggregates(
    document: dict[str, Any], scan: Scan, sql: str, parameter_oids: Sequence[int], views: frozenset[str]
) -> PushedAggregates | None:
    """The query as one that storage answers, where all of it can be pushed down.

    ``document`` is the engine's plan, ``scan`` its only scan, ``views`` the names of all views.
    """
    table, alias, access = scan.table, scan.alias, scan.access
    nodes = [node for node, _ in plan_nodes(document)]
    if not _is_plain_aggregate(nodes) or not _reads_exactly(access, nodes[-1]):
        return None
    printed = _printed_calls(nodes[-2], alias)
    if printed is None:
        return None
    query = _Query.read(sql, table, alias)
    if query is None or table.name in views or {(c.function, c.column) for c in query.calls} != printed:
        return None
    return query.pushed(table, access, len(parameter_oids))


def _is_plain_aggregate(nodes: list[dict[str, Any]]) -> bool:
    *above, aggregate, scan = nodes if len(nodes) > 1 else [{"Node Type": ""}, {"Node Type": ""}]
    return (
        aggregate["Node Type"] == "Aggregate"
        and aggregate.get("Strategy") == "Plain"
        and "Relation Name" in scan
        and all(node["Node Type"] in _NODES_ABOVE for node in above)
    )


def _reads_exactly(access: Access, scan: dict[str, Any]) -> bool:
    """Whether storage applies all conditions itself, and reads the rows from one interval of the table's own keys."""
    if type(access) is not Access and not (
        isinstance(access, RangeGet) and access.index.primary and access.is_interval
    ):
        return False
    counts = [count_conjuncts(scan[name]) for name in _CONDITIONS if name in scan]
    return None not in counts and sum(c for c in counts if c is not None) == access.pushed_count


def _printed_calls(aggregate: dict[str, Any], alias: str) -> set[tuple[str, str | None]] | None:
    """The aggregates of the engine's plan: none of a user's functions may have their names."""
    found: set[tuple[str, str | None]] = set()
    for text in (*aggregate.get("Output", ()), *((aggregate["Filter"],) if "Filter" in aggregate else ())):
        expression = parse_expression(text)
        if expression is None:
            return None
        for node in walk(expression):
            if is_a(node, ast.FuncCall):
                call = _call(node, alias)
                if call is not None:
                    found.add((call.function, call.column))
                elif len(node.funcname) > 1 or node.funcname[0].sval not in _SCALAR_FUNCTIONS:
                    return None
            elif is_a(node, ast.SubLink) or is_a(node, ast.GroupingFunc):
                return None
    return found


def _call(node: Node, alias: str) -> _Call | None:
    """The node as an aggregate that storage may know."""
    names = [name.sval for name in node.funcname]
    if names[0] == "pg_catalog":
        names = names[1:]
    if len(names) != 1 or names[0] not in _FUNCTIONS:
        return None
    if node.agg_distinct or node.agg_filter or node.agg_order or node.over or node.func_variadic:
        return None
    if node.agg_within_group or (node.args and len(node.args) != 1):
        return None
    if node.agg_star:
        return _Call(names[0], None)
    argument: Node = node.args[0] if node.args else None
    if names[0] == "count" and (is_a(argument, ast.ParamRef) or (is_a(argument, ast.A_Const) and not argument.isnull)):
        return _Call("count", None)
    if is_a(argument, ast.TypeCast) and argument.typeName.names[-1].sval == "text":
        argument = argument.arg  # min and max of varchar are those of text
    if not is_a(argument, ast.ColumnRef) or not all(is_a(f, ast.String) for f in argument.fields):
        return None
    fields = [f.sval for f in argument.fields]
    if len(fields) > 2 or (len(fields) == 2 and fields[0] != alias):
        return None
    return _Call(names[0], fields[-1])


class _Query:
    """The client's query, taken apart."""

    def __init__(self, select: Node, table: Table) -> None:
        self.select = select
        self.table = table
        self.calls: list[_Call] = []
        self.counted: set[int] = set()
        self._values: dict[_Value, int] = {}

    @staticmethod
    def read(sql: str, table: Table, alias: str) -> _Query | None:
        """None where it is more than aggregates of one table's columns."""
        select = parse_statement(sql)
        if not is_a(select, ast.SelectStmt) or select.op or select.withClause or select.distinctClause:
            return None
        if select.groupClause or select.windowClause or select.lockingClause or select.valuesLists:
            return None
        source = select.fromClause
        if source is None or len(source) != 1 or not is_a(source[0], ast.RangeVar):
            return None
        if source[0].relname != table.name or (source[0].alias is not None and source[0].alias.colnames):
            return None
        query = _Query(select, table)
        return query if query._understands(alias) else None

    def _understands(self, alias: str) -> bool:
        places = (self.select.targetList, self.select.havingClause)
        calls = [(node, _call(node, alias)) for node in walk(places) if is_a(node, ast.FuncCall)]
        inside: set[int] = set()
        for node, call in calls:
            if call is None:
                if len(node.funcname) > 1 or node.funcname[0].sval not in _SCALAR_FUNCTIONS:
                    return False
                continue
            if not self._is_supported(call):
                return False
            self.calls.append(call)
            for below in walk(node.args or ()):
                inside.add(id(below))
                if is_a(below, ast.ParamRef):
                    self.counted.add(below.number)
        outside = [node for node in walk(places) if id(node) not in inside]
        return bool(self.calls) and not any(is_a(n, ast.ColumnRef) or is_a(n, ast.SubLink) for n in outside)

    def _is_supported(self, call: _Call) -> bool:
        if call.column is None:
            return call.function == "count"
        column = self.table.by_name.get(call.column)
        if column is None:
            return False
        if call.function in ("sum", "avg"):
            return column.type_oid in _SUMS
        return call.function == "count" or column.type_oid in _EXTREMES

    def pushed(self, table: Table, access: Access, parameters: int) -> PushedAggregates | None:
        """The query around the aggregates' values, the parameters behind the ``parameters`` of the client's own."""
        names = [_output_name(target) for target in self.select.targetList]
        if None in names:
            return None
        alias = self.select.fromClause[0].alias
        shown = alias.aliasname if alias is not None else self.select.fromClause[0].relname

        def replace(node: Node) -> Node | None:
            call = _call(node, shown) if is_a(node, ast.FuncCall) else None
            return None if call is None else self._expression(call, parameters)

        columns = sorted({c.column for c in self.calls if c.column is not None})
        counts = ", ".join(f'count("{name.replace(chr(34), chr(34) * 2)}")' for name in columns) or "count(*)"
        inner = parse_statement(f"SELECT {counts}")
        inner.fromClause, inner.whereClause = self.select.fromClause, self.select.whereClause
        outer = parse_statement("SELECT 1 FROM (SELECT 1) AS stored")
        outer.fromClause[0].subquery = inner
        targets = _replaced(self.select.targetList, replace)
        for target, name in zip(targets, names, strict=True):
            target.name = name
        outer.targetList, outer.whereClause = targets, _replaced(self.select.havingClause, replace)
        outer.limitCount, outer.limitOffset = self.select.limitCount, self.select.limitOffset
        outer.limitOption = self.select.limitOption
        sql = RawStream()(outer)
        return PushedAggregates(table, access, tuple(self._values), sql, frozenset(self.counted))

    def _expression(self, call: _Call, parameters: int) -> Node:
        if call.column is None:
            return self._parameter(Aggregate("count", None, 0), oids.INT8, parameters)
        column: Column = self.table.by_name[call.column]
        number, oid = column.number - 1, column.type_oid
        if call.function == "count":
            return self._parameter(Aggregate("count", number, oid), oids.INT8, parameters)
        if call.function in ("min", "max"):
            shown = oids.TEXT if oid == oids.VARCHAR else oid
            return self._parameter(Aggregate(call.function, number, oid), shown, parameters)
        total = Aggregate("sum", number, oid)
        if call.function == "sum":
            return self._parameter(total, oids.INT8 if oid in (oids.INT2, oids.INT4) else oids.NUMERIC, parameters)
        # PostgreSQL's own average is this quotient.
        quotient: Any = parse_expression("a / nullif(b, 0)::pg_catalog.numeric")
        quotient.lexpr = self._parameter(total, oids.NUMERIC, parameters)
        quotient.rexpr.arg.lexpr = self._parameter(Aggregate("count", number, oid), oids.INT8, parameters)
        return parse_expression(f"({RawStream()(quotient)})")

    def _parameter(self, aggregate: Aggregate, oid: int, parameters: int) -> Node:
        value = _Value(aggregate, oid)
        place = self._values.setdefault(value, len(self._values) + 1)
        return ast.ParamRef(number=parameters + place)


def _replaced(node: Node, replace: Callable[[Node], Node | None]) -> Node:
    """A tree with other nodes where ``replace`` gives some; changed in place."""
    if isinstance(node, tuple):
        return tuple(_replaced(item, replace) for item in node)
    if not isinstance(node, ast.Node):
        return node
    other = replace(node)
    if other is not None:
        return other
    for name in node:
        below = getattr(node, name)
        if isinstance(below, ast.Node | tuple):
            setattr(node, name, _replaced(below, replace))
    return node


def _output_name(target: Node) -> str | None:
    """The output column's name as PostgreSQL gives it, where it is known here."""
    if target.name is not None:
        return str(target.name)
    value = target.val
    while is_a(value, ast.TypeCast):
        value = value.arg
    if is_a(value, ast.FuncCall):
        return str(value.funcname[-1].sval)
    if is_a(value, ast.CoalesceExpr):
        return "coalesce"
    return "?column?" if is_a(target.val, ast.A_Expr) else None
