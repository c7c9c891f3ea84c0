"""Schema changes while other sessions write and change the schema, too."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import django
import pytest
from django.core.management import CommandError
from django.db import DatabaseError, IntegrityError, connections, migrations, models
from django.db.migrations.state import ProjectState
from schema_project import Project, create_item, run_migration

from dsql_dialects.django.schema_lease import EXPIRES_S, Holder, end_turn, take_turn
from dsql_dialects.django.schema_notes import JOURNAL_TABLE, read_notes


def elsewhere(*statements: str) -> list[DatabaseError]:
    """Run statements on a connection of another thread; what was refused."""
    refused: list[DatabaseError] = []

    def run() -> None:
        try:
            for statement in statements:
                with connections["default"].cursor() as cursor:
                    try:
                        cursor.execute(statement)
                    except DatabaseError as error:
                        refused.append(error)
        finally:
            connections["default"].close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return refused


def before_each(part: str, work: Callable[[], object]) -> Callable[..., Any]:
    """A wrapper that does ``work`` before each statement that contains ``part``."""

    def wrapper(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if part in sql:
            work()
        return execute(sql, *args)

    return wrapper


@pytest.fixture
def project(django_connection: Any) -> Project:
    project = Project(django_connection)
    project.apply(create_item(name=models.CharField(max_length=10)))
    project.model("Item").objects.create(name="first")
    return project


def test_what_is_written_while_a_column_is_replaced_is_kept_or_refused(project: Project) -> None:
    late: list[DatabaseError] = []
    insert = "INSERT INTO shop_item (name) VALUES ('{}')"
    with (
        project.connection.execute_wrapper(
            before_each("IS NOT DISTINCT FROM", lambda: late.extend(elsewhere(insert.format("early"))))
        ),
        project.connection.execute_wrapper(
            before_each('DROP COLUMN "name"', lambda: late.extend(elsewhere(insert.format("late"))))
        ),
    ):
        project.apply(migrations.AlterField("item", "name", models.TextField()))
    assert [type(error) for error in late] == [IntegrityError]
    assert project.rows("SELECT name FROM shop_item ORDER BY id") == [("first",), ("early",)]


@pytest.mark.skipif(django.VERSION < (5, 0), reason="GeneratedField came with Django 5.0")
def test_what_is_written_while_a_table_is_rebuilt_is_refused_or_deleted(project: Project) -> None:
    project.model("Item").objects.create(name="second")
    refused: list[DatabaseError] = []
    statements = ("INSERT INTO shop_item (name) VALUES ('late')", "DELETE FROM shop_item WHERE name = 'second'")
    wrapper = before_each('DELETE FROM "shop_item__new"', lambda: refused.extend(elsewhere(*statements)))
    with project.connection.execute_wrapper(wrapper):
        project.apply(
            migrations.AddField(
                "item",
                "upper",
                models.GeneratedField(
                    expression=models.F("name"), output_field=models.CharField(max_length=10), db_persist=True
                ),
            )
        )
    assert "is_being_rebuilt" in str(refused[0]) and len(refused) == 1
    assert project.rows("SELECT name, upper FROM shop_item") == [("first", "first")]


def test_other_sessions_change_the_schema_before_every_statement(project: Project) -> None:
    """Each ALTER meets a catalog that is newer than its session's: OC001, and it runs again."""
    numbers = iter(range(100))
    refused: list[DatabaseError] = []
    wrapper = before_each(
        "ALTER TABLE", lambda: refused.extend(elsewhere(f"CREATE TABLE other{next(numbers)} (a int)"))
    )
    with project.connection.execute_wrapper(wrapper):
        project.apply(
            migrations.AlterField("item", "name", models.TextField(unique=True)),
            migrations.AddField("item", "size", models.IntegerField(default=1)),
        )
    assert refused == [] and next(numbers) > 8
    assert project.rows("SELECT name, size FROM shop_item") == [("first", 1)]


@pytest.mark.parametrize(
    ("host", "process", "age_s", "waits"),
    [
        (socket.gethostname(), os.getppid(), 0.0, True),
        (socket.gethostname(), os.getppid(), EXPIRES_S + 1, False),
        (socket.gethostname(), 2**22 + 1, 0.0, False),  # there is no such process
        (socket.gethostname(), os.getpid(), 0.0, False),
        ("elsewhere", os.getpid(), 0.0, True),
        ("elsewhere", os.getpid(), EXPIRES_S + 1, False),
    ],
    ids=["runs", "runs but expired", "ended", "this one", "elsewhere", "elsewhere and expired"],
)
def test_one_migrates_at_a_time(project: Project, host: str, process: int, age_s: float, waits: bool) -> None:
    connection = project.connection
    end_turn(connection)
    read_notes(connection)  # which makes the table
    with connection.cursor() as cursor:
        other = str(Holder(host, process, time.time() - age_s))
        cursor.execute(f"INSERT INTO {JOURNAL_TABLE} VALUES ('', 'lease', %s)", [other])
    migration = migrations.Migration("0001_initial", "shop")
    migration.operations = [migrations.CreateModel("Turn", [("id", models.AutoField(primary_key=True))])]
    if waits:
        with pytest.raises(CommandError, match=f"{process} on {host}.*DELETE FROM {JOURNAL_TABLE}"):
            run_migration(connection, migration, ProjectState())
        assert project.rows("SELECT to_regclass('shop_turn')") == [(None,)]
        assert project.rows(f"SELECT detail FROM {JOURNAL_TABLE}") == [(other,)]
        return
    run_migration(connection, migration, ProjectState())
    assert project.rows("SELECT to_regclass('shop_turn') IS NOT NULL") == [(True,)]
    assert take_turn(connection) is False  # it is still ours
    end_turn(connection)
    assert project.rows(f"SELECT count(*) FROM {JOURNAL_TABLE} WHERE migration = ''") == [(0,)]
