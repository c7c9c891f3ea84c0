"""A migration whose process dies at any of its statements is carried on by the next run, to the same end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import IntegrityError, ProgrammingError, connections, migrations, models
from django.db.migrations.state import ProjectState
from django.db.models.functions import Lower
from schema_project import Project, create_item, run_migration

from dsql_dialects.django.schema_notes import JOURNAL_TABLE, read_notes

#: Without DSQLKIT_FULL=1, the process dies at each so-manieth statement only.
STRIDE = 1 if os.environ.get("DSQLKIT_FULL") else 61


class Died(BaseException):
    """The process is gone: nothing that it would still do reaches the database."""


class Death:
    """Lets a number of statements through, then none any more."""

    def __init__(self, statements: int, executes_last: bool) -> None:
        self._left = statements
        self._executes_last = executes_last

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if self._left == 0:
            raise Died
        self._left -= 1
        if self._left == 0 and not self._executes_last:
            raise Died
        result = execute(sql, params, many, context)
        if self._left == 0:
            raise Died
        return result


def first() -> migrations.Migration:
    migration = migrations.Migration("0001_initial", "shop")
    migration.operations = [
        create_item(name=models.CharField(max_length=10, unique=True), size=models.IntegerField(null=True)),
        migrations.RunSQL("INSERT INTO shop_item (name, size) SELECT 'n' || n, NULL FROM generate_series(1, 3) n"),
    ]
    return migration


def second() -> migrations.Migration:
    """Each way in which a table is changed, and statements that a second time would do harm."""
    migration = migrations.Migration("0002_change", "shop")
    migration.operations = [
        migrations.AddConstraint("item", models.UniqueConstraint(Lower("name"), name="uq")),
        migrations.AlterField("item", "name", models.CharField(max_length=50, unique=True)),
        migrations.AlterField("item", "size", models.BigIntegerField(default=5)),
        migrations.RunSQL("UPDATE shop_item SET size = size + 1"),
        migrations.AddField("item", "color", models.CharField(max_length=9, default="red", db_index=True)),
        migrations.AlterUniqueTogether("item", {("name", "size")}),
        migrations.CreateModel(
            "Part", [("id", models.AutoField(primary_key=True)), ("item", models.ForeignKey("Item", models.CASCADE))]
        ),
        migrations.AlterField("item", "id", models.CharField(max_length=9, primary_key=True)),
        migrations.RenameField("item", "size", "weight"),
        migrations.RenameModel("Item", "Thing"),
    ]
    return migration


@pytest.fixture
def connection(django_connection: Any) -> Iterator[Any]:
    yield django_connection
    django_connection.__dict__.pop("dsql_finished_migrations", None)


def outcome(connection: Any) -> list[Any]:
    project = Project(connection)
    return [
        project.columns("shop_thing"),
        project.constraints("shop_thing"),
        project.columns("shop_part"),
        project.constraints("shop_part"),
        project.rows("SELECT id, name, weight, color FROM shop_thing ORDER BY name"),
        project.rows("SELECT app, name FROM django_migrations ORDER BY 1, 2"),
    ]


def drop_everything(connection: Any) -> None:
    with connection.cursor() as cursor:
        for table in ("shop_part", "shop_item", "shop_thing", "shop_item__new", "django_migrations", JOURNAL_TABLE):
            cursor.execute(f"DROP TABLE IF EXISTS {table} CASCADE")
    connection.__dict__.pop("dsql_finished_migrations", None)


def migrate(connection: Any, state: ProjectState, migration: migrations.Migration) -> ProjectState:
    try:
        return run_migration(connection, migration, state)
    finally:
        # A new process knows nothing of what this one has finished.
        connection.__dict__.pop("dsql_finished_migrations", None)


def count_statements(connection: Any, state: ProjectState) -> int:
    count = 0

    def counting(execute: Callable[..., Any], *args: Any) -> Any:
        nonlocal count
        count += 1
        return execute(*args)

    with connection.execute_wrapper(counting):
        migrate(connection, state, second())
    return count


@pytest.mark.long
def test_a_process_that_dies_anywhere(connection: Any) -> None:
    state = migrate(connection, ProjectState(), first())
    statements = count_statements(connection, state)
    expected = outcome(connection)
    assert statements > 60
    for number in range(2, statements + 1, STRIDE):
        for executes_last in (False, True) if STRIDE == 1 else (number % 2 == 0,):
            drop_everything(connection)
            migrate(connection, ProjectState(), first())
            with pytest.raises(Died), connection.execute_wrapper(Death(number, executes_last)):
                migrate(connection, state, second())
            with connection.cursor() as cursor:
                cursor.execute("SELECT EXISTS (SELECT 1 FROM django_migrations WHERE name = '0002_change')")
                recorded = cursor.fetchone()[0]
            if not recorded:
                migrate(connection, state, second())
            assert outcome(connection) == expected, (number, executes_last)


def test_a_refused_migration_goes_on_when_its_cause_is_gone(connection: Any) -> None:
    state = migrate(connection, ProjectState(), first())
    migration = migrations.Migration("0002_unique", "shop")
    migration.operations = [
        migrations.RunSQL("UPDATE shop_item SET size = coalesce(size, 0) + 1"),
        migrations.AlterField("item", "size", models.IntegerField(unique=True)),
    ]
    with pytest.raises(IntegrityError) as refused:
        migrate(connection, state, migration)
    for words in ("In migration shop.0002_unique", "Alter field size on item", "Change the rows", "run migrate again"):
        assert words in str(refused.value)

    project = Project(connection)
    project.rows("UPDATE shop_item SET size = id")
    before = project.rows("SELECT size FROM shop_item ORDER BY 1")
    migrate(connection, state, migration)
    assert project.rows("SELECT size FROM shop_item ORDER BY 1") == before  # the UPDATE isn't run again


def test_forth_and_back_again_and_again(connection: Any) -> None:
    from django.db.migrations.executor import MigrationExecutor

    state = migrate(connection, ProjectState(), first())
    migration = migrations.Migration("0002_more", "shop")
    migration.operations = [
        migrations.AddField("item", "color", models.CharField(max_length=9, default="red")),
        migrations.AlterField("item", "name", models.TextField(unique=True)),
    ]
    for _ in range(2):
        after = run_migration(connection, migration, state)
        assert "color" in Project(connection).columns("shop_item")
        MigrationExecutor(connection).unapply_migration(state.clone(), migration)
        assert "color" not in Project(connection).columns("shop_item")
        assert after is not state


def test_tables_that_were_dropped_by_hand_are_made_again(connection: Any) -> None:
    with pytest.raises(Died), connection.execute_wrapper(Death(8, True)):
        migrate(connection, ProjectState(), first())
    project = Project(connection)
    project.rows("DROP TABLE IF EXISTS shop_item")
    migrate(connection, ProjectState(), first())
    assert len(project.rows("SELECT name FROM shop_item")) == 3


def test_notes_go_when_migrate_is_over(connection: Any) -> None:
    from django.core.management import call_command

    call_command("migrate", "contenttypes", verbosity=0)
    assert read_notes(connection) == {}
    assert JOURNAL_TABLE not in connection.introspection.table_names()
    assert not connections["default"].in_atomic_block


def test_an_edited_operation_is_not_taken_for_done(connection: Any) -> None:
    state = migrate(connection, ProjectState(), first())
    migration = migrations.Migration("0002_index", "shop")
    migration.operations = [
        migrations.AddField("item", "color", models.TextField(null=True)),
        migrations.RunSQL("CREATE INDEX ASYNC ix ON shop_item (misspelled)"),
    ]
    for name in ("misspelled", "misspelled_again"):
        migration.operations[1] = migrations.RunSQL(f"CREATE INDEX ASYNC ix ON shop_item ({name})")
        with pytest.raises(ProgrammingError, match=name):
            migrate(connection, state, migration)
    migration.operations[1] = migrations.RunSQL("CREATE INDEX ASYNC ix ON shop_item (color)")
    migrate(connection, state, migration)
    assert "ix" in Project(connection).constraints("shop_item")
