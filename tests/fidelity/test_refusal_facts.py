"""What Aurora DSQL refuses, and in which words: one fact for each refusal that is on record."""

from __future__ import annotations

from facts import Fact, Witness, fact, parametrized, refusals, refused, request, rows, says, settled

PARENT = "CREATE TABLE parent (id int PRIMARY KEY, name text, n int, doc jsonb)"
CHILD = "CREATE TABLE child (id int PRIMARY KEY, parent_id int REFERENCES parent (id))"
SCENE = (PARENT, CHILD)

UNSUPPORTED = refusals(
    "statement",
    "a statement that isn't there is refused by the name of its node",
    ("TRUNCATE parent", "unsupported statement: Truncate"),
    ("CREATE EXTENSION pgcrypto", "unsupported statement: CreateExtension"),
    ("CREATE DATABASE other", "unsupported statement: Createdb"),
    ("CREATE TABLE copied AS SELECT 1 AS x", "unsupported statement: CreateTableAs"),
    ("CREATE MATERIALIZED VIEW kept AS SELECT 1 AS x", "unsupported statement: CreateTableAs"),
    ("SELECT 1 AS x INTO copied", "unsupported statement: CreateTableAs"),
    ("CREATE TYPE pair AS (a int, b int)", "unsupported statement: CompositeType"),
    ("CREATE TYPE span AS RANGE (subtype = int4)", "unsupported statement: CreateRange"),
    ("CREATE TABLESPACE fast LOCATION '/data'", "unsupported statement: CreateTableSpace"),
    ("CREATE FOREIGN TABLE far (id int) SERVER elsewhere", "unsupported statement: CreateForeignTable"),
    ("LISTEN channel", "unsupported statement: Listen"),
    ("NOTIFY channel", "unsupported statement: Notify"),
    ("UNLISTEN *", "unsupported statement: Unlisten"),
    ("ALTER SYSTEM SET work_mem = '4MB'", "unsupported statement: AlterSystem"),
    ("LOCK TABLE parent", "unsupported statement: Lock"),
    ("CREATE POLICY p ON parent USING (true)", "unsupported statement: CreatePolicy"),
    ("PREPARE again AS SELECT 1", "unsupported statement: Prepare"),
    ("EXECUTE again", "unsupported statement: Execute"),
    ("DEALLOCATE again", "unsupported statement: Deallocate"),
    ("DECLARE c CURSOR FOR SELECT 1", "unsupported statement: DeclareCursor"),
    ("FETCH c", "unsupported statement: Fetch"),
    ("CLOSE c", "unsupported statement: ClosePortal"),
    ("DO $$ BEGIN END $$", "unsupported statement: Do"),
    ("DISCARD ALL", "unsupported statement: Discard"),
    ("LOAD 'library'", "unsupported statement: Load"),
    ("CREATE RULE r AS ON INSERT TO parent DO NOTHING", "unsupported statement: Rule"),
    ("CREATE SERVER s FOREIGN DATA WRAPPER w", "unsupported statement: CreateForeignServer"),
    ("CREATE PUBLICATION p", "unsupported statement: CreatePublication"),
    ("REINDEX TABLE parent", "unsupported statement: Reindex"),
    ("CLUSTER parent", "unsupported statement: Cluster"),
    ("REFRESH MATERIALIZED VIEW kept", "unsupported statement: RefreshMatView"),
    ("CREATE CAST (int AS text) WITH INOUT", "unsupported statement: CreateCast"),
    ("REASSIGN OWNED BY admin TO admin", "unsupported statement: ReassignOwned"),
    ("DROP OWNED BY admin", "unsupported statement: DropOwned"),
    ("DROP DATABASE postgres", "unsupported statement: Dropdb"),
    ("ALTER FUNCTION lower(text) IMMUTABLE", "unsupported statement: AlterFunction"),
)

