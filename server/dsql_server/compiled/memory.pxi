# What the extension modules of this package have in common; each includes it.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

VERSION = 15  #: as dsql_server.compiled.VERSION


# -- numbers in bytes ------------------------------------------------------------------------------------------

cdef inline int32_t i32(const uint8_t* at) noexcept nogil:
    return <int32_t>((<uint32_t>at[0] << 24) | (<uint32_t>at[1] << 16) | (<uint32_t>at[2] << 8) | at[3])


cdef inline int i16(const uint8_t* at) noexcept nogil:
    cdef int value = (at[0] << 8) | at[1]
    return value - 65536 if value >= 32768 else value


cdef inline int64_t i64(const uint8_t* at) noexcept nogil:
    return <int64_t>((<uint64_t><uint32_t>i32(at) << 32) | <uint32_t>i32(at + 4))


cdef inline void put32(uint8_t* at, int32_t value) noexcept nogil:
    at[0] = <uint8_t>(<uint32_t>value >> 24)
    at[1] = <uint8_t>(<uint32_t>value >> 16)
    at[2] = <uint8_t>(<uint32_t>value >> 8)
    at[3] = <uint8_t>value


cdef inline void put64(uint8_t* at, int64_t value) noexcept nogil:
    put32(at, <int32_t>(<uint64_t>value >> 32))
    put32(at + 4, <int32_t>value)


cdef inline void little32(uint8_t* at, int32_t value) noexcept nogil:
    at[0] = <uint8_t>value
    at[1] = <uint8_t>(<uint32_t>value >> 8)
    at[2] = <uint8_t>(<uint32_t>value >> 16)
    at[3] = <uint8_t>(<uint32_t>value >> 24)


# -- bytes that grow -------------------------------------------------------------------------------------------

cdef struct Buffer:
    uint8_t* data
    Py_ssize_t size
    Py_ssize_t room


cdef uint8_t* grow(Buffer* buffer, Py_ssize_t more) except NULL:
    """Room for ``more`` bytes behind what is there, which counts as taken."""
    cdef Py_ssize_t wanted = buffer.size + more
    cdef uint8_t* data
    if wanted > buffer.room or buffer.data == NULL:
        data = <uint8_t*>realloc(buffer.data, 2 * wanted + 256)
        if data == NULL:
            raise MemoryError()
        buffer.data = data
        buffer.room = 2 * wanted + 256
    data = buffer.data + buffer.size
    buffer.size = wanted
    return data


cdef bytes taken(Buffer* buffer):
    return PyBytes_FromStringAndSize(<char*>buffer.data, buffer.size)


# -- stored rows -----------------------------------------------------------------------------------------------

cdef int locate(const uint8_t* row, Py_ssize_t end, int last, Py_ssize_t* starts) except -1:
    """Where the fields up to ``last`` begin, with their lengths; -1 for those that the row is too old to have."""
    cdef Py_ssize_t at = 2
    cdef int32_t length
    cdef int fields, i
    if end < 2:
        raise ValueError("a row that is cut off")
    fields = i16(row)
    for i in range(last + 1):
        if i >= fields:
            starts[i] = -1
            continue
        if at + 4 > end:
            raise ValueError("a row that is cut off")
        starts[i] = at
        length = i32(row + at)
        at += 4
        if length > 0:
            at += length
            if at > end:
                raise ValueError("a row that is cut off")
    return 0
