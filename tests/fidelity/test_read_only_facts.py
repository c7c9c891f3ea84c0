"""Transactions and sessions of Aurora DSQL that only read."""

from __future__ import annotations

from facts import ONE_ROW, Fact, Witness, fact, parametrized, refused, request, rows, says

NO_INSERT = refused("cannot execute INSERT in a read-only transaction", "25006")

FACTS = [
    fact(
        "session",
        "SESSION CHARACTERISTICS make transactions read-only by default; BEGIN says otherwise where it wants to",
        says("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET"),
        says("SHOW default_transaction_read_only", rows("on")),
        says("SHOW transaction_read_only", rows("on")),
        says("SELECT a FROM t", rows("10")),
        says("SELECT count(*) FROM t", rows("1")),
        says("INSERT INTO t VALUES (2)", NO_INSERT),
        says("CREATE TABLE u (id int)", refused("cannot execute CREATE TABLE in a read-only transaction", "25006")),
        says("BEGIN READ WRITE", "BEGIN"),
        says("INSERT INTO t VALUES (2)", "INSERT 0 1"),
        says("SHOW transaction_read_only", rows("off")),
        says("COMMIT", "COMMIT"),
        says("BEGIN", "BEGIN"),
        says("SELECT count(*) FROM t", rows("2")),
        says("INSERT INTO t VALUES (3)", NO_INSERT),
        says("COMMIT", "ROLLBACK"),
        says("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET"),
        says("INSERT INTO t VALUES (3)", "INSERT 0 1"),
    ),
    fact(
        "undone",
        "a transaction that rolls back takes its SET along, and RESET ALL resets it",
        says("BEGIN", "BEGIN"),
        says("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET"),
        says("ROLLBACK", "ROLLBACK"),
        says("INSERT INTO t VALUES (2)", "INSERT 0 1"),
        says("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET"),
        says("RESET ALL", "RESET"),
        says("INSERT INTO t VALUES (3)", "INSERT 0 1"),
    ),
    fact(
        "block",
        "BEGIN READ ONLY shows in transaction_read_only, and ends with its block",
        says("BEGIN READ ONLY", "BEGIN"),
        says("SHOW transaction_read_only", rows("on")),
        says("SHOW default_transaction_read_only", rows("off")),
        says("SELECT a FROM t WHERE id = 1", rows("10")),
        says("COMMIT", "COMMIT"),
        says("SHOW transaction_read_only", rows("off")),
    ),
    fact(
        "block-by-function",
        "current_setting() and pg_settings say the same as SHOW",
        says("BEGIN READ ONLY", "BEGIN"),
        says("SELECT current_setting('transaction_read_only')", rows("on")),
        says("SELECT setting FROM pg_settings WHERE name = 'transaction_read_only'", rows("on")),
        says("SELECT current_setting('default_transaction_read_only')", rows("off")),
        says("COMMIT", "COMMIT"),
        says("SELECT current_setting('transaction_read_only')", rows("off")),
        says("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET"),
        says("SELECT current_setting('default_transaction_read_only', true)", rows("on")),
        says("BEGIN READ WRITE", "BEGIN"),
        says("SELECT current_setting('transaction_read_only', true)", rows("off")),
        says("COMMIT", "COMMIT"),
        says("SELECT current_setting('transaction_read_only')", rows("on")),
    ),
    *(
        fact(
            f"refused-{number}",
            "what writes or locks is refused by its name; what is explained only, isn't",
            says("BEGIN READ ONLY", "BEGIN"),
            says(f"EXPLAIN {explained}", "EXPLAIN"),
            says(sql, refused(f"cannot execute {name} in a read-only transaction", "25006")),
            says("COMMIT", "ROLLBACK"),
        )
        for number, (sql, name, explained) in enumerate(
            (
                ("SELECT a FROM t FOR UPDATE", "SELECT FOR UPDATE", "SELECT a FROM t FOR UPDATE"),
                ("SELECT a FROM t FOR KEY SHARE", "SELECT FOR KEY SHARE", "SELECT a FROM t FOR KEY SHARE"),
                ("EXPLAIN ANALYZE UPDATE t SET a = 1", "UPDATE", "UPDATE t SET a = 1"),
                ("EXPLAIN ANALYZE SELECT a FROM t FOR UPDATE", "SELECT FOR UPDATE", "DELETE FROM t"),
                ("COPY t FROM STDIN", "COPY FROM", "INSERT INTO t VALUES (2)"),
            )
        )
    ),
    fact(
        "names-first",
        "what isn't there is said before the transaction may not write, in both protocols",
        *(
            step
            for sql, error in (
                ("INSERT INTO nosuch VALUES (1)", refused('relation "nosuch" does not exist', "42P01")),
                (
                    "UPDATE t SET b = 1",
                    refused('column "b" of relation "t" does not exist', "42703"),
                ),
            )
            for step in (
                says("BEGIN READ ONLY", "BEGIN"),
                request(sql, error),
                says("ROLLBACK", "ROLLBACK"),
                says("BEGIN READ ONLY", "BEGIN"),
                says(sql, error),
                says("ROLLBACK", "ROLLBACK"),
            )
        ),
    ),
    fact(
        "not-by-parameter",
        "the parameters themselves can't be set, nor can a snapshot",
        *(
            says(f"SET {name} = on", refused(f'setting configuration parameter "{name}" not supported'))
            for name in ("transaction_read_only", "default_transaction_read_only")
        ),
        says(
            "SET TRANSACTION SNAPSHOT 'x'",
            refused('setting configuration parameter "TRANSACTION SNAPSHOT" not supported'),
        ),
    ),
]


@parametrized(FACTS)
def test_reading_only(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=ONE_ROW)
