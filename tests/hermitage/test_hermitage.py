"""Hermitage's anomalies (Martin Kleppmann), as its PostgreSQL page tries them on "repeatable read".

What is prevented stays prevented, and write skew stays possible: that is snapshot isolation. But where PostgreSQL waits
for the other transaction, nobody waits here, and a conflict is found at COMMIT only: first committer wins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg
import pytest
from transactions import Row, ServerError, Transaction

from dsql_server.testing import LocalCluster

BEGIN = Callable[[], Transaction]
#: In one test, open or ended.
TRANSACTIONS_MAX = 5

ALL = "SELECT id, value FROM test ORDER BY id"
BY_THREE = "SELECT id, value FROM test WHERE value % 3 = 0 ORDER BY id"
FIRST: list[Row] = [(1, 10), (2, 20)]


@pytest.fixture(scope="module")
def connections(dsql_cluster: LocalCluster) -> Iterator[list[psycopg.Connection]]:
    """As many as a test has transactions."""
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(dsql_cluster.connect(autocommit=True)) for _ in range(TRANSACTIONS_MAX)]


@pytest.fixture
def begin(dsql_url: str, connections: list[psycopg.Connection]) -> Iterator[BEGIN]:
    """Begins a transaction on a connection of its own. The table holds (1, 10) and (2, 20)."""
    connections[0].execute("CREATE TABLE test (id int PRIMARY KEY, value int)")
    connections[0].execute("INSERT INTO test (id, value) VALUES (1, 10), (2, 20)")
    unused = iter(connections)
    yield lambda: Transaction(next(unused))
    for connection in connections:
        connection.rollback()


def _one(key: int) -> str:
    return f"SELECT id, value FROM test WHERE id = {key}"


def _set(key: int, value: int) -> str:
    return f"UPDATE test SET value = {value} WHERE id = {key}"


def _conflicts(loser: Transaction) -> None:
    """Its COMMIT finds that another transaction was first."""
    with pytest.raises(ServerError) as caught:
        loser.commit()
    assert caught.value.sqlstate == "40001"
    assert caught.value.message == "change conflicts with another transaction (OC000)"


@pytest.mark.parametrize("winner", [1, 2])
def test_g0_write_cycles_are_prevented(begin: BEGIN, winner: int) -> None:
    one, two = begin(), begin()
    one.run(_set(1, 11))
    two.run(_set(1, 12))
    one.run(_set(2, 21))
    two.run(_set(2, 22))
    first, second = (one, two) if winner == 1 else (two, one)
    first.commit()
    _conflicts(second)
    assert begin().run(ALL) == [(1, 10 + winner), (2, 20 + winner)]


def test_g1a_aborted_reads_are_prevented(begin: BEGIN) -> None:
    one, two = begin(), begin()
    one.run(_set(1, 101))
    assert one.run(ALL) == [(1, 101), (2, 20)]
    assert two.run(ALL) == FIRST
    one.roll_back()
    assert two.run(ALL) == FIRST
    two.commit()
    assert begin().run(ALL) == FIRST


def test_g1b_intermediate_reads_are_prevented(begin: BEGIN) -> None:
    one, two = begin(), begin()
    one.run(_set(1, 101))
    assert two.run(ALL) == FIRST
    one.run(_set(1, 11))
    one.commit()
    assert two.run(ALL) == FIRST
    two.commit()
    assert begin().run(ALL) == [(1, 11), (2, 20)]


def test_g1c_circular_information_flow_is_prevented(begin: BEGIN) -> None:
    one, two = begin(), begin()
    one.run(_set(1, 11))
    two.run(_set(2, 22))
    assert one.run(_one(2)) == [(2, 20)]
    assert two.run(_one(1)) == [(1, 10)]
    one.commit()
    two.commit()  # they wrote different rows
    assert begin().run(ALL) == [(1, 11), (2, 22)]


def test_otv_observed_transaction_vanishes_is_prevented(begin: BEGIN) -> None:
    one, two, before = begin(), begin(), begin()
    assert before.run(_one(1)) == [(1, 10)]
    one.run(_set(1, 11))
    one.run(_set(2, 19))
    two.run(_set(1, 12))
    one.commit()
    three = begin()
    assert three.run(_one(1)) == [(1, 11)]
    two.run(_set(2, 18))
    assert three.run(_one(2)) == [(2, 19)]
    _conflicts(two)
    assert three.run(ALL) == [(1, 11), (2, 19)]
    assert before.run(ALL) == FIRST
    three.commit()
    before.commit()
    assert begin().run(ALL) == [(1, 11), (2, 19)]


def test_pmp_predicate_many_preceders_is_prevented_for_reads(begin: BEGIN) -> None:
    one, two = begin(), begin()
    assert one.run("SELECT id, value FROM test WHERE value = 30") == []
    two.run("INSERT INTO test (id, value) VALUES (3, 30)")
    two.commit()
    assert one.run(BY_THREE) == []
    one.commit()
    assert begin().run(BY_THREE) == [(3, 30)]


@pytest.mark.parametrize("winner", ["update", "delete"])
def test_pmp_predicate_many_preceders_is_prevented_for_writes(begin: BEGIN, winner: str) -> None:
    one, two = begin(), begin()
    one.run("UPDATE test SET value = value + 10")
    two.run("DELETE FROM test WHERE value = 20")
    assert two.run(ALL) == [(1, 10)]
    if winner == "update":
        one.commit()
        _conflicts(two)
        assert begin().run(ALL) == [(1, 20), (2, 30)]
    else:
        two.commit()
        _conflicts(one)
        assert begin().run(ALL) == [(1, 10)]


@pytest.mark.parametrize("winner", [1, 2])
def test_p4_lost_updates_are_prevented(begin: BEGIN, winner: int) -> None:
    one, two = begin(), begin()
    assert one.run(_one(1)) == [(1, 10)]
    assert two.run(_one(1)) == [(1, 10)]
    one.run(_set(1, 11))
    two.run(_set(1, 12))
    first, second = (one, two) if winner == 1 else (two, one)
    first.commit()
    _conflicts(second)
    assert begin().run(_one(1)) == [(1, 10 + winner)]


def test_p4_holds_for_equal_values_too(begin: BEGIN) -> None:
    one, two = begin(), begin()
    one.run(_set(1, 11))
    two.run(_set(1, 11))
    one.commit()
    _conflicts(two)


def test_g_single_read_skew_is_prevented(begin: BEGIN) -> None:
    one, two = begin(), begin()
    assert one.run(_one(1)) == [(1, 10)]
    assert two.run(_one(1)) == [(1, 10)]
    assert two.run(_one(2)) == [(2, 20)]
    two.run(_set(1, 12))
    two.run(_set(2, 18))
    two.commit()
    assert one.run(_one(2)) == [(2, 20)]
    one.commit()
    assert begin().run(ALL) == [(1, 12), (2, 18)]


def test_g_single_read_skew_is_prevented_for_predicates(begin: BEGIN) -> None:
    one, two = begin(), begin()
    assert one.run("SELECT id, value FROM test WHERE value % 5 = 0 ORDER BY id") == FIRST
    two.run("UPDATE test SET value = 12 WHERE value = 10")
    two.commit()
    assert one.run(BY_THREE) == []
    one.commit()
    assert begin().run(BY_THREE) == [(1, 12)]


@pytest.mark.parametrize("is_committed", [True, False])
def test_g_single_read_skew_is_prevented_for_write_predicates(begin: BEGIN, is_committed: bool) -> None:
    one, two = begin(), begin()
    assert one.run(_one(1)) == [(1, 10)]
    assert two.run(ALL) == FIRST
    two.run(_set(1, 12))
    two.run(_set(2, 18))
    if is_committed:
        two.commit()
    else:
        two.roll_back()
    # Its snapshot still has a row with 20, so this deletes one; PostgreSQL would refuse it here.
    one.run("DELETE FROM test WHERE value = 20")
    assert one.run(ALL) == [(1, 10)]
    if is_committed:
        _conflicts(one)
        assert begin().run(ALL) == [(1, 12), (2, 18)]
    else:
        one.commit()
        assert begin().run(ALL) == [(1, 10)]


def test_g2_item_write_skew_is_permitted(begin: BEGIN) -> None:
    one, two = begin(), begin()
    both = "SELECT id, value FROM test WHERE id IN (1, 2) ORDER BY id"
    assert one.run(both) == two.run(both) == FIRST
    one.run(_set(1, 11))
    two.run(_set(2, 21))
    one.commit()
    two.commit()
    assert begin().run(ALL) == [(1, 11), (2, 21)]


def test_g2_item_write_skew_is_prevented_by_for_update(begin: BEGIN) -> None:
    one, two = begin(), begin()
    both = "SELECT id, value FROM test WHERE id IN (1, 2) ORDER BY id FOR UPDATE"
    assert one.run(both) == two.run(both) == FIRST
    one.run(_set(1, 11))
    two.run(_set(2, 21))
    one.commit()
    _conflicts(two)
    assert begin().run(ALL) == [(1, 11), (2, 20)]


def test_g2_anti_dependency_cycles_are_permitted(begin: BEGIN) -> None:
    one, two = begin(), begin()
    assert one.run(BY_THREE) == two.run(BY_THREE) == []
    one.run("INSERT INTO test (id, value) VALUES (3, 30)")
    two.run("INSERT INTO test (id, value) VALUES (4, 42)")
    one.commit()
    two.commit()
    assert begin().run(BY_THREE) == [(3, 30), (4, 42)]


def test_g2_two_edges_are_permitted(begin: BEGIN) -> None:
    """Fekete's read-only transaction that sees an order which no serial run has."""
    one = begin()
    assert one.run(ALL) == FIRST
    two = begin()
    two.run("UPDATE test SET value = value + 5 WHERE id = 2")
    two.commit()
    three = begin()
    assert three.run(ALL) == [(1, 10), (2, 25)]
    three.commit()
    one.run(_set(1, 0))
    one.commit()
    assert begin().run(ALL) == [(1, 0), (2, 25)]
