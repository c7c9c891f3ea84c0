"""How transactions of Aurora DSQL begin, fail and end, and which of them meet in a conflict."""

from __future__ import annotations

import pytest
from facts import Done, Fact, Step, Witness, fact, parametrized, refused, request, rows, says, settled

TABLES = (
    "CREATE TABLE accounts (id int PRIMARY KEY, code text UNIQUE, balance int NOT NULL DEFAULT 0)",
    "CREATE TABLE entries (id int PRIMARY KEY, account int REFERENCES accounts (id))",
    "INSERT INTO accounts VALUES (1, 'a', 100), (2, 'b', 100), (3, 'c', 100)",
    "INSERT INTO entries VALUES (30, 3)",
)
ABORTED = refused("current transaction is aborted, commands ignored until end of transaction block", "25P02")
CONFLICT = refused("change conflicts with another transaction (OC000)", "40001")
STALE = refused("schema has been updated by another transaction (OC001)", "40001")
TWO_DDL = refused("multiple ddl statements not supported in a transaction")
DDL_AND_DML = refused("ddl and dml are not supported in the same transaction")
TOO_MANY_ROWS = refused("transaction row limit exceeded", "54000")

CONTROL = [
    fact(
        "forms",
        "BEGIN and START TRANSACTION with the one isolation level, COMMIT, END, ROLLBACK and ABORT",
        says("BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN"),
        says("COMMIT", "COMMIT"),
        says("BEGIN WORK", "BEGIN"),
        says("END", "COMMIT"),
        says("START TRANSACTION ISOLATION LEVEL REPEATABLE READ READ WRITE", "START TRANSACTION"),
        says("COMMIT AND NO CHAIN", "COMMIT"),
        says("START TRANSACTION READ ONLY", "START TRANSACTION"),
        says("ABORT", "ROLLBACK"),
        says("BEGIN", "BEGIN"),
        says("ROLLBACK AND NO CHAIN", "ROLLBACK"),
        says("SHOW transaction_isolation", rows("repeatable read")),
    ),
    fact(
        "read-only",
        "a read-only transaction writes nothing",
        says("BEGIN READ ONLY", "BEGIN"),
        says("SELECT count(*) FROM accounts", rows("3")),
        says("UPDATE accounts SET balance = 0", refused("cannot execute UPDATE in a read-only transaction", "25006")),
        says("COMMIT", "ROLLBACK"),
    ),
    fact(
        "aborted-block",
        "a refusal inside BEGIN aborts the block; COMMIT then answers ROLLBACK",
        says("BEGIN", "BEGIN"),
        says("UPDATE accounts SET balance = 0 WHERE id = 1", "UPDATE 1"),
        says("TRUNCATE accounts", refused("unsupported statement: Truncate")),
        says("SELECT 1", ABORTED),
        says("TRUNCATE accounts", ABORTED),
        says("COMMIT", "ROLLBACK"),
        says("SELECT balance FROM accounts WHERE id = 1", rows("100")),
    ),
    fact(
        "refused-alone",
        "a refusal outside BEGIN leaves nothing aborted",
        says("TRUNCATE accounts", refused("unsupported statement: Truncate")),
        says("SELECT 1", rows("1")),
    ),
    fact(
        "one-definition",
        "a transaction takes one DDL statement, and none after or before a write",
        says("BEGIN", "BEGIN"),
        says("CREATE TABLE a (id int)", "CREATE TABLE"),
        says("CREATE TABLE b (id int)", TWO_DDL),
        says("ROLLBACK", "ROLLBACK"),
        says("BEGIN", "BEGIN"),
        says("CREATE TABLE a (id int)", "CREATE TABLE"),
        says("INSERT INTO a VALUES (1)", DDL_AND_DML),
        says("COMMIT", "ROLLBACK"),
        says("BEGIN", "BEGIN"),
        says("INSERT INTO accounts VALUES (9, 'z')", "INSERT 0 1"),
        says("CREATE TABLE a (id int)", DDL_AND_DML),
        says("COMMIT", "ROLLBACK"),
        says("SELECT to_regclass('a')", rows(None)),
    ),
    fact(
        "definition-and-read",
        "a definition may be read around",
        says("BEGIN", "BEGIN"),
        says("SELECT count(*) FROM accounts", rows("3")),
        says("CREATE TABLE a (id int)", "CREATE TABLE"),
        says("COMMIT", "COMMIT"),
        says("SELECT count(*) FROM a", rows("0")),
    ),
    fact(
        "simple-request",
        "statements of one Query message are one transaction",
        request("CREATE TABLE a (id int); CREATE TABLE b (id int)", "CREATE TABLE", TWO_DDL),
        request("CREATE TABLE a (id int); INSERT INTO a VALUES (1)", "CREATE TABLE", DDL_AND_DML),
        request("CREATE TABLE a (id int); CREATE INDEX ASYNC i ON a (id)", "CREATE TABLE", TWO_DDL),
        says("SELECT to_regclass('a')", rows(None)),
        request(
            "INSERT INTO accounts VALUES (9, 'z'); SELECT nosuch",
            "INSERT 0 1",
            refused('column "nosuch" does not exist', "42703"),
        ),
        says("SELECT count(*) FROM accounts", rows("3")),
        request(
            "BEGIN; CREATE INDEX ASYNC i ON accounts (balance); COMMIT",
            "BEGIN",
            Done("CREATE INDEX", ["job_id"]),
            "COMMIT",
        ),
    ),
    fact(
        "row-limit",
        "the row that crosses 3,000 is refused at its statement, and the block aborted; alone as well",
        says("BEGIN", "BEGIN"),
        says("INSERT INTO entries (id) SELECT generate_series(1001, 4000)", "INSERT 0 3000"),
        says("DELETE FROM entries WHERE id = 30", TOO_MANY_ROWS),
        says("SELECT 1", ABORTED),
        says("COMMIT", "ROLLBACK"),
        says("INSERT INTO entries (id) SELECT generate_series(1001, 4001)", TOO_MANY_ROWS),
        says("INSERT INTO entries (id) SELECT generate_series(1001, 4000)", "INSERT 0 3000"),
        says("UPDATE entries SET account = 1", TOO_MANY_ROWS),
        says("SELECT count(*) FROM entries WHERE account IS NULL", rows("3000")),
    ),
    fact(
        "cascades-count",
        "rows that a foreign key's action changes count, index entries don't",
        says(
            "CREATE TABLE owned (id int PRIMARY KEY, o int REFERENCES accounts ON DELETE CASCADE, u int UNIQUE)",
            "CREATE TABLE",
        ),
        says("INSERT INTO owned SELECT g, 2, g FROM generate_series(1, 3000) g", "INSERT 0 3000"),
        says("DELETE FROM accounts WHERE id = 2", TOO_MANY_ROWS),
        says("BEGIN", "BEGIN"),
        says("DELETE FROM accounts WHERE id = 2", TOO_MANY_ROWS),
        says("COMMIT", "ROLLBACK"),
        says("DELETE FROM owned WHERE id = 7", "DELETE 1"),
        says("DELETE FROM accounts WHERE id = 2", "DELETE 1"),
        says("SELECT count(*) FROM owned", rows("0")),
    ),
    fact(
        "size-limit",
        "the size of a transaction is looked at when it commits",
        says("CREATE TABLE large (id int PRIMARY KEY, v text)", "CREATE TABLE"),
        says("BEGIN", "BEGIN"),
        says("INSERT INTO large SELECT g, repeat('x', 1000000) FROM generate_series(1, 11) g", "INSERT 0 11"),
        says(
            "COMMIT",
            refused("transaction size limit 10mb exceeded", "54000", "Current transaction size 11mb > 10mb"),
        ),
        says("SELECT count(*) FROM large", rows("0")),
    ),
    fact(
        "a-later-table",
        "a table made after a transaction began isn't there for it",
        says("BEGIN", "BEGIN", session="two"),
        says("SELECT count(*) FROM accounts", rows("3"), session="two"),
        says("CREATE TABLE later (id int)", "CREATE TABLE"),
        says("SELECT * FROM later", refused('relation "later" does not exist', "42P01"), session="two"),
        says("ROLLBACK", "ROLLBACK", session="two"),
        says("BEGIN", "BEGIN", session="two"),
        says("SELECT count(*) FROM accounts", rows("3"), session="two"),
        says("CREATE TABLE even_later (id int)", "CREATE TABLE"),
        request("SELECT * FROM even_later", refused('relation "even_later" does not exist', "42P01"), session="two"),
        says("ROLLBACK", "ROLLBACK", session="two"),
        says("SELECT count(*) FROM later", rows("0"), session="two"),
    ),
    fact(
        "stale-at-commit",
        "a catalog that changed while a transaction wrote fails it at COMMIT; a retry goes through",
        says("BEGIN", "BEGIN", session="two"),
        says("UPDATE accounts SET balance = 1 WHERE id = 1", "UPDATE 1", session="two"),
        says("GRANT SELECT ON accounts TO PUBLIC", "GRANT"),
        says("COMMIT", STALE, session="two"),
        says("UPDATE accounts SET balance = 1 WHERE id = 1", "UPDATE 1", session="two"),
    ),
]


