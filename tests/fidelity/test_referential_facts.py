"""Foreign keys of Aurora DSQL: what becomes of referencing rows, how composite keys match, when it is checked."""

from __future__ import annotations

from facts import Fact, Refused, Witness, fact, parametrized, refused, rows, says

PARENT = (
    "CREATE TABLE parent (a int, b int, code int UNIQUE, PRIMARY KEY (a, b))",
    "INSERT INTO parent VALUES (1, 1, 10), (2, 2, 20), (3, 3, 30), (1, 3, 40)",
)


def _child(rule: str, column: str = "code int DEFAULT 30") -> str:
    return f"CREATE TABLE child (id int PRIMARY KEY, {column} REFERENCES parent (code) {rule})"


def _still_referenced(key: str, value: str, constraint: str = "child_code_fkey") -> Refused:
    return refused(
        f'update or delete on table "parent" violates foreign key constraint "{constraint}" on table "child"',
        "23503",
        f'Key ({key})=({value}) is still referenced from table "child".',
    )


UPDATED = [
    fact(
        f"on-update-{rule.lower().replace(' ', '-')}",
        f"ON UPDATE {rule}: a referencing value becomes {becomes}",
        says(_child(f"ON UPDATE {rule}"), "CREATE TABLE"),
        says("INSERT INTO child VALUES (1, 10), (2, 20)", "INSERT 0 2"),
        says("UPDATE parent SET code = 11 WHERE code = 10", "UPDATE 1"),
        says("SELECT code FROM child ORDER BY id", rows(becomes, "20")),
    )
    for rule, becomes in (("CASCADE", "11"), ("SET NULL", None), ("SET DEFAULT", "30"))
]

DELETED = [
    fact(
        f"on-delete-{rule.lower().replace(' ', '-')}",
        f"ON DELETE {rule}: {words}",
        says(_child(f"ON DELETE {rule}"), "CREATE TABLE"),
        says("INSERT INTO child VALUES (1, 10), (2, 20)", "INSERT 0 2"),
        says("DELETE FROM parent WHERE code = 10", "DELETE 1"),
        says("SELECT id, code FROM child ORDER BY id", rows(*found)),
    )
    for rule, words, found in (
        ("CASCADE", "the row goes along", (("2", "20"),)),
        ("SET NULL", "the reference goes", (("1", None), ("2", "20"))),
        ("SET DEFAULT", "the default is referenced", (("1", "30"), ("2", "20"))),
    )
]

STANDING = [
    fact(
        f"{rule.lower().replace(' ', '-') or 'without-action'}",
        f"{rule or 'no action'}: what is referenced neither goes nor changes",
        says(_child(f"{rule and 'ON DELETE ' + rule} {rule and 'ON UPDATE ' + rule}"), "CREATE TABLE"),
        says("INSERT INTO child VALUES (1, 10)", "INSERT 0 1"),
        says("DELETE FROM parent WHERE code = 10", _still_referenced("code", "10")),
        says("UPDATE parent SET code = 11 WHERE code = 10", _still_referenced("code", "10")),
        says("UPDATE parent SET code = 21 WHERE code = 20", "UPDATE 1"),
        says("DELETE FROM child", "DELETE 1"),
        says("DELETE FROM parent WHERE code = 10", "DELETE 1"),
    )
    for rule in ("", "NO ACTION", "RESTRICT")
]

COMPOSITE = [
    fact(
        "some-columns-become-null",
        "ON DELETE SET NULL with a list changes the listed columns only",
        says(
            "CREATE TABLE child (id int PRIMARY KEY, a int, b int, "
            "FOREIGN KEY (a, b) REFERENCES parent ON DELETE SET NULL (b))",
            "CREATE TABLE",
        ),
        says("INSERT INTO child VALUES (1, 2, 2)", "INSERT 0 1"),
        says("DELETE FROM parent WHERE a = 2", "DELETE 1"),
        says("SELECT * FROM child", rows(("1", "2", None))),
    ),
    fact(
        "some-columns-become-defaults",
        "so does ON DELETE SET DEFAULT; what comes of it is checked",
        says(
            "CREATE TABLE child (id int PRIMARY KEY, a int, b int DEFAULT 3, "
            "FOREIGN KEY (a, b) REFERENCES parent ON DELETE SET DEFAULT (b))",
            "CREATE TABLE",
        ),
        says("INSERT INTO child VALUES (1, 1, 1), (2, 2, 2)", "INSERT 0 2"),
        says("DELETE FROM parent WHERE a = 1 AND b = 1", "DELETE 1"),
        says("SELECT * FROM child WHERE id = 1", rows(("1", "1", "3"))),
        says(
            "DELETE FROM parent WHERE a = 2",
            refused(
                'insert or update on table "child" violates foreign key constraint "child_a_b_fkey"',
                "23503",
                'Key (a, b)=(2, 3) is not present in table "parent".',
            ),
        ),
    ),
    fact(
        "match-simple",
        "MATCH SIMPLE, also where nothing is said, asks for nothing where one of the columns is NULL",
        says(
            "CREATE TABLE child (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES parent MATCH SIMPLE)",
            "CREATE TABLE",
        ),
        says("INSERT INTO child VALUES (1, 9, NULL), (2, NULL, NULL), (3, 1, 3)", "INSERT 0 3"),
        says(
            "INSERT INTO child VALUES (4, 9, 9)",
            refused(
                'insert or update on table "child" violates foreign key constraint "child_a_b_fkey"',
                "23503",
                'Key (a, b)=(9, 9) is not present in table "parent".',
            ),
        ),
    ),
    fact(
        "match-full",
        "MATCH FULL takes all columns or none",
        says(
            "CREATE TABLE child (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES parent MATCH FULL)",
            "CREATE TABLE",
        ),
        says("INSERT INTO child VALUES (1, NULL, NULL), (2, 1, 1)", "INSERT 0 2"),
        says(
            "INSERT INTO child VALUES (3, 1, NULL)",
            refused(
                'insert or update on table "child" violates foreign key constraint "child_a_b_fkey"',
                "23503",
                "MATCH FULL does not allow mixing of null and nonnull key values.",
            ),
        ),
    ),
]

