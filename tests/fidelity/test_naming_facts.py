"""Names as Aurora DSQL takes them: with the database in front, and ASYNC, which is a word of its own there."""

from __future__ import annotations

from facts import ONE_ROW, Done, Fact, Witness, fact, parametrized, refused, request, rows, says

DATABASE = [
    fact(
        "database-in-queries",
        "a name may begin with the database's own, as in PostgreSQL",
        says("SELECT postgres.public.t.a, postgres.public.t.* FROM postgres.public.t", rows(("10", "1", "10"))),
        says('SELECT a FROM "postgres" . public . t', rows("10")),
        says("SELECT postgres.pg_catalog.lower('A'), '7'::postgres.pg_catalog.int4", rows(("a", "7"))),
        says("INSERT INTO postgres.public.t VALUES (2, 20)", "INSERT 0 1"),
        says("UPDATE postgres.public.t SET a = 21 WHERE postgres.public.t.id = 2", "UPDATE 1"),
        says("SELECT a FROM t WHERE id = 2", rows("21")),
        says("DELETE FROM postgres.public.t WHERE id = 2", "DELETE 1"),
        says("SELECT current_catalog FROM postgres.public.t", rows("postgres")),
    ),
    fact(
        "database-in-definitions",
        "so it is in definitions",
        says("CREATE TABLE postgres.public.made (id int)", "CREATE TABLE"),
        says("ALTER TABLE postgres.public.made ADD COLUMN v int", "ALTER TABLE"),
        says("CREATE INDEX ASYNC ON postgres.public.made (v)", "CREATE INDEX"),
        says("GRANT SELECT ON postgres.public.made TO PUBLIC", "GRANT"),
        says("COMMENT ON TABLE postgres.public.made IS 'x'", "COMMENT"),
        says("DROP TABLE postgres.public.made", "DROP TABLE"),
    ),
    fact(
        "another-database",
        "there is no other database",
        says(
            "SELECT * FROM other.public.t",
            refused('cross-database references are not implemented: "other.public.t"'),
        ),
    ),
    fact(
        "a-schema-called-so",
        "a schema may have the database's name",
        says("CREATE SCHEMA postgres", "CREATE SCHEMA"),
        says("CREATE TABLE postgres.t (id int, b int)", "CREATE TABLE"),
        says("SELECT postgres.t.b FROM postgres.t", rows()),
        says("COMMENT ON COLUMN postgres.t.b IS 'x'", "COMMENT"),
        says("DROP TABLE postgres.t", "DROP TABLE"),
        says("DROP SCHEMA postgres", "DROP SCHEMA"),
    ),
    fact(
        "positions-stay",
        "errors point to where the client wrote it",
        request(
            "SELECT 'é'; SELECT nosuch FROM postgres.public.t",
            rows("é"),
            refused('column "nosuch" does not exist', "42703"),
        ),
    ),
]

ASYNC = [
    fact(
        "async-label",
        "ASYNC is a reserved word: a column's label after AS, a name in quotes, nothing else",
        says("SELECT 1 AS async", Done(columns=["async"], rows=[("1",)])),
        says("SELECT x.\"async\" FROM (SELECT 'async' AS async) x", rows("async")),
        says("SELECT async FROM (SELECT 1 AS async) x", refused('syntax error at or near "async"', "42601")),
        says("CREATE TABLE async (id int)", refused('syntax error at or near "async"', "42601")),
        says('CREATE TABLE "async" (id int)', "CREATE TABLE"),
    ),
]


@parametrized(DATABASE)
def test_database_in_names(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=ONE_ROW)


@parametrized(ASYNC)
def test_async_as_a_name(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact)
