"""Further statements of the grammar's productions: for the alternatives and clauses that the first ones leave out.

As in :mod:`grammar_statements`, they run or are refused with a SQLSTATE and a message.
"""

from __future__ import annotations

from grammar_statements import Refused

_XML = ("0A000", "unsupported XML feature")
_INTO = ("0A000", "unsupported statement: CreateTableAs")
_NO_SORT = ("0A000", "specifying sort order not supported for index keys")
_NO_OPCLASS = ("0A000", "opclass not supported for index keys")
_RECURSIVE = "WITH RECURSIVE x (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM x WHERE n < 3)"

ALTERNATIVES: dict[str, tuple[str | Refused, ...]] = {
    # -- definitions
    "CreateSchemaStmt": (
        "CREATE SCHEMA one CREATE VIEW x (a) AS SELECT 1 CREATE TABLE y (id int)",
        (
            "CREATE SCHEMA IF NOT EXISTS one CREATE TABLE x (id int)",
            "0A000",
            "CREATE SCHEMA IF NOT EXISTS cannot include schema elements",
        ),
    ),
    "ViewStmt": (
        "CREATE VIEW w (p, q) AS SELECT 1, 2",
        "CREATE OR REPLACE VIEW w (p) AS SELECT 1",
        ("CREATE TEMP VIEW w AS SELECT 1", "0A000", "TEMPORARY or TEMP view not supported for CREATE VIEW"),
    ),
    "CreateStmt": ("CREATE TABLE IF NOT EXISTS g.x (id int, b text)",),
    "ConstraintAttributeSpec": ("CREATE TABLE x (a int, CHECK (a > 0) NOT VALID NO INHERIT)",),
    "TableLikeOption": tuple(
        f"CREATE TABLE x (LIKE u INCLUDING ALL EXCLUDING {option})"
        for option in (
            "COMMENTS",
            "CONSTRAINTS",
            "DEFAULTS",
            "IDENTITY",
            "GENERATED",
            "INDEXES",
            "STATISTICS",
            "STORAGE",
        )
    ),
    "ColConstraint": (
        "CREATE TABLE x (a int CONSTRAINT n NULL CONSTRAINT c CHECK (a > 0) CONSTRAINT k UNIQUE)",
        "CREATE DOMAIN x AS int CONSTRAINT n NOT NULL CONSTRAINT c CHECK (VALUE > 0) DEFAULT 1",
    ),
    "OptConsTableSpace": (
        "CREATE TABLE x (a int PRIMARY KEY USING INDEX TABLESPACE pg_default)",
        ("CREATE TABLE x (a int UNIQUE USING INDEX TABLESPACE n)", "42704", 'tablespace "n" does not exist'),
    ),
    "columnDef": ("CREATE TABLE x (a text STORAGE PLAIN UNIQUE CHECK (a <> ''))",),
    "IndexStmt": (
        "CREATE UNIQUE INDEX ASYNC IF NOT EXISTS x ON t (b) INCLUDE (a) NULLS NOT DISTINCT WHERE a > 1",
        "CREATE UNIQUE INDEX ASYNC x ON ONLY t (b) NULLS DISTINCT",
        "CREATE UNIQUE INDEX ASYNC ON t (a, b)",
        ("CREATE UNIQUE INDEX x ON t (b)", "0A000", "unsupported mode. please use CREATE INDEX ASYNC."),
    ),
    "index_elem_options": (
        'CREATE INDEX ASYNC x ON t (b COLLATE "C" NULLS FIRST)',
        ("CREATE INDEX ASYNC x ON t (b text_ops NULLS LAST)", *_NO_OPCLASS),
        ("CREATE INDEX ASYNC x ON t (b text_ops (fillfactor = 1))", *_NO_OPCLASS),
        ('CREATE INDEX ASYNC x ON t (b COLLATE "C" ASC NULLS FIRST)', *_NO_SORT),
        ("CREATE INDEX ASYNC x ON t ((a + 1) DESC)", *_NO_SORT),
    ),
    "SeqOptElemWithoutCache": (
        "CREATE SEQUENCE x CACHE 1 RESTART",
        "CREATE SEQUENCE x CACHE 1 MINVALUE 1 RESTART WITH 5",
        "CREATE SEQUENCE x CACHE 1 INCREMENT -1 MAXVALUE -1 MINVALUE -9 START -1",
        "CREATE SEQUENCE g.x CACHE 65536 AS bigint NO MINVALUE NO MAXVALUE NO CYCLE OWNED BY NONE",
        ("CREATE SEQUENCE x CACHE 1 LOGGED", "XX000", 'option "logged" not recognized'),
        ("CREATE SEQUENCE x CACHE 1 UNLOGGED", "XX000", 'option "unlogged" not recognized'),
        ("CREATE SEQUENCE x CACHE 1 SEQUENCE NAME y", "42601", "invalid sequence option SEQUENCE NAME"),
    ),
    "NumericOnly": (
        "SET TIME ZONE -3.5",
        "SET TIME ZONE +3",
        "SET TIME ZONE 5.5",
        "ALTER SEQUENCE s MINVALUE -7 RESTART -3",
    ),
    "SeqOptElem": ("ALTER SEQUENCE s INCREMENT BY 2", "ALTER SEQUENCE s CACHE 1", "ALTER SEQUENCE s RESTART 7"),
    "AlterDomainStmt": (
        "ALTER DOMAIN dom SET DEFAULT 2",
        "ALTER DOMAIN dom DROP CONSTRAINT dom_check",
    ),
    # -- roles
    "CreateOptRoleElem": (
        "CREATE ROLE x WITH INHERIT ADMIN grammar_role",
        "CREATE ROLE x ROLE grammar_role, CURRENT_ROLE",
        "CREATE ROLE x IN ROLE grammar_role LOGIN",
    ),
    "AlterRoleSetStmt": (
        "ALTER ROLE grammar_role SET search_path TO g, public",
        "ALTER ROLE grammar_role SET TIME ZONE 'UTC'",
        "ALTER USER grammar_role RESET ALL",
        "ALTER ROLE grammar_role SET search_path TO DEFAULT",
    ),
    "GrantStmt": (
        "GRANT ALL PRIVILEGES ON TABLE t, u TO grammar_role, PUBLIC",
        "GRANT SELECT (a, b), UPDATE (a) ON t TO GROUP grammar_role WITH GRANT OPTION GRANTED BY CURRENT_USER",
        "GRANT ALL ON ALL TABLES IN SCHEMA g, moved TO grammar_role",
        "GRANT ALL ON SEQUENCE s TO grammar_role GRANTED BY SESSION_USER",
    ),
    "RevokeStmt": (
        "REVOKE ALL PRIVILEGES (a) ON t FROM grammar_role CASCADE",
        "REVOKE GRANT OPTION FOR ALL ON SEQUENCE s FROM grammar_role, PUBLIC RESTRICT",
        "REVOKE SELECT ON ALL TABLES IN SCHEMA g FROM grammar_role GRANTED BY CURRENT_ROLE",
    ),
    "GrantRoleStmt": ("GRANT grammar_role TO CURRENT_ROLE, SESSION_USER",),
    # -- changes
    "alter_table_cmd": (
        "ALTER TABLE t ENABLE TRIGGER ALL",
        "ALTER TABLE t ENABLE TRIGGER USER",
        "ALTER TABLE t DISABLE TRIGGER ALL",
        "ALTER TABLE t DISABLE TRIGGER USER",
        "ALTER TABLE ONLY t ADD c text STORAGE DEFAULT, ADD d int",
        "ALTER TABLE t ALTER COLUMN b SET STORAGE DEFAULT",
        "ALTER TABLE u ALTER e DROP EXPRESSION",
        "ALTER TABLE IF EXISTS nothing ADD COLUMN c int",
    ),
    "alter_identity_column_option": (
        "ALTER TABLE u ALTER COLUMN n SET GENERATED ALWAYS RESTART WITH 7 SET INCREMENT 2",
        "ALTER TABLE u ALTER n SET CACHE 1",
        "ALTER TABLE u ALTER n RESTART 9",
    ),
    "AlterObjectSchemaStmt": (
        "ALTER SEQUENCE IF EXISTS nothing SET SCHEMA moved",
        "ALTER TABLE ONLY t SET SCHEMA moved",
    ),
    "RenameStmt": (
        "ALTER VIEW v RENAME TO h",
        "ALTER TABLE IF EXISTS nothing RENAME TO h",
        "ALTER INDEX IF EXISTS nothing RENAME TO h",
        "ALTER TABLE t RENAME a TO c",
        "ALTER VIEW IF EXISTS nothing RENAME COLUMN a TO c",
        ("ALTER DOMAIN dom RENAME TO h", "0A000", "unsupported object in RENAME statement"),
        "ALTER ROLE grammar_role RENAME TO grammar_renamed",
    ),
    "func_arg": (
        "CREATE FUNCTION h(OUT int) LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION h(x OUT int, y OUT int) LANGUAGE sql AS 'SELECT 1, 2'",
    ),
    "func_type": ("CREATE FUNCTION h() RETURNS SETOF t.id%TYPE LANGUAGE sql AS 'SELECT 1'",),
    "CommentStmt": (
        "COMMENT ON FUNCTION f IS 'text'",
        "COMMENT ON CONSTRAINT t_pkey ON public.t IS 'text'",
        "COMMENT ON ROLE grammar_role IS NULL",
        ("COMMENT ON EVENT TRIGGER e IS 'text'", "0A000", "unsupported object in COMMENT statement"),
    ),
    "DropStmt": (
        "DROP TABLE IF EXISTS u, nothing CASCADE",
        "DROP SEQUENCE IF EXISTS s, nothing",
        "DROP VIEW IF EXISTS v CASCADE",
        "DROP INDEX i CASCADE",
        "DROP SCHEMA g",
        "DROP DOMAIN dom",
        "DROP FUNCTION f(int)",
        "DROP TRIGGER IF EXISTS nothing ON t CASCADE",
        "DROP EVENT TRIGGER IF EXISTS nothing, another CASCADE",
        ("DROP TRIGGER nothing ON t", "42704", 'trigger "nothing" for table "t" does not exist'),
    ),
    "DropRoleStmt": ("DROP ROLE IF EXISTS nobody, grammar_role", "DROP GROUP IF EXISTS nobody, grammar_role"),
    # -- settings
    "set_rest": (
        "SET LOCAL TIME ZONE 'UTC'",
        "SET SESSION TIME ZONE LOCAL",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE ISOLATION LEVEL REPEATABLE READ",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    ),
    "zone_value": ("SET TIME ZONE INTERVAL '2' HOUR TO MINUTE", "SET TIME ZONE 'Europe/Berlin'"),
    # -- EXPLAIN
    "ExplainStmt": (
        "EXPLAIN ANALYSE VERBOSE SELECT a FROM t",
        "EXPLAIN VERBOSE SELECT a FROM t",
        "EXPLAIN (ANALYZE false, BUFFERS, SETTINGS on, WAL off, TIMING off, SUMMARY true) SELECT a FROM t",
    ),
    # -- queries
    "select_no_parens": (
        "(SELECT a FROM t) ORDER BY a",
        "WITH x AS (SELECT 1) SELECT a FROM t, x ORDER BY a LIMIT 1 FOR UPDATE OF t",
        "WITH x AS (SELECT 1) SELECT a FROM t, x ORDER BY a FOR UPDATE OF t LIMIT 1",
        "WITH x AS (SELECT 1) SELECT a FROM t OFFSET 1",
    ),
    "for_locking_items": (
        "SELECT 1 FROM t, u FOR UPDATE OF t NOWAIT FOR KEY SHARE OF u SKIP LOCKED",
        "SELECT 1 FROM t, u FOR KEY SHARE OF t, u",
    ),
    "a_expr": (
        "SELECT 1 IN (SELECT 1), 1 NOT IN (SELECT 2), 1 NOT IN (2, 3)",
        "SELECT -(1), +(1), @ 1, (1) OPERATOR(pg_catalog.+) 2",
        "SELECT 1 = SOME (SELECT a FROM t), 1 <> ALL (SELECT a FROM t WHERE false)",
        "SELECT '{}' IS NOT JSON, '{}' IS NOT JSON VALUE, '1' IS NOT JSON SCALAR WITHOUT UNIQUE KEYS",
        "SELECT 1::int::text COLLATE \"C\", now() AT TIME ZONE INTERVAL '1 hour'",
        ("SELECT UNIQUE NULLS NOT DISTINCT (SELECT 1)", "0A000", "UNIQUE predicate is not yet implemented"),
        ("SELECT '<a/>' IS NOT DOCUMENT", *_XML),
    ),
    "b_expr": (
        "SELECT 1 BETWEEN 2 - 1 * 3 AND 9, 2 BETWEEN 4 / 2 AND 5 % 3, 8 BETWEEN 2 ^ 3 AND 9",
        "SELECT true BETWEEN 1 < 2 AND true, true BETWEEN 1 >= 2 AND true, true BETWEEN 1 = 1 AND true",
        "SELECT true BETWEEN 1 IS NOT DISTINCT FROM 2 AND true, '1' BETWEEN 0::text AND '2'",
        ("SELECT position('<a/>' IS DOCUMENT IN 'x')", *_XML),
    ),
    "Typename": (
        "CREATE FUNCTION h() RETURNS SETOF int[] LANGUAGE sql AS 'SELECT ARRAY[1]'",
        "CREATE FUNCTION h() RETURNS SETOF int ARRAY[3] LANGUAGE sql AS 'SELECT ARRAY[1]'",
        "CREATE FUNCTION h() RETURNS SETOF int ARRAY LANGUAGE sql AS 'SELECT ARRAY[1]'",
    ),
    "SimpleTypename": ("CREATE TABLE x (a interval(3), b interval DAY TO SECOND (2), c time(2), d timestamp(0))",),
    "ConstDatetime": ("SELECT TIME (1) WITHOUT TIME ZONE '12:00', TIMESTAMP (0) WITHOUT TIME ZONE '2026-01-01'",),
    "opt_interval": ("SELECT INTERVAL '1 02:03:04.567' DAY TO SECOND (1), INTERVAL '1' HOUR TO SECOND (0)",),
    "func_expr_common_subexpr": (
        "SELECT json_object('{a}', '{1}'), json_object('k' VALUE 1 ABSENT ON NULL WITH UNIQUE KEYS RETURNING jsonb)",
        "SELECT json_array(1, NULL ABSENT ON NULL RETURNING jsonb), json_array(SELECT a FROM t RETURNING text)",
        "SELECT trim(both ' a '), trim(leading from ' a'), trim(trailing 'x' from 'ax')",
        "SELECT overlay('abc' placing 'x' from 1 for 1), substring('abc' from '(b)'), extract(epoch from now())",
        ("SELECT xmlelement(name a, xmlattributes('b' AS c), 'd')", *_XML),
        ("SELECT xmlparse(DOCUMENT '<a/>' STRIP WHITESPACE)", *_XML),
    ),
    "json_aggregate_func": (
        "SELECT json_objectagg(id: b ABSENT ON NULL WITHOUT UNIQUE KEYS RETURNING jsonb) FILTER (WHERE a > 1) FROM t",
        "SELECT json_arrayagg(a ORDER BY a NULL ON NULL RETURNING jsonb) FROM t",
    ),
    "func_application": (
        "SELECT string_agg(DISTINCT b, ',' ORDER BY b), array_agg(ALL a ORDER BY a DESC NULLS LAST) FROM t",
        "SELECT pg_catalog.format('%s %s', VARIADIC ARRAY['a', 'b'])",
    ),
    "func_expr": ("SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY a) FILTER (WHERE a > 0) FROM t",),
    "AexprConst": ("SELECT timestamptz '2026-01-01', numeric(5, 2) '1.234', 1e5, .5, 0x1F, X'ff', B'01'",),
    "frame_extent": (
        "SELECT sum(a) OVER (ORDER BY a GROUPS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING EXCLUDE TIES) FROM t",
        "SELECT sum(a) OVER (ORDER BY a RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM t",
        "SELECT sum(a) OVER (ORDER BY a ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING EXCLUDE CURRENT ROW) FROM t",
    ),
    "limit_clause": (
        "SELECT a FROM t ORDER BY a FETCH FIRST 1 ROWS WITH TIES",
        "SELECT a FROM t OFFSET 1 ROW FETCH NEXT 1 ROW ONLY",
        "SELECT a FROM t LIMIT NULL OFFSET NULL",
        "SELECT a FROM t LIMIT (SELECT 1)",
    ),
    "select_fetch_first_value": (
        ("SELECT a FROM t OFFSET -1 ROWS", "2201X", "OFFSET must not be negative"),
        ("SELECT a FROM t FETCH FIRST -1 ROWS ONLY", "2201W", "LIMIT must not be negative"),
    ),
    "simple_select": (
        "SELECT DISTINCT a, count(*) FROM t WHERE a > 0 GROUP BY a HAVING count(*) > 0 WINDOW w AS (ORDER BY a)",
        "(SELECT 1) INTERSECT ALL (SELECT 1)",
        "SELECT 1 UNION ALL VALUES (2) EXCEPT DISTINCT SELECT 3",
        "TABLE ONLY t",
        "VALUES (1, 'a'), (2, 'b') ORDER BY 1 DESC LIMIT 1",
    ),
    "group_by_item": (
        "SELECT a, b FROM t GROUP BY DISTINCT GROUPING SETS (ROLLUP (a, b), CUBE (a, b), ())",
        "SELECT count(*) FROM t GROUP BY ROLLUP ((id, a), b)",
    ),
    "table_ref": (
        "SELECT 1 FROM LATERAL generate_series(1, 2) AS x (n)",
        "SELECT 1 FROM t, LATERAL ROWS FROM (generate_series(1, t.a)) WITH ORDINALITY AS x (n, o)",
        "SELECT x.id FROM (t CROSS JOIN (SELECT 1) y) x",
        "SELECT 1 FROM ONLY (t) AS x",
        ("SELECT 1 FROM t x TABLESAMPLE SYSTEM (10) REPEATABLE (5)", "0A000", "TABLESAMPLE clause not supported"),
        ("SELECT 1 FROM t, LATERAL xmltable('/a' PASSING '<a/>' COLUMNS b int) x", *_XML),
    ),
    "joined_table": (
        "SELECT 1 FROM t NATURAL FULL OUTER JOIN u",
        "SELECT 1 FROM t NATURAL INNER JOIN u",
        "SELECT 1 FROM t RIGHT OUTER JOIN u USING (id) AS j",
        "SELECT 1 FROM ((t CROSS JOIN u) JOIN v ON true)",
    ),
    "into_clause": (
        ("SELECT DISTINCT 1 AS a INTO x FROM t", *_INTO),
        ("SELECT 1 AS a INTO LOCAL TEMP TABLE x", *_INTO),
        ("SELECT 1 AS a INTO GLOBAL TEMPORARY x", *_INTO),
        ("SELECT 1 AS a INTO GLOBAL TEMP x", *_INTO),
        ("SELECT 1 AS a INTO UNLOGGED TABLE x", *_INTO),
    ),
    "common_table_expr": (
        f"{_RECURSIVE} SEARCH DEPTH FIRST BY n SET o CYCLE n SET c USING p SELECT * FROM x",
        "WITH x (p, q) AS NOT MATERIALIZED (VALUES (1, 2)) SELECT p FROM x",
    ),
    # -- data
    "InsertStmt": (
        "INSERT INTO t AS x (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET a = x.a + 1, b = DEFAULT WHERE x.a > 0 "
        "RETURNING x.*, x.a AS n",
        "INSERT INTO u OVERRIDING USER VALUE VALUES (9, 1, 5)",
        "INSERT INTO u OVERRIDING SYSTEM VALUE SELECT 9, 1, 5",
        "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) WHERE a > 0 DO NOTHING",
        "WITH x AS (DELETE FROM u RETURNING id) INSERT INTO t (id) SELECT id FROM x",
    ),
    "UpdateStmt": (
        "WITH x AS (SELECT 1 AS n) UPDATE ONLY t AS y SET (a, b) = (SELECT n, 'z' FROM x), j['k'] = '1' "
        "FROM u WHERE y.id = u.t_id RETURNING *",
    ),
    "DeleteStmt": ("DELETE FROM ONLY t AS x USING u, v WHERE x.id = u.t_id AND x.id = v.id RETURNING x.id AS gone",),
    "PreparableStmt": ("WITH x AS (WITH y AS (SELECT 1) SELECT * FROM y) SELECT * FROM x",),
}

#: Run on their own.
TRANSACTION_ALTERNATIVES: dict[str, tuple[str | Refused, ...]] = {
    "TransactionStmt": (
        *("START TRANSACTION", "ABORT WORK AND NO CHAIN"),
        *("BEGIN WORK", "COMMIT TRANSACTION AND NO CHAIN"),
        *("BEGIN TRANSACTION READ ONLY", "ROLLBACK WORK AND NO CHAIN"),
        *("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE", "ABORT TRANSACTION"),
        ("ROLLBACK AND CHAIN", "0A000", "AND CHAIN not supported"),
    ),
}
