"""Segment files: where the records of one journal copy lie on disk.

A copy is a directory of numbered segments. All copies of a journal cut their segments at the same records, so a record
lies at the same place in each of them, and a damaged one can be stepped over with the length that another copy knows.

A segment starts with a header that names its first record and the digest before it; records follow, each on a sector of
its own. What lies behind the last record is zeroes, or the remains of a write that was never acknowledged.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from struct import Struct
from threading import Event
from time import monotonic
from typing import NamedTuple
from zlib import crc32

#: Disks write sectors whole: a record that is torn by a power failure never damages an acknowledged one before it.
SECTOR_BYTES = 512
#: Large enough that a new segment is rare, small enough that trimming follows checkpoints closely.
SEGMENT_BYTES_MAX = 16 * 1024 * 1024
#: The first segment is written in full before a new journal is ready; from there on each is twice as large.
FIRST_SEGMENT_BYTES = 1024 * 1024
_ZERO_CHUNK = bytes(256 * 1024)
#: Preparing a segment rests this many times as long as it writes: commits share the disk.
_REST_FACTOR = 3

_SEGMENT_HEADER = Struct("<8sIQQ16s")
_SEGMENT_MAGIC = b"DSQLJRN1"


class SegmentHeader(NamedTuple):
    number: int
    first_sequence: int
    previous_digest: bytes  #: of the record before the first


def encode_segment_header(header: SegmentHeader) -> bytes:
    """One sector."""
    body = _SEGMENT_HEADER.pack(_SEGMENT_MAGIC, 0, *header)
    packed = _SEGMENT_HEADER.pack(_SEGMENT_MAGIC, crc32(body), *header)
    return packed.ljust(SECTOR_BYTES, b"\0")


def decode_segment_header(data: bytes) -> SegmentHeader | None:
    """The header of a segment that is in use, or None if it is unused or damaged."""
    if len(data) < SECTOR_BYTES:
        return None
    magic, crc, number, first_sequence, previous_digest = _SEGMENT_HEADER.unpack_from(data)
    header = SegmentHeader(number, first_sequence, previous_digest)
    if magic != _SEGMENT_MAGIC or crc32(_SEGMENT_HEADER.pack(_SEGMENT_MAGIC, 0, *header)) != crc:
        return None
    return header


def padded(length: int) -> int:
    """``length`` rounded up to whole sectors."""
    return -(-length // SECTOR_BYTES) * SECTOR_BYTES


def segment_bytes(number: int, bytes_max: int) -> int:
    """The size that segment ``number`` is prepared with."""
    return min(bytes_max, FIRST_SEGMENT_BYTES << min(number - 1, 32))


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:010d}.segment"


def segment_numbers(directory: Path) -> list[int]:
    """Numbers of the segments of a copy, rising; used and prepared ones alike."""
    return sorted(int(path.stem) for path in directory.glob("*.segment"))


def open_segment(directory: Path, number: int) -> int:
    """A file descriptor to write segment ``number``; the caller closes it. Creates the file if it isn't prepared."""
    path = segment_path(directory, number)
    try:
        return os.open(path, os.O_RDWR)
    except FileNotFoundError:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:  # prepared just now
            return os.open(path, os.O_RDWR)
        sync_directory(directory)
        return descriptor


def prepare_segment(directory: Path, number: int, size: int, stop: Event | None = None) -> None:
    """Create segment ``number`` full of zeroes, so that syncing a record later needs no change of the file's size.

    With ``stop`` it takes its time, to leave the disk to others, and ends early when that is set. Does nothing if the
    segment has come into use meanwhile.
    """
    unfinished = directory / f"{number:010d}.preparing"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for at in range(0, size, len(_ZERO_CHUNK)):
            started = monotonic()
            write_all(descriptor, _ZERO_CHUNK[: size - at], at)
            if stop is not None:
                os.fdatasync(descriptor)
                if stop.wait(_REST_FACTOR * (monotonic() - started)):
                    return
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            # A link, and not a rename: it never replaces a segment that a writer couldn't wait for.
            os.link(unfinished, segment_path(directory, number))
    finally:
        os.close(descriptor)
        unfinished.unlink()
    sync_directory(directory)


def write_all(descriptor: int, data: bytes, at: int) -> None:
    """``os.pwrite`` until everything is written."""
    written = os.pwrite(descriptor, data, at)
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], at + written)


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
