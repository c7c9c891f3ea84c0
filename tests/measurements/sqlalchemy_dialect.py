"""What the SQLAlchemy dialect costs beside ``postgresql+psycopg``: ``python tests/measurements/sqlalchemy_dialect.py``.

Both dialects work on one and the same local cluster, over TLS and with a token; PostgreSQL's has a plain psycopg
connection. Each operation runs in short batches: one dialect, the other one twice, the first one again, so that
whatever else the machine does meets both alike, also if it comes and goes. Prints, for one operation, the client's
processor time and the time that passed, in microseconds: the medians of both dialects, and the median of the rounds'
quotients with the range in which half of them lie. ``--same`` compares PostgreSQL's dialect with itself: what is left
is the machine's.

``--profile OPERATION`` prints instead where the dialect's batches of one operation spend the client's time.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import gc
import itertools
import os
import pstats
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dsql_dialects.sqlalchemy import create_engine
from dsql_server.testing import LocalCluster

ROUNDS = 100
WARM_UP_ROUNDS = 3
PROFILED_ROUNDS = 20
LINES_OF_PROFILE = 40
ROWS = 500


class Base(DeclarativeBase):
    """Of the one table that there is."""


class Item(Base):
    """A row, by a key of its own."""

    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    size: Mapped[int | None]


#: Keys of rows that are added; each is used once.
_fresh = itertools.count(ROWS)


def compile_select(engine: Engine, times: int) -> None:
    """A query with a condition, an order and a limit."""
    for number in range(times):
        sa.select(Item.id, Item.name).where(Item.size > number).order_by(Item.name).limit(3).compile(engine)


def compile_insert(engine: Engine, times: int) -> None:
    """INSERT … RETURNING."""
    for _ in range(times):
        sa.insert(Item).returning(Item.id).compile(engine)


def compile_table(engine: Engine, times: int) -> None:
    """CREATE TABLE."""
    for _ in range(times):
        sa.schema.CreateTable(Item.__table__).compile(engine)  # type: ignore[arg-type]


def select_rows(engine: Engine, times: int) -> None:
    """A query of one row, compiled before, in one transaction."""
    query = sa.select(Item.id, Item.name).where(Item.id == 5)
    with engine.connect() as connection:
        for _ in range(times):
            connection.execute(query).all()


def get_in_session(engine: Engine, times: int) -> None:
    """An object by its key: a connection from the pool, BEGIN, the query and ROLLBACK."""
    for number in range(times):
        with Session(engine) as session:
            session.get(Item, number % ROWS)


def add_in_session(engine: Engine, times: int) -> None:
    """A new object: the INSERT and COMMIT."""
    for _ in range(times):
        with Session(engine) as session:
            session.add(Item(id=next(_fresh), name="new"))
            session.commit()


def insert_many(engine: Engine, times: int) -> None:
    """100 rows at once, with RETURNING, and COMMIT."""
    statement = sa.insert(Item).returning(Item.id)
    for _ in range(times):
        with engine.begin() as connection:
            connection.execute(statement, [{"id": next(_fresh), "name": "new"} for _ in range(100)]).all()


def create_and_drop(engine: Engine, times: int) -> None:
    """CREATE TABLE and DROP TABLE, each in a transaction."""
    table = sa.Table(
        "short_lived", sa.MetaData(), sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False)
    )
    for _ in range(times):
        for definition in (sa.schema.CreateTable(table), sa.schema.DropTable(table)):
            with engine.begin() as connection:
                connection.execute(definition)


Operation = Callable[[Engine, int], None]

#: How often an operation runs in a batch.
OPERATIONS: dict[Operation, int] = {
    compile_select: 40,
    compile_insert: 60,
    compile_table: 60,
    select_rows: 40,
    get_in_session: 15,
    add_in_session: 5,
    insert_many: 2,
    create_and_drop: 1,  # the last: who has defined something looks for jobs at each statement
}


class Batch(NamedTuple):
    """The time of one operation, in microseconds."""

    processor: float
    passed: float


def measure(operation: Operation, engine: Engine, times: int) -> Batch:
    """Run one batch."""
    processor, passed = time.process_time(), time.perf_counter()
    operation(engine, times)
    return Batch((time.process_time() - processor) / times * 1e6, (time.perf_counter() - passed) / times * 1e6)


def one_round(operation: Operation, engines: Sequence[Engine]) -> list[Batch]:
    """What each engine takes, from two batches with the others' in between."""
    order = [*range(len(engines)), *reversed(range(len(engines)))]
    sums = [Batch(0.0, 0.0) for _ in engines]
    for position in order:
        batch = measure(operation, engines[position], OPERATIONS[operation])
        sums[position] = Batch(*(old + new / 2 for old, new in zip(sums[position], batch, strict=True)))
    return sums


