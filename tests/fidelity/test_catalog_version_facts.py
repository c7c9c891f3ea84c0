"""What makes a session's catalog out of date, and what its next statement is answered: on a cluster that insists."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from facts import Done, Fact, Witness, fact, parametrized, refused, rows, says

from dsql_server.testing import LocalCluster

STALE = refused("schema has been updated by another transaction (OC001)", "40001")
TABLE = ("CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 10)")
#: How often a build may be over before anybody has looked.
BUILDS_MAX = 20
#: Of 3,000 rows: over so many a session looks before the build is through.
BUILT_BATCHES = 8


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(strict_catalog=True) as started:
        yield started


@pytest.fixture
def strict(cluster: LocalCluster) -> Iterator[Witness]:
    found = Witness(cluster)
    yield found
    found.close()


IDLE = [
    fact(
        "idle-sessions",
        "OC001 for the first statement after a change, even a read; a retry goes through",
        says("SELECT id FROM t", rows("1"), "two"),
        says("ALTER TABLE t ADD COLUMN w text", "ALTER TABLE"),
        says("SELECT id FROM t", STALE, "two"),
        says("SELECT * FROM t", rows(("1", "10", None)), "two"),
    ),
    fact(
        "idle-writers",
        "writes as well, and several changes are one error",
        says("SELECT id FROM t", rows("1"), "two"),
        says("CREATE VIEW one AS SELECT 1 AS a", "CREATE VIEW"),
        says("CREATE VIEW other AS SELECT 1 AS a", "CREATE VIEW"),
        says("UPDATE t SET v = 11", STALE, "two"),
        says("UPDATE t SET v = 11", "UPDATE 1", "two"),
    ),
    fact(
        "read-only-blocks",
        "BEGIN READ ONLY meets nothing, the read behind it does",
        says("SELECT id FROM t", rows("1"), "two"),
        says("GRANT SELECT ON t TO PUBLIC", "GRANT"),
        says("BEGIN READ ONLY", "BEGIN", "two"),
        says("SELECT id FROM t", STALE, "two"),
        says("COMMIT", "ROLLBACK", "two"),
        says("BEGIN READ ONLY", "BEGIN", "two"),
        says("SELECT id FROM t", rows("1"), "two"),
        says("COMMIT", "COMMIT", "two"),
    ),
    fact(
        "the-author",
        "whoever made the change has the new catalog",
        says("SELECT id FROM t", rows("1")),
        says("ALTER TABLE t ADD COLUMN w text", "ALTER TABLE"),
        says("SELECT w FROM t", rows(None)),
    ),
]

CHANGES = (
    "CREATE TABLE other (id int)",
    "CREATE VIEW view_of AS SELECT id FROM t",
    "CREATE SEQUENCE s CACHE 1",
    "CREATE DOMAIN d AS int",
    "CREATE SCHEMA elsewhere",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE STATISTICS st ON id, v FROM t",
    "ALTER TABLE t ALTER v SET DEFAULT 5",
    "ALTER TABLE t RENAME COLUMN v TO w",
    "COMMENT ON TABLE t IS 'x'",
    "GRANT SELECT ON t TO PUBLIC",
    "REVOKE SELECT ON t FROM PUBLIC",
    "DROP TABLE t",
)


@parametrized(IDLE)
def test_idle_sessions(fact: Fact, strict: Witness) -> None:
    strict.confirm(fact, given=TABLE)


@pytest.mark.parametrize("change", CHANGES)
def test_every_definition_is_a_change(change: str, strict: Witness) -> None:
    steps = (says("SELECT 1", rows("1"), "two"), says(change, _tag(change)), says("SELECT 1", STALE, "two"))
    strict.confirm(Fact("change", f"{change} changes the catalog", steps, TABLE))


def _tag(change: str) -> str:
    return (
        change.split(" ")[0] if change.startswith(("GRANT", "REVOKE", "COMMENT")) else " ".join(change.split(" ")[:2])
    )


@pytest.mark.parametrize(
    "statement", ["SELECT count(*) FROM t", "UPDATE t SET v = 1", "CREATE TABLE x (id int)", "SET timezone = 'UTC'"]
)
def test_what_changes_no_definition_is_no_change(statement: str, strict: Witness) -> None:
    """Nor is a definition that was rolled back."""
    undone = (says("BEGIN", "BEGIN"), says(statement, Done()), says("ROLLBACK", "ROLLBACK"))
    steps = (says("SELECT 1", rows("1"), "two"), *undone, says("SELECT 1", rows("1"), "two"))
    strict.confirm(Fact("none", f"{statement}, rolled back, changes no catalog", steps, TABLE))


def test_a_build_that_completes_is_a_change(strict: Witness) -> None:
    """A session that has seen the index invalid meets OC001 before it sees it valid."""
    session = strict.session("one")
    session.execute("CREATE TABLE built (id int PRIMARY KEY, v int)")
    for batch in range(BUILT_BATCHES):
        session.execute("INSERT INTO built SELECT g, g FROM generate_series(%s + 1, %s + 3000) g", [batch * 3000] * 2)
    for _ in range(BUILDS_MAX):
        session.execute("CREATE INDEX ASYNC by_v ON built (v)")
        seen = _until_valid(session, "by_v")
        if "invalid" in seen:
            break
        session.execute("DROP INDEX by_v")
    assert seen[-3:] == ["invalid", "OC001", "valid"]


def _until_valid(session: psycopg.Connection, index: str) -> list[str]:
    """What a session is told of an index until it is told that it is valid."""
    seen: list[str] = []
    while "valid" not in seen:
        try:
            found = session.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass", [index])
            seen.append("valid" if found.fetchone() == (True,) else "invalid")
        except psycopg.errors.SerializationFailure as error:
            assert error.diag.message_primary == STALE.message
            seen.append("OC001")
    return seen
