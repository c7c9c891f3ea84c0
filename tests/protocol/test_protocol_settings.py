"""Configuration parameters: they last as long as PostgreSQL's, and the client is told of every change."""

from __future__ import annotations

import pytest
from raw_client import SYNC, RawClient, error_of, query, rows_of, run


def shown(client: RawClient, name: str = "timezone") -> str:
    return (rows_of(client.ask(query(f"SHOW {name}")))[0][0] or b"").decode()


@pytest.fixture(params=["simple", "extended"])
def ask(request: pytest.FixtureRequest, client: RawClient):  # type: ignore[no-untyped-def]
    """Runs one statement, in either protocol."""
    simple = request.param == "simple"
    return lambda sql: client.ask(query(sql) if simple else run(sql) + SYNC)


def test_set_lasts_and_is_reported(client: RawClient, ask) -> None:  # type: ignore[no-untyped-def]
    ask("SET timezone TO 'Europe/Paris'")
    assert client.parameters["TimeZone"] == shown(client) == "Europe/Paris"
    ask("SELECT set_config('TimeZone', 'Asia/Tokyo', false)")
    assert client.parameters["TimeZone"] == shown(client) == "Asia/Tokyo"
    ask("SET application_name TO 'tests'")
    assert client.parameters["application_name"] == shown(client, "application_name") == "tests"
    ask("RESET timezone")
    assert client.parameters["TimeZone"] == shown(client) == "UTC"
    ask("RESET ALL")
    assert client.parameters["application_name"] == ""


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize(
    "change", ["SET timezone TO 'Asia/Tokyo'", "SELECT set_config('timezone', 'Asia/Tokyo', false)"]
)
def test_set_in_a_block_lasts_if_it_commits(client: RawClient, ask, table: str, change: str, end: str) -> None:  # type: ignore[no-untyped-def]
    ask("SET timezone TO 'Europe/Paris'")
    ask("BEGIN")
    ask(f"INSERT INTO {table} VALUES (1)")
    ask(change)
    assert client.parameters["TimeZone"] == shown(client) == "Asia/Tokyo"
    ask(end)
    expected = "Asia/Tokyo" if end == "COMMIT" else "Europe/Paris"
    assert client.parameters["TimeZone"] == shown(client) == expected
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"1" if end == "COMMIT" else b"0"]]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_set_local_ends_with_the_block(client: RawClient, ask, end: str) -> None:  # type: ignore[no-untyped-def]
    ask("BEGIN")
    ask("SET LOCAL timezone TO 'Asia/Tokyo'")
    assert client.parameters["TimeZone"] == shown(client) == "Asia/Tokyo"
    ask(end)
    assert client.parameters["TimeZone"] == shown(client) == "UTC"


def test_a_failed_block_puts_settings_back(client: RawClient, ask) -> None:  # type: ignore[no-untyped-def]
    ask("BEGIN")
    ask("SET timezone TO 'Asia/Tokyo'")
    ask("SELECT 1 / 0")
    ask("COMMIT")
    assert client.parameters["TimeZone"] == shown(client) == "UTC"


def test_an_implicit_transaction_that_fails_puts_settings_back(client: RawClient) -> None:
    client.ask(query("SET timezone TO 'Asia/Tokyo'; SELECT 1 / 0"))
    assert client.parameters["TimeZone"] == shown(client) == "UTC"
    client.ask(run("SET timezone TO 'Asia/Tokyo'") + run("SELECT 1 / 0") + SYNC)
    assert client.parameters["TimeZone"] == shown(client) == "UTC"


def test_an_implicit_transaction_that_succeeds_keeps_them(client: RawClient, table: str) -> None:
    client.ask(query(f"SET timezone TO 'Asia/Tokyo'; INSERT INTO {table} VALUES (1)"))
    assert client.parameters["TimeZone"] == shown(client) == "Asia/Tokyo"
    client.ask(run("SET timezone TO 'Europe/Paris'") + run(f"INSERT INTO {table} VALUES (2)") + SYNC)
    assert client.parameters["TimeZone"] == shown(client) == "Europe/Paris"
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"2"]]


def test_set_config_with_parameters_lasts(client: RawClient) -> None:
    client.ask(query("BEGIN"))
    client.ask(run("SELECT set_config('TimeZone', $1, $2)", [b"Asia/Tokyo", b"f"]) + SYNC)
    client.ask(query("COMMIT"))
    assert client.parameters["TimeZone"] == shown(client) == "Asia/Tokyo"


def test_the_time_zone_counts_for_values(client: RawClient) -> None:
    client.ask(query("SET timezone TO 'Asia/Tokyo'"))
    assert rows_of(client.ask(query("SELECT timestamptz '2026-01-01 00:00+00'"))) == [[b"2026-01-01 09:00:00+09"]]


def test_only_utf8(client: RawClient, table: str) -> None:
    for sql in ("SET client_encoding TO 'LATIN1'", "SET NAMES 'win1252'", "SET client_encoding TO nonsense"):
        assert error_of(client.ask(query(sql)))["C"] == "22023"
    client.ask(query("SELECT set_config('client_encoding', 'LATIN1', false)"))
    assert client.parameters["client_encoding"] == "UTF8"
    client.ask(query(f"INSERT INTO {table} VALUES (1, 'é')"))
    assert rows_of(client.ask(query(f"SELECT v FROM {table}"))) == [["é".encode()]]
    for sql in ("SET client_encoding TO 'utf-8'", "SET NAMES 'utf8'", "SET client_encoding TO DEFAULT"):
        client.ask(query(sql))
        assert client.parameters["client_encoding"] == "UTF8"


def test_search_path(client: RawClient, table: str) -> None:
    def change(sql: str) -> None:
        assert [m.fields for m in client.ask_patiently(sql) if m.kind == "E"] == [], sql

    change("CREATE SCHEMA elsewhere")
    try:
        change("CREATE TABLE elsewhere.only_here (id int PRIMARY KEY)")
        change("INSERT INTO elsewhere.only_here VALUES (7)")
        assert error_of(client.ask(query("SELECT * FROM only_here")))["C"] == "42P01"
        client.ask(query("SET search_path TO elsewhere"))
        assert rows_of(client.ask(run("SELECT * FROM only_here") + SYNC)) == [[b"7"]]
        assert error_of(client.ask(query(f"SELECT * FROM {table}")))["C"] == "42P01"
        client.ask(query("BEGIN; SET LOCAL search_path TO public"))
        assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"0"]]
        client.ask(query("ROLLBACK"))
        assert rows_of(client.ask(query("SELECT * FROM only_here"))) == [[b"7"]]
    finally:
        change("DROP TABLE elsewhere.only_here")
        change("DROP SCHEMA elsewhere")
