"""The startup packet: who wants to connect, to what, with which settings."""

from __future__ import annotations

from typing import NamedTuple

from dsql_server.frontend.session_settings import CLUSTER_ID_OPTION, check_settings, parse_options
from dsql_server.interfaces import protocol as p
from dsql_server.processor.errors import SqlError

#: A startup packet is never longer than this (PostgreSQL's own limit), in bytes.
STARTUP_PACKET_MAX_BYTES = 10_000

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102
#: The newest protocol version that is spoken: 3.0.
PROTOCOL_VERSION = 3 << 16

DATABASE = "postgres"
_PROTOCOL_OPTION_PREFIX = "_pq_."
_NO = frozenset({"", "0", "false", "off", "no"})


class Startup(NamedTuple):
    """What a valid startup packet says."""

    user: str
    settings: dict[str, str]  #: for the engine, names in lower case
    negotiation: bytes  #: the NegotiateProtocolVersion message that is due, or nothing


def read_startup(version: int, packet: bytes) -> Startup:
    """Read a startup packet of protocol ``version``; ``packet`` is what follows the version.

    Raises SqlError with FATAL severity: not understood, no user, no such database, a setting that is refused.
    """
    if version >> 16 != 3:
        raise _fatal(
            "0A000",
            f"unsupported frontend protocol {version >> 16}.{version & 0xFFFF}: server supports 3.0 to 3.0",
        )
    given = _parameters(packet)
    user = given.pop("user", "")
    database = given.pop("database", user)
    if not user:
        raise _fatal("28000", "no PostgreSQL user name specified in startup packet")
    if database != DATABASE:
        raise _fatal("3D000", f'database "{database}" does not exist')
    if given.pop("replication", "").lower() not in _NO:
        raise _fatal("0A000", "replication connections are not supported")
    protocol_options = [name for name in given if name.startswith(_PROTOCOL_OPTION_PREFIX)]
    options = given.pop("options", "")
    settings = {name: value for name, value in given.items() if name not in protocol_options}
    settings.update(parse_options(options))
    settings.pop(CLUSTER_ID_OPTION, None)
    return Startup(user, check_settings(settings), _negotiation(version, protocol_options))


def _parameters(packet: bytes) -> dict[str, str]:
    """Names and values, each terminated by a zero byte, and one more zero byte at the end."""
    words = packet.split(b"\x00")
    # Behind the last value: the end of the list, and the end of the packet.
    if len(words) < 2 or len(words) % 2 or words[-1] or words[-2]:
        raise _fatal("08P01", "invalid startup packet layout: expected terminator as last byte")
    try:
        texts = [word.decode() for word in words[:-2]]
    except UnicodeDecodeError:
        raise _fatal("08P01", "invalid startup packet layout: expected UTF-8") from None
    names = texts[::2]
    if "" in names:
        raise _fatal("08P01", "invalid startup packet layout: expected terminator as last byte")
    return dict(zip(names, texts[1::2], strict=True))


def _negotiation(version: int, protocol_options: list[str]) -> bytes:
    """Tell a client that asked for more which version is spoken, and which of its options are not known."""
    if version == PROTOCOL_VERSION and not protocol_options:
        return b""
    names = b"".join(name.encode() + b"\x00" for name in protocol_options)
    return p.message(b"v", p.pack_i32(PROTOCOL_VERSION) + p.pack_i32(len(protocol_options)) + names)


def _fatal(sqlstate: str, message: str) -> SqlError:
    return SqlError(sqlstate, message, severity="FATAL")
