"""Which sequences a statement may take values from, read off its text and PostgreSQL's plan for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pglast.parser

from dsql_server.catalog import state as catalog
from dsql_server.catalog.state import CatalogState, Column, Table
from dsql_server.interfaces import protocol as p
from dsql_server.processor.engine_connection import EngineConnection
from dsql_server.processor.errors import SqlError
from dsql_server.statements.tree import Node, constant, load, strings, walk

#: nextval of a known sequence, as plans and defaults print it: of a constant, or of an identity column.
_NEXTVAL = re.compile(r"\bnextval\(('(?:[^']|'')+')(?:::regclass)?\)")
#: setval, by itself or as the function that stands for it.
_SETS = re.compile(r"\b(?:engine_)?setval\(")
_MENTIONS = re.compile("nextval|setval", re.IGNORECASE)
#: Functions that say what a session got before. They take nothing, but have to be right whatever was done since.
RECALLING_FUNCTIONS = frozenset({"currval", "lastval"})
_RECALLS = re.compile("|".join(sorted(RECALLING_FUNCTIONS)), re.IGNORECASE)
#: A column's modifier where its type is a domain.
_UNKNOWN_MODIFIER = 0
#: DEFAULT as a value may stand for a call of nextval.
_DEFAULTS = re.compile(r"\bdefault\b", re.IGNORECASE)
#: Functions that take values from sequences or set them.
SEQUENCE_FUNCTIONS = frozenset({"nextval", "setval"})
#: Lists every sequence with its last value.
SEQUENCES_VIEW = "pg_sequences"
#: A statement that computes which sequence to ask gets values of all of them; with more of them it is refused.
COMPUTED_SEQUENCES_MAX = 64
_RESOLVE_SQL = (
    "SELECT r.name, n.nspname, c.relname FROM pg_catalog.unnest(ARRAY[{names}]) AS r(name) "
    "JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(r.name) "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
)


@dataclass(frozen=True)
class HiddenUsers:
    """Who may take values from sequences, or set them, where neither a statement nor its plan says so."""

    names: frozenset[str] = frozenset()  #: of functions, and of views that call such
    domains: bool = False  #: some domain's default does


@dataclass
class SequenceUse:
    """A sequence that a statement takes values from. ``count``: how many, if ``exact``, else a guess."""

    sequence: catalog.Sequence
    count: int = 1
    exact: bool = False


@dataclass(frozen=True)
class SequenceUses:
    """What a statement does with sequences."""

    taken: tuple[SequenceUse, ...] = ()
    shown: tuple[catalog.Sequence, ...] = ()  #: whose state it reads, as from a table
    sets: bool = False  #: it may call setval


@dataclass(frozen=True)
class NamedUses:
    """The same by names as they are written in SQL, yet to be resolved."""

    counts: dict[str, int]  #: name as in a string constant, without its quotes
    exact: bool
    #: some sequence is only known when the statement runs
    computed: bool
    sets: bool


async def sequence_uses(
    connection: EngineConnection,
    state: CatalogState,
    sql: str,
    explained: str,
    plan: dict[str, Any],
    users: HiddenUsers,
) -> SequenceUses | None:
    """What a statement does with sequences; None if nothing.

    ``explained`` is the text of ``plan``. Names are resolved by ``connection``, on which the statement was planned.
    Raises SqlError if the statement may use any of too many sequences.
    """
    shown = _shown_sequences(state, sql, plan)
    hidden = any(name in explained or name in sql for name in users.names)
    defaulted = defaulted_uses(state, sql, users) if _DEFAULTS.search(sql) else []
    if not hidden and not defaulted and not _MENTIONS.search(explained) and not _MENTIONS.search(sql):
        return SequenceUses(shown=shown) if shown or _RECALLS.search(sql) or _RECALLS.search(explained) else None
    uses = named_uses(sql, plan)
    if hidden or uses.computed:
        return uses_of_any(state, shown)
    taken = defaulted
    if uses.counts:
        names = ", ".join("'" + name.replace("'", "''") + "'" for name in uses.counts)
        answer = await connection.execute(_RESOLVE_SQL.format(names=names))
        for row in answer.rows[0]:
            name, schema, relation = ((v or b"").decode() for v in p.data_row_fields(row))
            sequence = state.sequence_by_name.get((schema, relation))
            known = next((use for use in taken if use.sequence is sequence), None)
            if known is not None:
                known.count += uses.counts[name]
            elif sequence is not None:
                taken.append(SequenceUse(sequence, uses.counts[name], uses.exact))
    return SequenceUses(tuple(taken), shown, uses.sets)


def uses_of_any(state: CatalogState, shown: tuple[catalog.Sequence, ...] = ()) -> SequenceUses:
    """Any sequence may be taken from and set. Raises SqlError where these are too many."""
    if len(state.sequences) > COMPUTED_SEQUENCES_MAX:
        raise SqlError(
            "0A000",
            f"nextval of a computed name is not supported with more than {COMPUTED_SEQUENCES_MAX} sequences",
            hint="Write the sequence's name as a string constant.",
        )
    return SequenceUses(tuple(map(SequenceUse, state.sequences.values())), shown, True)


def _shown_sequences(state: CatalogState, sql: str, plan: dict[str, Any]) -> tuple[catalog.Sequence, ...]:
    """Sequences whose state a statement reads."""
    if SEQUENCES_VIEW in sql:
        return tuple(state.sequences.values())
    found: list[catalog.Sequence] = []
    nodes = [plan]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", ())
        sequence = state.sequence_by_name.get((node.get("Schema", ""), node.get("Relation Name", "")))
        if sequence is not None:
            found.append(sequence)
    return tuple(found)


def named_uses(sql: str, plan: dict[str, Any]) -> NamedUses:
    """The sequences that the statement names, itself and in the defaults of its target columns.

    Values lists of more than one row are missing in plans, all else is there, so the text is asked as well.
    """
    statement = _statement(sql)
    rows = statement.get("selectStmt", {}).get("SelectStmt", {}).get("valuesLists", [])
    calls = list(_nextval_calls(statement))
    planned = [name for text in _texts(plan) for name in _names(text)]
    counts: dict[str, int] = {}
    for name in planned:
        counts[name] = counts.get(name, 0) + max(1, len(rows))
    explicit = [name for name in calls if name is not None]
    if len(rows) > 1:
        for name in explicit:
            counts[name] = counts.get(name, 0) + 1
    for name in explicit:
        counts.setdefault(name, 1)
    exact = bool(rows) or (plan["Node Type"] == "Result" and "Plans" not in plan)
    if not exact:
        counts = dict.fromkeys(counts, 1)
    texts = "\n".join(_texts(plan))
    computed = None in calls or texts.count("nextval(") > len(planned)
    return NamedUses(counts, exact, computed, bool(_SETS.search(texts)) or "setval" in sql.lower())


def defaulted_uses(state: CatalogState, sql: str, users: HiddenUsers) -> list[SequenceUse]:
    """What DEFAULT takes where plans don't show it: in values lists of several rows, and in ON CONFLICT DO UPDATE."""
    found: dict[int, SequenceUse] = {}
    for kind, insert in walk(_statement(sql, whole=True)):
        places = _default_places(insert) if kind == "InsertStmt" else []
        if not places:
            continue
        tables = _named_tables(state, insert["relation"])
        for table in tables:
            for column in _columns(insert, table, places):
                for sequence in _sequences_of(state, table, column, users):
                    found.setdefault(sequence.relation_id, SequenceUse(sequence, 0, True)).count += 1
        if not tables:  # a view, of any table
            for use in uses_of_any(state).taken:
                found.setdefault(use.sequence.relation_id, use)
    return list(found.values())


