"""The psycopg2 connector against a scripted server."""

from __future__ import annotations

import threading
from typing import Any

import psycopg2 as driver
import psycopg2.extras
import pytest
from scripted_server import CONFLICT, ENDPOINT, Close, Fail, ScriptedServer, failing

import dsql_connectors.psycopg2 as dsql
from dsql_connectors import errors

FAST = dsql.RetryPolicy(delay_s_base=0.0, delay_s_max=0.0)


def update(connection: Any) -> str:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE t SET v = %s", (1,))
        return str(cursor.statusmessage)


def test_connect_sends_a_fresh_token(server: ScriptedServer, url: str) -> None:
    for _ in range(2):
        dsql.connect(url, application_name="orders").close()
    first = server.connections[0]
    assert first.direct_tls and first.server_name == ENDPOINT
    assert first.token.startswith(f"{ENDPOINT}/?Action=DbConnectAdmin&")
    assert first.parameters["application_name"] == "orders:dsqlkit-psycopg2/0.1.0"
    assert len(server.connections) == 2


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_lost_commit_replays_the_whole_block(server: ScriptedServer, url: str, autocommit: bool) -> None:
    server.script = failing(CONFLICT, CONFLICT, on="COMMIT")
    connection = dsql.connect(url, retry=FAST)
    connection.autocommit = autocommit
    for attempt in connection.transactions():
        with attempt:
            assert update(connection) == "UPDATE 1"
    assert attempt.number == 3
    assert bool(connection.autocommit) is autocommit
    assert server.statements == ["BEGIN", "UPDATE t SET v = 1", "COMMIT"] * 3
    connection.close()


def test_an_autocommit_statement_is_run_again_with_any_cursor(server: ScriptedServer, url: str) -> None:
    connection = dsql.connect(url, cursor_factory=psycopg2.extras.RealDictCursor, retry=FAST)
    connection.autocommit = True
    for factory in (None, psycopg2.extras.NamedTupleCursor, psycopg2.extensions.cursor):
        server.script = failing(CONFLICT, on="UPDATE")
        with connection.cursor(cursor_factory=factory) as cursor:
            cursor.execute("UPDATE t SET v = 1")
            assert cursor.rowcount == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [{"value": "1"}]
    assert server.statements.count("UPDATE t SET v = 1") == 6
    server.script = failing(CONFLICT, on="UPDATE")
    with connection.cursor() as cursor, pytest.raises(driver.errors.SerializationFailure):
        cursor.execute("UPDATE t SET v = 1; UPDATE t SET v = 2")
    connection.close()


def test_nothing_is_run_again_inside_the_callers_transaction(server: ScriptedServer, url: str) -> None:
    server.script = failing(CONFLICT, on="UPDATE")
    connection = dsql.connect(url, retry=FAST)
    with pytest.raises(driver.errors.SerializationFailure):
        update(connection)
    connection.rollback()
    assert server.statements == ["BEGIN", "UPDATE t SET v = 1", "ROLLBACK"]
    connection.close()


def test_exhausted_retries_are_a_serialization_failure_with_history(server: ScriptedServer, url: str) -> None:
    server.script = lambda statement: CONFLICT if statement == "COMMIT" else None
    connection = dsql.connect(url)
    policy = dsql.RetryPolicy(attempts_max=3, delay_s_base=0.0, delay_s_max=0.0)
    with pytest.raises(driver.errors.SerializationFailure) as caught:
        connection.run_transaction(update, retry=policy)
    assert isinstance(caught.value, errors.RetriesExhausted) and caught.value.pgcode == "40001"
    assert len(caught.value.history) == 3
    connection.close()


def test_a_connection_lost_during_commit_is_never_replayed_silently(server: ScriptedServer, url: str) -> None:
    server.script = lambda statement: Close() if statement == "COMMIT" else None
    connection = dsql.connect(url, retry=FAST)
    with pytest.raises(driver.OperationalError) as caught:
        connection.run_transaction(update, idempotent=True)
    assert isinstance(caught.value, errors.CommitOutcomeUnknown)
    assert server.statements == ["BEGIN", "UPDATE t SET v = 1", "COMMIT"]
    connection.close()


