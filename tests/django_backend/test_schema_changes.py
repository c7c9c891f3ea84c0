"""Operations of migrations on a cluster: what DSQL has no ALTER for comes out as on PostgreSQL, rows included."""

from __future__ import annotations

from typing import Any

import django
import pytest
from django.db import IntegrityError, NotSupportedError, connections, migrations, models, transaction
from django.db.models import F, Q
from django.db.models.functions import Lower
from django.db.transaction import TransactionManagementError
from django.db.utils import DataError
from schema_project import Project, create_item

from dsql_dialects.django.fields import UUIDAutoField
from dsql_dialects.django.schema_rows import RowMover

#: More than one transaction changes.
ROWS_OF_TWO_TRANSACTIONS = 3100


@pytest.fixture
def project(django_connection: Any) -> Project:
    return Project(django_connection)


def insert(project: Project, **values: Any) -> Any:
    return project.model("Item").objects.create(**values)


def test_a_column_with_default_is_filled_and_not_null(project: Project) -> None:
    project.apply(create_item(name=models.CharField(max_length=10)))
    insert(project, name="old")
    project.apply(migrations.AddField("item", "size", models.IntegerField(default=7)))

    assert project.rows("SELECT name, size FROM shop_item") == [("old", 7)]
    assert project.columns("shop_item")["size"] == ("integer", False)
    with pytest.raises(IntegrityError):
        project.rows("INSERT INTO shop_item (name) VALUES ('new') RETURNING id")


def test_rows_of_several_transactions_are_filled(project: Project) -> None:
    project.apply(create_item(number=models.IntegerField()))
    for start in range(0, ROWS_OF_TWO_TRANSACTIONS, 1550):
        project.rows(
            "INSERT INTO shop_item (number) SELECT n FROM generate_series(%s, %s) n RETURNING 1", (start, start + 1549)
        )
    project.apply(
        migrations.AddField("item", "size", models.IntegerField(default=7)),
        migrations.AlterField("item", "number", models.CharField(max_length=20)),
    )
    counted = project.rows("SELECT count(*), min(size), max(size), count(DISTINCT number) FROM shop_item")
    assert counted == [(ROWS_OF_TWO_TRANSACTIONS, 7, 7, ROWS_OF_TWO_TRANSACTIONS)]
    assert project.columns("shop_item")["number"] == ("character varying(20)", False)


@pytest.mark.skipif(django.VERSION < (5, 0), reason="db_default and GeneratedField came with Django 5.0")
def test_db_default_and_generated_fields(project: Project) -> None:
    project.apply(create_item(size=models.IntegerField()))
    insert(project, size=3)
    project.apply(
        migrations.AddField("item", "color", models.CharField(max_length=5, db_default="red")),
        migrations.AddField(
            "item",
            "double",
            models.GeneratedField(expression=F("size") * 2, output_field=models.IntegerField(), db_persist=True),
        ),
    )
    project.rows("INSERT INTO shop_item (size) VALUES (5) RETURNING id")
    assert project.rows("SELECT size, color, double FROM shop_item ORDER BY 1") == [(3, "red", 6), (5, "red", 10)]
    project.apply(migrations.AlterField("item", "color", models.CharField(max_length=5, db_default="blue")))
    project.rows("INSERT INTO shop_item (size) VALUES (6) RETURNING id")
    assert project.rows("SELECT color FROM shop_item WHERE size = 6") == [("blue",)]


def test_a_column_changes_its_type_and_keeps_what_hangs_on_it(project: Project) -> None:
    project.apply(
        create_item(name=models.CharField(max_length=10, unique=True), size=models.IntegerField()),
        migrations.AddIndex("item", models.Index("name", "size", name="ix_both")),
        migrations.AddConstraint("item", models.UniqueConstraint(Lower("name"), name="uq_lower")),
        migrations.AddConstraint("item", models.UniqueConstraint(fields=["name"], condition=Q(size=0), name="uq_zero")),
        migrations.AddConstraint("item", models.CheckConstraint(**{_CHECK: ~Q(name="")}, name="named")),
    )
    insert(project, name="A", size=1)
    before = project.constraints("shop_item")
    project.apply(migrations.AlterField("item", "name", models.CharField(max_length=200, unique=True)))

    after = project.constraints("shop_item")
    assert project.columns("shop_item")["name"] == ("character varying(200)", False)
    assert {name: after[name] for name in before if name != "shop_item_pkey"} == {
        name: definition for name, definition in before.items() if name != "shop_item_pkey"
    }
    for name in ("A", "a", ""):
        with pytest.raises(IntegrityError):
            insert(project, name=name, size=1)
    insert(project, name="B" * 200, size=1)