def _default_places(insert: Node) -> list[int | str]:
    """For each DEFAULT its place in a row, or the column's name."""
    rows = insert.get("selectStmt", {}).get("SelectStmt", {}).get("valuesLists", ())
    places: list[int | str] = [i for row in rows for i, x in enumerate(row["List"]["items"]) if "SetToDefault" in x]
    targets = [target["ResTarget"] for target in insert.get("onConflictClause", {}).get("targetList", ())]
    return places + [target["name"] for target in targets if "SetToDefault" in target.get("val", {})]


def _named_tables(state: CatalogState, relation: Node) -> list[Table]:
    """The tables that an INSERT may mean: the search path is not known here."""
    schema = relation.get("schemaname")
    return [t for t in state.tables.values() if t.name == relation["relname"] and schema in (None, t.schema)]


def _columns(insert: Node, table: Table, places: list[int | str]) -> list[Column]:
    names = [target["ResTarget"]["name"] for target in insert.get("cols", ())] or list(table.by_name)
    meant = [place if isinstance(place, str) else "".join(names[place : place + 1]) for place in places]
    return [table.by_name[name] for name in meant if name in table.by_name]


def takes_hidden_values(column: Column, users: HiddenUsers) -> bool:
    """Whether a column's default may take values from any sequence: by a function, or as its domain's default."""
    if column.default is None:
        return users.domains and column.modifier == _UNKNOWN_MODIFIER and not column.dropped
    return any(name in column.default for name in users.names)


