"""Clients that create orders of three rows until their server dies, and what must be there afterwards."""

from __future__ import annotations

import threading
import time
import uuid
from typing import NamedTuple

import dsql_connectors.psycopg as psycopg
from dsql_server.testing import LocalCluster

#: How often the orders are read where the server asks to try again.
READ_ATTEMPTS_MAX = 3
#: From a start of the load to its first acknowledged order.
FIRST_ORDER_S_MAX = 60.0
ITEMS_PER_ORDER = 2
SCHEMA = (
    "CREATE TABLE orders (id uuid PRIMARY KEY, client int NOT NULL, total int NOT NULL)",
    "CREATE TABLE order_items (order_id uuid, item int, price int NOT NULL, PRIMARY KEY (order_id, item))",
)


class Findings(NamedTuple):
    """What a check of the stored orders found."""

    orders: int
    lost: list[uuid.UUID]  #: acknowledged, but not there
    halved: list[uuid.UUID]  #: without some of their items, or items without their order


class OrderLoad:
    """Several clients, each on its own connection and thread. ``acknowledged`` grows over any number of runs."""

    def __init__(self, cluster: LocalCluster, clients: int) -> None:
        self._cluster = cluster
        self._clients = clients
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.acknowledged: set[uuid.UUID] = set()
        self.defects: list[BaseException] = []  #: errors other than that the server is gone
        self.errors: list[psycopg.Error] = []  #: how the server's end was met

    def start(self) -> None:
        self._stop.clear()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(self._clients)]
        for thread in self._threads:
            thread.start()

    def run_for(self, seconds: float) -> None:
        """Wait so long, from the first order on that is acknowledged now: on a busy machine connecting takes its time.

        :raises AssertionError: when there comes none.
        """
        before, deadline_s = len(self.acknowledged), time.monotonic() + FIRST_ORDER_S_MAX
        while len(self.acknowledged) == before:
            assert time.monotonic() < deadline_s, f"the load doesn't run: {self.defects or self.errors}"
            time.sleep(0.005)
        time.sleep(seconds)

    def stop(self) -> None:
        """Let every client finish the order it is at."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: int) -> None:
        try:
            with psycopg.connect(self._cluster.url, autocommit=True) as connection:
                while not self._stop.is_set():
                    self._create_order(connection, client)
        except psycopg.Error as error:
            # The server is gone or going. What was not acknowledged may be there or not.
            self.errors.append(error)
        except BaseException as error:
            self.defects.append(error)

    def _create_order(self, connection: psycopg.Connection, client: int) -> None:
        order = uuid.uuid4()
        prices = [order.int % 97 + item for item in range(ITEMS_PER_ORDER)]
        with connection.transaction():
            connection.execute("INSERT INTO orders VALUES (%s, %s, %s)", (order, client, sum(prices)))
            for item, price in enumerate(prices):
                connection.execute("INSERT INTO order_items VALUES (%s, %s, %s)", (order, item, price))
        self.acknowledged.add(order)

    def _read(self) -> tuple[dict[uuid.UUID, int], dict[uuid.UUID, list[int]]]:
        """The orders' totals, and the prices of their items."""
        with psycopg.connect(self._cluster.url, autocommit=True) as connection:
            totals = dict(connection.execute("SELECT id, total FROM orders").fetchall())
            items: dict[uuid.UUID, list[int]] = {}
            for order, price in connection.execute("SELECT order_id, price FROM order_items").fetchall():
                items.setdefault(order, []).append(price)
        return totals, items

    def check(self) -> Findings:
        """Read all orders of a server that runs again."""
        for attempt in range(READ_ATTEMPTS_MAX):
            try:
                totals, items = self._read()
                break
            except psycopg.errors.InternalError_:
                # "server unavailable": an engine that was killed ended in the middle of it.
                if attempt == READ_ATTEMPTS_MAX - 1:
                    raise
        halved = [
            order
            for order in totals.keys() | items.keys()
            if len(items.get(order, ())) != ITEMS_PER_ORDER or totals.get(order) != sum(items.get(order, ()))
        ]
        return Findings(len(totals), sorted(self.acknowledged - totals.keys()), halved)
