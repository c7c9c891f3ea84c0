"""The asyncpg connector against a scripted server."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
from typing import Any

import asyncpg as driver
import pytest
from scripted_server import CONFLICT, ENDPOINT, Authority, Close, Fail, ScriptedServer, failing

import dsql_connectors.asyncpg as dsql
from dsql_connectors import errors

pytestmark = pytest.mark.asyncio
FAST = dsql.RetryPolicy(delay_s_base=0.0, delay_s_max=0.0)
#: The scripted server goes on after that if a test fails before it says so.
HESITATION_S_MAX = 60


async def update(connection: Any) -> str:
    return str(await connection.execute("UPDATE t SET v = 1"))


async def test_connect_sends_a_fresh_token_to_hostaddr_under_the_endpoints_name(
    server: ScriptedServer, url: str
) -> None:
    """https://github.com/MagicStack/asyncpg/issues/1317: "rejected SSL upgrade" hid what a server answered to an
    SSLRequest. With direct TLS there is none."""
    for _ in range(2):
        connection = await dsql.connect(url)
        assert await connection.fetchval("SELECT 1") == "1"
        await connection.close()
    first = server.connections[0]
    assert first.direct_tls and first.server_name == ENDPOINT
    assert first.token.startswith(f"{ENDPOINT}/?Action=DbConnectAdmin&")
    assert first.parameters["application_name"] == "dsqlkit-asyncpg/0.1.0"
    assert len(server.connections) == 2


async def test_a_lost_commit_replays_the_whole_block(server: ScriptedServer, url: str) -> None:
    server.script = failing(CONFLICT, CONFLICT, on="COMMIT")
    connection = await dsql.connect(url, retry=FAST)
    async for attempt in connection.transactions():
        async with attempt:
            await update(connection)
    assert attempt.number == 3
    assert server.statements == ["BEGIN", "UPDATE t SET v = 1", "COMMIT"] * 3
    await connection.close()


async def test_a_statement_of_its_own_is_run_again(server: ScriptedServer, url: str) -> None:
    connection = await dsql.connect(url, retry=FAST)
    for method in (connection.execute, connection.fetch, connection.fetchrow, connection.fetchval):
        server.statements.clear()
        server.script = failing(CONFLICT, on="UPDATE")
        await method("UPDATE t SET v = 1")
        assert len(server.statements) == 2
    server.script = failing(CONFLICT, on="BEGIN")
    with pytest.raises(driver.SerializationError):
        await connection.execute("BEGIN; UPDATE t SET v = 1")
    server.script = failing(CONFLICT, on="UPDATE")
    with pytest.raises(driver.SerializationError):
        async with connection.transaction():
            await update(connection)
    await connection.close()


async def test_exhausted_retries_are_a_serialization_error_with_history(server: ScriptedServer, url: str) -> None:
    server.script = lambda statement: CONFLICT if statement == "COMMIT" else None
    connection = await dsql.connect(url)
    policy = dsql.RetryPolicy(attempts_max=3, delay_s_base=0.0, delay_s_max=0.0)
    with pytest.raises(driver.SerializationError) as caught:
        await connection.run_transaction(update, retry=policy)
    assert isinstance(caught.value, errors.RetriesExhausted) and caught.value.sqlstate == "40001"
    assert len(caught.value.history) == 3
    await connection.close()


async def test_a_connection_lost_during_commit_is_never_replayed_silently(server: ScriptedServer, url: str) -> None:
    server.script = lambda statement: Close() if statement == "COMMIT" else None
    connection = await dsql.connect(url, retry=FAST)
    with pytest.raises(errors.CommitOutcomeUnknown) as caught:
        await connection.run_transaction(update)
    assert isinstance(caught.value, driver.PostgresConnectionError)
    assert server.statements == ["BEGIN", "UPDATE t SET v = 1", "COMMIT"]


async def test_nesting_and_swallowed_failures_explain_themselves(server: ScriptedServer, url: str) -> None:
    connection = await dsql.connect(url)
    async for attempt in connection.transactions():
        async with attempt:
            with pytest.raises(errors.NestedTransactionError, match="savepoint"):
                connection.transaction()
            with pytest.raises(errors.NestedTransactionError):
                await connection.run_transaction(update)

    async def ends_itself(connection: Any) -> None:
        await connection.execute("COMMIT")

    with pytest.raises(driver.InterfaceError, match="of its own block"):
        await connection.run_transaction(ends_itself)
    server.script = failing(Fail("23505", "duplicate key"), on="UPDATE")

    async def swallow(connection: Any) -> None:
        with pytest.raises(driver.UniqueViolationError):
            await update(connection)

    with pytest.raises(errors.FailedTransactionError):
        await connection.run_transaction(swallow)
    await connection.close()


async def test_a_pool_replays_and_replaces(server: ScriptedServer, url: str) -> None:
    async with dsql.create_pool(url, min_size=2, max_size=2, retry=FAST) as pool:
        server.script = failing(CONFLICT, Close(), on="COMMIT")
        assert await pool.run_transaction(update, idempotent=True) == "UPDATE 1"
        server.script = failing(CONFLICT, on="UPDATE")
        assert await pool.execute("UPDATE t SET v = 1") == "UPDATE 1"
        server.close_connections()
        async for attempt in pool.transactions():
            async with attempt as connection:
                await update(connection)
        assert attempt.number == 1
    assert "RESET ALL" in server.statements
    assert not [statement for statement in server.statements if "pg_advisory" in statement]


async def test_a_pool_recycles_by_age(server: ScriptedServer, url: str) -> None:
    """https://github.com/aws-samples/aurora-dsql-samples/pull/119: asyncpg knows no age, DSQL's limit is an hour."""
    pool = await dsql.create_pool(url, min_size=1, max_size=1)
    async with pool.acquire() as connection:
        assert 2900 < connection._dsql_lifetime_s <= 3300
        connection._con._dsql_connected_s -= 3600
    async with pool.acquire() as connection:
        await update(connection)
    assert len(server.connections) == 2
    await pool.close()


