"""Parameters, versions and identifiers as Aurora DSQL shows them, and what its jobs tell of themselves."""

from __future__ import annotations

import re

import pytest
from facts import Done, Fact, Witness, fact, parametrized, refused, rows, says, settled

SETTINGS = [
    fact(
        "settable",
        "what a session may set",
        *(
            step
            for name, value, shown in (
                ("application_name", "'app'", "app"),
                ("client_encoding", "'UTF8'", "UTF8"),
                ("datestyle", "'ISO, DMY'", "ISO, DMY"),
                ("extra_float_digits", "0", "0"),
                ("intervalstyle", "'iso_8601'", "iso_8601"),
                ("timezone", "'Asia/Tokyo'", "Asia/Tokyo"),
                ("search_path", "public", "public"),
                ("enable_hashjoin", "off", "off"),
                ("enable_seqscan", "off", "off"),
                ("dsql.enable_batched_nestloop", "off", "off"),
                ("disable_sync_create_index", "off", "off"),
            )
            for step in (says(f"SET {name} = {value}", "SET"), says(f"SHOW {name}", rows(shown)))
        ),
    ),
    fact(
        "own-parameters",
        "Aurora DSQL's own parameters are on unless they are turned off",
        says("SHOW dsql.enable_batched_nestloop", rows("on")),
        says("SELECT current_setting('dsql.enable_batched_nestloop')", rows("on")),
        says("SHOW disable_sync_create_index", rows("on")),
        says("SET dsql.enable_batched_nestloop = off", "SET"),
        says("RESET dsql.enable_batched_nestloop", "RESET"),
        says("SHOW dsql.enable_batched_nestloop", rows("on")),
    ),
    fact(
        "local",
        "SET LOCAL lasts as long as its transaction; a rolled back SET is undone",
        says("BEGIN", "BEGIN"),
        says("SET LOCAL timezone = 'Asia/Tokyo'", "SET"),
        says("SHOW timezone", rows("Asia/Tokyo")),
        says("COMMIT", "COMMIT"),
        says("SHOW timezone", rows("UTC")),
        says("BEGIN", "BEGIN"),
        says("SET timezone = 'Asia/Tokyo'", "SET"),
        says("ROLLBACK", "ROLLBACK"),
        says("SHOW timezone", rows("UTC")),
        says("SET timezone = 'Asia/Tokyo'", "SET"),
        says("RESET ALL", "RESET"),
        says("SHOW timezone", rows("UTC")),
    ),
    fact(
        "custom",
        "an application has no parameters of its own",
        *(
            says(sql, refused('setting configuration parameter "app.tenant" not supported'))
            for sql in (
                "SET app.tenant = 'seven'",
                "SET LOCAL app.tenant = 'seven'",
                "RESET app.tenant",
                "SELECT set_config('app.tenant', 'seven', true)",
            )
        ),
        says("SHOW app.tenant", refused('unrecognized configuration parameter "app.tenant"', "42704")),
        says("SELECT current_setting('app.tenant', true)", rows(None)),
        says("SET nonsense = 1", refused('unrecognized configuration parameter "nonsense"', "42704")),
    ),
    fact(
        "encoding",
        "the client's encoding is UTF8",
        says("SHOW client_encoding", rows("UTF8")),
        says("SET NAMES 'UTF8'", "SET"),
        says(
            "SET client_encoding = 'LATIN1'",
            refused('invalid value for parameter "client_encoding": "LATIN1"', "22023"),
        ),
    ),
    fact(
        "characteristics",
        "SESSION CHARACTERISTICS take the one isolation level",
        says("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET"),
        says(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            refused("Unsupported isolation level: SERIALIZABLE"),
        ),
    ),
]

VERSIONS = [
    fact(
        name,
        f"{sql} says {shown}",
        says(sql, rows(shown)),
    )
    for name, sql, shown in (
        ("version", "SELECT version()", "PostgreSQL 16"),
        ("server-version", "SHOW server_version", "16.15"),
        ("server-version-setting", "SELECT current_setting('server_version')", "16.15"),
        ("server-version-num", "SHOW server_version_num", "160015"),
        ("isolation", "SHOW transaction_isolation", "repeatable read"),
        ("default-isolation", "SELECT current_setting('transaction_isolation')", "repeatable read"),
        ("time-zone", "SHOW timezone", "UTC"),
        ("current-schema", "SELECT current_schema", "public"),
        ("current-schema-function", "SELECT current_schema()", "public"),
        ("current-database", "SELECT current_database()", "postgres"),
        ("current-catalog", "SELECT current_catalog", "postgres"),
        ("current-catalog-in-a-condition", "SELECT 1 WHERE CURRENT_CATALOG = current_database()", "1"),
        ("current-catalog-as-a-label", "SELECT x.current_catalog FROM (SELECT 'x' AS current_catalog) x", "x"),
        ("current-catalog-twice", "SELECT current_catalog || current_catalog AS current_catalog", "postgrespostgres"),
        ("activity", "SELECT string_agg(datname, ',') FROM pg_stat_activity", "postgres"),
        ("current-user", "SELECT current_user", "admin"),
        ("session-user", "SELECT session_user", "admin"),
        ("max-connections", "SHOW max_connections", "20"),
        ("major-version", "SELECT sys.dsql_major_version()", "1"),
    )
]

