"""Which adjudicator owns a key: a versioned map from hash buckets to owners."""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

#: Fixed for good: a key's bucket never changes, only a bucket's owner does. A power of two.
BUCKETS = 256


class ShardMap(NamedTuple):
    """The owner of every bucket, as an index into the list of adjudicators."""

    version: int
    owners: tuple[int, ...]

    def owner(self, key: bytes) -> int:
        """Index of the adjudicator that owns ``key``."""
        return self.owners[crc32(key) & (BUCKETS - 1)]


def even_shard_map(adjudicators: int) -> ShardMap:
    """The first version, with the buckets dealt out in turn."""
    assert 0 < adjudicators <= BUCKETS, f"{adjudicators} adjudicators for {BUCKETS} buckets"
    return ShardMap(1, tuple(bucket % adjudicators for bucket in range(BUCKETS)))
