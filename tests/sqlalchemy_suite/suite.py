"""All of SQLAlchemy's compliance suite; the few tests below ask the same of DSQL in its terms."""

from __future__ import annotations

from typing import Any
from unittest import mock

from sqlalchemy import Column, Engine, Identity, Integer, Table, event, text
from sqlalchemy.testing import config
from sqlalchemy.testing.suite import *  # noqa: F403
from sqlalchemy.testing.suite import ComponentReflectionTest as _ComponentReflectionTest
from sqlalchemy.testing.suite import ComponentReflectionTestExtra as _ComponentReflectionTestExtra
from sqlalchemy.testing.suite import IdentityReflectionTest as _IdentityReflectionTest

from dsql_dialects.sqlalchemy.base import commit_now

#: SQLAlchemy takes no underscore in the prefix of an option: ours are PostgreSQL's, and so are their names.
OPTIONS_PREFIX = "postgresql"

IDENTITY_CACHE = 65536


class ComponentReflectionTest(_ComponentReflectionTest):  # type: ignore[misc]
    """The original has create_all() set the comments of constraints, which the dialect leaves to those who ask for it,
    as AWS's linter refuses the statement. They are set by hand here, and reflected as in the original."""

    @classmethod
    def define_tables(cls, metadata: Any) -> None:
        super().define_tables(metadata)
        for table in metadata.tables.values():
            for constraint in [found for found in table.constraints if found.comment is not None]:
                statement = f"COMMENT ON CONSTRAINT {constraint.name} ON {table.fullname} IS '{constraint.comment}'"
                constraint.comment = None
                event.listen(table, "after_create", _running(statement))


def _running(statement: str) -> Any:
    def run(target: Any, connection: Any, **kw: Any) -> None:
        connection.execute(text(statement))
        commit_now(connection)  # one definition a transaction

    return run


class ComponentReflectionTestExtra(_ComponentReflectionTestExtra):  # type: ignore[misc]
    """The original looks for options under the dialect's own name."""

    def test_reflect_covering_index(self, metadata: Any, connection: Any) -> None:
        with mock.patch.object(Engine, "name", OPTIONS_PREFIX):
            super().test_reflect_covering_index(metadata, connection)

    def test_reflect_expression_based_indexes(self, metadata: Any, connection: Any) -> None:
        with mock.patch.object(Engine, "name", OPTIONS_PREFIX):
            super().test_reflect_expression_based_indexes(metadata, connection)


class IdentityReflectionTest(_IdentityReflectionTest):  # type: ignore[misc]
    """The original wants CACHE 4 and a default of 1, which DSQL refuses."""

    @classmethod
    def define_tables(cls, metadata: Any) -> None:
        Table("t1", metadata, Column("normal", Integer), Column("id1", Integer, Identity()))
        options = {"always": True, "start": 2, "increment": 3, "minvalue": -2, "maxvalue": 42, "cycle": True}
        Table("t2", metadata, Column("id2", Integer, Identity(**options, cache=IDENTITY_CACHE)))
        other = Identity(always=True, start=20)
        Table("t1", metadata, Column("normal", Integer), Column("id1", Integer, other), schema=config.test_schema)

    def check(self, value: Any, exp: Any, approx: Any) -> None:
        super().check(value, {**exp, "cache": IDENTITY_CACHE}, approx)


try:
    from sqlalchemy.testing.suite import TableViaSelectTest as _TableViaSelectTest
except ImportError:  # SQLAlchemy 2.0 has no CREATE VIEW
    pass
else:

    class TableViaSelectTest(_TableViaSelectTest):  # type: ignore[misc]
        """The original creates, fills and drops in one transaction."""

        def test_view_dependencies_with_metadata(self, metadata: Any) -> None:
            with config.db.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                super().test_view_dependencies_with_metadata(connection, metadata)
