"""What an INSERT will write, as far as its plan and its text say so before it runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pglast import ast

from dsql_server.catalog.state import Index, Table
from dsql_server.encoding.keys import NOT_NULL, NULL_LAST, prefix
from dsql_server.interfaces.commit_path import StorageReader
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.access import Bound, Row, comparable
from dsql_server.processor.conditions import INTEGERS, Constant, OtherColumn, Parameter, operand_of
from dsql_server.processor.operands import Getter, scalar_getter
from dsql_server.processor.parse_tree import Node, is_a
from dsql_server.processor.targets import Certain, Targets, Written, stored, written_value
from dsql_server.processor.write_set import unique_holders

#: Rows of one INSERT … VALUES whose keys are followed one by one.
VALUES_ROWS_MAX = 3000

#: A value from a sequence, as EXPLAIN prints it for defaults, and for identity columns.
_DRAWN = re.compile(r"nextval\(('(?:[^']|'')+')(?:::regclass)?\)")

#: A value of one row: its reader, NULL or random.
Value = Getter | Certain


@dataclass
class InsertKeys:
    """Readers of the unique keys that an INSERT will write, where they can be known before it runs."""

    table: Table
    #: index, readers of its columns in order; one for each row
    keys: list[tuple[Index, list[Getter]]] = field(default_factory=list)
    #: single-column keys that are drawn from a sequence, with its name as an SQL string: known after the statement
    drawn: list[tuple[Index, str]] = field(default_factory=list)
    #: False: some other unique key is only known after the statement
    complete: bool = True
    #: the rows that hold one of the keys are loaded before the statement, so that PostgreSQL meets them
    preloaded: bool = False
    #: all that is known of the rows
    rows: InsertedRows | None = None

    def with_drawn(self, index: Index, encoded: bytes) -> InsertKeys:
        """The key that was drawn for the index, now that it is known."""
        return InsertKeys(self.table, [(index, [lambda bound: encoded])])

    def holders(self, bound: Bound, storage: StorageReader, t: Timestamp) -> list[Row]:
        """Stored rows that already hold a key which the INSERT is about to write.

        Raises what :data:`dsql_server.processor.access.NOT_EXACT` lists where a key can't be told.
        """
        rows: list[Row] = []
        for index, getters in self.keys:
            key = key_of(self.table, index, getters, bound)
            if key is None:
                continue
            if index.primary:
                value = storage.get(key, t)
                if value is not None:
                    rows.append((key, value))
            else:
                encoder = next(e for i, e in self.table.plain_indexes if i is index)
                rows += unique_holders(self.table, key, encoder, storage, t)
        return rows


def key_of(table: Table, index: Index, getters: Sequence[Getter], bound: Bound) -> bytes | None:
    """The key of a row or of a unique entry; None where a NULL in it is like no other.

    Rows are stored under the table's own id.
    """
    key = prefix(table.relation_id if index.primary else index.relation_id)
    for getter in getters:
        value = getter(bound)
        if value is not None:
            key += NOT_NULL + value
        elif index.nulls_not_distinct:
            key += NULL_LAST
        else:
            return None
    return key


class InsertedRows:
    """The rows that one INSERT writes, column by column.

    ``node`` is its ModifyTable node. ``rows`` is how many there are, or None where a query decides.
    """

    def __init__(
        self,
        table: Table,
        node: dict[str, Any],
        targets: Targets,
        parameter_oids: tuple[int, ...],
        not_parameters: frozenset[int],
    ) -> None:
        self.table = table
        self._oids = parameter_oids
        self._not_parameters = not_parameters
        source = node["Plans"][-1]
        self._outputs: list[str] = source.get("Output", [])
        self._values: list[tuple[Node, ...]] = []
        self._value_columns: dict[str, int] = {}
        self.rows: int | None = None
        if source["Node Type"] == "Result" and "Plans" not in source and "One-Time Filter" not in source:
            self.rows = 1
        elif source["Node Type"] == "Values Scan" and "Filter" not in source:
            self._read_values(source, node["Relation Name"], targets)
        if len(self._outputs) < table.arity:
            self.rows = None

    def _read_values(self, source: dict[str, Any], name: str, targets: Targets) -> None:
        found = targets.inserted.get(name)
        if found is None or name in targets.repeated or len(found) > VALUES_ROWS_MAX:
            return
        self._values = found
        self.rows = len(found)
        width = min(len(row) for row in found)
        alias = f'"{source["Alias"]}"'
        self._value_columns = {f"{alias}.column{i + 1}": i for i in range(width)}

    def value(self, row: int, number: int) -> Value | None:
        """What the row puts into the column (attribute number), as it will be stored; None: not known."""
        column = self.table.columns[number - 1]
        written = self.written(row, number)
        if written is None or isinstance(written, Certain):
            return written
        scalar = scalar_getter(written, self._oids)
        return scalar[1] if scalar is not None and comparable(column.type_oid, scalar[0]) else None

    def written(self, row: int, number: int) -> Written:
        """What the row puts into the column (attribute number), as the statement or the column's default says it."""
        output = self._outputs[number - 1]
        column = self.table.columns[number - 1]
        if column.generated:
            return None  # computed from the others; the plan prints a NULL in its place
        at = self._value_columns.get(output)
        if at is not None:
            node = self._values[row][at]
            if is_a(node, ast.SetToDefault):
                return Certain.RANDOM if column.default == Certain.RANDOM.value else None
            return written_value(node, column, self._oids)
        if output == Certain.RANDOM.value:
            return Certain.RANDOM
        if output.startswith("NULL::"):
            return Certain.NULL
        operand = operand_of(output, self._not_parameters)
        if isinstance(operand, Constant):
            return operand  # PostgreSQL has cast it already
        return stored(operand, column, self._oids) if isinstance(operand, Parameter) else None

    def columns(self, numbers: Sequence[int], with_nulls: bool = False) -> list[list[Getter]] | None:
        """Readers of these columns for each row that has nothing random in them; None: not known.

        Rows with a NULL that stands in the text are left out, unless ``with_nulls``.
        """
        if self.rows is None:
            return None
        found: list[list[Getter]] = []
        for row in range(self.rows):
            values = [self.value(row, number) for number in numbers]
            if Certain.RANDOM in values or (Certain.NULL in values and not with_nulls):
                continue
            getters = [_null if isinstance(v, Certain) else v for v in values if v is not None]
            if len(getters) < len(numbers):
                return None
            found.append(getters)
        return found

    def source_columns(self, numbers: Sequence[int]) -> tuple[str, list[str]] | None:
        """The scan, and its columns, that a query takes these columns from unchanged; None: not known."""
        if len(self._outputs) < self.table.arity:
            return None
        found = [operand_of(self._outputs[n - 1], self._not_parameters, columns=True) for n in numbers]
        named = [c for c in found if isinstance(c, OtherColumn)]
        aliases = {c.alias for c in named}
        if len(named) < len(numbers) or len(aliases) != 1:
            return None
        return aliases.pop(), [c.column for c in named]

    def keys(self) -> InsertKeys:
        """The unique keys of the rows."""
        result = InsertKeys(self.table, rows=self)
        for index in (self.table.primary_key, *self.table.indexes):
            if index is None or not index.unique:
                continue
            found = self.columns(index.columns, index.nulls_not_distinct) if index.plain else None
            sequence = self._sequence(index)
            if sequence is not None:
                result.drawn.append((index, sequence))
            elif found is None:
                result.complete = False
            else:
                result.keys += [(index, getters) for getters in found]
        return result

    def _sequence(self, index: Index) -> str | None:
        """The sequence that a one-row INSERT draws the index's only column from, and draws once."""
        if self.rows != 1 or not index.plain or len(index.columns) != 1 or index.key_type_oids[0] not in INTEGERS:
            return None
        drawn = _DRAWN.fullmatch(self._outputs[index.columns[0] - 1])
        once = sum(output.count("nextval(") for output in self._outputs) == 1
        return drawn[1] if drawn is not None and once else None


def _null(_bound: Bound) -> None:
    """The reader of a NULL that stands in the text."""
