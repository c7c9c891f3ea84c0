"""Several storage nodes behind one reader: routes keys, stitches ranges together, splits shards that grow."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dsql_server import compiled
from dsql_server.encoding.keys import RELATION_PREFIX_BYTES
from dsql_server.interfaces.commit_path import (
    Aggregate,
    GroupColumn,
    GroupSteps,
    ScanRequest,
    ScanResult,
    Steps,
    run_to_end,
)
from dsql_server.interfaces.messages import Mutation, Timestamp
from dsql_server.storage import rocks
from dsql_server.storage.aggregates import combine
from dsql_server.storage.node import TIMESTAMP_MAX, StorageNode
from dsql_server.storage.range_map import FIRST_SPLITS, RangeMap, Shard
from dsql_server.storage.recent_versions import RecentVersions

NODES_DEFAULT = 2
#: A shard with more rows than this is split.
SHARD_ROWS_MAX = 32_768
#: An estimate counts up to so many rows; above, it trusts what the shards' sizes were last seen to be.
ROWS_COUNTED_MAX = 1000
#: Keys past every key there can be.
_END_OF_KEYS = b"\xff" * RELATION_PREFIX_BYTES
_MAP_NOTE = "range-map"


def _cut(
    mutations: Sequence[Mutation],
    starts: list[bytes],
    shards: list[Shard],
    relations: set[bytes],
    rows_max: int,
    full: list[Shard],
) -> list[tuple[int, list[Mutation]]] | None:
    """The mutations by the node that owns them, counted as written to their shards.

    None, and nothing is counted, if one is of a relation that isn't in ``relations``. ``full`` gets the shards that may
    have outgrown ``rows_max``.
    """
    if not all(key[:RELATION_PREFIX_BYTES] in relations for key, _ in mutations):
        return None
    by_node: dict[int, list[Mutation]] = {}
    for mutation in mutations:
        key, value = mutation
        shard = shards[bisect_right(starts, key) - 1]
        by_node.setdefault(shard.node, []).append(mutation)
        if value is None:
            shard.rows -= 1
            continue
        if key > shard.last_key:
            shard.last_key = key
            shard.appends += 1
        shard.writes += 1
        shard.rows += 1
        if shard.rows > rows_max and shard.is_to_be_counted(rows_max):
            full.append(shard)
    return list(by_node.items())


cut = _cut if compiled.storage is None else compiled.storage.cut


class StorageRouter:
    """Storage nodes under one directory, one subdirectory each. ``close`` it.

    Implements :class:`dsql_server.interfaces.commit_path.StorageReader` over all shards. Not thread-safe.
    Raises ValueError if the directory was made with another number of nodes.
    """

    def __init__(
        self,
        directory: Path,
        nodes: int = NODES_DEFAULT,
        shard_rows_max: int = SHARD_ROWS_MAX,
        cache_bytes: int = rocks.BLOCK_CACHE_BYTES,
    ) -> None:
        self.directory = directory
        self._shard_rows_max = shard_rows_max
        self.nodes: list[StorageNode] = []
        self._packing = 0  #: which of them packed last
        self._recent = RecentVersions()
        self._find_recent = self._recent.find
        try:
            for at in range(nodes):
                self.nodes.append(StorageNode(directory / f"node-{at}", cache_bytes // nodes, self._recent))
            self._map = self._load_map(nodes)
        except BaseException:
            self.close()
            raise
        #: reads below it fail on some node
        self._horizon = max(node.horizon for node in self.nodes)
        self._cut_ahead: tuple[Sequence[Mutation], list[tuple[int, list[Mutation]]]] | None = None
        # The map changes these in place; the hot paths hold on to them.
        self._starts, self._shards, self._relations = self._map.starts, self._map.shards, self._map.relations
        if compiled.storage is not None:
            point_reader = compiled.storage.PointReader
            self.get = point_reader(self._recent.newest, self._starts, self._shards, self.nodes, self.get)  # type: ignore[method-assign]

    def _load_map(self, nodes: int) -> RangeMap:
        dumped = self.nodes[0].get_note(_MAP_NOTE)
        range_map = RangeMap(nodes) if dumped is None else RangeMap.load(dumped)
        if range_map.nodes != nodes:
            raise ValueError(
                f"{self.directory} holds the data of {range_map.nodes} storage nodes, not {nodes}:"
                f" start with {range_map.nodes} nodes or with an empty directory"
            )
        for node in self.nodes:
            for prefix in node.relation_prefixes():
                range_map.add_relation(prefix)
        if dumped is None:
            self.nodes[0].put_note(_MAP_NOTE, range_map.dump())
        return range_map

    # Reading -----------------------------------------------------------------------------------------------------

    def get(self, key: bytes, t: Timestamp) -> bytes | None:
        """The value of the key as of ``t``, or None. Raises SnapshotTooOld."""
        recent = self._find_recent(key)
        if recent is not None and recent[0] <= t >= self._horizon:
            return recent[1]
        if key[:RELATION_PREFIX_BYTES] not in self._relations:
            self._map.add_relation(key[:RELATION_PREFIX_BYTES])
        return self.nodes[self._shards[bisect_right(self._starts, key) - 1].node].get(key, t)

    def get_many(self, keys: Sequence[bytes], t: Timestamp) -> list[bytes | None]:
        """The values of the keys as of ``t``, in their order. Raises SnapshotTooOld."""
        if t < self._horizon:
            return self.nodes[0].get_many(keys, t)
        values, unknown = self._recent.values(keys, t)
        if unknown:
            self._read_many(keys, unknown, t, values)
        return values

    def _read_many(self, keys: Sequence[bytes], places: list[int], t: Timestamp, values: list[bytes | None]) -> None:
        """Put the values of the keys at these places into ``values``."""
        relations, shards, starts = self._relations, self._shards, self._starts
        wanted: dict[int, list[int]] = {}
        for at in places:
            key = keys[at]
            if key[:RELATION_PREFIX_BYTES] not in relations:
                self._map.add_relation(key[:RELATION_PREFIX_BYTES])
            number = shards[bisect_right(starts, key) - 1].node
            if number in wanted:
                wanted[number].append(at)
            else:
                wanted[number] = [at]
        for number, own in wanted.items():
            for at, value in zip(own, self.nodes[number].get_many([keys[at] for at in own], t), strict=True):
                values[at] = value

    def look_up(self, start: bytes, end: bytes, t: Timestamp) -> list[bytes]:
        """The rows that the index entries from ``start`` to below ``end`` point to, each once, in the entries' order.

        Raises SnapshotTooOld.
        """
        first = bisect_right(self._starts, start)
        is_on_one_node = first == len(self._starts) or end <= self._starts[first]
        if is_on_one_node and start[:RELATION_PREFIX_BYTES] in self._relations:
            keys = self.nodes[self._shards[first - 1].node].values(start, end, t)
        else:
            keys = [key for _, key in self.scan(ScanRequest(start, end, t)).rows]
        if len(keys) > 1 and len(set(keys)) < len(keys):
            keys = list(dict.fromkeys(keys))
        return [row for row in self.get_many(keys, t) if row is not None]

    def _pieces(self, request: ScanRequest) -> Iterator[tuple[StorageNode, ScanRequest]]:
        """The request cut into one part for each run of shards on the same node, in the request's order.

        The map must not change meanwhile. A table may have thousands of shards: who has enough stops asking.
        """
        start, end = request.start, request.end
        prefix = start[:RELATION_PREFIX_BYTES]
        if prefix not in self._relations and len(prefix) == RELATION_PREFIX_BYTES and prefix < _END_OF_KEYS:
            self._map.add_relation(prefix)
        shards, starts = self._shards, self._starts
        indexes = self._map.indexes_of(start, end)
        if len(indexes) <= 1:
            yield self.nodes[shards[indexes.start].node], request
            return
        step = -1 if request.reverse else 1
        at = indexes[-1] if request.reverse else indexes[0]
        while at in indexes:
            node, first = shards[at].node, at
            while at + step in indexes and shards[at + step].node == node:
                at += step
            lowest, highest = min(first, at), max(first, at)
            piece_start = start if lowest == indexes[0] else starts[lowest]
            piece_end = end if highest == indexes[-1] else starts[highest + 1]
            yield self.nodes[node], request._replace(start=piece_start, end=piece_end)
            at += step

    def scan(self, request: ScanRequest) -> ScanResult:
        """Rows with start <= key < end as of t over all shards, in key order or in reverse. Raises SnapshotTooOld."""
        start, end = request.start, request.end
        if start >= end:
            return ScanResult([], 0, 0)
        if start[:RELATION_PREFIX_BYTES] in self._relations:
            first = bisect_right(self._starts, start)
            if first == len(self._starts) or end <= self._starts[first]:
                return self.nodes[self._shards[first - 1].node].scan(request)
        limit = request.limit
        rows: list[tuple[bytes, bytes]] = []
        examined = filtered = 0
        for node, piece in self._pieces(request):
            part = node.scan(piece if limit is None else piece._replace(limit=limit - len(rows)))
            if rows:
                rows += part.rows
            else:
                rows = part.rows
            examined += part.examined
            filtered += part.filtered
            if limit is not None and len(rows) >= limit:
                break
        return ScanResult(rows, examined, filtered)

    def aggregate(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> list[object]:
        """Aggregates over all shards; results as :meth:`dsql_server.storage.node.StorageNode.aggregate` has them."""
        return run_to_end(self.aggregate_steps(request, aggregates))

    def aggregate_steps(self, request: ScanRequest, aggregates: Sequence[Aggregate]) -> Steps:
        """As :meth:`aggregate`, a step at a time."""
        if request.start >= request.end:
            return combine(aggregates, [])
        partials = []
        for node, piece in list(self._pieces(request)):  # a step later the map may be another
            partials.append((yield from node.aggregate_steps(piece, aggregates)))
        return partials[0] if len(partials) == 1 else combine(aggregates, partials)

    def group_steps(
        self, request: ScanRequest, columns: Sequence[GroupColumn], aggregates: Sequence[Aggregate], groups_max: int
    ) -> GroupSteps:
        """As :meth:`aggregate_steps`, for each group of rows. Raises TooManyGroups above ``groups_max``."""
        pieces: dict[StorageNode, list[ScanRequest]] = {}
        for node, piece in self._pieces(request) if request.start < request.end else ():
            pieces.setdefault(node, []).append(piece)
        partials = []
        for node, own in pieces.items():
            partials.append((yield from node.group_steps(own, columns, aggregates, groups_max)))
        if not partials:
            return {}
        from dsql_server.storage.groups import combine_groups  # with numpy, which no start waits for

        return combine_groups(aggregates, partials, groups_max)

    def estimate_rows(self, start: bytes, end: bytes, t: Timestamp) -> int:
        """About how many rows or entries there are with start <= key < end; exact below ``ROWS_COUNTED_MAX``."""
        few = len(self.scan(ScanRequest(start, end, t, projection=(), limit=ROWS_COUNTED_MAX)).rows)
        if few < ROWS_COUNTED_MAX:
            return few
        return max(few, sum(self._shards[index].rows for index in self._map.indexes_of(start, end)))

    # Applying ----------------------------------------------------------------------------------------------------

    def appliers(self) -> Sequence[StorageNode]:
        """The nodes, by the indexes that :meth:`split` gives."""
        return self.nodes

    def split(self, mutations: Sequence[Mutation]) -> list[tuple[int, list[Mutation]]]:
        """Cut one transaction's mutations by owner: (node index, its mutations), in order. Call it in commit order."""
        ahead = self._cut_ahead
        if ahead is not None and ahead[0] is mutations:
            self._cut_ahead = None
            return ahead[1]
        return self._cut(mutations)

    def prepare(self, t: Timestamp, mutations: Sequence[Mutation], is_over: Callable[[], bool]) -> bool:
        """Do now what :meth:`split` and the nodes will do for a transaction that commits at ``t``: there is time while
        its record is on its way to the disk. Only the last one is kept, and nobody sees anything of it.

        ``is_over`` is asked every now and then whether it is on its way no more: that is said, too.
        """
        parts = self._cut(mutations)
        self._cut_ahead = mutations, parts
        for index, part in parts:
            if is_over():
                return True
            self.nodes[index].prepare(t, part)
        return is_over()

    def _cut(self, mutations: Sequence[Mutation]) -> list[tuple[int, list[Mutation]]]:
        full: list[Shard] = []
        while (
            parts := cut(mutations, self._starts, self._shards, self._relations, self._shard_rows_max, full)
        ) is None:
            for key, _ in mutations:
                self._map.add_relation(key[:RELATION_PREFIX_BYTES])
        for shard in full:
            if shard.is_to_be_counted(self._shard_rows_max):
                self._split_shard(shard)
        return parts

    def _split_shard(self, shard: Shard) -> None:
        """Count a shard that seems full and cut it: its empty tail off, or in the middle."""
        node = self.nodes[shard.node]
        index = self._map.index_of(shard.start)
        end = self._starts[index + 1] if index + 1 < len(self._starts) else _END_OF_KEYS
        request = ScanRequest(shard.start, end, TIMESTAMP_MAX, projection=(), limit=2 * self._shard_rows_max)
        found = node.scan(request).rows
        shard.rows = shard.counted = len(found)
        grows_at_its_end = 2 * shard.appends > shard.writes
        shard.appends = shard.writes = 0
        if 2 * len(found) <= self._shard_rows_max:
            return  # the same rows written again and again
        tail = shard.last_key + b"\0"
        # What is on its way to the node was routed here and moved last_key; what it holds, the node says itself.
        if grows_at_its_end and tail < end and node.holds_nothing_from(tail, end):
            self._map.add_shard(Shard(tail, self._node_with_fewest_rows()))
        else:
            middle = len(found) // 2
            behind = len(found) - middle
            self._map.add_shard(Shard(found[middle][0], shard.node, behind, shard.last_key, counted=behind))
            shard.rows = shard.counted = middle
            shard.last_key = found[middle - 1][0]
        node.aggregator()  # the first query over a table that large isn't the one that waits for numpy
        # Before a row goes by the new map, the map is on disk: no replay may route it otherwise.
        self.nodes[0].put_note(_MAP_NOTE, self._map.dump())

    @property
    def has_large_tables(self) -> bool:
        """Whether some relation has outgrown the shards that it began with."""
        return len(self._shards) > 1 + len(FIRST_SPLITS) * len(self._relations)

    def prepare_aggregates(self) -> None:
        """Load what aggregates need; any thread may do it, while others read and write."""
        for node in self.nodes:
            node.aggregator()

    def _node_with_fewest_rows(self) -> int:
        rows = [0] * len(self.nodes)
        for shard in self._shards:
            rows[shard.node] += shard.rows
        return rows.index(min(rows))

    def count_rows(self, t: Timestamp) -> list[int]:
        """The exact number of rows and entries of each shard as of ``t``, in map order; reads them all."""
        ends = [*self._starts[1:], _END_OF_KEYS]
        counts: list[int] = []
        for shard, end in zip(self._shards, ends, strict=True):
            request = ScanRequest(shard.start, end, t)
            (count,) = self.nodes[shard.node].aggregate(request, (Aggregate("count", None, 0),))
            assert isinstance(count, int), "count(*) is a number"
            counts.append(count)
        return counts

    def collect_garbage(self, older_than: Timestamp, budget: int) -> int:
        """Look at up to ``budget`` versions on each node; returns how many were dropped.

        Reads below ``older_than`` fail from now on. Meant to be called again and again, with a budget small enough
        for the caller's event loop (about a microsecond a version).
        """
        self._horizon = max(self._horizon, older_than)
        return sum(node.collect_garbage(older_than, budget) for node in self.nodes)

    def pack_rows(self) -> None:
        """Let a node, another one each time, pack a few of the rows that nobody writes to: about a millisecond."""
        self._packing = (self._packing + 1) % len(self.nodes)
        self.nodes[self._packing].pack_rows(self._starts)

    def checkpoint(self) -> list[dict[str, int]]:
        """Make durable what every node has applied; the journal positions of each, by node index."""
        return [node.checkpoint() for node in self.nodes]

    @property
    def size_bytes(self) -> int:
        """What all nodes hold, in bytes, as far as is known."""
        return sum(node.size_bytes for node in self.nodes)

    def metrics(self) -> dict[str, object]:
        """The range map with estimated rows, and each node's counters."""
        return {
            "map_version": self._map.version,
            "shards": [
                {"start": shard.start.hex(), "node": shard.node, "rows_estimate": max(shard.rows, 0)}
                for shard in self._shards
            ],
            "nodes": [node.metrics() for node in self.nodes],
        }

    def close(self) -> None:
        """Close all nodes; harmless when repeated."""
        for node in self.nodes:
            node.close()
