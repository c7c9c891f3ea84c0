"""A definition means in every other session what it meant to its author."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection

from dsql_server.testing import LocalCluster


@pytest.fixture
def author(dsql_cluster: LocalCluster, dsql_url: str) -> Iterator[Connection]:
    with dsql_cluster.connect(autocommit=True) as connection:
        yield connection


@pytest.fixture
def reader(dsql_cluster: LocalCluster, author: Connection) -> Iterator[Connection]:
    """A session that was there before."""
    with dsql_cluster.connect(autocommit=True) as connection:
        connection.execute("SELECT 1")
        yield connection


def test_session_user_is_the_author(author: Connection, reader: Connection) -> None:
    author.execute("CREATE TABLE mine (id int PRIMARY KEY)")
    for statement in (
        "CREATE SCHEMA AUTHORIZATION SESSION_USER",
        "ALTER SCHEMA admin OWNER TO SESSION_USER",
        "ALTER TABLE mine OWNER TO SESSION_USER",
        "GRANT SELECT ON mine TO SESSION_USER",
        "CREATE FUNCTION who() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user'",
        "ALTER FUNCTION who() OWNER TO SESSION_USER",
    ):
        author.execute(statement)  # type: ignore[call-overload]
    for session in (author, reader):
        assert session.execute("SELECT who()").fetchone() == ("admin",)
        owners = session.execute(
            "SELECT relowner::regrole::text, relacl::text FROM pg_class WHERE relname = 'mine' "
            "UNION ALL SELECT nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname = 'admin'"
        )
        assert owners.fetchall() == [("admin", "{admin=arwdDxt/admin}"), ("admin", None)]


def test_constants_are_read_as_the_author_reads_them(author: Connection, reader: Connection) -> None:
    author.execute("SET DateStyle TO 'ISO, DMY'")
    author.execute("SET TimeZone TO 'Asia/Tokyo'")
    author.execute("SET IntervalStyle TO 'sql_standard'")
    author.execute(
        "CREATE VIEW moments AS SELECT '02/01/2026'::date AS d, "
        "'2026-01-01 00:00'::timestamptz AT TIME ZONE 'UTC' AS t, extract(epoch FROM '-1 02:00:00'::interval) AS s"
    )
    author.execute("CREATE TABLE dated (id int PRIMARY KEY, d date DEFAULT '03/01/2026')")
    for session in (author, reader):
        session.execute("RESET ALL")
        found = session.execute("SELECT d::text, t::text, s::text FROM moments").fetchone()
        assert found == ("2026-01-02", "2025-12-31 15:00:00", "-93600.000000")
    reader.execute("INSERT INTO dated (id) VALUES (1)")
    assert author.execute("SELECT d::text FROM dated").fetchone() == ("2026-01-03",)


@pytest.mark.parametrize(
    "path",
    [
        "public,x;create/**/role/**/evil/**/login",
        "public,x;alter/**/role/**/admin/**/superuser",
        "x';create/**/role/**/evil;--",
        'public,"a""b;c"',
    ],
)
def test_a_search_path_is_never_run(author: Connection, reader: Connection, path: str) -> None:
    try:
        author.execute("SELECT set_config('search_path', %s, false)", [path])
    except psycopg.errors.InvalidParameterValue:
        return  # no list of names
    author.execute("CREATE TABLE public.kept (id int PRIMARY KEY)")
    author.execute("INSERT INTO public.kept VALUES (1)")
    for session in (author, reader):
        assert session.execute("SELECT id FROM public.kept").fetchone() == (1,)
        roles = session.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'evil' OR rolsuper").fetchone()
        assert roles == (0,)
