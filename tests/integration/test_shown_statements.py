"""What the engine has shown of a statement in one session holds for others, as far as it means the same to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.pq import ExecStatus

from dsql_server.testing import LocalCluster

Connection = psycopg.Connection[tuple[Any, ...]]
Connect = Callable[..., Connection]
#: With the parameter's type, so that all drivers' ways to send it are one text.
READ = "SELECT id, at FROM things WHERE id = $1::int"
INSERT = "INSERT INTO things VALUES ($1, '2024-05-06 07:08:09+00')"


def direct_reads(cluster: LocalCluster) -> int:
    counted: int = cluster.metrics()["planner"]["direct_reads"]
    return counted


@pytest.fixture
def connect(dsql_cluster: LocalCluster, dsql_url: str) -> Iterator[Connect]:
    """Connects; all is closed at the end."""
    with contextlib.ExitStack() as stack:
        with dsql_cluster.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE things (id int PRIMARY KEY, at timestamptz)")
            connection.execute("INSERT INTO things SELECT i, '2024-05-06 07:08:09+00' FROM generate_series(1, 9) i")

        def connected(user: str = "admin", **parameters: Any) -> Connection:
            return stack.enter_context(dsql_cluster.connect(user, autocommit=True, **parameters))

        yield connected


def read(connection: Connection, number: int, name: bytes | None = None) -> list[tuple[bytes | None, ...]]:
    """Rows of READ in text format. ``name``: of a prepared statement that is there; None: sent as a text."""
    pgconn, values = connection.pgconn, [b"%d" % number]
    result = pgconn.exec_params(READ.encode(), values) if name is None else pgconn.exec_prepared(name, values)
    assert result.status == ExecStatus.TUPLES_OK, result.error_message
    return [tuple(result.get_value(row, i) for i in range(result.nfields)) for row in range(result.ntuples)]


def shown(connect: Connect, *names: str, **parameters: Any) -> None:
    """Let a session of its own see the statement answered."""
    with connect(*names, **parameters) as connection:
        assert len(read(connection, 1)) == 1


def test_the_first_execution_in_another_session_is_answered_from_storage(
    dsql_cluster: LocalCluster, connect: Connect
) -> None:
    shown(connect)
    other = connect()
    other.execute("SELECT 1")  # its settings are known from now on
    before = direct_reads(dsql_cluster)
    assert read(other, 3) == [(b"3", b"2024-05-06 07:08:09+00")]
    assert direct_reads(dsql_cluster) - before == 1


def test_texts_in_the_simple_protocol_too(dsql_cluster: LocalCluster, connect: Connect) -> None:
    text = "SELECT id FROM things WHERE id = {}"
    with connect() as first:
        first.pgconn.exec_(text.format(1).encode())
    other = connect()
    other.pgconn.exec_(b"SELECT 1")
    before = direct_reads(dsql_cluster)
    assert other.pgconn.exec_(text.format(4).encode()).get_value(0, 0) == b"4"
    assert direct_reads(dsql_cluster) - before == 1


@pytest.mark.parametrize(
    "parameters",
    [{"options": "-c TimeZone=Asia/Tokyo"}, {"options": "-c DateStyle=German"}],
    ids=["time-zone", "date-style"],
)
def test_not_in_sessions_that_began_with_other_settings(connect: Connect, parameters: dict[str, str]) -> None:
    shown(connect)
    shown(connect, **parameters)
    for _ in range(2):
        assert read(connect(), 3) == [(b"3", b"2024-05-06 07:08:09+00")]
        (row,) = read(connect(**parameters), 3)
        assert row != (b"3", b"2024-05-06 07:08:09+00")


def test_not_in_sessions_that_have_changed_their_settings(connect: Connect) -> None:
    shown(connect)
    other = connect()
    other.execute("SET TimeZone TO 'Asia/Tokyo'")
    assert read(other, 3) == [(b"3", b"2024-05-06 16:08:09+09")]
    assert read(other, 4) == [(b"4", b"2024-05-06 16:08:09+09")]
    assert read(connect(), 4) == [(b"4", b"2024-05-06 07:08:09+00")]


def test_not_in_another_schema(connect: Connect) -> None:
    shown(connect)
    admin = connect()
    admin.execute("CREATE SCHEMA aside")
    admin.execute("CREATE TABLE aside.things (id int PRIMARY KEY, at text)")
    admin.execute("INSERT INTO aside.things VALUES (3, 'there')")
    shown(connect)
    aside = {"options": "-c search_path=aside"}
    for _ in range(2):
        assert read(connect(**aside), 3) == [(b"3", b"there")]
        assert read(connect(), 3) == [(b"3", b"2024-05-06 07:08:09+00")]


def test_not_for_other_roles_and_not_behind_a_revoke(connect: Connect) -> None:
    role, arn = "shown_reader", "arn:aws:iam::123456789012:role/shown_reader"
    admin = connect()
    admin.execute(sql.SQL("CREATE ROLE {} WITH LOGIN").format(sql.Identifier(role)))
    admin.execute(f"AWS IAM GRANT {role} TO '{arn}'")  # type: ignore[call-overload]

    def refused() -> bool:
        result = connect(role).pgconn.exec_params(READ.encode(), [b"1"])
        return result.status == ExecStatus.FATAL_ERROR and b"permission denied" in result.error_message

    try:
        shown(connect)
        assert refused()
        admin.execute(f"GRANT SELECT ON things TO {role}")  # type: ignore[call-overload]
        shown(connect, role)
        assert len(read(connect(role), 2)) == 1
        admin.execute(f"REVOKE SELECT ON things FROM {role}")  # type: ignore[call-overload]
        shown(connect)
        assert refused()
    finally:
        admin.execute(f"REVOKE ALL ON things FROM {role}")  # type: ignore[call-overload]
        admin.execute(f"AWS IAM REVOKE {role} FROM '{arn}'")  # type: ignore[call-overload]
        admin.execute(f"DROP ROLE {role}")  # type: ignore[call-overload]


# -- named statements: the engine is given them behind the answer --------------------------------------------------


def prepared(connect: Connect, text: str = READ) -> Connection:
    """A session with the statement ``s``, whose Parse needed no engine."""
    with connect() as first:
        first.pgconn.exec_params(text.encode(), [b"1"])
    connection = connect()
    connection.execute("SELECT 1")
    assert connection.pgconn.prepare(b"s", text.encode()).status == ExecStatus.COMMAND_OK
    return connection


def test_a_named_statement_is_answered_from_storage_at_once(dsql_cluster: LocalCluster, connect: Connect) -> None:
    connection = prepared(connect)
    before = direct_reads(dsql_cluster)
    assert read(connection, 5, b"s") == [(b"5", b"2024-05-06 07:08:09+00")]
    assert direct_reads(dsql_cluster) - before == 1


def test_the_engine_has_it_where_it_is_needed(connect: Connect) -> None:
    connection = prepared(connect)
    described = connection.pgconn.describe_prepared(b"s")
    assert (described.nparams, described.fname(0), described.fname(1)) == (1, b"id", b"at")
    connection.execute("BEGIN")
    connection.execute("UPDATE things SET at = '2025-01-01' WHERE id = 5")
    assert read(connection, 5, b"s") == [(b"5", b"2025-01-01 00:00:00+00")]  # the transaction's own row
    connection.execute("ROLLBACK")
    assert read(connection, 5, b"s") == [(b"5", b"2024-05-06 07:08:09+00")]


def test_its_name_is_taken_until_it_is_closed(connect: Connect) -> None:
    connection = prepared(connect)
    twice = connection.pgconn.prepare(b"s", READ.encode())
    assert twice.status == ExecStatus.FATAL_ERROR and b"already exists" in twice.error_message
    connection.execute("DEALLOCATE ALL")
    gone = connection.pgconn.exec_prepared(b"s", [b"1"])
    assert gone.status == ExecStatus.FATAL_ERROR and b"does not exist" in gone.error_message
    assert connection.pgconn.prepare(b"s", READ.encode()).status == ExecStatus.COMMAND_OK
    assert len(read(connection, 1, b"s")) == 1


def test_what_it_answers_may_not_change_its_type(connect: Connect) -> None:
    connection = prepared(connect, "SELECT * FROM things WHERE id = $1::int")
    assert len(read(connection, 1, b"s")) == 1
    other = connect()
    other.execute("ALTER TABLE things ADD COLUMN more text")
    changed = connection.pgconn.exec_prepared(b"s", [b"1"])
    assert changed.status == ExecStatus.FATAL_ERROR
    assert b"cached plan must not change result type" in changed.error_message


def test_not_in_a_failed_transaction_block(connect: Connect) -> None:
    shown(connect)
    connection = connect()
    connection.execute("BEGIN")
    with pytest.raises(errors.DivisionByZero):
        connection.execute("SELECT 1 / 0")
    refused = connection.pgconn.prepare(b"s", READ.encode())
    assert refused.status == ExecStatus.FATAL_ERROR and b"current transaction is aborted" in refused.error_message
    connection.execute("ROLLBACK")


def test_inserts_are_shown_too(dsql_cluster: LocalCluster, connect: Connect) -> None:
    with connect() as first:
        assert first.pgconn.exec_params(INSERT.encode(), [b"100"]).status == ExecStatus.COMMAND_OK
    other = connect()
    other.execute("SELECT 1")
    before = dsql_cluster.metrics()["planner"]["direct_inserts"]
    assert other.pgconn.exec_params(INSERT.encode(), [b"101"]).command_status == b"INSERT 0 1"
    assert dsql_cluster.metrics()["planner"]["direct_inserts"] - before == 1
    taken = other.pgconn.exec_params(INSERT.encode(), [b"101"])
    assert taken.status == ExecStatus.FATAL_ERROR and b"duplicate key" in taken.error_message
    assert other.execute("SELECT count(*) FROM things WHERE id > 99").fetchone() == (2,)
