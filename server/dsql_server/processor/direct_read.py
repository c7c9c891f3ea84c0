"""Reads that need no engine: columns of stored rows, found by conditions that storage knows exactly.

The engine has planned such a statement and has run it once in the session before (which checked the role's privileges
and gave the row description). What it would do from then on is to take the loaded rows and send their columns back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

from pglast import ast
from pglast.enums import SetOperation, SortByDir, SortByNulls

from dsql_server import compiled
from dsql_server.catalog.state import Table
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.keys import KEY_TYPE_OIDS, value_encoder
from dsql_server.encoding.orderings import ORDERINGS
from dsql_server.encoding.output import Output, binary_field, data_row, row_writer, text_field
from dsql_server.encoding.parameters import NotUnderstood, binary_from_text, check_binary
from dsql_server.encoding.rows import field_reader
from dsql_server.interfaces.commit_path import StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import Access, Bound, PointGet
from dsql_server.processor.conditions import TEXTS, OtherColumn, Parameter, count_conjuncts
from dsql_server.processor.parse_tree import Node, is_a, parse_expression, walk
from dsql_server.processor.plan import LoadPlan, Scan
from dsql_server.processor.targets import UNKNOWN_MODIFIER, Targets

#: More rows than this are the engine's, which sends them piece by piece.
DIRECT_ROWS_MAX = 2000
#: Rows that a scan keeps as they were sent, and how long, in bytes, those may be.
SHOWN_ROWS_MAX = 2048
SHOWN_ROW_BYTES_MAX = 1024
#: Types of which any so many bytes are a value; -8: timestamps, of which some are none.
_PLAIN_BYTES = {oids.INT2: 2, oids.INT4: 4, oids.INT8: 8, oids.UUID: 16, oids.TIMESTAMP: -8, oids.TIMESTAMPTZ: -8}
_SCANS = frozenset({"Index Scan", "Index Only Scan", "Seq Scan"})
_CONDITIONS = ("Index Cond", "Filter")
_TEXTS = TEXTS | {oids.BPCHAR}


class Column(NamedTuple):
    """One column of the answer: a field of the rows that one of the scans finds."""

    scan: int
    position: int  #: in a stored row, from 0
    type_oid: int


class Order(NamedTuple):
    """One column of ORDER BY: ascending with NULLs last, or descending with NULLs first."""

    column: Column
    descending: bool


@dataclass(frozen=True)
class DirectRead:
    """A statement that can be answered from storage. Scans find rows each by itself; the answer is their product."""

    scans: tuple[Scan, ...]
    columns: tuple[Column, ...]
    parameter_oids: tuple[int, ...]
    order: tuple[Order, ...] = ()
    _answers: dict[tuple[object, ...], DirectAnswer | None] = field(default_factory=dict, compare=False)

    def answering(self, formats: Sequence[int], *, iso_dates: bool, zone_is_utc: bool) -> DirectAnswer | None:
        """What answers executions with these result formats (0 text, 1 binary; none: text, one: for all).

        None where some column's text can't be told here, or the formats aren't valid. Sessions share it, and with it
        the rows that it has shown before.
        """
        key = (*formats, iso_dates, zone_is_utc)
        if key not in self._answers:
            self._answers[key] = self._answering(formats, iso_dates=iso_dates, zone_is_utc=zone_is_utc)
        return self._answers[key]

    def _answering(self, formats: Sequence[int], *, iso_dates: bool, zone_is_utc: bool) -> DirectAnswer | None:
        width = len(self.columns)
        each = list(formats) * width if len(formats) == 1 else list(formats) or [0] * width
        if len(each) != width or not set(each) <= {0, 1}:
            return None
        outputs: list[Output] = []
        for column, result_format in zip(self.columns, each, strict=True):
            if result_format:
                outputs.append(binary_field)
                continue
            output = text_field(column.type_oid, iso_dates=iso_dates, zone_is_utc=zone_is_utc)
            if output is None:
                return None
            outputs.append(output)
        return DirectAnswer(self, outputs)


class DirectAnswer:
    """A direct read with the formats that its columns are sent in."""

    def __init__(self, read: DirectRead, outputs: Sequence[Output]) -> None:
        self._parameter_oids = read.parameter_oids
        self._plain = [_PLAIN_BYTES.get(type_oid, 0) for type_oid in read.parameter_oids]
        self._all_binary = (1,) * len(read.parameter_oids)
        self._width = len(read.columns)
        # Neighbouring columns of one scan are written together, once for each of its rows.
        segments: list[list[list[tuple[int, Output]]]] = [[] for _ in read.scans]
        self._places: list[tuple[int, int]] = []  #: the segments in their order: scan, number among the scan's own
        for column, output in zip(read.columns, outputs, strict=True):
            own = segments[column.scan]
            if not self._places or self._places[-1][0] != column.scan:
                self._places.append((column.scan, len(own)))
                own.append([])
            own[-1].append((column.position, output))
        sorted_by: list[list[Column]] = [[] for _ in read.scans]
        for order in read.order:
            sorted_by[order.column.scan].append(order.column)
        self._scans = [
            _ScanRows(scan.access, own, columns)
            for scan, own, columns in zip(read.scans, segments, sorted_by, strict=True)
        ]
        #: By the last column first: sorting keeps the order of equals.
        is_alone = len(read.scans) == 1
        self._sorts = [
            (_sort_key(order.column.scan, sorted_by[order.column.scan].index(order.column), is_alone), order.descending)
            for order in reversed(read.order)
        ]

    def rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[bytes] | None:
        """DataRow messages as of ``t``; None where the engine has to answer, with rows or with an error.

        Raises one of :data:`dsql_server.processor.access.NOT_EXACT` for the same reason.
        """
        if len(bound.values) != len(self._parameter_oids):
            return None
        # Before any row is read: what the engine would refuse, it refuses even if there is none.
        bound = Bound(self._exact_values(bound), self._all_binary, bound.zone_is_utc)
        scans = self._scans
        if len(scans) == 1:
            operands = scans[0].operands(bound)
            rows = scans[0].rows(operands, bound, storage, t) if operands is not None else []
            if len(rows) > DIRECT_ROWS_MAX:
                return None
            for key, descending in self._sorts:
                rows.sort(key=key, reverse=descending)
            return [data_row(self._width, row.segments) for row in rows]
        given = [scan.operands(bound) for scan in scans]
        found: list[list[_Row]] = []
        count = 1
        for scan, operands in zip(scans, given, strict=True):
            rows = scan.rows(operands, bound, storage, t) if operands is not None and count else []
            count *= len(rows)
            if count > DIRECT_ROWS_MAX:
                return None
            found.append(rows)
        return self._messages(found) if count else []

    def _exact_values(self, bound: Bound) -> list[bytes | None]:
        """The parameters in binary format. Raises NotUnderstood where the engine might refuse one."""
        given, formats, zone_is_utc = bound.values, bound.formats, bound.zone_is_utc
        type_oids = self._parameter_oids

        def exact(at: int) -> bytes:
            value = given[at]
            assert value is not None
            return _exact(type_oids[at], value, formats[at], zone_is_utc)

        if compiled.encoding is not None:
            values: list[bytes | None] = compiled.encoding.exact_values(given, formats, self._plain, exact)
            return values
        return [None if value is None else exact(at) for at, value in enumerate(given)]

    def _messages(self, found: list[list[_Row]]) -> list[bytes]:
        """One for each combination of rows."""
        chosen = list(product(*found))
        for key, descending in self._sorts:
            chosen.sort(key=key, reverse=descending)
        places, width = self._places, self._width
        return [data_row(width, [rows[scan].segments[number] for scan, number in places]) for rows in chosen]


class _Row:
    """A stored row as the statement uses it."""

    __slots__ = ("checked", "places", "segments", "stored")

    def __init__(self, stored: bytes, checked: list[bytes | None], places: list[tuple[bool, bytes]]) -> None:
        self.stored = stored
        self.checked = checked  #: the values that conditions look at, encoded
        self.places = places  #: by columns of ORDER BY; NULLs sort behind all values, as in PostgreSQL
        self.segments: list[bytes] = []  #: what of it is sent; none as long as it hasn't been


def _sort_key(scan: int, number: int, is_alone: bool) -> Callable[[Any], tuple[bool, bytes]]:
    """What rows (of the only scan) or combinations of rows are sorted by: the scan's column of that number."""
    if is_alone:
        return lambda row: row.places[number]
    return lambda rows: rows[scan].places[number]


