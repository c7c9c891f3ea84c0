"""What a role that isn't the admin may do, and how COPY moves rows."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection, sql

from dsql_server.testing import LocalCluster

ROLE = "fact_reader"
ARN = "arn:aws:iam::123456789012:role/fact-reader"


@pytest.fixture
def admin(dsql_cluster: LocalCluster, dsql_url: str) -> Iterator[Connection]:
    with dsql_cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        yield connection


@pytest.fixture
def reader(dsql_cluster: LocalCluster, admin: Connection) -> Iterator[Connection]:
    """A session of a role that may log in, and no more."""
    admin.execute(sql.SQL("CREATE ROLE {} WITH LOGIN").format(sql.Identifier(ROLE)))
    admin.execute(sql.SQL("AWS IAM GRANT {} TO {}").format(sql.Identifier(ROLE), sql.Literal(ARN)))
    try:
        with dsql_cluster.connect(ROLE, autocommit=True) as connection:
            yield connection
    finally:
        admin.execute(sql.SQL("REVOKE ALL ON t FROM {}").format(sql.Identifier(ROLE)))
        admin.execute(sql.SQL("AWS IAM REVOKE {} FROM {}").format(sql.Identifier(ROLE), sql.Literal(ARN)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(ROLE)))


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT * FROM t", "permission denied for table t"),
        ("INSERT INTO t VALUES (1)", "permission denied for table t"),
        ("CREATE SCHEMA own", "permission denied for database postgres"),
        ("CREATE TABLE own (id int)", "permission denied for schema public"),
        ("CREATE ROLE other", "permission denied to create role"),
        ("DROP TABLE t", "must be owner of table t"),
        ("ALTER TABLE t ADD COLUMN w int", "must be owner of table t"),
        ("CREATE INDEX ASYNC ON t (v)", "must be owner of table t"),
        (f"AWS IAM GRANT {ROLE} TO '{ARN}'", f"permission denied to grant IAM trust with role {ROLE}"),
    ],
)
def test_what_a_role_may_not_do(reader: Connection, statement: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal:
        reader.execute(statement.encode())
    assert refusal.value.diag.message_primary == message


def test_a_role_reads_what_it_is_granted(admin: Connection, reader: Connection) -> None:
    admin.execute("INSERT INTO t VALUES (1, 'a')")
    admin.execute(sql.SQL("GRANT SELECT ON t TO {}").format(sql.Identifier(ROLE)))
    assert reader.execute("SELECT v FROM t").fetchall() == [("a",)]
    assert reader.execute("SELECT current_user, session_user").fetchone() == (ROLE, ROLE)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("DELETE FROM t")


def test_copy_moves_rows_between_client_and_table(admin: Connection) -> None:
    cursor = admin.cursor()
    with cursor.copy("COPY t FROM STDIN") as copy:
        copy.write("1\ta\n2\t\\N\n")
    assert cursor.statusmessage == "COPY 2"
    with cursor.copy("COPY (SELECT * FROM t ORDER BY id) TO STDOUT (FORMAT csv, HEADER)") as copy:
        assert b"".join(copy) == b"id,v\n1,a\n2,\n"


@pytest.mark.parametrize(
    ("data", "sqlstate", "message"),
    [
        ("1\ta\n1\tb\n", "23505", 'duplicate key value violates unique constraint "t_pkey"'),
        ("7\tagain\n", "23505", 'duplicate key value violates unique constraint "t_pkey"'),
        ("x\ta\n", "22P02", 'invalid input syntax for type integer: "x"'),
        ("".join(f"{n}\ta\n" for n in range(10, 3011)), "54000", "transaction row limit exceeded"),
        (
            f"9\t{'x' * 1048577}\n",
            "54000",
            "datatype limit greater than 1048576 bytes not supported for text",
        ),
    ],
    ids=["duplicates", "duplicate-of-a-row", "malformed", "too-many", "too-large"],
)
def test_a_copy_that_fails_leaves_nothing(admin: Connection, data: str, sqlstate: str, message: str) -> None:
    admin.execute("INSERT INTO t VALUES (7, 'there')")
    with pytest.raises(psycopg.Error) as refusal, admin.cursor().copy("COPY t FROM STDIN") as copy:
        copy.write(data)
    assert (refusal.value.sqlstate, refusal.value.diag.message_primary) == (sqlstate, message)
    assert admin.execute("SELECT * FROM t").fetchall() == [(7, "there")]


@pytest.mark.parametrize("statement", ["COPY t FROM '/etc/passwd'", "COPY t TO '/x'", "COPY t FROM PROGRAM 'id'"])
def test_copy_reaches_no_file_and_no_program(admin: Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        admin.execute(statement.encode())
