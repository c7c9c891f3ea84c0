"""Prepared statements and portals as a session keeps them."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, NamedTuple

from dsql_server.catalog.answers import ANSWERED_PARAMETERS
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.messages import LockMode
from dsql_server.processor.access import Bound
from dsql_server.processor.direct_answer import DirectAnswer
from dsql_server.processor.errors import SqlError
from dsql_server.processor.explain_session import ExplainRequest
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.planner import PlanSettings
from dsql_server.statements import SYNC_PARAMETER, LockStrength, Statement, StatementKind

#: Kinds that the front end answers or steers itself; the engine never sees the client's message for them.
_VIRTUAL_KINDS = frozenset(
    {
        StatementKind.BEGIN,
        StatementKind.COMMIT,
        StatementKind.ROLLBACK,
        StatementKind.DDL,
        StatementKind.CALL,
        StatementKind.ANALYZE,
        StatementKind.DEALLOCATE,
        StatementKind.OTHER,
    }
)
#: Of transactions as their client begins them; the engine's own always write, for they are given the rows they read.
READ_ONLY_PARAMETER = "transaction_read_only"
READ_ONLY_PARAMETERS = frozenset({READ_ONLY_PARAMETER, "default_transaction_read_only"})
_LOCK_NAMES = {LockMode.KEY_SHARE: "FOR KEY SHARE", LockMode.UPDATE: "FOR UPDATE"}
_LOCKING_COMMANDS = {
    None: None,
    LockStrength.KEY_SHARE: "SELECT FOR KEY SHARE",
    LockStrength.UPDATE: "SELECT FOR UPDATE",
}
PLANNED_KINDS = frozenset({StatementKind.SELECT, StatementKind.INSERT, StatementKind.UPDATE, StatementKind.DELETE})


class Learned(NamedTuple):
    """What an execution by the engine has shown of a statement that needs no engine."""

    plan: LoadPlan
    settings_changes: int  #: how often the session had changed settings
    formats: bytes  #: of the results, as Bind has them
    description: bytes  #: what a Describe of the portal is answered with; empty: not asked for
    answer: DirectAnswer | None  #: None: it is a direct insert
    at_once: Any = None  #: how it is inserted in a block; see :mod:`dsql_server.frontend.block_inserts`


class Prepared:
    """A prepared statement: the client's text, its classification, and the load plan last used."""

    __slots__ = ("direct", "oids", "parameter_count", "plan", "plan_settings", "sets", "sql", "statement", "virtual")

    def __init__(self, sql: str, statement: Statement | None, oids: tuple[int, ...]) -> None:
        self.sql = sql
        self.statement = statement  #: None: the empty query
        self.oids = oids
        #: as PostgreSQL counts them: those declared, and all up to the highest that the text names
        self.parameter_count = max(len(oids), statement.parameters if statement is not None else 0)
        self.plan: LoadPlan | None = None
        self.plan_settings: PlanSettings | None = None
        self.direct: Learned | None = None
        self.virtual = statement is None or is_virtual(statement)
        self.sets = statement is not None and changes_settings(statement)


def for_engine(name: bytes, raw: bytes, prepared: Prepared) -> bytes:
    """A Parse message as the engine gets it: the client's, unless it has to say something in other words."""
    statement = prepared.statement
    assert statement is not None, "virtual without one"
    if statement.engine_sql == statement.text:
        return raw
    return p.parse(name, statement.engine_sql.encode(), prepared.oids)


def is_virtual(statement: Statement) -> bool:
    """Whether the front end answers the statement without passing the client's messages on."""
    if statement.kind == StatementKind.SHOW and statement.parameter is not None:
        name = statement.parameter.name
        return name in ANSWERED_PARAMETERS or name == SYNC_PARAMETER or name in READ_ONLY_PARAMETERS
    return statement.kind in _VIRTUAL_KINDS or bool(statement.refusals) or not statement.engine_sql


def changes_settings(statement: Statement) -> bool:
    """Whether the statement may change configuration parameters of the session."""
    return statement.kind in (StatementKind.SET, StatementKind.RESET) or "set_config" in statement.functions


def writing_command(statement: Statement, plan: LoadPlan) -> str | None:
    """What a read-only transaction refuses the statement as, in PostgreSQL's words; None if it may run."""
    if statement.explained is not None:
        return writing_command(statement.explained, plan) if "analyze" in statement.options else None
    if plan.written or statement.is_dml:
        return "COPY FROM" if statement.copies_in else statement.tag.split()[0]
    if statement.locking is None and plan.locked:  # by a view
        return f"SELECT {_LOCK_NAMES[max(mode for _, mode in plan.locked)]}"
    return _LOCKING_COMMANDS[statement.locking]


class Portal:
    """A bound statement."""

    __slots__ = ("binary", "bind", "bound", "explain", "formats", "prepared")

    def __init__(self, prepared: Prepared, bound: Bound, formats: bytes) -> None:
        self.prepared = prepared
        self.bound = bound
        self.binary = False  #: whether the client wants the first result in binary, where the front end answers itself
        self.explain: ExplainRequest | None = None
        self.bind: bytes | None = None  #: what binds it on the engine, where that isn't the client's own message
        self.formats = formats  #: of the results, as Bind has them


