"""Scripts that once gave other answers than PostgreSQL, cut down to what it takes."""

from __future__ import annotations

from dataclasses import dataclass

from two_servers import Parameter, Step


@dataclass(frozen=True)
class Case:
    """``definitions`` create ``tables``; ``steps`` must give the same answers on both servers."""

    name: str
    tables: tuple[str, ...]
    definitions: tuple[str, ...]
    steps: tuple[Step, ...]


KNOWN = (
    Case(
        "a join on jsonb has no key encoding",
        ("k0", "k1"),
        ("CREATE TABLE k0 (a int PRIMARY KEY, j jsonb)", "CREATE TABLE k1 (a int PRIMARY KEY, j jsonb)"),
        (
            Step("INSERT INTO k0 VALUES (1, '{}'), (2, '1')"),
            Step("INSERT INTO k1 VALUES (1, '{}'), (2, '[]')"),
            Step("SELECT k0.a, (SELECT count(*) FROM k1 WHERE k1.j = k0.j) FROM k0 WHERE k0.a = 1"),
        ),
    ),
    Case(
        "an INSERT collides in a unique index with an expression",
        ("k0",),
        ("CREATE TABLE k0 (a int PRIMARY KEY, b bigint)", "CREATE UNIQUE INDEX ASYNC k0i ON k0 ((b % 5))"),
        (
            Step("INSERT INTO k0 VALUES (1, 7)"),
            Step("INSERT INTO k0 VALUES (2, 12)"),
            Step("INSERT INTO k0 VALUES ($1, $2)", (Parameter(b"3"), Parameter(b"2"))),
            Step("UPDATE k0 SET b = 8 WHERE a = 1"),
            Step("INSERT INTO k0 VALUES (2, 12) ON CONFLICT ((b % 5)) DO UPDATE SET b = 0"),
        ),
    ),
    Case(
        "an UPDATE brings a row into a partial unique index",
        ("k0",),
        ("CREATE TABLE k0 (a int PRIMARY KEY, b int, c bool)", "CREATE UNIQUE INDEX ASYNC k0i ON k0 (b) WHERE c"),
        (
            Step("INSERT INTO k0 VALUES (1, 1, true), (2, 1, false), (3, 2, false)"),
            Step("UPDATE k0 SET c = true WHERE a = 3"),
            Step("UPDATE k0 SET c = true WHERE a = 2"),
            Step("UPDATE k0 SET b = 1 WHERE a = 3"),
            Step("UPDATE k0 SET b = b + 1 WHERE a = 1"),
        ),
    ),
    Case(
        "two NULLs collide where NULLS NOT DISTINCT",
        ("k0",),
        ("CREATE TABLE k0 (a int, b int, UNIQUE NULLS NOT DISTINCT (a))",),
        (
            Step("INSERT INTO k0 (a, b) VALUES (NULL, 1)"),
            Step("INSERT INTO k0 (a, b) VALUES (NULL, 2)"),
            Step("INSERT INTO k0 (a, b) VALUES ($1, 3)", (Parameter(None, 23),)),
            Step("INSERT INTO k0 (b) VALUES (4)"),
            Step("INSERT INTO k0 (a, b) VALUES ($1, 5), (1, 6) ON CONFLICT DO NOTHING", (Parameter(None),)),
        ),
    ),
    Case(
        "the first of several collisions is the one that is reported",
        ("k0",),
        ("CREATE TABLE k0 (a int PRIMARY KEY, b int UNIQUE, c int UNIQUE)",),
        (
            Step("INSERT INTO k0 VALUES (1, 10, 100)"),
            Step("BEGIN"),
            Step("INSERT INTO k0 VALUES (2, 20, 200)"),
            Step("INSERT INTO k0 VALUES (3, 10, 200)"),
            Step("ROLLBACK"),
        ),
    ),
    Case(
        "columns are renamed to one another's names",
        ("k0",),
        (
            "CREATE TABLE k0 (a int PRIMARY KEY, b int)",
            "CREATE VIEW k0v AS SELECT s.a AS x, s.b AS y FROM k0 AS s (b, a)",
        ),
        (
            Step("INSERT INTO k0 VALUES (1, 2), (2, 1), (3, 3)"),
            Step("SELECT * FROM k0 AS s (b, a) WHERE s.a = 2"),
            Step("SELECT * FROM k0v WHERE x = 2"),
            Step("SELECT * FROM k0v JOIN k0 ON k0.a = k0v.x WHERE k0v.y = 3"),
        ),
    ),
    Case(
        "a multi-row INSERT keeps to the rows that it spells out",
        ("k0",),
        ("CREATE TABLE k0 (a bigint PRIMARY KEY, b varchar(3) UNIQUE, c numeric(4, 1))",),
        (
            Step("INSERT INTO k0 VALUES (1, 'x', 1.04), (2, 'y  ', 1.05)"),
            Step("INSERT INTO k0 (b, a) VALUES ('z', 3), ('y   ', 4) ON CONFLICT (b) DO UPDATE SET c = 9"),
            Step("INSERT INTO k0 (b, a) VALUES ('y', 5), ('q', 6) ON CONFLICT DO NOTHING RETURNING *"),
            Step("INSERT INTO k0 VALUES (1, DEFAULT, 2), (9, 'r', 2)"),
        ),
    ),
    Case(
        "cascades follow chains of a table's references to itself",
        ("k0",),
        ("CREATE TABLE k0 (a int PRIMARY KEY, up int REFERENCES k0 ON DELETE CASCADE ON UPDATE CASCADE)",),
        (
            Step("INSERT INTO k0 SELECT n, nullif(n - 1, 0) FROM generate_series(1, 40) n"),
            Step("UPDATE k0 SET a = 100 WHERE a = 7"),
            Step("DELETE FROM k0 WHERE a = 20"),
            Step("SELECT * FROM k0"),
            Step("DELETE FROM k0 WHERE a = 1"),
        ),
    ),
    Case(
        "a deferred constraint is checked at COMMIT",
        ("k0", "k1"),
        (
            "CREATE TABLE k0 (a int PRIMARY KEY)",
            "CREATE TABLE k1 (a int PRIMARY KEY, b int REFERENCES k0 DEFERRABLE INITIALLY DEFERRED)",
        ),
        (
            Step("INSERT INTO k1 VALUES (1, 1)"),
            Step("BEGIN"),
            Step("INSERT INTO k1 VALUES (1, 1)"),
            Step("INSERT INTO k0 VALUES (1)"),
            Step("COMMIT"),
            Step("DELETE FROM k0"),
            Step("BEGIN"),
            Step("DELETE FROM k0"),
            Step("SELECT * FROM k1"),
            Step("COMMIT"),
            Step("SELECT * FROM k0"),
        ),
    ),
    Case(
        "values are cut and rounded before they meet a key",
        ("k0", "k1"),
        (
            "CREATE TABLE k0 (a varchar(3) PRIMARY KEY, b numeric(6, 2) UNIQUE, c timestamp(0) UNIQUE, n int)",
            "CREATE TABLE k1 (a text PRIMARY KEY, n int)",
        ),
        (
            Step("INSERT INTO k0 VALUES ('ab ', 1.00, '2024-01-01 00:00:01', 1)"),
            Step("INSERT INTO k0 (a) VALUES ($1)", (Parameter(b"ab    "),)),
            Step("INSERT INTO k0 (a, n) VALUES ($1, 2) ON CONFLICT (a) DO UPDATE SET n = 2", (Parameter(b"ab    "),)),
            Step(
                "INSERT INTO k0 (a, b, n) VALUES ('x', $1, 3) ON CONFLICT (b) DO UPDATE SET n = 3",
                (Parameter(b"1.001"),),
            ),
            Step(
                "INSERT INTO k0 (a, c, n) VALUES ('y', $1, 4) ON CONFLICT (c) DO UPDATE SET n = 4",
                (Parameter(b"2024-01-01 00:00:00.7"),),
            ),
            Step("INSERT INTO k0 (a, b) VALUES ('z', 0.999)"),
            Step("INSERT INTO k0 (a, b) VALUES ('p', 5), ('q', 0.999) ON CONFLICT DO NOTHING"),
            Step("UPDATE k0 SET b = $1 WHERE a = 'p'", (Parameter(b"1.004"),)),
            Step("SELECT * FROM k0 WHERE a = $1::varchar(3)", (Parameter(b"ab ..."),)),
            Step("INSERT INTO k1 VALUES ('ab ', 1)"),
            Step("INSERT INTO k0 (a) SELECT a || '   ' FROM k1"),
        ),
    ),
    Case(
        "EXPLAIN calls the columns of a UNION by those of its first arm",
        ("k0", "k1"),
        ("CREATE TABLE k0 (a int PRIMARY KEY, b int)", "CREATE TABLE k1 (a int PRIMARY KEY, b int)"),
        (
            Step("INSERT INTO k0 VALUES (1, 10), (2, 20), (3, 30)"),
            Step("INSERT INTO k1 VALUES (10, 1), (20, 2), (30, 3)"),
            Step("SELECT * FROM (SELECT a FROM k0 UNION ALL SELECT b FROM k0) z JOIN k1 ON k1.a = z.a"),
            Step("SELECT * FROM (SELECT a FROM k0 UNION ALL SELECT b FROM k0) z WHERE z.a NOT IN (SELECT a FROM k1)"),
            Step(
                "SELECT z.a FROM (SELECT a FROM k0 WHERE b = 10 UNION ALL SELECT b FROM k0) z "
                "WHERE NOT EXISTS (SELECT 1 FROM k1 WHERE k1.a = z.a)"
            ),
            Step(
                "WITH RECURSIVE r(n) AS (SELECT a FROM k0 WHERE a = 1 UNION ALL "
                "SELECT k0.b FROM r JOIN k0 ON k0.a = r.n) SELECT n, (SELECT count(*) FROM k1 WHERE k1.a = r.n) FROM r"
            ),
        ),
    ),
    Case(
        "new references come from every arm of a UNION",
        ("k0", "k1"),
        ("CREATE TABLE k0 (a int PRIMARY KEY, b int)", "CREATE TABLE k1 (a int REFERENCES k0, b int)"),
        (
            Step("INSERT INTO k0 VALUES (1, 4), (2, 3), (3, 2), (4, 1)"),
            Step("INSERT INTO k1 SELECT a FROM k0 WHERE a = 1 UNION ALL SELECT b FROM k0 WHERE a = 2"),
            Step("INSERT INTO k1 SELECT b FROM k0 WHERE a = 1 UNION ALL SELECT a + 7 FROM k0 WHERE a = 2"),
        ),
    ),
    Case(
        "actions reach the children of rows that were changed before",
        ("k0", "k1", "k2"),
        (
            "CREATE TABLE k0 (a int PRIMARY KEY, b int)",
            "CREATE TABLE k1 (a int PRIMARY KEY, b int REFERENCES k0 ON DELETE CASCADE, c int)",
            "CREATE TABLE k2 (a int PRIMARY KEY, b int REFERENCES k1 ON DELETE SET NULL)",
        ),
        (
            Step("INSERT INTO k0 SELECT n, n FROM generate_series(1, 9) n"),
            Step("INSERT INTO k1 SELECT n, n, 0 FROM generate_series(1, 9) n"),
            Step("INSERT INTO k2 SELECT n, n FROM generate_series(1, 9) n"),
            Step("BEGIN"),
            Step("UPDATE k0 SET b = 50 WHERE a = 3"),
            Step("UPDATE k1 SET b = 4 WHERE a = 6"),
            Step("UPDATE k1 SET c = 1 WHERE a = 6"),
            Step("UPDATE k1 SET c = 2 WHERE a = 7"),
            Step("UPDATE k1 SET c = 3 WHERE a = 7"),
            Step("DELETE FROM k0 WHERE b = 50 OR a = 4"),
            Step("SELECT * FROM k1"),
            Step("SELECT * FROM k2"),
            Step("COMMIT"),
        ),
    ),
    Case(
        "orphans of a constraint that isn't validated stay as they are",
        ("k0", "k1"),
        ("CREATE TABLE k0 (a int PRIMARY KEY)", "CREATE TABLE k1 (a int PRIMARY KEY, b int, c int)"),
        (
            Step("INSERT INTO k0 VALUES (1), (2)"),
            Step("INSERT INTO k1 VALUES (1, 1, 0), (2, 77, 0), (3, 2, 0)"),
            Step("ALTER TABLE k1 ADD FOREIGN KEY (b) REFERENCES k0 ON DELETE CASCADE NOT VALID"),
            Step("UPDATE k1 SET c = 1 WHERE a = 2"),
            Step("UPDATE k1 SET c = 1, b = 77 WHERE a = 2"),
            Step("UPDATE k1 SET b = 78 WHERE a = 2"),
            Step("INSERT INTO k1 VALUES (4, 77, 0)"),
            Step("INSERT INTO k0 VALUES (77)"),
            Step("DELETE FROM k0 WHERE a = 77"),
        ),
    ),
    Case(
        "a key drawn from a sequence may be taken",
        ("k0",),
        ("CREATE TABLE k0 (a bigint GENERATED BY DEFAULT AS IDENTITY (CACHE 1) PRIMARY KEY, b int)",),
        (
            Step("INSERT INTO k0 VALUES (2, 0), (5, 0)"),
            Step("INSERT INTO k0 (b) VALUES (1) RETURNING *"),
            Step("INSERT INTO k0 (b) VALUES ($1)", (Parameter(b"2"),)),
            Step("BEGIN"),
            Step("INSERT INTO k0 (b) VALUES (3) RETURNING *"),
            Step("INSERT INTO k0 (b) VALUES (4) RETURNING *"),
            Step("INSERT INTO k0 (b) VALUES (5)"),
            Step("COMMIT"),
            Step("INSERT INTO k0 (b) VALUES (6) ON CONFLICT (a) DO UPDATE SET b = 7 RETURNING *"),
        ),
    ),
)
