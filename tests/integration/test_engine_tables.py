"""The engine's own tables stay small: COMMIT looks through all of their pages for the transaction's rows."""

from __future__ import annotations

from two_sessions import Session

PAGES_MAX = 100
PAGE_BYTES = 8192


def _pages(session: Session, table: str) -> int:
    size: int = session.value(f"SELECT pg_relation_size('{table}')")
    return size // PAGE_BYTES


def test_what_a_session_has_written_leaves_no_pages_behind(one: Session) -> None:
    one.run("CREATE TABLE filled (id int PRIMARY KEY, note text)")
    for first in range(0, 60_000, 3000):
        one.run(f"INSERT INTO filled SELECT i, 'note ' || i FROM generate_series({first}, {first + 2999}) i")
    assert _pages(one, "filled") < PAGES_MAX


def test_a_large_read_leaves_no_pages_behind(one: Session) -> None:
    one.run("CREATE TABLE read (id int PRIMARY KEY, note text)")
    for first in range(0, 12_000, 3000):
        one.run(f"INSERT INTO read SELECT i, repeat('x', 100) FROM generate_series({first}, {first + 2999}) i")
    assert one.value("SELECT sum(length(note)) FROM read") == 1_200_000
    one.run("UPDATE read SET note = 'y' WHERE id = 5")
    assert _pages(one, "read") < PAGES_MAX
