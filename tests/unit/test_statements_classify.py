"""What classification finds out about a statement beside its refusals."""

from __future__ import annotations

import pytest

from dsql_server.statements import LockStrength, RelationName, RoleMapping, Statement, StatementKind, classify


def _one(sql: str) -> Statement:
    [statement] = classify(sql)
    return statement


def test_statements_of_a_text_are_cut_without_blanks_comments_and_semicolons() -> None:
    sql = "; -- first\n SELECT 'é;' /* a; */ ;; /* b */ COMMIT -- end"
    found = classify(sql)
    assert [s.text for s in found] == ["SELECT 'é;'", "COMMIT"]
    assert [sql[s.offset : s.offset + len(s.text)] for s in found] == ["SELECT 'é;'", "COMMIT"]


@pytest.mark.parametrize("sql", ["", "  ", ";", " ; ;", "-- nothing", "/* nothing */ ;"])
def test_an_empty_text_has_no_statement(sql: str) -> None:
    assert classify(sql) == []


def test_semicolons_in_a_function_body_do_not_end_the_statement() -> None:
    sql = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3"
    assert [s.kind for s in classify(sql)] == [StatementKind.DDL, StatementKind.SELECT]


def test_the_same_text_is_classified_once() -> None:
    assert classify("SELECT 11, 12")[0] is classify("SELECT 11, 12")[0]
    assert classify("SELECT 11, 12") is not classify("SELECT 11, 12")  # a caller may change its list


@pytest.mark.parametrize(
    ("sql", "relations"),
    [
        ("SELECT * FROM t, s.u JOIN v ON true", {(None, "t"), ("s", "u"), (None, "v")}),
        ('SELECT * FROM "T", Tt', {(None, "T"), (None, "tt")}),
        ("WITH a AS (SELECT * FROM t) SELECT * FROM a, b", {(None, "t"), (None, "b")}),
        ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b, s.a", {("s", "a")}),
        ("WITH a AS (SELECT * FROM a) SELECT * FROM a", {(None, "a")}),
        ("WITH RECURSIVE a AS (SELECT * FROM a) SELECT * FROM a", set()),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a", {(None, "b")}),
        ("SELECT (WITH a AS (SELECT 1) SELECT * FROM a) FROM a", {(None, "a")}),
        ("SELECT 1 WHERE EXISTS (SELECT 1 FROM t WHERE x IN (SELECT y FROM u))", {(None, "t"), (None, "u")}),
        ("WITH t AS (SELECT 1) INSERT INTO t SELECT * FROM t", {(None, "t")}),
        ("UPDATE t SET a = 1 FROM u", {(None, "t"), (None, "u")}),
        ("DELETE FROM t USING u", {(None, "t"), (None, "u")}),
        ("SELECT * FROM t x FOR UPDATE OF x", {(None, "t")}),
        ("EXPLAIN SELECT * FROM t", {(None, "t")}),
        ("COPY s.t (a) FROM STDIN", {("s", "t")}),
    ],
)
def test_relations(sql: str, relations: set[RelationName]) -> None:
    assert _one(sql).relations == relations


@pytest.mark.parametrize(
    ("sql", "functions"),
    [
        ("SELECT lower(x), pg_catalog.upper(x), s.f(1), LOWER(y) FROM g(2)", {"lower", "upper", "s.f", "g"}),
        ("SELECT * FROM ROWS FROM (a(), b()) x, LATERAL c(x.n)", {"a", "b", "c"}),
        ("CALL sys.wait_for_job('x')", {"sys.wait_for_job"}),
        ("INSERT INTO t VALUES (nextval('s')) RETURNING h()", {"nextval", "h"}),
        ("CREATE VIEW v AS SELECT count(*) FILTER (WHERE k(x)) FROM t", {"count", "k"}),
    ],
)
def test_functions(sql: str, functions: set[str]) -> None:
    assert _one(sql).functions == functions