def _sequences_of(state: CatalogState, table: Table, column: Column, users: HiddenUsers) -> Iterator[catalog.Sequence]:
    """The sequences of a column's default; of a column without one, those of the table's identity columns.

    Which ones functions and the defaults of domains take isn't known here: it may be any.
    """
    default = column.default
    names = set(_names(default or ""))
    any_of_them = takes_hidden_values(column, users)
    for sequence in state.sequences.values():
        is_identity = default is None and sequence.table_id == table.relation_id
        spelled = {sequence.name, sequence.qualified_name, f"{sequence.schema}.{sequence.name}"}
        if any_of_them or is_identity or names & spelled:
            yield sequence


def _names(text: str) -> list[str]:
    return [quoted[1:-1].replace("''", "'") for quoted in _NEXTVAL.findall(text)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _statement(sql: str, whole: bool = False) -> Node:
    """The first statement's parse tree; ``whole``: under the name of its node."""
    try:
        tree = load(pglast.parser.parse_sql_json(sql))
    except pglast.parser.ParseError:
        return {}  # it was planned, so this can't be; without the tree every sequence is taken for used
    statements = tree.get("stmts", [])
    if not statements:
        return {}
    return statements[0]["stmt"] if whole else next(iter(statements[0]["stmt"].values()))


def _nextval_calls(node: Node) -> Iterator[str | None]:
    """The argument of every call of nextval; None where it isn't a constant."""
    stack: list[Any] = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            if "funcname" in item and strings(item["funcname"])[-1:] == ["nextval"]:
                yield _constant_argument(item)
            stack.extend(item.values())


def _constant_argument(call: Node) -> str | None:
    arguments = call.get("args", [])
    if len(arguments) != 1:
        return None
    argument = arguments[0]
    while "TypeCast" in argument:
        argument = argument["TypeCast"]["arg"]
    return constant(argument)


def uses_of_copy(state: CatalogState, tables: Sequence[Table]) -> SequenceUses | None:
    """For COPY into tables: the sequences of their identity columns and defaults."""
    if not state.sequences:
        return None
    named = {name for table in tables for column in table.columns for name in _names(column.default or "")}
    ids = {table.relation_id for table in tables}
    taken = [
        SequenceUse(sequence)
        for sequence in state.sequences.values()
        if sequence.table_id in ids or named & {sequence.qualified_name, f"{sequence.schema}.{sequence.name}"}
    ]
    return SequenceUses(tuple(taken)) if taken else None
