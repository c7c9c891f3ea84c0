"""``fdatasync`` without a thread: Linux's asynchronous I/O, with completions on the event loop.

A thread that syncs needs the interpreter twice for each record, and takes it from the event loop in the middle of
somebody's transaction. The kernel can do the same by itself and raise an eventfd when it is done.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import sys
from collections.abc import Callable
from struct import Struct

#: System call numbers by machine: io_setup, io_destroy, io_getevents, io_submit.
_SYSTEM_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
_COMMAND_FDSYNC = 3  #: IOCB_CMD_FDSYNC: what fdatasync() does
_FLAG_EVENTFD = 1  #: IOCB_FLAG_RESFD
#: Syncs that may be under way in one context; a journal has three copies with one each.
SYNCS_MAX = 16

#: struct iocb: data, key, rw_flags, opcode, priority, descriptor, buffer, bytes, offset, reserved, flags, eventfd.
_CONTROL_BLOCK = Struct("<QIIHhIQQqQII")


class _Event(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_uint64),
        ("block", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("more", ctypes.c_int64),
    ]


class KernelSync:
    """Syncs files behind the event loop's back. :meth:`close` it; callbacks run on the loop's thread.

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
        self._blocks = [ctypes.create_string_buffer(_CONTROL_BLOCK.size) for _ in range(SYNCS_MAX)]
        self._pointers = [(ctypes.c_void_p * 1)(ctypes.addressof(block)) for block in self._blocks]
        self._events = (_Event * SYNCS_MAX)()
        self._free = list(range(SYNCS_MAX))
        self._callbacks: dict[int, Callable[[int], None]] = {}
        loop.add_reader(self._eventfd, self._completed)

    def fdatasync(self, descriptor: int, on_done: Callable[[int], None]) -> None:
        """Sync a file; ``on_done`` gets 0, or the error's number. Raises OSError if it can't even be asked for."""
        slot = self._free.pop()
        _CONTROL_BLOCK.pack_into(
            self._blocks[slot], 0, slot, 0, 0, _COMMAND_FDSYNC, 0, descriptor, 0, 0, 0, 0, _FLAG_EVENTFD, self._eventfd
        )
        try:
            self._check(self._call(self._submit, self._context, 1, self._pointers[slot]))
        except OSError:
            self._free.append(slot)
            raise
        self._callbacks[slot] = on_done

    def wait(self) -> bool:
        """Block until a sync is done, and call back. False if none was under way."""
        if not self._callbacks:
            return False
        self._take(1)
        return True

    def close(self) -> None:
        """Let what is under way end unheard, and give everything back to the kernel."""
        if self._eventfd >= 0:
            self._callbacks.clear()
            self.loop.remove_reader(self._eventfd)
            self._call(self._destroy, self._context)
            os.close(self._eventfd)
            self._eventfd = -1

    def _completed(self) -> None:
        try:
            os.eventfd_read(self._eventfd)
        except BlockingIOError:
            return
        self._take(0)

    def _take(self, at_least: int) -> None:
        count = self._check(self._call(self._getevents, self._context, at_least, SYNCS_MAX, self._events, None))
        done = [(self._events[i].data, self._events[i].result) for i in range(count)]
        for slot, result in done:
            self._free.append(slot)
            self._callbacks.pop(slot)(-result)

    def _check(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
