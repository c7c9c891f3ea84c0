"""TLS of the front end: a private certificate authority, a certificate for the cluster's names, the server context.

<directory>/ca.pem          the authority's certificate, for clients (sslrootcert); readable by everybody
<directory>/tls/            private
    ca.key  server.key  server.pem
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: The protocol name that direct TLS connections negotiate (ALPN).
ALPN_POSTGRESQL = "postgresql"

AUTHORITY_VALID_DAYS = 3650
SERVER_VALID_DAYS = 397
#: A certificate that ends sooner than this is replaced at the next start.
RENEW_DAYS = 30

_SERVICES = ("dsql", "dsql-fnh4")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
# Clients whose clocks are a little behind accept a certificate made just now.
_BACKDATED = timedelta(hours=1)
_SERVER_NAME_ATTRIBUTE = "dsql_server_name"


class TlsError(RuntimeError):
    """The certificate files can't be made or used; the message says which and what to do."""


class TlsFiles(NamedTuple):
    """Where the certificates and keys are; only ``authority_certificate`` is meant for clients."""

    authority_certificate: Path
    authority_key: Path
    server_certificate: Path
    server_key: Path

    @classmethod
    def under(cls, directory: Path) -> TlsFiles:
        private = directory / "tls"
        return cls(directory / "ca.pem", private / "ca.key", private / "server.pem", private / "server.key")


def server_names(region: str, cluster_ids: Iterable[str] = ()) -> tuple[str, ...]:
    """The names of a region's clusters, public and PrivateLink, and those of this machine."""
    hosts = ("*", *cluster_ids)
    return (*(f"{host}.{service}.{region}.on.aws" for service in _SERVICES for host in hosts), *_LOCAL_NAMES)


def ensure_certificates(directory: Path, names: Sequence[str], now: datetime | None = None) -> TlsFiles:
    """Make, keep or renew the certificates in ``directory`` so that the server's one covers ``names``.

    The authority stays the same until it is near its end, so that clients need its certificate only once.

    :raises TlsError: a file can't be written or read.
    """
    now = now or datetime.now(timezone.utc)
    files = TlsFiles.under(directory)
    try:
        files.authority_key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.authority_key.parent.chmod(0o700)
        authority = _load(files.authority_certificate, files.authority_key)
        if authority is None or not _lasts(authority.certificate, now):
            authority = _new_authority(now)
            _store(authority, files.authority_certificate, files.authority_key)
        server = _load(files.server_certificate, files.server_key)
        if server is None or not _still_good(server.certificate, authority.certificate, names, now):
            _store(_new_server(authority, names, now), files.server_certificate, files.server_key)
    except OSError as error:
        raise TlsError(f"{error.filename} can't be used ({error.strerror}): correct its rights or remove it") from error
    return files


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The context for accepted connections: TLS 1.2 or later, ALPN ``postgresql``, the server name remembered.

    :raises TlsError: the certificate and key don't load.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # libpq never resumes a session: tickets would only cost a key schedule and a write a connection.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols([ALPN_POSTGRESQL])
    context.sni_callback = _remember_server_name
    try:
        context.load_cert_chain(files.server_certificate, files.server_key)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"{files.server_certificate} does not load ({error}): remove it and start again") from error
    return context


def server_name(ssl_object: ssl.SSLObject | ssl.SSLSocket) -> str | None:
    """The host name that the client asked for (SNI) on a connection of :func:`server_context`; None if it sent none.

    With asyncio the object is ``transport.get_extra_info("ssl_object")``.
    """
    name: str | None = getattr(ssl_object, _SERVER_NAME_ATTRIBUTE, None)
    return name


def _remember_server_name(
    ssl_object: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext
) -> None:
    # The handshake goes on without a name, too: only PostgreSQL's protocol can say why a connection is refused.
    setattr(ssl_object, _SERVER_NAME_ATTRIBUTE, name.lower() if name else None)


class _Pair(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _load(certificate_file: Path, key_file: Path) -> _Pair | None:
    """The stored pair; None if there is none, or it is damaged or does not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    return _Pair(certificate, key)


def _lasts(certificate: x509.Certificate, now: datetime) -> bool:
    ends = certificate.not_valid_after_utc - timedelta(days=RENEW_DAYS)
    return certificate.not_valid_before_utc <= now < ends


def _still_good(
    certificate: x509.Certificate, authority: x509.Certificate, names: Sequence[str], now: datetime
) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return _lasts(certificate, now) and set(_general_names(names)) <= set(extension.value)


def _general_names(names: Iterable[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _builder(
    common_name: str, key: ec.EllipticCurvePrivateKey, valid_days: int, now: datetime
) -> x509.CertificateBuilder:
    """What both certificates have in common."""
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=valid_days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _new_authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: a client that still has an earlier authority must not mistake one for the other.
    common_name = f"dsqlkit local CA {os.urandom(4).hex()}"
    builder = _builder(common_name, key, AUTHORITY_VALID_DAYS, now)
    certificate = (
        builder.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Pair(certificate, key)


def _new_server(authority: _Pair, names: Sequence[str], now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    authority_id = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder("dsqlkit server", key, SERVER_VALID_DAYS, now)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return _Pair(certificate, key)


def _store(pair: _Pair, certificate_file: Path, key_file: Path) -> None:
    """Write the key, then the certificate; a crash in between leaves a pair that does not match and is remade."""
    key = pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key_file, key, 0o600)
    _write(certificate_file, pair.certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace ``path`` atomically; at no moment has the file wider rights than ``mode``."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
    os.replace(partial, path)
