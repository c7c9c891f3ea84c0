"""Several nodes behind one reader: routing, stitching, splitting, reopening."""

from __future__ import annotations

import random
import shutil
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsql_server import compiled
from dsql_server.encoding import keys, rows
from dsql_server.encoding import type_oids as oid
from dsql_server.interfaces import commit_path
from dsql_server.interfaces.commit_path import Aggregate, GroupColumn, ScanRequest, TooManyGroups, run_to_end
from dsql_server.interfaces.messages import Mutation
from dsql_server.storage.node import SnapshotTooOld
from dsql_server.storage.range_map import RangeMap, Shard
from dsql_server.storage.router import StorageRouter

CACHE_BYTES = 1 << 20
SHARD_ROWS_MAX = 64
T = 1_790_000_000_000_000_000

BY_UUID = keys.KeyEncoder(7, [(0, oid.UUID)])
BY_NUMBER = keys.KeyEncoder(8, [(0, oid.INT8)])


def open_router(directory: Path, nodes: int = 2) -> StorageRouter:
    return StorageRouter(directory, nodes, SHARD_ROWS_MAX, CACHE_BYTES)


@pytest.fixture
def router(tmp_path: Path) -> Iterator[StorageRouter]:
    opened = open_router(tmp_path / "data")
    yield opened
    opened.close()


def commit(router: StorageRouter, t: int, *mutations: Mutation) -> None:
    """What the crossbar does with a decided transaction."""
    parts = dict(router.split(mutations))
    for index, applier in enumerate(router.appliers()):
        applier.apply_batch([(t, parts.get(index, []))], {"journal": t - T})


def uuid_row(seeded: random.Random) -> Mutation:
    value = rows.join([uuid.UUID(int=seeded.getrandbits(128)).bytes, b"x"])
    return Mutation(BY_UUID.from_row(value), value)


def numbered_row(number: int) -> Mutation:
    value = rows.join([struct.pack(">q", number)])
    return Mutation(BY_NUMBER.from_row(value), value)


def whole(encoder: keys.KeyEncoder, t: int) -> ScanRequest:
    return ScanRequest(encoder.prefix, encoder.prefix_end, t)


def pairs(mutations: list[Mutation]) -> list[tuple[bytes, bytes]]:
    """The rows as a scan returns them."""
    return sorted((key, value) for key, value in mutations if value is not None)


def nodes_holding(router: StorageRouter, encoder: keys.KeyEncoder) -> list[int]:
    """How many rows each node itself holds."""
    return [len(node.scan(whole(encoder, T + 10_000)).rows) for node in router.nodes]


def test_it_is_the_reader_and_the_router_of_the_interfaces(router: StorageRouter) -> None:
    reader: commit_path.StorageReader = router
    routes: commit_path.StorageRouter = router
    appliers: list[commit_path.StorageApplier] = list(router.appliers())
    assert reader.get(numbered_row(1).key, T) is None
    assert [index for index, _ in routes.split([numbered_row(1)])] in ([0], [1])
    assert len(appliers) == 2


def test_rows_of_one_table_spread_over_the_nodes_and_read_as_one(router: StorageRouter) -> None:
    seeded = random.Random(1)
    stored = [uuid_row(seeded) for _ in range(100)]
    for at, mutation in enumerate(stored):
        commit(router, T + at, mutation)
    t = T + 200
    assert min(nodes_holding(router, BY_UUID)) > 30

    ordered = pairs(stored)
    assert [router.get(key, t) for key, _ in stored] == [value for _, value in stored]
    assert router.get_many([key for key, _ in stored], t) == [value for _, value in stored]
    assert router.get_many([stored[0].key], t) == [stored[0].value]
    assert router.scan(whole(BY_UUID, t)).rows == ordered
    assert router.scan(whole(BY_UUID, t)._replace(reverse=True)).rows == ordered[::-1]
    assert router.scan(whole(BY_UUID, T + 9)).rows == pairs(stored[:10])
    assert router.scan(ScanRequest(ordered[10][0], ordered[90][0], t)).rows == ordered[10:90]
    for limit in (0, 1, 50, 1000):
        assert router.scan(whole(BY_UUID, t)._replace(limit=limit)).rows == ordered[:limit]
        backwards = router.scan(whole(BY_UUID, t)._replace(limit=limit, reverse=True)).rows
        assert backwards == ordered[::-1][:limit]
    counts = (Aggregate("count", None, 0), Aggregate("max", 0, oid.UUID))
    assert router.aggregate(whole(BY_UUID, t), counts) == [100, ordered[-1][0][5:]]
    assert sum(router.count_rows(t)) == 100


