# Fields of rows made of an execution's parameters; _encoding and _inserts include it behind memory.pxi.

cdef enum Source:
    COMPUTED = 0  #: by a call
    FIXED = 1  #: whole numbers and uuid of the column's own type and width, in binary
    INSTANT = 2  #: a finite timestamp, in binary
    TEXT = 3  #: ASCII text, in either format
    NUMBER = 4  #: a small integer, in binary, for a numeric column
    WIDER = 5  #: an integer, in binary, for a column of wider integers
    KNOWN = 6  #: the same whatever is bound


cdef int put_bytes(Buffer* out, const uint8_t* data, Py_ssize_t length) except -1:
    cdef uint8_t* to = grow(out, length + 4)
    put32(to, <int32_t>length)
    memcpy(to + 4, data, length)
    return 0


cdef int put_value(Buffer* out, value) except -1:
    """What a call has made of the parameters: bytes or None."""
    if value is None:
        put32(grow(out, 4), -1)
    else:
        put_bytes(out, <const uint8_t*>PyBytes_AS_STRING(<bytes?>value), len(<bytes>value))
    return 0


cdef int put_parameter(Buffer* out, int source, int size, int binary, const uint8_t* data, Py_ssize_t length) except -1:
    """1, and nothing written, for a value that isn't plain. ``size`` is what there is to know of the column."""
    cdef Py_ssize_t j
    cdef int64_t number
    cdef uint8_t* to
    cdef bint done = False
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
            to = grow(out, 8)
            put32(to, 4)
            put32(to + 4, <int32_t>number)
        else:
            to = grow(out, 12)
            put32(to, 8)
            put64(to + 4, number)
        return 0
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
                to = grow(out, 14)
                put32(to, 10)
                to[4] = 0
                to[5] = 1
                to[6] = to[7] = to[8] = to[9] = 0
                to[10] = <uint8_t>((size & 0xFFF) >> 8)
                to[11] = <uint8_t>(size & 0xFF)
                to[12] = <uint8_t>(number >> 8)
                to[13] = <uint8_t>number
                return 0
    if not done:
        return 1
    put_bytes(out, data, length)
    return 0
