"""Queries of one table's aggregates, taken apart, to be written anew around values that storage has computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pglast import ast
from pglast.stream import RawStream

from dsql_server.catalog.state import Column, Table, quote_identifier
from dsql_server.encoding import type_oids as oids
from dsql_server.interfaces.commit_path import Aggregate
from dsql_server.processor.parse_tree import Node, is_a, parse_expression, parse_statement, walk

INTEGERS = {oids.INT2: 2, oids.INT4: 4, oids.INT8: 8}
#: Types whose extremes are exactly one stored value, whatever the order of the rows.
_EXTREMES = frozenset({*INTEGERS, oids.DATE, oids.TIME, oids.TIMESTAMP, oids.TIMESTAMPTZ, oids.TEXT, oids.VARCHAR})
_SUMS = frozenset({*INTEGERS, oids.NUMERIC})
#: Types whose equal values have equal bytes.
GROUPED = _EXTREMES | {oids.BOOL, oids.UUID}
_FUNCTIONS = frozenset({"count", "sum", "avg", "min", "max"})
#: Functions that may stand around the aggregates.
_SCALAR_FUNCTIONS = frozenset({"abs", "ceil", "ceiling", "floor", "round", "trunc"})


class Call(NamedTuple):
    """An aggregate as a query says it: ``column`` None for all rows, ``condition`` what FILTER says."""

    function: str
    column: str | None
    distinct: bool = False
    condition: str | None = None


class Value(NamedTuple):
    """What storage is asked for, of the rows that meet a condition, and the type as which the engine gets it."""

    aggregate: Aggregate
    type_oid: int
    condition: str | None = None


def printed_calls(aggregate: dict[str, Any], alias: str) -> set[Call] | None:
    """The aggregates of the engine's plan: none of a user's functions may have their names."""
    found: set[Call] = set()
    for text in (*aggregate.get("Output", ()), *((aggregate["Filter"],) if "Filter" in aggregate else ())):
        expression = _printed(text, alias)
        if expression is None:
            return None
        for node in walk(expression):
            if is_a(node, ast.FuncCall):
                call = call_of(node, alias)
                if call is not None:
                    found.add(call)
                elif len(node.funcname) > 1 or node.funcname[0].sval not in _SCALAR_FUNCTIONS:
                    return None
            elif is_a(node, ast.SubLink) or is_a(node, ast.GroupingFunc):
                return None
    return found


def _printed(text: str, alias: str) -> Node | None:
    """An expression of the engine's plan, with the table's name in front of the columns in FILTER."""
    expression = parse_expression(text)
    for node in walk(expression):
        if is_a(node, ast.FuncCall) and node.agg_filter:
            for column in walk(node.agg_filter):
                if is_a(column, ast.ColumnRef) and len(column.fields) == 1:
                    column.fields = (ast.String(sval=alias), *column.fields)
    return expression


def call_of(node: Node, alias: str) -> Call | None:
    """The node as an aggregate that storage may know."""
    names = [name.sval for name in node.funcname]
    if names[0] == "pg_catalog":
        names = names[1:]
    if len(names) != 1 or names[0] not in _FUNCTIONS:
        return None
    if node.agg_order or node.over or node.func_variadic:
        return None
    condition = RawStream()(node.agg_filter) if node.agg_filter else None
    if node.agg_within_group or (node.args and len(node.args) != 1):
        return None
    if node.agg_star:
        return Call(names[0], None, condition=condition)
    argument: Node = node.args[0] if node.args else None
    if names[0] == "count" and (is_a(argument, ast.ParamRef) or (is_a(argument, ast.A_Const) and not argument.isnull)):
        return None if node.agg_distinct else Call("count", None, condition=condition)
    if is_a(argument, ast.TypeCast) and argument.typeName.names[-1].sval == "text":
        argument = argument.arg  # min and max of varchar are those of text
    column = _column_name(argument, alias)
    return None if column is None else Call(names[0], column, bool(node.agg_distinct), condition)


def _column_name(node: Node, alias: str) -> str | None:
    """The name of a column of the table that the query calls so, or of an output column."""
    if not is_a(node, ast.ColumnRef) or not all(is_a(f, ast.String) for f in node.fields):
        return None
    fields = [f.sval for f in node.fields]
    if len(fields) > 2 or (len(fields) == 2 and fields[0] != alias):
        return None
    return str(fields[-1])


class AggregateQuery:
    """A query of one table's aggregates, of the table as a whole or of groups of its rows."""

    def __init__(self, select: Node, table: Table, alias: str) -> None:
        self.select = select
        self.table = table
        self.alias = alias
        self.calls: list[Call] = []
        #: parameters, by number from 1, that count() has as its argument: they must not be NULL
        self.counted: set[int] = set()
        #: by which columns the rows are grouped; SELECT DISTINCT groups them by all that it shows
        self.groups: list[Column] = []

    @staticmethod
    def read(sql: str, table: Table, alias: str) -> AggregateQuery | None:
        """None where it is more than aggregates and grouping columns of one table."""
        select = parse_statement(sql)
        if not is_a(select, ast.SelectStmt) or select.op or select.withClause or select.intoClause:
            return None
        if select.windowClause or select.lockingClause or select.valuesLists or select.groupDistinct:
            return None
        source = select.fromClause
        if source is None or len(source) != 1 or not is_a(source[0], ast.RangeVar):
            return None
        if source[0].relname != table.name or (source[0].alias is not None and source[0].alias.colnames):
            return None
        query = AggregateQuery(select, table, alias)
        return query if query._reads_groups() and query._understands() else None

    def _reads_groups(self) -> bool:
        select = self.select
        if select.distinctClause:
            if select.groupClause or select.distinctClause != (None,):
                return False
            named = [target.val for target in select.targetList]
        else:
            named = [self._named(node) for node in select.groupClause or ()]
        for node in named:
            column = self.column(node)
            if column is None or column.type_oid not in GROUPED:
                return False
            if column.modifier != -1 and column.type_oid != oids.VARCHAR:
                return False
            if column not in self.groups:
                self.groups.append(column)
        return True

    def _named(self, node: Node) -> Node | None:
        """What an item of GROUP BY stands for: it may be the number or the name of an output column."""
        targets = self.select.targetList
        if is_a(node, ast.A_Const) and is_a(node.val, ast.Integer):
            number = node.val.ival
            return targets[number - 1].val if 1 <= number <= len(targets) else None
        if is_a(node, ast.ColumnRef) and self.column(node) is None and len(node.fields) == 1:
            found = [target.val for target in targets if target.name == getattr(node.fields[0], "sval", None)]
            return found[0] if len(found) == 1 else None
        return node

    def column(self, node: Node) -> Column | None:
        """The table's column that a node is."""
        name = _column_name(node, self.alias)
        return None if name is None else self.table.by_name.get(name)

    def _understands(self) -> bool:
        places = (self.select.targetList, self.select.havingClause, self.select.sortClause if self.groups else None)
        calls = [(node, call_of(node, self.alias)) for node in walk(places) if is_a(node, ast.FuncCall)]
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
            inside.update(id(below) for below in walk(node.agg_filter) if is_a(below, ast.ColumnRef))
        if not self.calls and not self.groups:
            return False
        for sort in self.select.sortClause or () if self.groups else ():
            inside.update(id(node) for node in walk(sort.node) if self._is_output_name(sort.node))
        outside = [node for node in walk(places) if id(node) not in inside]
        if any(is_a(n, ast.SubLink) or is_a(n, ast.A_Star) for n in outside):
            return False
        return all(self.column(n) in self.groups for n in outside if is_a(n, ast.ColumnRef))

    def take_conditions(self, aggregate: dict[str, Any]) -> bool:
        """Have the conditions of FILTER as the engine's plan prints them, with all types; False: it isn't clear which.

        ``aggregate`` is the plan's node that computes the aggregates.
        """
        if all(call.condition is None for call in self.calls):
            return True
        targets, output = self.select.targetList, aggregate.get("Output", [])
        places = list(zip(targets, output, strict=False))
        if self.select.havingClause is not None:
            places.append((self.select.havingClause, aggregate.get("Filter", "NULL")))
        calls: list[Call] = []
        for own, text in places:
            ours, theirs = self._calls_in(own), self._calls_in(_printed(text, self.alias))
            if [_without_condition(call) for _, call in ours] != [_without_condition(call) for _, call in theirs]:
                return False
            for (node, _), (printed, call) in zip(ours, theirs, strict=True):
                node.agg_filter = printed.agg_filter
                calls.append(call)
        # Those in ORDER BY have no place of their own among what is printed.
        if len(calls) != len(self.calls):
            return False
        self.calls = calls
        return True

    def _calls_in(self, node: Node) -> list[tuple[Node, Call]]:
        found = [(below, call_of(below, self.alias)) for below in walk(node) if is_a(below, ast.FuncCall)]
        return [(below, call) for below, call in found if call is not None]

    def _is_output_name(self, node: Node) -> bool:
        """Whether an item of ORDER BY is the name of an output column: those come before the table's."""
        if not is_a(node, ast.ColumnRef) or len(node.fields) != 1:
            return False
        return getattr(node.fields[0], "sval", None) in {output_name(target) for target in self.select.targetList}

    def _is_supported(self, call: Call) -> bool:
        if call.column is None:
            return call.function == "count"
        column = self.table.by_name.get(call.column)
        if column is None:
            return False
        if call.function in ("sum", "avg"):
            return column.type_oid in _SUMS
        return call.function == "count" or column.type_oid in _EXTREMES

    # -- writing it anew ----------------------------------------------------------------------------------------

    def rewritten(
        self, sources: str, replace: Callable[[Node], Node | None], *, keeps_aggregates: bool = False
    ) -> str | None:
        """The query over other sources, with other nodes where ``replace`` gives some; None if it can't be said.

        The first source in FROM is to be a query in brackets. In its place the client's own stands, with aggregates of
        all columns that it uses: it has one row, and the engine checks what the role may read.
        """
        names = [output_name(target) for target in self.select.targetList]
        if None in names:
            return None
        used = {call.column for call in self.calls if call.column is not None} | {c.name for c in self.groups}
        used |= self._filtering_columns()
        counts = ", ".join(f"count({quote_identifier(name)})" for name in sorted(used)) or "count(*)"
        inner = parse_statement(f"SELECT {counts}")
        inner.fromClause, inner.whereClause = self.select.fromClause, self.select.whereClause
        outer = parse_statement(f"SELECT 1 FROM (SELECT 1) AS permitted{sources}")
        outer.fromClause[0].subquery = inner
        having, sorts = self.select.havingClause, self.select.sortClause if self.groups else None
        for sort in sorts or ():
            if not self._is_output_name(sort.node):
                sort.node = replaced(sort.node, replace)
        targets = replaced(self.select.targetList, replace)
        for target, name in zip(targets, names, strict=True):
            target.name = name
        outer.targetList, outer.sortClause = targets, sorts
        if keeps_aggregates:
            outer.havingClause = replaced(having, replace)
        else:
            outer.whereClause = replaced(having, replace)
        outer.limitCount, outer.limitOffset = self.select.limitCount, self.select.limitOffset
        outer.limitOption = self.select.limitOption
        return RawStream()(outer)

    def _filtering_columns(self) -> set[str]:
        places = (self.select.targetList, self.select.havingClause)
        filters = [node.agg_filter for node in walk(places) if is_a(node, ast.FuncCall) and node.agg_filter]
        found = [_column_name(node, self.alias) for node in walk(tuple(filters)) if is_a(node, ast.ColumnRef)]
        return {name for name in found if name is not None}


