"""Layers: what transactions wrote among other rows, read as a snapshot sees it, whatever was written and when."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from entries_read import entries_read

from dsql_server.encoding import keys, rows
from dsql_server.encoding import type_oids as oid
from dsql_server.interfaces.commit_path import Aggregate, ScanRequest
from dsql_server.interfaces.messages import Mutation
from dsql_server.storage import layered_rows
from dsql_server.storage.node import StorageNode
from dsql_server.storage.packed_rows import PACK_ROWS_MIN

CACHE_BYTES = 1 << 20
T = 1_790_000_000_000_000_000
TABLE, INDEX = 1000, 1001
SUM = (Aggregate("count", None, 0), Aggregate("sum", 0, oid.INT8))
MANY = 4 * PACK_ROWS_MIN


@pytest.fixture
def node(tmp_path: Path) -> Iterator[StorageNode]:
    opened = StorageNode(tmp_path / "node", CACHE_BYTES)
    yield opened
    opened.close()


def key(name: bytes) -> bytes:
    return keys.literal_key(TABLE, name)


def row(number: int) -> bytes:
    return rows.join([struct.pack(">q", number)])


def write(node: StorageNode, t: int, written: Iterable[tuple[bytes, int | None]]) -> None:
    mutations = [Mutation(key(name), None if number is None else row(number)) for name, number in written]
    node.apply_batch([(T + t, mutations)], {})


def totals(node: StorageNode, t: int, start: bytes = b"", end: bytes = b"") -> list[object]:
    """Number and sum of the rows."""
    first = key(start) if start else keys.prefix(TABLE)
    behind = key(end) if end else keys.prefix_end(keys.prefix(TABLE))
    return node.aggregate(ScanRequest(first, behind, T + t), SUM)


def random_names(rng: random.Random, count: int) -> list[bytes]:
    return [rng.randbytes(16) for _ in range(count)]


def fill(node: StorageNode, transactions: int = 4, seed: int = 1) -> list[bytes]:
    """Transactions at 0, 1 … of rows with random keys and the number 1; returns the keys."""
    rng = random.Random(seed)
    names = [random_names(rng, MANY) for _ in range(transactions)]
    for t, some in enumerate(names):
        write(node, t, ((name, 1) for name in some))
    return [name for some in names for name in some]


def slots(node: StorageNode) -> list[layered_rows.Slot]:
    return node._packs.layers._slots


def test_rows_with_random_keys_are_read_in_layers_at_once(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    names = fill(node)
    single = entries_read(monkeypatch)
    assert totals(node, 3) == [len(names), len(names)]
    assert sum(single) == 0


def test_small_transactions_are_layers_too(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    names = fill(node)
    write(node, 10, [(names[0], 5), (names[1], None), (random.Random(9).randbytes(16), 7)])
    single = entries_read(monkeypatch)
    assert [totals(node, t) for t in (9, 10)] == [[len(names)] * 2, [len(names), len(names) - 2 + 5 + 7]]
    assert sum(single) == 0


def test_layers_are_there_after_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = StorageNode(tmp_path / "reopened", CACHE_BYTES)
    names = fill(node)
    before = [(slot.low, slot.end, slot.number) for slot in slots(node)]
    node.close()
    node = StorageNode(tmp_path / "reopened", CACHE_BYTES)
    assert [(slot.low, slot.end, slot.number) for slot in slots(node)] == before
    write(node, 20, [(names[0], None)])
    single = entries_read(monkeypatch)
    assert totals(node, 20) == [len(names) - 1] * 2
    assert sum(single) == 0
    node.close()


def test_a_worn_out_slot_is_given_up_with_its_layers(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layered_rows, "THIN_LAYERS_MAX", 8)
    monkeypatch.setattr(layered_rows, "THICK_LAYER_ROWS", 50)
    names = fill(node, 2)
    count, first = len(slots(node)), slots(node)[0].number
    for t in range(10, 30):
        write(node, t, [(names[0], t)])
    assert len(slots(node)) == count - 1
    assert totals(node, 29) == [len(names), len(names) - 1 + 29]
    node.close()
    prefix = node._packs.layers._layer_prefix
    node = StorageNode(node.path, CACHE_BYTES)
    left = {physical[len(prefix) :][:8] for physical, _ in node._database.items(False, prefix) if prefix in physical}
    assert left == {slot.number.to_bytes(8, "big") for slot in slots(node)}
    assert node._packs.layers._next_number > max(first, *(slot.number for slot in slots(node)))
    node.close()


@pytest.mark.parametrize("reopened", [False, True])
def test_a_slot_that_grows_at_its_end_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reopened: bool
) -> None:
    monkeypatch.setattr(layered_rows, "CLOSED_BYTES_MIN", 10_000)
    node = StorageNode(tmp_path / "reopened", CACHE_BYTES)
    numbers = list(range(40 * MANY))
    for t, first in enumerate(range(0, len(numbers), 2 * MANY)):
        some = numbers[first : first + 2 * MANY]
        for part in (some[::2], some[1::2]):  # two that insert at the end at the same time
            write(node, t, ((b"%06d" % number, 1) for number in part))
        if reopened:
            node.close()
            node = StorageNode(tmp_path / "reopened", CACHE_BYTES)
    assert len(slots(node)) > 5
    single = entries_read(monkeypatch)
    assert totals(node, 100) == [len(numbers)] * 2
    assert totals(node, 3) == [8 * MANY] * 2
    assert sum(single) == 0
    node.close()


def test_a_range_with_many_rows_is_not_cut_into_slots(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layered_rows, "BEGIN_ENTRIES_MAX", 20)
    names = fill(node)
    assert not slots(node)
    assert totals(node, 3) == [len(names)] * 2


def test_transactions_of_one_timestamp_are_layers_of_their_own(node: StorageNode) -> None:
    names = fill(node)
    in_order = sorted(names)
    write(node, 5, [(in_order[0], 3)])
    write(node, 5, [(in_order[1], 4)])
    assert totals(node, 5) == [len(names), len(names) - 2 + 7]


def test_the_packer_takes_slots_over(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    names = fill(node)
    assert slots(node)
    node.aggregator()
    for _ in range(50):
        node.pack_rows([])
    assert not slots(node) and len(node._packs)
    single = entries_read(monkeypatch)
    assert totals(node, 3) == [len(names)] * 2
    assert sum(single) == 0


def test_a_batch_applied_again_changes_nothing(node: StorageNode) -> None:
    names = fill(node)
    write(node, 7, [(names[0], 5)])
    write(node, 8, [(names[0], 6)])
    write(node, 7, [(names[0], 5)])
    assert [totals(node, t)[1] for t in (6, 7, 8)] == [len(names) + more for more in (0, 4, 5)]


def sized_transaction(rng: random.Random, known: list[bytes]) -> dict[bytes, int | None]:
    """New rows, and some known ones that change or go."""
    new = random_names(rng, rng.choice((0, 1, 20, MANY, 3 * MANY)))
    if rng.random() < 0.2:  # of another length
        new += [rng.randbytes(rng.randrange(1, 5)) for _ in range(10)]
    if rng.random() < 0.2:  # side by side
        new += [b"\xfe\xfe" + number.to_bytes(3, "big") for number in range(MANY)]
    written: dict[bytes, int | None] = {name: rng.randrange(100) for name in new}
    for name in rng.sample(known, min(len(known), rng.choice((0, 1, 50, 2 * MANY)))):
        written[name] = rng.choice((None, rng.randrange(100)))
    return written


@pytest.mark.parametrize("seed", range(12))
def test_every_snapshot_is_what_a_model_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(layered_rows, "THIN_LAYERS_MAX", rng.choice((4, 256)))
    monkeypatch.setattr(layered_rows, "LAYER_ROWS", rng.choice((5, 94)))
    monkeypatch.setattr(layered_rows, "LAYER_ROWS_MIN", rng.choice((4, 16)))
    monkeypatch.setattr(layered_rows, "CLOSED_BYTES_MIN", rng.choice((1000, 1 << 20)))
    node = StorageNode(tmp_path / "node", CACHE_BYTES)
    states: list[dict[bytes, int]] = []
    current: dict[bytes, int] = {}
    for t in range(25):
        written = sized_transaction(rng, list(current))
        write(node, t, written.items())
        current = {name: number for name, number in (current | written).items() if number is not None}
        states.append(current)
        action = rng.random()
        if action < 0.1:
            node.close()
            node = StorageNode(tmp_path / "node", CACHE_BYTES)
        elif action < 0.2:
            node.aggregator()
            for _ in range(rng.randrange(20)):
                node.pack_rows([])
        at = rng.randrange(len(states))
        start, end = rng.choice(((b"", b""), tuple(sorted(random_names(rng, 2)))))
        inside = [n for name, n in states[at].items() if key(start) <= key(name) and (not end or key(name) < key(end))]
        assert totals(node, at, start, end) == [len(inside), sum(inside) if inside else None]
    node.close()
