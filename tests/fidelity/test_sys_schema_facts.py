"""What is known of Aurora DSQL's schema ``sys`` and of what its catalogs show."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection

from dsql_server.testing import LocalCluster

IDENTIFIER = re.compile("[a-z2-7]{26}")
JOB_END_TIMEOUT_S = 60


@pytest.fixture
def session(dsql_cluster: LocalCluster, dsql_url: str) -> Iterator[Connection]:
    with dsql_cluster.connect(autocommit=True) as connection:
        yield connection


def _value(session: Connection, query: str) -> object:
    (value,) = session.execute(query).fetchone() or (None,)  # type: ignore[call-overload]
    return value


# -- functions --------------------------------------------------------------------------------------------------------


def test_functions_there_are(session: Connection) -> None:
    """One of them is a procedure."""
    listed = session.execute(
        "SELECT proname || CASE prokind WHEN 'p' THEN ' (procedure)' ELSE '' END FROM pg_proc "
        "WHERE pronamespace = 'sys'::regnamespace ORDER BY 1"
    )
    assert [name for (name,) in listed.fetchall()] == [
        *("base32_str_to_uuid", "base_type_oid", "cluster_size", "cluster_size_limit", "current_session_id"),
        *("current_transaction_id", "dsql_major_version", "iam_session_user", "supported_datatypes"),
        *("uuid_to_base32_str", "wait_for_job (procedure)"),
    ]


def test_identifiers_have_26_characters(session: Connection) -> None:
    for call in (
        "sys.current_session_id()",
        "sys.current_transaction_id()",
        "sys.uuid_to_base32_str(gen_random_uuid())",
    ):
        assert IDENTIFIER.fullmatch(str(_value(session, f"SELECT {call} FROM gen_random_uuid() u"))), call


def test_a_session_keeps_its_id_and_shares_it_with_none(dsql_cluster: LocalCluster, session: Connection) -> None:
    mine = _value(session, "SELECT sys.current_session_id()")
    session.execute("RESET ALL")
    assert _value(session, "SELECT sys.current_session_id()") == mine
    with dsql_cluster.connect(autocommit=True) as other:
        assert _value(other, "SELECT sys.current_session_id()") != mine
    for attempt in ("SET dsqlkit.session_id = 'x'", "SELECT set_config('dsqlkit.session_id', 'x', false)"):
        with pytest.raises(psycopg.Error) as refused:
            session.execute(attempt)  # type: ignore[call-overload]
        assert refused.value.sqlstate == "42602"


def test_a_transaction_keeps_its_id(session: Connection) -> None:
    session.execute("BEGIN")
    first = _value(session, "SELECT sys.current_transaction_id()")
    assert _value(session, "SELECT sys.current_transaction_id()") == first
    session.execute("COMMIT")
    assert _value(session, "SELECT sys.current_transaction_id()") != first


def test_sizes_are_in_bytes(session: Connection) -> None:
    assert _value(session, "SELECT sys.cluster_size_limit()") == 10 * 1024**4
    assert _value(session, "SELECT pg_typeof(sys.cluster_size())::text") == "bigint"
    assert 0 <= int(str(_value(session, "SELECT sys.cluster_size()"))) < 10 * 1024**4


def test_supported_data_types(session: Connection) -> None:
    listed = session.execute("SELECT * FROM sys.supported_datatypes()")
    assert [c.name for c in listed.description or ()] == ["name", "supported_in_pushdown"]
    names = {name for name, _ in listed.fetchall()}
    assert {"uuid", "jsonb", "timestamp with time zone"} <= names and "money" not in names
    for name in sorted(names):
        session.execute(f"CREATE TABLE one (c {name})")
        session.execute("DROP TABLE one")


def test_text_of_a_uuid_and_back(session: Connection) -> None:
    assert (
        _value(session, "SELECT sys.base32_str_to_uuid(sys.uuid_to_base32_str(u)) = u FROM gen_random_uuid() u") is True
    )
    with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="Unable to convert text to UUID") as refusal:
        session.execute("SELECT sys.base32_str_to_uuid('no-such-id')")
    assert refusal.value.diag.context is None, "what the function is made of is the machinery's"


def test_base_type_of_a_domain(session: Connection) -> None:
    session.execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    assert _value(session, "SELECT sys.base_type_oid('positive'::regtype)::regtype::text") == "integer"
    assert _value(session, "SELECT sys.base_type_oid('text'::regtype)::regtype::text") == "text"


# -- jobs -------------------------------------------------------------------------------------------------------------


def _ended(session: Connection, job_type: str) -> list[tuple[object, ...]]:
    """The jobs of a type, once one of them has ended."""
    query = "SELECT job_id, status, details, class_id, object_id, object_name FROM sys.jobs WHERE job_type = %s"
    deadline_s = time.monotonic() + JOB_END_TIMEOUT_S
    while True:
        jobs = session.execute(query, [job_type]).fetchall()
        if any(job[1] in ("completed", "failed") for job in jobs) or time.monotonic() > deadline_s:
            return jobs


def test_columns_of_jobs(session: Connection) -> None:
    columns = session.execute(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'sys.jobs'::regclass "
        "AND attnum > 0 ORDER BY attnum"
    ).fetchall()
    assert columns == [
        ("job_id", "text"),
        ("status", "text"),
        ("details", "text"),
        ("job_type", "text"),
        ("class_id", "oid"),
        ("object_id", "oid"),
        ("object_name", "text"),
        ("start_time", "timestamp with time zone"),
        ("update_time", "timestamp with time zone"),
    ]


def test_an_index_build_names_its_index(session: Connection) -> None:
    session.execute('CREATE TABLE "Mixed case" (id int PRIMARY KEY, v int)')
    answer = session.execute('CREATE INDEX ASYNC "By v" ON "Mixed case" (v)')
    assert [c.name for c in answer.description or ()] == ["job_id"]
    assert answer.statusmessage == "CREATE INDEX"
    (job_id,) = answer.fetchone() or ("",)
    assert IDENTIFIER.fullmatch(job_id)
    done = session.execute(f"CALL sys.wait_for_job('{job_id}')")
    assert done.fetchone() == (True,)
    shown = session.execute(
        "SELECT j.status, j.job_type, j.class_id::regclass::text, j.object_name, c.relname, c.relkind "
        "FROM sys.jobs j LEFT JOIN pg_class c ON c.oid = j.object_id WHERE j.job_id = %s",
        [job_id],
    ).fetchone()
    assert shown == ("completed", "INDEX_BUILD", "pg_class", "public.By v", "By v", "i")


def test_a_dropped_table_leaves_a_job(session: Connection) -> None:
    session.execute("CREATE TABLE dropped (id int PRIMARY KEY)")
    session.execute("DROP TABLE dropped")
    assert all(name is None and class_id == 1259 for *_, class_id, _, name in _ended(session, "DROP"))


def test_a_failed_build_says_why(session: Connection) -> None:
    session.execute("CREATE TABLE twice (id int PRIMARY KEY, v int)")
    session.execute("INSERT INTO twice VALUES (1, 1), (2, 1)")
    (job_id,) = session.execute("CREATE UNIQUE INDEX ASYNC once ON twice (v)").fetchone() or ("",)
    assert session.execute(f"CALL sys.wait_for_job('{job_id}')").fetchone() == (False,)
    told = session.execute("SELECT status, details FROM sys.jobs WHERE job_id = %s", [job_id]).fetchone()
    assert told == ("failed", "Found duplicate key while validating index for UCVs")
    assert _value(session, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'once'::regclass") is False


@pytest.mark.parametrize(
    ("statement", "sqlstate", "message"),
    [
        ("CALL sys.wait_for_job('no-such-job')", "22P02", "Unable to convert text to UUID"),
        ("SELECT sys.wait_for_job('x')", "42809", "sys.wait_for_job(unknown) is a procedure"),
        ("INSERT INTO sys.jobs (job_id) VALUES ('x')", "0A000", "feature not supported on system entity"),
        ("DELETE FROM sys.iam_pg_role_mappings", "0A000", "feature not supported on system entity"),
        ("GRANT SELECT ON sys.jobs TO PUBLIC", "0A000", "feature not supported on system entity"),
        ("DROP SCHEMA sys", "0A000", "feature not supported on system entity"),
        ("CREATE TABLE sys.mine (id int)", "42501", "permission denied for schema sys"),
    ],
)
def test_refused(session: Connection, statement: str, sqlstate: str, message: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        session.execute(statement)  # type: ignore[call-overload]
    assert (refused.value.sqlstate, refused.value.diag.message_primary) == (sqlstate, message)


# -- catalogs ---------------------------------------------------------------------------------------------------------

#: Catalogs and views that the documentation calls supported: a client may ask them.
SUPPORTED = """
    pg_am pg_attrdef pg_attribute pg_auth_members pg_cast pg_class pg_collation pg_constraint pg_db_role_setting
    pg_default_acl pg_depend pg_description pg_index pg_inherits pg_largeobject_metadata pg_namespace pg_operator
    pg_parameter_acl pg_range pg_shdepend pg_shdescription pg_ts_config pg_ts_config_map pg_ts_dict pg_ts_parser
    pg_ts_template pg_type pg_group pg_indexes pg_roles pg_settings pg_stats pg_tables pg_timezone_abbrevs
    pg_timezone_names pg_user pg_views pg_stat_ssl
