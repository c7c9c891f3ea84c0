# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""Reads that need no engine, from bound parameters to the messages with their rows.

See dsql_server.compiled; the twin is dsql_server.processor.direct_answer.
"""

include "memory.pxi"
include "fields.pxi"
include "executions.pxi"
include "scans.pxi"


# -- reads -----------------------------------------------------------------------------------------------------

cdef struct Written:
    int count  #: rows
    int segments  #: of each row
    Py_ssize_t first  #: the place of the first segment's beginning among the ends


cdef class Read:
    """See dsql_server.processor.direct_answer.DirectAnswer.messages."""

    cdef list scans
    cdef int width, operand_count, parameter_count, place_count, rows_max
    cdef int plain[OPERANDS]
    cdef int *place_scans
    cdef int *place_segments
    cdef object exact, call, request
    cdef tuple sorts

    def __cinit__(self, scans, int width, places, sorts, plain, int rows_max, exact, call, request):
        """``places``: the segments in their order, (scan, number among its own). ``sorts``: (scan, number among its
        own, descending), the last one first. ``exact(number, value, format)`` is a parameter in binary format,
        ``call(detail, parameters)`` an operand, ``request(start, end, t)`` what storage scans by."""
        cdef Scan scan
        self.scans = list(scans)
        self.operand_count = 0
        for item in self.scans:
            scan = item
            self.operand_count += scan.operand_count
        if self.operand_count > OPERANDS or not 0 < len(self.scans) <= OPERANDS or not 0 < width < 32768:
            raise ValueError("more than is compiled")
        self.parameter_count = len(plain)
        if self.parameter_count > OPERANDS:
            raise ValueError("more than is compiled")
        for number in range(self.parameter_count):
            self.plain[number] = plain[number]
        self.width, self.rows_max = width, rows_max
        self.place_count = len(places)
        self.place_scans = numbers([number for number, _ in places], len(self.scans))
        self.place_segments = numbers([number for _, number in places], 65536)
        for number, segment in places:
            scan = self.scans[number]
            if segment >= scan.segment_count:
                raise ValueError("a segment that isn't there")
        for number, own, _ in sorts:
            scan = self.scans[number]
            if not 0 <= own < scan.sort_count:
                raise ValueError("a column that isn't there")
        self.sorts = tuple(sorts)
        self.exact, self.call, self.request = exact, call, request

    def __dealloc__(self):
        free(self.place_scans)
        free(self.place_segments)

    cdef int make_exact(self, Value* values, list kept) except -1:
        """Put each value in binary format, in memory that ``values`` or ``kept`` holds. Raises what ``exact`` raises."""
        cdef int at, size
        cdef Py_ssize_t i
        cdef int64_t number
        cdef Value value
        cdef bytes exact
        cdef bint done
        for at in range(self.parameter_count):
            value = values[at]
            if value.size < 0:
                continue
            done = False
            size = self.plain[at]
            if size == A_TEXT:
                done = True
                for i in range(value.size):
                    if value.data[i] == 0 or value.data[i] >= 0x80:
                        done = False
                        break
            elif value.format == 1 and size > 0:
                done = value.size == size
            elif value.format == 1 and size == AN_INSTANT and value.size == 8:
                number = i64(value.data)
                done = -211813488000000000 <= number < 9223371331200000000
            if not done:
                exact = self.exact(at, bytes_of(&value), value.format)
                if exact is None:
                    raise TypeError("a value in binary format is bytes")
                kept.append(exact)
                values[at].data = <const uint8_t*>PyBytes_AS_STRING(exact)
                values[at].size = PyBytes_GET_SIZE(exact)
        return 0

    def __call__(self, given, given_formats, storage, t):
        cdef list values = list(given)
        cdef tuple formats = tuple(given_formats)
        cdef Value found[OPERANDS]
        cdef Buffer answer
        cdef bytes value
        cdef int at, count
        if len(values) != self.parameter_count or len(formats) != self.parameter_count:
            return None
        for at in range(self.parameter_count):
            value = values[at]
            found[at].format = formats[at]
            found[at].size = -1
            if value is not None:
                found[at].data = <const uint8_t*>PyBytes_AS_STRING(value)
                found[at].size = PyBytes_GET_SIZE(value)
        answer.data = NULL
        answer.size = answer.room = 0
        try:
            count = self.run(found, storage, t, &answer)
            return None if count < 0 else (taken(&answer), count)
        finally:
            free(answer.data)

    cdef int run(self, Value* values, storage, t, Buffer* answer) except -2:
        """Put the messages behind ``answer``; how many, or -1: the engine has to answer."""
        cdef list rows, kept = [], keys = []
        cdef Buffer data, out, ends
        cdef Span spans[OPERANDS]
        cdef Written written[OPERANDS]
        cdef Scan scan
        cdef int number, first, total = 1, scan_count = len(self.scans)
        self.make_exact(values, kept)
        data.data = out.data = ends.data = NULL
        data.size = data.room = out.size = out.room = ends.size = ends.room = 0
        try:
            first = 0
            for number in range(scan_count):
                scan = self.scans[number]
                if not scan.read_operands(values, self.parameter_count, self.call, &data, spans + first):
                    return 0
                first += scan.operand_count
            if scan_count == 1 and not self.sorts and scan.segment_count == 1:
                rows = scan.find(&data, spans, storage, t, self.request)
                total = scan.write(rows, &data, spans, answer, NULL, None, self.width)
                return -1 if total > self.rows_max else total
            first = 0
            for number in range(scan_count):
                scan = self.scans[number]
                own = [[] for _ in range(scan.sort_count)]
                keys.append(own)
                rows = scan.find(&data, spans + first, storage, t, self.request)
                written[number].first = ends.size // <Py_ssize_t>sizeof(Py_ssize_t)
                written[number].segments = scan.segment_count
                (<Py_ssize_t*>grow(&ends, sizeof(Py_ssize_t)))[0] = out.size
                written[number].count = scan.write(rows, &data, spans + first, &out, &ends, own, 0)
                # Both factors are at most as many as rows may be, so that the product is a small number, too.
                if written[number].count > self.rows_max or total * written[number].count > self.rows_max:
                    return -1
                total *= written[number].count
                if not total:
                    return 0
                first += scan.operand_count
            self.put_messages(written, scan_count, total, &out, <Py_ssize_t*>ends.data, keys, answer)
            return total
        finally:
            free(data.data)
            free(out.data)
            free(ends.data)

    cdef list order(self, Written* written, int scan_count, int total, list keys):
        """The combinations' numbers in their order."""
        cdef list found = list(range(total)), each
        cdef list own
        cdef int number, later, behind
        for sort in self.sorts:
            number = sort[0]
            own = keys[number][sort[1]]
            behind = 1
            for later in range(number + 1, scan_count):
                behind *= written[later].count
            each = [own[combination // behind % written[number].count] for combination in range(total)]
            found.sort(key=each.__getitem__, reverse=sort[2])
        return found

    cdef int put_messages(
        self, Written* written, int scan_count, int total, Buffer* out, Py_ssize_t* ends, list keys, Buffer* answer
    ) except -1:
        """One for each combination of rows; the last scan's rows change first."""
        cdef list order = self.order(written, scan_count, total, keys) if self.sorts else None
        cdef int rows[OPERANDS]
        cdef int i, rest, place, number
        cdef Py_ssize_t at, begin, size
        cdef uint8_t* to
        for i in range(total):
            rest = i if order is None else <int>order[i]
            for number in range(scan_count - 1, -1, -1):
                rows[number] = rest % written[number].count
                rest //= written[number].count
            begin = answer.size
            to = grow(answer, 7)
            to[0] = c"D"
            to[5] = <uint8_t>(self.width >> 8)
            to[6] = <uint8_t>self.width
            for place in range(self.place_count):
                number = self.place_scans[place]
                at = written[number].first + rows[number] * written[number].segments + self.place_segments[place]
                size = ends[at + 1] - ends[at]
                memcpy(grow(answer, size), out.data + ends[at], size)
            put32(answer.data + begin + 1, <int32_t>(answer.size - begin - 1))
        return 0


# -- a session's statements ------------------------------------------------------------------------------------

#: So many are known by name.
cdef int STATEMENTS_MAX = 8
#: Room that most answers need.
cdef Py_ssize_t ANSWER_BYTES = 4096


cdef class Statement:
    """A prepared statement that was executed so before."""

    cdef bytes name, formats, description
    cdef object state
    cdef frozenset tables
    cdef Read read


cdef class Statements:
    """See dsql_server.frontend.kept_reads."""

    cdef list known
    cdef object catalog, begin, storage
    cdef bytes behind, behind_in_block

    def __cinit__(self, catalog, begin, storage, bytes behind not None, bytes behind_in_block not None):
        self.known = []
        self.catalog, self.begin, self.storage = catalog, begin, storage
        self.behind, self.behind_in_block = behind, behind_in_block

    def forget(self):
        if self.known:
            self.known.clear()

    def keep(
        self, bytes name not None, bytes formats not None, bytes description not None, frozenset tables not None,
        Read read not None,
    ):
        cdef Statement made = Statement.__new__(Statement)
        made.tables = tables
        made.name, made.formats, made.description, made.read = name, formats, description, read
        made.state = self.catalog.state
        if len(self.known) >= STATEMENTS_MAX:
            self.known.clear()
        self.known.append(made)

    cdef Statement find(self, const Execution* execution):
        """The statement that is executed as it was before; None if there is none."""
        cdef Statement found
        for item in self.known:
            found = <Statement>item
            if (
                PyBytes_GET_SIZE(found.name) == execution.name_size
                and not memcmp(PyBytes_AS_STRING(found.name), execution.name, execution.name_size)
                and PyBytes_GET_SIZE(found.formats) == execution.results_size
                and not memcmp(PyBytes_AS_STRING(found.formats), execution.results, execution.results_size)
            ):
                is_told = not execution.described or PyBytes_GET_SIZE(found.description) > 0
                return found if is_told and found.read.parameter_count == execution.number else None
        return None

    def answer(self, bytes data not None, session):
        return self.reply(data, self.behind, session, None, None)

    def answer_in_block(self, bytes data not None, t not None, set dirty not None):
        return self.reply(data, self.behind_in_block, None, t, dirty)

    cdef bytes reply(self, bytes data, bytes behind, session, t, set dirty):
        cdef Execution execution
        cdef Statement found
        cdef Value values[OPERANDS]
        cdef Buffer answer
        cdef const uint8_t* at
        cdef int i, count
        if not self.known or not find_execution(
            <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &execution
        ):
            return None
        found = self.find(&execution)
        if found is None or self.catalog.state is not found.state:
            return None
        if dirty and not found.tables.isdisjoint(dirty):
            return None
        at = execution.values
        for i in range(execution.number):
            values[i].format = format_of(&execution, i)
            values[i].size = i32(at)
            at += 4
            values[i].data = at
            if values[i].size > 0:
                at += values[i].size
        answer.size, answer.room = 0, ANSWER_BYTES
        answer.data = <uint8_t*>malloc(ANSWER_BYTES)
        if answer.data == NULL:
            raise MemoryError()
        try:
            memcpy(grow(&answer, 5), b"2\x00\x00\x00\x04", 5)
            if execution.described:
                put_bytes(grow(&answer, PyBytes_GET_SIZE(found.description)), found.description)
            count = found.read.run(values, self.storage, self.begin(session) if t is None else t, &answer)
            if count < 0:
                return None
            put_selected(&answer, count)
            put_bytes(grow(&answer, PyBytes_GET_SIZE(behind)), behind)
            return taken(&answer)
        finally:
            free(answer.data)


cdef int put_selected(Buffer* answer, int count) except -1:
    """The completion of a SELECT of so many rows."""
    cdef char digits[12]
    cdef int at = 12, size
    cdef uint8_t* to
    while True:
        at -= 1
        digits[at] = <char>(48 + count % 10)
        count //= 10
        if count == 0:
            break
    size = 12 - at
    to = grow(answer, 13 + size)
    to[0] = c"C"
    put32(to + 1, 12 + size)
    memcpy(to + 5, b"SELECT ", 7)
    memcpy(to + 12, digits + at, size)
    to[12 + size] = 0
    return 0
