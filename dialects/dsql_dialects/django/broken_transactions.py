"""What is raised in a transaction that an error has broken, where other databases go back to a savepoint."""

from __future__ import annotations

from django.db import DatabaseError
from django.db.transaction import TransactionManagementError

_kinds: dict[type[DatabaseError], type[TransactionManagementError]] = {}


def broken_transaction(cause: DatabaseError) -> TransactionManagementError:
    """The error for any statement after ``cause`` until the end of the outermost ``atomic`` block.

    Code that catches ``cause`` and looks whether somebody else was faster, like ``get_or_create()``, can't look here.
    What it raises shall still be caught as what it is, so that the error is of both kinds.
    """
    kind = type(cause)
    if kind not in _kinds:
        _kinds[kind] = type(
            f"BrokenTransaction{kind.__name__}", (TransactionManagementError, kind), {"__module__": __name__}
        )
    return _kinds[kind](
        "An error occurred in the current transaction. You can't execute queries until the end of the 'atomic' block: "
        "Aurora DSQL has no savepoints. Let the error leave the outermost block, and run that again. The error was: "
        f"{str(cause).strip()}"
    )