OWN_WORDS = refusals(
    "words",
    "some refusals have words of their own",
    ("MERGE INTO parent USING child ON false WHEN MATCHED THEN DELETE", "unsupported statement type: MERGE"),
    ("CREATE TRIGGER t AFTER INSERT ON parent EXECUTE FUNCTION f()", "CREATE TRIGGER not supported"),
    ("CREATE TYPE mood AS ENUM ('sad', 'ok')", "CREATE TYPE not supported"),
    ("CREATE TYPE shell", "CREATE TYPE not supported"),
    ("ALTER TYPE mood ADD VALUE 'meh'", "ALTER TYPE not supported"),
    ("ALTER TYPE mood RENAME VALUE 'sad' TO 'low'", "ALTER TYPE not supported"),
    ("ALTER TYPE pair ADD ATTRIBUTE c int", "ALTER TYPE not supported"),
    ("ALTER TYPE mood OWNER TO admin", "ALTER TYPE not supported"),
    ("ALTER TYPE mood RENAME TO temper", "unsupported object in RENAME statement"),
    ("DROP TYPE mood", "unsupported object in DROP statement"),
    ("DROP TYPE IF EXISTS mood", "unsupported object in DROP statement"),
    ("DROP MATERIALIZED VIEW kept", "unsupported object in DROP statement"),
    ("DROP EXTENSION pgcrypto", "unsupported object in DROP statement"),
    ("GRANT CONNECT ON DATABASE postgres TO PUBLIC", "unsupported object type in GRANT"),
    ("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC", "unsupported object type in GRANT"),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ x $$",
        "CREATE FUNCTION with language plpgsql not supported",
    ),
    ("CREATE PROCEDURE p() LANGUAGE sql AS ''", "PROCEDURE is not supported"),
    ("DROP PROCEDURE p", "PROCEDURE is not supported"),
    ("VACUUM", "unsupported VACUUM statement"),
    ("VACUUM ANALYZE parent", "unsupported VACUUM statement"),
    ("GRANT USAGE ON SCHEMA public TO PUBLIC", "feature not supported on system entity"),
    ("DROP SCHEMA public", "feature not supported on system entity"),
    ("CREATE COLLATION german (locale = 'de')", "unsupported statement: Define"),
)

TABLE_CLAUSES = refusals(
    "table",
    "CREATE TABLE takes no clause that is about where or how rows are kept",
    ("CREATE TEMPORARY TABLE t (id int)", "TEMPORARY or TEMP table not supported for CREATE TABLE"),
    ("CREATE TEMP TABLE t (id int)", "TEMPORARY or TEMP table not supported for CREATE TABLE"),
    ("CREATE UNLOGGED TABLE t (id int)", "UNLOGGED table not supported for CREATE TABLE"),
    ("CREATE TABLE t (id int) WITH (fillfactor = 70)", "WITH clause not supported for CREATE TABLE"),
    ("CREATE TABLE t (id int) TABLESPACE fast", "TABLESPACE clause not supported for CREATE TABLE"),
    ("CREATE TABLE t (id int) PARTITION BY HASH (id)", "PARTITION BY clause not supported for CREATE TABLE"),
    ("CREATE TABLE t (id int) INHERITS (parent)", "INHERITS clause not supported for CREATE TABLE"),
    ('CREATE TABLE t (v text COLLATE "C")', "COLLATE clause not supported"),
    ("CREATE TABLE t (id serial PRIMARY KEY)", 'type "serial" does not exist', "42704"),
    ("CREATE TABLE t (id bigserial PRIMARY KEY)", 'type "bigserial" does not exist', "42704"),
    ("CREATE TABLE t (m mood)", 'type "mood" does not exist', "42704"),
    (
        "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a + random()) STORED)",
        "generation expression is not immutable",
        "42P17",
    ),
    ("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE)", "DEFERRABLE constraint not supported"),
    ("CREATE TABLE t (id int UNIQUE INITIALLY DEFERRED)", "DEFERRABLE constraint not supported"),
    ("CREATE TABLE t (id int, UNIQUE (id) DEFERRABLE)", "DEFERRABLE constraint not supported"),
    ("CREATE TABLE t (id int, CHECK (id > 0) DEFERRABLE)", "CHECK constraints cannot be marked DEFERRABLE"),
    ("CREATE TABLE t (id int, CHECK (id > 0) INITIALLY DEFERRED)", "CHECK constraints cannot be marked DEFERRABLE"),
)

