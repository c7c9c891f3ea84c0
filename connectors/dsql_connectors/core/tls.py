"""TLS defaults: verify everything, against the system's root certificates, with direct TLS where libpq can.

libpq's own defaults encrypt without verifying, so that anybody on the path could take the token.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

#: libpq from this version on takes ``sslnegotiation=direct``, which saves a round trip.
LIBPQ_VERSION_DIRECT_TLS = 170000

_VERIFYING_MODES = ("verify-full", "verify-ca")
_ENCRYPTING_MODES = ("verify-full", "verify-ca", "require")

#: Where distributions keep the bundle of root certificates: Debian, Fedora and RHEL, openSUSE, Alpine and macOS.
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def apply_tls_defaults(parameters: dict[str, str], *, libpq_version: int, environ: Mapping[str, str]) -> None:
    """Add what the caller left open to libpq ``parameters``. What is given, or set in PGSSL… variables, stays.

    :param libpq_version: as libpq reports it, such as 180000.
    """
    mode = parameters.get("sslmode") or environ.get("PGSSLMODE")
    if not mode:
        mode = parameters["sslmode"] = "verify-full"
    roots = parameters.get("sslrootcert") or environ.get("PGSSLROOTCERT") or "system"
    if mode in _VERIFYING_MODES and roots == "system":
        found = system_root_certificates(environ)
        # Without a bundle only libpq's own search is left, which goes with verify-full and libpq 16.
        parameters["sslrootcert"] = found or "system"
    if (
        libpq_version >= LIBPQ_VERSION_DIRECT_TLS
        and mode in _ENCRYPTING_MODES
        and not parameters.get("sslnegotiation")
        and not environ.get("PGSSLNEGOTIATION")
    ):
        parameters["sslnegotiation"] = "direct"
    # DSQL has no GSSAPI encryption; asking for it first would cost Kerberos users a round trip.
    if not parameters.get("gssencmode") and not environ.get("PGGSSENCMODE"):
        parameters["gssencmode"] = "disable"


def system_root_certificates(environ: Mapping[str, str]) -> str | None:
    """The file of root certificates that this machine trusts, or None if no usual place has one.

    A libpq inside a wheel carries an OpenSSL whose built-in directory exists on no machine, so that
    ``sslrootcert=system`` finds no certificate there; a file is found by every libpq.
    """
    override = environ.get("SSL_CERT_FILE")
    if override:
        return override
    return next((bundle for bundle in _SYSTEM_BUNDLES if os.path.exists(bundle)), None)
