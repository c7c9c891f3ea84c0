"""The connectors against a local cluster: real tokens, real TLS, real conflicts."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

import dsql_connectors.asyncpg
import dsql_connectors.psycopg
import dsql_connectors.psycopg2
from dsql_connectors import errors
from dsql_connectors.core import telemetry

FULL = os.environ.get("DSQLKIT_FULL") == "1"


@pytest.fixture
def counter(dsql_url: str) -> Iterator[str]:
    """The URL of a database with one table of 1,000 counters."""
    with dsql_connectors.psycopg.connect(dsql_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)")
        connection.execute("INSERT INTO counters SELECT i, 0 FROM generate_series(1, 1000) i")
    yield dsql_url


def _run(driver: str, url: str, statements: list[str]) -> list[Any]:
    """One value of each statement's first row, in autocommit mode."""
    if driver == "asyncpg":

        async def run() -> list[Any]:
            connection = await dsql_connectors.asyncpg.connect(url)
            try:
                return [await connection.fetchval(statement) for statement in statements]
            finally:
                await connection.close()

        return asyncio.run(run())
    module: Any = getattr(dsql_connectors, driver)
    connection = module.connect(url)
    try:
        connection.autocommit = True
        found = []
        for statement in statements:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                found.append(cursor.fetchone()[0])
        return found
    finally:
        connection.close()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_every_driver_connects_and_announces_itself(dsql_url: str, driver: str) -> None:
    found = _run(driver, dsql_url, ["SELECT current_user", "SELECT current_setting('application_name')"])
    assert found == ["admin", f"dsqlkit-{driver}/0.1.0"]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_conflict_is_replayed_as_a_whole(counter: str, driver: str) -> None:
    module: Any = getattr(dsql_connectors, driver)
    mine, other = module.connect(counter), dsql_connectors.psycopg.connect(counter, autocommit=True)
    seen = []

    def increment(connection: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SELECT n FROM counters WHERE id = 1")
        seen.append(cursor.fetchone()[0])
        if len(seen) == 1:
            other.execute("UPDATE counters SET n = 100 WHERE id = 1")
        cursor.execute("UPDATE counters SET n = %s WHERE id = 1", (seen[-1] + 1,))

    mine.run_transaction(increment)
    assert seen == [0, 100]
    assert other.execute("SELECT n FROM counters WHERE id = 1").fetchone() == (101,)
    mine.close()
    other.close()


def test_budgets_end_with_the_history_of_real_conflicts(counter: str) -> None:
    with (
        dsql_connectors.psycopg.connect(counter) as mine,
        dsql_connectors.psycopg.connect(counter, autocommit=True) as other,
    ):

        def loses(connection: Any) -> None:
            connection.execute("UPDATE counters SET n = 1 WHERE id = 1")
            other.execute("UPDATE counters SET n = 2 WHERE id = 1")

        policy = dsql_connectors.psycopg.RetryPolicy(attempts_max=3, delay_s_max=0.01)
        with pytest.raises(errors.RetriesExhausted) as caught:
            mine.run_transaction(loses, retry=policy)
        assert ["OC000" in failure.message for failure in caught.value.history] == [True] * 3


@pytest.mark.long
def test_every_transaction_under_contention_commits_within_its_budget(counter: str) -> None:
    """64 workers, 80 % of the updates on 1 % of the keys."""
    workers, transactions, keys, hot_keys = 64, 20 if FULL else 3, 1000, 10
    chooser = random.Random(64)
    targets = [
        chooser.randint(1, hot_keys) if chooser.random() < 0.8 else chooser.randint(hot_keys + 1, keys)
        for _ in range(workers * transactions)
    ]
    longest_s = 0.0

    async def work(pool: Any, mine: list[int]) -> None:
        nonlocal longest_s
        for key in mine:

            async def increment(connection: Any, key: int = key) -> None:
                cursor = await connection.execute("SELECT n FROM counters WHERE id = %s", (key,))
                (n,) = await cursor.fetchone()
                await connection.execute("UPDATE counters SET n = %s WHERE id = %s", (n + 1, key))

            started = time.monotonic()
            await pool.run_transaction(increment)
            longest_s = max(longest_s, time.monotonic() - started)

    async def main() -> None:
        pool = dsql_connectors.psycopg.create_async_pool(counter, min_size=workers, max_size=workers)
        async with pool:
            await pool.wait(60)
            await asyncio.gather(*(work(pool, targets[worker::workers]) for worker in range(workers)))

    before = telemetry.counters.snapshot().get("retries", 0)
    asyncio.run(main())
    retries = telemetry.counters.snapshot().get("retries", 0) - before
    with dsql_connectors.psycopg.connect(counter) as connection:
        row = connection.execute("SELECT sum(n) FROM counters").fetchone()
    assert row == (len(targets),), "no increment lost, none twice"
    print(f"{len(targets)} transactions, {retries} retries, the longest {longest_s:.2f} s")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_a_wrong_key_is_refused_with_what_the_token_was_for(
    dsql_url: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another one")
    with pytest.raises(errors.TokenRefusedError, match="DbConnectAdmin"):
        _run(driver, dsql_url, ["SELECT 1"])


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_a_role_that_is_not_there_is_refused_with_how_to_map_one(dsql_url: str, driver: str) -> None:
    url = dsql_url.replace("//admin@", "//nobody@")
    assert url != dsql_url
    with pytest.raises(errors.TokenRefusedError, match=r"(?s)'nobody' \(DbConnect\).*AWS IAM GRANT"):
        _run(driver, url, ["SELECT 1"])


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_the_local_authority_is_not_trusted_by_default(dsql_url: str, driver: str) -> None:
    url = "&".join(part for part in dsql_url.split("&") if not part.startswith("sslrootcert"))
    with pytest.raises(errors.CertificateError, match="sslrootcert"):
        _run(driver, url, ["SELECT 1"])


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"/postgres?": "/other?"}, errors.SessionRefusedError, r'(?s)database "other" does not exist.*one database'),
        ({"?": "?sslmode=disable&"}, errors.SessionRefusedError, "(?s)SSL is mandatory.*leave out"),
        ({"?": "?options=-c%20nosuch%3D1&"}, errors.SessionRefusedError, "(?s)nosuch.*leave out"),
        ({"?": "?sslmode=wrong&"}, errors.SettingsError, "wrong"),
        ({"?": "?connect_timeout=soon&"}, errors.SettingsError, "soon"),
        ({"?": "?target_session_attrs=standby&"}, errors.ConnectFailedError, "(?s)standby.*Tried "),
    ],
)
def test_whatever_keeps_a_driver_from_connecting_is_one_of_the_documented_errors(
    dsql_url: str, driver: str, changed: dict[str, str], kind: type[Exception], said: str
) -> None:
    url = dsql_url
    for before, after in changed.items():
        url = url.replace(before, after, 1)
    module: Any = getattr(dsql_connectors, driver)
    drivers_own = {"asyncpg": "PostgresConnectionError"}.get(driver, "OperationalError")
    drivers_own = "InterfaceError" if kind is errors.SettingsError else drivers_own
    with pytest.raises(kind, match=said) as caught:
        _run(driver, url, ["SELECT 1"])
    assert isinstance(caught.value, getattr(module, drivers_own))
    assert "X-Amz" not in str(caught.value)