IDENTITIES = refusals(
    "identity",
    "identity columns are bigint and say their CACHE, 1 or at least 65536; so do sequences",
    (
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY (CACHE 1))",
        "datatype integer not supported, identity column type must be bigint",
    ),
    (
        "CREATE TABLE t (id smallint GENERATED BY DEFAULT AS IDENTITY (CACHE 1))",
        "datatype smallint not supported, identity column type must be bigint",
    ),
    (
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY)",
        "identity column is not supported without an explicit cache size. "
        "please define CACHE greater than or equal to 65536 or equal to 1",
    ),
    (
        "CREATE SEQUENCE s",
        "CREATE SEQUENCE is not supported without an explicit cache size. "
        "please define CACHE greater than or equal to 65536 or equal to 1",
    ),
    (
        "CREATE SEQUENCE s START 5",
        "CREATE SEQUENCE is not supported without an explicit cache size. "
        "please define CACHE greater than or equal to 65536 or equal to 1",
    ),
)

LOCKS = refusals(
    "lock",
    "FOR UPDATE and FOR KEY SHARE are the only row locks",
    ("SELECT * FROM parent FOR SHARE", "locking clauses other than FOR UPDATE/FOR KEY SHARE are not supported"),
    ("SELECT * FROM parent FOR NO KEY UPDATE", "locking clauses other than FOR UPDATE/FOR KEY SHARE are not supported"),
)

QUERIES = refusals(
    "query",
    "what queries may not say",
    ("SELECT * FROM parent TABLESAMPLE bernoulli (10)", "TABLESAMPLE clause not supported"),
    ("SELECT websearch_to_tsquery('english', 'word')", 'text search configuration "english" does not exist', "42704"),
    ("SELECT to_tsvector('english', 'word')", 'text search configuration "english" does not exist', "42704"),
    ("SHOW lc_collate", 'unrecognized configuration parameter "lc_collate"', "42704"),
    ("SELECT n, count(*) FROM parent GROUP BY ALL", "syntax error at end of input", "42601"),
    ("CALL sys.wait_for_job('no-such-job')", "Unable to convert text to UUID", "22P02"),
    ("SELECT sys.wait_for_job('x')", "sys.wait_for_job(unknown) is a procedure", "42809"),
    ("SELECT sys.wait_for_job('x'::text)", "sys.wait_for_job(text) is a procedure", "42809"),
    ("CALL nosuch()", "procedure nosuch() does not exist", "42883"),
    ("CALL sys.wait_for_job(1)", "procedure sys.wait_for_job(integer) does not exist", "42883"),
    ("CALL sys.wait_for_job(job => 'x')", "procedure sys.wait_for_job(job => unknown) does not exist", "42883"),
    ("CALL sys.wait_for_job(job_id => 'x')", "Unable to convert text to UUID", "22P02"),
    ("CALL sys.wait_for_job(1::text)", "Unable to convert text to UUID", "22P02"),
    ("CALL sys.wait_for_job(NULL)", "Unable to convert text to UUID", "22P02"),
    ("ANALYZE parent (name, nosuch)", 'column "nosuch" of relation "parent" does not exist', "42703"),
    ("ANALYZE parent (name, name)", 'column "name" of relation "parent" appears more than once', "42701"),
    ("CALL sys.wait_for_job((SELECT 'x'))", "cannot use subquery in CALL argument"),
    (
        "SELECT p.name, x.pid FROM parent p LEFT JOIN LATERAL (SELECT p.id AS pid FROM child AS k "
        "WHERE p.id = k.parent_id) AS x ON TRUE",
        "attribute 1 of type child has wrong type",
        "42804",
    ),
)