class _ScanRows:
    """One scan: the rows of its access path that meet all of its conditions."""

    def __init__(self, access: Access, segments: list[list[tuple[int, Output]]], sorted_by: list[Column]) -> None:
        self._access = access
        self._read = access.reader()
        self._writers = [row_writer(columns) for columns in segments]
        self._sorted_by = [(field_reader(c.position), value_encoder(c.type_oid)) for c in sorted_by]
        self._shown: dict[bytes, _Row] = {}  #: by their stored form, which says all that there is to know
        conditions = access.conditions.pushed
        self._getters = [getter for _, _, _, getter in conditions]
        if isinstance(access, PointGet):
            # Rows are found by their key, so that's what it is.
            checked = [at for at in range(len(conditions)) if at not in access.places]
        elif type(access) is Access:
            checked = []  # storage applies a full scan's conditions
        else:
            checked = list(range(len(conditions)))  # an index entry may point to a row that has changed since
        columns = sorted({(conditions[at][0], conditions[at][1]) for at in checked})
        self._readers = [(field_reader(column), value_encoder(type_oid)) for column, type_oid in columns]
        #: number among the operands, number among the row's checked values, operator
        self._checked = [(at, columns.index(conditions[at][:2]), conditions[at][2]) for at in checked]

    def operands(self, bound: Bound) -> list[Any] | None:
        """The conditions' values, encoded; None where one is NULL, which no row meets."""
        values: list[Any] = []
        for getter in self._getters:
            value = None if getter is None else getter(bound)
            if getter is not None and value is None:
                return None
            values.append(value)
        return values

    def rows(self, operands: list[Any], bound: Bound, storage: StorageReader, t: Timestamp) -> list[_Row]:
        shown, read = self._shown, self._read
        found = self._access.rows(bound, storage, t) if read is None else read(operands, storage, t)
        rows = [shown.get(value) or self._row(value) for _, value in found]
        for at, number, operator in self._checked:
            operand = operands[at]
            if operator == "=":
                rows = [row for row in rows if row.checked[number] == operand]
            elif (compare := ORDERINGS.get(operator)) is not None:
                rows = [row for row in rows if (v := row.checked[number]) is not None and compare(v, operand)]
            else:
                test = _test(operator, operand)
                rows = [row for row in rows if test(row.checked[number])]
        for row in rows:
            if not row.segments:
                row.segments = [write(row.stored) for write in self._writers]
        return rows

    def _row(self, value: bytes) -> _Row:
        """The row, kept for the next time: what is read once is often read again."""
        checked = [None if (field := read(value)) is None else encode(field) for read, encode in self._readers]
        fields = [(read(value), encode) for read, encode in self._sorted_by]
        places = [(True, b"") if field is None else (False, encode(field)) for field, encode in fields]
        row = _Row(value, checked, places)
        if len(value) <= SHOWN_ROW_BYTES_MAX:
            if len(self._shown) >= SHOWN_ROWS_MAX:
                self._shown.clear()
            self._shown[value] = row
        return row


