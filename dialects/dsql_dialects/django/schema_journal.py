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
from collections import Counter
from types import FrameType
from typing import Any

from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder

from dsql_dialects.django.schema_steps import Step, dump_steps, load_steps

logger = logging.getLogger("django.db.backends.schema")

JOURNAL_TABLE = "dsqlkit_migration_steps"

_CREATE = (
    f"CREATE TABLE IF NOT EXISTS {JOURNAL_TABLE} (migration varchar(400) NOT NULL, step varchar(80) NOT NULL, "
    "detail text, PRIMARY KEY (migration, step))"
)

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


class Journal:
    """The steps of one run of one migration; without a migration, nothing is noted.

    A change whose statements depend on the catalog is a plan, stored before it begins, because what it consists of
    can't be found out any more halfway; it is recognized by its description. Other statements are recognized by
    their text. So an operation that was edited since counts as a new one.
    """

    def __init__(self, connection: Any, migration: tuple[str, str, str] | None) -> None:
        self._connection = connection
        self._migration = migration
        self._key = "" if migration is None else "{}.{}:{}".format(*migration)
        self._noted: dict[str, str | None] | None = None
        self._seen: Counter[str] = Counter()
        self.resuming = False  #: whether an earlier run left something here

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

    def is_done(self, key: str) -> bool:
        """Whether an earlier run finished the step."""
        return self.active and key in self._load()

    def may_be_done(self, key: str) -> bool:
        """Whether an earlier run may have finished the step without living to note it."""
        return self.active and self.resuming and f"{key} failed" not in self._load()

    def store_plan(self, key: str, steps: list[Step]) -> None:
        """Keep what a plan consists of."""
        self._note(f"{key} steps", json.dumps(dump_steps(steps)))

    def done(self, key: str, sql: str) -> None:
        """The step is finished."""
        self._note(key, sql)

    def failed(self, key: str) -> None:
        """DSQL refused the step, so that it is not done."""
        self._note(f"{key} failed", None)

    def forget(self, key: str) -> None:
        """Drop everything noted under a plan's key, because it was undone."""
        if not self.active:
            return
        noted = self._load()
        keys = [known for known in noted if known == key or known.startswith(f"{key} ")]
        for known in keys:
            del noted[known]
        if keys:
            with self._connection.cursor() as cursor:
                cursor.execute(
                    f"DELETE FROM {JOURNAL_TABLE} WHERE migration = %s AND step = ANY (%s)", (self._key, keys)
                )

    def _note(self, step: str, detail: str | None) -> None:
        if not self.active:
            return
        noted = self._load()
        if step in noted:
            return
        noted[step] = detail
        with self._connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {JOURNAL_TABLE} (migration, step, detail) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (self._key, step, detail),
            )

    def finished(self) -> None:
        """The migration came to its end.

        The notes stay until it is recorded, so that even a process that dies in between doesn't lose them, and go
        with the next migration or when ``migrate`` is over.
        """
        if self.active and self._noted is not None:
            finished_here(self._connection).add(self._key)

    def _load(self) -> dict[str, str | None]:
        """Notes of an earlier run of this migration; those of migrations that came to their end are deleted."""
        if self._noted is not None:
            return self._noted
        delete_finished_notes(self._connection)
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (JOURNAL_TABLE,))
            if not cursor.fetchone()[0]:
                cursor.execute(_CREATE)
            cursor.execute(f"SELECT step, detail FROM {JOURNAL_TABLE} WHERE migration = %s", (self._key,))
            noted = dict(cursor.fetchall())
            if noted and self._is_stale(cursor, noted):
                logger.warning("migration %s was interrupted, and its tables are gone: starting anew", self._key)
                cursor.execute(f"DELETE FROM {JOURNAL_TABLE} WHERE migration = %s", (self._key,))
                noted = {}
        self._noted = noted
        self.resuming = bool(noted)
        return noted

    def _is_stale(self, cursor: Any, noted: dict[str, str | None]) -> bool:
        """Whether a table is gone that the interrupted run made and didn't drop or rename again: by hand, that is."""
        statements = [sql for sql in noted.values() if sql]
        gone = {match[1] for sql in statements if (match := _TABLE_GOES.match(sql))}
        for match in filter(None, map(_TABLE_COMES.match, statements)):
            if match[1] not in gone:
                cursor.execute("SELECT to_regclass(%s) IS NULL", (match[1],))
                if cursor.fetchone()[0]:
                    return True
        return False


def finished_here(connection: Any) -> set[str]:
    """Keys of the migrations that came to their end over this connection and whose notes are still there."""
    keys: set[str] = connection.__dict__.setdefault("dsql_finished_migrations", set())
    return keys


def delete_finished_notes(connection: Any) -> None:
    """Delete the notes of migrations that came to their end: in this process, or recorded by one that died since."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (JOURNAL_TABLE,))
        if not cursor.fetchone()[0]:
            return
        cursor.execute(f"SELECT DISTINCT migration FROM {JOURNAL_TABLE}")
        keys = [key for (key,) in cursor.fetchall()]
    if not keys:
        return
    here = finished_here(connection)
    applied = {f"{app}.{name}" for app, name in MigrationRecorder(connection).applied_migrations()}
    for key in keys:
        name, _, direction = key.rpartition(":")
        if key in here or (name in applied) == (direction == "forwards"):
            with connection.cursor() as cursor:
                cursor.execute(f"DELETE FROM {JOURNAL_TABLE} WHERE migration = %s", (key,))
    here.clear()
