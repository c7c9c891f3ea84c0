"""Errors that a query processor answers a statement with."""

from __future__ import annotations

import re

from dsql_server.interfaces import protocol as p

#: What a query processor's database is called; clients know of one database only.
_ENGINE_DATABASE = re.compile(rb"\bdsql_qp_\d+\b")
#: What an engine says of a query that is short of memory.
_TEMPORARY_FILES = re.compile(r"temporary file size exceeds temp_file_limit \((\d+)kB\)")
_CONFIGURED_LIMIT = "53400"
#: What an engine says of a key that doesn't fit into a page of its index.
_INDEX_ROW = re.compile(r"index row (?:size \d+ exceeds|requires \d+ bytes)")
_PROGRAM_LIMIT = "54000"


class SqlError(Exception):
    """An error with PostgreSQL's fields, ready to be sent. ``body`` is the body of an ErrorResponse as it came."""

    def __init__(
        self,
        sqlstate: str,
        message: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        position: int | None = None,
        severity: str = "ERROR",
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.notices = b""  #: messages that came before the error
        self.response = p.error_response(
            sqlstate, message, detail=detail, hint=hint, position=position, severity=severity
        )


#: Of functions in a language that users can't write functions in.
_OWN_CONTEXT = "PL/pgSQL function "


class LimitExceeded(Exception):
    """Something is larger than Aurora DSQL allows."""

    def __init__(self, message: str, detail: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = "54000"
        self.message = message
        self.detail = detail


class EngineRefusal(SqlError):
    """An error that the engine raised; ``context`` of the machinery's own statements is left out."""

    def __init__(self, body: bytes, hide_context: bool = False, offset: int = 0) -> None:
        body = _ENGINE_DATABASE.sub(b"postgres", body)
        fields = p.error_fields(body)
        if fields.get("C") == _CONFIGURED_LIMIT and (limit := _TEMPORARY_FILES.match(fields.get("M", ""))):
            message = f"query requires more than allowed temp space of {limit[1]} KB to execute"
            super().__init__("54000", message)
            return
        if fields.get("C") == _PROGRAM_LIMIT and _INDEX_ROW.match(fields.get("M", "")):
            super().__init__("54000", "key size too large")
            return
        super().__init__(fields.get("C", "XX000"), fields.get("M", "unknown error"))
        if offset and "P" in fields:
            position = b"P%d" % (int(fields["P"]) + offset)
            body = b"\x00".join(position if f[:1] == b"P" else f for f in body.split(b"\x00"))
        if hide_context or fields.get("W", "").startswith(_OWN_CONTEXT):
            kept = [f for f in body.split(b"\x00") if f and f[:1] not in (b"W", b"p", b"q")]
            body = b"\x00".join(kept) + b"\x00\x00"
        self.response = p.message(b"E", body)


def system_entity() -> SqlError:
    """Somebody wants to change what belongs to the machinery."""
    return SqlError("0A000", "feature not supported on system entity")


def data_conflict() -> SqlError:
    """Another transaction committed a conflicting change first."""
    return SqlError("40001", "change conflicts with another transaction (OC000)")


def schema_conflict() -> SqlError:
    """The catalog moved on."""
    return SqlError("40001", "schema has been updated by another transaction (OC001)")


def aborted_block() -> SqlError:
    return SqlError("25P02", "current transaction is aborted, commands ignored until end of transaction block")


def outcome_unknown() -> SqlError:
    """The commit may have happened or not: it mustn't be replayed unless that does no harm."""
    return SqlError(
        "08007", "transaction resolution unknown", hint="Look for the transaction's effects before you retry."
    )


def server_unavailable() -> SqlError:
    """Transient: the whole transaction may be retried."""
    return SqlError("XX000", "server unavailable")
