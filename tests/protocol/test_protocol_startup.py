"""From the first byte to the first query: TLS, startup packet, token."""

from __future__ import annotations

import struct
import time

import pytest
from raw_client import (
    GSS_REQUEST,
    PROTOCOL_3_0,
    PROTOCOL_3_2,
    SSL_REQUEST,
    RawClient,
    begun,
    connect,
    error_of,
    log_in,
    message,
    query,
    rows_of,
    secured,
    startup,
    tcp,
    tls_context,
)

from dsql_server.cli.token import generate_token
from dsql_server.testing import LocalCluster

ADMIN = {"user": "admin", "database": "postgres"}
CANCEL_REQUEST = struct.pack("!iiii", 16, 80877102, 1, 2)


def works(client: RawClient) -> bool:
    return rows_of(client.ask(query("SELECT 6 * 7"))) == [[b"42"]]


# -- TLS -----------------------------------------------------------------------------------------------------------


def test_tls_is_mandatory(cluster: LocalCluster) -> None:
    with RawClient(tcp(cluster)) as plain:
        plain.send(startup(ADMIN))
        refusal = error_of(plain.rest())
    assert (refusal["S"], refusal["C"]) == ("FATAL", "08P01")
    assert "SSL is mandatory" in refusal["M"]


def test_direct_tls(cluster: LocalCluster) -> None:
    with begun(cluster, direct=True) as client:
        assert client.socket.selected_alpn_protocol() == "postgresql"  # type: ignore[attr-defined]
        assert log_in(client, cluster.token())[-1].kind == "Z"
        assert works(client)


def test_gss_is_declined_and_tls_still_negotiated(cluster: LocalCluster) -> None:
    sock = tcp(cluster)
    sock.sendall(GSS_REQUEST)
    assert sock.recv(1) == b"N"
    sock.sendall(SSL_REQUEST)
    assert sock.recv(1) == b"S"
    with RawClient(tls_context(cluster).wrap_socket(sock, server_hostname=cluster.endpoint)) as client:
        client.send(startup(ADMIN))
        assert log_in(client, cluster.token())[-1].kind == "Z"


def test_a_server_name_is_mandatory(cluster: LocalCluster) -> None:
    with secured(cluster, sni=None) as client:
        client.send(startup(ADMIN))
        refusal = error_of(client.rest())
    assert refusal["M"] == "unable to accept connection, sni was not received"


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 64, b"\xff" * 64, b"\x00\x00", b"\x16\x03\x01\x00\x05hello", b""],
    ids=["http", "zeros", "ones", "cut short", "no handshake", "nothing"],
)
def test_garbage_before_tls(cluster: LocalCluster, garbage: bytes) -> None:
    with RawClient(tcp(cluster)) as client:
        client.send(garbage)
        if len(garbage) >= 8:
            try:
                answer = client.socket.recv(1000)
            except ConnectionResetError:
                answer = b""
            assert answer[:1] in (b"", b"\x15")  # closed, at most after a TLS alert


def test_text_slipped_in_behind_the_ssl_request_never_counts(cluster: LocalCluster) -> None:
    sock = tcp(cluster)
    sock.sendall(SSL_REQUEST + startup(ADMIN))
    assert sock.recv(1) == b"S"
    with pytest.raises(OSError):
        tls_context(cluster).wrap_socket(sock, server_hostname=cluster.endpoint)
    sock.close()


@pytest.mark.parametrize("inside_tls", [False, True])
def test_cancel_requests_are_ignored(cluster: LocalCluster, client: RawClient, inside_tls: bool) -> None:
    began_s = time.monotonic()
    client.send(query("SELECT pg_sleep(0.5)"))
    with secured(cluster) if inside_tls else RawClient(tcp(cluster)) as canceller:
        canceller.send(CANCEL_REQUEST)
        assert canceller.rest() == []
    assert [m.kind for m in client.until("Z")] == ["T", "D", "C", "Z"]
    assert time.monotonic() - began_s >= 0.5


# -- the startup packet --------------------------------------------------------------------------------------------


def test_what_is_reported(client: RawClient) -> None:
    assert client.parameters["server_version"] == "16.15"
    assert client.parameters["session_authorization"] == "admin"
    expected = {"client_encoding": "UTF8", "TimeZone": "UTC", "DateStyle": "ISO, MDY", "is_superuser": "off"}
    assert expected.items() <= client.parameters.items()


