"""How a storage node uses RocksDB: no write-ahead log (the journal is the durability), byte order, raw bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, ReadOptions, WriteBatch, WriteOptions

BLOCK_CACHE_BYTES = 256 * 1024 * 1024
MEMTABLE_BYTES = 32 * 1024 * 1024
BLOCK_BYTES = 4 * 1024
BACKGROUND_JOBS_MAX = 2
LOG_FILES_MAX = 2
#: Compact a file when this many of any window of its entries are deletions, so that scans don't wade through them.
DELETIONS_WINDOW_ENTRIES = 1024
DELETIONS_PER_WINDOW_MAX = 512


class CannotOpenStorage(Exception):
    """A storage directory is locked by another server, damaged or not writable."""


class Batch(Protocol):
    """Writes that become visible, and durable, together."""

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def __len__(self) -> int: ...


class Cursor(Protocol):
    """A position among the keys as they were when it was made."""

    def seek(self, key: bytes) -> None: ...

    def valid(self) -> bool: ...

    def key(self) -> bytes: ...

    def value(self) -> bytes: ...

    def status(self) -> None:
        """Raises where a cursor isn't valid because the database couldn't be read."""
        ...


class Database(Protocol):
    """What nodes use of :class:`rocksdict.Rdict`, in its raw mode, where keys and values are bytes."""

    def get(self, key: bytes, /) -> bytes | None: ...

    def put(self, key: bytes, value: bytes, write_opt: WriteOptions, /) -> None: ...

    def items(
        self, backwards: bool, from_key: bytes, read_opt: ReadOptions | None = None, /
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs from the first key at or above ``from_key`` on (backwards: at or below it)."""
        ...

    def iter(self) -> Cursor: ...

    def write(self, batch: Batch, /) -> None: ...

    def latest_sequence_number(self) -> int:
        """Greater after every write."""
        ...

    def flush(self, wait: bool, /) -> None: ...

    def property_int_value(self, name: str, /) -> int | None: ...

    def close(self) -> None: ...


def new_batch() -> Batch:
    """An empty batch for :meth:`Database.write`."""
    return cast(Batch, WriteBatch(raw_mode=True))


def open_database(path: Path, cache_bytes: int = BLOCK_CACHE_BYTES) -> Database:
    """Open or create the database directory; writes skip the log unless they ask for :func:`logged_write`.

    Raises CannotOpenStorage if the directory is locked, damaged or not writable.
    """
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(cache_bytes))
    tables.set_block_size(BLOCK_BYTES)
    tables.set_format_version(5)

    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(tables)
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX)
    options.set_keep_log_file_num(LOG_FILES_MAX)
    options.set_stats_dump_period_sec(0)
    options.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW_ENTRIES, DELETIONS_PER_WINDOW_MAX, 0.5)

    path.mkdir(parents=True, exist_ok=True)
    try:
        database = Rdict(str(path), options)
    except Exception as error:  # rocksdict raises nothing narrower
        raise CannotOpenStorage(
            f"the storage directory {path} cannot be opened: {error};"
            " end the server that uses it, or use another directory"
        ) from error
    unlogged: Any = WriteOptions()
    unlogged.disable_wal = True
    database.set_write_options(unlogged)
    return cast(Database, database)


def sweeping_read(end: bytes | None = None) -> ReadOptions:
    """For reads of very many entries up to ``end``, once: without driving others out of the cache.

    Whoever gives an end keeps the options as long as the iterator: it points into them.
    """
    options: Any = ReadOptions()
    options.fill_cache(False)
    if end is not None:
        options.set_iterate_upper_bound(end)
    return cast(ReadOptions, options)


def logged_write() -> WriteOptions:
    """For the few writes that no journal carries: through the log, and on disk when the write returns."""
    options: Any = WriteOptions()
    options.sync = True
    return cast(WriteOptions, options)
