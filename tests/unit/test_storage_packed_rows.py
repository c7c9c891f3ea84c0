"""Packs: made of what large transactions insert side by side, dropped with the first write to one of their keys."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from entries_read import entries_read

from dsql_server.encoding import keys, rows
from dsql_server.encoding import type_oids as oid
from dsql_server.interfaces.commit_path import Aggregate, ScanRequest
from dsql_server.interfaces.messages import Mutation
from dsql_server.storage import entries, packed_rows
from dsql_server.storage.node import StorageNode
from dsql_server.storage.packed_rows import PACK_ROWS_MIN
from dsql_server.storage.packing import QUIET_CALLS_MIN

CACHE_BYTES = 1 << 20
T = 1_790_000_000_000_000_000
TABLE, INDEX = 1000, 1001
SUM = (Aggregate("count", None, 0), Aggregate("sum", 0, oid.INT8))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def node(directory: Path) -> Iterator[StorageNode]:
    opened = StorageNode(directory, CACHE_BYTES)
    yield opened
    opened.close()


def row(number: int, relation: int = TABLE) -> Mutation:
    return Mutation(keys.literal_key(relation, b"%06d" % number), rows.join([struct.pack(">q", number)]))


def insert(node: StorageNode, t: int, numbers: Iterable[int]) -> None:
    node.apply_batch([(T + t, [row(number) for number in numbers])], {})


def totals(node: StorageNode, t: int, first: int = 0, last: int = 999_999) -> list[object]:
    """Number and sum of the rows with first <= number < last."""
    return node.aggregate(ScanRequest(row(first).key, row(last).key, T + t), SUM)


def packed(node: StorageNode) -> list[int]:
    """How many rows each pack has."""
    return [pack.rows for pack in node._packs._packs]


def test_appended_rows_are_read_as_packs_without_a_gap(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    for t in range(4):
        insert(node, t, range(t * 1000, t * 1000 + 1000))
    assert packed(node) == [1000] * 4
    single = entries_read(monkeypatch)
    assert totals(node, 3) == [4000, sum(range(4000))]
    assert sum(single) == 0


def test_small_packs_grow(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    step = 2 * PACK_ROWS_MIN
    for t in range(40):
        insert(node, t, range(t * step, t * step + step))
    assert len(packed(node)) <= 40 * step / packed_rows.GROWN_ROWS_MAX + 1 and sum(packed(node)) == 40 * step
    single = entries_read(monkeypatch)
    assert totals(node, 39) == [40 * step, sum(range(40 * step))]
    assert sum(single) == 0
    assert totals(node, 20)[0] == 21 * step
    node.apply_batch([(T + 50, [Mutation(row(3).key, None)])], {})
    assert totals(node, 50)[0] == 40 * step - 1


def test_packs_are_there_after_a_start(directory: Path) -> None:
    node = StorageNode(directory, CACHE_BYTES)
    insert(node, 0, range(1000))
    insert(node, 1, range(2000, 3000))
    insert(node, 2, [2500])
    node.close()
    opened = StorageNode(directory, CACHE_BYTES)
    assert packed(opened) == [1000]
    assert totals(opened, 2) == [2000, sum(range(1000)) + sum(range(2000, 3000))]
    opened.close()


def test_a_snapshot_before_the_pack_does_not_see_it(node: StorageNode) -> None:
    insert(node, 0, range(600))
    insert(node, 5, range(600, 1200))
    assert [totals(node, t)[0] for t in (-1, 0, 4, 5)] == [0, 600, 600, 1200]


@pytest.mark.parametrize("number", [0, 700, 999])
def test_a_write_to_one_of_its_keys_drops_a_pack(node: StorageNode, number: int) -> None:
    insert(node, 0, range(1000))
    node.apply_batch([(T + 1, [Mutation(row(number).key, None)])], {})
    assert packed(node) == []
    assert totals(node, 1) == [999, sum(range(1000)) - number]
    assert totals(node, 0) == [1000, sum(range(1000))]


def test_writes_beside_a_pack_leave_it(node: StorageNode) -> None:
    insert(node, 0, range(1000, 2000))
    insert(node, 1, [3, 2000])  # below its rows, in the range that was empty, and behind them
    assert packed(node) == [1000]
    assert totals(node, 1) == [1002, sum(range(1000, 2000)) + 2003]
    insert(node, 2, range(4, 604))
    assert packed(node) == [600, 1000]
    assert totals(node, 2) == [1602, sum(range(1000, 2000)) + 2003 + sum(range(4, 604))]


def test_rows_among_stored_ones_are_not_packed(node: StorageNode) -> None:
    insert(node, 0, [1, 1000])
    insert(node, 1, range(2, 900))
    assert packed(node) == [898]  # between both
    insert(node, 2, range(899, 1800))
    assert packed(node) == []  # 899 was one of its rows; 1000 is among the new ones
    assert totals(node, 2) == [1799, sum(range(1, 1800))]


def test_a_few_rows_or_deletions_are_not_packed(node: StorageNode) -> None:
    insert(node, 0, range(PACK_ROWS_MIN - 1))
    node.apply_batch([(T + 1, [Mutation(row(n).key, None) for n in range(5000, 6000)])], {})
    entry = b"\0\0\x03\xe8 the key of a row"
    node.apply_batch([(T + 2, [Mutation(row(n, INDEX).key, entry) for n in range(1000)])], {})
    assert packed(node) == []
    assert totals(node, 2)[0] == PACK_ROWS_MIN - 1


def test_large_transactions_of_one_batch_see_one_another(node: StorageNode) -> None:
    numbers = [range(1000), range(500, 501), range(1000, 1700), range(1200, 2000)]
    node.apply_batch([(T + t, [row(n) for n in some]) for t, some in enumerate(numbers)], {"journal-0": 7})
    assert packed(node) == []
    assert node.applied_positions() == {"journal-0": 7}
    assert totals(node, 3) == [2000, sum(range(2000))]


def test_applying_again_changes_nothing(node: StorageNode) -> None:
    for _ in range(2):
        insert(node, 0, range(1000))
        node.apply_batch([(T + 1, [Mutation(row(7).key, None)])], {})
        assert totals(node, 1) == [999, sum(range(1000)) - 7]


def test_rows_of_two_tables_in_one_transaction(node: StorageNode) -> None:
    both = [mutation for n in range(800) for mutation in (row(n), row(n, TABLE + 2))]
    node.apply_batch([(T, both)], {})
    assert packed(node) == [800, 800]
    assert totals(node, 0) == [800, sum(range(800))]


def test_a_range_inside_of_a_pack_is_read_one_by_one(node: StorageNode) -> None:
    insert(node, 0, range(1000))
    insert(node, 1, range(1000, 2000))
    assert totals(node, 1, first=300, last=1500) == [1200, sum(range(300, 1500))]
    assert totals(node, 1, last=1001) == [1001, sum(range(1001))]


def test_packs_are_read_within_limits(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    for t in range(4):
        insert(node, t, range(t * 1000, t * 1000 + 1000))
    packs = node._packs
    start, end = keys.prefix(TABLE), keys.prefix_end(keys.prefix(TABLE))

    def run(rows_max: int) -> int:
        return len(packs.run(start, end, T + 9, rows_max))

    assert [run(n) for n in (1, 1999, 2000, 100_000)] == [1, 1, 2, 4]
    monkeypatch.setattr(packed_rows, "READ_BYTES_MAX", 1)
    assert run(100_000) == 1


def test_one_by_one_reads_stop_at_their_bytes(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "RUN_BYTES_MAX", 100)
    monkeypatch.setattr(entries, "PIECE_ENTRIES", 8)
    for first in range(0, 300, PACK_ROWS_MIN - 2):
        insert(node, 0, range(first, min(first + PACK_ROWS_MIN - 2, 300)))
    single = entries_read(monkeypatch)
    assert totals(node, 0) == [300, sum(range(300))]
    assert sum(single) == 300 and max(single) < 20


def pack_all(node: StorageNode, boundaries: Sequence[bytes] = ()) -> None:
    """As many calls as a quiet node gets before everything is packed."""
    node.aggregator()
    for _ in range(QUIET_CALLS_MIN + 50):
        node.pack_rows(boundaries)


def test_rows_that_lie_still_are_packed(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = list(range(3000))
    random.Random(1).shuffle(numbers)
    for t, number in enumerate(numbers):
        insert(node, t, [number])
    node.apply_batch([(T + 5000, [Mutation(row(n, INDEX).key, row(n).key) for n in range(2000)])], {})
    pack_all(node)
    assert 3000 - PACK_ROWS_MIN < sum(packed(node)) <= 3000
    single = entries_read(monkeypatch)
    assert totals(node, 5000) == [3000, sum(range(3000))]
    assert sum(single) < PACK_ROWS_MIN
    assert totals(node, 1)[0] == 2


def test_packing_waits_for_quiet_and_ends(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    for t in range(600):
        insert(node, t, [t])
    node.pack_rows(())
    assert packed(node) == []  # nothing has aggregated anything
    node.aggregator()
    for t in range(600, 600 + 2 * QUIET_CALLS_MIN):
        insert(node, t, [t])
        node.pack_rows(())
    assert packed(node) == []
    pack_all(node)
    assert sum(packed(node)) == 600 + 2 * QUIET_CALLS_MIN
    single = entries_read(monkeypatch)
    pack_all(node)
    assert single == []


def test_what_was_changed_is_packed_again(node: StorageNode) -> None:
    insert(node, 0, range(1000))
    insert(node, 1, range(1000, 2000))
    node.apply_batch([(T + 2, [Mutation(row(7).key, None), row(3000)])], {})
    assert packed(node) == [1000]
    pack_all(node)
    assert packed(node) == [999, 1000]
    assert totals(node, 2) == [2000, sum(range(2000)) - 7 + 3000]
    assert totals(node, 1) == [2000, sum(range(2000))]


def test_no_pack_goes_across_a_boundary(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    for t in range(1500):
        insert(node, t, [t])
    pack_all(node, [row(700).key])
    assert packed(node) == [700, 800]
    single = entries_read(monkeypatch)
    assert totals(node, 1500, first=700) == [800, sum(range(700, 1500))]
    assert sum(single) == 0
