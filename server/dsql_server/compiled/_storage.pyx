# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""Versions in storage: the loops over what RocksDB has.

See dsql_server.compiled.
"""

include "memory.pxi"


cdef inline bint is_version_of(bytes physical, bytes key):
    """Whether a physical key is ``key`` and a timestamp."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(key)
    return PyBytes_GET_SIZE(physical) == size + 8 and memcmp(
        PyBytes_AS_STRING(physical), PyBytes_AS_STRING(key), size
    ) == 0


cdef inline bytes value_of(bytes stored):
    """What a stored version holds; None: the key was deleted."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(stored)
    if size == 0:
        raise ValueError("a stored version without its tag")
    if PyBytes_AS_STRING(stored)[0] == 0:
        return None
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(stored) + 1, size - 1)


def read_versions(iterator, keys, bytes version not None):
    """See dsql_server.storage.node.StorageNode.get_many."""
    cdef list found = []
    cdef bytes key
    seek, valid, read_key, read_value = iterator.seek, iterator.valid, iterator.key, iterator.value
    for wanted in keys:
        key = wanted
        seek(key + version)
        if valid() and is_version_of(read_key(), key):
            found.append(value_of(read_value()))
        else:
            found.append(None)
    return found


def put_versions(put, mutations, bytes version not None):
    """See dsql_server.storage.node.StorageNode.apply_batch; how many of the mutations delete."""
    cdef bytes key, value, stored
    cdef Py_ssize_t size
    cdef char* to
    cdef int deleted = 0
    for mutation in mutations:
        key = mutation[0]
        if mutation[1] is None:
            deleted += 1
            put(key + version, b"\0")
            continue
        value = mutation[1]
        size = PyBytes_GET_SIZE(value)
        stored = PyBytes_FromStringAndSize(NULL, size + 1)
        to = PyBytes_AS_STRING(stored)
        to[0] = 1
        memcpy(to + 1, PyBytes_AS_STRING(value), size)
        put(key + version, stored)
    return deleted


cdef inline int compare(const char* one, Py_ssize_t one_size, const char* other, Py_ssize_t other_size) noexcept:
    cdef Py_ssize_t size = one_size if one_size < other_size else other_size
    cdef int found = memcmp(one, other, size)
    if found:
        return found
    return -1 if one_size < other_size else 1 if one_size > other_size else 0


def scan_versions(
    items, bytes start not None, bytes end not None, bytes newest not None, Py_ssize_t limit, int stepped_max
):
    """See dsql_server.storage.node.StorageNode._scan_forward: the rows of a scan without conditions, and how many
    versions were examined."""
    cdef list rows = []
    cdef bytes physical, stored, key, current = None, position = start
    cdef bytes behind = b"\xff" * 9
    cdef Py_ssize_t examined = 0, size
    cdef int stepped
    cdef bint again = True
    cdef const char* data
    if PyBytes_GET_SIZE(newest) != 8:
        raise ValueError("a version has eight bytes")
    while again:
        again = False
        stepped = 0
        for physical, stored in items(False, position):
            size = PyBytes_GET_SIZE(physical) - 8
            if size < 0:
                raise ValueError("a physical key without its version")
            data = PyBytes_AS_STRING(physical)
            if current is not None and size == PyBytes_GET_SIZE(current) and not memcmp(
                data, PyBytes_AS_STRING(current), size
            ):
                # Older than the version that was taken.
                examined += 1
                stepped += 1
                if stepped == stepped_max:
                    position = current + behind
                    again = True
                    break
                continue
            if compare(data, size, PyBytes_AS_STRING(end), PyBytes_GET_SIZE(end)) >= 0:
                return rows, examined
            examined += 1
            if memcmp(data + size, PyBytes_AS_STRING(newest), 8) < 0:
                # Committed after the snapshot.
                stepped += 1
                if stepped == stepped_max:
                    position = PyBytes_FromStringAndSize(data, size) + newest
                    again = True
                    break
                continue
            if compare(data, size, PyBytes_AS_STRING(start), PyBytes_GET_SIZE(start)) < 0:
                continue
            key = PyBytes_FromStringAndSize(data, size)
            current = key
            value = value_of(stored)
            if value is None:
                continue
            rows.append((key, value))
            if len(rows) == limit:
                return rows, examined
    return rows, examined


def scan_values(
    cursor, bytes start not None, bytes end not None, bytes newest not None, int stepped_max
):
    """See dsql_server.storage.node.StorageNode.values; and how many versions were examined."""
    cdef list values = []
    cdef bytes physical, stored, current = None, position = start
    cdef bytes behind = b"\xff" * 9
    cdef Py_ssize_t examined = 0, size
    cdef int stepped
    cdef const char* data
    if PyBytes_GET_SIZE(newest) != 8:
        raise ValueError("a version has eight bytes")
    while position is not None:
        cursor.seek(position)
        position = None
        stepped = 0
        while cursor.valid():
            physical = cursor.key()
            size = PyBytes_GET_SIZE(physical) - 8
            if size < 0:
                raise ValueError("a physical key without its version")
            data = PyBytes_AS_STRING(physical)
            if current is not None and PyBytes_GET_SIZE(current) == size + 8 and not memcmp(
                data, PyBytes_AS_STRING(current), size
            ):
                # Older than the version that was taken.
                examined += 1
                stepped += 1
                if stepped == stepped_max:
                    position = current[:size] + behind
                    break
            elif compare(data, size, PyBytes_AS_STRING(end), PyBytes_GET_SIZE(end)) >= 0:
                return values, examined
            elif memcmp(data + size, PyBytes_AS_STRING(newest), 8) < 0:
                # Committed after the snapshot.
                examined += 1
                stepped += 1
                if stepped == stepped_max:
                    position = PyBytes_FromStringAndSize(data, size) + newest
                    break
            else:
                examined += 1
                if compare(data, size, PyBytes_AS_STRING(start), PyBytes_GET_SIZE(start)) >= 0:
                    current = physical
                    value = value_of(cursor.value())
                    if value is not None:
                        values.append(value)
            cursor.next()
    # Also what cannot be read ends a cursor.
    cursor.status()
    return values, examined


def remembered(dict newest not None, keys, t):
    """See dsql_server.storage.recent_versions.RecentVersions.values."""
    cdef list values = [], unknown = []
    cdef tuple found
    for key in keys:
        found = newest.get(key)
        if found is not None and found[0] <= t:
            values.append(found[1])
        else:
            unknown.append(len(values))
            values.append(None)
    return values, unknown


cdef class PointReader:
    """See dsql_server.storage.router.StorageRouter.get, and that of its nodes."""

    cdef dict newest
    cdef list starts, shards, nodes
    cdef object get

    def __cinit__(self, dict newest not None, list starts not None, list shards not None, list nodes not None, get):
        """What the router goes by, which it changes in place; ``get`` is its own: it reads what isn't plain."""
        self.newest = newest
        self.starts = starts
        self.shards = shards
        self.nodes = nodes
        self.get = get

    def __call__(self, bytes key not None, t):
        cdef const char* data = PyBytes_AS_STRING(key)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(key), number = shard_of(self.starts, key)
        cdef uint64_t at = t, inverted = ~at
        cdef bytes start, wanted, stored
        cdef uint8_t* to
        if number < 0 or size < 4 or len(self.shards) != len(self.starts):
            return self.get(key, t)
        start = self.starts[number]
        if PyBytes_GET_SIZE(start) < 4 or memcmp(PyBytes_AS_STRING(start), data, 4):
            return self.get(key, t)  # the first key of its relation
        node = self.nodes[self.shards[number].node]
        cursor = node._cursor
        if cursor is None or at < <uint64_t>node._horizon:
            return self.get(key, t)
        node._gets += 1
        found = self.newest.get(key)
        if found is not None and found[0] <= t:
            return found[1]
        wanted = PyBytes_FromStringAndSize(NULL, size + 8)
        to = <uint8_t*>PyBytes_AS_STRING(wanted)
        memcpy(to, data, size)
        put64(to + size, <int64_t>inverted)
        cursor.seek(wanted)
        if not cursor.valid():
            cursor.status()
            return None
        if not is_version_of(cursor.key(), key):
            return None
        stored = cursor.value()
        return value_of(stored)