def test_index_entries_are_looked_up_wherever_their_rows_are(router: StorageRouter) -> None:
    """Entries of late and of early rows, stale ones, several of one row, on one node or on several."""
    chance = random.Random(2)
    rows_ = [uuid_row(chance) for _ in range(60)]
    entries = [Mutation(b"\0\0\1\0\1" + chance.randbytes(2), chance.choice(rows_).key) for _ in range(90)]
    for at, mutation in enumerate([*rows_, *entries]):
        commit(router, T + at, mutation)
    for row in rows_[:9]:
        commit(router, T + 500, Mutation(row.key, None))
    for _ in range(50):
        t = T + chance.randint(0, 600)
        start, end = b"\0\0\1\0\1" + chance.randbytes(1), b"\0\0\1\0\1" + chance.randbytes(1)
        for low, high in ((start, end), (end, start), (start, start + b"\xff")):
            assert router.look_up(low, high, t) == commit_path.look_up(router, low, high, t)
    assert router.look_up(b"\0\0\2\0", b"\0\0\2\1", t) == []
    router.collect_garbage(T + 300, 10_000)
    with pytest.raises(SnapshotTooOld):
        router.get_many([rows_[20].key, rows_[21].key], T + 299)
    with pytest.raises(SnapshotTooOld):
        router.get(rows_[20].key, T + 299)
    with pytest.raises(SnapshotTooOld):
        router.look_up(b"\0\0\1\0\1", b"\0\0\1\0\2", T + 299)


def test_an_empty_range_holds_nothing(router: StorageRouter) -> None:
    request = ScanRequest(BY_UUID.prefix_end, BY_UUID.prefix, T)
    assert router.scan(request).rows == []
    assert router.aggregate(request, (Aggregate("count", None, 0), Aggregate("min", 0, oid.UUID))) == [0, None]


def test_groups_of_rows_on_several_nodes_are_put_together(router: StorageRouter) -> None:
    rows_of_each = SHARD_ROWS_MAX
    for number in range(3 * rows_of_each):
        value = rows.join([struct.pack(">q", number), struct.pack(">h", number % 3)])
        commit(router, T + number, Mutation(BY_NUMBER.from_row(value), value))
    assert min(nodes_holding(router, BY_NUMBER)) > 3
    request, columns = whole(BY_NUMBER, T + 10_000), (GroupColumn(1, oid.INT2),)
    aggregates = (Aggregate("count", None, 0), Aggregate("max", 0, oid.INT8))
    last = 3 * rows_of_each
    assert run_to_end(router.group_steps(request, columns, aggregates, 3)) == {
        (b"\0\0",): [rows_of_each, last - 3],
        (b"\0\1",): [rows_of_each, last - 2],
        (b"\0\2",): [rows_of_each, last - 1],
    }
    by_number = (GroupColumn(0, oid.INT8),)
    with pytest.raises(TooManyGroups):
        run_to_end(router.group_steps(request, by_number, aggregates, last - 1))
    assert len(run_to_end(router.group_steps(request, by_number, aggregates, last))) == last
    assert run_to_end(router.group_steps(request._replace(end=request.start), columns, aggregates, 1)) == {}


def test_a_scan_over_several_relations_sees_them_all(router: StorageRouter) -> None:
    seeded = random.Random(2)
    stored = [uuid_row(seeded), numbered_row(1), uuid_row(seeded), numbered_row(-1)]
    commit(router, T, *stored)
    assert router.scan(ScanRequest(b"", b"\xff" * 4, T)).rows == pairs(stored)