"""


@pytest.mark.parametrize("name", SUPPORTED.split())
def test_supported_catalogs_answer(session: Connection, name: str) -> None:
    assert session.execute(f"SELECT count(*) FROM pg_catalog.{name}").fetchone() is not None


def test_indexes_are_of_btree_index(session: Connection) -> None:
    session.execute("CREATE TABLE keyed (id int PRIMARY KEY, a int, b text)")
    assert _value(session, "SELECT indexdef FROM pg_indexes WHERE indexname = 'keyed_pkey'") == (
        "CREATE UNIQUE INDEX keyed_pkey ON public.keyed USING btree_index (id) INCLUDE (a, b)"
    )
    method = "SELECT amname FROM pg_am JOIN pg_class ON relam = pg_am.oid WHERE relname = 'keyed_pkey'"
    assert _value(session, method) == "btree_index"


def test_the_only_extension_is_postgresqls_own(session: Connection) -> None:
    """It is listed, whatever CREATE FUNCTION says of its language."""
    assert session.execute("SELECT extname FROM pg_extension").fetchall() == [("plpgsql",)]


def test_the_connection_is_encrypted(session: Connection) -> None:
    told = session.execute("SELECT ssl, version, bits FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
    assert told is not None and told[0] is True and told[1].startswith("TLSv1.") and told[2] in (128, 256)


def test_a_primary_key_is_defined_with_all_columns(session: Connection) -> None:
    session.execute('CREATE TABLE held (id int PRIMARY KEY, a int UNIQUE, "B c" text CHECK ("B c" <> \'\'))')
    definitions = "SELECT pg_get_constraintdef(oid{}) FROM pg_constraint WHERE conrelid = 'held'::regclass ORDER BY 1"
    expected = ["CHECK ((\"B c\" <> ''::text))", 'PRIMARY KEY (id) INCLUDE (a, "B c")', "UNIQUE (a)"]
    assert [d for (d,) in session.execute(definitions.format("")).fetchall()] == expected
    pretty = session.execute(definitions.format(", true")).fetchall()
    assert pretty[1:] == [('PRIMARY KEY (id) INCLUDE (a, "B c")',), ("UNIQUE (a)",)]


def test_text_is_searched_in_the_simple_way_only(session: Connection) -> None:
    assert session.execute("SELECT cfgname FROM pg_ts_config").fetchall() == [("simple",)]
    templates = session.execute("SELECT tmplname FROM pg_ts_template ORDER BY 1").fetchall()
    assert templates == [("ispell",), ("simple",), ("synonym",), ("thesaurus",)]
    assert _value(session, "SELECT to_tsvector('simple', 'The rats') @@ to_tsquery('simple', 'rats')") is True
    with pytest.raises(psycopg.errors.UndefinedObject, match='text search configuration "danish" does not exist'):
        session.execute("SELECT to_tsvector(%s::regconfig, 'x')", ["danish"])


def test_admin_is_no_superuser(session: Connection) -> None:
    shown = session.execute(
        "SELECT rolsuper, rolcreaterole, rolcanlogin, rolcreatedb, oid FROM pg_roles WHERE rolname = 'admin'"
    )
    assert shown.fetchone() == (False, True, True, False, 15579)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 'dsql%'",
        "SELECT usename FROM pg_user WHERE usename LIKE 'dsql%'",
        "SELECT datname FROM pg_database WHERE datname <> 'postgres'",
        "SELECT name FROM pg_available_extensions",
        "SELECT name FROM pg_available_extension_versions",
        "SELECT lanname FROM pg_language WHERE lanname = 'plpgsql'",
        "SELECT evtname FROM pg_event_trigger",
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%dsql%'",
        "SELECT table_name FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', "
        "'information_schema') AND table_name NOT IN ('jobs', 'iam_pg_role_mappings')",
    ],
)
def test_the_machinery_does_not_show(session: Connection, query: str) -> None:
    assert session.execute(query).fetchall() == []  # type: ignore[call-overload]
