"""``createcachetable``, which Django's commands and test runs call for caches in the database.

It writes CREATE TABLE and CREATE INDEX by itself, in one transaction and without ``ASYNC``. No method of a backend is
asked for either, so the cursor that it works with is told apart by its frame, and runs each statement as DSQL takes it.
"""

from __future__ import annotations

import re
import sys
from types import FrameType
from typing import Any

from dsql_dialects.django.schema_jobs import Job, await_job
from dsql_dialects.django.schema_statements import undo_of

_COMMAND = "django.core.management.commands.createcachetable"

#: From a new cursor up to the command's method.
_FRAMES_MAX = 8

_CREATE_INDEX = re.compile(r"^\s*CREATE (UNIQUE )?INDEX ")


def is_being_made() -> bool:
    """Whether the caller's caller is the command."""
    command = sys.modules.get(_COMMAND)
    if command is None:
        return False
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_FRAMES_MAX):
        if frame is None:
            return False
        if frame.f_code is command.Command.create_table.__code__:
            return True
        frame = frame.f_back
    return False


class CacheTableCursor:
    """A cursor for the command: each statement is a transaction of its own, and index builds are waited for.

    :param connection: Django's.
    :param cursor: the driver's.
    """

    def __init__(self, connection: Any, cursor: Any) -> None:
        self._connection = connection
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, sql: str, *args: Any) -> None:
        """As the driver's.

        :raises IntegrityError: if an index can't be built.
        """
        sql = _CREATE_INDEX.sub(r"CREATE \1INDEX ASYNC ", sql)
        if self._connection.isolation is not None:
            self._connection.isolation.keep_written()
        self._cursor.execute(sql, *args)
        if not _CREATE_INDEX.match(sql):
            self._connection.connection.commit()
            return
        job_id = str(self._cursor.fetchone()[0])
        self._connection.connection.commit()
        await_job(_DriversConnection(self._connection), Job(job_id, sql, undo_of(sql)))


class _DriversConnection:
    """The driver's connection where Django's is expected, so that waiting is no query of the command's."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection.connection

    def is_usable(self) -> bool:
        return not self.connection.closed

    def cursor(self) -> Any:
        return self.connection.cursor()

    def close(self) -> None:
        self.connection.close()
