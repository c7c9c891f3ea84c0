# Keys of stored rows; _encoding and _inserts include it behind fields.pxi.

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

    cdef int put(self, Buffer* out, bytes row) except -1:
        cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(row)
        cdef Py_ssize_t at
        cdef Py_ssize_t starts[64]
        cdef int i
        cdef int32_t length
        locate(data, PyBytes_GET_SIZE(row), self.last, starts)
        memcpy(grow(out, PyBytes_GET_SIZE(self.start)), PyBytes_AS_STRING(self.start), PyBytes_GET_SIZE(self.start))
        for i in range(self.count):
            at = starts[self.positions[i]]
            length = -1 if at < 0 else i32(data + at)
            if length < 0:
                grow(out, 1)[0] = <uint8_t><int>self.nulls[i]
                continue
            grow(out, 1)[0] = 1
            put_key(out, data + at + 4, length, self.kinds[i], self.encoders[i])
        return 0

    def __call__(self, bytes row not None):
        cdef Buffer out
        out.data = NULL
        out.size = out.room = 0
        try:
            self.put(&out, row)
            return taken(&out)
        finally:
            free(out.data)