@pytest.mark.parametrize(
    ("sql", "locking"),
    [
        ("SELECT 1 FROM t", None),
        ("SELECT 1 FROM t FOR UPDATE", LockStrength.UPDATE),
        ("SELECT 1 FROM t FOR KEY SHARE", LockStrength.KEY_SHARE),
        ("SELECT 1 FROM t, u FOR UPDATE OF t FOR KEY SHARE OF u", LockStrength.UPDATE),
        ("SELECT 1 FROM t, u FOR KEY SHARE OF u FOR UPDATE OF t NOWAIT", LockStrength.UPDATE),
        ("SELECT * FROM (SELECT 1 FROM t FOR UPDATE) x", LockStrength.UPDATE),
    ],
)
def test_locking(sql: str, locking: LockStrength | None) -> None:
    statement = _one(sql)
    assert statement.locking == locking
    assert statement.is_read_only == (locking is None)


@pytest.mark.parametrize(
    ("sql", "is_dml", "returns_rows", "targets"),
    [
        ("SELECT 1", False, True, set()),
        ("INSERT INTO t VALUES (1)", True, False, {"t"}),
        ("UPDATE t SET a = 1 RETURNING *", True, True, {"t"}),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", True, True, {"t"}),
        ("WITH x AS (INSERT INTO u VALUES (1) RETURNING *) UPDATE t SET a = 1", True, False, {"t", "u"}),
        ("EXPLAIN INSERT INTO t VALUES (1)", False, True, {"t"}),
        ("EXPLAIN ANALYZE INSERT INTO t VALUES (1)", True, True, {"t"}),
        ("EXPLAIN (ANALYZE false) INSERT INTO t VALUES (1)", False, True, {"t"}),
        ("COPY t FROM STDIN", True, False, {"t"}),
        ("COPY t TO STDOUT", False, False, set()),
        ("COPY (DELETE FROM t RETURNING *) TO STDOUT", True, False, {"t"}),
        ("SHOW timezone", False, True, set()),
        ("COMMIT", False, False, set()),
    ],
)
def test_what_it_writes(sql: str, is_dml: bool, returns_rows: bool, targets: set[str]) -> None:
    statement = _one(sql)
    assert (statement.is_dml, statement.returns_rows) == (is_dml, returns_rows)
    assert {name for _, name in statement.targets} == targets
    assert statement.is_read_only == (not is_dml)


def test_flags_of_queries() -> None:
    statement = _one(
        "WITH x AS (UPDATE u SET a = $3 RETURNING a) INSERT INTO t SELECT a, $1 FROM x ON CONFLICT DO NOTHING"
    )
    assert statement.has_modifying_cte
    assert statement.has_on_conflict
    assert not statement.returning
    assert statement.parameters == 3
    plain = _one("INSERT INTO t VALUES (1) RETURNING *")
    assert (plain.has_modifying_cte, plain.has_on_conflict, plain.returning) == (False, False, True)


def test_ddl_is_not_dml_and_not_read_only() -> None:
    statement = _one("CREATE TABLE t (a int DEFAULT f())")
    assert (statement.is_ddl, statement.is_dml, statement.is_read_only) == (True, False, False)


@pytest.mark.parametrize(
    ("sql", "isolation", "read_only"),
    [
        ("BEGIN", None, None),
        ("BEGIN READ ONLY", None, True),
        ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE", "repeatable read", False),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", None, True),
    ],
)
def test_transaction_modes(sql: str, isolation: str | None, read_only: bool | None) -> None:
    modes = _one(sql).transaction
    assert modes is not None
    assert (modes.isolation, modes.read_only) == (isolation, read_only)


