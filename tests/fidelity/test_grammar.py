"""Every production of Aurora DSQL's published grammar: a statement of it runs, or is refused as is known."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from grammar_statements import SET_UP, STATEMENTS, TRANSACTION_STATEMENTS, Refused
from psycopg import Connection

from dsql_server.testing import LocalCluster
from dsql_server.testing.clean import drop_user_objects

#: Productions that the published grammar has; the table must cover all of them.
PRODUCTIONS = 381


@pytest.fixture(scope="module")
def connection(dsql_cluster: LocalCluster) -> Iterator[Connection]:
    with dsql_cluster.connect(autocommit=True) as connection:
        drop_user_objects(connection)
        job = None
        for statement in SET_UP:
            answer = connection.execute(statement)  # type: ignore[call-overload]
            if answer.description is not None:
                job = answer.fetchone()
        assert job is not None, "one of them builds an index"
        connection.execute(f"CALL sys.wait_for_job('{job[0]}')")
        yield connection
        drop_user_objects(connection)
        connection.execute("DROP ROLE grammar_role")


def _run(connection: Connection, case: str | Refused) -> None:
    if isinstance(case, str):
        connection.execute(case)  # type: ignore[call-overload]
        return
    statement, sqlstate, message = case
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(statement)  # type: ignore[call-overload]
    assert (refused.value.sqlstate, refused.value.diag.message_primary) == (sqlstate, message), statement


@pytest.mark.parametrize("production", STATEMENTS)
def test_statements_of(production: str, connection: Connection) -> None:
    for case in STATEMENTS[production]:
        connection.execute("BEGIN")
        try:
            _run(connection, case)
        finally:
            connection.execute("ROLLBACK")


@pytest.mark.parametrize("production", TRANSACTION_STATEMENTS)
def test_transaction_statements_of(production: str, connection: Connection) -> None:
    for case in TRANSACTION_STATEMENTS[production]:
        _run(connection, case)


def test_no_production_is_left_out() -> None:
    covered = STATEMENTS.keys() | TRANSACTION_STATEMENTS.keys()
    assert len(covered) == PRODUCTIONS and not STATEMENTS.keys() & TRANSACTION_STATEMENTS.keys()
    assert all(STATEMENTS.values())