def _race(name: str, words: str, one: str, two: str, loses: bool, tags: tuple[str, str] = ("", "")) -> Fact:
    """Two transactions at a time, the first of which commits first."""
    return fact(
        name,
        words,
        says("BEGIN", "BEGIN"),
        says("BEGIN", "BEGIN", session="two"),
        Step(one, (Done(tags[0] or None),)),
        Step(two, (Done(tags[1] or None),), "two"),
        says("COMMIT", "COMMIT"),
        says("COMMIT", CONFLICT if loses else "COMMIT", session="two"),
    )


_INSERT = "INSERT INTO accounts VALUES (7, 'seven')"
_INSERT_NULL = "INSERT INTO accounts VALUES ({}, NULL)"
_INSERT_ENTRY = "INSERT INTO entries VALUES (1, 1)"
_DELETE = "DELETE FROM accounts WHERE id = 1"
_KEY_UPDATE = "UPDATE accounts SET code = 'q' WHERE id = 1"
_UPDATE = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"
_FOR_UPDATE = "SELECT * FROM accounts WHERE id = 1 FOR UPDATE"
_KEY_SHARE = "SELECT * FROM accounts WHERE id = 1 FOR KEY SHARE"
_KINDS = {
    "delete": _DELETE,
    "key update": _KEY_UPDATE,
    "update": _UPDATE,
    "for update": _FOR_UPDATE,
    "key share": _KEY_SHARE,
}
_COMPATIBLE = {frozenset({"update", "key share"}), frozenset({"key share"})}