def execute_again(portal: Portal) -> bytes:
    """Messages that run the portal's statement once more; their answers are of no use to the client."""
    prepared, bound = portal.prepared, portal.bound
    assert prepared.statement is not None, "the empty query changes nothing"
    body = b"\x00\x00" + p.pack_i16(len(bound.formats)) + b"".join(p.pack_i16(f) for f in bound.formats)
    body += p.pack_i16(len(bound.values))
    for value in bound.values:
        body += b"\xff\xff\xff\xff" if value is None else p.pack_i32(len(value)) + value
    bind = p.message(b"B", body + b"\x00\x00")
    return p.parse(b"", prepared.statement.engine_sql.encode(), prepared.oids) + bind + p.EXECUTE_UNNAMED + p.SYNC


def invalid_format() -> SqlError:
    """A message that isn't what its type says."""
    return SqlError("08P01", "invalid message format")


def read_parse(raw: bytes) -> tuple[bytes, str, tuple[int, ...]]:
    """Statement name, text and declared parameter types of a Parse message. Raises SqlError."""
    try:
        name, at = p.cstring(raw, 5)
        text, at = p.cstring(raw, at)
        (count,) = p.unpack_i16(raw, at)
        oids = tuple(p.unpack_i32(raw, at + 2 + 4 * i)[0] & 0xFFFFFFFF for i in range(count))
        if count < 0 or at + 2 + 4 * count != len(raw):
            raise invalid_format()
        _check_utf8(name)
        return name, text.decode(), oids
    except UnicodeDecodeError as error:
        raise invalid_utf8(error) from None
    except (ValueError, struct.error):
        raise invalid_format() from None


@lru_cache(maxsize=256)
def _formats(count: int) -> struct.Struct:
    """The layout of so many format codes."""
    return struct.Struct(f">{count}h")


def read_bind(raw: bytes) -> tuple[bytes, bytes, list[bytes | None], tuple[int, ...], bytes]:
    """Portal name, statement name, parameter values and their formats of a Bind message, and its rest.

    The rest is the result formats, their number in front. Raises SqlError.
    """
    try:
        unpack = p.unpack_i32
        end = raw.index(b"\x00", 5)
        portal = raw[5:end]
        at = raw.index(b"\x00", end + 1)
        name = raw[end + 1 : at]
        at += 1
        count = p.unpack_i16(raw, at)[0]
        at += 2
        given = _formats(max(count, 0)).unpack_from(raw, at)
        at += 2 * count
        number = p.unpack_i16(raw, at)[0]
        at += 2
        values: list[bytes | None] = []
        for _ in range(number):
            length = unpack(raw, at)[0]
            at += 4
            if length == -1:
                values.append(None)
            else:
                values.append(raw[at : at + length])
                at += length
                if length < 0:
                    raise invalid_format()
        results = p.unpack_i16(raw, at)[0]
    except (ValueError, struct.error):
        raise invalid_format() from None
    if count < 0 or number < 0 or results < 0 or at + 2 + 2 * results != len(raw):
        raise invalid_format()
    if count > 1 and count != number:
        raise SqlError("08P01", f"bind message has {count} parameter formats but {number} parameters")
    formats = given * number if count == 1 else given if count else (0,) * number
    return portal, name, values, formats, raw[at:]


def wants_binary(formats: bytes) -> bool:
    """Whether the first result is wanted in binary; ``formats`` are what :func:`read_bind` leaves."""
    return len(formats) >= 4 and p.unpack_i16(formats, 2)[0] == 1


def read_name(raw: bytes) -> tuple[int, bytes]:
    """What Describe and Close name: ``S`` or ``P`` as an integer, and the name. Raises SqlError."""
    if len(raw) < 7 or raw.find(b"\x00", 6) != len(raw) - 1:
        raise invalid_format()
    if raw[5] not in b"SP":
        message = "CLOSE" if raw[0] == p.CLOSE else "DESCRIBE"
        raise SqlError("08P01", f"invalid {message} message subtype {raw[5]}")
    return raw[5], raw[6:-1]


def read_execute(raw: bytes) -> bytes:
    """The portal that an Execute message names. Raises SqlError."""
    end = raw.find(b"\x00", 5)
    if end < 0 or end + 5 != len(raw):
        raise invalid_format()
    return raw[5:end]


def read_formats(rest: bytes) -> list[int]:
    """The result formats that :func:`read_bind` has left."""
    return [p.unpack_i16(rest, at)[0] for at in range(2, len(rest), 2)]


def read_query(raw: bytes) -> str:
    """The text of a Query message. Raises SqlError."""
    if raw.find(b"\x00", 5) != len(raw) - 1:
        raise invalid_format()
    try:
        return raw[5:-1].decode()
    except UnicodeDecodeError as error:
        raise invalid_utf8(error) from None


def _check_utf8(name: bytes) -> None:
    if not name.isascii():
        name.decode()


def invalid_utf8(error: UnicodeDecodeError) -> SqlError:
    """PostgreSQL's words for bytes that aren't UTF-8."""
    found = " ".join(f"0x{byte:02x}" for byte in error.object[error.start : max(error.end, error.start + 1)])
    return SqlError("22021", f'invalid byte sequence for encoding "UTF8": {found}')
