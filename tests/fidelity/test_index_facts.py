"""Indexes of Aurora DSQL: their forms and definitions, how they come to be, and what becomes of them."""

from __future__ import annotations

from facts import Done, Fact, Witness, fact, parametrized, refused, request, rows, says, settled

TABLE = (
    "CREATE TABLE t (id int PRIMARY KEY, a text, b int)",
    "INSERT INTO t VALUES (1, 'x', 10), (2, 'y', NULL), (3, 'z', NULL)",
)

FORMS = [
    fact(
        "index-forms",
        "CREATE INDEX ASYNC answers a job's id; indexes may be unique, partial, covering and of expressions",
        says("CREATE INDEX ASYNC ON t (a NULLS FIRST)", "CREATE INDEX"),
        says("CREATE UNIQUE INDEX ASYNC u ON t (b) NULLS NOT DISTINCT", "CREATE INDEX"),
        says("CREATE INDEX ASYNC p ON t (b) INCLUDE (a) WHERE b > 0", "CREATE INDEX"),
        says("CREATE INDEX ASYNC e ON t ((lower(a)), (b + 1))", "CREATE INDEX"),
        says("CREATE INDEX ASYNC IF NOT EXISTS e ON t (b)", "CREATE INDEX"),
        says("CREATE INDEX ASYNC m ON t USING btree_index (a, b)", "CREATE INDEX"),
        says(
            "SELECT indexdef FROM pg_indexes WHERE tablename = 't' ORDER BY indexname",
            rows(
                "CREATE INDEX e ON public.t USING btree_index (lower(a), ((b + 1)))",
                "CREATE INDEX m ON public.t USING btree_index (a, b)",
                "CREATE INDEX p ON public.t USING btree_index (b) INCLUDE (a) WHERE (b > 0)",
                "CREATE INDEX t_a_idx ON public.t USING btree_index (a NULLS FIRST)",
                "CREATE UNIQUE INDEX t_pkey ON public.t USING btree_index (id) INCLUDE (a, b)",
                "CREATE UNIQUE INDEX u ON public.t USING btree_index (b) NULLS NOT DISTINCT",
            ),
        ),
        says("ALTER INDEX e RENAME TO f", "ALTER INDEX"),
        says("DROP INDEX f", "DROP INDEX"),
    ),
    fact(
        "sync-index",
        "disable_sync_create_index = off allows CREATE INDEX without ASYNC where there are no rows; it answers no job",
        says("CREATE TABLE empty (id int PRIMARY KEY, a text)", "CREATE TABLE"),
        says("SHOW disable_sync_create_index", rows("on")),
        says("CREATE INDEX i ON empty (a)", refused("unsupported mode. please use CREATE INDEX ASYNC.")),
        says("SET disable_sync_create_index = off", "SET"),
        says("SHOW disable_sync_create_index", rows("off")),
        says("CREATE INDEX i ON empty (a)", Done("CREATE INDEX", [], [])),
        says("CREATE UNIQUE INDEX u ON empty (a)", Done("CREATE INDEX", [], [])),
        says("CREATE INDEX of_rows ON t (a)", refused("unsupported mode. please use CREATE INDEX ASYNC.")),
        says("CREATE INDEX ASYNC i_too ON t (a)", "CREATE INDEX"),
        says("RESET disable_sync_create_index", "RESET"),
        says("CREATE INDEX j ON empty (a)", refused("unsupported mode. please use CREATE INDEX ASYNC.")),
    ),
    fact(
        "one-row-with-the-job",
        "CREATE INDEX ASYNC answers one row of one column, and so it does within a Query message of a block",
        says("SELECT count(*) FROM t", rows("3")),
        says("CREATE INDEX ASYNC alone ON t (a)", Done("CREATE INDEX", ["job_id"])),
        settled(),
        request(
            "BEGIN; CREATE INDEX ASYNC within ON t (b); COMMIT", "BEGIN", Done("CREATE INDEX", ["job_id"]), "COMMIT"
        ),
        settled(),
        says("SELECT count(*) FROM sys.jobs WHERE object_name IN ('public.alone', 'public.within')", rows("2")),
    ),
    fact(
        "generated-names",
        "an index without a name is called as PostgreSQL calls it, and stands in its table's schema",
        says("CREATE SCHEMA store", "CREATE SCHEMA"),
        says("CREATE TABLE store.goods (id int PRIMARY KEY, a int, b int)", "CREATE TABLE"),
        says("CREATE INDEX ASYNC ON store.goods (a, b)", "CREATE INDEX"),
        says("CREATE INDEX ASYNC ON store.goods ((a + b))", "CREATE INDEX"),
        says(
            "SELECT indexname FROM pg_indexes WHERE schemaname = 'store' ORDER BY 1",
            rows("goods_a_b_idx", "goods_expr_idx", "goods_pkey"),
        ),
    ),
    fact(
        "taken-names",
        "a name that is taken is refused unless IF NOT EXISTS says otherwise",
        says("CREATE INDEX ASYNC i ON t (a)", "CREATE INDEX"),
        says("CREATE INDEX ASYNC i ON t (b)", refused('relation "i" already exists', "42P07")),
        says("CREATE INDEX ASYNC IF NOT EXISTS i ON t (b)", "CREATE INDEX"),
        says(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'i'",
            rows("CREATE INDEX i ON public.t USING btree_index (a)"),
        ),
    ),
]

