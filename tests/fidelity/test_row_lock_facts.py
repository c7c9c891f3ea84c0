"""Which rows a statement locks, and how strongly: clauses that differ, views that lock, locks beside a definition."""

from __future__ import annotations

from facts import Done, Fact, Step, Witness, fact, parametrized, refused, request, rows, says

TABLES = (
    "CREATE TABLE accounts (id int PRIMARY KEY, code text UNIQUE, balance int NOT NULL DEFAULT 0)",
    "CREATE TABLE entries (id int PRIMARY KEY, account int NOT NULL, note text)",
    "INSERT INTO accounts VALUES (1, 'a', 100), (2, 'b', 100), (3, 'c', 100)",
    "INSERT INTO entries VALUES (10, 1, ''), (20, 2, '')",
)
CONFLICT = refused("change conflicts with another transaction (OC000)", "40001")
_VIEWS = (
    *TABLES,
    "CREATE VIEW held AS SELECT id, balance FROM accounts FOR UPDATE",
    "CREATE VIEW shared AS SELECT id, balance FROM accounts FOR KEY SHARE",
    "CREATE VIEW held_again AS SELECT id AS n FROM held WHERE balance > 0",
    "CREATE VIEW joined AS SELECT a.id, e.id AS entry FROM entries e JOIN accounts a ON a.id = e.account "
    "FOR UPDATE OF e FOR KEY SHARE OF a",
    "CREATE FUNCTION balance_of(n int) RETURNS int LANGUAGE sql AS 'SELECT balance FROM held WHERE id = n'",
    "CREATE FUNCTION seen_of(n int) RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT id FROM held WHERE id = n'",
    "CREATE VIEW plain AS SELECT * FROM accounts",
)
_JOIN = "SELECT a.id, e.id FROM entries e JOIN accounts a ON a.id = e.account WHERE e.id = 10"
_LOCKED = (("1", "10"),)
_UPDATE = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"
_UPDATE_OTHER = "UPDATE accounts SET balance = balance + 1 WHERE id = 2"
_UPDATE_ENTRY = "UPDATE entries SET note = 'x' WHERE id = 10"
_DELETE = "DELETE FROM accounts WHERE id = 1"


def _meets(name: str, words: str, locking: str, found: tuple[str | None, ...] | str, write: str, loses: bool) -> Fact:
    """A lock that another session's write overtakes."""
    tag = "UPDATE 1" if write.startswith("UPDATE") else "DELETE 1"
    return fact(
        name,
        words,
        says("BEGIN", "BEGIN"),
        says(locking, rows(found)),
        says(write, tag, session="two"),
        says("COMMIT", CONFLICT if loses else "COMMIT"),
    )


def _strengths(name: str, words: str, sql: str, account: bool, entry: bool = True) -> list[Fact]:
    """``account``, ``entry``: whether an update of the account's balance, of the entry makes the lock lose."""
    return [
        _meets(f"{name}-account", f"{words}: an account's balance", sql, _LOCKED[0], _UPDATE, account),
        _meets(f"{name}-gone", f"{words}: an account that goes", sql, _LOCKED[0], _DELETE, True),
        _meets(f"{name}-entry", f"{words}: an entry", sql, _LOCKED[0], _UPDATE_ENTRY, entry),
    ]


MIXED = [
    *_strengths("each", "each table has its own strength", f"{_JOIN} FOR UPDATE OF e FOR KEY SHARE OF a", False),
    *_strengths("reversed", "in either order", f"{_JOIN} FOR KEY SHARE OF a FOR UPDATE OF e", False),
    *_strengths("rest", "a clause that names none is for all", f"{_JOIN} FOR KEY SHARE FOR UPDATE OF e", False),
    *_strengths("strongest", "and the strongest counts", f"{_JOIN} FOR UPDATE FOR KEY SHARE OF a", True),
    *_strengths("same", "of two clauses for one table", f"{_JOIN} FOR KEY SHARE OF a FOR UPDATE OF a, e", True),
    *_strengths("shared", "one clause for all", f"{_JOIN} FOR KEY SHARE", False, False),
    *_strengths(
        "nested",
        "queries in FROM have clauses of their own",
        "SELECT a.id, e.id FROM (SELECT * FROM accounts FOR KEY SHARE) a "
        "JOIN (SELECT * FROM entries FOR UPDATE) e ON a.id = e.account WHERE e.id = 10",
        False,
    ),
    *_strengths(
        "outer",
        "what is around a query locks its rows, too",
        "SELECT a.id, e.id FROM (SELECT * FROM accounts FOR KEY SHARE) a "
        "JOIN entries e ON a.id = e.account WHERE e.id = 10 FOR UPDATE",
        True,
    ),
    _meets(
        "unlocked",
        "a table that no clause names isn't locked",
        f"{_JOIN} FOR UPDATE OF e",
        _LOCKED[0],
        _UPDATE,
        False,
    ),
]

