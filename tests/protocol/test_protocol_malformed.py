"""Messages that are not what they say: refused one by one, or with the connection; nobody else notices."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from raw_client import (
    SYNC,
    RawClient,
    bind,
    close,
    connect,
    copy_data,
    describe,
    error_of,
    execute,
    kinds,
    message,
    parse,
    query,
    rows_of,
    run,
)

from dsql_server.testing import LocalCluster

MESSAGE_SIZE_MAX_BYTES = 10 * 1024 * 1024


def still_works(client: RawClient) -> None:
    assert rows_of(client.ask(query("SELECT 1"))) == [[b"1"]]
    assert rows_of(client.ask(run("SELECT $1::int + 1", [b"1"]) + SYNC)) == [[b"2"]]


def int16s(*numbers: int) -> bytes:
    return struct.pack(f"!{len(numbers)}h", *numbers)


REFUSED = {
    "query without its end": message(b"Q", b"SELECT 1"),
    "query of nothing": message(b"Q"),
    "two texts in a query": message(b"Q", b"SELECT 1\x00SELECT 2\x00"),
    "query not in UTF-8": message(b"Q", b"SELECT '\xff'\x00"),
    "surrogate in a query": message(b"Q", b"SELECT '\xed\xa0\x80'\x00"),
    "cut-off character": message(b"Q", b"SELECT '\xe2\x82\x00"),
    "parse of nothing": message(b"P"),
    "parse without text": message(b"P", b"name\x00"),
    "parse without the text's end": message(b"P", b"\x00SELECT 1"),
    "parse without types": message(b"P", b"\x00SELECT 1\x00"),
    "parse with too few types": message(b"P", b"\x00SELECT 1\x00" + int16s(3, 0)),
    "parse with too many types": message(b"P", b"\x00SELECT 1\x00" + int16s(0, 0, 23)),
    "parse with a negative count": message(b"P", b"\x00SELECT 1\x00" + int16s(-1)),
    "parse of no UTF-8": message(b"P", b"\x00SELECT '\xc3\x28'\x00" + int16s(0)),
    "parse name of no UTF-8": message(b"P", b"\xff\xff\x00SELECT 1\x00" + int16s(0)),
    "bind of nothing": message(b"B"),
    "bind without a statement": message(b"B", b"\x00"),
    "bind without counts": message(b"B", b"\x00\x00"),
    "bind with a negative count of formats": message(b"B", b"\x00\x00" + int16s(-5)),
    "bind with a negative count of values": message(b"B", b"\x00\x00" + int16s(0, -5)),
    "bind with too few values": message(b"B", b"\x00\x00" + int16s(0, 9) + b"\x00\x00\x00\x011"),
    "bind with a value beyond its end": message(b"B", b"\x00\x00" + int16s(0, 1) + b"\x00\x00\xff\xff1" + int16s(0)),
    "bind with a value of length -2": message(b"B", b"\x00\x00" + int16s(0, 1) + b"\xff\xff\xff\xfe" + int16s(0)),
    "bind without result formats": message(b"B", b"\x00\x00" + int16s(0, 0)),
    "bind with missing result formats": message(b"B", b"\x00\x00" + int16s(0, 0, 4, 1)),
    "bind with bytes behind its end": message(b"B", b"\x00\x00" + int16s(0, 0, 0) + b"!"),
    "describe of nothing": message(b"D"),
    "describe of neither": describe("X", ""),
    "describe without its end": message(b"D", b"Sname"),
    "describe with bytes behind its end": message(b"D", b"S\x00more"),
    "execute of nothing": message(b"E"),
    "execute without a limit": message(b"E", b"\x00"),
    "execute with half a limit": message(b"E", b"\x00\x00\x00"),
    "execute with bytes behind its end": message(b"E", b"\x00\x00\x00\x00\x00\x00"),
    "execute without its end": message(b"E", b"portal"),
    "close of nothing": message(b"C"),
    "close of neither": close("X", ""),
    "close without its end": message(b"C", b"P"),
}


@pytest.mark.parametrize("broken", REFUSED.values(), ids=REFUSED)
def test_a_broken_message_is_refused_and_the_session_goes_on(client: RawClient, broken: bytes) -> None:
    answer = client.ask(broken) if broken[:1] == b"Q" else client.ask(broken, SYNC)
    refusal = error_of(answer)
    assert (refusal["S"], kinds(answer)[-1]) == ("ERROR", "Z")
    assert refusal["C"] in ("08P01", "22021"), refusal
    still_works(client)


def test_a_broken_message_spoils_what_follows_up_to_sync(client: RawClient, table: str) -> None:
    for name, broken in REFUSED.items():
        if broken[:1] != b"Q":
            answer = client.ask(
                run("SELECT 1"), broken, run(f"INSERT INTO {table} VALUES (1)"), query("SELECT 2"), SYNC
            )
            assert kinds(answer) == "12TDCEZ", name
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"0"]]


def test_values_that_do_not_fit_their_types(client: RawClient, table: str) -> None:
    for sql, values, formats, sqlstate in [
        (f"SELECT * FROM {table} WHERE id = $1", [b"x"], [0], "22P02"),
        (f"SELECT * FROM {table} WHERE id = $1", [b"99999999999"], [0], "22003"),
        (f"SELECT * FROM {table} WHERE id = $1", [b"123"], [1], "08P01"),
        (f"SELECT * FROM {table} WHERE id = $1", [b"12345"], [1], "22P03"),
        (f"SELECT * FROM {table} WHERE id = $1", [b"1"], [2], "22023"),
        (f"SELECT * FROM {table} WHERE v = $1", [b"\xff"], [0], "22021"),
        (f"SELECT * FROM {table} WHERE v = $1", [b"a\x00b"], [0], "22021"),
        (f"SELECT * FROM {table} WHERE v = $1", [b"\xff"], [1], "22021"),
        (f"INSERT INTO {table} VALUES ($1, $2)", [b"1", b"\xff"], [0], "22021"),
        (f"SELECT * FROM {table} WHERE id = $1", [], [], "08P01"),
        (f"SELECT * FROM {table} WHERE id = $1", [b"1", b"2"], [], "08P01"),
        (f"SELECT * FROM {table} WHERE id = $1", [b"1"], [0, 0], "08P01"),
        ("SELECT $1::numeric", [b"\x7f\xff\x00\x00\x00\x00\x00\x00"], [1], "08P01"),
        ("SELECT $1::uuid", [b"short"], [1], "08P01"),
    ]:
        answer = client.ask(parse(sql) + bind(values, formats=formats) + execute() + SYNC)
        assert error_of(answer)["C"] == sqlstate, (sql, values, error_of(answer))
        assert kinds(answer)[-1] == "Z"
        still_works(client)


FATAL = {
    "unknown type": b"!\x00\x00\x00\x04",
    "a server's type": message(b"Z", b"I"),
    "zero bytes": b"\x00" * 32,
    "a password out of turn": message(b"p", b"x\x00"),
    "length of 3": b"Q\x00\x00\x00\x03",
    "negative length": b"Q\xff\xff\xff\xff",
    "a query over the limit": b"Q" + struct.pack("!i", MESSAGE_SIZE_MAX_BYTES + 1) + b"SELECT 1\x00",
    "an absurd length": b"B\x7f\xff\xff\xff",
    "a long Sync": b"S" + struct.pack("!i", 100_000),
    "a long Execute": b"E" + struct.pack("!i", 100_000),
    "a long unknown": b"?" + struct.pack("!i", 100_000),
    "text": b"SELECT 1; SELECT 2; SELECT 3;\n",
}


@pytest.mark.parametrize("broken", FATAL.values(), ids=FATAL)
def test_what_cannot_be_read_on_ends_the_connection(client: RawClient, broken: bytes) -> None:
    client.send(broken)
    refusal = error_of(client.rest())
    assert (refusal["S"], refusal["C"]) == ("FATAL", "08P01")


def test_fatal_behind_a_running_statement(client: RawClient) -> None:
    client.send(query("SELECT pg_sleep(0.2)"), b"Q\x00\x00\x00\x01", query("SELECT 1"))
    assert "08P01" in {m.fields["C"] for m in client.rest() if m.kind == "E"}


def test_lying_lengths(another: Callable[[], RawClient]) -> None:
    """A length that is too small makes garbage of what follows; one that is too large swallows it."""
    small = another()
    small.send(b"Q\x00\x00\x00\x08SELECT 1\x00")
    assert "E" in kinds(small.rest())
    large = another()
    large.send(b"Q\x00\x00\x00\x20SELECT 1;\x00")
    assert large.quiet(0.05)
    large.send(b"\x00" * 18)
    assert error_of(large.until("Z"))["C"] == "08P01"


def test_messages_in_pieces(client: RawClient) -> None:
    batch = run("SELECT $1::text || 'b'", [b"a"]) + SYNC + query("SELECT 3")
    for at in range(len(batch)):
        client.send(batch[at : at + 1])
    assert rows_of(client.until("Z")) == [[b"ab"]]
    assert rows_of(client.until("Z")) == [[b"3"]]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_client_gone_within_a_message(client: RawClient, cut: int) -> None:
    client.send((run("SELECT $1::text", [b"x" * 10]) + SYNC)[:cut])
    client.abort()


def test_a_message_of_10_mib_is_taken(client: RawClient) -> None:
    text = b"SELECT length($1)"
    value = b"x" * (MESSAGE_SIZE_MAX_BYTES - 100)
    assert rows_of(client.ask(parse(text.decode()) + bind([value]) + execute() + SYNC)) == [[b"%d" % len(value)]]
    comment = f"SELECT 5 /* {'x' * (MESSAGE_SIZE_MAX_BYTES - 100)} */"
    assert rows_of(client.ask(query(comment))) == [[b"5"]]


def test_no_machinery_within_reach(cluster: LocalCluster, client: RawClient) -> None:
    """The front end prepares statements of its own on the engine's connection: clients can't name them."""
    client.ask(query("SELECT 1"))
    for name in ("dsqlkit_own_0", "dsqlkit_own_1", "dsqlkit_0"):
        assert error_of(client.ask(describe("S", name) + SYNC))["C"] == "26000"
        assert error_of(client.ask(bind(name=name) + execute() + SYNC))["C"] == "26000"
        assert kinds(client.ask(close("S", name) + SYNC)) == "3Z"
        assert error_of(client.ask(parse("SELECT 1", name) + SYNC))["C"] == "42939"
    still_works(client)


def test_copy_data_out_of_turn_is_ignored(client: RawClient) -> None:
    client.send(copy_data(b"1\t2\n"), b"c\x00\x00\x00\x04", message(b"f", b"why\x00"))
    still_works(client)


def test_deep_expressions_end_no_server(cluster: LocalCluster) -> None:
    for sql in ("SELECT " + "(" * 20_000 + "1" + ")" * 20_000, "SELECT " + "-" * 1 + "1+" * 30_000 + "1"):
        with connect(cluster) as client:
            answer = client.ask(query(sql))
            assert answer, "the server closed the connection"
            assert kinds(answer)[-1] == "Z" or error_of(answer)["S"] == "FATAL"
