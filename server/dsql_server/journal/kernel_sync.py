"""``fdatasync`` without a thread: Linux's asynchronous I/O, with completions on the event loop.

A thread that syncs needs the interpreter twice for each record, and takes it from the event loop in the middle of
somebody's transaction. The kernel can do the same by itself and raise an eventfd when it is done.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import platform
import sys
from collections.abc import Callable
from struct import Struct

from dsql_server import compiled

#: System call numbers by machine: io_setup, io_destroy, io_getevents, io_submit.
_SYSTEM_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
_COMMAND_FDSYNC = 3  #: IOCB_CMD_FDSYNC: what fdatasync() does
_FLAG_EVENTFD = 1  #: IOCB_FLAG_RESFD
#: Syncs that may be under way in one context; a journal has three copies with one each.
SYNCS_MAX = 16
#: Copies are synced in pairs: where one is done, how long to wait for the other before others have a turn, in ns.
PAIR_WAIT_NS = 30_000

#: struct iocb: data, key, rw_flags, opcode, priority, descriptor, buffer, bytes, offset, reserved, flags, eventfd.
_CONTROL_BLOCK = Struct("<QIIHhIQQqQII")


class _Event(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_uint64),
        ("block", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("more", ctypes.c_int64),
    ]


class _Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class KernelSync:
    """Syncs files behind the event loop's back. :meth:`close` it; callbacks run on the loop's thread.

    What :meth:`fdatasync` asks for begins with :meth:`submit`: one system call for all copies, once each of them has
    been written to.
    Raises OSError where the kernel has no asynchronous I/O or doesn't allow it: use threads then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        calls = _SYSTEM_CALLS.get(platform.machine()) if sys.platform == "linux" else None
        if calls is None or not hasattr(os, "eventfd"):
            raise OSError("no asynchronous fdatasync on this platform")
        self._setup, self._destroy, self._getevents, self._submit = calls
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._context = ctypes.c_ulong(0)
        self._check(self._call(self._setup, SYNCS_MAX, ctypes.byref(self._context)))
        self.loop = loop
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._asked: list[tuple[int, int]] = []  #: slot and descriptor of syncs that are to be submitted
        self._blocks = [ctypes.create_string_buffer(_CONTROL_BLOCK.size) for _ in range(SYNCS_MAX)]
        self._pointers = [(ctypes.c_void_p * 1)(ctypes.addressof(block)) for block in self._blocks]
        self._events = (_Event * SYNCS_MAX)()
        self._free = list(range(SYNCS_MAX))
        self._callbacks: dict[int, Callable[[int], None]] = {}
        loop.add_reader(self._eventfd, self._completed)

    def fdatasync(self, descriptor: int, on_done: Callable[[int], None]) -> None:
        """Sync a file once it is submitted; ``on_done`` gets 0, or the error's number."""
        slot = self._free.pop()
        self._asked.append((slot, descriptor))
        self._callbacks[slot] = on_done

    def submit(self) -> None:
        """Begin the syncs that were asked for."""
        asked = self._asked
        if not asked:
            return
        self._asked = []
        if compiled.journal is not None:
            taken = compiled.journal.submit_syncs(self._context.value, self._eventfd, asked)
        else:
            taken = self._submit_one_by_one(asked)
        if taken < len(asked):
            # Told later: whoever asked is still in the middle of it.
            error = -taken if taken < 0 else errno.EAGAIN
            self.loop.call_soon(self._not_taken, [slot for slot, _ in asked[max(taken, 0) :]], error)

    def _submit_one_by_one(self, asked: list[tuple[int, int]]) -> int:
        """How many were taken; the error's number, negative, where the first one wasn't."""
        for at, (slot, descriptor) in enumerate(asked):
            fields = (slot, 0, 0, _COMMAND_FDSYNC, 0, descriptor, 0, 0, 0, 0, _FLAG_EVENTFD, self._eventfd)
            _CONTROL_BLOCK.pack_into(self._blocks[slot], 0, *fields)
            if self._call(self._submit, self._context, 1, self._pointers[slot]) < 0:
                return at or -ctypes.get_errno()
        return len(asked)

    def _not_taken(self, slots: list[int], error: int) -> None:
        for slot in slots:
            self._done(slot, error)

    def wait(self) -> bool:
        """Block until a sync is done, and call back. False if none was under way."""
        self.submit()
        if not self._callbacks:
            return False
        self._take(self._events_now(1, None))
        return True

    def take_all(self, wait_ns: int = 0) -> bool:
        """Call back for what is done within ``wait_ns``: where nobody else waits for the event loop, that needs no turn
        of its own. Says whether that was all that was under way."""
        under_way = len(self._callbacks)
        if under_way:
            done = self._events_now(under_way, wait_ns)
            if done:
                self._take(done)
            return len(done) == under_way
        return False

    def close(self) -> None:
        """Let what is under way end unheard, and give everything back to the kernel."""
        if self._eventfd >= 0:
            self._callbacks.clear()
            self._asked.clear()
            self.loop.remove_reader(self._eventfd)
            self._call(self._destroy, self._context)
            os.close(self._eventfd)
            self._eventfd = -1

    def _completed(self) -> None:
        try:
            os.eventfd_read(self._eventfd)
        except BlockingIOError:
            return
        done = self._events_now(0, 0)
        if len(done) == 1 and len(self._callbacks) == 2:
            done += self._events_now(1, PAIR_WAIT_NS)
        self._take(done)

    def _events_now(self, at_least: int, wait_ns: int | None) -> list[tuple[int, int]]:
        """Slots and results of syncs that are done; waits for ``at_least``, up to ``wait_ns`` (None: for ever), or for
        a signal."""
        try:
            if compiled.journal is None:
                timeout = None if wait_ns is None else ctypes.byref(_Time(0, wait_ns))
                call, context = self._call, self._context
                count = self._check(call(self._getevents, context, at_least, SYNCS_MAX, self._events, timeout))
                return [(self._events[i].data, self._events[i].result) for i in range(count)]
            found = compiled.journal.take_events(self._context.value, at_least, -1 if wait_ns is None else wait_ns)
            if isinstance(found, int):
                raise OSError(-found, os.strerror(-found))
        except InterruptedError:
            return []
        done: list[tuple[int, int]] = found
        return done

    def _take(self, done: list[tuple[int, int]]) -> None:
        for slot, result in done:
            self._done(slot, -result)
        self.submit()

    def _done(self, slot: int, error: int) -> None:
        on_done = self._callbacks.pop(slot, None)
        if on_done is not None:
            self._free.append(slot)
            on_done(error)

    def _check(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
