"""Transactions of engines and sessions on the cluster: replayed, refused, one definition each."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from dsql_connectors.errors import FailedTransactionError, NestedTransactionError, RetriesExhausted
from dsql_dialects.sqlalchemy import (
    JobError,
    RetryPolicy,
    RowLimitError,
    SavepointError,
    TwoPhaseError,
    execute_in_chunks,
    retrying,
    run_transaction,
)

DRIVERS = ("psycopg", "psycopg2")
ASYNC_DRIVERS = ("psycopg", "asyncpg")
WRITERS = 4
#: Attempts that lose are the point; giving up is not.
PATIENT = RetryPolicy(attempts_max=200, time_budget_s=120.0, delay_s_max=0.2)


class Base(DeclarativeBase):
    """The model."""


class Account(Base):
    """What everybody wants to change."""

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    balance: Mapped[int]


@pytest.fixture(params=DRIVERS)
def bank(request: pytest.FixtureRequest, make_engine: Callable[..., Engine]) -> Engine:
    """An engine of each synchronous driver, with two accounts."""
    engine = make_engine(request.param, pool_size=WRITERS)
    _open_accounts(engine)
    return engine


@pytest.fixture
def accounts(engine: Engine) -> Engine:
    """The default driver's engine, with two accounts."""
    _open_accounts(engine)
    return engine


def _open_accounts(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Account(id=1, balance=0), Account(id=2, balance=0)])
        session.commit()


def balance(engine: Engine) -> int | None:
    with Session(engine) as session:
        return session.scalars(sa.select(Account.balance).where(Account.id == 1)).one()


def interfere(engine: Engine) -> None:
    """Another transaction changes the same row and commits first."""
    with engine.begin() as connection:
        connection.execute(sa.update(Account).values(balance=Account.balance + 100).where(Account.id == 1))


# -- replaying --------------------------------------------------------------------------------------------------------


def test_sessions_that_lose_start_clean(bank: Engine) -> None:
    attempts: list[Any] = []

    def deposit(session: Session) -> Account:
        account = session.get_one(Account, 1)
        session.add(Account(id=3, balance=0))
        attempts.append((session, account.balance))
        if len(attempts) == 1:
            interfere(bank)
        account.balance += 1
        return account

    account = run_transaction(sessionmaker(bank), deposit)
    assert account.balance == 101  # readable although the session is closed
    assert [seen for _, seen in attempts] == [0, 100]
    assert attempts[0][0] is not attempts[1][0]
    assert balance(bank) == 101


def test_connections_and_loops(bank: Engine) -> None:
    tries = 0
    for attempt in retrying(bank):
        with attempt as connection:
            tries += 1
            seen = connection.scalar(sa.select(Account.balance).where(Account.id == 1))
            if tries == 1:
                interfere(bank)
            connection.execute(sa.update(Account).values(balance=seen + 1).where(Account.id == 1))
    assert (tries, balance(bank)) == (2, 101)


def test_a_session_of_the_callers_is_refreshed(accounts: Engine) -> None:
    with Session(accounts) as session:
        mine = session.get_one(Account, 1)
        session.commit()
        tries = 0
        for attempt in retrying(session):
            with attempt:
                tries += 1
                if tries == 1:
                    assert mine.balance == 0
                    interfere(accounts)
                mine.balance += 1
        assert (tries, mine.balance) == (2, 101)
        session.rollback()
        mine.balance = 7
        with pytest.raises(NestedTransactionError, match="inside a transaction"):
            run_transaction(session, lambda session: None)