VIEWS = [
    _meets("update", "a view with FOR UPDATE locks", "SELECT * FROM held WHERE id = 1", ("1", "100"), _UPDATE, True),
    _meets("other", "what is read of it", "SELECT * FROM held WHERE id = 1", ("1", "100"), _UPDATE_OTHER, False),
    _meets("share", "one with FOR KEY SHARE", "SELECT * FROM shared WHERE id = 1", ("1", "100"), _UPDATE, False),
    _meets("share-gone", "as KEY SHARE does", "SELECT * FROM shared WHERE id = 1", ("1", "100"), _DELETE, True),
    _meets("again", "by another view as well", "SELECT n FROM held_again WHERE n = 1", "1", _UPDATE, True),
    _meets("mixed", "with clauses that differ", "SELECT * FROM joined WHERE entry = 10", _LOCKED[0], _DELETE, True),
    _meets(
        "mixed-entry", "as one statement's do", "SELECT * FROM joined WHERE entry = 10", _LOCKED[0], _UPDATE_ENTRY, True
    ),
    _meets("count", "also below an aggregate", "SELECT count(*) FROM held", "3", _UPDATE, True),
    _meets(
        "outside", "a lock of a view is its tables'", "SELECT id FROM plain WHERE id = 1 FOR UPDATE", "1", _UPDATE, True
    ),
    _meets(
        "outside-share",
        "and as strong",
        "SELECT p.id, e.id FROM plain p JOIN entries e ON p.id = e.account WHERE e.id = 10 FOR KEY SHARE",
        _LOCKED[0],
        _UPDATE,
        False,
    ),
    _meets("function", "in a function", "SELECT balance_of(1)", "100", _UPDATE, True),
    _meets("stable", "in one that may be put in its place", "SELECT * FROM seen_of(1)", "1", _UPDATE, True),
    fact(
        "written",
        "a write by such a view is a write as any other",
        says("BEGIN", "BEGIN"),
        says("UPDATE held SET balance = 7 WHERE id = 1", "UPDATE 1"),
        says(_UPDATE, "UPDATE 1", session="two"),
        says("COMMIT", CONFLICT),
        says("UPDATE held SET balance = 7 WHERE id = 1", "UPDATE 1"),
        says("SELECT balance FROM accounts ORDER BY id", rows("7", "100", "100")),
    ),
    fact(
        "explained",
        "EXPLAIN alone locks nothing, with ANALYZE it does",
        says("BEGIN", "BEGIN"),
        says("EXPLAIN SELECT * FROM held", Done("EXPLAIN")),
        says(_UPDATE, "UPDATE 1", session="two"),
        says("COMMIT", "COMMIT"),
        says("BEGIN", "BEGIN"),
        says("EXPLAIN ANALYZE SELECT * FROM held", Done("EXPLAIN")),
        says(_UPDATE, "UPDATE 1", session="two"),
        says("COMMIT", CONFLICT),
    ),
    fact(
        "simple",
        "in a simple request as well",
        request("BEGIN; SELECT balance FROM held WHERE id = 1", "BEGIN", rows("100")),
        says(_UPDATE, "UPDATE 1", session="two"),
        request("COMMIT", CONFLICT),
    ),
    fact(
        "alone",
        "alone and again: a read that locks is answered as any other",
        *(says("SELECT balance FROM held WHERE id = 1", rows("100")) for _ in range(3)),
        says(_UPDATE, "UPDATE 1", session="two"),
        says("SELECT balance FROM held WHERE id = 1", rows("101")),
        says("SELECT sum(balance) FROM held", rows("301")),
    ),
    fact(
        "source",
        "rows that are inserted from it are locked",
        says("BEGIN", "BEGIN"),
        says("INSERT INTO entries SELECT 30, id, 'x' FROM held WHERE id = 1", "INSERT 0 1"),
        says(_UPDATE, "UPDATE 1", session="two"),
        says("COMMIT", CONFLICT),
    ),
    *(
        fact(
            f"read-only-{view}",
            "a read-only transaction locks nothing, be it by a view",
            says("BEGIN READ ONLY", "BEGIN"),
            says(f"SELECT * FROM {view}", refused(f"cannot execute SELECT {name} in a read-only transaction", "25006")),
        )
        for view, name in (("held", "FOR UPDATE"), ("shared", "FOR KEY SHARE"), ("held_again", "FOR UPDATE"))
    ),
]

_PARENTS = (
    *TABLES,
    "CREATE TABLE parts (id int PRIMARY KEY, account int REFERENCES accounts (id))",
    "CREATE TABLE loose (n int)",
    "INSERT INTO loose VALUES (1), (2)",
)
_HOLD_1 = "SELECT id FROM accounts WHERE id = 1 FOR UPDATE"
_HOLD_2 = "SELECT id FROM accounts WHERE id = 2 FOR UPDATE"
_SHARE_1 = "SELECT id FROM accounts WHERE id = 1 FOR KEY SHARE"


def _locks(name: str, words: str, statements: tuple[str, ...], write: str, loses: bool) -> Fact:
    """Of several locks in one transaction, that another session's write overtakes."""
    return fact(
        name,
        words,
        says("BEGIN", "BEGIN"),
        *(Step(sql, (Done(),)) for sql in statements),
        Step(write, (Done(),), "two"),
        says("COMMIT", CONFLICT if loses else "COMMIT"),
    )


