"""What the planner must know of views and functions that a plan doesn't show."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from pglast import ast, parser

from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.messages import LockMode
from dsql_server.processor.engine_connection import EngineConnection
from dsql_server.processor.limits import limits_rows
from dsql_server.processor.parse_tree import is_a, walk
from dsql_server.processor.row_locks import strongest_lock
from dsql_server.processor.sequence_uses import HiddenUsers

#: A name as a word of its own, and as a function's in front of its arguments; in a plan, its quotes are escaped.
_NAME_START, _NAME_END = r"(?<![\w$])", r"(?![\w$])"
_CALL = r'\\?"?(?:\s|/\*[\s\S]*?\*/|--.*\n)*\('
#: How texts write what can't stand for itself in a name.
_ESCAPED = {'"': r'(?:\\?"){2}', "\\": r"\\{1,2}"}
_USER_SCHEMA = "n.nspname NOT IN ('pg_catalog', 'information_schema', 'sys')"

#: Views and SQL functions of users, with what tells one version of them from the next.
_LIST_SQL = f"""
SELECT json_build_object(
  'views', (SELECT coalesce(json_agg(json_build_array(c.relname, c.oid::int8, r.xmin::text)), '[]')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid WHERE c.relkind = 'v' AND {_USER_SCHEMA}),
  'functions', (SELECT coalesce(json_agg(json_build_array(f.proname, f.oid::int8, f.xmin::text)), '[]')
    FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
    WHERE f.prolang = 14 AND {_USER_SCHEMA}),
  'called', (SELECT coalesce(json_agg(DISTINCT f.proname), '[]')
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc f ON f.oid = d.refobjid
    JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
    WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND {_USER_SCHEMA} AND d.classid IN (
      'pg_catalog.pg_attrdef'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass,
      'pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass)),
  'domain_defaults', (SELECT coalesce(json_agg(t.typdefault), '[]')
    FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    WHERE t.typtype = 'd' AND t.typdefault IS NOT NULL AND {_USER_SCHEMA}))::text
"""
_VIEW_SQL = "SELECT pg_catalog.pg_get_viewdef({}::oid)"
_FUNCTION_SQL = (
    "SELECT coalesce(pg_catalog.pg_get_function_sqlbody(oid), prosrc) FROM pg_catalog.pg_proc WHERE oid = {}"
)


@dataclass(frozen=True)
class _Definition:
    """What a view or function consists of; ``None`` instead of one: its text isn't understood."""

    functions: frozenset[str]  #: names of all functions it calls
    relations: frozenset[str]  #: names of all relations it reads
    renamed: frozenset[str]  #: aliases of relations that give their columns other names
    uses_sequences: bool  #: it takes values from sequences or sets them, or may: it writes rows
    has_limit: bool
    writes: bool  #: it writes or locks rows
    locks: LockMode | None  #: how strongly, at most


_UNCLEAR = _Definition(frozenset(), frozenset({"?"}), frozenset(), True, True, True, LockMode.UPDATE)
#: What a statement has that writes or locks rows.
WRITING_NODES = (ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.LockingClause)
_SEQUENCE_FUNCTIONS = frozenset({"nextval", "setval"})


@dataclass(frozen=True)
class PlanFacts:
    """The state of one catalog version."""

    functions: frozenset[str] = frozenset()  #: users' SQL functions
    table_functions: frozenset[str] = frozenset()  #: those that defaults, checks and indexes of tables and types call
    views: frozenset[str] = frozenset()
    #: aliases inside of views whose columns have other names than the table's
    renamed: frozenset[str] = frozenset()
    #: functions that read tables, and views that call such; PostgreSQL may have run them before it prints a plan
    hidden_readers: frozenset[str] = frozenset()
    #: functions that write or lock rows, and views that call such; a plan doesn't show which rows
    hidden_writers: frozenset[str] = frozenset()
    sequence_users: HiddenUsers = field(default_factory=HiddenUsers)
    #: views that may take values from sequences, as their plans show
    sequence_views: frozenset[str] = frozenset()
    locks: bool = False  #: some function locks rows FOR UPDATE
    #: views that lock rows by a clause of their own, and whatever reads such; and those of them FOR UPDATE
    lockers: frozenset[str] = frozenset()
    update_lockers: frozenset[str] = frozenset()
    _patterns: dict[frozenset[str], re.Pattern[str]] = field(default_factory=dict, compare=False)
    has_limit: bool = False  #: some view or function has a LIMIT

    def may_call(self, names: frozenset[str], *texts: str) -> bool:
        """Whether a text, of SQL or of a plan, reads one of these views or calls one of these functions."""
        if not names:
            return False
        pattern = self._patterns.get(names)
        if pattern is None:
            alternatives = (
                "".join(_ESCAPED.get(letter, re.escape(letter)) for letter in name)
                + (_NAME_END if name in self.views else _CALL)
                for name in sorted(names)
            )
            pattern = re.compile(rf"{_NAME_START}(?:{'|'.join(alternatives)})", re.IGNORECASE)
            self._patterns[names] = pattern
        return any(pattern.search(text) is not None for text in texts)


class FactReader:
    """Reads the facts from an engine; definitions that were read before aren't read again."""

    def __init__(self) -> None:
        self._definitions: dict[tuple[str, int, str], _Definition] = {}

    async def read(self, connection: EngineConnection) -> PlanFacts:
        """The facts as the engine's catalog is now. Raises EngineError or EngineGone."""
        listed = json.loads(await _text(connection, _LIST_SQL) or "{}")
        definitions: dict[tuple[str, int, str], _Definition] = {}
        views: dict[str, list[_Definition]] = {}
        functions: dict[str, list[_Definition]] = {}
        for found, sql, entries in (
            (views, _VIEW_SQL, listed["views"]),
            (functions, _FUNCTION_SQL, listed["functions"]),
        ):
            for name, oid, version in entries:
                key = (sql, oid, version)
                known = self._definitions.get(key)
                if known is None:
                    known = _read_definition(await _text(connection, sql.format(oid)))
                definitions[key] = known
                found.setdefault(name, []).append(known)
        self._definitions = definitions
        return _facts(views, functions, frozenset(listed["called"]), listed["domain_defaults"])


async def _text(connection: EngineConnection, sql: str) -> str:
    answer = await connection.execute(sql)
    rows = answer.rows[0]
    return (p.data_row_fields(rows[0])[0] or b"").decode() if rows else ""


def _read_definition(text: str) -> _Definition:
    try:
        statements = parser.parse_sql(text)
    except parser.ParseError:
        try:
            statements = parser.parse_sql(f"SELECT {text.strip().removeprefix('RETURN ')}")
        except parser.ParseError:
            return _UNCLEAR
    functions: set[str] = set()
    relations: set[str] = set()
    renamed: set[str] = set()
    writes = has_limit = False
    tree = tuple(s.stmt for s in statements)
    for node in walk(tree):
        if is_a(node, ast.FuncCall):
            functions.add(node.funcname[-1].sval)
        elif is_a(node, ast.SelectStmt):
            has_limit = has_limit or limits_rows(node)
        elif is_a(node, ast.RangeVar):
            relations.add(node.relname)
            if node.alias is not None and node.alias.colnames:
                renamed.add(node.alias.aliasname)
        writes = writes or is_a(node, *WRITING_NODES)
    uses_sequences = writes or not functions.isdisjoint(_SEQUENCE_FUNCTIONS)
    return _Definition(
        frozenset(functions),
        frozenset(relations),
        frozenset(renamed),
        uses_sequences,
        has_limit,
        writes,
        strongest_lock(tree),
    )


def _facts(
    views: dict[str, list[_Definition]],
    functions: dict[str, list[_Definition]],
    table_functions: frozenset[str],
    domain_defaults: list[str],
) -> PlanFacts:
    definitions = [*views.items(), *functions.items()]
    readers = _with_users(definitions, {name for name, found in functions.items() if any(d.relations for d in found)})
    lockers = _with_users(
        definitions, {name for name, found in views.items() if any(d.locks is not None for d in found)}
    )
    update_lockers = _with_users(
        definitions, {name for name, found in views.items() if any(d.locks == LockMode.UPDATE for d in found)}
    )
    # A plan shows which rows a view locks, but not inside of functions.
    writers = {name for name, found in functions.items() if name in lockers or any(d.writes for d in found)}
    sequence_users = {name for name, found in functions.items() if any(d.uses_sequences for d in found)}
    takers = _with_users(definitions, sequence_users)
    sequence_views = {name for name, found in views.items() if any(d.uses_sequences for d in found)}
    return PlanFacts(
        functions=frozenset(functions),
        table_functions=table_functions,
        views=frozenset(views),
        renamed=frozenset(alias for found in views.values() for d in found for alias in d.renamed),
        hidden_readers=frozenset(readers),
        hidden_writers=frozenset(_with_users(definitions, writers)),
        sequence_users=HiddenUsers(
            frozenset(takers),
            any(name in default for name in takers | _SEQUENCE_FUNCTIONS for default in domain_defaults),
        ),
        sequence_views=frozenset(_with_users(definitions, sequence_views)),
        locks=any(
            name in update_lockers or any(d.locks == LockMode.UPDATE for d in found)
            for name, found in functions.items()
        ),
        lockers=frozenset(lockers),
        update_lockers=frozenset(update_lockers),
        has_limit=any(d.has_limit for _, found in definitions for d in found),
    )


def _with_users(definitions: list[tuple[str, list[_Definition]]], names: set[str]) -> set[str]:
    """``names`` and every view and function that calls or reads one of them, however indirectly."""
    grown = -1
    while grown != len(names):
        grown = len(names)
        for name, found in definitions:
            if any(not d.functions.isdisjoint(names) or not d.relations.isdisjoint(names) for d in found):
                names.add(name)
    return names
