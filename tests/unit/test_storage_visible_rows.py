"""The rows that a snapshot sees, by the extension module and by its twin in Python, and by a model of both."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dsql_server import compiled
from dsql_server.storage import entries, rocks
from dsql_server.storage.columns import PADDING
from dsql_server.storage.visible_rows import TIMESTAMP_MAX, VisibleRows

END = b"\xff"
Versions = dict[bytes, dict[int, bytes]]


@pytest.fixture(params=["compiled", "python"], autouse=True)
def readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(compiled, "storage", None)
        monkeypatch.setattr(entries, "PIECE_ENTRIES", 7)
    elif compiled.storage is None:
        pytest.skip("this installation has no extension modules to compare")


def random_versions(rng: random.Random) -> Versions:
    """Stored values, with their tags, by key and timestamp; some keys have many versions."""
    found: Versions = {}
    for number in range(60):
        key = b"k%03d" % number + b"x" * rng.choice((0, 0, 3))
        times = rng.sample(range(1, 50), rng.choice((1, 1, 2, 12)))
        found[key] = {t: rng.choice((b"\x00", b"\x01" + rng.randbytes(rng.randrange(1, 30)))) for t in times}
    return found


def physical(key: bytes, t: int) -> bytes:
    return key + (TIMESTAMP_MAX - t).to_bytes(entries.VERSION_BYTES, "big")


def write(database: rocks.Database, versions: Versions) -> None:
    batch = rocks.new_batch()
    for key, stored in versions.items():
        for t, value in stored.items():
            batch.put(physical(key, t), value)
    database.write(batch)


def rows_seen(versions: Versions, start: bytes, end: bytes, t: int) -> list[bytes]:
    """What a snapshot sees of a range, as the model has it."""
    visible = [(key, max((at for at in stored if at <= t), default=None)) for key, stored in sorted(versions.items())]
    found = [versions[key][at] for key, at in visible if at is not None and start <= key < end]
    return [stored for stored in found if stored[:1] == b"\x01"]


@pytest.mark.parametrize("seed", range(20))
def test_runs_have_the_rows_of_the_snapshot_and_its_next_change(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    versions = random_versions(rng)
    database = rocks.open_database(tmp_path / "node")
    write(database, versions)
    t, limit = rng.randrange(0, 52), rng.choice((END, b"k030", b"k041x"))
    position, entries_max = rng.choice((b"", b"k007", b"k007\x00")), rng.choice((1, 5, 40, None))
    rows = VisibleRows(database, END)
    while position < limit:
        run, end = rows.take(position, limit, entries_max, t)
        inside = {key: stored for key, stored in versions.items() if position <= key < end}
        assert position < end <= limit and (entries_max is not None or end == limit)
        assert run.stored.endswith(PADDING)
        assert run.examined == sum(map(len, inside.values()))
        later = [at for stored in inside.values() for at in stored if at > t]
        assert run.changed == min(later, default=None)
        begins = [sum(map(int, run.lengths[:at])) for at in range(len(run.lengths) + 1)]
        found = [run.stored[begins[place] : begins[place + 1]] for place in run.places.tolist()]
        assert [stored for stored in found if stored[:1] == b"\x01"] == rows_seen(versions, position, end, t)
        position = end
    database.close()


def test_what_is_written_between_two_runs_is_seen(tmp_path: Path) -> None:
    database = rocks.open_database(tmp_path / "node")
    write(database, {b"a": {1: b"\x01one"}, b"c": {1: b"\x01three"}})
    rows = VisibleRows(database, END)
    rows.take(b"", b"b", None, 5)
    write(database, {b"b": {2: b"\x01two"}})
    run, _ = rows.take(b"b", END, None, 5)
    assert run.stored == b"\x01two\x01three" + PADDING
    database.close()