def compare(operation: Operation, engines: Sequence[Engine], rounds: int) -> str:
    """A line of the table."""
    for _ in range(WARM_UP_ROUNDS):
        one_round(operation, engines)
    found = [one_round(operation, engines) for _ in range(rounds)]
    columns = []
    for kind in Batch._fields:
        ours, theirs = ([getattr(batches[position], kind) for batches in found] for position in (0, 1))
        low, middle, high = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
        columns.append(f"{statistics.median(ours):.0f} | {statistics.median(theirs):.0f}")
        columns.append(f"{middle:.3f} ({low:.2f} to {high:.2f})")
    return f"| {operation.__name__} | {' | '.join(columns)} |"


def profile(operation: Operation, engine: Engine) -> None:
    """Print where the time goes."""
    measure(operation, engine, OPERATIONS[operation])
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    for _ in range(PROFILED_ROUNDS):
        operation(engine, OPERATIONS[operation])
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(LINES_OF_PROFILE)


def stock_engine(cluster: LocalCluster) -> Engine:
    """SQLAlchemy's own dialect on the cluster, with a token as password."""
    found = cluster.libpq_parameters()
    names = ("hostaddr", "sslmode", "sslrootcert", "sslnegotiation")
    url = sa.URL.create(
        "postgresql+psycopg",
        found["user"],
        found["password"],
        found["host"],
        int(found["port"]),
        found["dbname"],
        query={name: found[name] for name in names if name in found},
    )
    return sa.create_engine(url, use_native_hstore=False)


def main() -> None:
    """Print the table, or a profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--profile", choices=[operation.__name__ for operation in OPERATIONS])
    parser.add_argument("--same", action="store_true")
    options = parser.parse_args()
    with LocalCluster() as cluster, contextlib.ExitStack() as stack:
        os.environ.update(cluster.environ())

        def opened(engine: Engine) -> Engine:
            stack.callback(engine.dispose)
            return engine

        prepare(opened(create_engine(cluster.url)))  # an engine of its own, as applications find their tables
        first = stock_engine(cluster) if options.same else create_engine(cluster.url)
        engines = [opened(first), opened(stock_engine(cluster))]
        gc.freeze()  # what there is need not be looked at again in the middle of a batch
        if options.profile:
            for engine in engines:
                print(f"== {engine.dialect.name}")
                profile(next(found for found in OPERATIONS if found.__name__ == options.profile), engine)
            return
        names = [f"{engine.dialect.name}+{engine.dialect.driver}" for engine in engines]
        print(f"SQLAlchemy {sa.__version__}, µs of the processor and of the clock: {' | '.join(names)} | quotient\n")
        print("| operation | processor | | quotient | clock | | quotient |\n|---|--:|--:|--:|--:|--:|--:|")
        for operation in OPERATIONS:
            print(compare(operation, engines, options.rounds), flush=True)


def prepare(engine: Engine) -> None:
    """Make the table and its rows."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Item(id=number, name=f"item {number}", size=number) for number in range(ROWS))
        session.commit()


if __name__ == "__main__":
    main()