async def test_the_decorator(server: ScriptedServer, url: str) -> None:
    server.script = failing(CONFLICT, on="COMMIT")

    @dsql.transactional(retry=FAST)
    async def rename(connection: Any, name: str) -> str:
        await update(connection)
        return name

    connection = await dsql.connect(url)
    assert await rename(connection, "a") == "a"
    await connection.close()
    assert server.statements.count("COMMIT") == 2


async def test_tls_contexts_and_modes(server: ScriptedServer, url: str, authority: Authority) -> None:
    bare = url.partition("&sslrootcert")[0]
    own = ssl.create_default_context(cafile=str(authority.ca_file))
    for options in ({"ssl": own}, {"ssl": "require"}, {"ssl": "verify-full", "sslrootcert": authority.ca_file}):
        await (await dsql.connect(bare, **options)).close()
    assert [connected.server_name for connected in server.connections] == [ENDPOINT] * 3
    assert [connected.direct_tls for connected in server.connections] == [False, True, True]
    with pytest.raises(errors.SettingsError, match="verify-full"):
        await dsql.connect(bare, ssl="verify")
    with pytest.raises(errors.CertificateError, match="can't read"):
        await dsql.connect(bare, sslrootcert="/nowhere.pem")


async def test_without_tls_only_if_asked(server: ScriptedServer, url: str) -> None:
    server.accept = lambda connected: Fail("08P01", "SSL is mandatory") if connected.server_name is None else None
    for options in ({"ssl": False}, {"sslmode": "disable"}):
        with pytest.raises(driver.ProtocolViolationError, match="SSL is mandatory"):
            await dsql.connect(url, **options)


async def test_bad_input_has_remedies(server: ScriptedServer, url: str) -> None:
    with pytest.raises(driver.InterfaceError, match="did you mean 'region'") as unknown:
        await dsql.connect(url, regoin="x")
    assert isinstance(unknown.value, errors.UnknownParameterError)
    with pytest.raises(errors.SettingsError, match="keepalives"):
        await dsql.connect(url, keepalives=1)
    with pytest.raises(errors.SettingsError, match="not a number"):
        await dsql.connect(url + "&statement_cache_size=many")
    with pytest.raises(OSError, match="hostaddr") as closed:
        await dsql.connect(url, port=1)
    assert isinstance(closed.value, errors.EndpointUnreachableError)
    assert isinstance(closed.value, driver.PostgresConnectionError)
    server.accept = lambda connected: Fail(
        "08006", "unable to accept connection, access denied", "Signature expired: x"
    )
    with pytest.raises(driver.PostgresConnectionError, match="Signature expired") as refused:
        await dsql.connect(url)
    assert isinstance(refused.value, errors.TokenRefusedError) and "X-Amz" not in str(refused.value)
    with pytest.raises(ssl.SSLCertVerificationError) as untrusted:
        await dsql.connect(url.partition("&sslrootcert")[0])
    assert isinstance(untrusted.value, errors.CertificateError)
    assert "certificate verify failed" in untrusted.value.args[1]
    with pytest.raises(TypeError, match="connection_class"):
        dsql.create_pool(url, connection_class=driver.Connection)


async def test_a_timeout_says_what_was_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(asyncio.TimeoutError) as caught:
        await dsql.connect(ENDPOINT, hostaddr="127.0.0.1", port=silent.getsockname()[1], timeout=0.05)
    assert isinstance(caught.value, errors.EndpointUnreachableError) and ENDPOINT in str(caught.value)


async def test_a_refused_connection_leaves_no_socket_to_a_loop_that_ends(server: ScriptedServer, url: str) -> None:
    """asyncpg begins to close such a connection and doesn't wait; what is left open warns, and here warnings fail."""
    untrusted = url.partition("&sslrootcert")[0]
    server.accept = lambda connected: Fail("28000", "access denied")
    leave = threading.Event()
    server.before_goodbye = lambda: leave.wait(HESITATION_S_MAX)
    for refused in (url, url + "&sslnegotiation=postgres", url + "&sslmode=disable", untrusted):

        async def connect(refused: str = refused) -> None:
            with pytest.raises((driver.PostgresError, ssl.SSLCertVerificationError)):
                await dsql.connect(refused)

        await asyncio.to_thread(asyncio.run, connect())
        gc.collect()
    leave.set()


async def test_a_cancelled_connect_leaves_no_socket_to_a_loop_that_ends(server: ScriptedServer, url: str) -> None:
    asked, leave = threading.Event(), threading.Event()

    def hesitate(_: object) -> None:
        asked.set()
        leave.wait(HESITATION_S_MAX)

    server.accept = hesitate
    for way in (url, url + "&sslnegotiation=postgres"):

        async def cancel(way: str = way) -> None:
            connecting = asyncio.ensure_future(dsql.connect(way))
            await asyncio.to_thread(asked.wait, HESITATION_S_MAX)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting

        await asyncio.to_thread(asyncio.run, cancel())
        gc.collect()
        asked.clear()
    leave.set()


async def test_every_name_of_the_driver_is_there() -> None:
    for name in driver.__all__:
        assert hasattr(dsql, name), name
