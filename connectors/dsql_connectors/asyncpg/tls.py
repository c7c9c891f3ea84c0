"""TLS contexts for asyncpg, which takes them where libpq takes file names, and knows no ``hostaddr``."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Mapping
from typing import Any

from dsql_connectors.core.errors import CertificateError, SettingsError
from dsql_connectors.core.tls import LIBPQ_VERSION_DIRECT_TLS, apply_tls_defaults

ALPN_PROTOCOL = "postgresql"

#: By libpq's names. DSQL takes no connection without TLS, so that the two that may do without encrypt too.
_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class TlsChoice:
    """What a connection does about TLS, decided but not yet loaded."""

    def __init__(self, given: object, parameters: Mapping[str, str], environ: Mapping[str, str]) -> None:
        """:param given: asyncpg's ``ssl``: a context, a mode, True or False; None leaves it to ``sslmode``.

        :raises SettingsError: for a mode that doesn't exist.
        """
        self.context = given if isinstance(given, ssl.SSLContext) else None
        chosen = {name: value for name, value in parameters.items() if name.startswith("ssl")}
        if isinstance(given, bool):
            chosen["sslmode"] = "verify-full" if given else "disable"
        elif isinstance(given, str):
            chosen["sslmode"] = given
        apply_tls_defaults(chosen, libpq_version=LIBPQ_VERSION_DIRECT_TLS, environ=environ)
        self.mode = chosen.get("sslmode") or environ.get("PGSSLMODE", "")
        if self.mode not in _MODES:
            raise SettingsError(f"sslmode {self.mode!r} is none of {', '.join(_MODES)}")
        self._roots = chosen.get("sslrootcert") or environ.get("PGSSLROOTCERT") or ""
        negotiation = chosen.get("sslnegotiation") or environ.get("PGSSLNEGOTIATION")
        # A context of the caller's may lack the protocol name that direct TLS needs.
        self.direct = self.mode != "disable" and self.context is None and negotiation == "direct"

    def loaded(self) -> bool:
        """Whether :meth:`load` answers at once, without reading certificates."""
        return self.context is not None or self.mode == "disable" or self._key() in _known

    def load(self, name: str | None) -> ssl.SSLContext | bool:
        """The context to connect with; False for no TLS. Contexts are shared: reading the system's certificates takes
        10 ms.

        :param name: the server's name for SNI and verification, if the address to connect to is another one.
        :raises CertificateError: if the root certificates can't be read.
        """
        if self.context is None and self.mode == "disable":
            return False
        context = self.context
        if context is None:
            key = self._key()
            context = _context(*key)
            _known.add(key)
        return context if name is None else _named(context, name)

    def _key(self) -> tuple[str, str, int]:
        try:
            changed_ns = os.stat(self._roots).st_mtime_ns if self._roots else 0
        except OSError:
            changed_ns = 0
        return self.mode, self._roots, changed_ns


_known: set[tuple[str, str, int]] = set()


@functools.lru_cache(maxsize=32)
def _context(mode: str, roots: str, changed_ns: int) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN_PROTOCOL])
    context.check_hostname = mode == "verify-full"
    # As in libpq, ``require`` with root certificates verifies against them.
    if mode not in ("verify-full", "verify-ca") and not (mode == "require" and roots):
        context.verify_mode = ssl.CERT_NONE
    elif roots in ("", "system"):
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        try:
            context.load_verify_locations(roots)
        except (OSError, ssl.SSLError) as error:
            raise CertificateError(f"can't read the root certificates in sslrootcert={roots}: {error}") from error
    return context


@functools.lru_cache(maxsize=32)
def _named(context: ssl.SSLContext, name: str) -> ssl.SSLContext:
    return _NamedContext(context, name)


class _NamedContext(ssl.SSLContext):
    """Another context for a server whose name is not the address to connect to."""

    _inner: ssl.SSLContext
    _name: str

    def __new__(cls, inner: ssl.SSLContext, name: str) -> _NamedContext:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        context._inner = inner
        context._name = name
        return context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: Any = None,
    ) -> ssl.SSLObject:
        """As every event loop calls it, but for the name."""
        return self._inner.wrap_bio(incoming, outgoing, False, self._name, session)
