"""LIMIT in storage: a scan that needs only the first rows of an index reads no more.

That holds where PostgreSQL's plan has the scan right below its Limit, in the order of an index that storage reads, and
where storage applies all of the scan's conditions itself. ``max`` and ``min`` of an indexed column are planned so, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pglast import ast
from pglast.enums import LimitOption

from dsql_server.encoding.parameters import binary_from_text
from dsql_server.interfaces.commit_path import ScanRequest, StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import Access, Bound, RangeGet, Row
from dsql_server.processor.conditions import INTEGERS
from dsql_server.processor.parse_tree import Node, is_a

#: The number of rows wanted, or None where it isn't known.
RowCount = Callable[[Bound], "int | None"]
#: More rows than this are not worth a limit.
LIMIT_MAX_ROWS = 100_000


def limits_rows(select: Node) -> bool:
    """Whether PostgreSQL plans a Limit for what a SELECT says: a LIMIT, an OFFSET or both."""
    return select.limitCount is not None or select.limitOffset is not None


def wanted_rows(select: Node, parameter_oids: Sequence[int]) -> RowCount | None:
    """How many rows a SELECT's LIMIT and OFFSET ask for together; None: no limit, or not a simple one."""
    if not is_a(select, ast.SelectStmt) or select.limitCount is None:
        return None
    if select.limitOption == LimitOption.LIMIT_OPTION_WITH_TIES:
        return None
    count = _number(select.limitCount, parameter_oids)
    offset = _number(select.limitOffset, parameter_oids) if select.limitOffset is not None else _zero
    if count is None or offset is None:
        return None

    def read(bound: Bound) -> int | None:
        rows, skipped = count(bound), offset(bound)
        return None if rows is None else rows + (skipped or 0)

    return read


def one_row(_bound: Bound) -> int:
    """What ``max`` and ``min`` want."""
    return 1


def _zero(_bound: Bound) -> int:
    return 0


def _number(node: Node, parameter_oids: Sequence[int]) -> RowCount | None:
    if is_a(node, ast.A_Const) and not node.isnull and is_a(node.val, ast.Integer):
        value: int = node.val.ival
        return lambda bound: value
    if not is_a(node, ast.ParamRef) or node.number > len(parameter_oids):
        return None
    at, oid = node.number - 1, parameter_oids[node.number - 1]
    if oid not in INTEGERS:
        return None

    def read(bound: Bound) -> int | None:
        given = bound.values[at]
        if given is None:
            return None
        binary = binary_from_text(oid, given) if bound.formats[at] == 0 else given
        return int.from_bytes(binary, "big", signed=True)

    return read


def limited(access: Access, node: dict[str, Any], conditions: int, is_ordered: bool, rows: RowCount) -> Access:
    """The access with a limit, where that is sound, else as it is.

    ``conditions`` is how many conditions the scan's node has, understood or not.
    """
    if access.pushed_count != conditions:
        return access
    name: str | None
    if isinstance(access, RangeGet):
        index = access.index
        serves = access.is_interval and (index.primary or access.interval_conditions == conditions)
        name, is_plain_order = index.name, not any(index.nulls_first)
    else:
        key = access.table.primary_key
        serves, is_plain_order = type(access) is Access, True
        name = key.name if key is not None else None
    if not serves or (is_ordered and not (is_plain_order and node.get("Index Name") == name)):
        return access
    return LimitedScan(access, node.get("Scan Direction") == "Backward", rows)


class LimitedScan(Access):
    """The first rows of another access, in the order of its keys or in reverse."""

    def __init__(self, access: Access, reverse: bool, rows: RowCount) -> None:
        super().__init__(access.table, access.conditions)
        self._access = access
        self._reverse = reverse
        self.rows_wanted = rows
        self.describe = f"first rows by {access.describe}"

    @property
    def restricted(self) -> bool:
        return True

    def rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        """The first rows as of ``t``; all where the transaction changed the table, for its own rows come between."""
        if self.table.relation_id in bound.dirty:
            return self._access.rows(bound, storage, t)
        return super().rows(bound, storage, t)

    def _rows(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        count = self.rows_wanted(bound)
        if count is None or not 0 <= count <= LIMIT_MAX_ROWS:
            return self._access.rows(bound, storage, t)
        interval = self._access.interval(bound)
        if interval is None or count == 0:
            return []
        if isinstance(self._access, RangeGet) and not self._access.index.primary:
            return self._by_entries(*interval, count, storage, t)
        predicate = self.predicate(bound)
        if predicate is None:
            return []
        return storage.scan(ScanRequest(*interval, t, predicate, None, count, self._reverse)).rows

    def _by_entries(self, low: bytes, high: bytes, count: int, storage: StorageReader, t: Timestamp) -> list[Row]:
        """Rows through an index; more entries are read as long as some are stale: their rows have other places."""
        assert isinstance(self._access, RangeGet), "only those go through an index"
        index = self._access.index
        encoder = next(e for i, e in self.table.plain_indexes if i is index)
        while True:
            entries = storage.scan(ScanRequest(low, high, t, (), None, count, self._reverse)).rows
            values = storage.get_many([key for _, key in entries], t)
            rows = [
                (key, value)
                for (entry, key), value in zip(entries, values, strict=True)
                if value is not None and encoder.from_row(value) + key[4:] == entry
            ]
            if len(rows) == len(entries) or len(entries) < count:
                return rows
            count *= 2
