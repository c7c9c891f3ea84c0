# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""Reads that need no engine, from bound parameters to the messages with their rows.

See dsql_server.compiled; the twin is dsql_server.processor.direct_answer.
"""

include "memory.pxi"
include "fields.pxi"
include "executions.pxi"

cdef enum:
    #: More conditions than this in one statement, or scans, or parameters, are left to the twin.
    OPERANDS = 32
    #: Positions of fields are below this.
    POSITIONS = 100000
    #: In place of a size, of parameters that are texts, and of timestamps; see Read.exact_values.
    A_TEXT = -1
    AN_INSTANT = -8

OPERANDS_MAX = OPERANDS

#: How a scan finds its rows: by one whole key, by an interval of the table's keys, by one of an index's keys.
cdef enum Path:
    POINT = 0
    INTERVAL = 1
    LOOK_UP = 2

#: Where an operand comes from: nowhere, a constant of the statement, a parameter, a call with all parameters.
cdef enum Source:
    NOTHING = 0
    CONSTANT = 1
    PARAMETER = 2
    CALL = 3

cdef enum Operator:
    IS_NULL = 0
    NOT_NULL = 1
    EQUAL = 2
    NOT_EQUAL = 3
    LESS = 4
    LESS_EQUAL = 5
    GREATER = 6
    GREATER_EQUAL = 7


cdef struct Value:
    const uint8_t* data
    Py_ssize_t size  #: -1: NULL
    int format  #: 0 text, 1 binary


cdef struct Span:
    Py_ssize_t at
    Py_ssize_t size


cdef int* numbers(values, int below) except NULL:
    """The values, each checked to be from 0 and below the other, in memory that is to be freed."""
    cdef int* found = <int*>malloc(sizeof(int) * (len(values) + 1))
    cdef int at = 0
    if found == NULL:
        raise MemoryError()
    for value in values:
        if not 0 <= value < below:
            free(found)
            raise ValueError("a number out of range")
        found[at] = value
        at += 1
    return found


cdef inline int compare(const char* one, Py_ssize_t one_size, const char* other, Py_ssize_t other_size) noexcept nogil:
    cdef Py_ssize_t size = one_size if one_size < other_size else other_size
    cdef int found = memcmp(one, other, size)
    if found:
        return found
    return -1 if one_size < other_size else 1 if one_size > other_size else 0


cdef inline bint is_before(bytes one, bytes other):
    return compare(
        PyBytes_AS_STRING(one), PyBytes_GET_SIZE(one), PyBytes_AS_STRING(other), PyBytes_GET_SIZE(other)
    ) < 0


cdef inline void put_bytes(uint8_t* to, bytes value) noexcept:
    memcpy(to, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef bytes bytes_of(const Value* value):
    return None if value.size < 0 else PyBytes_FromStringAndSize(<const char*>value.data, value.size)


cdef bytes prefix_end(bytes start):
    """See dsql_server.encoding.keys.prefix_end."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(start)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(start)
    while size and data[size - 1] == 0xFF:
        size -= 1
    if not size:
        raise ValueError("no key is greater")
    cdef bytes end = PyBytes_FromStringAndSize(<const char*>data, size)
    (<uint8_t*>PyBytes_AS_STRING(end))[size - 1] += 1
    return end


