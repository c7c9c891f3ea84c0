"""The order workload without a database: who does what, and how results come together."""

import datetime as dt
import itertools
import random
import uuid
from decimal import Decimal
from typing import Any

import pytest

from dsql_server.cli.workload import client as client_module
from dsql_server.cli.workload.client import Client, Plan, Result, Round, WrongAnswer
from dsql_server.cli.workload.fleet import merge
from dsql_server.cli.workload.orders import ITEMS_PER_ORDER, SEED_STEP, Seed, Tables, new_order
from dsql_server.cli.workload.session import UnsupportedUrl, is_dsql, open_session, without_password

SEED = Seed(50, dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc))


class FakeDatabase:
    """Answers the workload's statements from dictionaries; a transaction is applied at once."""

    def __init__(self) -> None:
        self.orders: dict[uuid.UUID, list[Any]] = {}
        self.items: list[tuple[Any, ...]] = []
        self.transactions = 0
        self.rows: list[tuple[Any, ...]] = []
        self.lose_items = False
        for order in SEED.orders():
            self.orders[order.order_id] = [order.total, order.created_at]

    def execute(self, statement: str, parameters: tuple[Any, ...]) -> "FakeDatabase":
        if statement.startswith("INSERT INTO orders"):
            self.orders[parameters[0]] = [parameters[3], parameters[4]]
        elif statement.startswith("INSERT INTO order_items"):
            if not self.lose_items:
                self.items.append(parameters)
        elif statement.startswith("UPDATE orders SET total"):
            self.orders[parameters[1]][0] = parameters[0]
        elif statement.startswith("SELECT total"):
            self.rows = [(self.orders[parameters[0]][0],)]
        elif "BETWEEN" in statement:
            self.rows = [(key,) for key, (_, at) in self.orders.items() if parameters[0] <= at <= parameters[1]]
        else:
            self.rows = [item for item in self.items if item[1] == parameters[0]]
        return self

    def fetchone(self) -> tuple[Any, ...]:
        return self.rows[0]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.rows


class FakeSession:
    conflicts = 0

    def __init__(self, database: FakeDatabase) -> None:
        self.connection = database

    def transaction(self, work: Any) -> Any:
        self.connection.transactions += 1
        return work(self.connection)

    def close(self) -> None:
        pass


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> FakeDatabase:
    database = FakeDatabase()
    monkeypatch.setattr(client_module, "open_session", lambda url: FakeSession(database))
    return database


def plan(client: int = 0, clients: int = 1, conflict_share: float = 0.0, rival: bool = False) -> Plan:
    return Plan("postgresql://fake", Tables(), SEED, client, clients, conflict_share, rival)


def test_an_order_has_two_items_and_their_total() -> None:
    order = new_order(random.Random(3), SEED.first_created_at)
    assert len(order.items) == ITEMS_PER_ORDER
    assert order.total == sum(item.quantity * item.price for item in order.items) > 0
    assert len({item.item_id for item in order.items}) == ITEMS_PER_ORDER


def test_seeded_orders_are_known_by_number() -> None:
    orders = list(SEED.orders())
    assert [order.order_id for order in orders] == [SEED.order_id(n) for n in range(SEED.size)]
    assert len({order.order_id for order in orders}) == SEED.size
    assert {later.created_at - order.created_at for order, later in itertools.pairwise(orders)} == {SEED_STEP}


def test_a_round_of_orders_creates_gets_and_lists_each(database: FakeDatabase) -> None:
    result = Client(plan()).run(Round(seconds=None, orders=7))
    assert {name: len(values) for name, values in result.latencies_s.items()} == {
        "create": 7,
        "contended": 0,
        "get": 7,
        "list": 7,
    }
    assert set(result.acknowledged) == set(database.orders) - {SEED.order_id(n) for n in range(SEED.size)}
    assert len(database.items) == 7 * ITEMS_PER_ORDER
    assert database.transactions == 7


def test_clients_share_the_orders_of_a_round(database: FakeDatabase) -> None:
    counts = [len(Client(plan(n, 3)).run(Round(seconds=None, orders=8)).acknowledged) for n in range(3)]
    assert counts == [3, 3, 2]


def test_a_round_of_seconds_ends(database: FakeDatabase) -> None:
    result = Client(plan()).run(Round(seconds=0.02, orders=None))
    assert result.acknowledged
    assert 0.02 <= result.seconds < 2


def test_contended_creates_are_spread_evenly_and_counted(database: FakeDatabase) -> None:
    before = database.orders[SEED.order_id(0)][0]
    client = Client(plan(conflict_share=0.25))
    results = [client.run(Round(seconds=None, orders=4)) for _ in range(3)]
    assert [len(result.latencies_s["contended"]) for result in results] == [1, 1, 1]
    assert sum(result.increments for result in results) == 3
    assert database.orders[SEED.order_id(0)][0] - before == 3


def test_a_rival_commits_in_the_middle_of_a_contended_create(database: FakeDatabase) -> None:
    before = database.orders[SEED.order_id(0)][0]
    result = Client(plan(conflict_share=1.0, rival=True)).run(Round(seconds=None, orders=2))
    # This database detects no conflict, so each create overwrites its rival's update: a lost update that shows.
    assert result.increments == 4
    assert database.orders[SEED.order_id(0)][0] - before == 2
    assert database.transactions == 4


def test_an_acknowledged_order_without_its_items_is_a_wrong_answer(database: FakeDatabase) -> None:
    database.lose_items = True
    with pytest.raises(WrongAnswer, match="acknowledged and shows 0 of 2 items"):
        Client(plan()).run(Round(seconds=None, orders=1))


def test_merged_results_keep_every_call_and_the_longest_time() -> None:
    first, second = uuid.uuid4(), uuid.uuid4()
    names = ("create", "contended", "get", "list")
    merged = merge(
        [
            Result({name: [0.1] for name in names}, [first], 1, 2, 3.0),
            Result({name: [0.2] for name in names}, [second], 10, 20, 2.0),
        ]
    )
    assert merged == Result({name: [0.1, 0.2] for name in names}, [first, second], 11, 22, 3.0)


def test_order_totals_are_exact() -> None:
    totals = [new_order(random.Random(n), SEED.first_created_at).total for n in range(20)]
    assert all(total == total.quantize(Decimal("0.01")) for total in totals)


@pytest.mark.parametrize("url", ["aws-dsql://admin@x.dsql.us-east-1.on.aws/postgres", "aws-dsql:postgresql://x/y"])
def test_dsql_urls(url: str) -> None:
    assert is_dsql(url)


@pytest.mark.parametrize("url", ["postgresql://localhost/postgres", "postgres://localhost"])
def test_postgresql_urls(url: str) -> None:
    assert not is_dsql(url)


def test_another_url_is_refused_without_showing_its_password() -> None:
    with pytest.raises(UnsupportedUrl, match="'mysql://me@host/db' is not an aws-dsql:// or postgresql:// URL"):
        open_session("mysql://me:hidden@host/db")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:se@cret@host:5/db?sslmode=require", "postgresql://me@host:5/db?sslmode=require"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql:///db?host=/run", "postgresql:///db?host=/run"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
