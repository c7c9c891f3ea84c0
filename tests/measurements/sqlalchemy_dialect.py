"""What the SQLAlchemy dialect costs beside ``postgresql+psycopg``: ``python tests/measurements/sqlalchemy_dialect.py``.

Both dialects work on one and the same local cluster, over TLS and with a token; PostgreSQL's has a plain psycopg
connection. Each operation runs in short batches, one dialect after the other, each as often the first of the two, so
that whatever else the machine does meets both alike. Prints, for one operation, the client's processor time and the
time that passed: the medians of both dialects' batches, and the quotient of the medians and of the minima.

``--profile OPERATION`` prints instead where the dialect's batches of one operation spend the client's time.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import itertools
import os
import pstats
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dsql_dialects.sqlalchemy import create_engine
from dsql_server.testing import LocalCluster

ROUNDS = 60
WARM_UP_ROUNDS = 3
PROFILED_ROUNDS = 20
ROWS = 500

DIALECTS = ("aws_dsql+psycopg", "postgresql+psycopg")


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


def compare(operation: Operation, engines: dict[str, Engine], rounds: int) -> str:
    """A line of the table."""
    batches: dict[str, list[Batch]] = {name: [] for name in engines}
    for number in range(WARM_UP_ROUNDS + rounds):
        order = list(engines) if number % 2 else list(engines)[::-1]
        for name in order:
            batch = measure(operation, engines[name], OPERATIONS[operation])
            if number >= WARM_UP_ROUNDS:
                batches[name].append(batch)
    columns = []
    for kind in Batch._fields:
        ours, theirs = ([getattr(batch, kind) for batch in batches[name]] for name in DIALECTS)
        medians = statistics.median(ours), statistics.median(theirs)
        columns.append(f"{medians[0]:.0f} | {medians[1]:.0f} | {medians[0] / medians[1]:.3f}")
        columns.append(f"{min(ours) / min(theirs):.3f}")
    return f"| {operation.__name__} | {' | '.join(columns)} |"


def profile(operation: Operation, engine: Engine) -> None:
    """Print where the time goes."""
    measure(operation, engine, OPERATIONS[operation])
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    for _ in range(PROFILED_ROUNDS):
        operation(engine, OPERATIONS[operation])
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


def stock_engine(cluster: LocalCluster) -> Engine:
    """SQLAlchemy's own dialect on the cluster, with a token as password."""
    found = cluster.libpq_parameters()
    names = ("hostaddr", "sslmode", "sslrootcert", "sslnegotiation")
    url = sa.URL.create(
        DIALECTS[1],
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
    options = parser.parse_args()
    with LocalCluster() as cluster:
        os.environ.update(cluster.environ())
        engines = dict(zip(DIALECTS, (create_engine(cluster.url), stock_engine(cluster)), strict=True))
        try:
            Base.metadata.create_all(engines[DIALECTS[0]])
            with Session(engines[DIALECTS[0]]) as session:
                session.add_all(Item(id=number, name=f"item {number}", size=number) for number in range(ROWS))
                session.commit()
            gc.freeze()  # what there is need not be looked at again in the middle of a batch
            if options.profile:
                for name in DIALECTS:
                    print(f"== {name}")
                    profile(next(found for found in OPERATIONS if found.__name__ == options.profile), engines[name])
                return
            print(f"SQLAlchemy {sa.__version__}, microseconds: {DIALECTS[0]} | {DIALECTS[1]} | quotients\n")
            print("| operation | processor | | median | minimum | passed | | median | minimum |")
            print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
            for operation in OPERATIONS:
                print(compare(operation, engines, options.rounds), flush=True)
        finally:
            for engine in engines.values():
                engine.dispose()


if __name__ == "__main__":
    main()
