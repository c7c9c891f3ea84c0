# Fields of stored rows, as they are sent and as keys have them, for the extension modules that include it behind
# memory.pxi.


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

    cdef Py_ssize_t* places(self, Py_ssize_t* on_stack) except NULL:
        """Room for where the fields begin: ``on_stack``, which has room for 64, or what ``free`` has to take back."""
        cdef Py_ssize_t* starts = on_stack
        if self.last >= 64:
            starts = <Py_ssize_t*>malloc(sizeof(Py_ssize_t) * (self.last + 1))
            if starts == NULL:
                raise MemoryError()
        return starts

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


cdef int put_field(Buffer* out, bytes row, Py_ssize_t at, int kind, object output) except -1:
    """The field that begins at ``at`` (below 0: the row is too old to have it) as it is sent, its length in front."""
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(row)
    cdef const uint8_t* value
    cdef int32_t length = -1 if at < 0 else i32(data + at)
    cdef int done = 1
    cdef bytes found
    if length < 0:
        put32(grow(out, 4), -1)
        return 0
    value = data + at + 4
    if kind == AS_IS:
        memcpy(grow(out, length + 4), data + at, length + 4)
        done = 0
    elif kind == UUID:
        if length == 16:
            done = put_uuid(out, value)
    elif kind == INT4:
        if length == 4:
            done = put_integer(out, i32(value))
    elif kind == INT8:
        if length == 8:
            done = put_integer(out, i64(value))
    elif kind == INT2:
        if length == 2:
            done = put_integer(out, i16(value))
    elif kind == BOOLEAN:
        if length == 1:
            put32(grow(out, 4), 1)
            grow(out, 1)[0] = c"t" if value[0] == 1 else c"f"
            done = 0
    elif kind == NUMERIC:
        done = put_numeric(out, value, length)
    elif kind == TIMESTAMP or kind == TIMESTAMPTZ:
        if length == 8:
            done = put_instant(out, i64(value), kind == TIMESTAMPTZ)
    if done:
        found = output(row[at + 4 : at + 4 + length])
        memcpy(grow(out, PyBytes_GET_SIZE(found)), PyBytes_AS_STRING(found), PyBytes_GET_SIZE(found))
    return 0


# -- values in keys ----------------------------------------------------------------------------------------------

cdef enum KeyKind:
    KEY_BY_CALL = 0
    KEY_AS_IS = 1
    KEY_INT2 = 2
    KEY_INT4 = 3
    KEY_SIGNED = 4
    KEY_TEXT = 5


cdef int put_key(Buffer* out, const uint8_t* value, Py_ssize_t length, int kind, object encoder) except -1:
    """A value in binary format as a key has it, without the marker in front."""
    cdef uint8_t* to
    cdef bytes found
    if kind == KEY_AS_IS:
        memcpy(grow(out, length), value, length)
    elif kind == KEY_SIGNED and length:
        to = grow(out, length)
        memcpy(to, value, length)
        to[0] ^= 0x80
    elif (kind == KEY_INT4 and length == 4) or (kind == KEY_INT2 and length == 2):
        to = grow(out, 8)
        if value[0] < 0x80:
            to[0] = 0x80
            memset(to + 1, 0, 7 - length)
        else:
            to[0] = 0x7F
            memset(to + 1, 0xFF, 7 - length)
        memcpy(to + 8 - length, value, length)
    elif kind == KEY_TEXT and memchr(value, 0, length) == NULL:
        to = grow(out, length + 2)
        memcpy(to, value, length)
        to[length] = 0
        to[length + 1] = 0
    else:
        found = encoder(PyBytes_FromStringAndSize(<const char*>value, length))
        memcpy(grow(out, PyBytes_GET_SIZE(found)), PyBytes_AS_STRING(found), PyBytes_GET_SIZE(found))
    return 0
