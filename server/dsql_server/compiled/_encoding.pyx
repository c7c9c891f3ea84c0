# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""Rows, keys, parameters and messages: the loops over their fields.

See dsql_server.compiled.
"""

include "memory.pxi"


cdef class RowFields:
    """Fields of stored rows, by position and kind; what is common to those that read them."""

    cdef int count, last
    cdef int* positions
    cdef int* kinds

    cdef int keep(self, columns, int positions_max) except -1:
        """``columns`` begin with the position, from 0 and below ``positions_max``, and the kind."""
        self.count = len(columns)
        self.last = -1
        self.positions = <int*>malloc(sizeof(int) * (self.count + 1))
        self.kinds = <int*>malloc(sizeof(int) * (self.count + 1))
        if self.positions == NULL or self.kinds == NULL:
            raise MemoryError()
        for at, column in enumerate(columns):
            if not 0 <= column[0] < positions_max:
                raise ValueError("a field's position out of range")
            self.positions[at] = column[0]
            self.kinds[at] = column[1]
            self.last = max(self.last, self.positions[at])
        return 0

    def __dealloc__(self):
        free(self.positions)
        free(self.kinds)


# -- rows as they are sent -------------------------------------------------------------------------------------

#: How a field is written; see dsql_server.encoding.output, whose functions these stand for.
cdef enum Kind:
    BY_CALL = 0
    AS_IS = 1
    UUID = 2
    INT2 = 3
    INT4 = 4
    INT8 = 5
    BOOLEAN = 6
    NUMERIC = 7
    TIMESTAMP = 8
    TIMESTAMPTZ = 9

cdef const char* DIGITS = b"0123456789abcdef"
cdef int64_t USECS_PER_DAY = 86400000000
#: Days from 0000-03-01 to 2000-01-01.
cdef int64_t DAYS_BEFORE_2000 = 730425


cdef int put_integer(Buffer* out, int64_t value) except -1:
    cdef char text[24]
    cdef int at = 24
    cdef uint64_t rest = <uint64_t>value if value >= 0 else ~(<uint64_t>value) + 1
    while True:
        at -= 1
        text[at] = <char>(48 + rest % 10)
        rest //= 10
        if rest == 0:
            break
    if value < 0:
        at -= 1
        text[at] = c"-"
    cdef uint8_t* to = grow(out, 28 - at)
    put32(to, 24 - at)
    memcpy(to + 4, text + at, 24 - at)
    return 0


cdef int put_uuid(Buffer* out, const uint8_t* value) except -1:
    cdef uint8_t* to = grow(out, 40)
    cdef int i
    put32(to, 36)
    to += 4
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            to[0] = c"-"
            to += 1
        to[0] = DIGITS[value[i] >> 4]
        to[1] = DIGITS[value[i] & 15]
        to += 2
    return 0


cdef inline void two(char* to, int value) noexcept nogil:
    to[0] = <char>(48 + value // 10)
    to[1] = <char>(48 + value % 10)


cdef int put_instant(Buffer* out, int64_t usecs, bint zone) except -1:
    """An ISO timestamp; 1 and nothing written outside of the years 1 to 9999."""
    cdef int64_t days = usecs // USECS_PER_DAY
    cdef int64_t rest = usecs % USECS_PER_DAY
    if rest < 0:
        rest += USECS_PER_DAY
        days -= 1
    # The civil calendar, in eras of 400 years that begin on 1 March.
    cdef int64_t z = days + DAYS_BEFORE_2000
    cdef int64_t era = (z if z >= 0 else z - 146096) // 146097
    cdef int64_t doe = z - era * 146097
    cdef int64_t yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    cdef int64_t doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    cdef int64_t mp = (5 * doy + 2) // 153
    cdef int day = <int>(doy - (153 * mp + 2) // 5 + 1)
    cdef int month = <int>(mp + 3 if mp < 10 else mp - 9)
    cdef int64_t year = yoe + era * 400 + (1 if month <= 2 else 0)
    if year < 1 or year > 9999:
        return 1
    cdef char text[32]
    cdef int seconds = <int>(rest // 1000000)
    cdef int fraction = <int>(rest % 1000000)
    cdef int size = 19
    cdef int i
    two(text, <int>(year // 100))
    two(text + 2, <int>(year % 100))
    text[4] = c"-"
    two(text + 5, month)
    text[7] = c"-"
    two(text + 8, day)
    text[10] = c" "
    two(text + 11, seconds // 3600)
    text[13] = c":"
    two(text + 14, seconds // 60 % 60)
    text[16] = c":"
    two(text + 17, seconds % 60)
    if fraction:
        text[19] = c"."
        for i in range(6):
            text[25 - i] = <char>(48 + fraction % 10)
            fraction //= 10
        size = 26
        while text[size - 1] == c"0":
            size -= 1
    if zone:
        text[size] = c"+"
        text[size + 1] = c"0"
        text[size + 2] = c"0"
        size += 3
    cdef uint8_t* to = grow(out, 4 + size)
    put32(to, size)
    memcpy(to + 4, text, size)
    return 0


cdef int put_numeric(Buffer* out, const uint8_t* value, Py_ssize_t size) except -1:
    """1 and nothing written for a number that isn't short."""
    cdef int count, weight, sign, scale, group, i, at, start, place
    cdef char text[256]
    if size < 8:
        return 1
    count = i16(value)
    weight = i16(value + 2)
    sign = (value[4] << 8) | value[5]
    scale = (value[6] << 8) | value[7]
    if (sign != 0 and sign != 0x4000) or count < 0 or count > 24 or size != 8 + 2 * count:
        return 1
    if weight < -16 or weight > 24 or scale > 64:
        return 1
    value += 8
    for i in range(count):
        if ((value[2 * i] << 8) | value[2 * i + 1]) > 9999:
            return 1
    at = 1  # room for a sign
    for i in range(weight + 1):
        group = ((value[2 * i] << 8) | value[2 * i + 1]) if i < count else 0
        two(text + at, group // 100)
        two(text + at + 2, group % 100)
        at += 4
    start = 1
    while start < at - 1 and text[start] == c"0":
        start += 1
    if at == 1:
        text[1] = c"0"
        at = 2
    if scale:
        text[at] = c"."
        at += 1
        place = at
        for i in range((scale + 3) // 4):
            group = weight + 1 + i
            group = ((value[2 * group] << 8) | value[2 * group + 1]) if 0 <= group < count else 0
            two(text + at, group // 100)
            two(text + at + 2, group % 100)
            at += 4
        at = place + scale
    if sign:
        start -= 1
        text[start] = c"-"
    cdef uint8_t* to = grow(out, 4 + at - start)
    put32(to, at - start)
    memcpy(to + 4, text + start, at - start)
    return 0


cdef class RowWriter(RowFields):
    """See dsql_server.encoding.output.row_writer."""

    cdef tuple outputs

    def __cinit__(self, columns):
        """``columns``: (position, kind, output)"""
        self.keep(columns, 100000)
        self.outputs = tuple([output for _, _, output in columns])

    def __call__(self, bytes row not None):
        cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(row)
        cdef Py_ssize_t at
        cdef int i, position, kind, done
        cdef int32_t length
        cdef Py_ssize_t starts_on_stack[64]
        cdef Py_ssize_t* starts = starts_on_stack
        cdef Buffer out
        cdef const uint8_t* value
        cdef bytes found
        if self.last >= 64:
            starts = <Py_ssize_t*>malloc(sizeof(Py_ssize_t) * (self.last + 1))
            if starts == NULL:
                raise MemoryError()
        out.data = NULL
        out.size = out.room = 0
        try:
            locate(data, PyBytes_GET_SIZE(row), self.last, starts)
            for i in range(self.count):
                position = self.positions[i]
                at = starts[position]
                length = -1 if at < 0 else i32(data + at)
                if length < 0:
                    put32(grow(&out, 4), -1)
                    continue
                value = data + at + 4
                kind = self.kinds[i]
                done = 1
                if kind == AS_IS:
                    memcpy(grow(&out, length + 4), data + at, length + 4)
                    done = 0
                elif kind == UUID:
                    if length == 16:
                        done = put_uuid(&out, value)
                elif kind == INT4:
                    if length == 4:
                        done = put_integer(&out, i32(value))
                elif kind == INT8:
                    if length == 8:
                        done = put_integer(&out, i64(value))
                elif kind == INT2:
                    if length == 2:
                        done = put_integer(&out, i16(value))
                elif kind == BOOLEAN:
                    if length == 1:
                        put32(grow(&out, 4), 1)
                        grow(&out, 1)[0] = c"t" if value[0] == 1 else c"f"
                        done = 0
                elif kind == NUMERIC:
                    done = put_numeric(&out, value, length)
                elif kind == TIMESTAMP or kind == TIMESTAMPTZ:
                    if length == 8:
                        done = put_instant(&out, i64(value), kind == TIMESTAMPTZ)
                if done:
                    found = self.outputs[i](row[at + 4 : at + 4 + length])
                    memcpy(grow(&out, len(found)), PyBytes_AS_STRING(found), len(found))
            return taken(&out)
        finally:
            free(out.data)
            if starts != starts_on_stack:
                free(starts)


def data_row(int width, list segments):
    """See dsql_server.encoding.output.data_row."""
    cdef Py_ssize_t size = 7
    cdef bytes segment
    for item in segments:
        segment = item
        size += PyBytes_GET_SIZE(segment)
    cdef bytes message = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t* to = <uint8_t*>PyBytes_AS_STRING(message)
    to[0] = c"D"
    put32(to + 1, <int32_t>(size - 1))
    to[5] = <uint8_t>(width >> 8)
    to[6] = <uint8_t>width
    to += 7
    for item in segments:
        segment = item
        memcpy(to, PyBytes_AS_STRING(segment), PyBytes_GET_SIZE(segment))
        to += PyBytes_GET_SIZE(segment)
    return message


# -- keys of rows ----------------------------------------------------------------------------------------------

cdef enum KeyKind:
    KEY_BY_CALL = 0
    KEY_AS_IS = 1
    KEY_INT2 = 2
    KEY_INT4 = 3
    KEY_SIGNED = 4
    KEY_TEXT = 5


cdef class RowKey(RowFields):
    """See dsql_server.encoding.keys.KeyEncoder.from_row."""

    cdef bytes start
    cdef tuple encoders, nulls

    def __cinit__(self, bytes start not None, columns):
        """``columns``: (position, kind, encoder, marker of NULL)"""
        self.start = start
        self.keep(columns, 64)
        self.encoders = tuple([encoder for _, _, encoder, _ in columns])
        self.nulls = tuple([null[0] for _, _, _, null in columns])

    def __call__(self, bytes row not None):
        cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(row)
        cdef Py_ssize_t at
        cdef Py_ssize_t starts[64]
        cdef int i, kind
        cdef int32_t length
        cdef const uint8_t* value
        cdef uint8_t* to
        cdef bytes found
        cdef Buffer out
        out.data = NULL
        out.size = out.room = 0
        locate(data, PyBytes_GET_SIZE(row), self.last, starts)
        try:
            memcpy(grow(&out, PyBytes_GET_SIZE(self.start)), PyBytes_AS_STRING(self.start), PyBytes_GET_SIZE(self.start))
            for i in range(self.count):
                at = starts[self.positions[i]]
                length = -1 if at < 0 else i32(data + at)
                if length < 0:
                    grow(&out, 1)[0] = <uint8_t><int>self.nulls[i]
                    continue
                value = data + at + 4
                kind = self.kinds[i]
                grow(&out, 1)[0] = 1
                if kind == KEY_AS_IS:
                    memcpy(grow(&out, length), value, length)
                elif kind == KEY_SIGNED and length:
                    to = grow(&out, length)
                    memcpy(to, value, length)
                    to[0] ^= 0x80
                elif (kind == KEY_INT4 and length == 4) or (kind == KEY_INT2 and length == 2):
                    to = grow(&out, 8)
                    if value[0] < 0x80:
                        to[0] = 0x80
                        memset(to + 1, 0, 7 - length)
                    else:
                        to[0] = 0x7F
                        memset(to + 1, 0xFF, 7 - length)
                    memcpy(to + 8 - length, value, length)
                elif kind == KEY_TEXT and memchr(value, 0, length) == NULL:
                    to = grow(&out, length + 2)
                    memcpy(to, value, length)
                    to[length] = 0
                    to[length + 1] = 0
                else:
                    found = self.encoders[i](row[at + 4 : at + 4 + length])
                    memcpy(grow(&out, len(found)), PyBytes_AS_STRING(found), len(found))
            return taken(&out)
        finally:
            free(out.data)


# -- rows of parameters ----------------------------------------------------------------------------------------

cdef enum Source:
    COMPUTED = 0  #: by a call
    FIXED = 1  #: whole numbers and uuid of the column's own type and width, in binary
    INSTANT = 2  #: a finite timestamp, in binary
    TEXT = 3  #: ASCII text, in either format
    NUMBER = 4  #: a small integer, in binary, for a numeric column
    WIDER = 5  #: an integer, in binary, for a column of wider integers


cdef class ParameterRow:
    """See dsql_server.encoding.parameter_row."""

    cdef int count
    cdef int* sources
    cdef int* places
    cdef int* sizes
    cdef tuple calls

    def __cinit__(self, columns):
        """``columns``: (source, place among the parameters, size, call)"""
        self.count = len(columns)
        self.sources = <int*>malloc(sizeof(int) * (self.count + 1))
        self.places = <int*>malloc(sizeof(int) * (self.count + 1))
        self.sizes = <int*>malloc(sizeof(int) * (self.count + 1))
        if self.sources == NULL or self.places == NULL or self.sizes == NULL:
            raise MemoryError()
        self.calls = tuple([call for _, _, _, call in columns])
        for at, (source, place, size, _) in enumerate(columns):
            self.sources[at] = source
            self.places[at] = place
            self.sizes[at] = size

    def __dealloc__(self):
        free(self.sources)
        free(self.places)
        free(self.sizes)

    def __call__(self, bound):
        cdef list values = list(bound.values)
        cdef tuple formats = tuple(bound.formats)
        cdef Py_ssize_t given = len(values)
        cdef Buffer out
        cdef int i, source, place, size, binary
        cdef Py_ssize_t length, j
        cdef int64_t number
        cdef const uint8_t* data
        cdef uint8_t* to
        cdef bint done
        if len(formats) != given:
            raise ValueError("a format for each parameter")
        out.data = NULL
        out.size = out.room = 0
        try:
            to = grow(&out, 2)
            to[0] = <uint8_t>(self.count >> 8)
            to[1] = <uint8_t>self.count
            for i in range(self.count):
                source = self.sources[i]
                done = False
                if source != COMPUTED:
                    place = self.places[i]
                    if place >= given:
                        raise IndexError("a parameter that isn't there")
                    value = values[place]
                    if type(value) is bytes:
                        data = <const uint8_t*>PyBytes_AS_STRING(value)
                        length = PyBytes_GET_SIZE(value)
                        size = self.sizes[i]
                        binary = <int>formats[place]
                        if source == FIXED:
                            done = binary == 1 and length == size
                        elif source == INSTANT:
                            if binary == 1 and length == 8:
                                number = i64(data)
                                done = -211813488000000000 <= number < 9223371331200000000
                        elif source == TEXT:
                            # In ASCII there are as many characters as bytes; ``size`` is how many there may be.
                            done = length <= size
                            if done:
                                for j in range(length):
                                    if data[j] == 0 or data[j] >= 0x80:
                                        done = False
                                        break
                        elif source == WIDER and binary == 1 and length == (size >> 8):
                            number = 0
                            if length == 2:
                                number = i16(data)
                            elif length == 4:
                                number = i32(data)
                            size &= 0xFF
                            if size == 4:
                                to = grow(&out, 8)
                                put32(to, 4)
                                put32(to + 4, <int32_t>number)
                            else:
                                to = grow(&out, 12)
                                put32(to, 8)
                                put64(to + 4, number)
                            continue
                        elif source == NUMBER and binary == 1:
                            number = 0
                            if length == 2:
                                number = i16(data)
                            elif length == 4:
                                number = i32(data)
                            elif length == 8:
                                number = i64(data)
                            # ``size``: the column's digits before the point, and behind it the scale.
                            if 0 < number < 10000 and length == (size >> 24):
                                j = 1 if number < 10 else 2 if number < 100 else 3 if number < 1000 else 4
                                if j <= ((size >> 12) & 0xFFF):
                                    to = grow(&out, 14)
                                    put32(to, 10)
                                    to[4] = 0
                                    to[5] = 1
                                    to[6] = to[7] = to[8] = to[9] = 0
                                    to[10] = <uint8_t>((size & 0xFFF) >> 8)
                                    to[11] = <uint8_t>(size & 0xFF)
                                    to[12] = <uint8_t>(number >> 8)
                                    to[13] = <uint8_t>number
                                    continue
                        if done:
                            to = grow(&out, length + 4)
                            put32(to, <int32_t>length)
                            memcpy(to + 4, data, length)
                            continue
                value = self.calls[i](bound)
                if value is None:
                    put32(grow(&out, 4), -1)
                    continue
                length = len(<bytes?>value)
                to = grow(&out, length + 4)
                put32(to, <int32_t>length)
                memcpy(to + 4, PyBytes_AS_STRING(value), length)
            return taken(&out)
        finally:
            free(out.data)


# -- messages --------------------------------------------------------------------------------------------------

def split_execution(bytes data not None):
    """See dsql_server.encoding.executions.split_execution."""
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), at, end
    cdef int32_t length
    cdef int count, number, results, i
    cdef bint described
    cdef const uint8_t* zero
    # The least: Bind 1+4+1+1+2+2+2, Execute 10, Sync 5.
    if size < 28 or start[0] != c"B":
        return None
    length = i32(start + 1)
    if length < 12 or length > size - 16:
        return None
    end = 1 + length
    # What follows: perhaps Describe of the unnamed portal, its Execute, Sync.
    described = False
    if size - end == 22:
        if memcmp(start + end, b"D\x00\x00\x00\x06P\x00", 7) != 0:
            return None
        described = True
    elif size - end != 15:
        return None
    if memcmp(start + size - 15, b"E\x00\x00\x00\x09\x00\x00\x00\x00\x00S\x00\x00\x00\x04", 15) != 0:
        return None
    if start[5] != 0:
        return None
    zero = <const uint8_t*>memchr(start + 6, 0, end - 6)
    if zero == NULL:
        return None
    name = PyBytes_FromStringAndSize(<const char*>start + 6, zero - start - 6)
    at = zero - start + 1
    if at + 2 > end:
        return None
    count = i16(start + at)
    at += 2
    if count < 0 or at + 2 * count + 2 > end:
        return None
    cdef Py_ssize_t given = at
    for i in range(count):
        if start[at] != 0 or start[at + 1] > 1:
            return None
        at += 2
    number = i16(start + at)
    at += 2
    if number < 0 or (count > 1 and count != number):
        return None
    values = []
    for i in range(number):
        if at + 4 > end:
            return None
        length = i32(start + at)
        at += 4
        if length == -1:
            values.append(None)
            continue
        if length < 0 or length > end - at:
            return None
        values.append(PyBytes_FromStringAndSize(<const char*>start + at, length))
        at += length
    if at + 2 > end:
        return None
    results = i16(start + at)
    if results < 0 or at + 2 + 2 * results != end:
        return None
    if count == number:
        formats = tuple([i16(start + given + 2 * i) for i in range(number)])
    elif count == 1:
        formats = (i16(start + given),) * number
    else:
        formats = (0,) * number
    return name, values, formats, PyBytes_FromStringAndSize(<const char*>start + at, end - at), described


def exact_values(given, given_formats, list plain not None, call):
    """Each value in binary format; see dsql_server.processor.direct_read.

    ``plain`` holds for each parameter the size of its type where any bytes of that size are a value of it, -8 for
    timestamps, 0 for others: what isn't certain here goes through ``call(number)``.
    """
    cdef list values = list(given)
    cdef tuple formats = tuple(given_formats)
    cdef Py_ssize_t count = len(values), at
    cdef int size
    cdef int64_t number
    cdef list found = []
    if len(formats) != count or len(plain) != count:
        raise ValueError("a format and a type for each value")
    for at in range(count):
        value = values[at]
        if value is None:
            found.append(None)
            continue
        size = plain[at]
        if type(value) is bytes and <int>formats[at] == 1:
            if size > 0 and PyBytes_GET_SIZE(value) == size:
                found.append(value)
                continue
            if size == -8 and PyBytes_GET_SIZE(value) == 8:
                number = i64(<const uint8_t*>PyBytes_AS_STRING(value))
                if -211813488000000000 <= number < 9223371331200000000:
                    found.append(value)
                    continue
        found.append(call(at))
    return found
