"""Every statement of a migration passes AWS's own linter, dsql-lint."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
import pytest
from django.core.management import call_command
from django.db import migrations, models
from django.db.models import F, Q
from django.db.models.functions import Lower
from schema_project import Project, create_item

DDL = ("CREATE", "ALTER", "DROP", "COMMENT", "GRANT")


@pytest.fixture
def lint() -> Callable[[str], list[dict[str, Any]]]:
    """What the linter finds in a script."""
    program = shutil.which("dsql-lint") or shutil.which("dsql-lint", path=sysconfig.get_path("scripts"))
    if program is None:
        pytest.skip("dsql-lint isn't installed (pip install dsql-lint)")

    def run(script: str) -> list[dict[str, Any]]:
        result = subprocess.run(
            [str(Path(program)), "--format", "json", "-"], input=script, capture_output=True, text=True, check=False
        )
        assert result.returncode in (0, 1), result.stderr
        return _diagnostics(json.loads(result.stdout))

    return run


def _diagnostics(found: Any) -> list[dict[str, Any]]:
    """All diagnostics, however deep in the linter's answer."""
    if isinstance(found, list):
        return [diagnostic for part in found for diagnostic in _diagnostics(part)]
    if isinstance(found, dict):
        if "rule" in found or "severity" in found:
            return [found]
        return [diagnostic for part in found.values() for diagnostic in _diagnostics(part)]
    return []


def executed(connection: Any, work: Callable[[], object]) -> list[str]:
    """The DDL that ``work`` runs, migrations' own notes included."""
    statements: list[str] = []

    def listen(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        statements.append(sql)
        return execute(sql, *args)

    with connection.execute_wrapper(listen):
        work()
    return [sql for sql in statements if sql.lstrip().upper().startswith(DDL)]


def test_the_linter_finds_what_dsql_refuses(lint: Callable[[str], list[dict[str, Any]]]) -> None:
    assert lint("CREATE INDEX i ON t (a);")
    assert lint("CREATE TABLE t (id bigint PRIMARY KEY);") == []


def test_contrib_apps_forth_and_back(django_connection: Any, lint: Callable[[str], list[dict[str, Any]]]) -> None:
    def forth_and_back() -> None:
        call_command("migrate", verbosity=0)
        call_command("migrate", "auth", "zero", verbosity=0)
        call_command("migrate", "contenttypes", "zero", verbosity=0)

    statements = executed(django_connection, forth_and_back)
    assert len(statements) > 60
    assert lint(";\n".join(statements)) == []
    assert django_connection.introspection.table_names() == ["django_migrations"]


def test_every_kind_of_change(django_connection: Any, lint: Callable[[str], list[dict[str, Any]]]) -> None:
    project = Project(django_connection)
    check = "condition" if django.VERSION >= (5, 1) else "check"
    operations = [
        create_item(name=models.CharField(max_length=10, unique=True), size=models.IntegerField(null=True)),
        migrations.CreateModel(
            "Part", [("id", models.AutoField(primary_key=True)), ("item", models.ForeignKey("Item", models.CASCADE))]
        ),
        migrations.AddConstraint("item", models.UniqueConstraint(Lower("name"), name="uq")),
        migrations.AddConstraint("item", models.UniqueConstraint(fields=["size"], condition=Q(size=1), name="one")),
        migrations.AddConstraint("item", models.CheckConstraint(**{check: Q(size__gt=0)}, name="positive")),
        migrations.AddIndex("item", models.Index(fields=["-size"], include=["name"], name="ix")),
        migrations.AddIndex("item", models.Index(F("size").desc(), Lower("name"), name="ix2")),
        migrations.AlterField("item", "name", models.TextField(unique=True)),
        migrations.AlterField("item", "size", models.PositiveIntegerField(default=1, db_comment="of it")),
        migrations.AddField("item", "color", models.SlugField(default="red")),
        migrations.AlterUniqueTogether("item", {("name", "size")}),
        migrations.AlterField("item", "id", models.UUIDField(primary_key=True)),
        migrations.AlterUniqueTogether("item", set()),
        migrations.RemoveField("part", "item"),
        migrations.RenameField("item", "size", "weight"),
        migrations.RenameModel("Item", "Thing"),
        migrations.DeleteModel("Thing"),
    ]
    if django.VERSION >= (5, 0):
        double = models.GeneratedField(expression=F("size") * 2, output_field=models.IntegerField(), db_persist=True)
        operations.insert(10, migrations.AddField("item", "double", double))
        operations.insert(11, migrations.RemoveField("item", "double"))
    operations.remove(next(o for o in operations if isinstance(o, migrations.AlterField) and o.name == "id"))
    statements = executed(django_connection, lambda: project.apply(*operations))
    assert lint(";\n".join(statements)) == []
