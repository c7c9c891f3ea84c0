"""Every production of Aurora DSQL's published grammar: a statement of it runs, or is refused as is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import psycopg
import pytest
from grammar_alternatives import ALTERNATIVES, TRANSACTION_ALTERNATIVES
from grammar_keywords import BARE_LABELS, CATEGORIES, NO_FUNCTION, OWN_WORDS
from grammar_statements import SET_UP, STATEMENTS, TRANSACTION_STATEMENTS, Refused
from psycopg import Connection

from dsql_server.testing import LocalCluster
from dsql_server.testing.clean import drop_user_objects

#: Productions that the published grammar has; the table must cover all of them.
PRODUCTIONS = 381


@pytest.fixture(scope="module")
def connection(dsql_cluster: LocalCluster) -> Iterator[Connection]:
    with dsql_cluster.connect(autocommit=True) as connection:
        drop_user_objects(connection)
        job = None
        for statement in SET_UP:
            answer = connection.execute(statement)  # type: ignore[call-overload]
            if answer.description is not None:
                job = answer.fetchone()
        assert job is not None, "one of them builds an index"
        connection.execute(f"CALL sys.wait_for_job('{job[0]}')")
        yield connection
        drop_user_objects(connection)
        connection.execute("DROP ROLE grammar_role")


def _run(connection: Connection, case: str | Refused) -> None:
    if isinstance(case, str):
        connection.execute(case)  # type: ignore[call-overload]
        return
    statement, sqlstate, message = case
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(statement)  # type: ignore[call-overload]
    assert (refused.value.sqlstate, refused.value.diag.message_primary) == (sqlstate, message), statement


def _run_in_blocks(connection: Connection, cases: Iterable[str | Refused]) -> None:
    for case in cases:
        connection.execute("BEGIN")
        try:
            _run(connection, case)
        finally:
            connection.execute("ROLLBACK")


@pytest.mark.parametrize("production", STATEMENTS)
def test_statements_of(production: str, connection: Connection) -> None:
    _run_in_blocks(connection, STATEMENTS[production])


@pytest.mark.parametrize("production", ALTERNATIVES)
def test_alternatives_of(production: str, connection: Connection) -> None:
    _run_in_blocks(connection, ALTERNATIVES[production])


@pytest.mark.parametrize("production", TRANSACTION_STATEMENTS)
def test_transaction_statements_of(production: str, connection: Connection) -> None:
    for case in (*TRANSACTION_STATEMENTS[production], *TRANSACTION_ALTERNATIVES.get(production, ())):
        _run(connection, case)


def test_no_production_is_left_out() -> None:
    covered = STATEMENTS.keys() | TRANSACTION_STATEMENTS.keys()
    assert len(covered) == PRODUCTIONS and not STATEMENTS.keys() & TRANSACTION_STATEMENTS.keys()
    assert all(STATEMENTS.values())
    assert ALTERNATIVES.keys() | TRANSACTION_ALTERNATIVES.keys() <= covered


# -- keywords ---------------------------------------------------------------------------------------------------------


class Keyword(NamedTuple):
    word: str
    category: str  #: a letter, as ``pg_get_keywords()`` has it
    is_bare_label: bool


@pytest.fixture(scope="module")
def keywords(connection: Connection) -> list[Keyword]:
    """PostgreSQL's, and Aurora DSQL's own."""
    listed = connection.execute("SELECT word, catcode::text, barelabel FROM pg_get_keywords()").fetchall()
    own = [Keyword(word, category, True) for category, words in OWN_WORDS.items() for word in words]
    return [Keyword(*row) for row in listed] + own


def test_there_are_as_many_keywords_as_in_the_grammar(keywords: list[Keyword]) -> None:
    assert Counter(k.category for k in keywords) == CATEGORIES
    assert sum(k.is_bare_label for k in keywords) == BARE_LABELS


def test_keywords_are_names(connection: Connection, keywords: list[Keyword]) -> None:
    """Each where its category lets it stand: as a label, a column, a table, a function."""
    for word, category, is_bare_label in keywords:
        found = connection.execute(f"SELECT 1 AS {word}".encode())
        assert [c.name for c in found.description or ()] == [word]
        if is_bare_label:
            assert connection.execute(f"SELECT 1 {word}".encode()).fetchone() == (1,)
        if category in "UC":
            column = f"SELECT {word}.{word} FROM (SELECT 1 AS {word}) {word}"
            assert connection.execute(column.encode()).fetchone() == (1,), word
        if category in "UT" and word not in NO_FUNCTION:
            with pytest.raises(psycopg.errors.UndefinedFunction):
                connection.execute(f"SELECT {word}(row(1), row(2), row(3), row(4), row(5))".encode())


def test_reserved_words_are_no_names(connection: Connection, keywords: list[Keyword]) -> None:
    """Nor are those that functions and types may have."""
    for word, category, _ in keywords:
        if category in "RT":
            with pytest.raises(psycopg.errors.SyntaxError):
                connection.execute(f"CREATE TABLE {word} (id int)".encode())
