"""Direct reads, compiled: from the request to the whole answer.

Their twin is :meth:`dsql_server.frontend.at_once.AtOnce._answered_at_once`, which also takes over what
isn't plain.
"""

from __future__ import annotations

from typing import Any

from dsql_server import compiled
from dsql_server.frontend.statements import Learned
from dsql_server.frontend.transactions import BLOCK, IDLE, Services
from dsql_server.interfaces import protocol as p


def kept_reads(services: Services) -> Any | None:
    """What answers a session's reads: ``answer(request, session)``, and in a transaction block, as of ``t`` and unless
    it has written to their tables, ``answer_in_block(request, t, dirty)``; None, and nothing done: the twin has to.

    ``session`` is what :meth:`dsql_server.interfaces.commit_path.CommitPath.begin` knows the session by. What it raises
    is listed in :data:`dsql_server.processor.access.NOT_EXACT`, and means the same. It knows the statements that
    :func:`keep` has told it of, as long as the catalog doesn't change. ``forget()`` has to be called before the
    session's settings or prepared statements may.
    """
    if compiled.reads is None:
        return None
    path = services.commit_path
    return compiled.reads.Statements(services.catalog, path.begin, path.storage, *map(p.ready_for_query, (IDLE, BLOCK)))


def keep(reads: Any, name: bytes, learned: Learned) -> None:
    """Let ``reads`` know a prepared statement, which has just been answered as ``learned`` says."""
    read = learned.answer.messages if learned.answer is not None else None
    if type(read) is compiled.reads.Read:
        tables = frozenset(scan.table.relation_id for scan in learned.plan.scans)
        reads.keep(name, learned.formats, learned.description, tables, read)
