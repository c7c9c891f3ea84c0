"""What answers of the engine have shown of statements that need no engine, for all sessions to which that applies.

The first execution of a statement shows that the role may use its tables, and what the rows look like. It shows that to
every session of the role for which the statement means the same: one that began with the same settings and has changed
none since. A change of the catalog, which privileges are a part of, ends what was shown.
"""

from __future__ import annotations

from typing import NamedTuple

from dsql_server.frontend.statements import Learned
from dsql_server.processor.direct_answer import DirectAnswer
from dsql_server.processor.direct_insert import DirectInsert
from dsql_server.processor.direct_read import DirectRead
from dsql_server.processor.planner import PlanSettings

#: Statements that are remembered for sessions of one kind, and kinds of sessions.
STATEMENTS_MAX = 500
KINDS_MAX = 64
#: Formats of results that one of them is known with.
FORMATS_MAX = 16
#: Of no consequence to what a statement means, or different in every session (those with a dot, the machinery's own).
_APPLICATION_NAME = "application_name"


class SeenText(NamedTuple):
    """What the engine's answer to a text has shown of all texts that differ in their literals only."""

    direct: DirectRead | DirectInsert
    settings_changes: int  #: how often the session had changed settings
    description: bytes
    answer: DirectAnswer | None  #: None: it is a direct insert


class Shown:
    """Statements as sessions of one kind have seen them answered."""

    def __init__(self) -> None:
        self._texts: dict[int, SeenText] = {}  #: by the identity of the direct read or insert
        self._learned: dict[tuple[str, tuple[int, ...]], dict[bytes, Learned]] = {}

    def text(self, direct: DirectRead | DirectInsert) -> SeenText | None:
        """What is known of a text that was sent on its own, in the simple query protocol."""
        return self._texts.get(id(direct))

    def note_text(self, seen: SeenText) -> None:
        """Remember what the engine's answer to a text has shown."""
        if len(self._texts) >= STATEMENTS_MAX:
            self._texts.clear()
        self._texts[id(seen.direct)] = seen

    def learned(self, sql: str, oids: tuple[int, ...]) -> dict[bytes, Learned]:
        """What is known of a text with these declared types, whatever its name was, by the formats of its results."""
        return self._learned.get((sql, oids)) or {}

    def learn(self, sql: str, oids: tuple[int, ...], learned: Learned) -> None:
        """Remember what an execution by the engine has shown."""
        if len(self._learned) >= STATEMENTS_MAX:
            self._learned.clear()
        by_formats = self._learned.setdefault((sql, oids), {})
        if len(by_formats) >= FORMATS_MAX:
            by_formats.clear()
        by_formats[learned.formats] = learned


class ShownStatements:
    """What was shown to each kind of session."""

    def __init__(self) -> None:
        self._kinds: dict[object, Shown] = {}

    def to(self, role: str, settings: dict[str, str], plan_settings: PlanSettings, *, dumps: bool) -> Shown:
        """What was shown to sessions of ``role`` that began with ``settings``, to be asked by those that have changed
        nothing since. ``dumps``: they are pg_dump's, whose statements are read in a way of their own."""
        own = frozenset((k, v) for k, v in settings.items() if "." not in k and k != _APPLICATION_NAME)
        kind = (role, own, plan_settings, dumps)
        if kind not in self._kinds:
            if len(self._kinds) >= KINDS_MAX:
                self._kinds.clear()
            self._kinds[kind] = Shown()
        return self._kinds[kind]