def visible_run(
    entries,
    pending,
    bytes start not None,
    bytes limit not None,
    bytes newest not None,
    Py_ssize_t entries_max,
    Py_ssize_t bytes_max,
):
    """See dsql_server.storage.visible_rows: tagged rows, their lengths, how many versions were examined, the greatest
    inverted timestamp below ``newest``, where the run ended before ``limit`` (None: there), and the entry behind it,
    if it was fetched. ``entries_max`` and ``bytes_max`` -1: as many as there are."""
    cdef Buffer rows, lengths
    cdef bytes physical, stored
    cdef bytes last = None, later = None, ended = None
    cdef const char* data
    cdef Py_ssize_t size, stored_size, examined = 0
    cdef uint32_t length
    cdef bint is_same, seen = False
    memset(&rows, 0, sizeof(Buffer))
    memset(&lengths, 0, sizeof(Buffer))
    if PyBytes_GET_SIZE(newest) != 8:
        raise ValueError("a version has eight bytes")
    try:
        while True:
            if pending is None:
                pending = next(entries, None)
                if pending is None:
                    break
            physical, stored = pending
            size = PyBytes_GET_SIZE(physical) - 8
            if size < 0:
                raise ValueError("a physical key without its version")
            data = PyBytes_AS_STRING(physical)
            is_same = last is not None and size == PyBytes_GET_SIZE(last) - 8 and not memcmp(
                data, PyBytes_AS_STRING(last), size
            )
            if not is_same:
                if compare(data, size, PyBytes_AS_STRING(limit), PyBytes_GET_SIZE(limit)) >= 0:
                    break
                if last is None and compare(data, size, PyBytes_AS_STRING(start), PyBytes_GET_SIZE(start)) < 0:
                    # A key that ``start`` prolongs: its versions may sort behind ``start``.
                    pending = None
                    continue
                if last is not None and (0 <= entries_max <= examined or 0 <= bytes_max <= rows.size):
                    ended = PyBytes_FromStringAndSize(data, size)
                    break
                seen = False
            pending = None
            last = physical
            examined += 1
            if memcmp(data + size, PyBytes_AS_STRING(newest), 8) < 0:
                # Committed after the snapshot.
                if later is None or memcmp(data + size, PyBytes_AS_STRING(later), 8) > 0:
                    later = PyBytes_FromStringAndSize(data + size, 8)
                continue
            if seen:
                continue
            seen = True
            stored_size = PyBytes_GET_SIZE(stored)
            if stored_size == 0:
                raise ValueError("a stored version without its tag")
            if PyBytes_AS_STRING(stored)[0] == 0:
                continue
            memcpy(grow(&rows, stored_size), PyBytes_AS_STRING(stored), stored_size)
            length = <uint32_t>stored_size
            memcpy(grow(&lengths, sizeof(length)), &length, sizeof(length))
        # A read of the widest number may begin at the last byte.
        memset(grow(&rows, 16), 0, 16)
        return taken(&rows), taken(&lengths), examined, later, ended, pending
    finally:
        free(rows.data)
        free(lengths.data)


