# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""Rows, keys, parameters and messages: the loops over their fields.

See dsql_server.compiled.
"""

include "memory.pxi"
include "fields.pxi"
include "keys.pxi"
include "parameters.pxi"
include "executions.pxi"


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


# -- rows of parameters ----------------------------------------------------------------------------------------

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
        cdef int i, source, place
        cdef uint8_t* to
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
                if source == KNOWN:
                    put_value(&out, self.calls[i])
                    continue
                if source != COMPUTED:
                    place = self.places[i]
                    if place >= given:
                        raise IndexError("a parameter that isn't there")
                    value = values[place]
                    if type(value) is bytes and not put_parameter(
                        &out,
                        source,
                        self.sizes[i],
                        <int>formats[place],
                        <const uint8_t*>PyBytes_AS_STRING(value),
                        PyBytes_GET_SIZE(value),
                    ):
                        continue
                put_value(&out, self.calls[i](bound))
            return taken(&out)
        finally:
            free(out.data)


# -- messages --------------------------------------------------------------------------------------------------

def split_execution(bytes data not None):
    """See dsql_server.encoding.executions.split_execution."""
    cdef Execution found
    cdef const uint8_t* at
    cdef int32_t length
    cdef int i
    if not find_execution(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &found):
        return None
    cdef list values = []
    at = found.values
    for i in range(found.number):
        length = i32(at)
        at += 4
        if length < 0:
            values.append(None)
        else:
            values.append(PyBytes_FromStringAndSize(<const char*>at, length))
            at += length
    cdef tuple formats
    if found.formats == found.number:
        formats = tuple([format_of(&found, i) for i in range(found.number)])
    elif found.formats == 1:
        formats = (format_of(&found, 0),) * found.number
    else:
        formats = (0,) * found.number
    name = PyBytes_FromStringAndSize(<const char*>found.name, found.name_size)
    results = PyBytes_FromStringAndSize(<const char*>found.results, found.results_size)
    return name, values, formats, results, found.described
