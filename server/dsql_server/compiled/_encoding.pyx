# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""Rows, keys, parameters and messages: the loops over their fields.

See dsql_server.compiled.
"""

include "memory.pxi"
include "fields.pxi"


# -- rows as they are sent -------------------------------------------------------------------------------------

cdef class RowWriter(RowFields):
    """See dsql_server.encoding.output.row_writer."""

    cdef tuple outputs

    def __cinit__(self, columns):
        """``columns``: (position, kind, output)"""
        self.keep(columns, 100000)
        self.outputs = tuple([output for _, _, output in columns])

    def __call__(self, bytes row not None):
        cdef Py_ssize_t on_stack[64]
        cdef Py_ssize_t* starts = self.places(on_stack)
        cdef int i
        cdef Buffer out
        out.data = NULL
        out.size = out.room = 0
        try:
            locate(<const uint8_t*>PyBytes_AS_STRING(row), PyBytes_GET_SIZE(row), self.last, starts)
            for i in range(self.count):
                put_field(&out, row, starts[self.positions[i]], self.kinds[i], self.outputs[i])
            return taken(&out)
        finally:
            free(out.data)
            if starts != on_stack:
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
        cdef int i
        cdef int32_t length
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
                grow(&out, 1)[0] = 1
                put_key(&out, data + at + 4, length, self.kinds[i], self.encoders[i])
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
