"""Runs of entries: whole keys, in order, nothing twice and nothing left out, whatever is written meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dsql_server.storage import entries, rocks
from dsql_server.storage.entries import Entries, Run

END = b"\xff"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[rocks.Database]:
    opened = rocks.open_database(tmp_path / "node")
    yield opened
    opened.close()


def put(database: rocks.Database, *physical: bytes) -> None:
    batch = rocks.new_batch()
    for key in physical:
        batch.put(key, b"of " + key)
    database.write(batch)


def versions(key: bytes, count: int) -> list[bytes]:
    return [key + number.to_bytes(entries.VERSION_BYTES, "big") for number in range(count)]


def keys_of(run: Run) -> list[bytes]:
    """The physical keys, after a check that each has its value."""
    found, keys, values, at = [], run.keys, run.values(b"padding"), 0
    for key_length, value_length in zip(run.key_lengths, run.value_lengths, strict=True):
        found.append(keys[:key_length])
        assert values[at : at + value_length] == b"of " + found[-1]
        keys, at = keys[key_length:], at + value_length
    assert keys == b"" and values[at:] == b"padding"
    return found


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("entries_max", [1, 4, 10, 1000])
def test_runs_never_cut_a_key_in_two(
    database: rocks.Database, monkeypatch: pytest.MonkeyPatch, piece: int, entries_max: int
) -> None:
    monkeypatch.setattr(entries, "PIECE_ENTRIES", piece)
    stored = [
        v for name, count in ((b"a", 1), (b"b", 9), (b"c", 2), (b"d", 1), (b"e", 30)) for v in versions(name, count)
    ]
    put(database, *stored)
    reader, position, found = Entries(database, END), b"", []
    while position < END:
        run, end = reader.take(position, END, entries_max)
        found.append(keys_of(run))
        assert all(position <= key[:-8] < end for key in found[-1])
        position = end
    assert [key for run in found for key in run] == stored
    of_runs = [{key[:-8] for key in run} for run in found]
    assert sum(map(len, of_runs)) == 5, "each key's versions are in one run"


def test_limit_ends_a_run_in_front_of_it_and_the_next_goes_on(database: rocks.Database) -> None:
    put(database, *versions(b"a", 2), *versions(b"b", 2), *versions(b"c", 2))
    reader = Entries(database, END)
    run, end = reader.take(b"", b"b", None)
    assert (keys_of(run), end) == (versions(b"a", 2), b"b")
    run, end = reader.take(b"b", END, None)
    assert (keys_of(run), end) == (versions(b"b", 2) + versions(b"c", 2), END)


def test_what_is_written_between_two_runs_is_seen(database: rocks.Database) -> None:
    put(database, *versions(b"a", 1), *versions(b"c", 1))
    reader = Entries(database, END)
    reader.take(b"", b"b", None)
    put(database, *versions(b"b", 1))
    run, _ = reader.take(b"b", END, None)
    assert keys_of(run) == versions(b"b", 1) + versions(b"c", 1)


def test_versions_of_a_key_that_the_start_prolongs_are_left_out(database: rocks.Database) -> None:
    put(database, b"a" + b"\x01" * entries.VERSION_BYTES, *versions(b"b", 1))
    run, _ = Entries(database, END).take(b"a\x00", END, None)
    assert keys_of(run) == versions(b"b", 1)
