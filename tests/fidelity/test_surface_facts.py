"""What Aurora DSQL has of PostgreSQL's SQL: queries, writes and definitions that run, with what they answer."""

from __future__ import annotations

from facts import Fact, Witness, fact, parametrized, refused, rows, says

ITEMS = (
    "CREATE TABLE items (id int PRIMARY KEY, kind text, price numeric(10,2), data jsonb)",
    "INSERT INTO items VALUES (1, 'a', 10, '{\"k\": 1}'), (2, 'a', 20, '{\"k\": 2}'), (3, 'b', 30, NULL)",
)

QUERIES = [
    fact(
        "recursive-cte",
        "WITH RECURSIVE runs",
        says(
            "WITH RECURSIVE n AS (SELECT 1 AS v UNION ALL SELECT v + 1 FROM n WHERE v < 3) SELECT v FROM n",
            rows("1", "2", "3"),
        ),
    ),
    fact(
        "pages",
        "LIMIT, FETCH FIRST and OFFSET, together and each alone",
        says("SELECT id FROM items ORDER BY id LIMIT 1", rows("1")),
        says("SELECT id FROM items ORDER BY id OFFSET 1", rows("2", "3")),
        says("SELECT id FROM items ORDER BY id OFFSET 1 ROWS FETCH FIRST ROW ONLY", rows("2")),
        says("SELECT count(*) FROM (SELECT id FROM items OFFSET 1) AS later", rows("2")),
        says("SELECT max(id), min(id) FROM items", rows(("3", "1"))),
    ),
    fact(
        "joins",
        "inner, left, right and full joins run",
        says("SELECT count(*) FROM items a JOIN items b USING (kind)", rows("5")),
        says("SELECT count(*) FROM items a FULL JOIN items b ON a.id = b.id + 1", rows("4")),
        says("SELECT count(*) FROM items a LEFT JOIN items b ON false RIGHT JOIN items c ON a.id = c.id", rows("3")),
    ),
    fact(
        "lateral",
        "LATERAL goes with inner and cross joins",
        says(
            "SELECT a.id, l.n FROM items a CROSS JOIN LATERAL (SELECT a.id * 2 AS n) l ORDER BY 1",
            rows(("1", "2"), ("2", "4"), ("3", "6")),
        ),
        says(
            "SELECT count(*) FROM items a JOIN LATERAL (SELECT * FROM items b WHERE b.kind = a.kind) l ON true",
            rows("5"),
        ),
    ),
    fact(
        "windows",
        "window functions run",
        says(
            "SELECT id, rank() OVER (PARTITION BY kind ORDER BY price DESC) FROM items ORDER BY id",
            rows(("1", "2"), ("2", "1"), ("3", "1")),
        ),
    ),
    fact(
        "grouping",
        "GROUPING SETS, ROLLUP, CUBE, FILTER and DISTINCT ON run",
        says(
            "SELECT kind, sum(price) FROM items GROUP BY ROLLUP (kind) ORDER BY 1",
            rows(("a", "30.00"), ("b", "30.00"), (None, "60.00")),
        ),
        says("SELECT count(*) FROM (SELECT 1 FROM items GROUP BY CUBE (kind, id)) g", rows("9")),
        says("SELECT count(*) FROM (SELECT 1 FROM items GROUP BY GROUPING SETS ((kind), ())) g", rows("3")),
        says("SELECT count(*) FILTER (WHERE kind = 'a') FROM items", rows("2")),
        says("SELECT DISTINCT ON (kind) kind, id FROM items ORDER BY kind, id DESC", rows(("a", "2"), ("b", "3"))),
    ),
    fact(
        "set-operations",
        "UNION, INTERSECT and EXCEPT run",
        says("SELECT kind FROM items UNION SELECT 'c' ORDER BY 1", rows("a", "b", "c")),
        says("SELECT kind FROM items INTERSECT SELECT 'a'", rows("a")),
        says("SELECT kind FROM items EXCEPT SELECT 'a'", rows("b")),
    ),
    fact(
        "series",
        "generate_series and unnest run",
        says("SELECT sum(g) FROM generate_series(1, 4) g", rows("10")),
        says("SELECT * FROM unnest(ARRAY[1, 2]) WITH ORDINALITY", rows(("1", "1"), ("2", "2"))),
    ),
    fact(
        "for-update",
        "FOR UPDATE locks without an equality on the primary key, and in joins",
        says("SELECT id FROM items WHERE price > 15 ORDER BY id FOR UPDATE", rows("2", "3")),
        says("SELECT a.id FROM items a JOIN items b ON b.id = a.id WHERE a.kind = 'b' FOR UPDATE OF a", rows("3")),
        says("SELECT id FROM items WHERE id = 1 FOR KEY SHARE", rows("1")),
    ),
    fact(
        "insert",
        "INSERT takes VALUES, SELECT, DEFAULT VALUES, ON CONFLICT and RETURNING",
        says("INSERT INTO items (id) VALUES (4) RETURNING id, kind", rows(("4", None))),
        says("INSERT INTO items (id, kind) SELECT id + 10, kind FROM items WHERE id < 3", "INSERT 0 2"),
        says("INSERT INTO items (id) VALUES (1) ON CONFLICT DO NOTHING", "INSERT 0 0"),
        says(
            "INSERT INTO items (id, kind) VALUES (1, 'z') "
            "ON CONFLICT (id) DO UPDATE SET kind = excluded.kind || items.kind RETURNING kind",
            rows("za"),
        ),
        says("CREATE TABLE defaults (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int DEFAULT 7)", "CREATE TABLE"),
        says("INSERT INTO defaults DEFAULT VALUES RETURNING n", rows("7")),
    ),
    fact(
        "update",
        "UPDATE takes FROM, WITH and RETURNING",
        says("UPDATE items SET price = b.p FROM (VALUES (1, 5)) b (i, p) WHERE id = b.i RETURNING price", rows("5.00")),
        says(
            "WITH cheap AS (SELECT id FROM items WHERE price < 25) "
            "UPDATE items SET kind = 'c' WHERE id IN (SELECT id FROM cheap)",
            "UPDATE 2",
        ),
    ),
    fact(
        "delete",
        "DELETE takes USING and RETURNING",
        says("DELETE FROM items USING (VALUES ('b')) k (v) WHERE kind = k.v RETURNING id", rows("3")),
    ),
    fact(
        "json",
        "JSON functions and operators run",
        says(
            "SELECT data ->> 'k', data @> '{\"k\": 1}', jsonb_path_exists(data, '$.k') FROM items WHERE id = 1",
            rows(("1", "t", "t")),
        ),
        says("SELECT jsonb_agg(id ORDER BY id) FROM items", rows("[1, 2, 3]")),
        says("SELECT * FROM json_to_recordset('[{\"a\": 1}]') AS x (a int)", rows("1")),
        says(
            "SELECT count(*) FROM pg_proc WHERE proname LIKE '%json%' AND NOT has_function_privilege(oid, 'execute')",
            rows("0"),
        ),
        says("SELECT count(*) > 120 FROM pg_proc WHERE proname ~ '^jsonb?_'", rows("t")),
    ),
    fact(
        "analyze",
        "ANALYZE of a table runs on its own, not in a transaction block",
        says("ANALYZE items", "ANALYZE"),
        says("ANALYZE", "ANALYZE"),
        says("ANALYZE nosuch", refused('relation "nosuch" does not exist', "42P01")),
        says("BEGIN", "BEGIN"),
        says("ANALYZE items", refused("ANALYZE cannot run inside a transaction block", "25001")),
    ),
]

