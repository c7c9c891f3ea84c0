"""One storage node: versions, reads as of a timestamp, positions, garbage, reopening."""

from __future__ import annotations

import itertools
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_server.encoding import keys, rows
from dsql_server.encoding import type_oids as oid
from dsql_server.interfaces.commit_path import Aggregate, Comparison, ScanRequest
from dsql_server.interfaces.messages import Mutation
from dsql_server.storage.node import TIMESTAMP_MAX, VERSIONS_STEPPED_MAX, SnapshotTooOld, StorageNode
from dsql_server.storage.recent_versions import KEYS_MAX, READS_MAX, READS_MIN, RecentVersions
from dsql_server.storage.rocks import CannotOpenStorage, Database

CACHE_BYTES = 1 << 20
T = 1_790_000_000_000_000_000  #: some nanosecond of 2026

relation_ids = itertools.count(1)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageNode]:
    shared = StorageNode(tmp_path_factory.mktemp("storage") / "node", CACHE_BYTES)
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def aging_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageNode]:
    """A node of its own for collecting garbage: what has been collected can't be read in an earlier time again."""
    shared = StorageNode(tmp_path_factory.mktemp("storage") / "node", CACHE_BYTES)
    yield shared
    shared.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "node"


def key(relation: int, number: int) -> bytes:
    return keys.literal_key(relation, bytes([number]))


def whole(relation: int, t: int = TIMESTAMP_MAX, **conditions: Any) -> ScanRequest:
    start = keys.prefix(relation)
    return ScanRequest(start, keys.prefix_end(start), t)._replace(**conditions)


def test_a_read_sees_the_newest_version_at_or_below_its_timestamp(node: StorageNode) -> None:
    k = key(next(relation_ids), 1)
    for t, value in ((T + 10, b"a"), (T + 20, b""), (T + 30, None), (T + 40, b"d")):
        node.apply_batch([(t, [Mutation(k, value)])], {})
    assert [node.get(k, t) for t in (T + 9, T + 10, T + 19, T + 20, T + 30, T + 39, T + 40)] == [
        None,
        b"a",
        b"a",
        b"",
        None,
        None,
        b"d",
    ]


mutations = st.lists(st.tuples(st.integers(0, 5), st.none() | st.binary(max_size=4)), max_size=40)


@given(mutations, st.data())
def test_every_read_equals_a_model_of_all_versions(
    node: StorageNode, history: list[tuple[int, bytes | None]], data: st.DataObject
) -> None:
    relation = next(relation_ids)
    for at, (number, value) in enumerate(history):
        node.apply_batch([(T + at, [Mutation(key(relation, number), value)])], {})
    t = data.draw(st.integers(0, len(history)))
    visible: dict[bytes, bytes] = {}
    for number, value in history[: t + 1]:
        if value is None:
            visible.pop(key(relation, number), None)
        else:
            visible[key(relation, number)] = value

    wanted = [key(relation, number) for number in range(6)]
    assert [node.get(k, T + t) for k in wanted] == [visible.get(k) for k in wanted]
    assert node.get_many(wanted, T + t) == [visible.get(k) for k in wanted]

    bound = st.sampled_from([keys.prefix(relation), keys.prefix_end(keys.prefix(relation)), *wanted]).flatmap(
        lambda k: st.sampled_from([k, k + b"\0", k + b"\xff" * 9, keys.prefix_end(k)])
    )
    start, end = sorted([data.draw(bound), data.draw(bound)])
    limit = data.draw(st.none() | st.integers(0, 7))
    reverse = data.draw(st.booleans())
    found = node.scan(ScanRequest(start, end, T + t, limit=limit, reverse=reverse)).rows
    assert found == sorted(((k, v) for k, v in visible.items() if start <= k < end), reverse=reverse)[:limit]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("t", [T + 3, T + 50, T + 99])
def test_a_key_with_many_versions_is_seeked_past(node: StorageNode, reverse: bool, t: int) -> None:
    relation = next(relation_ids)
    versions = 100
    for at in range(versions):
        node.apply_batch([(T + at, [Mutation(key(relation, number), b"%d" % at) for number in (1, 2, 3)])], {})
    result = node.scan(whole(relation, t, reverse=reverse))
    expected = [(key(relation, number), b"%d" % (t - T)) for number in (1, 2, 3)]
    assert result.rows == (expected[::-1] if reverse else expected)
    assert result.examined <= 3 * 2 * (VERSIONS_STEPPED_MAX + 2)


