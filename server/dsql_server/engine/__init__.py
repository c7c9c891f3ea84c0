"""Engine control: find PostgreSQL 16, and run disposable instances of it for the query processors."""

from dsql_server.engine.binaries import EngineBinaries, find_binaries
from dsql_server.engine.errors import EngineError
from dsql_server.engine.instance import EngineInstance
from dsql_server.engine.settings import EngineSettings

__all__ = ["EngineBinaries", "EngineError", "EngineInstance", "EngineSettings", "find_binaries"]