def _without_condition(call: Call) -> tuple[Call, bool]:
    """The call, and whether it has one."""
    return call._replace(condition=None), call.condition is not None


class StoredValues:
    """The values that storage is asked for, and the expressions that stand for a query's aggregates."""

    def __init__(self, table: Table, place: Callable[[int], Node]) -> None:
        """``place`` is the node that the value of a number, from 1, is read from."""
        self._table = table
        self._place = place
        self._values: dict[Value, int] = {}

    @property
    def values(self) -> tuple[Value, ...]:
        return tuple(self._values)

    def expression(self, call: Call) -> Node:
        """What gives the aggregate's result."""
        condition = call.condition
        if call.column is None:
            return self._node(Aggregate("count", None, 0), oids.INT8, condition)
        column: Column = self._table.by_name[call.column]
        number, oid = column.number - 1, column.type_oid
        if call.function == "count":
            return self._node(Aggregate("count", number, oid), oids.INT8, condition)
        if call.function in ("min", "max"):
            shown = oids.TEXT if oid == oids.VARCHAR else oid
            return self._node(Aggregate(call.function, number, oid), shown, condition)
        total = Aggregate("sum", number, oid)
        if call.function == "sum":
            return self._node(total, oids.INT8 if oid in (oids.INT2, oids.INT4) else oids.NUMERIC, condition)
        # PostgreSQL's own average is this quotient.
        quotient: Any = parse_expression("a / nullif(b, 0)::pg_catalog.numeric")
        quotient.lexpr = self._node(total, oids.NUMERIC, condition)
        quotient.rexpr.arg.lexpr = self._node(Aggregate("count", number, oid), oids.INT8, condition)
        return parse_expression(f"({RawStream()(quotient)})")

    def _node(self, aggregate: Aggregate, type_oid: int, condition: str | None) -> Node:
        value = Value(aggregate, type_oid, condition)
        return self._place(self._values.setdefault(value, len(self._values) + 1))


def replaced(node: Node, replace: Callable[[Node], Node | None]) -> Node:
    """A tree with other nodes where ``replace`` gives some; changed in place."""
    if isinstance(node, tuple):
        return tuple(replaced(item, replace) for item in node)
    if not isinstance(node, ast.Node):
        return node
    other = replace(node)
    if other is not None:
        return other
    for name in node:
        below = getattr(node, name)
        if isinstance(below, ast.Node | tuple):
            setattr(node, name, replaced(below, replace))
    return node


def output_name(target: Node) -> str | None:
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
    if is_a(value, ast.CaseExpr):
        return "case"
    if is_a(value, ast.ColumnRef):
        return getattr(value.fields[-1], "sval", None)
    return "?column?" if is_a(target.val, ast.A_Expr) else None
