"""What is known of Aurora DSQL's parameters, its version strings and what it calls itself."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection

from dsql_server.testing import LocalCluster


@pytest.fixture
def session(dsql_cluster: LocalCluster) -> Iterator[Connection]:
    with dsql_cluster.connect(autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELECT version()", "PostgreSQL 16"),
        ("SHOW server_version", "16.15"),
        ("SHOW server_version_num", "160015"),
        ("SELECT current_setting('server_version')", "16.15"),
        ("SELECT current_setting('server_version_num')::int", "160015"),
        ("SELECT setting FROM pg_settings WHERE name = 'server_version_num'", "160015"),
        ("SHOW transaction_isolation", "repeatable read"),
        ("SHOW default_transaction_isolation", "repeatable read"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "repeatable read"),
        ("SHOW timezone", "UTC"),
        ("SHOW client_encoding", "UTF8"),
        ("SHOW server_encoding", "UTF8"),
        ("SHOW max_connections", "20"),
        ("SHOW is_superuser", "off"),
        ("SELECT current_schema()", "public"),
        ("SELECT current_database()", "postgres"),
        ("SELECT datcollate FROM pg_database", "C"),
        ("SELECT pg_encoding_to_char(encoding) FROM pg_database", "UTF8"),
        ("SELECT sys.dsql_major_version()", "1"),
    ],
)
def test_tells(session: Connection, query: str, answer: str) -> None:
    assert [str(value) for (value,) in session.execute(query)] == [answer]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("application_name", "an app"),
        ("client_encoding", "UTF8"),
        ("datestyle", "SQL, DMY"),
        ("extra_float_digits", "0"),
        ("intervalstyle", "iso_8601"),
        ("timezone", "Asia/Tokyo"),
        ("search_path", "a, b"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_nestloop", "off"),
        ("dsql.enable_batched_nestloop", "off"),
        ("disable_sync_create_index", "off"),
    ],
)
def test_settable(session: Connection, name: str, value: str) -> None:
    quoted = ", ".join(f"'{part}'" for part in value.split(", ")) if name == "search_path" else f"'{value}'"
    session.execute(f"SET {name} TO {quoted}")
    assert session.execute(f"SHOW {name}").fetchone() == (value,)
    session.execute("RESET ALL")


def test_batched_nested_loops_and_the_ban_on_building_at_once_are_on(session: Connection) -> None:
    assert session.execute("SHOW dsql.enable_batched_nestloop").fetchone() == ("on",)
    assert session.execute("SHOW disable_sync_create_index").fetchone() == ("on",)


REFUSED = """
    default_transaction_isolation default_transaction_read_only statement_timeout lock_timeout work_mem
    idle_in_transaction_session_timeout maintenance_work_mem client_min_messages row_security synchronous_commit role
    session_replication_role standard_conforming_strings default_tablespace temp_buffers log_statement bytea_output
    jit enable_hashagg enable_sort enable_memoize
    max_parallel_workers_per_gather random_page_cost lc_messages xmloption check_function_bodies
    transaction_read_only
"""


@pytest.mark.parametrize("name", REFUSED.split())
@pytest.mark.parametrize("form", ["SET {} TO DEFAULT", "SET LOCAL {} = '1'", "SET SESSION {} = '1'"])
def test_not_settable(session: Connection, name: str, form: str) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported) as refused:
        session.execute(form.format(name))
    assert refused.value.diag.message_primary == f'setting configuration parameter "{name}" not supported'


@pytest.mark.parametrize(
    ("statement", "sqlstate", "message", "detail"),
    [
        ("SET TRANSACTION READ ONLY", "0A000", 'setting configuration parameter "TRANSACTION" not supported', None),
        (
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "0A000",
            'setting configuration parameter "TRANSACTION" not supported',
            None,
        ),
        ("SET no_such_thing = 1", "42704", 'unrecognized configuration parameter "no_such_thing"', None),
        ("SHOW no_such_thing", "42704", 'unrecognized configuration parameter "no_such_thing"', None),
        ("SHOW lc_collate", "42704", 'unrecognized configuration parameter "lc_collate"', None),
        (
            "SET dsql.other = 1",
            "42602",
            'invalid configuration parameter name "dsql.other"',
            '"dsql" is a reserved prefix.',
        ),
        ("SET timezone TO 'Nowhere/Town'", "22023", 'invalid value for parameter "TimeZone": "Nowhere/Town"', None),
        ("SET client_encoding TO 'LATIN1'", "22023", 'invalid value for parameter "client_encoding": "LATIN1"', None),
        ("UPDATE pg_settings SET setting = 'off' WHERE name = 'fsync'", "0A000", None, None),
        ("ALTER SYSTEM SET fsync = off", "0A000", "unsupported statement: AlterSystem", None),
    ],
)
def test_refused(session: Connection, statement: str, sqlstate: str, message: str | None, detail: str | None) -> None:
    with pytest.raises(psycopg.Error) as refused:
        session.execute(statement)  # type: ignore[call-overload]
    assert refused.value.sqlstate == sqlstate
    if message is not None:
        assert (refused.value.diag.message_primary, refused.value.diag.message_detail) == (message, detail)


def test_nobody_may_change_pg_settings(session: Connection) -> None:
    granted = session.execute("SELECT relacl::text FROM pg_class WHERE oid = 'pg_catalog.pg_settings'::regclass")
    assert granted.fetchone() == ("{dsql_engine=arwdDxt/dsql_engine,=r/dsql_engine}",)


def test_the_engine_s_own_configuration_does_not_show(session: Connection) -> None:
    listed = session.execute(
        "SELECT name FROM pg_settings WHERE source <> 'default' AND setting IS DISTINCT FROM boot_val "
        "AND name NOT LIKE 'enable%' ORDER BY name"
    )
    names = {name for (name,) in listed.fetchall()}
    assert names <= {
        "TimeZone",
        "application_name",
        "client_encoding",
        "default_transaction_isolation",
        "lc_messages",
        "log_timezone",
        "max_connections",
        "transaction_isolation",
    }
    for name, value in (("fsync", "on"), ("wal_level", "replica"), ("autovacuum", "on"), ("jit", "on")):
        assert session.execute(f"SHOW {name}").fetchone() == (value,)
        assert session.execute("SELECT current_setting(%s)", [name]).fetchone() == (value,)
