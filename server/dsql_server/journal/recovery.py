"""Reads the copies of a journal back after a stop of any kind, and makes them equal.

An acknowledged record is on at least two copies. So every record that is whole on any copy and continues the chain is
kept: it is acknowledged, or at least decided. The copies that lack it are repaired before anything else is written, so
that every later recovery comes to the same result. A torn write behind the last whole record is cut.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dsql_server.journal.record import (
    MAGIC,
    NO_DIGEST,
    JournalTail,
    Record,
    decode_record,
    encode_record,
    is_whole_record_behind,
)
from dsql_server.journal.segments import (
    SECTOR_BYTES,
    SEGMENT_BYTES_MAX,
    SegmentHeader,
    decode_segment_header,
    encode_segment_header,
    open_segment,
    padded,
    prepare_segment,
    segment_bytes,
    segment_numbers,
    segment_path,
    sync_directory,
    write_all,
)


class JournalDamaged(Exception):
    """Acknowledged records are unreadable on all copies; serving without them would lose commits."""


class RecoveredJournal(NamedTuple):
    """A journal whose copies are equal, fenced with a new epoch."""

    tail: JournalTail
    segment: int  #: the segment to go on in
    offset: int  #: and the place in it
    segment_bytes: int  #: its size
    segment_firsts: dict[int, int]  #: segment number to its first sequence
    catalog_version: int  #: of the last transaction, with its own change; 0 if there is none
    repairs: int  #: places where a copy had to be repaired


class _Place(NamedTuple):
    record: Record
    data: bytes  #: as it lies in the file, padding included
    segment: int
    offset: int
    lacking: tuple[int, ...]  #: copies that don't have it


def recover(directories: Sequence[Path], segment_bytes_max: int = SEGMENT_BYTES_MAX) -> RecoveredJournal:
    """Read, repair and fence the journal in ``directories`` (one a copy); starts a new one if there is none.

    Raises :class:`JournalDamaged` if an acknowledged record is unreadable on every copy, :class:`OSError` if a copy
    can't be read or written.
    """
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for unfinished in directory.glob("*.preparing"):
            unfinished.unlink()
    headers = _headers(directories)
    if not headers:
        _start_journal(directories, segment_bytes(1, segment_bytes_max))
        headers = _headers(directories)
    repairs = _repair_headers(directories, headers)
    first = headers[min(headers)]
    tail = JournalTail(0, first.first_sequence - 1, first.previous_digest, 0)
    segment, offset = min(headers), SECTOR_BYTES
    catalog_version = 0
    for place in _merged(directories, headers):
        repairs += len(place.lacking)
        _write_copies(directories, place.lacking, place.segment, place.offset, place.data)
        record = place.record
        t_last, t_last_sequence = tail.t_last, tail.t_last_sequence
        if record.transactions:
            last = record.transactions[-1]
            t_last, t_last_sequence = last.t_commit, record.sequence
            catalog_version = last.catalog_version + (last.catalog_change is not None)
        tail = JournalTail(record.epoch, record.sequence, record.digest, t_last, t_last_sequence)
        segment, offset = place.segment, place.offset + len(place.data)
    if segment != max(headers):
        # The last segment has a header and no record yet.
        segment, offset = max(headers), SECTOR_BYTES
    tail, offset = _fence(directories, tail, segment, offset)
    size = min(segment_path(directory, segment).stat().st_size for directory in directories)
    firsts = {number: header.first_sequence for number, header in headers.items()}
    return RecoveredJournal(tail, segment, offset, size, firsts, catalog_version, repairs)


def read_records(directories: Sequence[Path], from_sequence: int) -> Iterator[bytes]:
    """The records from ``from_sequence`` on, each from any copy that has it whole."""
    headers = _headers(directories)
    numbers = sorted(headers)
    for number, following in itertools.pairwise(numbers):
        if headers[following].first_sequence <= from_sequence:
            del headers[number]
    for place in _merged(directories, headers):
        if place.record.sequence >= from_sequence:
            yield place.data[: place.record.length]


def _headers(directories: Sequence[Path]) -> dict[int, SegmentHeader]:
    """Headers of all segments in use, from any copy."""
    headers: dict[int, SegmentHeader] = {}
    for directory in directories:
        for number in segment_numbers(directory):
            if number not in headers:
                with open(segment_path(directory, number), "rb") as file:
                    header = decode_segment_header(file.read(SECTOR_BYTES))
                if header is not None and header.number == number:
                    headers[number] = header
    return headers


def _merged(directories: Sequence[Path], headers: dict[int, SegmentHeader]) -> Iterator[_Place]:
    """Every record that is whole on any copy and continues the chain, in order."""
    sequence, digest = 0, NO_DIGEST
    for number in sorted(headers):
        header = headers[number]
        if sequence and (header.first_sequence != sequence or header.previous_digest != digest):
            raise JournalDamaged(
                f"{directories[0].name}: segment {number} starts with record {header.first_sequence}, but no copy has "
                f"a readable record {sequence}; restore one copy's directory from a backup ({_names(directories)})"
            )
        sequence, digest = header.first_sequence, header.previous_digest
        copies = [_read_segment(directory, number) for directory in directories]
        offset = SECTOR_BYTES
        while (place := _place(copies, number, offset, sequence, digest)) is not None:
            yield place
            sequence, digest = place.record.sequence + 1, place.record.digest
            offset += len(place.data)
        for directory, data in zip(directories, copies, strict=True):
            _check_nothing_behind(directory, number, data, offset, sequence)


def _place(copies: list[bytes], segment: int, offset: int, sequence: int, digest: bytes) -> _Place | None:
    """The record ``sequence`` at ``offset``, from the copy that has it whole; of two, the one of the later epoch."""
    best: Record | None = None
    best_data = b""
    for data in copies:
        if best is not None and data.startswith(best_data, offset):
            continue
        record = decode_record(data, offset, sequence, digest)
        if record is not None and (best is None or record.epoch > best.epoch):
            best = record
            best_data = data[offset : offset + record.length].ljust(padded(record.length), b"\0")
    if best is None:
        return None
    lacking = tuple(i for i, data in enumerate(copies) if not data.startswith(best_data, offset))
    return _Place(best, best_data, segment, offset, lacking)


def _check_nothing_behind(directory: Path, segment: int, data: bytes, offset: int, sequence: int) -> None:
    """Behind the last record only a torn write may lie: a whole record there was written behind a lost one."""
    at = data.find(MAGIC, offset)
    while at >= 0:
        if at % SECTOR_BYTES == 0 and is_whole_record_behind(data, at, sequence):
            raise JournalDamaged(
                f"{segment_path(directory, segment)}: record {sequence} at byte {offset} is unreadable on every copy, "
                f"but there are records behind it; restore one copy's directory from a backup"
            )
        at = data.find(MAGIC, at + 1)


def _read_segment(directory: Path, number: int) -> bytes:
    try:
        return segment_path(directory, number).read_bytes()
    except FileNotFoundError:
        return b""


def _start_journal(directories: Sequence[Path], size: int) -> None:
    header = encode_segment_header(SegmentHeader(1, 1, NO_DIGEST))
    for directory in directories:
        if not segment_path(directory, 1).exists():
            prepare_segment(directory, 1, size)
        sync_directory(directory.parent)
    _write_copies(directories, range(len(directories)), 1, 0, header)


def _repair_headers(directories: Sequence[Path], headers: dict[int, SegmentHeader]) -> int:
    repairs = 0
    for number, header in headers.items():
        data = encode_segment_header(header)
        lacking = [i for i, path in enumerate(directories) if not _starts_with(segment_path(path, number), data)]
        _write_copies(directories, lacking, number, 0, data)
        repairs += len(lacking)
    return repairs


def _starts_with(path: Path, data: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(data)) == data
    except FileNotFoundError:
        return False


def _fence(directories: Sequence[Path], tail: JournalTail, segment: int, offset: int) -> tuple[JournalTail, int]:
    """Append an empty record with the next epoch to all copies."""
    epoch, sequence = tail.epoch + 1, tail.sequence + 1
    record, digest = encode_record(epoch, sequence, tail.digest, ())
    data = record.ljust(padded(len(record)), b"\0")
    _write_copies(directories, range(len(directories)), segment, offset, data)
    return tail._replace(epoch=epoch, sequence=sequence, digest=digest), offset + len(data)


def _write_copies(directories: Sequence[Path], copies: Sequence[int], segment: int, offset: int, data: bytes) -> None:
    for i in copies:
        descriptor = open_segment(directories[i], segment)
        try:
            write_all(descriptor, data, offset)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _names(directories: Sequence[Path]) -> str:
    return ", ".join(str(directory) for directory in directories)
