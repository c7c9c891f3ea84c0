"""Tell a process from a later one that got the same process id."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

_PS_SECONDS_MAX = 5


class ProcessIdentity(NamedTuple):
    """A process id and when that process started (an opaque text that no later process shares)."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The identity of the running process ``pid``; None if there is none or it is only waiting to be reaped."""
        started = _started_linux(pid) if Path("/proc/self/stat").exists() else _started_ps(pid)
        return None if started is None else cls(pid, started)

    @classmethod
    def own(cls) -> ProcessIdentity:
        """The identity of this process."""
        identity = cls.of(os.getpid())
        assert identity is not None, "this process runs"
        return identity

    def is_running(self) -> bool:
        """Whether that very process still runs."""
        return ProcessIdentity.of(self.pid) == self


def _started_linux(pid: int) -> str | None:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The name in parentheses may itself contain spaces and parentheses; the state follows the last one.
    fields = status.rpartition(")")[2].split()
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot} {start_ticks}"


def _started_ps(pid: int) -> str | None:
    done = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=_PS_SECONDS_MAX
    )
    state, _, started = done.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()
