"""One client inside TLS: startup packet, token, then bytes to and from its session."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable, Collection

from dsql_server.catalog.answers import SERVER_VERSION
from dsql_server.catalog.sys_schema import (
    CLUSTER_SIZE_LIMIT_PARAMETER,
    CLUSTER_SIZE_PARAMETER,
    IAM_USER_PARAMETER,
    SESSION_ID_PARAMETER,
    TLS_PARAMETER,
)
from dsql_server.frontend.connection_rate import ConnectionRate
from dsql_server.frontend.session import Session
from dsql_server.frontend.session_settings import needs_lookup, reported
from dsql_server.frontend.startup import CANCEL_REQUEST, STARTUP_PACKET_MAX_BYTES, read_startup
from dsql_server.frontend.tls import server_name
from dsql_server.frontend.token import ACCESS_DENIED_SQLSTATE, TokenAccepted, TokenRefused, TokenVerifier
from dsql_server.frontend.transactions import IDLE, Client, Services
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.identifiers import new_identifier
from dsql_server.processor.engine_connection import EngineError, EngineGone
from dsql_server.processor.errors import SqlError, server_unavailable
from dsql_server.processor.role_mappings import trusts
from dsql_server.processor.roles import ADMIN_ROLE
from dsql_server.transport.tls_transport import TlsTransport

#: How long a client may take from TCP connect to its token, in seconds.
STARTUP_TIMEOUT_S = 60.0

_REPORTED = {
    "server_version": SERVER_VERSION,
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "is_superuser": "off",
    "default_transaction_read_only": "off",
    "in_hot_standby": "off",
    "application_name": "",
}
_HINT_MAPPING = (
    "The role must exist and have the LOGIN attribute, and AWS IAM GRANT must have mapped your IAM identity to it."
)
_CLEARTEXT_PASSWORD = p.message(b"R", p.pack_i32(3))
_AUTHENTICATED = p.message(b"R", p.pack_i32(0))


class ClientConnection:
    """See the module. ``client`` has its TLS handshake behind it; ``connections`` holds it until it is gone."""

    def __init__(
        self,
        client: ssl.SSLSocket,
        services: Services,
        verifier: TokenVerifier,
        hostnames: Collection[str],
        now: Callable[[], float],
        connections: set[ClientConnection],
        rate: ConnectionRate,
    ) -> None:
        self._rate = rate
        self._services = services
        self._verifier = verifier
        self._hostnames = hostnames
        self._now = now
        self._connections = connections
        self._buffer = b""
        self._next_step: Callable[[], bool] = self._read_startup
        self._admission: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._user = ""
        self._principal_arn = ""
        self._settings: dict[str, str] = {}
        self._sni = server_name(client)
        cipher, _, bits = client.cipher() or ("", "", 0)
        self._tls = f"{client.version()} {cipher} {bits}"
        loop = asyncio.get_running_loop()
        self._expiry: asyncio.TimerHandle | None = loop.call_later(STARTUP_TIMEOUT_S, self.shut_down)
        self._transport = TlsTransport(loop, client, self)
        self._connections.add(self)
        self._transport.resume_reading()

    # -- what the transport calls ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._session is not None:
            self._session.feed(data)
            return
        self._buffer += data
        if len(self._buffer) > 2 * STARTUP_PACKET_MAX_BYTES and self._admission is not None:
            self._transport.pause_reading()
            return
        try:
            while self._session is None and self._admission is None and self._next_step():
                pass
        except SqlError as refusal:
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._admission is not None:
            self._admission.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        if self._session is not None:
            self._session.hang_up()
            self._session.hold_answers(False)

    def pause_writing(self) -> None:
        """The client takes its answers too slowly."""
        if self._session is not None:
            self._session.hold_answers(True)

    def resume_writing(self) -> None:
        if self._session is not None:
            self._session.hold_answers(False)

    def _pause_reading(self) -> None:
        """The client is far ahead of its session."""
        session = self._session
        if session is not None and session.on_drained is None and not self._transport.is_closing():
            self._transport.pause_reading()
            session.on_drained = self._resume_reading

    def _resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def shut_down(self) -> None:
        """End the connection from this side."""
        if self._session is not None and not self._transport.is_closing():
            self._transport.write(
                p.error_response("57P01", "terminating connection due to administrator command", severity="FATAL")
            )
        self._transport.close()

    def abort(self) -> None:
        """End the connection without waiting for the client."""
        self._transport.abort()

    def _refuse(self, refusal: SqlError) -> None:
        self._transport.write(refusal.response)
        self._transport.close()

    # -- from the first byte to the session --------------------------------------------------------------------

    def _read_startup(self) -> bool:
        """Take the startup packet, if all of it is there. Raises SqlError."""
        if len(self._buffer) < 8:
            return False
        length, version = p.unpack_i32(self._buffer)[0], p.unpack_i32(self._buffer, 4)[0]
        if not 8 <= length <= STARTUP_PACKET_MAX_BYTES:
            raise _fatal("08P01", "invalid length of startup packet")
        if len(self._buffer) < length:
            return False
        packet, self._buffer = self._buffer[8:length], self._buffer[length:]
        if version == CANCEL_REQUEST:
            self._transport.close()  # Aurora DSQL ignores cancel requests
            return False
        if self._sni is None:
            raise _fatal(ACCESS_DENIED_SQLSTATE, "unable to accept connection, sni was not received")
        self._rate.admit(len(self._connections))
        startup = read_startup(version, packet)
        self._user, self._settings = startup.user, startup.settings
        self._transport.write(startup.negotiation + _CLEARTEXT_PASSWORD)
        self._next_step = self._read_token
        return True

    def _read_token(self) -> bool:
        """Take the password message, if all of it is there. Raises SqlError."""
        if len(self._buffer) < 5:
            return False
        length = p.unpack_i32(self._buffer, 1)[0]
        if self._buffer[0] != p.PASSWORD or not 4 < length <= STARTUP_PACKET_MAX_BYTES:
            raise _fatal("08P01", "expected password response")
        if len(self._buffer) < length + 1:
            return False
        password, self._buffer = self._buffer[5 : length + 1], self._buffer[length + 1 :]
        if password.find(b"\x00") != len(password) - 1:
            raise _fatal("08P01", "invalid password packet size")
        token = password[:-1].decode("utf-8", "replace")
        verdict = self._verifier.verify(token, hostnames=self._hostnames, user=self._user, now=self._now())
        if isinstance(verdict, TokenRefused):
            raise SqlError(ACCESS_DENIED_SQLSTATE, verdict.message, hint=verdict.hint, severity="FATAL")
        self._principal_arn = verdict.principal_arn
        if self._user == ADMIN_ROLE and not needs_lookup(self._settings):
            self._welcome(reported(self._settings))
        else:
            self._admission = asyncio.get_running_loop().create_task(self._admit(verdict))
        return False

    async def _admit(self, principal: TokenAccepted) -> None:
        """Let a role in that may log in and trusts the principal, with settings that an engine takes."""
        pool = self._services.pool
        try:
            if self._user != ADMIN_ROLE and not (await pool.may_log_in(self._user) and self._is_trusted(principal)):
                # The SQLSTATE is what the official connector's own tests expect of the service.
                raise SqlError(
                    "08P01", f'IAM authentication failed for user "{self._user}"', hint=_HINT_MAPPING, severity="FATAL"
                )
            looked_up = await pool.effective_settings(needs_lookup(self._settings))
        except EngineError as error:
            self._refuse(_fatal(error.fields.get("C", "XX000"), error.fields.get("M", "server unavailable")))
        except (EngineGone, OSError):
            self._refuse(server_unavailable())
        except SqlError as refusal:
            self._refuse(refusal)
        else:
            if not self._transport.is_closing():
                self._admission = None
                self._welcome(reported({**self._settings, **looked_up}))
                self._resume_reading()

    def _is_trusted(self, principal: TokenAccepted) -> bool:
        path = self._services.commit_path
        return trusts(self._user, principal.principal_arn, principal.stands_for_any, path.storage, path.begin())

    def _own_settings(self) -> dict[str, str]:
        """What catalogs and functions of the schema ``sys`` tell of the session."""
        return {
            SESSION_ID_PARAMETER: new_identifier(),
            IAM_USER_PARAMETER: self._principal_arn,
            CLUSTER_SIZE_PARAMETER: str(self._services.cluster_size()),
            CLUSTER_SIZE_LIMIT_PARAMETER: str(self._services.limits.cluster_size_bytes),
            TLS_PARAMETER: self._tls,
        }

    def _welcome(self, settings: dict[str, str]) -> None:
        assert self._expiry is not None
        self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(self._services.limits.connection_age_s, self.shut_down)
        parameters = {**_REPORTED, "session_authorization": self._user, **settings}
        parts = [_AUTHENTICATED]
        parts += [p.parameter_status(name, value) for name, value in parameters.items()]
        # Nothing is ever cancelled, so the key opens nothing.
        parts.append(p.message(b"K", p.pack_i32(secrets.randbits(31)) + p.pack_i32(secrets.randbits(31))))
        parts.append(p.ready_for_query(IDLE))
        self._transport.write(b"".join(parts))
        engine_settings = {**self._settings, **self._own_settings()}
        client = Client(self._user, engine_settings, self._transport.write, self._session_ended)
        self._session = Session(self._services, client)
        self._session.on_congested = self._pause_reading
        self._session.start()
        self._transport.hand_on_to(self._session.feed)
        rest, self._buffer = self._buffer, b""
        if rest:
            self.data_received(rest)

    def _session_ended(self, error: BaseException | None) -> None:
        if error is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a session ended with a defect", "exception": error}
            )
            if not self._transport.is_closing():
                self._transport.write(p.error_response("XX000", "internal error", severity="FATAL"))
        self._transport.close()


def _fatal(sqlstate: str, message: str) -> SqlError:
    return SqlError(sqlstate, message, severity="FATAL")
