"""The parts of the Django backend's schema editor that need no server."""

from __future__ import annotations

import json

import pytest

from dsql_dialects.django.schema_catalog import CHECK, Constraint, Index, Table
from dsql_dialects.django.schema_columns import ColumnReplacement, NewColumn
from dsql_dialects.django.schema_execution import says_already_done
from dsql_dialects.django.schema_names import NAME_BYTES_MAX, not_null_name, split_table, temporary_name
from dsql_dialects.django.schema_statements import is_async, undo_of, with_async
from dsql_dialects.django.schema_steps import (
    Backfill,
    CopyRows,
    Ddl,
    DeleteVanished,
    PointOfNoReturn,
    RestartIdentity,
    dump_steps,
    load_steps,
)


def test_steps_survive_json() -> None:
    steps = [
        Ddl("ALTER TABLE t ADD COLUMN a int", ("ALTER TABLE t DROP COLUMN a",)),
        Backfill("t", "a = 1", "a IS NULL", ("id",)),
        CopyRows("t", "n", ("a", "b"), ("a", "b::int"), ("id",), True),
        DeleteVanished("t", "n", ("id",)),
        RestartIdentity("t", "n", "id", False),
        PointOfNoReturn(),
    ]
    assert load_steps(json.loads(json.dumps(dump_steps(steps)))) == steps


@pytest.mark.parametrize("name", ["a", "x" * 63, "ä" * 40])
def test_derived_names_are_short_different_and_the_same_every_time(name: str) -> None:
    names = [
        temporary_name(name, "new"),
        temporary_name(name, "old"),
        not_null_name(name, "c"),
        not_null_name(name, "d"),
    ]
    assert all(len(derived.encode()) <= NAME_BYTES_MAX for derived in names)
    assert len({*names, name}) == 5
    assert temporary_name(name, "new") == names[0]
    assert names[2].endswith("_not_null")


def test_tables_in_other_schemas() -> None:
    assert split_table('"shop_item"') == ("", "shop_item")
    assert split_table('"other"."shop_item"') == ('"other".', "shop_item")


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        (
            "CREATE UNIQUE INDEX u ON public.t USING btree_index (a) NULLS NOT DISTINCT",
            'CREATE UNIQUE INDEX ASYNC "n" ON "t" (a) NULLS NOT DISTINCT',
        ),
        (
            'CREATE INDEX "an index" ON "a schema"."a table" USING btree (lower(b)) INCLUDE (c) WHERE (b > 1)',
            'CREATE INDEX ASYNC "n" ON "t" (lower(b)) INCLUDE (c) WHERE (b > 1)',
        ),
    ],
)
def test_indexes_are_made_again_from_their_definition(definition: str, expected: str) -> None:
    assert Index("i", ("a",), definition).create_sql('"n"', '"t"') == expected


def test_a_definition_of_no_index_is_refused() -> None:
    with pytest.raises(ValueError, match="can't be read"):
        Index("i", ("a",), "CREATE VIEW v").create_sql('"n"', '"t"')


@pytest.mark.parametrize(
    ("name", "definition", "column"),
    [
        ("t_a_not_null", "CHECK ((a IS NOT NULL))", "a"),
        ("t_a_not_null", 'CHECK (("A" IS NOT NULL))', "a"),
        ("of_the_model", "CHECK ((a IS NOT NULL))", None),
        ("t_a_not_null", "CHECK (((a IS NOT NULL) OR (b > 1)))", None),
    ],
)
def test_checks_that_stand_for_not_null(name: str, definition: str, column: str | None) -> None:
    assert Constraint(name, CHECK, ("a",), definition).not_null_column == column


@pytest.mark.parametrize(
    ("sql", "sqlstate", "expected"),
    [
        ("CREATE TABLE t (a int)", "42P07", True),
        ("CREATE INDEX ASYNC i ON t (a)", "42P07", True),
        ("CREATE INDEX ASYNC i ON t (misspelled)", "42703", False),
        ("ALTER TABLE t ADD COLUMN a int", "42701", True),
        ("ALTER TABLE misspelled ADD COLUMN a int", "42P01", False),
        ("ALTER TABLE t RENAME COLUMN a TO b", "42703", True),
        ("ALTER TABLE t DROP COLUMN a CASCADE", "42703", True),
        ("DROP TABLE t CASCADE", "42P01", True),
        ("UPDATE t SET a = 1", "42703", False),
        ("CREATE TABLE t (a int)", "23505", False),
    ],
)
def test_refusals_that_mean_done_already(sql: str, sqlstate: str, expected: bool) -> None:
    assert says_already_done(sql, sqlstate) is expected


def test_asynchronous_statements() -> None:
    create = 'CREATE UNIQUE INDEX ASYNC IF NOT EXISTS "i" ON "s"."t" (a)'
    assert is_async(create)
    assert undo_of(create) == ('DROP INDEX IF EXISTS "s"."i"',)
    assert is_async('ALTER TABLE ASYNC "t" VALIDATE CONSTRAINT c')
    assert not is_async("CREATE INDEX i ON t (a)")
    assert undo_of("CREATE TABLE t ()") == ()
    assert with_async('ALTER TABLE "t" VALIDATE CONSTRAINT "c"') == 'ALTER TABLE ASYNC "t" VALIDATE CONSTRAINT "c"'
    assert with_async('ALTER TABLE "t" ADD COLUMN a int') == 'ALTER TABLE "t" ADD COLUMN a int'


def test_a_replaced_column_is_never_dropped_before_it_is_filled_checked_and_its_indexes_stand() -> None:
    index = Index("u", ("a",), "CREATE UNIQUE INDEX u ON t USING btree (a)", True, key_columns=("a",))
    table = Table('"t"', (), indexes=(index,))
    column = NewColumn("a", "text", '"a"::text', not_null=True)
    steps = list(ColumnReplacement(table, column, lambda name: f'"{name}"').steps())
    turn = steps.index(PointOfNoReturn())
    sql = [step.sql if isinstance(step, Ddl) else type(step).__name__ for step in steps]

    assert not any("DROP COLUMN" in statement for statement in sql[:turn])
    assert [statement for statement in sql[:turn] if statement == "Backfill"] == ["Backfill"] * 2
    assert 'CREATE UNIQUE INDEX ASYNC "u__new" ON "t" (a)' in sql[:turn]
    guard = next(n for n, statement in enumerate(sql) if "IS NOT DISTINCT FROM" in statement)
    assert sql.index("Backfill") < guard < sql.index('ALTER TABLE "t" RENAME COLUMN "a" TO "a__old"')
    # Everything up to there can be undone, or is undone with the new column.
    assert all(step.undo or "VALIDATE" in step.sql for step in steps[:turn] if isinstance(step, Ddl))
