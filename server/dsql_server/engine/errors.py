"""The one error of engine control."""

from __future__ import annotations


class EngineError(RuntimeError):
    """The PostgreSQL engine can't be found, prepared, started or kept running; the message says what to do."""