def _test(operator: str, operand: Any) -> Callable[[bytes | None], bool]:
    if operator == "isnull":
        return lambda value: value is None
    if operator == "notnull":
        return lambda value: value is not None
    assert operator == "in", operator
    wanted = frozenset(operand)
    return lambda value: value is not None and value in wanted


def _exact(type_oid: int, value: bytes, value_format: int, zone_is_utc: bool) -> bytes:
    """A parameter's value in binary format. Raises NotUnderstood where the engine might refuse it."""
    if value_format:
        check_binary(type_oid, value)
        return value
    if type_oid in _TEXTS and b"\0" in value:
        raise NotUnderstood("texts hold no zero bytes")
    return binary_from_text(type_oid, value, zone_is_utc)


# -- which statements ------------------------------------------------------------------------------------------


def read_directly(
    targets: Targets, document: dict[str, Any], plan: LoadPlan, width: int | None = None
) -> DirectRead | None:
    """The direct read that a statement is, or None: a plain SELECT of columns, all of its conditions understood.

    ``targets`` is what its text says, ``document`` the engine's plan for it, ``plan`` all that was read off that.
    ``width`` is the number of the answer's columns: behind them a plan has those that it only sorts by.
    """
    statement = targets.statement
    if targets.renamed or not plan.plain_read or not is_plain_select(statement):
        return None
    is_sorted = document["Node Type"] == "Sort" and statement.sortClause
    nodes = _scans_below(document["Plans"][0] if is_sorted else document)
    by_alias = {scan.alias: scan for scan in plan.scans}
    if nodes is None or sorted(node["Alias"] for node in nodes) != sorted(by_alias):
        return None
    if sorted(t.relname for t in _tables_named(statement)) != sorted(scan.table.name for scan in plan.scans):
        return None  # some are views
    used: set[int] = set()
    for node in nodes:
        scan = by_alias[node["Alias"]]
        if scan.also or not _is_exact(scan, node, used):
            return None
    if used != set(range(1, len(plan.parameter_oids) + 1)):
        return None
    order = [node["Alias"] for node in nodes]
    columns = [_column(parse_expression(output), by_alias, order) for output in document.get("Output", ())[:width]]
    known = [column for column in columns if column is not None]
    sorts = _orders(statement, by_alias, order)
    if not known or len(known) != len(columns) or sorts is None:
        return None
    return DirectRead(tuple(by_alias[alias] for alias in order), tuple(known), plan.parameter_oids, sorts)


