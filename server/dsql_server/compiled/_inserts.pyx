# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""One-row INSERTs in a transaction block: from the request to the row, its key and what it comes to at COMMIT.

See dsql_server.compiled.
"""

include "memory.pxi"
include "fields.pxi"
include "keys.pxi"
include "parameters.pxi"
include "executions.pxi"

from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_SET_ITEM
from cpython.type cimport PyType_GenericAlloc

from time import monotonic

from dsql_server.interfaces.messages import Claim, CommitRequest, LockMode, Mutation

cdef object UPDATE = LockMode.UPDATE
cdef Py_ssize_t RELATION_PREFIX_BYTES = 4


cdef inline void put_item(object made, Py_ssize_t at, object item):
    Py_INCREF(item)
    PyTuple_SET_ITEM(made, at, item)


cdef inline object pair(object kind, object first, object second):
    """A NamedTuple of two fields."""
    made = PyType_GenericAlloc(kind, 2)
    put_item(made, 0, first)
    put_item(made, 1, second)
    return made


# -- what is known of a statement ------------------------------------------------------------------------------

cdef class Insert:
    """A prepared one-row INSERT, what its execution is answered with, and as of when all of that is known.

    See dsql_server.frontend.block_inserts.
    """

    cdef readonly object direct
    cdef long long version, settings_changes
    cdef int parameters, count
    cdef int* sources
    cdef int* places
    cdef int* sizes
    cdef char* nullable
    cdef tuple calls
    cdef bytes results, answer, described
    cdef RowKey key
    cdef tuple entries
    cdef object bound_of

    def __cinit__(
        self,
        direct,
        version,
        settings_changes,
        fields,
        bytes results not None,
        bytes answer not None,
        bytes described not None,
        key,
        entries,
        bound_of,
    ):
        """``fields``: (source, place, size, call, whether it may be NULL); ``key`` and each of ``entries``: the first
        bytes and the columns of a RowKey. ``bound_of`` makes the Bound of a request."""
        self.direct = direct
        self.version = version
        self.settings_changes = settings_changes
        self.parameters = len(direct.parameter_oids)
        self.count = len(fields)
        self.sources = <int*>malloc(sizeof(int) * (self.count + 1))
        self.places = <int*>malloc(sizeof(int) * (self.count + 1))
        self.sizes = <int*>malloc(sizeof(int) * (self.count + 1))
        self.nullable = <char*>malloc(self.count + 1)
        if self.sources == NULL or self.places == NULL or self.sizes == NULL or self.nullable == NULL:
            raise MemoryError()
        self.calls = tuple([call for _, _, _, call, _ in fields])
        for at, (source, place, size, _, nullable) in enumerate(fields):
            if source not in (COMPUTED, KNOWN) and not 0 <= place < self.parameters:
                raise ValueError("a parameter that isn't there")
            self.sources[at] = source
            self.places[at] = place
            self.sizes[at] = size
            self.nullable[at] = 1 if nullable else 0
        self.results = results
        self.answer = answer
        self.described = described
        self.key = RowKey(*key)
        self.entries = tuple([RowKey(*entry) for entry in entries])
        self.bound_of = bound_of

    def __dealloc__(self):
        free(self.sources)
        free(self.places)
        free(self.sizes)
        free(self.nullable)

    cdef int put_row(self, Buffer* out, bytes data, const Execution* execution) except -1:
        """The row as it will be stored; ``execution`` is found in ``data`` and has as many values as parameters."""
        cdef const uint8_t* on_stack[64]
        cdef const uint8_t** values = on_stack
        cdef const uint8_t* at = execution.values
        cdef const uint8_t* value
        cdef uint8_t* to
        cdef int i, source
        cdef int32_t length
        cdef object bound = None
        if execution.number > 64:
            values = <const uint8_t**>malloc(sizeof(uint8_t*) * execution.number)
            if values == NULL:
                raise MemoryError()
        try:
            for i in range(execution.number):
                values[i] = at
                length = i32(at)
                at += 4 + (length if length > 0 else 0)
            to = grow(out, 2)
            to[0] = <uint8_t>(self.count >> 8)
            to[1] = <uint8_t>self.count
            for i in range(self.count):
                source = self.sources[i]
                if source == KNOWN:
                    put_value(out, self.calls[i])
                    continue
                if source != COMPUTED:
                    value = values[self.places[i]]
                    length = i32(value)
                    if length < 0:
                        if self.nullable[i]:
                            put32(grow(out, 4), -1)
                            continue
                    elif not put_parameter(
                        out, source, self.sizes[i], format_of(execution, self.places[i]), value + 4, length
                    ):
                        continue
                if bound is None:
                    bound = self.bound_of(data)
                put_value(out, self.calls[i](bound))
            return 0
        finally:
            if values != on_stack:
                free(values)


cdef class CompiledUntold:
    """See dsql_server.processor.workspace.Untold."""

    cdef Insert insert
    cdef bytes row, key, request

    @property
    def sql(self):
        return self.insert.direct.sql

    @property
    def parameter_oids(self):
        return self.insert.direct.parameter_oids

    @property
    def bound(self):
        return self.insert.bound_of(self.request)

    def changes(self):
        cdef list claims = []
        cdef list mutations = []
        self.add_changes(claims, mutations)
        return claims, mutations

    cdef Py_ssize_t add_changes(self, list claims, list mutations) except -1:
        """Add them; returns the bytes of what is written."""
        cdef bytes key = self.key
        cdef bytes entry
        cdef Py_ssize_t key_size = PyBytes_GET_SIZE(key), size = key_size + PyBytes_GET_SIZE(self.row)
        cdef Buffer out
        claims.append(pair(Claim, key, UPDATE))
        mutations.append(pair(Mutation, key, self.row))
        for encoder in self.insert.entries:
            out.data = NULL
            out.size = out.room = 0
            try:
                (<RowKey>encoder).put(&out, self.row)
                memcpy(
                    grow(&out, key_size - RELATION_PREFIX_BYTES),
                    PyBytes_AS_STRING(key) + RELATION_PREFIX_BYTES,
                    key_size - RELATION_PREFIX_BYTES,
                )
                entry = taken(&out)
            finally:
                free(out.data)
            mutations.append(pair(Mutation, entry, key))
            size += PyBytes_GET_SIZE(entry) + key_size
        return size


# -- a session's statements ------------------------------------------------------------------------------------

#: So many are found without the session's own dictionary.
cdef int STATEMENTS_AT_HAND_MAX = 8


cdef class Statements:
    """The INSERTs among a session's prepared statements, and what is the same for all of its blocks.

    ``forget`` has to be called when a statement is prepared, closed or known better.
    """

    cdef dict prepared
    cdef list names, inserts  #: those at hand
    cdef object catalog, get, new_work
    cdef Py_ssize_t rows_max, row_bytes_max, size_max
    cdef double age_max_s

    def __cinit__(self, dict prepared not None, catalog, get, new_work, limits):
        self.prepared = prepared
        self.names = []
        self.inserts = []
        self.catalog = catalog
        self.get = get
        self.new_work = new_work
        self.rows_max = limits.transaction_rows
        self.row_bytes_max = limits.small_row_bytes
        self.size_max = limits.transaction_size_bytes
        self.age_max_s = limits.transaction_age_s

    def forget(self):
        if self.names:
            self.names.clear()
            self.inserts.clear()

    cdef Insert find(self, const Execution* execution):
        """The statement that is executed, None if it isn't an INSERT that is known."""
        cdef bytes name
        cdef Py_ssize_t at
        for at in range(len(self.names)):
            name = <bytes>self.names[at]
            if PyBytes_GET_SIZE(name) == execution.name_size and not memcmp(
                PyBytes_AS_STRING(name), execution.name, execution.name_size
            ):
                return <Insert>self.inserts[at]
        name = PyBytes_FromStringAndSize(<const char*>execution.name, execution.name_size)
        prepared = self.prepared.get(name)
        learned = prepared.direct if prepared is not None else None
        insert = learned.at_once if learned is not None else None
        if type(insert) is not Insert:
            return None
        if len(self.names) < STATEMENTS_AT_HAND_MAX:
            self.names.append(name)
            self.inserts.append(insert)
        return insert


