"""Errors of migrations say which migration and which operation they come from, and what to do."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from django.db.migrations.migration import Migration
from django.db.utils import Error

#: What to do about errors that are peculiar to DSQL, by SQLSTATE.
REMEDIES = {
    "54000": "Change fewer rows at a time: one transaction changes 3,000 rows and 10 MiB at most. A RunPython "
    "operation takes atomic=False and can then loop over batches.",
    "42846": "The values can't be converted. Add a field of the new type, fill it by RunPython, remove the old one.",
    "0A000": "Aurora DSQL hasn't got this; see docs/django.md for what stands in for it.",
    "40001": "Other transactions were faster each time. Run the migration again; it goes on where it stopped.",
}

_RESUMES = "What is done stays done: run migrate again, and it goes on where it stopped."

_CODES = (Migration.apply.__code__, Migration.unapply.__code__)


def explain(error: BaseException, traceback: TracebackType | None) -> None:
    """Add the migration, the operation and a remedy to a database error's message, in place."""
    if not isinstance(error, Error) or getattr(error, "_dsql_explained", False):
        return
    place = _place(traceback)
    remedy = REMEDIES.get(str(_sqlstate(error)), "")
    lines = [str(error.args[0]) if error.args else "", place, remedy, _RESUMES if place else ""]
    error.args = ("\n".join(line for line in lines if line), *error.args[1:])
    error._dsql_explained = True


def _place(traceback: TracebackType | None) -> str:
    place = ""
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code in _CODES:
            migration, operation = frame.f_locals.get("self"), frame.f_locals.get("operation")
            place = f"In migration {migration}" + (f", operation: {_describe(operation)}" if operation else "")
        traceback = traceback.tb_next
    return place


def _describe(operation: Any) -> str:
    try:
        return str(operation.describe())
    except Exception:  # a third party's operation; the error that is being explained matters more
        return type(operation).__name__


def _sqlstate(error: BaseException) -> str | None:
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state if isinstance(state, str) else None