INDEXES = refusals(
    "index",
    "how an index may not be made",
    ("CREATE INDEX i ON parent (name)", "unsupported mode. please use CREATE INDEX ASYNC."),
    ("CREATE UNIQUE INDEX i ON parent (name)", "unsupported mode. please use CREATE INDEX ASYNC."),
    ("CREATE INDEX CONCURRENTLY i ON parent (name)", "CONCURRENTLY not supported for CREATE INDEX"),
    ("CREATE INDEX ASYNC i ON parent USING btree (name)", "USING not supported for CREATE INDEX"),
    ("CREATE INDEX ASYNC i ON parent USING gin (doc)", "USING not supported for CREATE INDEX"),
    ("CREATE INDEX i ON parent USING btree_index (name)", "unsupported mode. please use CREATE INDEX ASYNC."),
    ("CREATE INDEX ASYNC i ON parent (name ASC)", "specifying sort order not supported for index keys"),
    ("CREATE INDEX ASYNC i ON parent (name DESC)", "specifying sort order not supported for index keys"),
    ("CREATE INDEX ASYNC i ON parent (name text_pattern_ops)", "opclass not supported for index keys"),
    ("CREATE INDEX ASYNC i ON parent (doc)", "datatype jsonb is not supported in a key"),
    ("CREATE INDEX ASYNC i ON parent ((doc -> 'a'))", "datatype jsonb is not supported in a key"),
    ("CREATE INDEX ASYNC public.i ON parent (name)", 'syntax error at or near "."', "42601"),
    ("CREATE INDEX ASYNC i ON parent ((random()))", "functions in index expression must be marked IMMUTABLE", "42P17"),
    (
        "CREATE INDEX ASYNC i ON parent (name) WHERE n > random()",
        "functions in index predicate must be marked IMMUTABLE",
        "42P17",
    ),
    ("CREATE INDEX ASYNC i ON parent (name) WHERE n > (SELECT 1)", "cannot use subquery in index predicate"),
    ("CREATE INDEX ASYNC i ON parent (name) INCLUDE ((n + 1))", "expressions are not supported in included columns"),
)

INDEX_PRECEDENCE = refusals(
    "index-order",
    "of several refusals of an index: name, CONCURRENTLY, USING, number of keys, mode, predicate, keys, INCLUDE",
    ("CREATE INDEX CONCURRENTLY public.i ON parent USING hash (name)", 'syntax error at or near "."', "42601"),
    ("CREATE INDEX CONCURRENTLY i ON parent USING hash (name)", "CONCURRENTLY not supported for CREATE INDEX"),
    (
        "CREATE INDEX i ON parent USING hash (id, id, id, id, id, id, id, id, id)",
        "USING not supported for CREATE INDEX",
    ),
    (
        "CREATE INDEX i ON parent (id, id, id, id, id, id, id, id, id)",
        "more than 8 column keys in an index are not supported",
        "54011",
    ),
    ("CREATE INDEX i ON parent (name DESC) WHERE n > random()", "unsupported mode. please use CREATE INDEX ASYNC."),
    (
        "CREATE INDEX ASYNC i ON parent (name) WHERE n > random() AND n > (SELECT 1)",
        "cannot use subquery in index predicate",
    ),
    (
        "CREATE INDEX ASYNC i ON parent ((random())) WHERE n > random()",
        "functions in index predicate must be marked IMMUTABLE",
        "42P17",
    ),
    (
        "CREATE INDEX ASYNC i ON parent ((random())) INCLUDE ((n + 1)) WHERE n > (SELECT 1)",
        "cannot use subquery in index predicate",
    ),
    (
        "CREATE INDEX ASYNC i ON parent ((random())) INCLUDE ((n + 1))",
        "functions in index expression must be marked IMMUTABLE",
        "42P17",
    ),
)

