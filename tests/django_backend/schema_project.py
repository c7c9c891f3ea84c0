"""A Django app without files: operations of migrations are applied to it one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps.registry import Apps
from django.db import models
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

APP = "shop"


class Project:
    """The state of one app's models and its tables."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.state = ProjectState()

    def apply(self, *operations: Operation) -> None:
        """Apply operations, each in a schema editor of its own."""
        for operation in operations:
            after = self.state.clone()
            operation.state_forwards(APP, after)
            with self.connection.schema_editor() as editor:
                operation.database_forwards(APP, editor, self.state, after)
            self.state = after

    def reverse(self, operation: Operation, before: ProjectState) -> None:
        """Take the last operation back."""
        with self.connection.schema_editor() as editor:
            operation.database_backwards(APP, editor, self.state, before)
        self.state = before

    def sql(self, *operations: Operation) -> list[str]:
        """What sqlmigrate would print."""
        state = self.state.clone()
        migration = Migration("0001", APP)
        migration.operations = list(operations)
        with self.connection.schema_editor(collect_sql=True) as editor:
            migration.apply(state, editor, collect_sql=True)
        return list(editor.collected_sql)

    def model(self, name: str) -> Any:
        """A model as the operations left it."""
        apps: Apps = self.state.apps
        return apps.get_model(APP, name)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """A statement's rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def columns(self, table: str) -> dict[str, tuple[str, bool]]:
        """Each column's type, and whether it can hold NULL."""
        with self.connection.cursor() as cursor:
            nullable = {
                column.name: column.null_ok
                for column in self.connection.introspection.get_table_description(cursor, table)
            }
        types = self.rows(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            (table,),
        )
        return {name: (type_, nullable[name]) for name, type_ in types}

    def constraints(self, table: str) -> dict[str, str]:
        """Constraints and indexes by name; a constraint that isn't validated, or an invalid index, says so."""
        found = dict(
            self.rows(
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = to_regclass(%s)",
                (table,),
            )
        )
        indexes = self.rows(
            "SELECT i.relname, CASE WHEN x.indisvalid THEN pg_get_indexdef(i.oid) ELSE 'INVALID' END "
            "FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = to_regclass(%s)",
            (table,),
        )
        return {**dict(indexes), **found}


def run_migration(connection: Any, migration: Migration, state: ProjectState) -> ProjectState:
    """Apply a migration as ``migrate`` does, and record it; returns the state after it."""
    executor = MigrationExecutor(connection)
    after: ProjectState = executor.apply_migration(state.clone(), migration)
    return after


def create_item(**fields: models.Field) -> Any:
    """CreateModel of a model ``Item``."""
    from django.db import migrations

    key = [] if any(field.primary_key for field in fields.values()) else [("id", models.AutoField(primary_key=True))]
    return migrations.CreateModel("Item", [*key, *fields.items()])