_DEFERRED = "DEFERRABLE INITIALLY DEFERRED"
DEFERRAL = [
    fact(
        "deferred-to-commit",
        "a deferred foreign key is checked at COMMIT",
        says(_child(_DEFERRED), "CREATE TABLE"),
        says("BEGIN", "BEGIN"),
        says("INSERT INTO child VALUES (1, 99)", "INSERT 0 1"),
        says("INSERT INTO parent VALUES (9, 9, 99)", "INSERT 0 1"),
        says("COMMIT", "COMMIT"),
        says("BEGIN", "BEGIN"),
        says("DELETE FROM parent WHERE code = 99", "DELETE 1"),
        says("COMMIT", _still_referenced("code", "99")),
        says("SELECT count(*) FROM parent WHERE code = 99", rows("1")),
    ),
    fact(
        "deferrable-on-demand",
        "a deferrable one is checked at once unless SET CONSTRAINTS defers it, and then when that is taken back",
        says(_child("DEFERRABLE"), "CREATE TABLE"),
        says(
            "INSERT INTO child VALUES (1, 99)",
            refused('insert or update on table "child" violates foreign key constraint "child_code_fkey"', "23503"),
        ),
        says("BEGIN", "BEGIN"),
        says("SET CONSTRAINTS child_code_fkey DEFERRED", "SET CONSTRAINTS"),
        says("INSERT INTO child VALUES (1, 99)", "INSERT 0 1"),
        says(
            "SET CONSTRAINTS ALL IMMEDIATE",
            refused('insert or update on table "child" violates foreign key constraint "child_code_fkey"', "23503"),
        ),
        says("COMMIT", "ROLLBACK"),
    ),
    fact(
        "restrict-is-never-deferred",
        "RESTRICT is checked at once even where the foreign key is deferred",
        says(_child(f"ON DELETE RESTRICT {_DEFERRED}"), "CREATE TABLE"),
        says("INSERT INTO child VALUES (1, 10)", "INSERT 0 1"),
        says("BEGIN", "BEGIN"),
        says("DELETE FROM parent WHERE code = 10", _still_referenced("code", "10")),
        says("COMMIT", "ROLLBACK"),
    ),
    fact(
        "altered",
        "ALTER CONSTRAINT makes a foreign key deferrable, and no other constraint",
        says(_child("", "code int CONSTRAINT positive CHECK (code > 0) CONSTRAINT known"), "CREATE TABLE"),
        says("ALTER TABLE child ALTER CONSTRAINT known DEFERRABLE INITIALLY DEFERRED", "ALTER TABLE"),
        says("BEGIN", "BEGIN"),
        says("INSERT INTO child VALUES (1, 99)", "INSERT 0 1"),
        says(
            "COMMIT",
            refused('insert or update on table "child" violates foreign key constraint "known"', "23503"),
        ),
        says("ALTER TABLE child ALTER CONSTRAINT known NOT DEFERRABLE", "ALTER TABLE"),
        says("BEGIN", "BEGIN"),
        says(
            "INSERT INTO child VALUES (1, 99)",
            refused('insert or update on table "child" violates foreign key constraint "known"', "23503"),
        ),
        says("ROLLBACK", "ROLLBACK"),
        says(
            "ALTER TABLE child ALTER CONSTRAINT positive DEFERRABLE",
            refused('constraint "positive" of relation "child" is not a foreign key constraint', "42809"),
        ),
    ),
    fact(
        "no-such-match",
        "MATCH PARTIAL is PostgreSQL's, which has none",
        says(_child("MATCH PARTIAL"), refused("MATCH PARTIAL not yet implemented")),
    ),
]


@parametrized([*UPDATED, *DELETED, *STANDING, *COMPOSITE, *DEFERRAL])
def test_references(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact, given=PARENT)