JOBS = [
    fact(
        "job-columns",
        "sys.jobs has an id, status, details, type, class, object, name and two times",
        says(
            "SELECT * FROM sys.jobs LIMIT 0",
            Done(
                columns=[
                    *("job_id", "status", "details", "job_type", "class_id", "object_id", "object_name"),
                    *("start_time", "update_time"),
                ]
            ),
        ),
    ),
    fact(
        "index-build",
        "an index build is there at once, completes, and makes the index valid",
        says("CREATE TABLE built (id int PRIMARY KEY, v int)", "CREATE TABLE"),
        says("CREATE INDEX ASYNC built_v ON built (v)", "CREATE INDEX"),
        says("SELECT count(*) FROM pg_indexes WHERE indexname = 'built_v'", rows("1")),
        settled(),
        says(
            "SELECT status, details, job_type, class_id FROM sys.jobs WHERE object_name = 'public.built_v'",
            rows(("completed", None, "INDEX_BUILD", "1259")),
        ),
        says("SELECT indisvalid FROM pg_index WHERE indexrelid = 'built_v'::regclass", rows("t")),
    ),
    fact(
        "analyze",
        "ANALYZE is a job of its table",
        says("CREATE TABLE counted (id int PRIMARY KEY)", "CREATE TABLE"),
        says("ANALYZE counted", "ANALYZE"),
        says(
            "SELECT status, details, class_id, object_id = 'counted'::regclass, length(job_id) FROM sys.jobs "
            "WHERE job_type = 'ANALYZE' AND object_name = 'public.counted'",
            rows(("completed", None, "1259", "t", "26")),
        ),
    ),
    fact(
        "failed-unique-build",
        "duplicates fail the build of a unique index; it stays invalid, and enforces, until it is dropped",
        says("CREATE TABLE doubled (id int PRIMARY KEY, v int)", "CREATE TABLE"),
        says("INSERT INTO doubled VALUES (1, 1), (2, 1)", "INSERT 0 2"),
        says("CREATE UNIQUE INDEX ASYNC doubled_v ON doubled (v)", "CREATE INDEX"),
        settled(),
        says(
            "SELECT status, details FROM sys.jobs WHERE object_name = 'public.doubled_v'",
            rows(("failed", "Found duplicate key while validating index for UCVs")),
        ),
        says("SELECT indisvalid FROM pg_index WHERE indexrelid = 'doubled_v'::regclass", rows("f")),
        says(
            "INSERT INTO doubled VALUES (3, 1)",
            refused('duplicate key value violates unique constraint "doubled_v"', "23505"),
        ),
        says("DROP INDEX doubled_v", "DROP INDEX"),
        says("INSERT INTO doubled VALUES (3, 1)", "INSERT 0 1"),
    ),
    fact(
        "validation",
        "a constraint is validated by a job, and fails with one that isn't met",
        says("CREATE TABLE checked (id int PRIMARY KEY, v int)", "CREATE TABLE"),
        says("INSERT INTO checked VALUES (1, -1)", "INSERT 0 1"),
        says("ALTER TABLE checked ADD CONSTRAINT positive CHECK (v > 0) NOT VALID", "ALTER TABLE"),
        says("ALTER TABLE ASYNC checked VALIDATE CONSTRAINT positive", "ALTER TABLE"),
        settled(),
        says("SELECT convalidated FROM pg_constraint WHERE conname = 'positive'", rows("f")),
        says("UPDATE checked SET v = 1", "UPDATE 1"),
        says("ALTER TABLE ASYNC checked VALIDATE CONSTRAINT positive", "ALTER TABLE"),
        settled(),
        says("SELECT convalidated FROM pg_constraint WHERE conname = 'positive'", rows("t")),
        says(
            "SELECT status, job_type FROM sys.jobs WHERE object_name = 'public.checked' ORDER BY status",
            rows(("completed", "VALIDATE_CONSTRAINT"), ("failed", "VALIDATE_CONSTRAINT")),
        ),
    ),
    fact(
        "drop-job",
        "what a dropped table leaves is cleared away by a job",
        says("CREATE TABLE gone (id int PRIMARY KEY)", "CREATE TABLE"),
        says("DROP TABLE gone", "DROP TABLE"),
        settled(),
        says("SELECT status FROM sys.jobs WHERE job_type = 'DROP' ORDER BY start_time DESC LIMIT 1", rows("completed")),
    ),
]


@parametrized(SETTINGS)
def test_settings(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact)


@parametrized(VERSIONS)
def test_what_it_says_of_itself(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact)


@parametrized(JOBS)
def test_jobs(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact)


@pytest.mark.parametrize(
    "sql",
    ["CREATE INDEX ASYNC ON numbered (v)", "ALTER TABLE ASYNC numbered VALIDATE CONSTRAINT positive"],
)
def test_a_jobs_id_can_be_waited_for(witness: Witness, sql: str) -> None:
    """It has 26 characters of 5 bits; CALL answers whether the job completed, and SQL turns it into a UUID and back."""
    session = witness.session("one")
    session.execute("DROP TABLE IF EXISTS numbered")
    session.execute("CREATE TABLE numbered (id int PRIMARY KEY, v int)")
    session.execute("ALTER TABLE numbered ADD CONSTRAINT positive CHECK (v > 0) NOT VALID")
    found = session.execute(sql.encode())
    assert [c.name for c in found.description or ()] == ["job_id"]
    (job_id,) = found.fetchone() or ("",)
    assert re.fullmatch("[a-z2-7]{26}", job_id)
    assert session.execute("CALL sys.wait_for_job(%s)", (job_id,)).fetchone() == (True,)
    there_and_back = "SELECT sys.uuid_to_base32_str(sys.base32_str_to_uuid(%s))"
    assert session.execute(there_and_back, (job_id,)).fetchone() == (job_id,)
    session.execute("DROP TABLE numbered")
