# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""Journals: a record's changes, and the kernel's syncs of its copies.

See dsql_server.compiled.
"""

from hashlib import blake2b
from zlib import crc32

include "memory.pxi"


# -- journal records -------------------------------------------------------------------------------------------

cdef inline void little64(uint8_t* at, int64_t value) noexcept nogil:
    little32(at, <int32_t>value)
    little32(at + 4, <int32_t>(<uint64_t>value >> 32))


cdef int put_bytes(Buffer* out, bytes content) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(content)
    memcpy(grow(out, size), PyBytes_AS_STRING(content), size)
    return 0


cdef int put_transaction(Buffer* out, transaction) except -1:
    """See dsql_server.journal.record._encode_transaction."""
    cdef bytes transaction_id, key, content
    cdef Py_ssize_t at = out.size, n_claims, n_mutations
    transaction_id, t_commit, t_start, catalog_version, claims, mutations, catalog_change = transaction
    if PyBytes_GET_SIZE(transaction_id) != 16:
        raise ValueError("a transaction id has 16 bytes")
    n_claims = len(claims)
    n_mutations = len(mutations)
    grow(out, 52 + 8 * (n_claims + n_mutations))
    memcpy(out.data + at, PyBytes_AS_STRING(transaction_id), 16)
    little64(out.data + at + 16, t_commit)
    little64(out.data + at + 24, t_start)
    little64(out.data + at + 32, catalog_version)
    little32(out.data + at + 40, <int32_t>n_claims)
    little32(out.data + at + 44, <int32_t>n_mutations)
    little32(out.data + at + 48, -1 if catalog_change is None else <int32_t>len(<bytes?>catalog_change))
    at += 52
    for claim in claims:
        key = claim[0]
        put_bytes(out, key)
        little32(out.data + at, <int32_t>PyBytes_GET_SIZE(key))
        little32(out.data + at + 4, <int32_t><int>claim[1])
        at += 8
    for mutation in mutations:
        key = mutation[0]
        put_bytes(out, key)
        little32(out.data + at, <int32_t>PyBytes_GET_SIZE(key))
        if mutation[1] is None:
            little32(out.data + at + 4, -1)
        else:
            content = mutation[1]
            put_bytes(out, content)
            little32(out.data + at + 4, <int32_t>PyBytes_GET_SIZE(content))
        at += 8
    if catalog_change is not None:
        put_bytes(out, catalog_change)
    return 0


def encode_record(int64_t epoch, int64_t sequence, bytes previous_digest not None, transactions):
    """See dsql_server.journal.record._encode_record."""
    cdef Buffer out
    cdef bytes record
    cdef Py_ssize_t at
    if PyBytes_GET_SIZE(previous_digest) != 16:
        raise ValueError("a digest has 16 bytes")
    out.data = NULL
    out.size = out.room = 0
    try:
        grow(&out, 48)
        memcpy(out.data, b"DSJ1", 4)
        little32(out.data + 12, <int32_t>len(transactions))
        little64(out.data + 16, epoch)
        little64(out.data + 24, sequence)
        memcpy(out.data + 32, PyBytes_AS_STRING(previous_digest), 16)
        for transaction in transactions:
            at = out.size
            grow(&out, 4)
            put_transaction(&out, transaction)
            little32(out.data + at, <int32_t>(out.size - at - 4))
        little32(out.data + 8, <int32_t>out.size)
        record = taken(&out)
    finally:
        free(out.data)
    # Nobody has the record yet, so what its own bytes come to can still be put into it.
    little32(<uint8_t*>PyBytes_AS_STRING(record) + 4, <int32_t><uint32_t>crc32(memoryview(record)[8:]))
    return record, blake2b(record, digest_size=16).digest()


# -- asynchronous fdatasync ------------------------------------------------------------------------------------

cdef extern from *:
    """
    #if defined(__linux__)
    #include <errno.h>
    #include <fcntl.h>
    #include <string.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
    #include <linux/aio_abi.h>
    #define HAS_KERNEL_AIO 1
    #define SYNCS_AT_ONCE 16
    /* Asks for the files' syncs, all at once: how many were taken, or -errno. */
    static long submit_syncs_now(unsigned long context, int event, int count, const int *files, const int *slots) {
        struct iocb blocks[SYNCS_AT_ONCE];
        struct iocb *pointers[SYNCS_AT_ONCE];
        long taken;
        memset(blocks, 0, sizeof blocks);
        for (int i = 0; i < count; i++) {
            blocks[i].aio_data = (unsigned long long)slots[i];
            blocks[i].aio_fildes = (unsigned int)files[i];
            blocks[i].aio_lio_opcode = IOCB_CMD_FDSYNC;
            blocks[i].aio_flags = IOCB_FLAG_RESFD;
            blocks[i].aio_resfd = (unsigned int)event;
            pointers[i] = &blocks[i];
        }
        taken = syscall(SYS_io_submit, context, (long)count, pointers);
        return taken < 0 ? -errno : taken;
    }
    static long take_events_now(unsigned long context, long least, long long wait_ns, long long *slots, long long *results) {
        struct io_event events[SYNCS_AT_ONCE];
        struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
        long count = syscall(SYS_io_getevents, context, least, (long)SYNCS_AT_ONCE, events, wait_ns < 0 ? NULL : &wait);
        if (count < 0) return -errno;
        for (long i = 0; i < count; i++) { slots[i] = (long long)events[i].data; results[i] = events[i].res; }
        return count;
    }
    #else
    #define HAS_KERNEL_AIO 0
    static long submit_syncs_now(unsigned long context, int event, int count, const int *files, const int *slots) { return -38; }
    static long take_events_now(unsigned long context, long least, long long wait_ns, long long *slots, long long *results) { return -38; }
    #endif
    """
    const int HAS_KERNEL_AIO
    long submit_syncs_now(unsigned long, int, int, const int*, const int*) nogil
    long take_events_now(unsigned long, long, long long, long long*, long long*) nogil


def submit_syncs(unsigned long context, int event, list asked):
    """See dsql_server.journal.kernel_sync. ``asked``: at most 16 pairs of slot and descriptor."""
    cdef int files[16]
    cdef int slots[16]
    cdef int count = 0
    for slot, descriptor in asked[:16]:
        slots[count] = slot
        files[count] = descriptor
        count += 1
    return submit_syncs_now(context, event, count, files, slots)


def take_events(unsigned long context, long least, long long wait_ns):
    """See dsql_server.journal.kernel_sync: pairs of slot and result, or -errno. ``wait_ns`` -1: without end."""
    cdef long long slots[16]
    cdef long long results[16]
    cdef long count, i
    with nogil:
        count = take_events_now(context, least, wait_ns, slots, results)
    if count < 0:
        return count
    return [(slots[i], results[i]) for i in range(count)]
