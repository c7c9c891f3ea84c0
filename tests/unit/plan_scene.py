"""Tables and stored rows for the tests of load plans."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from dsql_server.catalog.state import CatalogState, Column, ForeignKey, Index, Table
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.keys import prefix
from dsql_server.encoding.rows import join
from dsql_server.interfaces.commit_path import (
    Aggregate,
    GroupColumn,
    GroupSteps,
    ScanRequest,
    ScanResult,
    Steps,
    look_up,
)
from dsql_server.interfaces.messages import Timestamp
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.plan_reader import PlanReader
from dsql_server.processor.targets import read_targets
from dsql_server.storage.predicates import compile_predicate

T = 1


class Stored:
    """Storage with one version of each row; counts what it is asked."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self._sorted: list[bytes] = []
        self.gets = 0
        self.scans: list[ScanRequest] = []

    def put(self, table: Table, *rows: Sequence[int | str | None]) -> None:
        """Add rows with their index entries. Tables without a primary key get hidden keys."""
        for row in rows:
            value = join([_binary(field) for field in row])
            hidden = prefix(table.relation_id) + b"\x01" + struct.pack(">q", len(self.rows))
            key = table.key_encoder.from_row(value) if table.key_encoder is not None else hidden
            self.rows[key] = value
            for _, encoder in table.plain_indexes:
                self.rows[encoder.from_row(value) + key[4:]] = key

    def get(self, key: bytes, t: int) -> bytes | None:
        self.gets += 1
        return self.rows.get(key)

    def get_many(self, keys: Sequence[bytes], t: int) -> list[bytes | None]:
        return [self.get(key, t) for key in keys]

    def scan(self, request: ScanRequest) -> ScanResult:
        self.scans.append(request)
        if len(self._sorted) != len(self.rows):
            self._sorted = sorted(self.rows)
        start, end = bisect_left(self._sorted, request.start), bisect_left(self._sorted, request.end)
        found = [(k, self.rows[k]) for k in self._sorted[start:end]]
        if request.predicate:
            test = compile_predicate(request.predicate)
            found = [(k, v) for k, v in found if test(v)]
        if request.reverse:
            found.reverse()
        return ScanResult(found[: request.limit], len(found), 0)

    def look_up(self, start: bytes, end: bytes, t: Timestamp) -> list[bytes]:
        return look_up(self, start, end, t)

    def aggregate(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> list[object]:
        raise AssertionError("load plans ask for rows")

    def aggregate_steps(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> Steps:
        raise AssertionError("load plans ask for rows")

    def group_steps(
        self, request: ScanRequest, columns: Sequence[GroupColumn], aggregates: Sequence[Aggregate], groups_max: int
    ) -> GroupSteps:
        raise AssertionError("load plans ask for rows")

    def estimate_rows(self, start: bytes, end: bytes, t: Timestamp) -> int:
        raise AssertionError("load plans ask for rows")


def _binary(field: int | str | None) -> bytes | None:
    if field is None:
        return None
    return struct.pack(">i", field) if isinstance(field, int) else field.encode()


def index(
    relation_id: int, name: str, columns: Sequence[int], types: Sequence[int], unique: bool = False, **more: Any
) -> Index:
    """An index; ``more`` are further fields of :class:`Index`."""
    fields = {"primary": False, "valid": True, **more}
    return Index(
        relation_id=relation_id, schema="public", name=name, unique=unique, columns=tuple(columns),
        key_type_oids=tuple(types), nulls_first=(False,) * len(columns), **fields,
    )  # fmt: skip


def table(
    relation_id: int,
    name: str,
    columns: dict[str, int],
    key: Sequence[str] = ("id",),
    indexes: Sequence[Index] = (),
    foreign_keys: Sequence[ForeignKey] = (),
) -> Table:
    """A table with columns of these types; those of ``key`` are its primary key."""
    numbers = {column: i + 1 for i, column in enumerate(columns)}
    primary = index(
        relation_id + 1, f"{name}_pkey", [numbers[k] for k in key], [columns[k] for k in key], True, primary=True
    )
    return Table(
        relation_id, "public", name,
        tuple(Column(numbers[n], n, oid, not_null=n in key) for n, oid in columns.items()),
        primary if key else None, tuple(indexes), tuple(foreign_keys),
    )  # fmt: skip


USERS = table(
    1000,
    "users",
    {"id": oids.INT4, "email": oids.TEXT, "age": oids.INT4, "city": oids.TEXT},
    indexes=[
        index(1002, "users_email", [2], [oids.TEXT], unique=True),
        index(1003, "users_city_age", [4, 3], [oids.TEXT, oids.INT4]),
    ],
)
ORDERS = table(
    1010,
    "orders",
    {"id": oids.INT4, "user_id": oids.INT4, "total": oids.INT4},
    indexes=[index(1012, "orders_user", [2], [oids.INT4])],
    foreign_keys=[ForeignKey("orders_user_fkey", (2,), 1000, (1,), on_delete="c", on_update="c")],
)
ITEMS = table(
    1020,
    "items",
    {"order_id": oids.INT4, "line": oids.INT4, "note": oids.TEXT},
    key=("order_id", "line"),
    foreign_keys=[ForeignKey("items_order_fkey", (1,), 1010, (1,), on_delete="n", on_update="a")],
)
TREE = table(
    1030,
    "tree",
    {"id": oids.INT4, "up": oids.INT4},
    indexes=[index(1032, "tree_up", [2], [oids.INT4])],
    foreign_keys=[ForeignKey("tree_up_fkey", (2,), 1030, (1,), on_delete="c", on_update="a")],
)
STATE = CatalogState(1, {t.relation_id: t for t in (USERS, ORDERS, ITEMS, TREE)})
#: The same without foreign keys, where they are not the point.
PLAIN = CatalogState(1, {1000: USERS})


def scan(table_: Table, alias: str | None = None, **conditions: str) -> dict[str, Any]:
    """A scan node as EXPLAIN prints it; ``Index_Cond`` stands for ``Index Cond``."""
    more = {name.replace("_", " "): text for name, text in conditions.items()}
    named = {"Schema": "public", "Relation Name": table_.name, "Alias": alias or table_.name}
    return {"Node Type": "Index Scan", **named, **more}


def modify(
    table_: Table, operation: str, source: dict[str, Any], alias: str | None = None, **more: str
) -> dict[str, Any]:
    """A ModifyTable node as EXPLAIN prints it."""
    named = {"Schema": "public", "Relation Name": table_.name, "Alias": alias or table_.name}
    further = {name.replace("_", " "): text for name, text in more.items()}
    return {"Node Type": "ModifyTable", "Operation": operation, **named, "Plans": [source], **further}


def result(*outputs: str) -> dict[str, Any]:
    """The source of an INSERT … VALUES of one row."""
    return {"Node Type": "Result", "Output": list(outputs)}


def plan_of(
    sql: str, plan: dict[str, Any], parameter_oids: Sequence[int] = (), state: CatalogState = PLAIN
) -> LoadPlan:
    """The load plan for a statement and PostgreSQL's plan of it."""
    return PlanReader(plan, state, parameter_oids, read_targets(sql)).read()
