"""Aggregates over a node's versions, column by column, against the same aggregates over the rows of a scan."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.encoding import keys, numeric, rows
from dsql_server.encoding import type_oids as oid
from dsql_server.interfaces.commit_path import (
    Aggregate,
    Comparison,
    GroupColumn,
    ScanRequest,
    TooManyGroups,
    run_to_end,
)
from dsql_server.interfaces.messages import Mutation
from dsql_server.storage import aggregation, entries, groups, packed_rows, packing
from dsql_server.storage import node as node_module
from dsql_server.storage.aggregates import PartialAggregates
from dsql_server.storage.column_cache import UNUSED_REQUESTS_MIN, Block, BlockCache
from dsql_server.storage.columns import PADDING, RowBatch
from dsql_server.storage.node import StorageNode

T = 1_790_000_000_000_000_000
VERSIONS_MAX = 5
INT8_MAX = 2**63 - 1

relation_ids = itertools.count(1)

texts = st.text("ab\0", max_size=3)
decimals = st.decimals(-(10**30), 10**30, places=7, allow_nan=False) | st.sampled_from(
    [
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("1e-300"),
        Decimal("0.12345678"),
        Decimal("9" * 90),
        Decimal(10) ** 300,
    ]
)
#: int8, int4, numeric, text, int2; rows written before a column was added have fewer fields.
stored_rows = st.tuples(
    st.none() | st.integers(-(2**63), INT8_MAX) | st.sampled_from([INT8_MAX, INT8_MAX - 1]),
    st.none() | st.integers(-3, 3),
    st.none() | decimals,
    st.none() | texts,
    st.none() | st.integers(-(2**15), 2**15 - 1),
    st.integers(0, 5),
)
Row = tuple[int | None, int | None, Decimal | None, str | None, int | None, int]
histories = st.lists(st.tuples(texts, st.none() | stored_rows, st.integers(0, VERSIONS_MAX)), max_size=30)


def packed(row: Row) -> bytes:
    big, number, amount, name, small, count = row
    fields = [
        None if big is None else struct.pack(">q", big),
        None if number is None else struct.pack(">i", number),
        None if amount is None else numeric.from_decimal(amount),
        None if name is None else name.encode(),
        None if small is None else struct.pack(">h", small),
    ]
    return rows.join(fields[:count])


def encoded(type_oid: int, binary: bytes) -> bytes:
    return keys.encode_value(type_oid, binary)


ZERO = encoded(oid.INT4, bytes(4))
PREDICATES: list[tuple[Comparison, ...]] = [
    (),
    (Comparison(1, oid.INT4, ">=", (ZERO,)),),
    (Comparison(1, oid.INT4, "in", (encoded(oid.INT8, struct.pack(">q", 1)), ZERO)),),
    (Comparison(0, oid.INT8, "<", (encoded(oid.INT8, b"\x7f" + bytes(7)),)), Comparison(4, oid.INT2, "notnull")),
    (Comparison(4, oid.INT2, "isnull"),),
    (Comparison(3, oid.TEXT, "=", (encoded(oid.TEXT, b"a\0"),)),),
    (Comparison(3, oid.TEXT, "in", (encoded(oid.TEXT, b""), encoded(oid.TEXT, b"b"))),),
    (Comparison(3, oid.TEXT, "in", ()),),
    (Comparison(3, oid.TEXT, ">", (encoded(oid.TEXT, b"a"),)), Comparison(1, oid.INT4, "<>", (ZERO,))),
    (Comparison(2, oid.NUMERIC, ">", (encoded(oid.NUMERIC, numeric.from_decimal(Decimal(0))),)),),
]  # fmt: skip


AGGREGATES = (
    Aggregate("count", None, 0),
    Aggregate("count", 1, oid.INT4),
    Aggregate("sum", 0, oid.INT8),
    Aggregate("min", 0, oid.INT8),
    Aggregate("sum", 1, oid.INT4),
    Aggregate("max", 1, oid.INT4),
    Aggregate("sum", 2, oid.NUMERIC),
    Aggregate("max", 2, oid.NUMERIC),
    Aggregate("min", 3, oid.TEXT),
    Aggregate("sum", 4, oid.INT2),
    Aggregate("count", 4, oid.INT2),
    # with FILTER
    Aggregate("count", None, 0, PREDICATES[1]),
    Aggregate("count", 1, oid.INT4, PREDICATES[7]),
    Aggregate("sum", 0, oid.INT8, PREDICATES[8]),
    Aggregate("sum", 2, oid.NUMERIC, PREDICATES[4]),
    Aggregate("min", 3, oid.TEXT, PREDICATES[9]),
    Aggregate("max", 1, oid.INT4, PREDICATES[1]),
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageNode]:
    shared = StorageNode(tmp_path_factory.mktemp("storage") / "node", 1 << 20)
    yield shared
    shared.close()


def apply(
    node: StorageNode, version: int, history: list[tuple[str, Row | None, int]], key: Callable[[str], bytes]
) -> None:
    """One version's transaction."""
    mutations = {key(name): None if row is None else packed(row) for name, row, at in history if at == version}
    if mutations:
        node.apply_batch([(T + version, [Mutation(*mutation) for mutation in mutations.items()])], {})


