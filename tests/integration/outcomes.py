"""What a client sees of a statement, to be compared with what it sees of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg


def outcome(execute: Callable[[], psycopg.Cursor[Any]]) -> Any:
    """The tag and the rows, sorted, or the error's SQLSTATE and text."""
    try:
        cursor = execute()
        return cursor.statusmessage, sorted(map(repr, cursor)) if cursor.description else None
    except psycopg.Error as error:
        return error.sqlstate, str(error)