def test_settings_of_the_startup_packet(cluster: LocalCluster) -> None:
    given = {"DateStyle": "iso", "TimeZone": "europe/berlin", "client_encoding": "'utf-8'", "application_name": "Å"}
    with connect(cluster, **given, options=r"-c search_path=a,\ b --extra-float-digits=1") as client:
        assert client.parameters["DateStyle"] == "ISO, MDY"
        assert client.parameters["TimeZone"] == "Europe/Berlin"
        assert client.parameters["client_encoding"] == "UTF8"
        assert client.parameters["application_name"] == r"\xc3\x85"
        shown = [
            rows_of(client.ask(query(f"SHOW {name}")))[0][0].decode()  # type: ignore[union-attr]
            for name in ("datestyle", "timezone", "client_encoding", "application_name", "search_path")
        ]
        assert shown == ["ISO, MDY", "Europe/Berlin", "UTF8", r"\xc3\x85", "a, b"]
        assert rows_of(client.ask(query("SHOW extra_float_digits"))) == [[b"1"]]


@pytest.mark.parametrize(
    ("parameters", "sqlstate", "text"),
    [
        ({"database": "other"}, "3D000", 'database "other" does not exist'),
        ({"user": ""}, "28000", "no PostgreSQL user name specified in startup packet"),
        ({"TimeZone": "Middle/Earth"}, "22023", 'invalid value for parameter "TimeZone": "Middle/Earth"'),
        ({"client_encoding": "LATIN1"}, "22023", 'invalid value for parameter "client_encoding": "LATIN1"'),
        (
            {"options": "-c statement_timeout=5"},
            "0A000",
            'setting configuration parameter "statement_timeout" not supported',
        ),
        ({"no_such_setting": "1"}, "42704", 'unrecognized configuration parameter "no_such_setting"'),
        ({"options": "-x"}, "42601", 'invalid command-line argument for server process: "-x"'),
        ({"replication": "database"}, "0A000", "replication connections are not supported"),
    ],
)
def test_refused_startup(cluster: LocalCluster, parameters: dict[str, str], sqlstate: str, text: str) -> None:
    with secured(cluster) as client:
        client.send(startup({**ADMIN, **parameters}))
        first = client.receive()
        if first is not None and first.kind == "R":
            client.send(message(b"p", cluster.token().encode() + b"\x00"))
            first = client.receive()
        assert first is not None and first.kind == "E"
        assert (first.fields["S"], first.fields["C"], first.fields["M"]) == ("FATAL", sqlstate, text)
        assert client.rest() == []


def test_a_database_is_not_guessed_from_the_user(cluster: LocalCluster) -> None:
    with secured(cluster) as client:
        client.send(startup({"user": "admin"}))
        assert error_of(client.rest())["M"] == 'database "admin" does not exist'


@pytest.mark.parametrize(
    "packet",
    [
        struct.pack("!ii", 7, PROTOCOL_3_0),
        struct.pack("!ii", -1, PROTOCOL_3_0),
        struct.pack("!ii", 10_001, PROTOCOL_3_0),
        struct.pack("!ii", 0x7FFFFFFF, PROTOCOL_3_0),
        struct.pack("!ii", 8, PROTOCOL_3_0),
        struct.pack("!ii", 17, PROTOCOL_3_0) + b"user\x00admin\x00\x00",
        struct.pack("!ii", 18, PROTOCOL_3_0) + b"user\x00admin",
        struct.pack("!ii", 20, PROTOCOL_3_0) + b"user\x00\xff\xfe\xfd\xfc\x00\x00",
        struct.pack("!ii", 10, PROTOCOL_3_0) + b"\x00\x00",
        struct.pack("!ii", 8, 2 << 16),
        struct.pack("!ii", 8, 4 << 16),
        message(b"Q", b"SELECT 1\x00"),
        b"\xff" * 100,
    ],
    ids=[
        "too short", "negative", "too long", "absurd", "empty", "shorter than it says", "unterminated", "not UTF-8",
        "nameless", "protocol 2", "protocol 4", "a query", "garbage",
    ],
)  # fmt: skip
def test_broken_startup_packets(cluster: LocalCluster, packet: bytes) -> None:
    with secured(cluster) as client:
        client.send(packet)
        if packet[4:8] == struct.pack("!i", PROTOCOL_3_0) and 8 <= int.from_bytes(packet[:4], "big") > len(packet):
            return  # the server waits for the rest until the client leaves
        refusal = error_of(client.rest())
    assert refusal["S"] == "FATAL"
    assert refusal["C"] in ("08P01", "0A000", "28000")


def test_protocol_versions_are_negotiated_down(cluster: LocalCluster) -> None:
    with begun(cluster, version=PROTOCOL_3_2, **{"_pq_.test_option": "1"}) as client:  # type: ignore[arg-type]
        assert log_in(client, cluster.token())[-1].kind == "Z"
        assert client.negotiated is not None
        assert client.negotiated.body == struct.pack("!ii", PROTOCOL_3_0, 1) + b"_pq_.test_option\x00"
        assert works(client)