@pytest.mark.parametrize(
    ("sql", "name", "values", "is_local", "runs"),
    [
        ('SET search_path TO a, "B"', "search_path", ("a", "B"), False, True),
        ("SET LOCAL TimeZone = 'UTC'", "timezone", ("UTC",), True, True),
        ("SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE", "timezone", ("-08:00",), False, True),
        ("SET extra_float_digits = -3", "extra_float_digits", ("-3",), False, True),
        ("SET enable_seqscan TO DEFAULT", "enable_seqscan", None, False, True),
        ("SET disable_sync_create_index = off", "disable_sync_create_index", ("off",), False, False),
        ("SET SESSION AUTHORIZATION DEFAULT", "session_authorization", None, False, False),
        ("RESET TRANSACTION ISOLATION LEVEL", "transaction_isolation", None, False, False),
        ("RESET ALL", "all", None, False, True),
        ("SHOW Server_Version", "server_version", None, False, True),
        ("SHOW TRANSACTION ISOLATION LEVEL", "transaction_isolation", None, False, True),
    ],
)
def test_parameters(sql: str, name: str, values: tuple[str, ...] | None, is_local: bool, runs: bool) -> None:
    statement = _one(sql)
    assert statement.refusals == ()
    assert statement.parameter is not None
    assert (statement.parameter.name, statement.parameter.values) == (name, values)
    assert statement.parameter.is_local == is_local
    assert (statement.engine_sql == sql) == runs


def test_explain_holds_its_statement() -> None:
    sql = "EXPLAIN (ANALYZE, VERBOSE off, FORMAT json) /* é */ WITH x AS (SELECT 1) SELECT * FROM x, t"
    statement = classify("SELECT 'é'; " + sql + " -- tail")[1]
    assert statement.options == {"analyze", "format"}
    inner = statement.explained
    assert inner is not None
    assert inner.text == inner.engine_sql == "WITH x AS (SELECT 1) SELECT * FROM x, t"
    assert (inner.kind, inner.tag, inner.relations) == (StatementKind.SELECT, "SELECT", {(None, "t")})
    assert ("SELECT 'é'; " + sql)[inner.offset :].startswith("WITH x")


@pytest.mark.parametrize("sql", ["EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1", "EXPLAIN ANALYZE VERBOSE SELECT 1"])
def test_explain_in_its_old_form(sql: str) -> None:
    inner = _one(sql).explained
    assert inner is not None
    assert inner.text == "SELECT 1"


def test_explain_of_a_query_in_parentheses() -> None:
    inner = _one("EXPLAIN (SELECT 1)").explained
    assert inner is not None
    assert inner.text == "(SELECT 1)"


def test_create_index_async() -> None:
    sql = "CREATE UNIQUE INDEX ASYNC IF NOT EXISTS i ON s.t (a, lower(b)) INCLUDE (c) WHERE a > 1"
    statement = _one(sql)
    assert statement.text == sql
    assert statement.engine_sql == sql.replace("ASYNC", "     ")
    assert statement.returns_rows
    assert statement.definition is not None
    index = statement.definition.index
    assert index is not None
    assert (index.name, index.relation, index.columns, index.included) == ("i", ("s", "t"), ("a", None), ("c",))
    assert (index.unique, index.is_async, index.if_not_exists, index.has_predicate) == (True, True, True, True)
    assert statement.definition.names == (("s", "i"),)


def test_alter_table_async() -> None:
    statement = _one("ALTER TABLE ASYNC s.t VALIDATE CONSTRAINT k")
    assert statement.engine_sql == "ALTER TABLE       s.t VALIDATE CONSTRAINT k"
    assert statement.definition is not None
    assert (statement.definition.names, statement.definition.validates) == ((("s", "t"),), "k")
    [refusal] = _one("ALTER TABLE ASYNC t DROP COLUMN a").refusals
    assert refusal.sqlstate == "0A000"


def test_role_mappings() -> None:
    first, second = classify("AWS IAM GRANT a, \"B\" TO 'arn:1', E'arn\\x3a2'; aws iam revoke c FROM 'it''s'")
    assert first.definition is not None and second.definition is not None
    assert first.definition.mapping == RoleMapping(True, ("a", "B"), ("arn:1", "arn:2"))
    assert second.definition.mapping == RoleMapping(False, ("c",), ("it's",))
    assert first.text == "AWS IAM GRANT a, \"B\" TO 'arn:1', E'arn\\x3a2'"
    assert first.engine_sql == second.engine_sql == ""


