"""psycopg2: literals in every text, transactions, COPY, its pool."""

from __future__ import annotations

import datetime as dt
import io
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from dsql_server.testing import LocalCluster

psycopg2 = pytest.importorskip("psycopg2")
extras = pytest.importorskip("psycopg2.extras")
pool = pytest.importorskip("psycopg2.pool")


@pytest.fixture
def conn(cluster: LocalCluster) -> Iterator[Any]:
    connection = psycopg2.connect(**cluster.libpq_parameters())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(20,5), at timestamptz, u uuid)")
    connection.autocommit = False
    yield connection
    connection.close()


def test_values_as_literals(conn: Any) -> None:
    extras.register_uuid()
    at = dt.datetime(2026, 3, 4, 5, 6, 7, 890000, dt.timezone.utc)
    rows = [
        (1, "it's \\ é 😀", Decimal("123.45600"), at, uuid.UUID(int=1)),
        (2, "", Decimal("-0.00001"), None, None),
        (3, None, Decimal("NaN"), at, uuid.UUID(int=3)),
    ]
    with conn.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, %s, %s, %s, %s)", rows)
        for row in (*rows[:2],):
            cursor.execute("SELECT * FROM t WHERE id = %s AND v = %s AND n = %s", row[:3])
            assert cursor.fetchone() == row
        cursor.execute("SELECT id FROM t WHERE id IN %s AND u = ANY(%s) ORDER BY id", ((1, 2, 3), [uuid.UUID(int=3)]))
        assert cursor.fetchall() == [(3,)]
    conn.commit()


def test_transactions(conn: Any, cluster: LocalCluster) -> None:
    with conn, conn.cursor() as cursor:
        cursor.execute("INSERT INTO t (id) VALUES (1)")
    with pytest.raises(psycopg2.errors.UniqueViolation), conn, conn.cursor() as cursor:
        cursor.execute("INSERT INTO t (id) VALUES (2)")
        cursor.execute("INSERT INTO t (id) VALUES (1)")
    with conn.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM t")
        assert cursor.fetchone() == (1,)
    conn.rollback()
    other = psycopg2.connect(**cluster.libpq_parameters())
    try:
        with other.cursor() as theirs, conn.cursor() as ours:
            theirs.execute("UPDATE t SET v = 'theirs' WHERE id = 1")
            ours.execute("UPDATE t SET v = 'ours' WHERE id = 1")
        other.commit()
        with pytest.raises(psycopg2.errors.SerializationFailure, match="OC000"):
            conn.commit()
    finally:
        other.close()
    # psycopg2 says how to begin when it is told a level; any other than DSQL's own is refused.
    conn.rollback()
    conn.set_session(isolation_level="REPEATABLE READ", readonly=True)
    with conn.cursor() as cursor, pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        cursor.execute("DELETE FROM t")
    conn.rollback()
    conn.set_session(isolation_level="SERIALIZABLE", readonly=False)
    with conn.cursor() as cursor, pytest.raises(psycopg2.errors.FeatureNotSupported):
        cursor.execute("SELECT 1")


def test_bulk_helpers(conn: Any) -> None:
    with conn, conn.cursor() as cursor:
        extras.execute_values(cursor, "INSERT INTO t (id, v) VALUES %s", [(n, str(n)) for n in range(500)])
        extras.execute_batch(cursor, "UPDATE t SET v = %s WHERE id = %s", [("x", n) for n in range(100)])
    with conn, conn.cursor(cursor_factory=extras.RealDictCursor) as cursor:
        cursor.execute("SELECT count(*) AS n FROM t WHERE v = 'x'")
        assert cursor.fetchone() == {"n": 100}


def test_copy(conn: Any) -> None:
    with conn, conn.cursor() as cursor:
        cursor.copy_expert("COPY t (id, v) FROM STDIN (FORMAT csv)", io.StringIO('1,"a,b"\n2,\n'))
        out = io.StringIO()
        cursor.copy_expert("COPY (SELECT id, v FROM t ORDER BY id) TO STDOUT (FORMAT csv)", out)
        assert out.getvalue() == '1,"a,b"\n2,\n'
        cursor.copy_from(io.StringIO("3\tthree\n"), "t", columns=("id", "v"))
    with pytest.raises(psycopg2.errors.BadCopyFileFormat), conn, conn.cursor() as cursor:
        cursor.copy_from(io.StringIO("nonsense\twith\tfields\n"), "t", columns=("id", "v"))
    with conn, conn.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM t")
        assert cursor.fetchone() == (3,)


def test_named_cursors_are_refused(conn: Any) -> None:
    with conn.cursor("named") as cursor, pytest.raises(psycopg2.errors.FeatureNotSupported):
        cursor.execute("SELECT * FROM t")
    conn.rollback()


def test_pool(cluster: LocalCluster, conn: Any) -> None:
    connections = pool.ThreadedConnectionPool(1, 3, **cluster.libpq_parameters())
    try:
        for n in range(10):
            one = connections.getconn()
            with one, one.cursor() as cursor:
                cursor.execute("INSERT INTO t (id) VALUES (%s)", (n,))
            connections.putconn(one)
    finally:
        connections.closeall()
    with conn, conn.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM t")
        assert cursor.fetchone() == (10,)


def test_notices_and_errors(conn: Any) -> None:
    conn.autocommit = True
    with conn.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS not_there")
        assert conn.notices == ['NOTICE:  table "not_there" does not exist, skipping\n']
        with pytest.raises(psycopg2.errors.FeatureNotSupported) as caught:
            cursor.execute("TRUNCATE t")
        assert caught.value.pgcode == "0A000"
        assert caught.value.diag.message_primary == "unsupported statement: Truncate"
