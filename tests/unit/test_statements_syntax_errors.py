"""Errors of syntax have PostgreSQL's SQLSTATE, text and position; ASYNC and AWS IAM belong to the grammar."""

from __future__ import annotations

import pytest

from dsql_server.statements import SqlSyntaxError, classify


def _error(sql: str) -> SqlSyntaxError:
    with pytest.raises(SqlSyntaxError) as caught:
        classify(sql)
    return caught.value


@pytest.mark.parametrize(
    ("sql", "sqlstate", "message", "position"),
    [
        ("SELECT 1 FROM", "42601", "syntax error at end of input", 14),
        ("SELECT 1 FROM ; SELECT 2", "42601", 'syntax error at or near ";"', 15),
        ("SELEC 1", "42601", 'syntax error at or near "SELEC"', 1),
        ("SELECT é é 1 2", "42601", 'syntax error at or near "1"', 12),
        ("SELECT '💥' x y z", "42601", 'syntax error at or near "y"', 14),
        ("SELECT 1; foo; SELECT 2", "42601", 'syntax error at or near "foo"', 11),
        ("SELECT ('a", "42601", 'unterminated quoted string at or near "\'a"', 9),
        ('SELECT "a', "42601", 'unterminated quoted identifier at or near ""a"', 8),
        ('SELECT ""', "42601", 'zero-length delimited identifier at or near """"', 8),
        ("SELECT $x$ a", "42601", 'unterminated dollar-quoted string at or near "$x$ a"', 8),
        ("SELECT 1 /* x", "42601", 'unterminated /* comment at or near "/* x"', 10),
        ("SELECT 123abc", "42601", 'trailing junk after numeric literal at or near "123abc"', 8),
        ("SELECT 0x", "42601", 'invalid hexadecimal integer at or near "0x"', 8),
        ("SELECT x FROM t WHERE $1AND b c d", "42601", 'trailing junk after parameter at or near "$1AND"', 23),
        ("SELECT x FROM t $1WHERE", "42601", 'trailing junk after parameter at or near "$1WHERE"', 17),
        ("SELECT E'\\u00'", "22025", "invalid Unicode escape", 10),
        ("SELECT U&'\\zzzz'", "42601", "invalid Unicode escape", 11),
        ("SELECT E'\\xff'", "22021", 'invalid byte sequence for encoding "UTF8": 0xff', None),
        ("SELECT 1 LIMIT 1,2", "42601", "LIMIT #,# syntax is not supported", 10),
        (
            "CREATE TABLE t (a int, CHECK (a > 0) DEFERRABLE)",
            "0A000",
            "CHECK constraints cannot be marked DEFERRABLE",
            None,
        ),
        ("CREATE TABLE t (a int REFERENCES b MATCH PARTIAL)", "0A000", "MATCH PARTIAL not yet implemented", 36),
        (
            "CREATE TABLE t (a int REFERENCES b ON UPDATE SET NULL (a))",
            "0A000",
            "a column list with SET NULL is only supported for ON DELETE actions",
            36,
        ),
        ("CREATE TABLE t (a float(0))", "22023", "precision for type float must be at least 1 bit", 25),
        ("CREATE TABLE t (a float(54))", "22023", "precision for type float must be less than 54 bits", 25),
        (
            "SELECT sum(x) OVER (ROWS UNBOUNDED FOLLOWING) FROM t",
            "42P20",
            "frame start cannot be UNBOUNDED FOLLOWING",
            26,
        ),
        (
            "SELECT sum(x) OVER (ROWS BETWEEN CURRENT ROW AND 1 PRECEDING) FROM t",
            "42P20",
            "frame starting from current row cannot have preceding rows",
            50,
        ),
        (
            "SELECT sum(x) OVER (ROWS BETWEEN CURRENT ROW AND UNBOUNDED PRECEDING) FROM t",
            "42P20",
            "frame end cannot be UNBOUNDED PRECEDING",
            50,
        ),
        (
            "SELECT * FROM t FETCH FIRST 1 ROW WITH TIES",
            "42601",
            "WITH TIES cannot be specified without ORDER BY clause",
            None,
        ),
        ("(SELECT 1 LIMIT 1) LIMIT 1", "42601", "multiple LIMIT clauses not allowed", 26),
        ("(SELECT 1 OFFSET 1) OFFSET 1", "42601", "multiple OFFSET clauses not allowed", 28),
        ("CREATE ROLE x UNENCRYPTED PASSWORD 'a'", "0A000", "UNENCRYPTED PASSWORD is no longer supported", 15),
        ("CREATE INDEX ASYNC s.i ON t (a)", "42601", 'syntax error at or near "."', 21),
        ("SELECT n, count(*) FROM t GROUP BY ALL", "42601", "syntax error at end of input", 39),
        ("SELECT 'a\0b'", "22021", 'invalid byte sequence for encoding "UTF8": 0x00', None),
    ],
)
def test_errors(sql: str, sqlstate: str, message: str, position: int | None) -> None:
    error = _error(sql)
    assert (error.sqlstate, error.message, error.position) == (sqlstate, message, position)


