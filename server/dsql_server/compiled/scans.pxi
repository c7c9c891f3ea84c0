# Scans of direct reads: from operands to keys, from stored rows to what is sent of them; _reads includes it behind
# fields.pxi.

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