@pytest.mark.parametrize(
    ("sql", "object_type", "names"),
    [
        ("CREATE TABLE s.t (a int)", "TABLE", (("s", "t"),)),
        ("DROP TABLE IF EXISTS s.t, u", "TABLE", (("s", "t"), (None, "u"))),
        ("DROP FUNCTION s.f(int)", "FUNCTION", (("s", "f"),)),
        ("DROP DOMAIN d", "DOMAIN", ((None, "d"),)),
        ("DROP SCHEMA s", "SCHEMA", ((None, "s"),)),
        ("DROP ROLE a, b", "ROLE", ((None, "a"), (None, "b"))),
        ("ALTER TABLE s.t RENAME a TO b", "TABLE", (("s", "t"),)),
        ("ALTER SCHEMA s RENAME TO z", "SCHEMA", ((None, "s"),)),
        ("ALTER VIEW s.v SET SCHEMA z", "VIEW", (("s", "v"),)),
        ("ALTER FUNCTION s.f() OWNER TO a", "FUNCTION", (("s", "f"),)),
        ("ALTER FUNCTION s.f() STABLE", "FUNCTION", (("s", "f"),)),
        ("ALTER ROLE a WITH LOGIN", "ROLE", ((None, "a"),)),
        ("CREATE DOMAIN s.d AS int", "DOMAIN", (("s", "d"),)),
        ("CREATE SCHEMA s", "SCHEMA", ((None, "s"),)),
        ("CREATE VIEW s.v AS SELECT 1 AS x", "VIEW", (("s", "v"),)),
        ("CREATE SEQUENCE s.q CACHE 1", "SEQUENCE", (("s", "q"),)),
        ("CREATE STATISTICS s.x ON a, b FROM t", "STATISTICS", (("s", "x"),)),
        ("COMMENT ON TABLE s.t IS 'x'", "TABLE", (("s", "t"),)),
        ("GRANT SELECT ON s.t TO a", "TABLE", (("s", "t"),)),
        ("CREATE ROLE a", "ROLE", ((None, "a"),)),
    ],
)
def test_definitions(sql: str, object_type: str, names: tuple[RelationName, ...]) -> None:
    definition = _one(sql).definition
    assert definition is not None
    assert (definition.object_type, definition.names) == (object_type, names)


def test_columns_that_alter_table_adds_and_drops() -> None:
    definition = _one("ALTER TABLE t ADD COLUMN a int, DROP COLUMN b CASCADE, ADD c text").definition
    assert definition is not None
    assert (definition.added_columns, definition.dropped_columns, definition.cascade) == (("a", "c"), ("b",), True)


def test_a_function_holds_the_statements_of_its_body() -> None:
    definition = _one("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM t; SELECT 1'").definition
    assert definition is not None
    assert [s.kind for s in definition.body] == [StatementKind.DELETE, StatementKind.SELECT]


@pytest.mark.parametrize(
    ("sql", "engine_sql"),
    [
        ("CREATE TABLE t (a numeric)", "CREATE TABLE t (a numeric(18,6))"),
        (
            "CREATE TABLE é (é decimal NOT NULL, b pg_catalog.numeric, c numeric(3), d dec)",
            "CREATE TABLE é (é decimal(18,6) NOT NULL, b pg_catalog.numeric(18,6), c numeric(3), d dec(18,6))",
        ),
        ("ALTER TABLE t ADD COLUMN a numeric", "ALTER TABLE t ADD COLUMN a numeric(18,6)"),
        ("CREATE SCHEMA s CREATE TABLE t (a numeric)", "CREATE SCHEMA s CREATE TABLE t (a numeric(18,6))"),
        ("CREATE TABLE t (a numeric DEFAULT 1::numeric)", "CREATE TABLE t (a numeric(18,6) DEFAULT 1::numeric)"),
        ("SELECT 1::numeric", "SELECT 1::numeric"),
    ],
)
def test_numeric_columns_get_the_default_precision(sql: str, engine_sql: str) -> None:
    first, second = classify(f"SELECT 'é'; {sql}")
    assert first.refusals == second.refusals == ()
    assert second.engine_sql == engine_sql
