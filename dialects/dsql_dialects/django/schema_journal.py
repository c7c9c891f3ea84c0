"""What a migration has already done, kept in the database: an interrupted one is carried on where it stopped.

A DDL statement is a transaction of its own, so that a migration that fails halfway, or whose process dies, leaves its
first half behind. Each of its statements is noted here once it is done. When the same migration runs again, noted
statements are left out, and the one that was under way may say that its work is done already.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
import time
from collections import Counter
from types import FrameType
from typing import Any

from django.db.migrations.executor import MigrationExecutor

from dsql_dialects.django.schema_lease import take_turn
from dsql_dialects.django.schema_notes import (
    Notes,
    delete_notes,
    delete_steps,
    finished_here,
    read_notes,
    recorded,
    write_notes,
)
from dsql_dialects.django.schema_steps import Step, dump_steps, load_steps

logger = logging.getLogger("django.db.backends.schema")

_TABLE_COMES = re.compile(r"^CREATE TABLE (\S+) ")
_TABLE_GOES = re.compile(r"^(?:DROP|ALTER) TABLE (\S+)(?: CASCADE$| RENAME TO |$)")

_FRAMES_MAX = 12
_DIRECTIONS = {
    MigrationExecutor.apply_migration.__code__: "forwards",
    MigrationExecutor.unapply_migration.__code__: "backwards",
}


def current_migration() -> tuple[str, str, str] | None:
    """App, name and direction of the migration that the executor is about to run, or None.

    Nothing passes it to a schema editor, so it is read from the executor's frame.
    """
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_FRAMES_MAX):
        if frame is None:
            return None
        direction = _DIRECTIONS.get(frame.f_code)
        if direction is not None:
            migration = frame.f_locals["migration"]
            return migration.app_label, migration.name, direction
        frame = frame.f_back
    return None


#: After these, a statement that ran before them could run a second time, and do harm.
_TURNING_POINT = re.compile(r"\b(RENAME|DROP)\b", re.IGNORECASE)

#: How long a finished step may stay without a note in any case, in seconds.
UNNOTED_S_MAX = 5.0

#: The note that a migration has begun.
_BEGUN = "begun"


class Journal:
    """The steps of one run of one migration; without a migration, nothing is noted.

    A change whose statements depend on the catalog is a plan, stored before it begins, because what it consists of
    can't be found out any more halfway; it is recognized by its description. Other statements are recognized by
    their text. So an operation that was edited since counts as a new one.

    Notes are written together. Most statements can't be run twice: DSQL says that the table, the column or the index
    is there already, and that is as good as a note. Before one that drops or renames something, or changes rows, all
    that was done is written down.
    """

    def __init__(self, connection: Any, migration: tuple[str, str, str] | None) -> None:
        self._connection = connection
        self._migration = migration
        self._key = "" if migration is None else "{}.{}:{}".format(*migration)
        self._noted: Notes | None = None
        self._unwritten: Notes = {}
        self._written_s = time.monotonic()
        self._seen: Counter[str] = Counter()
        self._resumed = False  #: whether an earlier run left something here
        self.resuming = False  #: the same, until a statement has run that can't have run before

    @property
    def active(self) -> bool:
        """Whether there is a migration to keep notes of."""
        return self._migration is not None

    def key(self, text: str) -> str:
        """The key of a statement, by its text, or of a plan, by its description."""
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._seen[digest] += 1
        return f"{digest} {self._seen[digest]}"

    def plan(self, key: str) -> list[Step] | None:
        """The steps stored under a plan's key by the run that was interrupted."""
        stored = self._load().get(f"{key} steps") if self.active else None
        return None if stored is None else load_steps(json.loads(stored))

    @property
    def resumed(self) -> bool:
        """Whether an earlier run of this migration was interrupted."""
        if self.active:
            self._load()
        return self._resumed

    def is_done(self, key: str) -> bool:
        """Whether an earlier run finished the step."""
        return self.active and key in self._load()

    def may_be_done(self, key: str) -> bool:
        """Whether an earlier run may have finished the step without noting it."""
        return self.active and self.resuming and f"{key} failed" not in self._load()

    def caught_up(self) -> None:
        """A statement has run that can't have run before: nothing that follows has, either."""
        self.resuming = False

    def before(self, sql: str, changes_rows: bool) -> None:
        """To be called before a statement is run."""
        if not self.active:
            return
        self._load()
        if _BEGUN not in self._noted_here:
            self._note(_BEGUN, None)
            self.write()
        elif changes_rows or _TURNING_POINT.search(sql) or time.monotonic() - self._written_s > UNNOTED_S_MAX:
            self.write()

    def store_plan(self, key: str, steps: list[Step]) -> None:
        """Keep what a plan consists of."""
        self._note(_BEGUN, None)
        self._note(f"{key} steps", json.dumps(dump_steps(steps)))
        self.write()

    def done(self, key: str, sql: str) -> None:
        """The step is finished."""
        self._note(key, sql)

    def failed(self, key: str) -> None:
        """DSQL refused the step, so that it is not done."""
        self._note(f"{key} failed", None)
        self.write()

    def forget(self, key: str) -> None:
        """Drop everything noted under a plan's key, because it was undone."""
        if not self.active:
            return
        self.write()
        noted = self._load()
        keys = [known for known in noted if known == key or known.startswith(f"{key} ")]
        for known in keys:
            del noted[known]
        if keys:
            delete_steps(self._connection, self._key, keys)

    def write(self) -> None:
        """Write down what isn't yet."""
        self._written_s = time.monotonic()
        if self._unwritten:
            write_notes(self._connection, self._key, self._unwritten)
            self._unwritten = {}

    def finished(self) -> None:
        """The migration came to its end.

        Its notes stay until it is recorded, so that even a process that dies in between doesn't lose them, and go
        when ``migrate`` is over.
        """
        if self.active and self._noted is not None:
            finished_here(self._connection).add(self._key)

    @property
    def _noted_here(self) -> Notes:
        assert self._noted is not None
        return self._noted

    def _note(self, step: str, detail: str | None) -> None:
        if self.active and step not in self._load():
            self._unwritten[step] = self._noted_here[step] = detail

    def _load(self) -> Notes:
        """Notes of an earlier run of this migration that didn't come to its end.

        :raises CommandError: if another process is migrating.
        """
        if self._noted is not None:
            return self._noted
        notes = read_notes(self._connection)
        if take_turn(self._connection):
            notes = read_notes(self._connection)  # of the run before, which may have ended just now
        here = finished_here(self._connection)
        name, _, direction = self._key.rpartition(":")
        opposite = f"{name}:{'backwards' if direction == 'forwards' else 'forwards'}"
        # What is left of a migration that has been run in the other direction since is of no use.
        over = {key for key in (self._key, opposite) if key in notes and (key in here or key == opposite)}
        over |= recorded(self._connection, notes.keys() - here - {self._key})
        if self._key not in over and self._is_stale(notes.get(self._key, {})):
            logger.warning("migration %s was interrupted, and its tables are gone: starting anew", self._key)
            over.add(self._key)
        delete_notes(self._connection, sorted(over))
        here.difference_update(over)
        self._noted = {} if self._key in over else notes.get(self._key, {})
        self.resuming = self._resumed = bool(self._noted)
        return self._noted

    def _is_stale(self, notes: Notes) -> bool:
        """Whether a table is gone that the interrupted run made and didn't drop or rename again: by hand, that is."""
        statements = [sql for sql in notes.values() if sql]
        gone = {match[1] for sql in statements if (match := _TABLE_GOES.match(sql))}
        for match in filter(None, map(_TABLE_COMES.match, statements)):
            if match[1] not in gone:
                with self._connection.cursor() as cursor:
                    cursor.execute("SELECT to_regclass(%s) IS NULL", (match[1],))
                    if cursor.fetchone()[0]:
                        return True
        return False
