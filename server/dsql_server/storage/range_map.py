"""Which storage node owns which keys: ranges in key order, each with its node, under a version number.

The map is the only place that knows. A relation seen for the first time is split ahead into ranges that alternate
between the nodes, so the rows of one table spread (random UUIDs evenly). That split depends on nothing but the
relation and the number of nodes: a map that lost it in a crash makes the same one again. Later splits do not move
data: a full shard splits in its middle on the same node, or, where rows only ever come at its end (counters, times),
an empty tail is cut off and may go to another node.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field

from dsql_server.encoding.keys import NOT_NULL, RELATION_PREFIX_BYTES

#: Where a new relation is split, behind its prefix: quarters of the first key column's first byte.
FIRST_SPLITS = (b"", NOT_NULL + b"\x40", NOT_NULL + b"\x80", NOT_NULL + b"\xc0")

_FORMAT = 1


@dataclass
class Shard:
    """The keys from ``start`` up to the next shard's start."""

    start: bytes
    node: int
    rows: int = 0  #: an estimate: counted when last looked at, plus insertions and updates, minus deletions since
    last_key: bytes = field(default=b"", repr=False)  #: the greatest key routed here since the map was opened
    appends: int = 0  #: writes above all earlier ones, since the shard was last looked at
    writes: int = 0  #: all writes but deletions since then
    counted: int = 0  #: rows when it was last looked at

    def is_to_be_counted(self, rows_max: int) -> bool:
        """Whether it may have outgrown ``rows_max``, and enough was written to it to be worth another look."""
        return self.rows > rows_max and 2 * (self.rows - self.counted) > rows_max


class RangeMap:
    """Versioned, ordered, without gaps. ``version`` rises with every change."""

    def __init__(self, nodes: int) -> None:
        assert nodes >= 1, "a range map needs a storage node"
        self.nodes = nodes
        self.version = 1
        self.starts: list[bytes] = [b""]
        self.shards: list[Shard] = [Shard(b"", 0)]
        self.relations: set[bytes] = set()

    def index_of(self, key: bytes) -> int:
        """The number of the shard that owns the key; its relation must be known."""
        return bisect_right(self.starts, key) - 1

    def indexes_of(self, start: bytes, end: bytes) -> range:
        """The numbers of all shards that overlap start <= key < end, in key order."""
        return range(bisect_right(self.starts, start) - 1, bisect_left(self.starts, end))

    def add_relation(self, prefix: bytes) -> None:
        """Split a relation ahead, the same way every time; harmless for one that is known."""
        if prefix in self.relations:
            return
        assert len(prefix) == RELATION_PREFIX_BYTES, "a key starts with a relation id of four bytes"
        self.relations.add(prefix)
        first = int.from_bytes(prefix, "big")
        for at, split in enumerate(FIRST_SPLITS):
            self.add_shard(Shard(prefix + split, (first + at) % self.nodes))

    def add_shard(self, shard: Shard) -> None:
        """Cut a shard off at ``shard.start`` from the one that held it; if one starts there already, keep that."""
        at = bisect_left(self.starts, shard.start)
        if at < len(self.starts) and self.starts[at] == shard.start:
            return
        insort(self.starts, shard.start)
        self.shards.insert(at, shard)
        self.version += 1

    def dump(self) -> bytes:
        """The map as bytes, for :meth:`load`."""
        return json.dumps(
            {
                "format": _FORMAT,
                "version": self.version,
                "nodes": self.nodes,
                "relations": sorted(prefix.hex() for prefix in self.relations),
                "shards": [[shard.start.hex(), shard.node, shard.rows] for shard in self.shards],
            }
        ).encode()

    @classmethod
    def load(cls, dumped: bytes) -> RangeMap:
        """The map that was dumped. Raises ValueError for another format."""
        content = json.loads(dumped)
        if content["format"] != _FORMAT:
            raise ValueError(
                f"the range map has format {content['format']}, this version reads {_FORMAT}:"
                " use the version that wrote it"
            )
        loaded = cls(content["nodes"])
        loaded.version = content["version"]
        loaded.relations = {bytes.fromhex(prefix) for prefix in content["relations"]}
        loaded.shards = [
            Shard(bytes.fromhex(start), node, rows, counted=rows) for start, node, rows in content["shards"]
        ]
        loaded.starts = [shard.start for shard in loaded.shards]
        assert loaded.starts == sorted(loaded.starts) and loaded.starts[0] == b"", (
            "a range map is ordered, without gaps"
        )
        return loaded