# -- cutting transactions --------------------------------------------------------------------------------------

cdef Py_ssize_t shard_of(list starts, bytes key):
    """The last shard that starts at or before ``key``; the first one starts before all keys."""
    cdef Py_ssize_t low = 0, high = len(starts), middle
    cdef bytes start
    while low < high:
        middle = (low + high) >> 1
        start = starts[middle]
        if compare(
            PyBytes_AS_STRING(start), PyBytes_GET_SIZE(start), PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)
        ) <= 0:
            low = middle + 1
        else:
            high = middle
    return low - 1


def cut(mutations, list starts not None, list shards not None, set relations not None, Py_ssize_t rows_max, list full not None):
    """See dsql_server.storage.router.StorageRouter._cut: the parts by node, or None, and nothing is counted: a relation
    is new. ``full`` gets the shards that may have outgrown ``rows_max``."""
    cdef dict by_node = {}
    cdef list owners = [], part
    cdef bytes key, prefix = None
    cdef Py_ssize_t at, number = 0
    if len(starts) != len(shards) or not shards:
        raise ValueError("a map has a start for each shard")
    for mutation in mutations:
        key = mutation[0]
        if prefix is None or PyBytes_GET_SIZE(key) < 4 or memcmp(PyBytes_AS_STRING(key), PyBytes_AS_STRING(prefix), 4):
            prefix = key[:4]
            if PyBytes_GET_SIZE(prefix) < 4 or prefix not in relations:
                return None
        number = shard_of(starts, key)
        if number < 0:
            raise ValueError("a map without a first shard")
        shard = shards[number]
        node = shard.node
        part = by_node.get(node)
        if part is None:
            by_node[node] = [mutation]
        else:
            part.append(mutation)
        owners.append(shard)
    for at, mutation in enumerate(mutations):
        shard = owners[at]
        if mutation[1] is None:
            shard.rows -= 1
            continue
        key = mutation[0]
        if key > <bytes>shard.last_key:
            shard.last_key = key
            shard.appends += 1
        shard.writes += 1
        rows = shard.rows + 1
        shard.rows = rows
        if rows > rows_max and shard.is_to_be_counted(rows_max):
            full.append(shard)
    return list(by_node.items())
