# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""Journals: a record's changes, and the kernel's syncs of its copies.

See dsql_server.compiled.
"""

include "memory.pxi"


# -- journal records -------------------------------------------------------------------------------------------

def encode_changes(claims, mutations):
    """The lengths and the bytes of claims and mutations; see dsql_server.journal.record.encode_transaction."""
    cdef Py_ssize_t n_claims = len(claims), n_mutations = len(mutations)
    cdef Buffer out
    cdef uint8_t* to
    cdef uint8_t* lengths
    cdef Py_ssize_t at = 0, size
    cdef bytes key, content
    out.data = NULL
    out.size = out.room = 0
    try:
        grow(&out, 8 * (n_claims + n_mutations))
        for claim in claims:
            key = claim[0]
            size = PyBytes_GET_SIZE(key)
            memcpy(grow(&out, size), PyBytes_AS_STRING(key), size)
            little32(out.data + at, <int32_t>size)
            little32(out.data + at + 4, <int32_t><int>claim[1])
            at += 8
        for mutation in mutations:
            key = mutation[0]
            size = PyBytes_GET_SIZE(key)
            memcpy(grow(&out, size), PyBytes_AS_STRING(key), size)
            little32(out.data + at, <int32_t>size)
            value = mutation[1]
            if value is None:
                little32(out.data + at + 4, -1)
            else:
                content = value
                size = PyBytes_GET_SIZE(content)
                memcpy(grow(&out, size), PyBytes_AS_STRING(content), size)
                little32(out.data + at + 4, <int32_t>size)
            at += 8
        return taken(&out)
    finally:
        free(out.data)


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
