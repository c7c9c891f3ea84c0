"""Prepared statements and portals as a session keeps them."""

from __future__ import annotations

from dsql_server.catalog.bootstrap import ANSWERED_PARAMETERS
from dsql_server.interfaces import protocol as p
from dsql_server.processor.access import Bound
from dsql_server.processor.errors import SqlError
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.planner import PlanSettings
from dsql_server.statements import Statement, StatementKind

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
PLANNED_KINDS = frozenset({StatementKind.SELECT, StatementKind.INSERT, StatementKind.UPDATE, StatementKind.DELETE})


class Prepared:
    """A prepared statement: the client's text, its classification, and the load plan last used."""

    __slots__ = ("oids", "plan", "plan_settings", "sql", "statement", "virtual")

    def __init__(self, sql: str, statement: Statement | None, oids: tuple[int, ...]) -> None:
        self.sql = sql
        self.statement = statement  #: None: the empty query
        self.oids = oids
        self.plan: LoadPlan | None = None
        self.plan_settings: PlanSettings | None = None
        self.virtual = statement is None or is_virtual(statement)


def is_virtual(statement: Statement) -> bool:
    """Whether the front end answers the statement without passing the client's messages on."""
    if statement.kind == StatementKind.SHOW and statement.parameter is not None:
        return statement.parameter.name in ANSWERED_PARAMETERS
    return statement.kind in _VIRTUAL_KINDS or bool(statement.refusals) or not statement.engine_sql


class Portal:
    """A bound statement."""

    __slots__ = ("bound", "prepared")

    def __init__(self, prepared: Prepared, bound: Bound) -> None:
        self.prepared = prepared
        self.bound = bound


def read_parse(raw: bytes) -> tuple[bytes, str, tuple[int, ...]]:
    """Statement name, text and declared parameter types of a Parse message. Raises SqlError."""
    try:
        name, at = p.cstring(raw, 5)
        text, at = p.cstring(raw, at)
        count = p.unpack_i16(raw, at)[0]
        oids = tuple(p.unpack_i32(raw, at + 2 + 4 * i)[0] & 0xFFFFFFFF for i in range(count))
        return name, text.decode(), oids
    except UnicodeDecodeError as error:
        raise SqlError(
            "22021", f'invalid byte sequence for encoding "UTF8": 0x{error.object[error.start]:02x}'
        ) from None
    except Exception:
        raise SqlError("08P01", "invalid message format") from None


def read_bind(raw: bytes) -> tuple[bytes, bytes, list[bytes | None], list[int]]:
    """Portal name, statement name, parameter values and their formats of a Bind message. Raises SqlError."""
    try:
        unpack = p.unpack_i32
        end = raw.index(b"\x00", 5)
        portal = raw[5:end]
        at = raw.index(b"\x00", end + 1)
        name = raw[end + 1 : at]
        at += 1
        count = p.unpack_i16(raw, at)[0]
        at += 2
        given = [raw[at + 2 * i + 1] for i in range(count)]
        at += 2 * count
        number = p.unpack_i16(raw, at)[0]
        at += 2
        values: list[bytes | None] = []
        for _ in range(number):
            length = unpack(raw, at)[0]
            at += 4
            if length < 0:
                values.append(None)
            else:
                values.append(raw[at : at + length])
                at += length
        formats = given * number if count == 1 else given if count else [0] * number
        if len(formats) != number or at > len(raw):
            raise ValueError(number)
        return portal, name, values, formats
    except Exception:
        raise SqlError("08P01", "invalid message format") from None


def read_name(raw: bytes) -> tuple[int, bytes]:
    """What Describe and Close name: ``S`` or ``P`` as an integer, and the name. Raises SqlError."""
    try:
        return raw[5], p.cstring(raw, 6)[0]
    except Exception:
        raise SqlError("08P01", "invalid message format") from None
