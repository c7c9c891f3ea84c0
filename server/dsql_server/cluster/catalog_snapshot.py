"""Spares later starts the replay of a long catalog: the engine as it was after thousands of definitions is kept.

The catalog's log stays what counts. A snapshot is used only if it is of this very log, and nothing is lost with it. It
is made at a start that finds that the last one has been left far behind, before any session is there: it takes that
start about a second more, once in ``CHANGES_PER_SNAPSHOT`` definitions. However a server ends, the snapshot is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging

from dsql_server.catalog.changes import Catalog
from dsql_server.engine import EngineInstance
from dsql_server.processor.pool import ProcessorPool

_log = logging.getLogger("dsql_server.cluster")

#: Definitions that a start replays rather than to keep what they lead to; about a millisecond each.
CHANGES_PER_SNAPSHOT = 1000


async def start_from_snapshot(engine: EngineInstance, catalog: Catalog, pool: ProcessorPool) -> None:
    """Tell the pool where its engine's template stands, and keep the template if it has come far since.

    Raises EngineError if the engine doesn't start again.
    """
    version = saved_version(engine)
    if engine.saved_label is not None and engine.saved_label != _label(catalog, version):
        _log.warning("the catalog's snapshot is none of this catalog: all definitions are replayed")
        engine.discard_saved()
        await engine.stop()
        await engine.start()
        pool.socket_path = str(engine.socket_path)
        version = saved_version(engine)
    pool.template_is_at(version)
    if catalog.version - version > CHANGES_PER_SNAPSHOT:
        await pool.roll_forward()
        try:
            await engine.save(_label(catalog, catalog.version))
        except OSError as error:
            _log.warning("the catalog's snapshot can't be kept, so the next start takes as long: %s", error)


def saved_version(engine: EngineInstance) -> int:
    """The catalog version that the engine was started with; 0 without a snapshot."""
    return 0 if engine.saved_label is None else int(json.loads(engine.saved_label)["version"])


def _label(catalog: Catalog, version: int) -> str:
    """Names the catalog at a version, and all that led there."""
    digest = hashlib.sha256()
    for change in catalog.changes[:version]:
        digest.update(repr((change.sql, change.role, change.search_path, change.settings, change.engine_sql)).encode())
    return json.dumps({"version": version, "digest": digest.hexdigest()})