def test_rows_that_come_in_order_move_on_to_the_other_node(router: StorageRouter) -> None:
    for number in range(SHARD_ROWS_MAX * 4):
        commit(router, T + number, numbered_row(number))
    held = nodes_holding(router, BY_NUMBER)
    assert sum(held) == SHARD_ROWS_MAX * 4
    assert min(held) >= SHARD_ROWS_MAX
    found = router.scan(whole(BY_NUMBER, T + 10_000)).rows
    assert found == [(m.key, m.value) for m in map(numbered_row, range(SHARD_ROWS_MAX * 4))]


def test_a_shard_of_scattered_rows_splits_in_its_middle_on_its_node(router: StorageRouter) -> None:
    seeded = random.Random(3)
    for at in range(SHARD_ROWS_MAX * 8):
        commit(router, T + at, uuid_row(seeded))
    counts = router.count_rows(T + 10_000)
    assert sum(counts) == SHARD_ROWS_MAX * 8
    assert max(counts) <= SHARD_ROWS_MAX + 1
    # A split counts what is applied, which the transaction that set it off is not yet.
    assert all(abs(shard.rows - count) <= 4 for shard, count in zip(router._map.shards, counts, strict=True))
    assert len(router.metrics()["shards"]) == len(counts)  # type: ignore[arg-type]


def test_the_same_rows_written_again_and_again_split_nothing(router: StorageRouter) -> None:
    commit(router, T, numbered_row(0))
    version = router.metrics()["map_version"]
    for at in range(SHARD_ROWS_MAX * 3):
        commit(router, T + 1 + at, numbered_row(at % 5))
    assert router.metrics()["map_version"] == version