def test_hints() -> None:
    assert _error("SELECT 1 LIMIT 1,2").hint == "Use separate LIMIT and OFFSET clauses."
    assert _error("SELECT 1 FROM").hint is None


@pytest.mark.parametrize(
    ("sql", "message", "position"),
    [
        ("CREATE INDEX ASYNC i ON t a", 'syntax error at or near "a"', 27),
        ("CREATE INDEX ASYNC ASYNC ON t (a)", 'syntax error at or near "ASYNC"', 20),
        ("CREATE INDEX ASYNC", "syntax error at end of input", 19),
        ("CREATE TABLE async (a int)", 'syntax error at or near "async"', 14),
        ("CREATE TABLE t (Async int)", 'syntax error at or near "Async"', 17),
        ("SELECT async FROM t", 'syntax error at or near "async"', 8),
        ("ALTER TABLE ASYNC t ADD COLUMN x int y", 'syntax error at or near "y"', 38),
        ("AWS", "syntax error at end of input", 4),
        ("AWS x", 'syntax error at or near "x"', 5),
        ("AWS IAM x", 'syntax error at or near "x"', 9),
        ("AWS IAM GRANT", "syntax error at end of input", 14),
        ("AWS IAM GRANT r TO", "syntax error at end of input", 19),
        ("AWS IAM GRANT r; SELECT 1", 'syntax error at or near ";"', 16),
        ("AWS IAM GRANT r TO; SELECT 1", 'syntax error at or near ";"', 19),
        ("AWS IAM GRANT r TO q", 'syntax error at or near "q"', 20),
        ("AWS IAM GRANT r TO 'a' 'b'", "syntax error at or near \"'b'\"", 24),
        ("AWS IAM GRANT 'r' TO 'a'", "syntax error at or near \"'r'\"", 15),
        ("AWS IAM GRANT SELECT ON t TO 'a'", 'syntax error at or near "ON"', 22),
        ("SELECT 1; AWS IAM REVOKE r FROM 'a' x", 'syntax error at or near "x"', 37),
    ],
)
def test_errors_around_the_words_of_dsql(sql: str, message: str, position: int) -> None:
    error = _error(sql)
    assert (error.sqlstate, error.message, error.position) == ("42601", message, position)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS async, t.async FROM t",
        "SELECT \"async\", 'async' FROM t -- async",
        "SELECT aws, iam FROM t",
        "CREATE TABLE aws (iam int)",
        "CREATE /* x */ INDEX /* y */ async ON t (a)",
    ],
)
def test_the_words_of_dsql_in_other_places(sql: str) -> None:
    [statement] = classify(sql)
    assert statement.refusals == ()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1" + " + 1" * 2000,
        "SELECT " + "NOT " * 2000 + "true",
        "SELECT 1" + " UNION SELECT 1" * 1000,
        "SELECT a" + " OR a" * 20000,
        "SELECT " + "f(" * 900 + "1" + ")" * 900,
    ],
)
def test_deep_statements_are_classified(sql: str) -> None:
    [statement] = classify(sql)
    assert statement.refusals == ()


@pytest.mark.parametrize(
    "sql", ["SELECT 1" + " + 1" * 200000, "SELECT " + "(" * 20000 + "1" + ")" * 20000, "SELECT " + "f(" * 20000]
)
def test_statements_too_deep_for_the_parser_are_errors(sql: str) -> None:
    assert _error(sql).sqlstate in ("42601", "54001")
