"""One client: a loop of orders over one session, with the time that each operation took."""

from __future__ import annotations

import datetime as dt
import math
import random
import time
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec

from dsql_server.cli.workload.orders import (
    ITEMS_PER_ORDER,
    SEED_STEP,
    Order,
    Seed,
    Tables,
    create_order,
    get_order,
    list_orders,
    new_order,
    read_total,
    write_total,
)
from dsql_server.cli.workload.session import Session, open_session

if TYPE_CHECKING:
    import psycopg

P = ParamSpec("P")

#: What is measured. A contended create also updates the order that all clients share.
OPERATIONS = ("create", "contended", "get", "list")
CREATE, CONTENDED, GET, LIST = OPERATIONS
#: Orders that a time range covers: one screen of them.
ORDERS_PER_LIST = 20


class WrongAnswer(Exception):
    """The database answered something that cannot be."""


class Plan(NamedTuple):
    """What one client is to do."""

    url: str
    tables: Tables
    seed: Seed  #: number 0 of it is the order that all clients share
    client: int  #: from 0
    clients: int  #: how many there are
    conflict_share: float
    #: Whether a second session commits in the middle of a contended create, so that it meets a conflict for sure.
    rival: bool


class Round(NamedTuple):
    """How long: until the time is over, or the orders are used up."""

    seconds: float | None
    orders: int | None  #: of all clients together


class Result(NamedTuple):
    """What came out of one round."""

    latencies_s: dict[str, list[float]]
    acknowledged: list[uuid.UUID]  #: orders whose commit was acknowledged
    increments: int  #: acknowledged increments of the shared order's total
    conflicts: int
    seconds: float


class Client:
    """Connected on construction; close it."""

    def __init__(self, plan: Plan) -> None:
        assert plan.seed.size > ORDERS_PER_LIST, "a time range needs enough seeded orders"
        self._plan = plan
        self._random = random.Random(plan.client)  # noqa: S311 - load, not secrets
        self._session = open_session(plan.url)
        self._rival: Session | None = None
        self._increments = 0
        self._orders = 0
        try:
            if plan.rival:
                self._rival = open_session(plan.url)
            for session in self._sessions():
                # The first statement of a connection also waits for its query processor.
                read_total(session.connection, plan.tables, plan.seed.order_id(0))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for session in self._sessions():
            session.close()

    def run(self, round_: Round) -> Result:
        """Create, get and list, over and over.

        :raises WrongAnswer: an order was not there, or not whole.
        :raises psycopg.Error: what the database refused for good.
        """
        assert round_.seconds is not None or round_.orders is not None, "a round ends by time or by orders"
        latencies: dict[str, list[float]] = {operation: [] for operation in OPERATIONS}
        acknowledged: list[uuid.UUID] = []
        conflicts, self._increments = self._conflicts(), 0

        def timed(operation: str, action: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
            begun = time.perf_counter()
            action(*args, **kwargs)
            latencies[operation].append(time.perf_counter() - begun)

        orders_max = math.inf if round_.orders is None else _share(round_.orders, self._plan.client, self._plan.clients)
        seconds_max = math.inf if round_.seconds is None else round_.seconds
        started = time.perf_counter()
        while len(acknowledged) < orders_max and time.perf_counter() - started < seconds_max:
            order = new_order(self._random, dt.datetime.now(dt.timezone.utc))
            contended = self._is_contended()
            timed(CONTENDED if contended else CREATE, self._create, order, contended=contended)
            acknowledged.append(order.order_id)
            timed(GET, self._get, order.order_id)
            timed(LIST, self._list)
        return Result(
            latencies, acknowledged, self._increments, self._conflicts() - conflicts, time.perf_counter() - started
        )

    def _is_contended(self) -> bool:
        # Evenly spread and beginning with the first, so that a short run has its share too.
        number, share = self._orders, self._plan.conflict_share
        self._orders += 1
        return math.ceil((number + 1) * share) > math.ceil(number * share)

    def _sessions(self) -> list[Session]:
        return [self._session] if self._rival is None else [self._session, self._rival]

    def _conflicts(self) -> int:
        return sum(session.conflicts for session in self._sessions())

    def _create(self, order: Order, *, contended: bool) -> None:
        plan = self._plan
        rival = self._rival

        def work(connection: psycopg.Connection[Any]) -> None:
            nonlocal rival
            create_order(connection, plan.tables, order)
            if contended:
                total = read_total(connection, plan.tables, plan.seed.order_id(0))
                if rival is not None:
                    # Only against the first attempt: the second one shall win.
                    rival_session, rival = rival, None
                    rival_session.transaction(self._increment)
                    self._increments += 1
                write_total(connection, plan.tables, plan.seed.order_id(0), total + 1)

        self._session.transaction(work)
        self._increments += contended

    def _increment(self, connection: psycopg.Connection[Any]) -> None:
        shared = self._plan.seed.order_id(0)
        write_total(
            connection, self._plan.tables, shared, read_total(connection, self._plan.tables, shared) + Decimal(1)
        )

    def _get(self, order_id: uuid.UUID) -> None:
        rows = get_order(self._session.connection, self._plan.tables, order_id)
        if len(rows) != ITEMS_PER_ORDER:
            raise WrongAnswer(f"order {order_id} was acknowledged and shows {len(rows)} of {ITEMS_PER_ORDER} items")

    def _list(self) -> None:
        first = self._random.randrange(self._plan.seed.size - ORDERS_PER_LIST)
        begin = self._plan.seed.created_at(first)
        rows = list_orders(
            self._session.connection, self._plan.tables, begin, begin + (ORDERS_PER_LIST - 1) * SEED_STEP
        )
        if len(rows) != ORDERS_PER_LIST:
            raise WrongAnswer(f"a time range with {ORDERS_PER_LIST} orders shows {len(rows)}")


def _share(total: int, client: int, clients: int) -> int:
    """How many of ``total`` fall to one of the clients."""
    return total // clients + (client < total % clients)
