"""One ``migrate`` at a time on a database, by a row that says whose turn it is.

DSQL has no advisory locks. Two runs that want the row at once change it at once, so that only one of them commits. A
run that died is told by its process, on the same machine, or by its row, which a living one renews.
"""

from __future__ import annotations

import math
import os
import socket
import time
from contextlib import suppress
from typing import Any, NamedTuple

from django.core.management import CommandError
from django.db import DatabaseError

from dsql_dialects.django.schema_notes import JOURNAL_TABLE

#: A row that wasn't renewed for so many seconds is one of a run that died. No statement takes as long: DSQL ends
#: transactions after 5 minutes.
EXPIRES_S = 600.0

#: How often it is renewed, in seconds.
RENEWED_S = 30.0

#: The row in the journal's table; no migration has an empty name.
_KEY = ("", "lease")

#: Attribute of a connection: on the monotonic clock.
_RENEWED = "dsql_lease_renewed_s"


class Holder(NamedTuple):
    """Who migrates."""

    host: str
    process: int
    renewed_s: float  #: in seconds since 1970, by that machine's clock

    def __str__(self) -> str:
        return f"{self.host} {self.process} {self.renewed_s:.0f}"

    @classmethod
    def read(cls, text: str) -> Holder:
        """From what ``str()`` gave."""
        host, process, renewed_s = text.rsplit(" ", 2)
        return cls(host, int(process), float(renewed_s))

    def is_alive(self) -> bool:
        """Whether it may still be at work: another process, as far as it can be told."""
        if time.time() - self.renewed_s > EXPIRES_S:
            return False
        if self.host != socket.gethostname():
            return True
        return self.process != os.getpid() and _runs(self.process)


def take_turn(connection: Any) -> bool:
    """Take the row, unless this connection has it; the journal's table is there. Returns whether it was taken now.

    :raises CommandError: if another run has it.
    """
    if _RENEWED in connection.__dict__:
        return False
    mine = str(Holder(socket.gethostname(), os.getpid(), time.time()))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT detail FROM {JOURNAL_TABLE} WHERE migration = %s AND step = %s", _KEY)
        row = cursor.fetchone()
        if row is None:
            cursor.execute(f"INSERT INTO {JOURNAL_TABLE} VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", (*_KEY, mine))
        elif not (holder := Holder.read(row[0])).is_alive():
            cursor.execute(
                f"UPDATE {JOURNAL_TABLE} SET detail = %s WHERE migration = %s AND step = %s AND detail = %s",
                (mine, *_KEY, row[0]),
            )
        else:
            raise CommandError(
                f"another process is migrating this database: number {holder.process} on {holder.host}. Wait until it "
                f"is done. If it died, it is taken for dead {EXPIRES_S:.0f} s after its last statement; or delete its "
                f"row: DELETE FROM {JOURNAL_TABLE} WHERE step = '{_KEY[1]}'"
            )
        if cursor.rowcount == 0:
            raise CommandError("another process has begun to migrate this database at the same time; run it again")
    connection.__dict__[_RENEWED] = time.monotonic()
    return True


def renew_while_running(connection: Any) -> Any:
    """A wrapper for ``connection.execute_wrapper()`` that renews the row between statements."""

    def run(execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        renewed_s = connection.__dict__.get(_RENEWED, math.inf)
        if time.monotonic() - renewed_s > RENEWED_S and not connection.in_atomic_block:
            connection.__dict__[_RENEWED] = time.monotonic()  # the statement below comes through here
            mine = str(Holder(socket.gethostname(), os.getpid(), time.time()))
            with suppress(DatabaseError), connection.cursor() as cursor:  # there will be another time
                update = f"UPDATE {JOURNAL_TABLE} SET detail = %s WHERE migration = %s AND step = %s"
                cursor.execute(update, (mine, *_KEY))
        return execute(sql, params, many, context)

    return run


def end_turn(connection: Any) -> None:
    """Delete the row if it is this connection's."""
    if connection.__dict__.pop(_RENEWED, None) is not None:
        with suppress(DatabaseError), connection.cursor() as cursor:  # it expires all the same
            cursor.execute(f"DELETE FROM {JOURNAL_TABLE} WHERE migration = %s AND step = %s", _KEY)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
