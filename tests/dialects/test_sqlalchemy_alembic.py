"""Alembic: migrations run, fail and run again; what they made is what the model says; scripts pass the linter."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, inspect
from sqlalchemy_model import Base

from dsql_dialects.sqlalchemy import UnsupportedError

ENV = """
from alembic import context

config = context.config
if context.is_offline_mode():
    context.configure(url="aws_dsql://", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with config.attributes["engine"].connect() as connection:
        context.configure(connection=connection, target_metadata=config.attributes["metadata"])
        with context.begin_transaction():
            context.run_migrations()
"""
TEMPLATE = '''
"""${message}"""
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
${imports if imports else ""}

def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''
FIRST = '''
"""orders"""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "one", None


def upgrade():
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("customer", sa.Text, nullable=False, index=True),
        sa.Column("state", sa.Enum("new", "done", name="state"), server_default="new"),
        sa.UniqueConstraint("customer", "state", name="orders_once"),
    )
    op.create_table("items", sa.Column("id", sa.Uuid, primary_key=True), sa.Column("order_id", sa.Integer))
    op.bulk_insert(
        sa.table("orders", sa.column("customer", sa.Text)), [{"customer": f"c{n}"} for n in range(25)]
    )


def downgrade():
    op.drop_table("items")
    op.drop_table("orders")
'''
SECOND = '''
"""more of orders"""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "two", "one"


def upgrade():
    op.add_column("orders", sa.Column("note", sa.Text, server_default="none", nullable=False))
    op.execute("UPDATE orders SET note = note || '!' WHERE customer = 'c1'")
    op.create_unique_constraint("orders_note", "orders", ["customer", "note"])
    op.create_foreign_key("items_order", "items", "orders", ["order_id"], ["id"], ondelete="CASCADE")
    op.create_check_constraint("orders_customer", "orders", "customer <> ''")
    op.create_index("items_by_order", "items", ["order_id"], unique=False, postgresql_include=["id"])
    op.alter_column("items", "order_id", nullable=False)
    op.alter_column("orders", "state", server_default=None, new_column_name="status")


def downgrade():
    op.drop_index("items_by_order", "items")
    op.drop_constraint("items_order", "items")
    op.alter_column("items", "order_id", nullable=True)
    op.drop_column("orders", "note")
    op.alter_column("orders", "status", new_column_name="state")
'''


class Project:
    """An Alembic environment in a directory."""

    def __init__(self, directory: Path, engine: Engine | None) -> None:
        self.output = io.StringIO()
        self.versions = directory / "versions"
        self.versions.mkdir()
        (directory / "env.py").write_text(ENV)
        (directory / "script.py.mako").write_text(TEMPLATE)
        self.config = Config(output_buffer=self.output)
        self.config.set_main_option("script_location", str(directory))
        self.config.attributes["engine"] = engine
        self.config.attributes["metadata"] = Base.metadata

    def write(self, name: str, script: str) -> None:
        (self.versions / f"{name}.py").write_text(script)


@pytest.fixture
def project(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An Alembic environment on the cluster."""
    monkeypatch.setattr("dsql_dialects.sqlalchemy.alembic.BACKFILL_ROWS", 10)  # so that it takes several
    return Project(tmp_path, engine)


def count(engine: Engine, query: str) -> Any:
    with engine.connect() as connection:
        return connection.scalar(sa.text(query))


def test_migrations_go_up_and_down(project: Project, engine: Engine, linter: Any) -> None:
    linter.listen(engine)
    project.write("one", FIRST)
    project.write("two", SECOND)
    command.upgrade(project.config, "head")

    inspector = inspect(engine)
    assert {c["name"] for c in inspector.get_columns("orders")} == {"id", "customer", "status", "note"}
    assert [c["name"] for c in inspector.get_unique_constraints("orders")] == ["orders_note", "orders_once"]
    assert [k["options"]["ondelete"] for k in inspector.get_foreign_keys("items")] == ["CASCADE"]
    assert count(engine, "SELECT count(*) FROM orders WHERE note IS NULL") == 0
    assert count(engine, "SELECT count(*) FROM orders WHERE note = 'none!'") == 1
    with pytest.raises(sa.exc.IntegrityError, match="items_order_id_not_null"), engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO items VALUES (gen_random_uuid(), NULL)"))

    command.downgrade(project.config, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert linter.problems() == ""


@pytest.mark.parametrize("failing", ["UPDATE orders SET note", "op.create_foreign_key", 'op.alter_column("orders"'])
def test_a_failed_migration_can_be_run_again(project: Project, engine: Engine, failing: str) -> None:
    project.write("one", FIRST)
    before = next(line for line in SECOND.splitlines() if failing in line)
    project.write("two", SECOND.replace(before, f"    raise ZeroDivisionError\n{before}", 1))
    with pytest.raises(ZeroDivisionError):
        command.upgrade(project.config, "head")
    assert count(engine, "SELECT version_num FROM alembic_version") == "one"

    project.write("two", SECOND)
    command.upgrade(project.config, "head")
    assert count(engine, "SELECT version_num FROM alembic_version") == "two"
    assert count(engine, "SELECT count(*) FROM orders") == 25
    assert count(engine, "SELECT note FROM orders WHERE customer = 'c1'") == "none!"
    assert set(inspect(engine).get_table_names()) == {"alembic_version", "items", "orders"}


def test_a_failed_index_build_can_be_run_again(project: Project, engine: Engine) -> None:
    project.write("one", FIRST)
    command.upgrade(project.config, "head")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO orders (customer, state) VALUES ('c1', 'done')"))
    project.write(
        "two",
        SECOND[: SECOND.index("    op.add_column")]
        + '    op.create_index("orders_by_customer", "orders", ["customer"], unique=True)\n',
    )
    with pytest.raises(sa.exc.SQLAlchemyError, match="Found duplicate key"):
        command.upgrade(project.config, "head")
    (index,) = [i for i in inspect(engine).get_indexes("orders") if i["name"] == "orders_by_customer"]
    assert index["dialect_options"]["postgresql_invalid"] and index["dsql_build_status"] == "failed"

    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM orders WHERE state = 'done'"))
    command.upgrade(project.config, "head")
    (index,) = [i for i in inspect(engine).get_indexes("orders") if i["name"] == "orders_by_customer"]
    assert "postgresql_invalid" not in index["dialect_options"]


def test_autogenerate_makes_the_model_and_then_sees_no_difference(project: Project, engine: Engine) -> None:
    with engine.begin() as connection:  # Alembic doesn't generate sequences
        connection.execute(sa.text("CREATE SEQUENCE numbers CACHE 65536"))
    for name in ("tables", "keys of cycles"):  # which Alembic leaves for the second time, as on PostgreSQL
        command.revision(project.config, name, autogenerate=True)
        command.upgrade(project.config, "head")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    command.check(project.config)
    command.downgrade(project.config, "base")


def test_a_script_passes_the_linter(tmp_path: Path, linter: Any) -> None:
    project = Project(tmp_path, None)
    project.write("one", FIRST)
    project.write("two", SECOND)
    command.upgrade(project.config, "head", sql=True)
    script = project.output.getvalue()
    assert "ALTER TABLE ASYNC items VALIDATE CONSTRAINT items_order;" in script
    assert "BEGIN" not in script
    linter.statements.append(script)
    assert linter.problems() == ""


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda op: op.alter_column("t", "c", type_=sa.Text(), existing_type=sa.Integer()), "no column's type"),
        (lambda op: op.add_column("t", sa.Column("c", sa.BigInteger, sa.Identity())), "no identity column"),
        (lambda op: op.add_column("t", sa.Column("c", sa.Integer, sa.Computed("a + 1"))), "no generated column"),
        (lambda op: op.create_primary_key("p", "t", ["c"]), "declare it with the table"),
        (lambda op: op.add_column("t", sa.Column("c", sa.ARRAY(sa.Text))), "table of its own"),
    ],
)
def test_what_cannot_be_migrated_says_what_to_do(operation: Callable[[Any], None], words: str) -> None:
    operations = Operations(
        MigrationContext.configure(dialect_name="aws_dsql", opts={"as_sql": True, "output_buffer": io.StringIO()})
    )
    with pytest.raises(UnsupportedError, match=words):
        operation(operations)