def test_a_scan_filters_projects_and_counts(node: StorageNode) -> None:
    relation = next(relation_ids)
    encoder = keys.KeyEncoder(relation, [(0, oid.TEXT)])
    stored = [rows.join([name, size, None]) for name, size in ((b"a", b"1"), (b"b", b"2"), (b"c", b"1"))]
    node.apply_batch([(T, [Mutation(encoder.from_row(value), value) for value in stored])], {})
    condition = Comparison(1, oid.TEXT, "=", (keys.encode_value(oid.TEXT, b"1"),))
    for reverse in (False, True):
        request = whole(relation, T, predicate=(condition,), projection=(2, 0), reverse=reverse)
        result = node.scan(request)
        names = [b"a", b"c"][:: -1 if reverse else 1]
        assert [rows.fields(value) for _, value in result.rows] == [[None, name] for name in names]
        assert result.filtered == 1
        assert len(node.scan(request._replace(limit=1)).rows) == 1
    counts = (Aggregate("count", None, 0), Aggregate("max", 0, oid.TEXT))
    assert node.aggregate(whole(relation, T, predicate=(condition,)), counts) == [2, b"c"]
    assert node.aggregate(whole(relation, T - 1), counts) == [0, None]


def test_an_aggregate_goes_on_after_each_chunk(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsql_server.storage.aggregation.BLOCK_ENTRIES", 4)
    relation = next(relation_ids)
    node.apply_batch([(T, [Mutation(key(relation, number), rows.join([b""])) for number in range(12)])], {})
    assert node.aggregate(whole(relation, T), (Aggregate("count", None, 0),)) == [12]


def test_a_scan_never_shows_the_nodes_own_notes(directory: Path) -> None:
    node = StorageNode(directory, CACHE_BYTES)
    node.apply_batch([(T, [])], {"journal": 1})
    node.put_note("name", b"value")
    node.collect_garbage(T, 10)
    for reverse in (False, True):
        assert node.scan(ScanRequest(b"", b"\xff" * 20, T, reverse=reverse)).rows == []
    assert node.relation_prefixes() == []
    node.close()


def test_positions_and_timestamps_survive_reopening(directory: Path) -> None:
    node = StorageNode(directory, CACHE_BYTES)
    node.apply_batch([(T, [Mutation(key(1, 1), b"x")])], {"journal-0": 3, "journal-1": 0})
    node.apply_batch([(T + 5, [])], {"journal-0": 4})
    assert node.checkpoint() == {"journal-0": 4, "journal-1": 0}
    node.close()
    node.close()
    again = StorageNode(directory, CACHE_BYTES)
    assert again.applied_positions() == {"journal-0": 4, "journal-1": 0}
    assert again.applied_up_to == T + 5
    assert again.get(key(1, 1), T) == b"x"
    again.close()


def test_a_crash_loses_data_and_positions_together_and_a_replay_restores_them(directory: Path, tmp_path: Path) -> None:
    node = StorageNode(directory, CACHE_BYTES)
    node.apply_batch([(T, [Mutation(key(1, 1), b"kept")])], {"journal": 1})
    node.checkpoint()
    node.put_note("durable", b"at once")
    batch = [(T + 1, [Mutation(key(1, 1), b"lost")])]
    node.apply_batch(batch, {"journal": 2})
    crashed = tmp_path / "crashed"
    shutil.copytree(directory, crashed)  # what a killed process leaves: memory is gone
    node.close()

    survivor = StorageNode(crashed, CACHE_BYTES)
    assert survivor.applied_positions() == {"journal": 1}
    assert survivor.get(key(1, 1), T + 1) == b"kept"
    assert survivor.get_note("durable") == b"at once"
    for _ in range(2):
        survivor.apply_batch(batch, {"journal": 2})
    assert survivor.get(key(1, 1), T + 1) == b"lost"
    assert survivor.get(key(1, 1), T) == b"kept"
    survivor.close()


def test_a_checkpoint_may_run_on_another_thread(directory: Path) -> None:
    node = StorageNode(directory, CACHE_BYTES)
    node.apply_batch([(T, [Mutation(key(1, 1), b"x")])], {"journal": 1})
    positions: list[dict[str, int]] = []
    thread = threading.Thread(target=lambda: positions.append(node.checkpoint()))
    thread.start()
    while thread.is_alive():
        assert node.get(key(1, 1), T) == b"x"
    thread.join()
    assert positions == [{"journal": 1}]
    node.close()


@given(mutations, st.data())
def test_garbage_collection_changes_no_answer_at_or_above_the_horizon(
    aging_node: StorageNode, history: list[tuple[int, bytes | None]], data: st.DataObject
) -> None:
    # The horizon only rises: each example lives in a later time than the one before.
    node = aging_node
    relation = next(relation_ids)
    base = max(node.applied_up_to, T) + 1
    for at, (number, value) in enumerate(history):
        node.apply_batch([(base + at, [Mutation(key(relation, number), value)])], {})
    horizon = data.draw(st.integers(0, len(history)))
    moments = range(base + horizon, base + len(history) + 1)
    before = [node.scan(whole(relation, t)).rows for t in moments]
    for budget in data.draw(st.lists(st.integers(1, 7), max_size=12)):
        node.collect_garbage(base + horizon, budget)
        assert [node.scan(whole(relation, t)).rows for t in moments] == before


def versions_of(node: StorageNode) -> int:
    return node.scan(ScanRequest(b"", b"\xff" * 4, TIMESTAMP_MAX)).examined


def test_garbage_is_what_was_superseded_before_the_horizon(directory: Path) -> None:
    node = StorageNode(directory, CACHE_BYTES)
    for t in range(1, 11):
        node.apply_batch([(t, [Mutation(key(1, 1), b"%d" % t)])], {})
    node.apply_batch([(3, [Mutation(key(1, 2), b"x")]), (4, [Mutation(key(1, 2), None)])], {})
    assert versions_of(node) == 12
    assert sum(node.collect_garbage(7, 3) for _ in range(8)) == 6 + 2
    assert versions_of(node) == 4
    assert [node.get(key(1, 1), t) for t in (7, 8, 10)] == [b"7", b"8", b"10"]
    assert node.get(key(1, 2), 7) is None
    with pytest.raises(SnapshotTooOld):
        node.get(key(1, 1), 6)
    with pytest.raises(SnapshotTooOld):
        node.get_many([key(1, 1)], 6)
    with pytest.raises(SnapshotTooOld):
        node.scan(whole(1, 6))
    assert node.collect_garbage(20, 100) == 3
    assert node.get(key(1, 1), 20) == b"10"
    assert node.metrics()["versions_collected"] == 11
    node.close()
    again = StorageNode(directory, CACHE_BYTES)
    with pytest.raises(SnapshotTooOld):
        again.get(key(1, 1), 19)
    again.close()


def test_a_round_that_could_find_nothing_is_not_walked(directory: Path) -> None:
    node = StorageNode(directory, CACHE_BYTES)
    node.apply_batch([(1, [Mutation(key(1, 1), b"a")]), (2, [Mutation(key(1, 1), b"b")])], {})
    assert node.collect_garbage(5, 100) == 1
    database = node._database
    node._database = cast(Database, None)  # looking at any version would fail
    assert node.collect_garbage(6, 100) == 0
    node._database = database
    node.close()


def test_metrics_count_what_was_done(directory: Path) -> None:
    node = StorageNode(directory, CACHE_BYTES)
    node.apply_batch([(T, [Mutation(key(1, 1), b"a"), Mutation(key(1, 2), None)])], {"journal": 1})
    node.get(key(1, 1), T)
    node.get_many([key(1, 1), key(1, 2)], T)
    node.scan(whole(1, T))
    counted = node.metrics()
    wanted = {"rows_applied": 1, "tombstones_applied": 1, "batches_applied": 1, "gets": 3, "scans": 1}
    assert {name: counted[name] for name in wanted} == wanted
    assert counted["versions_examined"] == 2
    node.close()


def test_a_directory_in_use_is_refused_with_a_remedy(directory: Path) -> None:
    node = StorageNode(directory, CACHE_BYTES)
    with pytest.raises(CannotOpenStorage, match="another directory"):
        StorageNode(directory, CACHE_BYTES)
    node.close()
    StorageNode.destroy(directory)
    assert not directory.exists()


@pytest.mark.parametrize("applied", ["the same", "other mutations", "another time", "two at once"])
def test_what_was_prepared_is_applied_only_if_it_is_just_that(node: StorageNode, applied: str) -> None:
    a, b, gone = [b"\0\0\0\7" + applied.encode() + end for end in (b"a", b"b", b"gone")]
    node.apply_batch([(5, [Mutation(gone, b"x")])], {})
    prepared = [Mutation(a, b"1"), Mutation(gone, None)]
    node.prepare(10, prepared)
    batches = {
        "the same": [(10, tuple(prepared))],
        "other mutations": [(10, (Mutation(a, b"2"),))],
        "another time": [(11, tuple(prepared))],
        "two at once": [(10, tuple(prepared)), (12, (Mutation(b, b"3"),))],
    }
    node.apply_batch(batches[applied], {"journal-0": 4})
    assert node.get(a, 20) == (b"2" if applied == "other mutations" else b"1")
    assert node.get(a, 10) == (None if applied == "another time" else node.get(a, 20))
    assert node.get(gone, 20) == (b"x" if applied == "other mutations" else None)
    assert node.get(b, 20) == (b"3" if applied == "two at once" else None)
    assert node.applied_positions()["journal-0"] == 4 and node.applied_up_to >= 10


def test_versions_that_were_written_lately_are_read_as_all_others(tmp_path: Path) -> None:
    """Random writes and reads at random times, some applied again as after a restart, against a plain list."""
    chance = random.Random(3)
    keys = [b"\0\0\0\7k%02d" % number for number in range(40)]
    history: list[tuple[int, list[Mutation]]] = []
    with closing(StorageNode(tmp_path / "node")) as node:
        for t in range(10, 400):
            written = chance.sample(keys, chance.choice([1, 2, 3, 30]))
            size = chance.choice([1, 1, 1, 2000])
            history.append((t, [Mutation(k, None if chance.random() < 0.2 else b"%d" % t * size) for k in written]))
            node.apply_batch([history[-1]], {})
            if chance.random() < 0.05:
                for again in history[-chance.randint(1, 5) :]:
                    node.apply_batch([again], {})
            at = chance.randint(max(10, t - 20), t + 5)
            expected: dict[bytes, bytes | None] = {k: v for moment, ms in history if moment <= at for k, v in ms}
            asked = chance.sample(keys, 7)
            assert node.get_many(asked, at) == [expected.get(k) for k in asked]
            assert node.get(asked[0], at) == expected.get(asked[0])
            start, end = sorted(chance.sample([*keys, b"\0\0\0\7", b"\0\0\0\7k3", b"\0\0\0\x08"], 2))
            within = sorted(key for key, value in expected.items() if value is not None and start <= key < end)
            assert node.values(start, end, at) == [expected[key] for key in within]
            assert node.scan(ScanRequest(start, end, at)).rows == [(key, expected[key]) for key in within]


def test_rows_that_were_read_together_are_read_as_all_others(directory: Path) -> None:
    chance = random.Random(5)
    keys = [b"\0\0\0\7k%d" % i for i in range(12)]
    history: list[tuple[int, list[Mutation]]] = []
    t = 10
    for _ in range(12):
        # What was written before isn't remembered any more.
        with closing(StorageNode(directory)) as node:
            for _ in range(60):
                if chance.random() < 0.4:
                    t += chance.randint(1, 9)
                    written = chance.sample(keys, chance.randint(1, 3))
                    values = (None if chance.random() < 0.2 else b"%d" % chance.randrange(10**6) for _ in written)
                    history.append((t, [Mutation(key, value) for key, value in zip(written, values, strict=True)]))
                    node.apply_batch(history[-1:], {"j": len(history)})
                at = chance.randint(max(10, t - 30), t + 5)
                expected: dict[bytes, bytes | None] = {k: v for moment, ms in history if moment <= at for k, v in ms}
                asked = chance.sample(keys, chance.choice([1, READS_MIN, 9]))
                assert node.get_many(asked, at) == [expected.get(key) for key in asked]


def test_a_page_of_rows_is_remembered_neither_a_single_one_nor_a_mass() -> None:
    recent = RecentVersions()
    keys = [b"%d" % i for i in range(READS_MAX + 1)]
    recent.note_read(keys[:1], [b"v"], 7)
    recent.note_read(keys, [b"v"] * len(keys), 7)
    assert recent.find(keys[0]) is None
    recent.note_read(keys[:READS_MIN], [None, *[b"v"] * (READS_MIN - 1)], 7)
    assert [recent.find(key) for key in keys[: READS_MIN + 1]] == [None, *[(7, b"v")] * (READS_MIN - 1), None]


def test_only_so_many_versions_are_remembered() -> None:
    recent = RecentVersions()
    for t in range(1, 2 * KEYS_MAX):
        recent.note([(t, [Mutation(b"%d" % t, b"v")])], t - 1)
    assert recent.find(b"%d" % (2 * KEYS_MAX - 1)) == (2 * KEYS_MAX - 1, b"v")
    assert recent.find(b"1") is None
    recent.note([(5, [Mutation(b"%d" % (2 * KEYS_MAX - 1), b"again")])], 2 * KEYS_MAX)
    assert recent.find(b"%d" % (2 * KEYS_MAX - 1)) is None