MATRIX = [
    _race(
        f"{first} and {second}".replace(" ", "-"),
        f"{first} and {second} of one row",
        _KINDS[first],
        _KINDS[second],
        loses=frozenset({first, second}) not in _COMPATIBLE,
    )
    for first in _KINDS
    for second in _KINDS
]

CONFLICTS = [
    _race(
        "insert-race",
        "of two inserts of one key the second fails at COMMIT, not with 23505",
        _INSERT,
        _INSERT,
        True,
        ("INSERT 0 1",) * 2,
    ),
    _race(
        "unique-race",
        "so do two inserts of one unique value",
        _INSERT,
        "INSERT INTO accounts VALUES (8, 'seven')",
        True,
    ),
    _race(
        "unique-race-of-updates",
        "and two updates that give two rows one unique value, or an update and an insert",
        "UPDATE accounts SET code = 'seven' WHERE id = 1",
        "UPDATE accounts SET code = 'seven' WHERE id = 2",
        True,
    ),
    _race("unique-race-of-both", "in either order", _INSERT, "UPDATE accounts SET code = 'seven' WHERE id = 2", True),
    _race("null-race", "NULLs are no such value", _INSERT_NULL.format(7), _INSERT_NULL.format(8), False),
    *(
        fact(
            f"{name}-unique-race",
            f"a unique index {words} has such values, too",
            says("CREATE TABLE parts (id int PRIMARY KEY, k text)", "CREATE TABLE"),
            says(f"CREATE UNIQUE INDEX ASYNC u ON parts {definition}", "CREATE INDEX"),
            settled(),
            says("BEGIN", "BEGIN"),
            says("BEGIN", "BEGIN", session="two"),
            says(f"INSERT INTO parts VALUES (1, {one})", "INSERT 0 1"),
            says(f"INSERT INTO parts VALUES (2, {two})", "INSERT 0 1", session="two"),
            says("COMMIT", "COMMIT"),
            says("COMMIT", CONFLICT, session="two"),
        )
        for name, words, definition, one, two in (
            ("expression", "of an expression", "((lower(k)))", "'A'", "'a'"),
            ("partial", "with a predicate", "(k) WHERE k > 'b'", "'c'", "'c'"),
            ("null", "for which NULLs are equal", "(k) NULLS NOT DISTINCT", "NULL", "NULL"),
        )
    ),
    _race(
        "both-update",
        "both updates report one row, and the second fails at COMMIT",
        _UPDATE,
        _UPDATE,
        True,
        ("UPDATE 1",) * 2,
    ),
    _race("disjoint", "other rows are other rows", _UPDATE, "UPDATE accounts SET balance = 5 WHERE id = 2", False),
    _race("parent-delete-first", "a child that arrives while its parent goes fails", _DELETE, _INSERT_ENTRY, True),
    _race("child-first", "a parent that goes while a child arrives stays", _INSERT_ENTRY, _DELETE, True),
    _race("parent-update", "a parent's other columns may change while a child arrives", _UPDATE, _INSERT_ENTRY, False),
    _race(
        "parent-key-update",
        "but none of its key columns, also those that nobody references",
        _KEY_UPDATE,
        _INSERT_ENTRY,
        True,
    ),
    _race(
        "same-predicate",
        "of two updates of the same three rows one fails",
        "UPDATE accounts SET balance = 1 WHERE balance = 100",
        "UPDATE accounts SET balance = 2 WHERE balance = 100",
        True,
        ("UPDATE 3",) * 2,
    ),
    _race(
        "overlap",
        "two updates that overlap in one row of several conflict",
        "UPDATE accounts SET balance = 1 WHERE id IN (1, 2)",
        "UPDATE accounts SET balance = 2 WHERE id IN (2, 3)",
        True,
    ),
    _race(
        "write-skew",
        "what was only read conflicts with nothing: write skew is allowed",
        "UPDATE accounts SET balance = 0 WHERE id = 1 AND (SELECT balance FROM accounts WHERE id = 2) > 0",
        "UPDATE accounts SET balance = 0 WHERE id = 2 AND (SELECT balance FROM accounts WHERE id = 1) > 0",
        False,
        ("UPDATE 1",) * 2,
    ),
    fact(
        "snapshot-at-begin",
        "a transaction sees what was committed before its BEGIN, and its own changes",
        says("BEGIN", "BEGIN", session="two"),
        says("INSERT INTO accounts VALUES (9, 'late')", "INSERT 0 1"),
        says("SELECT count(*) FROM accounts", rows("3"), session="two"),
        says("INSERT INTO accounts VALUES (10, 'own')", "INSERT 0 1", session="two"),
        says("SELECT count(*) FROM accounts", rows("4"), session="two"),
        says("COMMIT", "COMMIT", session="two"),
        says("SELECT count(*) FROM accounts", rows("5"), session="two"),
    ),
    fact(
        "duplicate-in-snapshot",
        "23505 is for rows that the snapshot has",
        says("BEGIN", "BEGIN", session="two"),
        says("SELECT count(*) FROM accounts", rows("3"), session="two"),
        says(
            "INSERT INTO accounts VALUES (1, 'again')",
            refused('duplicate key value violates unique constraint "accounts_pkey"', "23505"),
            session="two",
        ),
    ),
    *(
        fact(
            f"{action.lower().replace(' ', '-')}-against-update",
            f"rows that ON DELETE {action} changes are written rows",
            says(
                "CREATE TABLE owned (id int PRIMARY KEY, "
                f"o int DEFAULT 2 REFERENCES accounts ON DELETE {action}, n int)",
                "CREATE TABLE",
            ),
            says("INSERT INTO owned VALUES (1, 1, 0)", "INSERT 0 1"),
            says("BEGIN", "BEGIN"),
            says("BEGIN", "BEGIN", session="two"),
            says(_DELETE, "DELETE 1"),
            says("UPDATE owned SET n = 1 WHERE id = 1", "UPDATE 1", session="two"),
            says("COMMIT", "COMMIT"),
            says("COMMIT", CONFLICT, session="two"),
        )
        for action in ("CASCADE", "SET NULL", "SET DEFAULT")
    ),
    fact(
        "crossed",
        "crossed updates never wait and never deadlock",
        says("BEGIN", "BEGIN"),
        says("BEGIN", "BEGIN", session="two"),
        says("UPDATE accounts SET balance = 1 WHERE id = 1", "UPDATE 1"),
        says("UPDATE accounts SET balance = 2 WHERE id = 2", "UPDATE 1", session="two"),
        says("UPDATE accounts SET balance = 1 WHERE id = 2", "UPDATE 1"),
        says("UPDATE accounts SET balance = 2 WHERE id = 1", "UPDATE 1", session="two"),
        says("COMMIT", "COMMIT"),
        says("COMMIT", CONFLICT, session="two"),
    ),
    fact(
        "lost-update",
        "of a locked +1 and a +10 that commits first, only the +10 stays",
        says("BEGIN", "BEGIN"),
        says("SELECT balance FROM accounts WHERE id = 1 FOR UPDATE", rows("100")),
        says("UPDATE accounts SET balance = balance + 1 WHERE id = 1", "UPDATE 1"),
        says("UPDATE accounts SET balance = balance + 10 WHERE id = 1", "UPDATE 1", session="two"),
        says("COMMIT", CONFLICT),
        says("SELECT balance FROM accounts WHERE id = 1", rows("110")),
    ),
    fact(
        "unique-index-is-a-key",
        "a column of a unique index is a key column once the index is there: its update conflicts with KEY SHARE",
        says("CREATE TABLE parts (id int PRIMARY KEY, k int)", "CREATE TABLE"),
        says("INSERT INTO parts VALUES (1, 1)", "INSERT 0 1"),
        says("CREATE UNIQUE INDEX ASYNC u ON parts (k)", "CREATE INDEX"),
        settled(),
        says("BEGIN", "BEGIN"),
        says("BEGIN", "BEGIN", session="two"),
        says("UPDATE parts SET k = 2 WHERE id = 1", "UPDATE 1"),
        says("SELECT * FROM parts WHERE id = 1 FOR KEY SHARE", rows(("1", "1")), session="two"),
        says("COMMIT", "COMMIT"),
        says("COMMIT", CONFLICT, session="two"),
    ),
    *(
        fact(
            f"{name}-index-is-no-key",
            f"a column of an index that is {words} is no key column: its update goes with KEY SHARE",
            says("CREATE TABLE parts (id int PRIMARY KEY, k int)", "CREATE TABLE"),
            says("INSERT INTO parts VALUES (1, 1)", "INSERT 0 1"),
            says(definition, "CREATE INDEX"),
            settled(),
            says("BEGIN", "BEGIN"),
            says("BEGIN", "BEGIN", session="two"),
            says("UPDATE parts SET k = 2 WHERE id = 1", "UPDATE 1"),
            says("SELECT * FROM parts WHERE id = 1 FOR KEY SHARE", rows(("1", "1")), session="two"),
            says("COMMIT", "COMMIT"),
            says("COMMIT", "COMMIT", session="two"),
        )
        for name, words, definition in (
            ("partial", "partial", "CREATE UNIQUE INDEX ASYNC u ON parts (k) WHERE k > 0"),
            ("expression", "of an expression", "CREATE UNIQUE INDEX ASYNC u ON parts ((k + 1))"),
            ("plain", "not unique", "CREATE INDEX ASYNC u ON parts (k)"),
        )
    ),
]


@parametrized(CONTROL)
def test_control(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=TABLES)


@parametrized(MATRIX)
def test_the_conflict_matrix(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=TABLES)


@parametrized(CONFLICTS)
def test_conflicts(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=TABLES)


@pytest.mark.parametrize("statement", ["SELECT pg_sleep(0.5)"])
def test_a_cancel_request_is_ignored(witness: Witness, statement: str) -> None:
    """The statement runs to its end."""
    session = witness.session("one")
    session.pgconn.send_query(statement.encode())
    session.cancel_safe()
    result = session.pgconn.get_result()
    assert result is not None and result.command_status == b"SELECT 1"
    assert session.pgconn.get_result() is None
