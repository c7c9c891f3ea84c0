"""Direct inserts in a transaction block, compiled: what is known of a statement, and of a block.

Their twin is :meth:`dsql_server.frontend.at_once.AtOnce._answered_at_once` for direct inserts. It also
takes over whatever isn't plain.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from dsql_server import compiled
from dsql_server.encoding.executions import split_execution
from dsql_server.encoding.keys import KeyEncoder
from dsql_server.frontend.statements import Prepared
from dsql_server.frontend.transactions import BLOCK, Services
from dsql_server.interfaces import protocol as p
from dsql_server.processor.access import Bound
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.workspace import Workspace
from dsql_server.processor.write_set import TableWork

INSERTED = p.command_complete("INSERT 0 1")
_BEHIND = INSERTED + p.ready_for_query(BLOCK)
_ANSWER = p.BIND_COMPLETE_MESSAGE + _BEHIND
_DESCRIBED_ANSWER = p.BIND_COMPLETE_MESSAGE + p.NO_DATA_MESSAGE + _BEHIND


def compiled_insert(plan: LoadPlan, settings_changes: int, zone_is_utc: bool, formats: bytes) -> Any | None:
    """What is known of a direct insert that was executed with the result formats ``formats`` (as Bind has them) after
    so many changes of settings; None if it has to be executed in Python: where there is another unique key than the
    primary one, or none."""
    insert = plan.direct_insert
    if compiled.inserts is None or insert is None:
        return None
    table = insert.table
    if table.key_encoder is None or table.unique_entries:
        return None
    key = _compiled_key(table.key_encoder)
    entries = [_compiled_key(encoder) for _, encoder in table.plain_indexes]
    if key is None or None in entries:
        return None
    fields = [(*field.compiled(), not field.not_null) for field in insert.fields]
    answers = _ANSWER, _DESCRIBED_ANSWER
    bound_of = partial(_bound_of, zone_is_utc)
    return compiled.inserts.Insert(
        insert, plan.version, settings_changes, fields, formats, *answers, key, entries, bound_of
    )


def insert_statements(prepared: dict[bytes, Prepared], services: Services) -> Any | None:
    """The INSERTs among a session's prepared statements. ``forget()`` has to be called whenever these change."""
    if compiled.inserts is None:
        return None
    storage = services.commit_path.storage
    return compiled.inserts.Statements(prepared, services.catalog, storage.get, TableWork, services.limits)


def open_block(statements: Any, settings_changes: int, workspace: Workspace) -> Any:
    """What inserts into a transaction block as long as nothing else is done in it but to read directly.

    ``insert(request)`` gives the answer; None, and nothing done: the twin has to. ``settle()``, which adds the row to
    the transaction, has to follow. ``request()`` is the commit request; None: it has to be made otherwise.

    ``statements`` are those of :func:`insert_statements`. The block must be one that may write, that has defined
    nothing and of which the engine knows nothing.
    """
    return compiled.inserts.OpenBlock(statements, settings_changes, workspace)


def _compiled_key(encoder: KeyEncoder) -> tuple[bytes, Any] | None:
    columns = encoder.compiled_columns()
    return None if columns is None else (encoder.prefix, columns)


def _bound_of(zone_is_utc: bool, request: bytes) -> Bound:
    execution = split_execution(request)
    assert execution is not None, "what was inserted is an execution"
    return Bound(execution[1], execution[2], zone_is_utc)