# -- a transaction block ---------------------------------------------------------------------------------------

cdef class Target:
    """A statement's table in a block, which the workspace knows of once it is written to."""

    cdef Insert insert
    cdef object relation_id, work
    cdef set verified
    cdef dict loaded
    cdef bint written


cdef class OpenBlock:
    """See dsql_server.frontend.block_inserts."""

    cdef Statements statements
    cdef object state, workspace, t, catalog_version
    cdef list untold, targets
    cdef dict tables
    cdef long long version, settings_changes
    cdef Py_ssize_t told
    cdef double began_at
    cdef Buffer scratch
    # The row inserted last, until it is settled.
    cdef CompiledUntold last
    cdef Target target
    # What the rows come to, as long as all of the block's are among them.
    cdef Py_ssize_t settled, size
    cdef list claims, mutations

    def __cinit__(self, Statements statements not None, settings_changes, workspace):
        cdef Insert insert
        self.statements = statements
        self.settings_changes = settings_changes
        self.state = workspace.catalog
        self.catalog_version = self.state.version
        self.version = self.catalog_version
        self.workspace = workspace
        self.untold = workspace.untold
        self.told = workspace.row_count - len(self.untold)
        self.t = workspace.t_start
        self.began_at = workspace.began_at
        self.targets = []
        self.tables = workspace.tables
        self.claims = []
        self.mutations = []
        # There is time now, and what was inserted into before will be again.
        for known in statements.inserts:
            insert = <Insert>known
            if insert.version == self.version:
                self.add_target(insert)

    def __dealloc__(self):
        free(self.scratch.data)

    cdef bint is_current(self) except -1:
        if self.statements.catalog.state is not self.state:
            return False
        return <double>monotonic() - self.began_at <= self.statements.age_max_s

    cdef Target target_of(self, Insert insert):
        cdef Target target
        for known in self.targets:
            target = <Target>known
            if target.insert is insert:
                return target
        return self.add_target(insert)

    cdef Target add_target(self, Insert insert):
        cdef Target target = Target.__new__(Target)
        table = insert.direct.table
        target.insert = insert
        target.relation_id = table.relation_id
        target.work = self.tables.get(target.relation_id)
        for other in self.targets:
            if target.work is None and (<Target>other).relation_id == target.relation_id:
                target.work = (<Target>other).work
        if target.work is None:
            target.work = self.statements.new_work(table)
        target.verified = target.work.verified
        target.loaded = target.work.loaded
        self.targets.append(target)
        return target

    def insert(self, bytes data not None):
        """The whole answer to the request ``data``, which inserts a row; :meth:`settle` has to follow. None, and nothing
        done: it isn't a plain execution of a known INSERT, or its key is taken.

        Raises what dsql_server.processor.access.NOT_EXACT lists for the same reason.
        """
        cdef Execution found
        cdef Insert insert
        cdef Target target
        cdef CompiledUntold untold
        cdef Buffer* scratch = &self.scratch
        cdef bytes row, key
        if self.last is not None:
            raise RuntimeError("the row inserted last isn't settled")
        if not find_execution(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &found):
            return None
        insert = self.statements.find(&found)
        if insert is None or insert.version != self.version or insert.settings_changes != self.settings_changes:
            return None
        if found.number != insert.parameters or found.results_size != PyBytes_GET_SIZE(insert.results):
            return None
        if memcmp(found.results, PyBytes_AS_STRING(insert.results), found.results_size) != 0:
            return None
        if self.told + len(self.untold) >= self.statements.rows_max or not self.is_current():
            return None
        scratch.size = 0
        insert.put_row(scratch, data, &found)
        if scratch.size > self.statements.row_bytes_max:
            return None
        row = taken(scratch)
        scratch.size = 0
        insert.key.put(scratch, row)
        key = taken(scratch)
        target = self.target_of(insert)
        if key in target.verified or key in target.loaded or self.statements.get(key, self.t) is not None:
            return None
        untold = CompiledUntold.__new__(CompiledUntold)
        untold.insert = insert
        untold.row = row
        untold.key = key
        untold.request = data
        self.last = untold
        self.target = target
        return insert.described if found.described else insert.answer

    def settle(self):
        """Add the row inserted last to the transaction, and make ready what it comes to at COMMIT."""
        cdef CompiledUntold last = self.last
        cdef Target target = self.target
        if last is None:
            return
        self.last = None
        if not target.written:
            target.written = target.work.written = True
            self.tables[target.relation_id] = target.work
        target.verified.add(last.key)
        self.untold.append(last)
        self.workspace.row_count = self.told + len(self.untold)
        if self.settled + 1 == len(self.untold):
            self.settled += 1
            self.size += last.add_changes(self.claims, self.mutations)

    def request(self):
        """The commit request; None where it isn't ready, or mustn't be made."""
        if self.settled == 0 or self.settled != len(self.untold) or self.size > self.statements.size_max:
            return None
        if not self.is_current():
            return None
        made = PyType_GenericAlloc(CommitRequest, 6)
        put_item(made, 0, self.workspace.transaction_id)
        put_item(made, 1, self.t)
        put_item(made, 2, self.catalog_version)
        put_item(made, 3, tuple(self.claims))
        put_item(made, 4, tuple(self.mutations))
        put_item(made, 5, None)
        return made