UNIQUE = [
    fact(
        "nulls-distinct",
        "NULLs are distinct in a unique index unless it says NULLS NOT DISTINCT",
        says("CREATE UNIQUE INDEX ASYNC distinct_ ON t (b) NULLS DISTINCT", "CREATE INDEX"),
        settled(),
        says("INSERT INTO t VALUES (4, 'v', NULL)", "INSERT 0 1"),
        says(
            "INSERT INTO t VALUES (5, 'v', 10)",
            refused('duplicate key value violates unique constraint "distinct_"', "23505"),
        ),
        says("DELETE FROM t WHERE b IS NULL AND id > 2", "DELETE 2"),
        says("CREATE UNIQUE INDEX ASYNC same ON t (b) NULLS NOT DISTINCT", "CREATE INDEX"),
        settled(),
        says(
            "INSERT INTO t VALUES (5, 'v', NULL)",
            refused('duplicate key value violates unique constraint "same"', "23505"),
        ),
    ),
    fact(
        "partial",
        "a partial unique index asks for nothing of rows that its predicate leaves out",
        says("CREATE UNIQUE INDEX ASYNC p ON t (b) WHERE a <> 'x'", "CREATE INDEX"),
        settled(),
        says("INSERT INTO t VALUES (4, 'v', 10)", "INSERT 0 1"),
        says(
            "INSERT INTO t VALUES (5, 'w', 10)", refused('duplicate key value violates unique constraint "p"', "23505")
        ),
        says("INSERT INTO t VALUES (5, 'x', 10)", "INSERT 0 1"),
    ),
    fact(
        "expression",
        "a unique index may be of an expression",
        says("CREATE UNIQUE INDEX ASYNC e ON t ((upper(a)))", "CREATE INDEX"),
        settled(),
        says(
            "INSERT INTO t VALUES (4, 'X', 1)",
            refused(
                'duplicate key value violates unique constraint "e"', "23505", "Key (upper(a))=(X) already exists."
            ),
        ),
    ),
    fact(
        "covering",
        "what a unique index includes is no part of its key",
        says("CREATE UNIQUE INDEX ASYNC c ON t (a) INCLUDE (b)", "CREATE INDEX"),
        settled(),
        says(
            "INSERT INTO t VALUES (4, 'x', 11)", refused('duplicate key value violates unique constraint "c"', "23505")
        ),
    ),
    fact(
        "becomes-a-constraint",
        "a valid unique index becomes a constraint, under its own name or the constraint's",
        says("CREATE UNIQUE INDEX ASYNC by_a ON t (a)", "CREATE INDEX"),
        settled(),
        says("ALTER TABLE t ADD UNIQUE USING INDEX by_a", "ALTER TABLE"),
        says("CREATE UNIQUE INDEX ASYNC by_b ON t (b)", "CREATE INDEX"),
        settled(),
        says("ALTER TABLE t ADD CONSTRAINT only_b UNIQUE USING INDEX by_b", "ALTER TABLE"),
        says(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE contype = 'u' AND conrelid = 't'::regclass ORDER BY 1",
            rows(("by_a", "UNIQUE (a)"), ("only_b", "UNIQUE (b)")),
        ),
        says(
            "INSERT INTO t VALUES (4, 'v', 10)",
            refused('duplicate key value violates unique constraint "only_b"', "23505"),
        ),
        says("ALTER TABLE t DROP CONSTRAINT only_b", "ALTER TABLE"),
        says("INSERT INTO t VALUES (4, 'v', 10)", "INSERT 0 1"),
        says("SELECT count(*) FROM pg_indexes WHERE indexname IN ('by_b', 'only_b')", rows("0")),
    ),
    fact(
        "on-conflict",
        "ON CONFLICT takes a unique index that is built",
        says("CREATE UNIQUE INDEX ASYNC u ON t (a)", "CREATE INDEX"),
        settled(),
        says("INSERT INTO t VALUES (9, 'x', 99) ON CONFLICT (a) DO UPDATE SET b = excluded.b", "INSERT 0 1"),
        says("SELECT id, b FROM t WHERE a = 'x'", rows(("1", "99"))),
    ),
]


@parametrized([*FORMS, *UNIQUE])
def test_indexes(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=TABLE)