def test_what_does_not_fit_the_new_type_is_refused_and_nothing_is_left_of_the_attempt(project: Project) -> None:
    project.apply(create_item(name=models.CharField(max_length=10)))
    insert(project, name="too long")
    before = project.constraints("shop_item"), project.columns("shop_item")
    with pytest.raises(DataError):
        project.apply(migrations.AlterField("item", "name", models.CharField(max_length=3)))
    with pytest.raises(DataError):
        project.apply(migrations.AlterField("item", "name", models.IntegerField()))
    assert (project.constraints("shop_item"), project.columns("shop_item")) == before
    assert project.rows("SELECT name FROM shop_item") == [("too long",)]


def test_null_comes_and_goes(project: Project) -> None:
    project.apply(create_item(name=models.CharField(max_length=10, null=True)))
    insert(project, name=None)
    with pytest.raises(IntegrityError, match="Change the rows"):
        project.apply(migrations.AlterField("item", "name", models.CharField(max_length=10)))
    assert project.columns("shop_item")["name"][1]

    project.apply(migrations.AlterField("item", "name", models.CharField(max_length=10, default="none")))
    assert project.rows("SELECT name FROM shop_item") == [("none",)]
    assert not project.columns("shop_item")["name"][1]
    project.apply(migrations.AlterField("item", "name", models.CharField(max_length=10, null=True)))
    assert project.columns("shop_item")["name"][1]
    insert(project, name=None)


@pytest.mark.skipif(django.VERSION < (5, 0), reason="db_default came with Django 5.0")
def test_null_becomes_another_value_in_each_row_while_the_type_changes(project: Project) -> None:
    from django.contrib.postgres.functions import RandomUUID

    project.apply(create_item(name=models.CharField(max_length=36, null=True)))
    for name in (None, None, "0" * 32):
        insert(project, name=name)
    project.apply(migrations.AlterField("item", "name", models.UUIDField(db_default=RandomUUID())))
    assert project.rows("SELECT count(DISTINCT name), min(name::text) FROM shop_item") == [
        (3, "00000000-0000-0000-0000-000000000000")
    ]
    assert project.columns("shop_item")["name"] == ("uuid", False)


def test_duplicates_stop_a_unique_constraint_and_leave_no_index(project: Project) -> None:
    project.apply(create_item(name=models.CharField(max_length=10)))
    insert(project, name="same")
    insert(project, name="same")
    before = project.constraints("shop_item")
    for operation in (
        migrations.AlterField("item", "name", models.CharField(max_length=10, unique=True)),
        migrations.AlterUniqueTogether("item", {("name",)}),
        migrations.AddConstraint("item", models.UniqueConstraint(Lower("name"), name="uq")),
        migrations.AddField("item", "code", models.CharField(max_length=3, default="x", unique=True)),
    ):
        with pytest.raises(IntegrityError):
            project.apply(operation)
        assert project.constraints("shop_item") == before
    assert "code" not in project.columns("shop_item")


def test_kinds_of_indexes_and_constraints(project: Project) -> None:
    project.apply(create_item(name=models.CharField(max_length=10), size=models.IntegerField(null=True)))
    project.apply(
        migrations.AddIndex("item", models.Index(fields=["-size"], name="ix_desc")),
        migrations.AddIndex("item", models.Index(F("size").desc(), Lower("name"), name="ix_expression")),
        migrations.AddIndex("item", models.Index(fields=["name"], include=["size"], name="ix_covering")),
        migrations.AddIndex("item", models.Index(fields=["name"], condition=Q(size__gt=3), name="ix_partial")),
        migrations.AddConstraint(
            "item", models.UniqueConstraint(fields=["name"], include=["size"], name="uq_covering")
        ),
    )
    found = project.constraints("shop_item")
    assert "(size)" in found["ix_desc"] and "DESC" not in found["ix_expression"]
    assert "INCLUDE (size)" in found["ix_covering"] and "INCLUDE (size)" in found["uq_covering"]
    assert "WHERE (size > 3)" in found["ix_partial"]
    assert "INVALID" not in found.values()
    project.apply(
        migrations.RenameIndex("item", new_name="ix_new", old_name="ix_desc"),
        migrations.RemoveIndex("item", "ix_partial"),
        migrations.RemoveConstraint("item", "uq_covering"),
    )
    assert {"ix_desc", "ix_partial", "uq_covering"}.isdisjoint(project.constraints("shop_item"))
    assert "ix_new" in project.constraints("shop_item")