def _orders(statement: Node, scans: dict[str, Scan], aliases: list[str]) -> tuple[Order, ...] | None:
    """What ORDER BY says, if it names nothing but columns of the tables; else None."""
    renamed = {target.name for target in statement.targetList or () if target.name is not None}
    found: list[Order] = []
    for item in statement.sortClause or ():
        if item.useOp or item.sortby_nulls != SortByNulls.SORTBY_NULLS_DEFAULT or not is_a(item.node, ast.ColumnRef):
            return None
        names = [getattr(part, "sval", None) for part in item.node.fields]
        among = list(scans)
        if len(names) == 1:
            # An output column comes first; without a name of its own it is a table's.
            among = [alias for alias, scan in scans.items() if names[0] in scan.table.by_name]
        if len(among) < 1 or (len(names) == 1 and (len(among) > 1 or names[0] in renamed)):
            return None
        column = _column(item.node, scans, aliases, among[0])
        if column is None or column.type_oid not in KEY_TYPE_OIDS:
            return None
        found.append(Order(column, item.sortby_dir == SortByDir.SORTBY_DESC))
    return tuple(found)


def is_plain_select(statement: Node) -> bool:
    """Whether it is one SELECT from tables that has conditions and nothing else."""
    if not is_a(statement, ast.SelectStmt) or not statement.fromClause or statement.op != SetOperation.SETOP_NONE:
        return False
    clauses = (
        statement.distinctClause, statement.groupClause, statement.havingClause, statement.windowClause,
        statement.limitCount, statement.limitOffset, statement.lockingClause,
        statement.withClause, statement.intoClause, statement.valuesLists,
    )  # fmt: skip
    if any(clauses):
        return False
    return sum(is_a(node, ast.SelectStmt) for node in walk(statement)) == 1


def _tables_named(statement: Node) -> list[Node]:
    return [node for node in walk(statement) if is_a(node, ast.RangeVar)]


def _scans_below(node: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The scans whose rows a plan pairs each with each; None if it does anything else."""
    if node["Node Type"] in _SCANS and "Plans" not in node and "Relation Name" in node:
        return [node]
    if node["Node Type"] != "Nested Loop" or node.get("Join Type") != "Inner" or "Join Filter" in node:
        return None
    found = []
    for child in node["Plans"]:
        below = _scans_below(child)
        if below is None:
            return None
        found += below
    return found


def _is_exact(scan: Scan, node: dict[str, Any], used: set[int]) -> bool:
    """Whether storage knows all conditions of the scan's node; adds the parameters that they name to ``used``."""
    if {"Recheck Cond", "One-Time Filter", "Order By"} & node.keys():
        return False
    if "Index Name" in node and node["Index Name"] not in _complete_indexes(scan.table):
        return False  # conditions that the predicate of a partial index implies aren't printed
    counts = [count_conjuncts(node[name]) for name in _CONDITIONS if name in node]
    total = 0
    for count in counts:
        if count is None:
            return False
        total += count
    if scan.access.pushed_count != total or len(scan.conjuncts) != total:
        return False
    for conjunct in scan.conjuncts:
        if isinstance(conjunct.operand, OtherColumn):
            return False
        if isinstance(conjunct.operand, Parameter):
            used.add(conjunct.operand.number)
    return True


def _complete_indexes(table: Table) -> set[str]:
    indexes = (*table.indexes, *((table.primary_key,) if table.primary_key is not None else ()))
    return {index.name for index in indexes if index.predicate is None}


def _column(node: Node, scans: dict[str, Scan], order: list[str], alias_of_bare: str | None = None) -> Column | None:
    """An expression as a column of one of the scans, or None. ``alias_of_bare``: the scan of names without one."""
    if node is None or not is_a(node, ast.ColumnRef) or not all(is_a(f, ast.String) for f in node.fields):
        return None
    *alias, name = [field.sval for field in node.fields]
    if not alias and (alias_of_bare is not None or len(order) == 1):
        alias = [alias_of_bare or order[0]]  # with one relation, PostgreSQL prints bare names
    if len(alias) != 1 or alias[0] not in scans:
        return None
    column = scans[alias[0]].table.by_name.get(name)
    if column is None or column.modifier == UNKNOWN_MODIFIER:
        return None
    return Column(order.index(alias[0]), column.number - 1, column.type_oid)