def test_threads_that_fight_over_a_row_all_succeed(bank: Engine) -> None:
    factory = sessionmaker(bank)

    def deposit(session: Session) -> None:
        session.get_one(Account, 1).balance += 1

    def work() -> None:
        for _ in range(3):
            run_transaction(factory, deposit, retry=PATIENT)

    threads = [threading.Thread(target=work) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert balance(bank) == 3 * WRITERS


@pytest.mark.parametrize("driver", ASYNC_DRIVERS)
def test_asynchronous_sessions_and_connections(
    accounts: Engine, make_async_engine: Callable[..., AsyncEngine], driver: str
) -> None:
    async def work() -> None:
        engine = make_async_engine(driver, pool_size=WRITERS)
        try:
            factory = async_sessionmaker(engine)

            async def deposit(session: AsyncSession) -> int:
                account = await session.get_one(Account, 1)
                account.balance += 1
                return account.balance

            await asyncio.gather(*(run_transaction(factory, deposit, retry=PATIENT) for _ in range(2 * WRITERS)))
            async for attempt in retrying(engine):
                async with attempt as connection:
                    await connection.execute(sa.update(Account).values(balance=Account.balance + 1))
            async with engine.connect() as connection:
                streamed = await connection.stream(sa.text("SELECT generate_series(1, 100)"))
                assert [number async for (number,) in streamed] == list(range(1, 101))
            async with AsyncSession(engine) as session, session.begin():
                with pytest.raises(SavepointError):
                    async with session.begin_nested():
                        await session.get_one(Account, 1)
        finally:
            await engine.dispose()

    asyncio.run(work())
    assert balance(accounts) == 2 * WRITERS + 1


def test_what_cannot_be_replayed_is_refused(accounts: Engine) -> None:
    factory = sessionmaker(accounts)

    def swallow(session: Session) -> None:
        session.add(Account(id=9, balance=9))
        session.flush()
        with pytest.raises(sa.exc.ProgrammingError):
            session.execute(sa.text("SELECT nonsense"))

    with pytest.raises(FailedTransactionError, match="swallowed"):
        run_transaction(factory, swallow)
    with pytest.raises(NestedTransactionError, match="leave both to it"):
        run_transaction(factory, lambda session: session.commit())
    with pytest.raises(NestedTransactionError):
        run_transaction(accounts, lambda connection: run_transaction(accounts, lambda other: None))
    with pytest.raises(sa.exc.IntegrityError):  # at the flush in front of COMMIT
        run_transaction(factory, lambda session: session.add(Account(id=1, balance=0)))
    with pytest.raises(TypeError, match="sessionmaker"):
        run_transaction("aws-dsql://", lambda connection: None)  # type: ignore[call-overload]
    assert balance(accounts) == 0


def test_the_policy_decides_when_to_give_up(accounts: Engine) -> None:
    def lose(session: Session) -> None:
        session.get_one(Account, 1).balance += 1
        interfere(accounts)

    with pytest.raises(RetriesExhausted) as caught:
        run_transaction(sessionmaker(accounts), lose, retry=RetryPolicy(attempts_max=2))
    assert caught.value.attempts == 2
    assert isinstance(caught.value, sa.exc.SQLAlchemyError)
    with pytest.raises(sa.exc.OperationalError, match="OC000"):
        run_transaction(sessionmaker(accounts), lose, retry=False)


# -- what DSQL has not ------------------------------------------------------------------------------------------------


def test_savepoints_and_two_phases_are_refused_and_the_transaction_goes_on(bank: Engine) -> None:
    with Session(bank) as session:
        session.get_one(Account, 1).balance = 5
        session.flush()
        with pytest.raises(SavepointError, match="run_transaction"), session.begin_nested():
            session.get_one(Account, 2).balance = 6
        session.commit()
    assert balance(bank) == 5
    with bank.begin() as connection:
        connection.execute(sa.update(Account).values(balance=7))
        with pytest.raises(SavepointError, match="nothing was sent"):
            connection.begin_nested()
    assert balance(bank) == 7
    with bank.connect() as connection, pytest.raises(TwoPhaseError):
        connection.begin_twophase()


def test_there_is_one_isolation_level(bank: Engine) -> None:
    with bank.connect() as connection:
        assert connection.get_isolation_level() == "REPEATABLE READ"
        assert connection.default_isolation_level == "REPEATABLE READ"
        connection.execution_options(isolation_level="AUTOCOMMIT")
        assert connection.get_isolation_level() == "AUTOCOMMIT"
        with pytest.raises(sa.exc.ArgumentError, match="AUTOCOMMIT, REPEATABLE READ"):
            connection.execution_options(isolation_level="SERIALIZABLE")


def test_three_thousand_rows_a_transaction(accounts: Engine) -> None:
    rows = [{"id": n, "balance": 0} for n in range(10, 3020)]
    with accounts.connect() as connection, pytest.raises(RowLimitError, match="execute_in_chunks"):
        connection.execute(sa.insert(Account), rows)

    def generated() -> Iterator[dict[str, int]]:
        yield from rows

    assert list(execute_in_chunks(accounts, sa.insert(Account), generated(), rows_per_transaction=2000)) == [2000, 3010]
    with accounts.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(Account)) == 3012
    with pytest.raises(ValueError, match="1 to 3000"):
        execute_in_chunks(accounts, sa.insert(Account), rows, rows_per_transaction=3001)


# -- definitions ------------------------------------------------------------------------------------------------------


def test_definitions_are_transactions_of_their_own(accounts: Engine) -> None:
    metadata = sa.MetaData()
    tables = [sa.Table(f"t{n}", metadata, sa.Column("a", sa.Integer, index=True)) for n in range(3)]
    with accounts.connect() as connection:
        metadata.create_all(connection)
        connection.execute(tables[0].insert(), [{"a": 1}])
        with pytest.raises(sa.exc.NotSupportedError, match="ddl and dml are not supported in the same transaction"):
            tables[1].drop(connection)
        connection.rollback()
        tables[1].drop(connection)
        connection.rollback()  # it is gone all the same
        assert set(sa.inspect(connection).get_table_names()) == {"account", "t0", "t2"}


def test_the_jobs_id_is_the_statements_result(accounts: Engine) -> None:
    table = sa.Table("t", sa.MetaData(), sa.Column("a", sa.Integer))
    index = sa.Index("i", table.c.a, unique=True)
    with accounts.begin() as connection:
        connection.execute(sa.schema.CreateTable(table))
        job_id = connection.execute(sa.schema.CreateIndex(index)).scalar_one()
        assert len(job_id) == 26
    with accounts.connect() as connection:
        assert "postgresql_invalid" not in sa.inspect(connection).get_indexes("t")[0].get("dialect_options", {})
        later = connection.execution_options(dsql_wait_for_jobs=False)
        later.execute(sa.schema.CreateIndex(sa.Index("later", table.c.a)))


def test_a_build_that_fails_is_an_error(accounts: Engine) -> None:
    table = sa.Table("t", sa.MetaData(), sa.Column("a", sa.Integer))
    with accounts.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"a": 1}, {"a": 1}])
    with pytest.raises(JobError, match="Found duplicate key"), accounts.begin() as connection:
        connection.execute(sa.schema.CreateIndex(sa.Index("i", table.c.a, unique=True)))


def test_a_connection_that_the_server_closed_is_replaced(accounts: Engine) -> None:
    with accounts.connect() as connection:
        connection.scalar(sa.text("SELECT 1"))
        raw = connection.connection.driver_connection
    assert raw is not None
    # As after the hour: the other end of an idle connection is closed.
    with socket.socket(fileno=os.dup(raw.fileno())) as peer:
        peer.shutdown(socket.SHUT_RDWR)
    with accounts.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
        assert connection.connection.driver_connection is not raw