@pytest.mark.skipif(django.VERSION < (5, 0), reason="nulls_distinct came with Django 5.0")
def test_nulls_that_are_not_distinct(project: Project) -> None:
    project.apply(create_item(size=models.IntegerField(null=True)))
    constraint = models.UniqueConstraint(fields=["size"], nulls_distinct=False, name="uq")
    project.apply(migrations.AddConstraint("item", constraint))
    insert(project, size=None)
    with pytest.raises(IntegrityError):
        insert(project, size=None)
    project.apply(migrations.RemoveConstraint("item", "uq"))
    insert(project, size=None)


def test_together_comes_and_goes(project: Project) -> None:
    project.apply(create_item(name=models.CharField(max_length=10), size=models.IntegerField()))
    project.apply(migrations.AlterUniqueTogether("item", {("name", "size")}))
    insert(project, name="a", size=1)
    with pytest.raises(IntegrityError):
        insert(project, name="a", size=1)
    project.apply(migrations.AlterUniqueTogether("item", set()))
    insert(project, name="a", size=1)


def test_a_primary_key_changes_its_type(project: Project) -> None:
    project.apply(
        create_item(
            code=models.CharField(max_length=5, primary_key=True), name=models.TextField(db_comment="the name")
        ),
        migrations.CreateModel(
            "Part",
            [
                ("id", models.AutoField(primary_key=True)),
                ("item", models.ForeignKey("Item", models.CASCADE)),
            ],
        ),
    )
    project.rows("GRANT SELECT ON shop_item TO PUBLIC")
    item = insert(project, code="1", name="one")
    project.model("Part").objects.create(item=item)
    project.apply(migrations.AlterField("item", "code", models.IntegerField(primary_key=True)))

    assert project.columns("shop_item")["code"] == ("integer", False)
    assert project.columns("shop_part")["item_id"] == ("integer", False)
    assert project.rows("SELECT code, name FROM shop_item") == [(1, "one")]
    assert project.rows("SELECT item_id FROM shop_part") == [(1,)]
    assert project.rows("SELECT col_description('shop_item'::regclass, 2)") == [("the name",)]
    assert project.rows("SELECT relacl::text LIKE '%=r/%' FROM pg_class WHERE relname = 'shop_item'") == [(True,)]
    foreign_keys = [d for d in project.constraints("shop_part").values() if d.startswith("FOREIGN KEY")]
    assert foreign_keys == ["FOREIGN KEY (item_id) REFERENCES shop_item(code) DEFERRABLE INITIALLY DEFERRED"]
    with pytest.raises(IntegrityError):
        project.model("Part").objects.create(item_id=2)


def test_a_number_becomes_an_identity_that_goes_on_behind_the_rows(project: Project) -> None:
    project.apply(create_item(code=models.IntegerField(primary_key=True), name=models.TextField()))
    insert(project, code=41, name="old")
    project.apply(migrations.AlterField("item", "code", models.AutoField(primary_key=True)))
    assert insert(project, name="new").pk == 42
    assert project.columns("shop_item")["code"] == ("bigint", False)


def test_foreign_keys_have_the_type_of_their_target(project: Project) -> None:
    project.apply(
        create_item(id=UUIDAutoField(primary_key=True)),
        migrations.CreateModel(
            "Part",
            [
                ("id", models.AutoField(primary_key=True)),
                ("item", models.ForeignKey("Item", models.CASCADE)),
                ("whole", models.ForeignKey("self", models.CASCADE, null=True)),
                ("others", models.ManyToManyField("Item", related_name="+")),
            ],
        ),
    )
    columns = project.columns("shop_part")
    assert columns["item_id"] == ("uuid", False) and columns["whole_id"] == ("bigint", True)
    assert project.columns("shop_part_others")["item_id"] == ("uuid", False)
    item = project.model("Item").objects.create()
    part = project.model("Part").objects.create(item=item)
    part.others.add(item)
    assert project.model("Part").objects.get(item__pk=str(item.pk), others=item).pk == part.pk
    assert project.rows("INSERT INTO shop_item DEFAULT VALUES RETURNING id IS NOT NULL") == [(True,)]