def test_full_shards_are_counted_again_only_after_many_writes(router: StorageRouter) -> None:
    for number in range(SHARD_ROWS_MAX * 4):
        commit(router, T + number, numbered_row(number))
    scans = sum(node.metrics()["scans"] for node in router.nodes)
    for at in range(SHARD_ROWS_MAX // 2):
        commit(router, T + 10_000 + at, numbered_row(at % SHARD_ROWS_MAX))
    assert sum(node.metrics()["scans"] for node in router.nodes) == scans
    for at in range(SHARD_ROWS_MAX * 4):
        commit(router, T + 20_000 + at, numbered_row(at % (SHARD_ROWS_MAX * 4)))
    counted = sum(node.metrics()["scans"] for node in router.nodes) - scans
    assert 0 < counted <= 12, "a look at a shard for so many writes as half of its rows"


def test_a_restart_sees_the_same_routing_and_the_same_rows(tmp_path: Path) -> None:
    router = open_router(tmp_path / "data")
    seeded = random.Random(4)
    for at in range(SHARD_ROWS_MAX * 3):
        commit(router, T + at, uuid_row(seeded), numbered_row(at))
    everything = ScanRequest(b"", b"\xff" * 4, T + 10_000)
    before, shards = router.scan(everything).rows, [(s.start, s.node) for s in router._map.shards]
    router.close()
    again = open_router(tmp_path / "data")
    assert again.scan(everything).rows == before
    assert [(s.start, s.node) for s in again._map.shards] == shards
    assert [node.applied_positions() for node in again.nodes] == [{"journal": SHARD_ROWS_MAX * 3 - 1}] * 2
    again.close()


def test_a_replay_after_a_crash_routes_as_before(tmp_path: Path) -> None:
    router = open_router(tmp_path / "data")
    history = [numbered_row(number) for number in range(SHARD_ROWS_MAX * 3)]
    for at, mutation in enumerate(history):
        commit(router, T + at, mutation)
        if at == SHARD_ROWS_MAX * 2:
            router.nodes[1].checkpoint()  # the other node keeps nothing but the map
    shutil.copytree(tmp_path / "data", tmp_path / "crashed")
    router.close()

    survivor = open_router(tmp_path / "crashed")
    resume = min(node.applied_positions().get("journal", -1) for node in survivor.nodes) + 1
    assert resume == 0
    for at, mutation in enumerate(history):
        commit(survivor, T + at, mutation)
    assert survivor.scan(whole(BY_NUMBER, T + 10_000)).rows == [(m.key, m.value) for m in history]
    assert sum(nodes_holding(survivor, BY_NUMBER)) == len(history), "a row lies on one node only"
    survivor.close()


def test_garbage_and_checkpoints_reach_every_node(router: StorageRouter) -> None:
    seeded = random.Random(5)
    stored = [uuid_row(seeded) for _ in range(20)]
    for at in range(2):
        commit(router, T + at, *stored)
    assert router.collect_garbage(T + 5, 1000) == 20
    assert router.checkpoint() == [{"journal": 1}] * 2
    assert router.scan(whole(BY_UUID, T + 5)).rows == pairs(stored)


def test_another_number_of_nodes_is_refused_with_a_remedy(tmp_path: Path) -> None:
    open_router(tmp_path / "data").close()
    with pytest.raises(ValueError, match="start with 2 nodes"):
        open_router(tmp_path / "data", nodes=3)
    open_router(tmp_path / "data").close()


def test_a_map_is_ordered_and_survives_as_bytes() -> None:
    ranges = RangeMap(3)
    for relation in (9, 2, 5):
        ranges.add_relation(keys.prefix(relation))
    version = ranges.version
    ranges.add_relation(keys.prefix(5))
    ranges.add_shard(Shard(keys.prefix(5), 1))
    assert ranges.version == version
    assert ranges.starts == sorted(ranges.starts)
    loaded = RangeMap.load(ranges.dump())
    assert (loaded.starts, loaded.shards, loaded.version) == (ranges.starts, ranges.shards, ranges.version)
    alone = RangeMap(3)
    alone.add_relation(keys.prefix(5))
    owner = {shard.start: shard.node for shard in ranges.shards}
    assert all(owner[shard.start] == shard.node for shard in alone.shards), "other relations do not matter"


def test_a_map_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 99"):
        RangeMap.load(RangeMap(1).dump().replace(b'"format": 1', b'"format": 99'))


def python_get(router: StorageRouter, key: bytes, t: int) -> bytes | type[SnapshotTooOld] | None:
    """What the method says, whatever is compiled."""
    try:
        return StorageRouter.get(router, key, t)
    except SnapshotTooOld:
        return SnapshotTooOld


def current_get(router: StorageRouter, key: bytes, t: int) -> bytes | type[SnapshotTooOld] | None:
    try:
        return router.get(key, t)
    except SnapshotTooOld:
        return SnapshotTooOld


@pytest.mark.skipif(compiled.storage is None, reason="this installation has no extension modules to compare")
def test_single_keys_are_read_alike_by_the_compiled_reader(router: StorageRouter) -> None:
    seeded = random.Random(11)
    written: list[bytes] = []
    for at in range(60):
        mutations = [uuid_row(seeded) for _ in range(seeded.choice([1, 3, 300] if at % 20 == 9 else [1, 3]))]
        mutations += [
            Mutation(key, seeded.choice([None, b"v%d" % at, b"long" * 300])) for key in dict.fromkeys(written[-3:])
        ]
        written += [seeded.choice(mutations).key]
        commit(router, T + 10 * at, *mutations)
    first = BY_NUMBER.from_row(numbered_row(5).value or b"")
    prolonged = [key + b"\0" for key in written[:5]] + [key[:-1] for key in written[:5]]
    others = [BY_UUID.prefix, BY_UUID.prefix_end, first, *prolonged]
    for horizon in (0, T + 200):
        if horizon:
            router.collect_garbage(horizon, 10_000)
        for key in [*written, *others]:
            for t in (T - 1, T + 200, T + 10 * seeded.randrange(60), T + 10_000):
                assert current_get(router, key, t) == python_get(router, key, t), (key, t - T)
    with pytest.raises(OverflowError):
        router.get(first, -1)