def test_startup_in_single_bytes(cluster: LocalCluster) -> None:
    with secured(cluster) as client:
        token = cluster.token().encode()
        for byte in startup(ADMIN) + message(b"p", token + b"\x00")[:40]:
            client.send(bytes([byte]))
        client.send(message(b"p", token + b"\x00")[40:])
        assert client.until("Z")[-1].kind == "Z"
        assert works(client)


def test_startup_token_and_query_in_one_go(cluster: LocalCluster) -> None:
    token = message(b"p", cluster.token().encode() + b"\x00")
    with secured(cluster) as client:
        client.send(startup({**ADMIN, "TimeZone": "Asia/Tokyo"}), token, query("SHOW timezone"))
        client.until("Z")
        assert rows_of(client.until("Z")) == [[b"Asia/Tokyo"]]


@pytest.mark.parametrize("sent", [b"", startup(ADMIN)[:10], startup(ADMIN), startup(ADMIN) + b"p\x00\x00\x01"])
def test_client_gone_during_startup(cluster: LocalCluster, sent: bytes) -> None:
    client = secured(cluster)
    client.send(sent)
    client.abort()


# -- tokens --------------------------------------------------------------------------------------------------------


def refusal_of(cluster: LocalCluster, token: bytes, user: str = "admin") -> dict[str, str]:
    with begun(cluster, user=user) as client:
        client.receive()
        client.send(message(b"p", token + b"\x00"))
        return error_of(client.rest())


def test_expired_token(cluster: LocalCluster) -> None:
    token = cluster.token(expires_s=1)
    time.sleep(1.2)
    refusal = refusal_of(cluster, token.encode())
    assert (refusal["S"], refusal["C"]) == ("FATAL", "08006")
    assert refusal["M"] == "unable to accept connection, access denied"
    assert refusal["H"].startswith("Signature expired")


def test_forged_tokens(cluster: LocalCluster) -> None:
    token = cluster.token()
    changed = token[:-1] + ("0" if token[-1] != "0" else "1")
    stolen = generate_token(
        cluster.endpoint,
        cluster.region,
        admin=True,
        expires_s=900,
        credentials=(cluster.access_key_id, "x" * 40),
    )
    stranger = generate_token(
        cluster.endpoint, cluster.region, admin=True, expires_s=900, credentials=("AKIA" + "X" * 16, "x" * 40)
    )
    for wrong in (changed, stolen, stranger, "", "secret", token + "&X-Amz-Expires=604800", "\x7f" * 5000):
        refusal = refusal_of(cluster, wrong.encode())
        assert (refusal["S"], refusal["C"]) == ("FATAL", "08006"), wrong
        assert cluster.secret_access_key not in str(refusal)
        assert token[-64:] not in str(refusal)


def test_token_for_another_host(cluster: LocalCluster) -> None:
    other = cluster.endpoint.replace(cluster.cluster_id, "a" * 26)
    token = generate_token(
        other,
        cluster.region,
        admin=True,
        expires_s=900,
        credentials=(cluster.access_key_id, cluster.secret_access_key),
    )
    assert refusal_of(cluster, token.encode())["C"] == "08006"


def test_token_for_another_role(cluster: LocalCluster) -> None:
    assert "Wrong user to action mapping" in refusal_of(cluster, cluster.token("someone").encode())["H"]
    assert "Wrong user to action mapping" in refusal_of(cluster, cluster.token("admin").encode(), "someone")["H"]


@pytest.mark.parametrize("user", ["nobody_here", "postgres", "dsql_loader", "dsql_planner", "o'clock", "Å"])
def test_roles_that_nobody_may_log_in_as(cluster: LocalCluster, user: str) -> None:
    refusal = refusal_of(cluster, cluster.token(user).encode(), user)
    assert (refusal["S"], refusal["C"]) == ("FATAL", "08P01")


@pytest.mark.parametrize(
    "password",
    [
        message(b"p", b""),
        message(b"p", b"no zero byte"),
        message(b"p", b"one\x00two\x00"),
        b"p\x00\x00\x00\x03",
        b"p\x7f\xff\xff\xff",
        b"p\xff\xff\xff\xff",
        query("SELECT 1"),
        b"X\x00\x00\x00\x04",
    ],
)
def test_broken_password_messages(cluster: LocalCluster, password: bytes) -> None:
    with begun(cluster) as client:
        client.receive()
        client.send(password)
        refusal = error_of(client.rest())
    assert (refusal["S"], refusal["C"]) == ("FATAL", "08P01")
