"""A scripted server with TLS for the endpoint's name, credentials in the environment, and nothing else of AWS there."""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from scripted_server import ENDPOINT, Authority, ScriptedServer


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority and a server context with a certificate for the endpoint."""
    directory = tmp_path_factory.mktemp("tls")
    now = datetime.datetime.now(datetime.timezone.utc)
    root_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])

    def certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(root_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    root = certificate(root_name, root_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    names = x509.SubjectAlternativeName([x509.DNSName(ENDPOINT)])
    server = certificate(server_name, server_key).add_extension(names, critical=False)
    ca_file, chain_file = directory / "ca.pem", directory / "server.pem"
    ca_file.write_bytes(root.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signed = server.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    chain_file.write_bytes(private + signed)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain_file)
    context.set_alpn_protocols(["postgresql"])
    return Authority(ca_file, context)


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials and no region, no profile, no PG… variables: whatever the machine has set stays out."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "PG", "SSL_CERT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def server(authority: Authority) -> Iterator[ScriptedServer]:
    """A scripted server on TLS; tests set its ``script`` and ``accept``."""
    with ScriptedServer(authority.context) as running:
        yield running


@pytest.fixture
def url(server: ScriptedServer, authority: Authority) -> str:
    """Reaches the scripted server by the endpoint's name."""
    return f"aws-dsql://admin@{ENDPOINT}:{server.port}/postgres?hostaddr=127.0.0.1&sslrootcert={authority.ca_file}"
