# Requests that execute a prepared statement; _encoding and _inserts include it behind memory.pxi.

cdef struct Execution:
    const uint8_t* name
    Py_ssize_t name_size
    int formats  #: how many formats are given: none, one for all, or one for each value
    const uint8_t* format
    int number  #: of values
    const uint8_t* values
    const uint8_t* results  #: the result formats, with their number in front
    Py_ssize_t results_size
    bint described


cdef inline int format_of(const Execution* execution, int at) noexcept nogil:
    if execution.formats == 0:
        return 0
    return execution.format[1 if execution.formats == 1 else 2 * at + 1]


cdef bint find_execution(const uint8_t* start, Py_ssize_t size, Execution* found) noexcept nogil:
    """Whether these bytes are what dsql_server.encoding.executions.split_execution splits, and where its parts are."""
    cdef Py_ssize_t at, end
    cdef int32_t length
    cdef int i, results
    cdef const uint8_t* zero
    # The least: Bind 1+4+1+1+2+2+2, Execute 10, Sync 5.
    if size < 28 or start[0] != c"B":
        return False
    length = i32(start + 1)
    if length < 12 or length > size - 16:
        return False
    end = 1 + <Py_ssize_t>length
    # What follows: perhaps Describe of the unnamed portal, its Execute, Sync.
    found.described = size - end == 22
    if found.described:
        if memcmp(start + end, b"D\x00\x00\x00\x06P\x00", 7) != 0:
            return False
    elif size - end != 15:
        return False
    if memcmp(start + size - 15, b"E\x00\x00\x00\x09\x00\x00\x00\x00\x00S\x00\x00\x00\x04", 15) != 0:
        return False
    if start[5] != 0:
        return False
    zero = <const uint8_t*>memchr(start + 6, 0, end - 6)
    if zero == NULL:
        return False
    found.name = start + 6
    found.name_size = zero - start - 6
    at = zero - start + 1
    if at + 2 > end:
        return False
    found.formats = i16(start + at)
    at += 2
    if found.formats < 0 or at + 2 * found.formats + 2 > end:
        return False
    found.format = start + at
    for i in range(found.formats):
        if start[at] != 0 or start[at + 1] > 1:
            return False
        at += 2
    found.number = i16(start + at)
    at += 2
    if found.number < 0 or (found.formats > 1 and found.formats != found.number):
        return False
    found.values = start + at
    for i in range(found.number):
        if at + 4 > end:
            return False
        length = i32(start + at)
        at += 4
        if length == -1:
            continue
        if length < 0 or length > end - at:
            return False
        at += length
    if at + 2 > end:
        return False
    results = i16(start + at)
    if results < 0 or at + 2 + 2 * results != end:
        return False
    found.results = start + at
    found.results_size = end - at
    return True