@pytest.mark.skipif(django.VERSION < (5, 2), reason="composite primary keys came with Django 5.2")
def test_composite_primary_key(project: Project) -> None:
    project.apply(
        migrations.CreateModel(
            "Item",
            [
                ("pk", models.CompositePrimaryKey("tenant", "number")),
                ("tenant", models.IntegerField()),
                ("number", models.IntegerField()),
                ("name", models.CharField(max_length=3)),
            ],
        )
    )
    insert(project, tenant=1, number=2, name="abc")
    project.apply(migrations.AlterField("item", "name", models.CharField(max_length=30)))
    project.apply(migrations.AlterField("item", "number", models.CharField(max_length=30)))
    assert project.constraints("shop_item")["shop_item_pkey"] == "PRIMARY KEY (tenant, number) INCLUDE (name)"
    assert project.rows("SELECT tenant, number, name FROM shop_item") == [(1, "2", "abc")]


def test_names_change(project: Project) -> None:
    project.apply(
        create_item(name=models.CharField(max_length=10, db_index=True)),
        migrations.AddField("item", "size", models.IntegerField(default=1)),
    )
    insert(project, name="a")
    project.apply(
        migrations.RenameField("item", "size", "weight"),
        migrations.AddField("item", "size", models.IntegerField(default=2)),
        migrations.RenameModel("Item", "Thing"),
        migrations.AlterField("thing", "weight", models.BigIntegerField(null=True)),
        migrations.RemoveField("thing", "name"),
    )
    assert project.rows("SELECT weight, size FROM shop_thing") == [(1, 2)]
    assert {name: null for name, (_, null) in project.columns("shop_thing").items()} == {
        "id": False,
        "weight": True,
        "size": False,
    }


def test_many_to_many_to_another_model(project: Project) -> None:
    tag = [("id", models.AutoField(primary_key=True))]
    project.apply(
        migrations.CreateModel("Tag", tag),
        migrations.CreateModel("Label", [("code", models.CharField(max_length=9, primary_key=True))]),
        create_item(tags=models.ManyToManyField("Tag")),
        migrations.AlterField("item", "tags", models.ManyToManyField("Label")),
    )
    assert project.columns("shop_item_tags")["label_id"] == ("character varying(9)", False)


def test_reversed_operations(project: Project) -> None:
    project.apply(create_item(name=models.CharField(max_length=10, unique=True)))
    insert(project, name="a")
    for operation in (
        migrations.AlterField("item", "name", models.TextField()),
        migrations.AddField("item", "size", models.IntegerField(default=1)),
        migrations.RenameField("item", "name", "title"),
        migrations.AlterModelTable("item", "goods"),
    ):
        before = project.state
        columns = project.columns("shop_item")
        project.apply(operation)
        project.reverse(operation, before)
        assert project.columns("shop_item") == columns
    assert project.rows("SELECT name FROM shop_item") == [("a",)]


def test_a_view_stands_in_the_way_and_is_named(project: Project) -> None:
    project.apply(create_item(name=models.CharField(max_length=10)))
    project.rows("CREATE VIEW names AS SELECT name FROM shop_item")
    before = project.columns("shop_item")
    with pytest.raises(NotSupportedError, match="names"):
        project.apply(migrations.AlterField("item", "name", models.TextField()))
    assert project.columns("shop_item") == before


def test_privileges_and_statistics_stay(project: Project) -> None:
    project.apply(create_item(code=models.IntegerField(primary_key=True), size=models.IntegerField()))
    project.rows("GRANT SELECT (size) ON shop_item TO PUBLIC")
    project.rows("CREATE STATISTICS shop_statistics ON code, size FROM shop_item")

    def kept() -> list[tuple[Any, ...]]:
        return project.rows(
            "SELECT attacl::text, (SELECT count(*) FROM pg_statistic_ext WHERE stxrelid = attrelid) FROM pg_attribute "
            "WHERE attrelid = 'shop_item'::regclass AND attname = 'size'"
        )

    before = kept()
    assert before[0][0] and before[0][1] == 1
    project.apply(migrations.AlterField("item", "size", models.BigIntegerField()))
    assert kept() == before
    project.apply(migrations.AlterField("item", "code", models.BigIntegerField(primary_key=True)))
    assert kept() == before