def test_nesting_and_swallowed_failures_explain_themselves(server: ScriptedServer, url: str) -> None:
    connection = dsql.connect(url)
    for attempt in connection.transactions():
        with attempt:
            for call in (connection.commit, connection.rollback, lambda: connection.run_transaction(update)):
                with pytest.raises(errors.NestedTransactionError):
                    call()
    update(connection)
    with pytest.raises(driver.InterfaceError, match="inside a transaction already"):
        connection.run_transaction(update)
    connection.rollback()
    server.script = failing(Fail("23505", "duplicate key"), on="UPDATE")

    def swallow(connection: Any) -> None:
        with pytest.raises(driver.errors.UniqueViolation):
            update(connection)

    with pytest.raises(errors.FailedTransactionError):
        connection.run_transaction(swallow)
    connection.close()


@pytest.mark.parametrize("kind", [dsql.SimpleConnectionPool, dsql.ThreadedConnectionPool])
def test_pools_make_tokens_replay_and_replace(server: ScriptedServer, url: str, kind: type) -> None:
    with kind(1, 2, url, retry=FAST) as pool:
        server.script = failing(CONFLICT, Close(), on="COMMIT")
        assert pool.run_transaction(update, idempotent=True) == "UPDATE 1"
        assert server.statements.count("COMMIT") == 3
        server.close_connections()
        for attempt in pool.transactions():
            with attempt as connection:
                update(connection)
        assert attempt.number == 1
        tokens = {connected.token.partition("?")[0] for connected in server.connections}
        assert tokens == {f"{ENDPOINT}/"}


def test_a_pool_takes_a_dsn_and_recycles(server: ScriptedServer, url: str) -> None:
    """https://github.com/aws-samples/aurora-dsql-samples/pull/119, 183, 185: pools outlived the one-hour limit."""
    with dsql.ThreadedConnectionPool(1, 1, dsn=url, max_lifetime=60.0) as pool:
        first = pool.getconn()
        pool.putconn(first)
        assert 53 < first._dsql_lifetime_s <= 60
        first._dsql_connected_s -= 61
        second = pool.getconn()
        assert second is not first and first.closed
        pool.putconn(second)
        assert pool.getconn() is second
        pool.putconn(second)


def test_threads_share_a_pool(server: ScriptedServer, url: str) -> None:
    with dsql.ThreadedConnectionPool(2, 4, url, retry=FAST) as pool:
        threads = [threading.Thread(target=pool.run_transaction, args=(update,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.statements.count("COMMIT") == 4


def test_a_connection_factory_is_kept(server: ScriptedServer, url: str) -> None:
    class Own(driver.extensions.connection):
        pass

    connection = dsql.connect(url, connection_factory=Own)
    assert isinstance(connection, Own) and isinstance(connection, dsql.ReplayableConnection)
    connection.close()


def test_bad_input_has_remedies(server: ScriptedServer, url: str) -> None:
    with pytest.raises(driver.InterfaceError, match="did you mean 'region'") as unknown:
        dsql.connect(url, regoin="x")
    assert isinstance(unknown.value, errors.UnknownParameterError)
    with pytest.raises(driver.OperationalError) as closed:
        dsql.connect(url, port=1)
    assert isinstance(closed.value, errors.EndpointUnreachableError)
    server.accept = lambda connected: Fail("08006", "unable to accept connection, access denied")
    with pytest.raises(driver.OperationalError) as refused:
        dsql.connect(url)
    assert isinstance(refused.value, errors.TokenRefusedError) and "X-Amz" not in str(refused.value)
    with pytest.raises(driver.OperationalError) as untrusted:
        dsql.connect(url.partition("&sslrootcert")[0])
    assert isinstance(untrusted.value, errors.CertificateError)


def test_it_is_a_complete_dbapi_module() -> None:
    for name in dir(driver):
        assert hasattr(dsql, name), name
    assert (dsql.apilevel, dsql.paramstyle, dsql.threadsafety) == ("2.0", "pyformat", 2)
    assert dsql.OperationalError is driver.OperationalError