ALTERATIONS = refusals(
    "alter",
    "what ALTER TABLE doesn't do",
    ("ALTER TABLE parent ADD COLUMN c int NOT NULL", "ALTER TABLE ADD COLUMN with constraint not supported"),
    ("ALTER TABLE parent ADD COLUMN c int DEFAULT 0", "ALTER TABLE ADD COLUMN with constraint not supported"),
    ("ALTER TABLE parent ADD COLUMN c int CHECK (c > 0)", "ALTER TABLE ADD COLUMN with constraint not supported"),
    ("ALTER TABLE parent ADD COLUMN c int UNIQUE", "ALTER TABLE ADD COLUMN with constraint not supported"),
    (
        "ALTER TABLE parent ADD COLUMN c bigint GENERATED ALWAYS AS IDENTITY (CACHE 1)",
        "ALTER TABLE ADD COLUMN with constraint not supported",
    ),
    ("ALTER TABLE parent ADD COLUMN c int PRIMARY KEY", "ALTER TABLE ADD COLUMN with constraint not supported"),
    ("ALTER TABLE parent ADD COLUMN c int REFERENCES parent", "ALTER TABLE ADD COLUMN with constraint not supported"),
    (
        "ALTER TABLE parent ADD COLUMN c int GENERATED ALWAYS AS (n + 1) STORED",
        "ALTER TABLE ADD COLUMN with constraint not supported",
    ),
    ("ALTER TABLE parent ADD PRIMARY KEY (n)", "unsupported ALTER TABLE ADD CONSTRAINT statement"),
    ("ALTER TABLE parent ADD UNIQUE (n)", "unsupported ALTER TABLE ADD CONSTRAINT statement"),
    ("ALTER TABLE parent ADD EXCLUDE (n WITH =)", "unsupported ALTER TABLE ADD CONSTRAINT statement"),
    ("ALTER TABLE parent ADD CHECK (n > 0)", "unsupported ALTER TABLE ADD CONSTRAINT statement"),
    (
        "ALTER TABLE parent ADD FOREIGN KEY (n) REFERENCES parent (id)",
        "unsupported ALTER TABLE ADD CONSTRAINT statement",
    ),
    ("ALTER TABLE parent VALIDATE CONSTRAINT c", "unsupported ALTER TABLE VALIDATE CONSTRAINT statement"),
    ("ALTER TABLE parent ALTER n TYPE bigint", "unsupported ALTER TABLE ALTER COLUMN ... SET DATA TYPE statement"),
    (
        "ALTER TABLE parent ALTER n SET STATISTICS 50",
        "unsupported ALTER TABLE ALTER COLUMN ... SET STATISTICS statement",
    ),
    ("ALTER TABLE parent ALTER n SET NOT NULL", "unsupported ALTER TABLE ALTER COLUMN ... SET NOT NULL statement"),
    ("ALTER TABLE child DROP COLUMN id", "cannot drop primary key column id"),
    ("ALTER TABLE parent DROP COLUMN id", "cannot drop primary key column id"),
    ("ALTER TABLE child DROP CONSTRAINT child_pkey", "unsupported ALTER TABLE DROP CONSTRAINT statement"),
    (
        "ALTER TABLE parent ADD UNIQUE USING INDEX i DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE / ADD CONSTRAINT UNIQUE / DEFERRED / INITIALLY DEFERRED not supported",
    ),
    ("ALTER TABLE parent ADD UNIQUE USING INDEX i DEFERRABLE", "DEFERRABLE constraint not supported"),
    ("ALTER TABLE parent ADD CHECK (n > 0) DEFERRABLE NOT VALID", "CHECK constraints cannot be marked DEFERRABLE"),
    ("ALTER TABLE parent ENABLE ROW LEVEL SECURITY", "unsupported ALTER TABLE ENABLE ROW SECURITY statement"),
    (
        "ALTER TABLE parent ALTER n ADD GENERATED ALWAYS AS IDENTITY (CACHE 1)",
        "datatype integer not supported, identity column type must be bigint",
    ),
)

TRANSACTIONS = refusals(
    "transaction",
    "there is one isolation level, no savepoint and no SET TRANSACTION",
    ("SAVEPOINT s", "unsupported transaction statement: SAVEPOINT"),
    ("RELEASE SAVEPOINT s", "unsupported transaction statement: RELEASE"),
    ("ROLLBACK TO SAVEPOINT s", "unsupported transaction statement: ROLLBACK TO"),
    ("BEGIN ISOLATION LEVEL SERIALIZABLE", "Unsupported isolation level: SERIALIZABLE"),
    ("BEGIN ISOLATION LEVEL READ COMMITTED", "Unsupported isolation level: READ COMMITTED"),
    ("START TRANSACTION ISOLATION LEVEL READ UNCOMMITTED", "Unsupported isolation level: READ UNCOMMITTED"),
    ("SET TRANSACTION READ ONLY", 'setting configuration parameter "TRANSACTION" not supported'),
    ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", 'setting configuration parameter "TRANSACTION" not supported'),
    ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", 'setting configuration parameter "TRANSACTION" not supported'),
    ("COMMIT AND CHAIN", "AND CHAIN not supported"),
)