STATEMENTS = [
    _locks("other-shared", "each row has its own strength", (_HOLD_2, _SHARE_1), _UPDATE, False),
    _locks("other-held", "the one held", (_HOLD_2, _SHARE_1), _UPDATE_OTHER, True),
    _locks("other-gone", "and the one shared", (_HOLD_2, _SHARE_1), _DELETE, True),
    _locks("then-shared", "of one row the strongest counts", (_HOLD_1, _SHARE_1), _UPDATE, True),
    _locks("then-held", "in either order", (_SHARE_1, _HOLD_1), _UPDATE, True),
    _locks("held-last", "behind others, too", (_SHARE_1, _HOLD_2), _UPDATE_OTHER, True),
    _locks("parent", "a parent stays shared", (_HOLD_2, "INSERT INTO parts VALUES (1, 1)"), _UPDATE, False),
    _locks("parent-gone", "and there", (_HOLD_2, "INSERT INTO parts VALUES (1, 1)"), _DELETE, True),
    _locks("held-parent", "a held one is held", (_HOLD_1, "INSERT INTO parts VALUES (1, 1)"), _UPDATE, True),
    _locks("parent-held", "from then on", ("INSERT INTO parts VALUES (1, 1)", _HOLD_1), _UPDATE, True),
    _locks(
        "without-key",
        "rows without a primary key have locks, too",
        ("SELECT n FROM loose WHERE n = 1 FOR UPDATE",),
        "UPDATE loose SET n = 3 WHERE n = 1",
        True,
    ),
    _locks(
        "without-key-other",
        "of their own",
        ("SELECT n FROM loose WHERE n = 1 FOR UPDATE",),
        "UPDATE loose SET n = 3 WHERE n = 2",
        False,
    ),
]

DEFINITIONS = [
    *(
        fact(
            f"{name}-overtaken",
            f"rows that were locked {words} are claimed with the definition",
            says("BEGIN", "BEGIN"),
            *(says(sql, answer) for sql, answer in steps),
            says(_UPDATE, "UPDATE 1", session="two"),
            says("COMMIT", CONFLICT),
            says("SELECT to_regclass('later')", rows(None)),
        )
        for name, words, steps in (
            (
                "before",
                "before it",
                (
                    ("SELECT id FROM accounts WHERE id = 1 FOR UPDATE", rows("1")),
                    ("CREATE TABLE later ()", "CREATE TABLE"),
                ),
            ),
            (
                "behind",
                "behind it",
                (
                    ("CREATE TABLE later ()", "CREATE TABLE"),
                    ("SELECT id FROM accounts WHERE id = 1 FOR UPDATE", rows("1")),
                ),
            ),
            (
                "both",
                "on both sides",
                (
                    ("SELECT id FROM accounts WHERE id = 1 FOR UPDATE", rows("1")),
                    ("ALTER TABLE accounts RENAME COLUMN code TO name", "ALTER TABLE"),
                    ("SELECT id FROM entries WHERE id = 10 FOR UPDATE", rows("10")),
                ),
            ),
        )
    ),
    fact(
        "kept",
        "rows that nobody else changed are no hindrance, and stay as they are",
        says("BEGIN", "BEGIN"),
        says("SELECT id FROM accounts WHERE id = 1 FOR UPDATE", rows("1")),
        says("ALTER TABLE accounts ADD COLUMN later int", "ALTER TABLE"),
        says(_UPDATE_OTHER, "UPDATE 1", session="two"),
        says("COMMIT", "COMMIT"),
        says(
            "SELECT id, balance, later FROM accounts ORDER BY id",
            rows(("1", "100", None), ("2", "101", None), ("3", "100", None)),
        ),
    ),
    fact(
        "dropped",
        "the locked table itself may go",
        says("BEGIN", "BEGIN"),
        says("SELECT id FROM entries WHERE id = 10 FOR UPDATE", rows("10")),
        says("DROP TABLE entries", "DROP TABLE"),
        says("COMMIT", "COMMIT"),
        says("SELECT to_regclass('entries')", rows(None)),
    ),
    fact(
        "written-behind",
        "a lock is no DML, and lets none in",
        says("BEGIN", "BEGIN"),
        says("SELECT id FROM accounts WHERE id = 1 FOR UPDATE", rows("1")),
        says("CREATE TABLE later (id int)", "CREATE TABLE"),
        says(_UPDATE, refused("ddl and dml are not supported in the same transaction")),
        says("COMMIT", "ROLLBACK"),
    ),
]


@parametrized(MIXED)
def test_clauses_that_differ(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=TABLES)


@parametrized(STATEMENTS)
def test_several_locks(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=_PARENTS)


@parametrized(VIEWS)
def test_views_that_lock(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=_VIEWS)


@parametrized(DEFINITIONS)
def test_locks_beside_a_definition(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=TABLES)
