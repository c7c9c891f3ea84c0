"""The table in which notes on migrations under way are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.db.migrations.recorder import MigrationRecorder

JOURNAL_TABLE = "dsqlkit_migration_steps"

_CREATE = (
    f"CREATE TABLE IF NOT EXISTS {JOURNAL_TABLE} (migration varchar(400) NOT NULL, step varchar(80) NOT NULL, "
    "detail text, PRIMARY KEY (migration, step))"
)

Notes = dict[str, str | None]


def read_notes(connection: Any) -> dict[str, Notes]:
    """All notes, by migration; the table is created if it isn't there."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (JOURNAL_TABLE,))
        if not cursor.fetchone()[0]:
            cursor.execute(_CREATE)
            return {}
        cursor.execute(f"SELECT migration, step, detail FROM {JOURNAL_TABLE} WHERE migration <> ''")
        notes: dict[str, Notes] = {}
        for migration, step, detail in cursor.fetchall():
            notes.setdefault(migration, {})[step] = detail
        return notes


def write_notes(connection: Any, migration: str, notes: Mapping[str, str | None]) -> None:
    """Add notes, in one statement."""
    values = [value for step, detail in notes.items() for value in (migration, step, detail)]
    rows = ", ".join(["(%s, %s, %s)"] * len(notes))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {JOURNAL_TABLE} (migration, step, detail) VALUES {rows} ON CONFLICT DO NOTHING", values
        )


def delete_notes(connection: Any, migrations: Collection[str]) -> None:
    """Delete all notes of these migrations."""
    if migrations:
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {JOURNAL_TABLE} WHERE migration = ANY (%s)", (list(migrations),))


def delete_steps(connection: Any, migration: str, steps: Collection[str]) -> None:
    """Delete some notes of a migration."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM {JOURNAL_TABLE} WHERE migration = %s AND step = ANY (%s)", (migration, list(steps))
        )


def finished_here(connection: Any) -> set[str]:
    """Migrations that came to their end over this connection and whose notes may still be there."""
    keys: set[str] = connection.__dict__.setdefault("dsql_finished_migrations", set())
    return keys


def recorded(connection: Any, migrations: Collection[str]) -> set[str]:
    """Those of ``migrations`` (``app.name:direction``) that Django has recorded as applied or unapplied."""
    if not migrations:
        return set()
    applied = {f"{app}.{name}" for app, name in MigrationRecorder(connection).applied_migrations()}
    return {key for key in migrations if (key.rpartition(":")[0] in applied) == key.endswith(":forwards")}


def delete_finished_notes(connection: Any) -> None:
    """Delete the notes of migrations that came to their end: in this process, or recorded by one that died since."""
    notes = read_notes(connection)
    here = finished_here(connection)
    delete_notes(connection, sorted(here.intersection(notes) | recorded(connection, notes.keys() - here)))
    here.clear()