def test_rows_that_vanish_while_the_table_is_rebuilt(project: Project) -> None:
    from dsql_dialects.django.schema_steps import DeleteVanished

    for table, numbers in (("old", (1, 3)), ("new", (1, 2, 3, 4))):
        project.rows(f"CREATE TABLE {table} (a int PRIMARY KEY)")
        project.rows(f"INSERT INTO {table} VALUES {', '.join(f'({n})' for n in numbers)}")
    RowMover(project.connection, batch_rows=1).delete_vanished(DeleteVanished("old", "new", ("a",)))
    assert project.rows("SELECT a FROM new ORDER BY 1") == [(1,), (3,)]


def test_operations_of_contrib_postgres(project: Project) -> None:
    from django.contrib.postgres import operations

    project.apply(create_item(size=models.IntegerField()))
    insert(project, size=-1)
    check = models.CheckConstraint(**{_CHECK: Q(size__gt=0)}, name="positive")
    project.apply(operations.AddIndexConcurrently("item", models.Index(fields=["size"], name="ix")))
    project.apply(operations.AddConstraintNotValid("item", check))
    assert project.constraints("shop_item")["positive"].endswith("NOT VALID")
    with pytest.raises(IntegrityError):
        project.apply(operations.ValidateConstraint("item", "positive"))
    project.rows("UPDATE shop_item SET size = 1")
    project.apply(operations.ValidateConstraint("item", "positive"))
    assert project.constraints("shop_item")["positive"] == "CHECK ((size > 0))"


def test_what_dsql_has_not_got_is_refused_by_name(project: Project) -> None:
    from django.contrib.postgres.indexes import GinIndex

    project.apply(create_item(name=models.CharField(max_length=10)))
    with pytest.raises(NotSupportedError, match=r"shop\.Item.*gin"):
        project.apply(migrations.AddIndex("item", GinIndex(fields=["name"], name="ix")))
    with pytest.raises(NotSupportedError, match="text_pattern_ops"):
        project.apply(
            migrations.AddIndex("item", models.Index(fields=["name"], opclasses=["text_pattern_ops"], name="i"))
        )


def test_ddl_in_a_transaction_is_refused(project: Project) -> None:
    with (
        transaction.atomic(),
        pytest.raises(TransactionManagementError, match=r"outside of atomic\(\)"),
    ):
        project.apply(create_item())


def test_rows_without_primary_key(project: Project) -> None:
    project.rows("CREATE TABLE bare (a int)")
    project.rows("INSERT INTO bare VALUES (1), (2)")
    from dsql_dialects.django.schema_steps import Backfill

    RowMover(connections["default"]).backfill(Backfill("bare", "a = a + 10", "a < 10", ()))
    assert project.rows("SELECT a FROM bare ORDER BY 1") == [(11,), (12,)]


def test_wide_rows_are_taken_in_smaller_batches(project: Project) -> None:
    from dsql_dialects.django.schema_steps import Backfill

    project.apply(create_item(text=models.TextField()))
    model, rows = project.model("Item"), 12
    for _ in range(rows):
        model.objects.create(text="x" * 900_000)  # together more than 10 MiB
    RowMover(project.connection).backfill(Backfill("shop_item", "text = text || 'y'", "true", ("id",)))
    assert project.rows("SELECT count(*) FROM shop_item WHERE text LIKE %s", ("%y",)) == [(rows,)]


def test_sqlmigrate_prints_every_step(project: Project) -> None:
    operations = [
        create_item(name=models.CharField(max_length=10)),
        migrations.AddField("item", "size", models.IntegerField(default=7)),
    ]
    printed = "\n".join(project.sql(*operations))
    for expected in ("CREATE TABLE", "ADD COLUMN", "Repeat until", "UPDATE", "NOT VALID", "VALIDATE CONSTRAINT"):
        assert expected in printed
    assert "shop_item" not in project.connection.introspection.table_names()


_CHECK = "condition" if django.VERSION >= (5, 1) else "check"
