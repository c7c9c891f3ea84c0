"""Certificates and the server context, tried with real handshakes in memory."""

from __future__ import annotations

import ssl
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from dsql_server.frontend.tls import (
    ALPN_POSTGRESQL,
    AUTHORITY_VALID_DAYS,
    RENEW_DAYS,
    SERVER_VALID_DAYS,
    TlsError,
    TlsFiles,
    ensure_certificates,
    server_context,
    server_name,
    server_names,
)

REGION = "us-east-1"
NAMES = server_names(REGION, ["abc"])


def client_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.authority_certificate))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, hostname: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a completed handshake; raises what either end raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = client.wrap_bio(to_client, to_server, server_hostname=hostname)
    server_end = server.wrap_bio(to_server, to_client, server_side=True)
    unfinished = [client_end, server_end]
    for _ in range(10):
        for end in list(unfinished):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            unfinished.remove(end)
        if not unfinished:
            return client_end, server_end
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize(
    "hostname",
    [f"abc.dsql.{REGION}.on.aws", f"any.dsql.{REGION}.on.aws", f"any.dsql-fnh4.{REGION}.on.aws", "localhost",
     "127.0.0.1", "::1"],
)  # fmt: skip
def test_verify_full_by_every_name(tmp_path: Path, hostname: str) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    client_end, _ = handshake(server_context(files), client_context(files), hostname)
    assert client_end.version() == "TLSv1.3"


@pytest.mark.parametrize("hostname", ["any.dsql.eu-west-1.on.aws", f"a.b.dsql.{REGION}.on.aws", "127.0.0.2"])
def test_verify_full_refuses_other_names(tmp_path: Path, hostname: str) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(files), client_context(files), hostname)


def test_server_name_is_remembered(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    _, server_end = handshake(server_context(files), client_context(files), f"ABC.dsql.{REGION}.on.aws")
    assert server_name(server_end) == f"abc.dsql.{REGION}.on.aws"


def test_a_client_without_server_name_gets_through_the_handshake(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    client = client_context(files)
    client.check_hostname = False
    _, server_end = handshake(server_context(files), client, None)
    assert server_name(server_end) is None


def test_alpn_and_version(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    client = client_context(files)
    client.set_alpn_protocols([ALPN_POSTGRESQL])
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client_end, _ = handshake(server_context(files), client, "localhost")
    assert client_end.selected_alpn_protocol() == "postgresql"
    assert client_end.version() == "TLSv1.2"


def test_rights(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in files]
    assert modes == [0o644, 0o600, 0o644, 0o600]
    assert stat.S_IMODE(files.server_key.parent.stat().st_mode) == 0o700
    assert files.authority_certificate.parent == tmp_path
    assert {path.name for path in (tmp_path / "tls").iterdir()} == {"ca.key", "server.key", "server.pem"}


def contents(files: TlsFiles) -> list[bytes]:
    return [path.read_bytes() for path in files]


def test_certificates_are_kept(tmp_path: Path) -> None:
    before = contents(ensure_certificates(tmp_path, NAMES))
    assert contents(ensure_certificates(tmp_path, NAMES)) == before
    assert contents(ensure_certificates(tmp_path, ["localhost"])) == before


def test_server_certificate_is_renewed_under_the_same_authority(tmp_path: Path) -> None:
    now = datetime.now(timezone.utc)
    before = contents(ensure_certificates(tmp_path, NAMES, now))
    nearly = now + timedelta(days=SERVER_VALID_DAYS - RENEW_DAYS - 1)
    assert contents(ensure_certificates(tmp_path, NAMES, nearly)) == before
    after = contents(ensure_certificates(tmp_path, NAMES, nearly + timedelta(days=2)))
    assert after[:2] == before[:2]
    assert after[2] != before[2]


def test_new_names_need_a_new_certificate(tmp_path: Path) -> None:
    before = contents(ensure_certificates(tmp_path, NAMES))
    files = ensure_certificates(tmp_path, [*NAMES, "db.example"])
    assert contents(files)[0] == before[0]
    handshake(server_context(files), client_context(files), "db.example")


def test_authority_is_renewed_with_its_certificate(tmp_path: Path) -> None:
    now = datetime.now(timezone.utc)
    long_ago = now - timedelta(days=AUTHORITY_VALID_DAYS - RENEW_DAYS + 1)
    before = contents(ensure_certificates(tmp_path, NAMES, long_ago))
    files = ensure_certificates(tmp_path, NAMES, now)
    assert contents(files)[0] != before[0]
    handshake(server_context(files), client_context(files), "localhost")


@pytest.mark.parametrize("number", range(4))
def test_damaged_files_are_remade(tmp_path: Path, number: int) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    files[number].write_bytes(b"damaged")
    files = ensure_certificates(tmp_path, NAMES)
    handshake(server_context(files), client_context(files), "localhost")


def test_unusable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("a file")
    with pytest.raises(TlsError, match="tls"):
        ensure_certificates(tmp_path, NAMES)


def test_context_names_the_certificate_that_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match=r"server\.pem"):
        server_context(TlsFiles.under(tmp_path))