DEFINITIONS = [
    fact(
        "table-elements",
        "CREATE TABLE has CHECK, DEFAULT, NOT NULL, generated columns, identities, UNIQUE, INCLUDE and STORAGE",
        says(
            "CREATE TABLE all_of (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 65536), "
            "a int NOT NULL DEFAULT 1 CHECK (a > 0), b int GENERATED ALWAYS AS (a * 2) STORED, "
            "c text STORAGE EXTERNAL, d text STORAGE MAIN, e text STORAGE PLAIN, f text STORAGE EXTENDED, "
            "g text STORAGE DEFAULT, u int UNIQUE NULLS NOT DISTINCT, PRIMARY KEY (id) INCLUDE (a))",
            "CREATE TABLE",
        ),
        says("INSERT INTO all_of (a) VALUES (3) RETURNING b", rows("6")),
        says(
            "INSERT INTO all_of (a) VALUES (4)",
            refused('duplicate key value violates unique constraint "all_of_u_key"', "23505"),
        ),
        says(
            "INSERT INTO all_of (id) VALUES (5)", refused('cannot insert a non-DEFAULT value into column "id"', "428C9")
        ),
    ),
    fact(
        "like",
        "CREATE TABLE takes LIKE with its options",
        says("CREATE TABLE first (id int PRIMARY KEY, v text DEFAULT 'x' CHECK (v <> ''))", "CREATE TABLE"),
        says("CREATE TABLE second (LIKE first INCLUDING ALL)", "CREATE TABLE"),
        says("INSERT INTO second (id) VALUES (1) RETURNING v", rows("x")),
        says(
            "INSERT INTO second (id) VALUES (1)",
            refused('duplicate key value violates unique constraint "second_pkey"', "23505"),
        ),
    ),
    fact(
        "no-primary-key",
        "a table without a primary key has a hidden key: equal rows are two rows",
        says("CREATE TABLE loose (v int)", "CREATE TABLE"),
        says("INSERT INTO loose VALUES (1), (1)", "INSERT 0 2"),
        says("SELECT * FROM loose", rows("1", "1")),
        says("DELETE FROM loose WHERE v = 1", "DELETE 2"),
    ),
    fact(
        "view",
        "CREATE VIEW, OR REPLACE and RECURSIVE",
        says("CREATE VIEW v AS SELECT 1 AS a", "CREATE VIEW"),
        says("CREATE OR REPLACE VIEW v AS SELECT 2 AS a, 3 AS b", "CREATE VIEW"),
        says("CREATE RECURSIVE VIEW r (n) AS SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3", "CREATE VIEW"),
        says("SELECT a, b, (SELECT max(n) FROM r) FROM v", rows(("2", "3", "3"))),
        says("ALTER VIEW v RENAME TO w", "ALTER VIEW"),
        says("DROP VIEW w, r", "DROP VIEW"),
    ),
    fact(
        "domain",
        "domains with CHECK constraints stand in for enums",
        says("CREATE DOMAIN mood AS text CHECK (VALUE IN ('sad', 'ok'))", "CREATE DOMAIN"),
        says("CREATE TABLE moods (m mood)", "CREATE TABLE"),
        says(
            "INSERT INTO moods VALUES ('bogus')",
            refused('value for domain mood violates check constraint "mood_check"', "23514"),
        ),
        says("ALTER DOMAIN mood SET DEFAULT 'ok'", "ALTER DOMAIN"),
        says("DROP DOMAIN mood CASCADE", "DROP DOMAIN"),
    ),
    fact(
        "sequence",
        "sequences say their CACHE, 1 or at least 65536",
        says("CREATE SEQUENCE one CACHE 1", "CREATE SEQUENCE"),
        says("CREATE SEQUENCE block CACHE 65536 START 100", "CREATE SEQUENCE"),
        says(
            "CREATE SEQUENCE two CACHE 2",
            refused("CACHE (2) must be greater than or equal to 65536 or equal to 1", "22023"),
        ),
        says("SELECT nextval('one'), nextval('one'), nextval('block')", rows(("1", "2", "100"))),
        says("ALTER SEQUENCE one RESTART WITH 50", "ALTER SEQUENCE"),
        says("SELECT nextval('one')", rows("50")),
        says("DROP SEQUENCE one, block", "DROP SEQUENCE"),
    ),
    fact(
        "function",
        "functions in LANGUAGE SQL run",
        says("CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2'", "CREATE FUNCTION"),
        says("CREATE FUNCTION thrice(n int) RETURNS int LANGUAGE sql RETURN n * 3", "CREATE FUNCTION"),
        says("SELECT twice(4), thrice(4)", rows(("8", "12"))),
        says("ALTER FUNCTION twice(int) RENAME TO doubled", "ALTER FUNCTION"),
        says("DROP FUNCTION doubled, thrice", "DROP FUNCTION"),
        says("DROP ROUTINE IF EXISTS doubled(int)", "DROP ROUTINE"),
    ),
    fact(
        "schema",
        "CREATE SCHEMA takes tables and views along",
        says("CREATE SCHEMA s CREATE TABLE t (id int) CREATE VIEW w AS SELECT id FROM t", "CREATE SCHEMA"),
        says("SELECT count(*) FROM s.w", rows("0")),
        says("ALTER SCHEMA s RENAME TO s2", "ALTER SCHEMA"),
        says("DROP SCHEMA s2 CASCADE", "DROP SCHEMA"),
    ),
    fact(
        "statistics",
        "extended statistics are made, altered up to a target of 100, and dropped",
        says("CREATE TABLE t (a int, b int)", "CREATE TABLE"),
        says("CREATE STATISTICS st (ndistinct, dependencies) ON a, b FROM t", "CREATE STATISTICS"),
        says("ALTER STATISTICS st SET STATISTICS 100", "ALTER STATISTICS"),
        says(
            "ALTER STATISTICS st SET STATISTICS 101",
            refused("statistics target 101 exceeds maximum allowed value of 100", "22023"),
        ),
        says("DROP STATISTICS st", "DROP STATISTICS"),
    ),
    fact(
        "comment",
        "comments on tables, columns, constraints and indexes are kept until they are NULL",
        says("CREATE TABLE t (id int CONSTRAINT k PRIMARY KEY)", "CREATE TABLE"),
        says("COMMENT ON TABLE t IS 'a table'", "COMMENT"),
        says("COMMENT ON COLUMN t.id IS 'a column'", "COMMENT"),
        says("COMMENT ON CONSTRAINT k ON t IS 'a key'", "COMMENT"),
        says("COMMENT ON INDEX k IS 'an index'", "COMMENT"),
        says("SELECT obj_description('t'::regclass), col_description('t'::regclass, 1)", rows(("a table", "a column"))),
        says("COMMENT ON TABLE t IS NULL", "COMMENT"),
        says("SELECT obj_description('t'::regclass)", rows(None)),
    ),
    *(
        fact(
            f"comment-on-{kind.lower()}",
            f"so are comments on a {kind.lower()}",
            says(definition, " ".join(definition.split()[:2])),
            says(f"COMMENT ON {kind} {name} IS 'what it is'", "COMMENT"),
            says("SELECT description FROM pg_description WHERE description = 'what it is'", rows("what it is")),
        )
        for kind, name, definition in (
            ("VIEW", "x", "CREATE VIEW x AS SELECT 1 AS a"),
            ("SEQUENCE", "x", "CREATE SEQUENCE x CACHE 1"),
            ("FUNCTION", "x(int)", "CREATE FUNCTION x(n int) RETURNS int LANGUAGE sql AS 'SELECT 1'"),
            ("SCHEMA", "x", "CREATE SCHEMA x"),
            ("DOMAIN", "x", "CREATE DOMAIN x AS int"),
        )
    ),
    fact(
        "foreign-keys",
        "foreign keys have all actions, MATCH FULL, column lists and DEFERRABLE",
        says("CREATE TABLE parent (id int PRIMARY KEY, code text UNIQUE)", "CREATE TABLE"),
        says(
            "CREATE TABLE child (id int PRIMARY KEY, a int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, "
            "b int DEFAULT 1 REFERENCES parent ON DELETE SET DEFAULT, c int REFERENCES parent ON DELETE SET NULL (c), "
            "d text REFERENCES parent (code) MATCH FULL ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED)",
            "CREATE TABLE",
        ),
        says("INSERT INTO parent VALUES (1, 'x'), (2, 'y'), (3, 'z')", "INSERT 0 3"),
        says("INSERT INTO child VALUES (1, 2, 1, 1, NULL), (2, NULL, 3, 3, 'x')", "INSERT 0 2"),
        says("DELETE FROM parent WHERE id = 3", "DELETE 1"),
        says("SELECT b, c FROM child WHERE id = 2", rows(("1", None))),
        says("DELETE FROM parent WHERE id = 2", "DELETE 1"),
        says("SELECT id FROM child", rows("2")),
        says(
            "DELETE FROM parent WHERE id = 1",
            refused(
                'update or delete on table "parent" violates foreign key constraint "child_b_fkey" on table "child"',
                "23503",
            ),
        ),
        says("BEGIN", "BEGIN"),
        says("SET CONSTRAINTS ALL DEFERRED", "SET CONSTRAINTS"),
        says("INSERT INTO child (id, d) VALUES (3, 'later')", "INSERT 0 1"),
        says("INSERT INTO parent VALUES (4, 'later')", "INSERT 0 1"),
        says("COMMIT", "COMMIT"),
        says("SELECT d FROM child WHERE id = 3", rows("later")),
    ),
    fact(
        "grants",
        "roles, grants, default privileges and their revocation",
        says("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE"),
        says("GRANT SELECT, INSERT ON t TO PUBLIC", "GRANT"),
        says("REVOKE INSERT ON t FROM PUBLIC", "REVOKE"),
        says("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC", "GRANT"),
    ),
    fact(
        "default-privileges",
        "default privileges are those of what is made later",
        says("CREATE TABLE before (id int)", "CREATE TABLE"),
        says("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC", "ALTER DEFAULT PRIVILEGES"),
        says("CREATE TABLE later (id int)", "CREATE TABLE"),
        says(
            "SELECT grantee, privilege_type FROM information_schema.table_privileges "
            "WHERE table_name = 'later' AND grantee = 'PUBLIC'",
            rows(("PUBLIC", "SELECT")),
        ),
        says("SELECT relacl FROM pg_class WHERE relname = 'before'", rows(None)),
        says(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM PUBLIC", "ALTER DEFAULT PRIVILEGES"
        ),
        says("CREATE TABLE even_later (id int)", "CREATE TABLE"),
        says("SELECT relacl FROM pg_class WHERE relname = 'even_later'", rows(None)),
    ),
]

