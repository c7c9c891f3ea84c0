"""What sessions of pg_dump may run beyond others, and that it is no more than that."""

from __future__ import annotations

import pytest

from dsql_server.statements import Statement, StatementKind, classify
from dsql_server.statements.dump import for_pg_dump


def _dumped(sql: str) -> Statement:
    (statement,) = classify(sql)
    assert statement.refusals, "other clients are refused"
    return for_pg_dump(statement)


@pytest.mark.parametrize(
    ("sql", "tag"),
    [
        ("SET statement_timeout = 0", "SET"),
        ("SET synchronize_seqscans TO off", "SET"),
        ("SET row_security = off", "SET"),
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET"),
        ("LOCK TABLE public.a, public.b IN ACCESS SHARE MODE", "LOCK TABLE"),
    ],
)
def test_answered_without_being_run(sql: str, tag: str) -> None:
    statement = _dumped(sql)
    assert (statement.refusals, statement.engine_sql, statement.tag) == ((), "", tag)


@pytest.mark.parametrize(
    "sql",
    [
        "PREPARE dumpFunc(pg_catalog.oid) AS SELECT proname FROM pg_catalog.pg_proc p, pg_language l WHERE p.oid = $1",
        "EXECUTE dumpFunc('1')",
    ],
)
def test_catalog_queries_run(sql: str) -> None:
    statement = _dumped(sql)
    assert statement.refusals == () and statement.engine_sql == sql
    assert statement.kind is StatementKind.SHOW


@pytest.mark.parametrize(
    "sql",
    [
        "PREPARE a AS SELECT * FROM public.orders",
        "PREPARE a AS SELECT * FROM orders",
        "PREPARE a AS DELETE FROM pg_catalog.pg_proc",
        "PREPARE a AS SELECT pg_catalog.pg_read_file('/etc/passwd')",
        "EXECUTE a(pg_read_file('/etc/passwd'))",
        "SET work_mem = '1GB'",
        "SET session_authorization = 'dsql_engine'",
        "SET ROLE dsql_loader",
        "SELECT set_config(name, 'off', false) FROM pg_settings",
        "TRUNCATE orders",
        "COPY orders TO '/tmp/orders'",
    ],
)
def test_everything_else_stays_refused(sql: str) -> None:
    assert _dumped(sql).refusals