PARAMETERS = refusals(
    "parameter",
    "a parameter that can't be set is refused by its name",
    *(
        (f"SET {name} = {value}", f'setting configuration parameter "{name}" not supported')
        for name, value in (
            ("default_transaction_isolation", "'serializable'"),
            ("statement_timeout", "1000"),
            ("work_mem", "'4MB'"),
            ("lock_timeout", "100"),
            ("idle_in_transaction_session_timeout", "0"),
            ("jit", "off"),
            ("row_security", "off"),
            ("client_min_messages", "warning"),
            ("standard_conforming_strings", "on"),
            ("default_transaction_read_only", "on"),
            ("session_replication_role", "replica"),
        )
    ),
    ("SET ROLE app", 'setting configuration parameter "role" not supported'),
    ("RESET work_mem", 'setting configuration parameter "work_mem" not supported'),
)

OTHERS = [
    fact(
        "reserved-prefix",
        "parameters that begin with dsql. are Aurora DSQL's own",
        says(
            "SET dsql.x = 1",
            refused('invalid configuration parameter name "dsql.x"', "42602", '"dsql" is a reserved prefix.'),
        ),
    ),
    fact(
        "index-not-valid",
        "a unique constraint can't be made of an index whose build failed",
        says("INSERT INTO parent (id, n) VALUES (1, 1), (2, 1)", "INSERT 0 2"),
        says("CREATE UNIQUE INDEX ASYNC doubled ON parent (n)", "CREATE INDEX"),
        settled(),
        says("ALTER TABLE parent ADD UNIQUE USING INDEX doubled", refused('index "doubled" is not valid', "55000")),
    ),
    fact(
        "violations",
        "violated constraints answer as in PostgreSQL",
        says("INSERT INTO parent (id) VALUES (1)", "INSERT 0 1"),
        says(
            "INSERT INTO parent (id) VALUES (1)",
            refused(
                'duplicate key value violates unique constraint "parent_pkey"', "23505", "Key (id)=(1) already exists."
            ),
        ),
        says(
            "INSERT INTO parent (id) VALUES (NULL)",
            refused('null value in column "id" of relation "parent" violates not-null constraint', "23502"),
        ),
        says(
            "INSERT INTO child VALUES (1, 9)",
            refused(
                'insert or update on table "child" violates foreign key constraint "child_parent_id_fkey"',
                "23503",
                'Key (parent_id)=(9) is not present in table "parent".',
            ),
        ),
        says("CREATE TABLE checked (m text CHECK (m IN ('sad', 'ok')))", "CREATE TABLE"),
        says(
            "INSERT INTO checked VALUES ('bogus')",
            refused(
                'new row for relation "checked" violates check constraint "checked_m_check"',
                "23514",
                "Failing row contains (bogus).",
            ),
        ),
    ),
    fact(
        "deallocate-all",
        "DEALLOCATE ALL is the one DEALLOCATE that there is",
        says("DEALLOCATE ALL", "DEALLOCATE ALL"),
        says("DEALLOCATE PREPARE ALL", "DEALLOCATE ALL"),
    ),
    fact(
        "text-search-simple",
        "text search configurations other than simple are missing, the functions are there",
        says("SELECT to_tsvector('simple', 'word')::text", rows("'word':1")),
    ),
]

FACTS: list[Fact] = [
    *UNSUPPORTED,
    *OWN_WORDS,
    *TABLE_CLAUSES,
    *IDENTITIES,
    *LOCKS,
    *QUERIES,
    *INDEXES,
    *INDEX_PRECEDENCE,
    *ALTERATIONS,
    *TRANSACTIONS,
    *PARAMETERS,
]


@parametrized(FACTS)
def test_refusal(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=SCENE)


@parametrized(OTHERS)
def test_refusal_in_its_place(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=SCENE)


def test_a_refusal_leaves_the_block_aborted(witness: Witness) -> None:
    """Every refused statement does the same to the block that it is in."""
    for refusal in (UNSUPPORTED[0], OWN_WORDS[0], TABLE_CLAUSES[0], TRANSACTIONS[0], PARAMETERS[0]):
        (step,) = refusal.steps
        witness.confirm(
            fact(
                "aborted",
                "a refusal inside BEGIN aborts the block, and 25P02 wins over a second refusal",
                says("BEGIN", "BEGIN"),
                step,
                says(
                    step.sql,
                    refused("current transaction is aborted, commands ignored until end of transaction block", "25P02"),
                ),
                request("COMMIT", "ROLLBACK"),
                given=SCENE,
            )
        )
