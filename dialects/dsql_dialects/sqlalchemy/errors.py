"""The dialect's own errors. Each is also one of SQLAlchemy's, so that existing ``except`` clauses go on to work."""

from __future__ import annotations

from sqlalchemy import exc


class UnsupportedError(exc.CompileError):
    """Something that Aurora DSQL cannot hold or do, found before it is sent.

    :param element: what was asked for, as the user wrote it.
    :param reason: why DSQL refuses it.
    :param alternative: what to do instead.
    """

    def __init__(self, element: str, reason: str, alternative: str) -> None:
        super().__init__(f"{element}: {reason}; {alternative}")
        self.element = element
        self.reason = reason
        self.alternative = alternative


class SavepointError(exc.InvalidRequestError):
    """``begin_nested()``: DSQL has no savepoints. Nothing was sent, and the transaction goes on."""


class TwoPhaseError(exc.InvalidRequestError):
    """Two-phase commit: DSQL has no prepared transactions."""


class RowLimitError(exc.InvalidRequestError):
    """More rows in one ``executemany`` than a DSQL transaction may change. Nothing was sent."""


class JobError(exc.SQLAlchemyError):
    """An index build or a constraint's validation failed after the statement that began it had succeeded."""