ALTERATIONS = [
    fact(
        "add-column",
        "ADD COLUMN takes a name and a type; rows that are there have NULL",
        says("ALTER TABLE items ADD COLUMN note text STORAGE EXTERNAL", "ALTER TABLE"),
        says("ALTER TABLE items ADD COLUMN IF NOT EXISTS note int", "ALTER TABLE"),
        says("SELECT note FROM items WHERE id = 1", rows(None)),
    ),
    fact(
        "drop-column",
        "DROP COLUMN of any column but the primary key's",
        says("ALTER TABLE items DROP COLUMN price", "ALTER TABLE"),
        says("SELECT * FROM items WHERE id = 3", rows(("3", "b", None))),
        says("ALTER TABLE items DROP COLUMN IF EXISTS price", "ALTER TABLE"),
    ),
    fact(
        "defaults",
        "SET and DROP DEFAULT, DROP NOT NULL",
        says("ALTER TABLE items ALTER kind SET DEFAULT 'new'", "ALTER TABLE"),
        says("INSERT INTO items (id) VALUES (9) RETURNING kind", rows("new")),
        says("ALTER TABLE items ALTER kind DROP DEFAULT", "ALTER TABLE"),
        says("CREATE TABLE strict (id int PRIMARY KEY, v int NOT NULL)", "CREATE TABLE"),
        says("ALTER TABLE strict ALTER v DROP NOT NULL", "ALTER TABLE"),
        says("INSERT INTO strict VALUES (1)", "INSERT 0 1"),
    ),
    fact(
        "drop-expression",
        "DROP EXPRESSION keeps what was generated",
        says("CREATE TABLE g (id int PRIMARY KEY, v int GENERATED ALWAYS AS (id * 2) STORED)", "CREATE TABLE"),
        says("INSERT INTO g VALUES (1)", "INSERT 0 1"),
        says("ALTER TABLE g ALTER v DROP EXPRESSION", "ALTER TABLE"),
        says("UPDATE g SET v = v + 1 RETURNING v", rows("3")),
    ),
    fact(
        "identity",
        "a bigint column becomes an identity, changes as one, and ceases to be one",
        says("CREATE TABLE t (id bigint PRIMARY KEY, v int)", "CREATE TABLE"),
        says("ALTER TABLE t ALTER id ADD GENERATED BY DEFAULT AS IDENTITY (CACHE 1)", "ALTER TABLE"),
        says("INSERT INTO t (v) VALUES (1) RETURNING id", rows("1")),
        says("ALTER TABLE t ALTER id SET GENERATED ALWAYS SET INCREMENT BY 10", "ALTER TABLE"),
        says("ALTER TABLE t ALTER id RESTART WITH 100", "ALTER TABLE"),
        says("INSERT INTO t (v) VALUES (2), (3) RETURNING id", rows("100", "110")),
        says("ALTER TABLE t ALTER id DROP IDENTITY", "ALTER TABLE"),
        says("ALTER TABLE t ALTER id DROP IDENTITY IF EXISTS", "ALTER TABLE"),
    ),
    fact(
        "not-valid",
        "constraints come NOT VALID and are validated by a job",
        says("ALTER TABLE items ADD CONSTRAINT positive CHECK (price > 0) NOT VALID", "ALTER TABLE"),
        says(
            "INSERT INTO items (id, price) VALUES (8, -1)",
            refused('new row for relation "items" violates check constraint "positive"', "23514"),
        ),
        says("ALTER TABLE ASYNC items VALIDATE CONSTRAINT positive", "ALTER TABLE"),
        says("ALTER TABLE items ADD CONSTRAINT self FOREIGN KEY (id) REFERENCES items NOT VALID", "ALTER TABLE"),
        says("ALTER TABLE items ALTER CONSTRAINT self DEFERRABLE INITIALLY DEFERRED", "ALTER TABLE"),
        says("ALTER TABLE items RENAME CONSTRAINT self TO own", "ALTER TABLE"),
        says("ALTER TABLE items DROP CONSTRAINT own", "ALTER TABLE"),
    ),
    fact(
        "names-and-owners",
        "tables are renamed, moved between schemas and given to roles",
        says("ALTER TABLE items RENAME TO things", "ALTER TABLE"),
        says("ALTER TABLE things RENAME COLUMN kind TO sort", "ALTER TABLE"),
        says("ALTER TABLE things OWNER TO CURRENT_USER", "ALTER TABLE"),
        says("CREATE SCHEMA store", "CREATE SCHEMA"),
        says("ALTER TABLE things SET SCHEMA store", "ALTER TABLE"),
        says("SELECT sort FROM store.things WHERE id = 3", rows("b")),
        says("ALTER TABLE store.things ALTER sort SET STORAGE EXTERNAL", "ALTER TABLE"),
    ),
]


@parametrized(QUERIES)
def test_queries_and_writes(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=ITEMS)


@parametrized(DEFINITIONS)
def test_definitions(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact)


@parametrized(ALTERATIONS)
def test_alterations(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=ITEMS)
