"""Answers direct reads (:mod:`dsql_server.processor.direct_read`): from parameters to the messages with their rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.keys import value_encoder
from dsql_server.encoding.orderings import ORDERINGS
from dsql_server.encoding.output import Output, data_row, row_writer
from dsql_server.encoding.parameters import NotUnderstood, binary_from_text, check_binary
from dsql_server.encoding.rows import field_reader
from dsql_server.interfaces.commit_path import StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import Access, Bound, PointGet
from dsql_server.processor.compiled_read import compiled_read
from dsql_server.processor.conditions import TEXTS

if TYPE_CHECKING:
    from dsql_server.processor.direct_read import DirectRead

#: More rows than this are the engine's, which sends them piece by piece.
DIRECT_ROWS_MAX = 2000
#: Rows that a scan keeps as they were sent, and how long, in bytes, those may be.
SHOWN_ROWS_MAX = 2048
SHOWN_ROW_BYTES_MAX = 1024
#: Types of which any so many bytes are a value; -8: timestamps, of which some are none.
_PLAIN_BYTES = {oids.INT2: 2, oids.INT4: 4, oids.INT8: 8, oids.UUID: 16, oids.TIMESTAMP: -8, oids.TIMESTAMPTZ: -8}
#: Types of which any ASCII text is a value, the same in both formats.
_PLAIN_TEXTS = frozenset({oids.TEXT, oids.VARCHAR})
_TEXTS = TEXTS | {oids.BPCHAR}

#: DataRow messages, one behind the other, and how many.
Messages = tuple[bytes, int]


class Column(NamedTuple):
    """One column of the answer: a field of the rows that one of the scans finds."""

    scan: int
    position: int  #: in a stored row, from 0
    type_oid: int


class Order(NamedTuple):
    """One column of ORDER BY: ascending with NULLs last, or descending with NULLs first."""

    column: Column
    descending: bool


class Layout(NamedTuple):
    """How the columns of an answer are put together from what is written of each scan's rows."""

    #: for each scan, the runs of its columns that stand side by side: position and output function of each column
    segments: list[list[list[tuple[int, Output]]]]
    places: list[tuple[int, int]]  #: the segments in their order: scan, number among the scan's own
    sorted_by: list[list[Column]]  #: for each scan
    #: scan, number among what it is sorted by, descending; the last one first: sorting keeps the order of equals
    sorts: list[tuple[int, int, bool]]


def _layout(read: DirectRead, outputs: Sequence[Output]) -> Layout:
    layout = Layout([[] for _ in read.scans], [], [[] for _ in read.scans], [])
    for column, output in zip(read.columns, outputs, strict=True):
        own = layout.segments[column.scan]
        if not layout.places or layout.places[-1][0] != column.scan:
            layout.places.append((column.scan, len(own)))
            own.append([])
        own[-1].append((column.position, output))
    for order in read.order:
        sorted_by = layout.sorted_by[order.column.scan]
        layout.sorts.insert(0, (order.column.scan, len(sorted_by), order.descending))
        sorted_by.append(order.column)
    return layout


class DirectAnswer:
    """A direct read with the formats that its columns are sent in.

    ``messages(values, formats, storage, t)`` are the rows as of ``t`` for parameters with these values and formats;
    None where the engine has to answer, with rows or with an error. It raises one of
    :data:`dsql_server.processor.access.NOT_EXACT` for the same reason.
    """

    def __init__(self, read: DirectRead, outputs: Sequence[Output], zone_is_utc: bool) -> None:
        self._parameter_oids = read.parameter_oids
        self._zone_is_utc = zone_is_utc
        self._all_binary = (1,) * len(read.parameter_oids)
        self._width = len(read.columns)
        layout = _layout(read, outputs)
        self._places = layout.places
        self._scans = [
            _ScanRows(scan.access, own, columns)
            for scan, own, columns in zip(read.scans, layout.segments, layout.sorted_by, strict=True)
        ]
        is_alone = len(read.scans) == 1
        self._sorts = [(_sort_key(scan, number, is_alone), descending) for scan, number, descending in layout.sorts]
        fast = compiled_read(
            read, layout, [scan.checked_conditions for scan in self._scans], self._plain(), DIRECT_ROWS_MAX,
            self._exact, self._operand,
        )  # fmt: skip
        self.messages: Callable[[Sequence[bytes | None], Sequence[int], StorageReader, Timestamp], Messages | None] = (
            self.messages_in_python if fast is None else fast
        )

    def _plain(self) -> list[int]:
        """For each parameter the size of its type, where any bytes of that size are a value of it."""
        return [-1 if oid in _PLAIN_TEXTS else _PLAIN_BYTES.get(oid, 0) for oid in self._parameter_oids]

    def messages_in_python(
        self, values: Sequence[bytes | None], formats: Sequence[int], storage: StorageReader, t: Timestamp
    ) -> Messages | None:
        """What ``messages`` does."""
        if len(values) != len(self._parameter_oids):
            return None
        # Before any row is read: what the engine would refuse, it refuses even if there is none.
        exact = [None if value is None else self._exact(at, value, formats[at]) for at, value in enumerate(values)]
        bound = Bound(exact, self._all_binary, self._zone_is_utc)
        given = [scan.operands(bound) for scan in self._scans]
        found: list[list[_Row]] = []
        count = 1
        for scan, operands in zip(self._scans, given, strict=True):
            rows = scan.rows(operands, bound, storage, t) if operands is not None and count else []
            count *= len(rows)
            if count > DIRECT_ROWS_MAX:
                return None
            found.append(rows)
        if not count:
            return b"", 0
        messages = self._of_rows(found[0]) if len(found) == 1 else self._of_products(found)
        return b"".join(messages), count

    def _exact(self, at: int, value: bytes, value_format: int) -> bytes:
        """A parameter's value in binary format. Raises NotUnderstood where the engine might refuse it."""
        type_oid = self._parameter_oids[at]
        if value_format:
            check_binary(type_oid, value)
            return value
        if type_oid in _TEXTS and b"\0" in value:
            raise NotUnderstood("texts hold no zero bytes")
        return binary_from_text(type_oid, value, self._zone_is_utc)

    def _operand(self, getter: Callable[[Bound], bytes | None], values: Sequence[bytes | None]) -> bytes | None:
        """What a condition compares with, encoded, from the parameters in binary format."""
        return getter(Bound(values, self._all_binary, self._zone_is_utc))

    def _of_rows(self, rows: list[_Row]) -> list[bytes]:
        for key, descending in self._sorts:
            rows.sort(key=key, reverse=descending)
        return [data_row(self._width, row.segments) for row in rows]

    def _of_products(self, found: list[list[_Row]]) -> list[bytes]:
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
        self.checked_conditions = checked  #: numbers of those that the rows that are found may not meet
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
