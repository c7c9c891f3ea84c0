"""``sys.jobs``: index builds as clients see them, beside writers, failures and restarts."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg
import pytest
from two_sessions import Session

from dsql_server.testing import LocalCluster

ROWS = 3000
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = '{}'::regclass"
DUPLICATE_DETAIL = "Found duplicate key while validating index for UCVs"


def fill(session: Session, rows: int = ROWS) -> None:
    session.run("CREATE TABLE t (id int PRIMARY KEY, v int, w text)")
    for start in range(1, rows + 1, ROWS):
        session.run(f"INSERT INTO t SELECT g, g, 'w' || g FROM generate_series({start}, {start + ROWS - 1}) g")


def insist(session: Session, sql: str, *parameters: object) -> None:
    """Run a statement until no build and no change of the catalog gets in its way."""
    while True:
        try:
            session.run(sql, *parameters)
            return
        except psycopg.errors.SerializationFailure:
            continue


def test_an_index_is_built_in_the_background(one: Session, other: Session) -> None:
    fill(one)
    cursor = one.run("CREATE INDEX ASYNC by_v ON t (v)")
    assert cursor.statusmessage == "CREATE INDEX"
    assert cursor.description is not None and [c.name for c in cursor.description] == ["job_id"]
    (job_id,) = cursor.fetchone() or ("",)
    assert len(job_id) == 26
    assert one.wait_for(job_id)
    assert one.value(VALID.format("by_v")) is other.value(VALID.format("by_v")) is True
    assert other.rows("SELECT status, details, job_type, object_name FROM sys.jobs WHERE job_id = %s", job_id) == [
        ("completed", None, "INDEX_BUILD", "public.by_v")
    ]
    assert other.column("SELECT id FROM t WHERE v = 1234") == [1234]


@pytest.mark.parametrize(
    "definition",
    ["(v)", "(w, v)", "(v) INCLUDE (w)", "(lower(w))", "(v) WHERE v > 10", "(v NULLS FIRST)"],
)
@pytest.mark.parametrize("unique", ["", "UNIQUE "])
def test_all_kinds_of_indexes(one: Session, other: Session, unique: str, definition: str) -> None:
    fill(one, 1)
    assert one.finish(f"CREATE {unique}INDEX ASYNC i ON t {definition}")
    assert other.value(VALID.format("i"))
    assert other.column("SELECT id FROM t WHERE v = 77 AND lower(w) = 'w77'") == [77]
    duplicate = "INSERT INTO t VALUES (-1, 77, 'w77')"
    if unique:
        with pytest.raises(psycopg.errors.UniqueViolation, match='"i"'):
            other.run(duplicate)
    else:
        other.run(duplicate)


@pytest.mark.parametrize("definition", ["(v)", "(abs(v))", "(v) WHERE id < 100000"])
def test_a_unique_index_over_duplicates_fails(one: Session, other: Session, definition: str) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY, v int)")
    one.run("INSERT INTO t VALUES (1, 1), (2, 1), (3, 3)")
    job_id = one.value(f"CREATE UNIQUE INDEX ASYNC i ON t {definition}")
    assert not one.wait_for(job_id)
    found = one.rows("SELECT status, details FROM sys.jobs WHERE job_id = %s", job_id)
    assert found == [("failed", DUPLICATE_DETAIL)]
    assert other.value(VALID.format("i")) is False
    assert other.column("SELECT id FROM t ORDER BY id") == [1, 2, 3]
    one.run("DROP INDEX i")
    other.run("DELETE FROM t WHERE id = 2")
    assert one.finish(f"CREATE UNIQUE INDEX ASYNC i ON t {definition}")
    with pytest.raises(psycopg.errors.UniqueViolation, match='"i"'):
        other.run("INSERT INTO t VALUES (4, 3)")


def test_a_failed_unique_index_still_refuses_duplicates(one: Session, other: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY, v int)")
    one.run("INSERT INTO t VALUES (1, 1), (2, 1), (3, 3)")
    assert not one.finish("CREATE UNIQUE INDEX ASYNC i ON t (v)")
    for refused in (
        "INSERT INTO t VALUES (4, 3)",
        "UPDATE t SET v = 3 WHERE id = 1",
        "INSERT INTO t VALUES (5, 5), (6, 5)",
    ):
        with pytest.raises(psycopg.errors.UniqueViolation, match='"i"'):
            other.run(refused)
    other.run("UPDATE t SET v = 2 WHERE id = 2")
    other.run("INSERT INTO t VALUES (4, 4)")
    other.run("DELETE FROM t WHERE id = 3")
    other.run("INSERT INTO t VALUES (3, 3), (6, NULL), (7, NULL)")
    one.run("DROP INDEX i")
    other.run("INSERT INTO t VALUES (8, 3)")


def test_an_index_that_is_not_valid_makes_no_constraint(one: Session) -> None:
    one.run("CREATE TABLE t (id int PRIMARY KEY, v int)")
    one.run("INSERT INTO t VALUES (1, 1), (2, 1)")
    assert not one.finish("CREATE UNIQUE INDEX ASYNC i ON t (v)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match='index "i" is not valid'):
        one.run("ALTER TABLE t ADD CONSTRAINT i UNIQUE USING INDEX i")
    one.run("DROP INDEX i")
    one.run("DELETE FROM t WHERE id = 2")
    assert one.finish("CREATE UNIQUE INDEX ASYNC i ON t (v)")
    one.run("ALTER TABLE t ADD CONSTRAINT c UNIQUE USING INDEX i")
    with pytest.raises(psycopg.errors.UniqueViolation, match='"c"'):
        one.run("INSERT INTO t VALUES (3, 1)")


def test_writers_beside_a_build_are_in_the_index(dsql_cluster: LocalCluster, one: Session) -> None:
    fill(one)
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        with dsql_cluster.connect(autocommit=True) as connection:
            session = Session(connection)
            number = ROWS
            while not stop.is_set():
                number += 1
                insist(session, "INSERT INTO t VALUES (%s, %s, '')", number, -number)
                insist(session, "UPDATE t SET v = %s WHERE id = %s", number - ROWS + 1000000, number - ROWS)
                written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not written and writer.is_alive():
            time.sleep(0.001)
        assert one.finish("CREATE UNIQUE INDEX ASYNC by_v ON t (v)")
    finally:
        stop.set()
        writer.join()
    assert written, "nothing was written beside the build"
    for number in written[:: max(1, len(written) // 50)]:
        assert one.column("SELECT id FROM t WHERE v = %s", -number) == [number]
        assert one.column("SELECT id FROM t WHERE v = %s", number - ROWS + 1000000) == [number - ROWS]


def test_of_two_racing_duplicates_a_build_lets_only_one_in(dsql_cluster: LocalCluster, one: Session) -> None:
    """Whether the build or a writer comes first: a valid unique index has no duplicates."""
    fill(one, 1)
    outcome: list[str] = []

    def write() -> None:
        with dsql_cluster.connect(autocommit=True) as connection:
            for number in range(1, 400, 7):
                try:
                    connection.execute("INSERT INTO t VALUES (%s, %s, '')", (-number, number))
                except psycopg.Error as error:
                    outcome.append(error.sqlstate or "")
                else:
                    outcome.append("inserted")

    writer = threading.Thread(target=write)
    writer.start()
    completed = one.finish("CREATE UNIQUE INDEX ASYNC by_v ON t (v)")
    writer.join()
    duplicates = one.value("SELECT count(*) FROM (SELECT v FROM t GROUP BY v HAVING count(*) > 1) AS twice")
    assert completed == (duplicates == 0)
    assert set(outcome) <= {"inserted", "23505", "40001"}
    assert completed or "inserted" in outcome


def test_dropping_the_index_or_table_ends_the_job(one: Session) -> None:
    fill(one)
    first = one.value("CREATE INDEX ASYNC dropped ON t (v)")
    one.run("DROP INDEX dropped")
    second = one.value("CREATE INDEX ASYNC dropped_too ON t (v)")
    one.run("DROP TABLE t")
    assert one.wait_for(first) and one.wait_for(second)


def test_an_index_that_is_there_already_has_nothing_to_wait_for(one: Session) -> None:
    one.run("CREATE TABLE t (id int)")
    for _ in range(2):
        assert one.finish("CREATE INDEX ASYNC IF NOT EXISTS i ON t (id)")


def test_an_index_without_async_is_for_empty_tables(one: Session, other: Session) -> None:
    fill(one)
    one.run("SET disable_sync_create_index = off")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=r"please use CREATE INDEX ASYNC\."):
        one.run("CREATE INDEX i ON t (v)")
    while one.run("DELETE FROM t WHERE id IN (SELECT id FROM t LIMIT 3000)").rowcount:
        pass
    one.run("CREATE INDEX i ON t (v)")
    (job_id,) = one.column(
        "SELECT job_id FROM sys.jobs WHERE object_name = 'public.i' ORDER BY start_time DESC LIMIT 1"
    )
    other.run("INSERT INTO t VALUES (77, 77)")
    assert one.wait_for(job_id)
    assert other.column("SELECT id FROM t WHERE v = 77") == [77]


def test_waiting_for_jobs(one: Session) -> None:
    with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="Unable to convert text to UUID"):
        one.run("CALL sys.wait_for_job('no-such-job')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="does not exist"):
        one.run("CALL sys.wait_for_job(%s)", "a" * 26)
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        one.run("INSERT INTO sys.jobs (job_id) VALUES ('mine')")
    one.run("CREATE TABLE t (id int)")
    job_id = one.value("CREATE INDEX ASYNC ON t (id)")
    assert one.value(f"CALL sys.wait_for_job('{job_id}')") is True
    assert one.value("CALL sys.wait_for_job(job_id => %s)", job_id) is True


@pytest.mark.parametrize("crash", [False, True])
def test_an_interrupted_build_goes_on_after_a_restart(tmp_path: Path, crash: bool) -> None:
    cluster = LocalCluster(data_dir=tmp_path / "data")
    with cluster, cluster.connect(autocommit=True) as connection:
        first = Session(connection)
        fill(first)
        job_ids = [
            first.value("CREATE UNIQUE INDEX ASYNC by_v ON t (v)"),
            first.value("CREATE INDEX ASYNC by_w ON t (w)"),
        ]
        if crash:
            cluster.kill()
    with cluster, cluster.connect(autocommit=True) as connection:
        second = Session(connection)
        assert all(second.wait_for(job_id) for job_id in job_ids)
        assert second.value(VALID.format("by_v")) and second.value(VALID.format("by_w"))
        assert second.column("SELECT id FROM t WHERE v = 2999") == [2999]
        assert second.column("SELECT id FROM t WHERE w = 'w17'") == [17]


@pytest.mark.parametrize("rows", [1, 8, 25])
def test_a_check_is_validated_over_any_number_of_rows(one: Session, rows: int) -> None:
    """Few rows are loaded by INSERT and many by COPY; the answers of both are read to their end."""
    one.run("CREATE TABLE t (id int PRIMARY KEY, n int)")
    one.run(f"INSERT INTO t SELECT g, g FROM generate_series(1, {rows}) g")
    one.run("ALTER TABLE t ADD CONSTRAINT low CHECK (n <= 1000) NOT VALID")
    one.run(f"ALTER TABLE t ADD CONSTRAINT less CHECK (n < {rows}) NOT VALID")
    assert one.finish("ALTER TABLE ASYNC t VALIDATE CONSTRAINT low")
    assert not one.finish("ALTER TABLE ASYNC t VALIDATE CONSTRAINT less")