cdef class Scan:
    """One scan: how its rows are found, which conditions they must meet, what of them is sent and sorted by."""

    cdef int path, operand_count, key_count, range_count, check_count, field_count, segment_count, sort_count, last
    cdef bytes start
    cdef int *sources
    cdef int *places
    cdef int *kinds
    cdef tuple details
    cdef int *key_operands
    cdef int *range_operands
    cdef int *range_operators
    cdef int *check_positions
    cdef int *check_kinds
    cdef int *check_operators
    cdef int *check_operands
    cdef tuple check_encoders
    cdef int *field_positions
    cdef int *field_kinds
    cdef int *segment_ends
    cdef tuple outputs
    cdef int *sort_positions
    cdef int *sort_kinds
    cdef tuple sort_encoders

    def __cinit__(self, int path, bytes start not None, operands, key, ranges, checks, segments, sorts):
        """``start``: what all keys begin with. ``operands``: (source, number of the parameter, kind, detail), where
        the detail is the constant, the parameter's encoder or what is called. ``key``: the operands that the key's
        first columns are equal to. ``ranges``: (operand, operator) for the next one. ``checks``: (position, kind,
        encoder, operator, operand). ``segments``: lists of (position, kind, output). ``sorts``: (position, kind,
        encoder)."""
        operands, checks, sorts = tuple(operands), tuple(checks), tuple(sorts)
        cdef int count = len(operands)
        self.path, self.start = path, start
        self.operand_count = count
        self.sources = numbers([source for source, _, _, _ in operands], CALL + 1)
        self.places = numbers([place for _, place, _, _ in operands], 65536)
        self.kinds = numbers([kind for _, _, kind, _ in operands], KEY_TEXT + 1)
        self.details = tuple([detail for _, _, _, detail in operands])
        self.key_count = len(key)
        self.key_operands = numbers(key, count)
        self.range_count = len(ranges)
        self.range_operands = numbers([operand for operand, _ in ranges], count)
        self.range_operators = numbers([operator for _, operator in ranges], GREATER_EQUAL + 1)
        for _, operator in ranges:
            if operator < LESS:
                raise ValueError("no bound of a range")
        self.check_count = len(checks)
        self.check_positions = numbers([check[0] for check in checks], POSITIONS)
        self.check_kinds = numbers([check[1] for check in checks], KEY_TEXT + 1)
        self.check_encoders = tuple([check[2] for check in checks])
        self.check_operators = numbers([check[3] for check in checks], GREATER_EQUAL + 1)
        self.check_operands = numbers([check[4] for check in checks], count)
        fields = [field for segment in segments for field in segment]
        self.field_count = len(fields)
        self.field_positions = numbers([position for position, _, _ in fields], POSITIONS)
        self.field_kinds = numbers([kind for _, kind, _ in fields], TIMESTAMPTZ + 1)
        self.outputs = tuple([output for _, _, output in fields])
        ends, end = [], 0
        for segment in segments:
            end += len(segment)
            ends.append(end)
        self.segment_count = len(ends)
        self.segment_ends = numbers(ends, end + 1)
        self.sort_count = len(sorts)
        self.sort_positions = numbers([position for position, _, _ in sorts], POSITIONS)
        self.sort_kinds = numbers([kind for _, kind, _ in sorts], KEY_TEXT + 1)
        self.sort_encoders = tuple([encoder for _, _, encoder in sorts])
        self.last = max([-1] + [item[0] for item in (*checks, *fields, *sorts)])

    def __dealloc__(self):
        free(self.sources)
        free(self.places)
        free(self.kinds)
        free(self.key_operands)
        free(self.range_operands)
        free(self.range_operators)
        free(self.check_positions)
        free(self.check_kinds)
        free(self.check_operators)
        free(self.check_operands)
        free(self.field_positions)
        free(self.field_kinds)
        free(self.segment_ends)
        free(self.sort_positions)
        free(self.sort_kinds)

    cdef bint read_operands(self, Value* values, int count, call, Buffer* data, Span* spans) except -1:
        """Put the encoded operands behind ``data``; false where one is NULL, which no row meets."""
        cdef int i, place
        cdef bytes value
        for i in range(self.operand_count):
            spans[i].at = data.size
            if self.sources[i] == PARAMETER:
                place = self.places[i]
                if place >= count:
                    raise IndexError("a parameter that isn't there")
                if values[place].size < 0:
                    return False
                put_key(data, values[place].data, values[place].size, self.kinds[i], self.details[i])
            elif self.sources[i] != NOTHING:
                value = self.details[i] if self.sources[i] == CONSTANT else call(
                    self.details[i], [bytes_of(&values[place]) for place in range(count)]
                )
                if value is None:
                    return False
                put_bytes(grow(data, PyBytes_GET_SIZE(value)), value)
            spans[i].size = data.size - spans[i].at
        return True

    cdef list find(self, Buffer* data, Span* spans, storage, t, request):
        """The stored rows that the key's conditions point to."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.start)
        cdef int i, operator
        cdef Span span
        cdef uint8_t* to
        cdef bytes key, low, high, point
        for i in range(self.key_count):
            size += 1 + spans[self.key_operands[i]].size
        if self.range_count:
            size += 1
        key = PyBytes_FromStringAndSize(NULL, size)
        to = <uint8_t*>PyBytes_AS_STRING(key)
        put_bytes(to, self.start)
        to += PyBytes_GET_SIZE(self.start)
        for i in range(self.key_count):
            span = spans[self.key_operands[i]]
            to[0] = 1
            memcpy(to + 1, data.data + span.at, span.size)
            to += 1 + span.size
        if self.path == POINT:
            row = storage.get(key, t)
            return [] if row is None else [row]
        if self.range_count:
            to[0] = 1
        low, high = key, prefix_end(key)
        for i in range(self.range_count):
            span = spans[self.range_operands[i]]
            operator = self.range_operators[i]
            point = PyBytes_FromStringAndSize(NULL, size + span.size)
            to = <uint8_t*>PyBytes_AS_STRING(point)
            put_bytes(to, key)
            memcpy(to + size, data.data + span.at, span.size)
            if operator == GREATER or operator == LESS_EQUAL:
                point = prefix_end(point)
            if operator >= GREATER:
                if is_before(low, point):
                    low = point
            elif is_before(point, high):
                high = point
        if not is_before(low, high):
            return []
        if self.path == LOOK_UP:
            return storage.look_up(low, high, t)
        return [value for _, value in storage.scan(request(low, high, t)).rows]

    cdef bint meets(self, const uint8_t* row, Py_ssize_t* starts, Buffer* data, Span* spans) except -1:
        """Whether a row meets the conditions. What is written behind ``data`` is taken back."""
        cdef Py_ssize_t before = data.size, at
        cdef int i, operator, order
        cdef int32_t length
        cdef Span span
        for i in range(self.check_count):
            at = starts[self.check_positions[i]]
            length = -1 if at < 0 else i32(row + at)
            operator = self.check_operators[i]
            if operator <= NOT_NULL or length < 0:
                if operator == IS_NULL and length < 0 or operator == NOT_NULL and length >= 0:
                    continue
                return False
            put_key(data, row + at + 4, length, self.check_kinds[i], self.check_encoders[i])
            span = spans[self.check_operands[i]]
            order = compare(
                <const char*>data.data + before, data.size - before, <const char*>data.data + span.at, span.size
            )
            data.size = before
            if operator == EQUAL:
                if order != 0:
                    return False
            elif operator == NOT_EQUAL:
                if order == 0:
                    return False
            elif operator == LESS:
                if order >= 0:
                    return False
            elif operator == LESS_EQUAL:
                if order > 0:
                    return False
            elif operator == GREATER:
                if order <= 0:
                    return False
            elif order < 0:
                return False
        return True

    cdef bytes sort_key(self, const uint8_t* row, Py_ssize_t at, int number):
        """What a row is sorted by; NULL behind all values."""
        cdef int32_t length = -1 if at < 0 else i32(row + at)
        cdef Buffer out
        if length < 0:
            return b"\x02"
        out.data = NULL
        out.size = out.room = 0
        try:
            grow(&out, 1)[0] = 1
            put_key(&out, row + at + 4, length, self.sort_kinds[number], self.sort_encoders[number])
            return taken(&out)
        finally:
            free(out.data)

    cdef int write(self, list rows, Buffer* data, Span* spans, Buffer* out, Buffer* ends, list keys, int width) except -1:
        """Write the rows that meet the conditions; how many.

        With ``width`` each as a message of so many columns. Else one segment after the other, the ends of which are
        put behind ``ends``, and what they are sorted by into ``keys``, by column.
        """
        cdef Py_ssize_t on_stack[64]
        cdef Py_ssize_t* starts = on_stack
        cdef const uint8_t* at
        cdef uint8_t* to
        cdef Py_ssize_t begin
        cdef int i, segment, number, count = 0
        cdef bytes row
        if self.last >= 64:
            starts = <Py_ssize_t*>malloc(sizeof(Py_ssize_t) * (self.last + 1))
            if starts == NULL:
                raise MemoryError()
        try:
            for item in rows:
                row = item
                if row is None:
                    raise TypeError("a row that isn't there")
                at = <const uint8_t*>PyBytes_AS_STRING(row)
                locate(at, PyBytes_GET_SIZE(row), self.last, starts)
                if self.check_count and not self.meets(at, starts, data, spans):
                    continue
                count += 1
                if width:
                    begin = out.size
                    to = grow(out, 7)
                    to[0] = c"D"
                    to[5] = <uint8_t>(width >> 8)
                    to[6] = <uint8_t>width
                    for i in range(self.field_count):
                        put_field(
                            out, row, starts[self.field_positions[i]], self.field_kinds[i], self.outputs[i]
                        )
                    put32(out.data + begin + 1, <int32_t>(out.size - begin - 1))
                    continue
                i = 0
                for segment in range(self.segment_count):
                    while i < self.segment_ends[segment]:
                        put_field(
                            out, row, starts[self.field_positions[i]], self.field_kinds[i], self.outputs[i]
                        )
                        i += 1
                    (<Py_ssize_t*>grow(ends, sizeof(Py_ssize_t)))[0] = out.size
                for number in range(self.sort_count):
                    (<list>keys[number]).append(self.sort_key(at, starts[self.sort_positions[number]], number))
            return count
        finally:
            if starts != on_stack:
                free(starts)


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
