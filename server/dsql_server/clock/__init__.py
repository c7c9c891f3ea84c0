"""The time service: clocks with a bounded error."""

from dsql_server.clock.system import SystemClock

__all__ = ["SystemClock"]