@pytest.mark.parametrize(("piece", "pack"), [(1, 512), (3, 1), (2048, 1), (2048, 512)])
@given(
    history=histories,
    t=st.integers(0, VERSIONS_MAX),
    predicate=st.sampled_from(PREDICATES),
    bounds=st.tuples(texts, texts),
    fixed_width=st.booleans(),
)
def test_columns_say_what_rows_say(
    node: StorageNode,
    piece: int,
    pack: int,
    history: list[tuple[str, Row | None, int]],
    t: int,
    predicate: tuple[Comparison, ...],
    bounds: tuple[str, str],
    fixed_width: bool,
) -> None:
    relation = next(relation_ids)

    def key(name: str) -> bytes:
        return keys.literal_key(relation, name.ljust(3).encode() if fixed_width else name.encode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_rows, "PACK_ROWS_MIN", pack)
        patch.setattr(node_module, "PACK_ROWS_MIN", pack)
        for version in range(VERSIONS_MAX + 1):
            apply(node, version, history, key)
    start, end = sorted((key(bounds[0]), key(bounds[1])))
    request = ScanRequest(start, end, T + t, predicate)
    expected = PartialAggregates(AGGREGATES)
    expected.add(node.scan(request).rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregation, "BLOCK_ENTRIES", piece)
        patch.setattr(aggregation, "CACHED_ROWS_MIN", 0)
        patch.setattr(entries, "PIECE_ENTRIES", max(1, piece // 2))
        found = [node.aggregate(request, AGGREGATES) for _ in range(2)]  # the second time out of the cache
    assert [repr(one) for one in found] == 2 * [repr(expected.results())]


def pack_all(node: StorageNode, relation: int, boundaries: list[bytes]) -> None:
    """Pack what is still single of a relation's rows, as if nobody wrote for a while."""
    packer = packing.Packer(node._database, node._packs, node_module._RESERVED, node_module.ROW)
    packer._position = keys.prefix(relation)
    while packer._position < keys.prefix(relation + 1):
        packer._step(boundaries)


@pytest.mark.parametrize(("piece", "pack"), [(1, 512), (3, 1), (2048, 1), (2048, 512)])
@given(
    history=histories,
    reads=st.lists(st.tuples(st.integers(0, VERSIONS_MAX), st.integers(0, VERSIONS_MAX), texts, texts), max_size=8),
    packed_at=st.frozensets(st.integers(0, VERSIONS_MAX)),
    boundaries=st.lists(texts, max_size=2),
)
def test_blocks_are_kept_until_they_change(
    node: StorageNode,
    piece: int,
    pack: int,
    history: list[tuple[str, Row | None, int]],
    reads: list[tuple[int, int, str, str]],
    packed_at: frozenset[int],
    boundaries: list[str],
) -> None:
    relation = next(relation_ids)

    def key(name: str) -> bytes:
        return keys.literal_key(relation, name.encode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregation, "BLOCK_ENTRIES", piece)
        patch.setattr(aggregation, "CACHED_ROWS_MIN", 0)
        patch.setattr(entries, "PIECE_ENTRIES", max(1, piece // 2))
        patch.setattr(packed_rows, "PACK_ROWS_MIN", pack)
        patch.setattr(node_module, "PACK_ROWS_MIN", pack)
        patch.setattr(packing, "PACK_ROWS_MIN", 1)
        patch.setattr(packing, "STEP_ENTRIES", piece)
        for version in range(VERSIONS_MAX + 1):
            apply(node, version, history, key)
            if version in packed_at:
                pack_all(node, relation, sorted(map(key, boundaries)))
            for _, behind, first, last in (read for read in reads if read[0] == version):
                start, end = sorted((key(first), key(last)))
                request = ScanRequest(start, end, T + max(version - behind, 0))
                expected = PartialAggregates(AGGREGATES)
                expected.add(node.scan(request).rows)
                assert repr(node.aggregate(request, AGGREGATES)) == repr(expected.results())


GROUPINGS = [
    (GroupColumn(1, oid.INT4),),
    (GroupColumn(0, oid.INT8),),
    (GroupColumn(3, oid.TEXT),),
    (GroupColumn(3, oid.TEXT), GroupColumn(4, oid.INT2), GroupColumn(1, oid.INT4)),
]


@pytest.mark.parametrize("columns", GROUPINGS, ids=lambda columns: f"by {[c.column for c in columns]}")
@pytest.mark.parametrize(("piece", "span"), [(3, 0), (2048, 0), (2048, 1 << 16)])
@given(history=histories, t=st.integers(0, VERSIONS_MAX), predicate=st.sampled_from(PREDICATES))
def test_groups_are_those_of_the_rows(
    node: StorageNode,
    piece: int,
    span: int,
    columns: tuple[GroupColumn, ...],
    history: list[tuple[str, Row | None, int]],
    t: int,
    predicate: tuple[Comparison, ...],
) -> None:
    relation = next(relation_ids)
    for version in range(VERSIONS_MAX + 1):
        apply(node, version, history, lambda name: keys.literal_key(relation, name.encode()))
    request = ScanRequest(keys.prefix(relation), keys.prefix(relation + 1), T + t, predicate)
    expected: dict[tuple[bytes | None, ...], PartialAggregates] = {}
    for row in node.scan(request).rows:
        fields = (*rows.fields(row[1]), *[None] * 5)
        key = tuple(fields[column.column] for column in columns)
        expected.setdefault(key, PartialAggregates(AGGREGATES)).add([row])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregation, "BLOCK_ENTRIES", piece)
        patch.setattr(entries, "PIECE_ENTRIES", max(1, piece // 2))
        patch.setattr(groups, "COUNTED_SPAN_MAX", span)
        found = run_to_end(node.group_steps([request], columns, AGGREGATES, 100))
    assert found.keys() == expected.keys()
    for key, values in found.items():
        assert repr(values) == repr(expected[key].results())


def test_too_many_groups_are_refused(node: StorageNode) -> None:
    relation = next(relation_ids)
    names = [keys.literal_key(relation, bytes([n])) for n in range(20)]
    node.apply_batch([(T, [Mutation(k, packed((n, 1, None, None, None, 5))) for n, k in enumerate(names)])], {})
    request = ScanRequest(keys.prefix(relation), keys.prefix(relation + 1), T)
    assert len(run_to_end(node.group_steps([request], GROUPINGS[1], (), 20))) == 20
    with pytest.raises(TooManyGroups):
        run_to_end(node.group_steps([request], GROUPINGS[1], (), 19))
    with pytest.raises(ValueError, match="no aggregate 'median'"):
        run_to_end(node.group_steps([request], GROUPINGS[1], (Aggregate("median", 0, oid.INT8),), 20))


def cached_block(number: int) -> Block:
    row = bytes([1]) + packed((number, None, None, None, None, 1))
    name = b"%d" % number
    return Block(name, name + b"\xff", T, RowBatch(row * 40 + PADDING, [len(row)] * 40, np.arange(40), 1))


def test_a_full_cache_keeps_what_is_used() -> None:
    cache = BlockCache(cache_bytes=3 * cached_block(0).batch.bytes_held)
    for number in range(10):
        cache.put(cached_block(number))
    assert [cache.around(b"%d" % number) is not None for number in range(5)] == [True, True, True, False, False]
    for _ in range(UNUSED_REQUESTS_MIN):
        cache.begin_use()
        block = cache.around(b"1")
        assert block is not None
        cache.use(block)
    for number in (5, 6, 7):
        cache.put(cached_block(number))
    assert [number for number in range(10) if cache.around(b"%d" % number) is not None] == [1, 5, 6]


def test_columns_go_before_their_rows() -> None:
    block = cached_block(0)
    cache = BlockCache(cache_bytes=block.batch.bytes_held)
    cache.put(block)
    block.batch.view().column(0)
    assert block.batch.bytes_held > cached_block(0).batch.bytes_held
    cache.use(block)
    assert cache.around(b"0") is block and block.batch.bytes_held == cached_block(0).batch.bytes_held
    cache.clear()
    assert len(cache) == 0 and cache.around(b"0") is None


def test_sums_are_exact_where_their_parts_overflow(node: StorageNode) -> None:
    relation = next(relation_ids)
    row = packed((INT8_MAX, None, None, None, None, 1))
    node.apply_batch([(T, [Mutation(keys.literal_key(relation, bytes([n])), row) for n in range(100)])], {})
    request = ScanRequest(keys.prefix(relation), keys.prefix(relation + 1), T)
    assert node.aggregate(request, (Aggregate("sum", 0, oid.INT8),)) == [100 * INT8_MAX]


def test_an_aggregate_lets_others_work_in_between(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    relation = next(relation_ids)
    row = packed((1, None, None, None, None, 1))
    for first in range(0, 200, 20):  # too few to be packed
        some = range(first, first + 20)
        node.apply_batch([(T, [Mutation(keys.literal_key(relation, bytes([n])), row) for n in some])], {})
    monkeypatch.setattr(aggregation, "BLOCK_ENTRIES", 4)
    monkeypatch.setattr(entries, "PIECE_ENTRIES", 4)
    request = ScanRequest(keys.prefix(relation), keys.prefix(relation + 1), T)
    steps = node.aggregate_steps(request, (Aggregate("sum", 0, oid.INT8),))
    assert 40 < len(list(steps)) < 80


def test_a_damaged_name_is_refused(node: StorageNode, tmp_path: Path) -> None:
    request = ScanRequest(b"\0\0\0\1", b"\0\0\0\2", T)
    with pytest.raises(ValueError, match="no aggregate 'median'"):
        node.aggregate(request, (Aggregate("median", 0, oid.INT8),))
