"""Classification of a query text: its statements, the path of each, and what Aurora DSQL refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache

from dsql_server.statements import alterations, commands, definitions, indexes, objects, tables
from dsql_server.statements.current_catalog import with_own_catalog
from dsql_server.statements.facts import Facts, collect
from dsql_server.statements.model import Refusal, SqlSyntaxError, Statement, StatementKind
from dsql_server.statements.syntax import Parsed, explained_text, parse
from dsql_server.statements.tags import command_tag
from dsql_server.statements.tree import Node, constant, tag_of

CACHED_TEXTS_MAX = 4096  #: query texts
CACHED_TEXT_LENGTH_MAX = 8192  #: characters; longer texts (bulk inserts) hardly repeat

_QUERIES = {
    "SelectStmt": StatementKind.SELECT,
    "InsertStmt": StatementKind.INSERT,
    "UpdateStmt": StatementKind.UPDATE,
    "DeleteStmt": StatementKind.DELETE,
}
_TRANSACTION_KINDS = {
    "TRANS_STMT_BEGIN": StatementKind.BEGIN,
    "TRANS_STMT_START": StatementKind.BEGIN,
    "TRANS_STMT_COMMIT": StatementKind.COMMIT,
    "TRANS_STMT_ROLLBACK": StatementKind.ROLLBACK,
}

_Refuse = Callable[[Node], Iterator[Refusal]]


def _refuse_nothing(node: Node) -> Iterator[Refusal]:
    return iter(())


#: Every statement of DDL that exists, with its own refusals.
_DDL: dict[str, _Refuse] = {
    "CreateStmt": tables.refuse_create_table,
    "CreateSeqStmt": tables.refuse_create_sequence,
    "CreateDomainStmt": tables.refuse_create_domain,
    "ViewStmt": tables.refuse_create_view,
    "CreateStatsStmt": _refuse_nothing,
    "AlterStatsStmt": objects.refuse_statistics_target,
    "AlterSeqStmt": lambda node: tables.refuse_changed_cache(node.get("options", [])),
    "AlterDomainStmt": alterations.refuse_alter_domain,
    "DropStmt": objects.refuse_drop,
    "RenameStmt": objects.refuse_rename,
    "AlterObjectSchemaStmt": objects.refuse_set_schema,
    "AlterOwnerStmt": objects.refuse_owner,
    "CommentStmt": objects.refuse_comment,
    "GrantStmt": objects.refuse_grant,
    "GrantRoleStmt": objects.refuse_grant_role,
    "AlterDefaultPrivilegesStmt": lambda node: objects.refuse_grant(node["action"]),
    "CreateRoleStmt": objects.refuse_create_role,
    "AlterRoleStmt": objects.refuse_alter_role,
    "AlterRoleSetStmt": objects.refuse_alter_role_setting,
    "DropRoleStmt": objects.refuse_drop_role,
    "CreateFunctionStmt": objects.refuse_create_function,
    "AlterFunctionStmt": objects.refuse_alter_function,
}
_OTHER: dict[str, tuple[StatementKind, _Refuse]] = {
    "VariableShowStmt": (StatementKind.SHOW, _refuse_nothing),
    "ConstraintsSetStmt": (StatementKind.SET_CONSTRAINTS, _refuse_nothing),
    "CopyStmt": (StatementKind.COPY, commands.refuse_copy),
    "CallStmt": (StatementKind.CALL, commands.refuse_call),
    "DeallocateStmt": (StatementKind.DEALLOCATE, commands.refuse_deallocate),
}


def classify(sql: str) -> list[Statement]:
    """Classify the statements of a query text, in order; an empty text has none.

    Pure: the same text always gives the same (shared, immutable) statements. Refusals that depend on the catalog or
    on the transaction aren't among the results.

    Raises:
        SqlSyntaxError: PostgreSQL's error for a text that its grammar doesn't take; nothing else.
    """
    if len(sql) > CACHED_TEXT_LENGTH_MAX:
        return list(_classify(sql))
    return list(_classify_cached(sql))


def _classify(sql: str, in_function: bool = False) -> tuple[Statement, ...]:
    return tuple(_statement(parsed, sql, in_function) for parsed in parse(sql))


_classify_cached = lru_cache(CACHED_TEXTS_MAX)(_classify)


def _statement(parsed: Parsed, sql: str, in_function: bool) -> Statement:
    facts = collect(parsed.name, parsed.tree)
    found = Statement(
        text=sql[parsed.start : parsed.end],
        offset=parsed.start,
        kind=StatementKind.OTHER,
        tag=command_tag(parsed.name, parsed.tree),
        engine_sql=parsed.engine_sql,
        functions=frozenset(facts.functions),
        operators=frozenset(facts.operators),
        relations=frozenset(facts.relations),
        targets=frozenset(facts.targets),
        locking=facts.locking,
        has_on_conflict=facts.has_on_conflict,
        has_modifying_cte=facts.writing_ctes > 0,
        is_dml=facts.writes > 0,
        parameters=facts.parameters,
    )
    if parsed.name in _QUERIES:
        return _query(found, parsed, facts)
    if parsed.arns is not None:
        return replace(
            found,
            kind=StatementKind.DDL,
            is_ddl=True,
            engine_sql="",
            definition=definitions.role_mapping(parsed.tree, parsed.arns),
        )
    if parsed.name in _DDL or parsed.name in ("IndexStmt", "AlterTableStmt", "CreateSchemaStmt"):
        return _ddl(found, parsed, facts, in_function)
    return _command(found, parsed, facts)


def _query(found: Statement, parsed: Parsed, facts: Facts) -> Statement:
    returning = "returningClause" in parsed.tree or "returningList" in parsed.tree
    return replace(
        found,
        kind=_QUERIES[parsed.name],
        engine_sql=with_own_catalog(parsed) if found.engine_sql is parsed.engine_sql else found.engine_sql,
        refusals=tuple(facts.refusals),
        is_read_only=not facts.writes and facts.locking is None,
        returning=returning,
        returns_rows=returning or parsed.name == "SelectStmt",
    )


def _ddl(found: Statement, parsed: Parsed, facts: Facts, in_function: bool) -> Statement:
    refusals = [*_refuse_ddl(parsed.name, parsed.tree, parsed), *facts.refusals]
    definition = definitions.define(parsed)
    text = objects.function_body(parsed.tree) if parsed.name == "CreateFunctionStmt" else None
    if text is not None and not refusals and not in_function:
        body = _function_body(text)
        definition = replace(definition, body=body)
        refusals += _refuse_body(body)
    refusals = [_with_position(refusal, parsed) for refusal in refusals]
    return replace(
        found,
        kind=StatementKind.DDL,
        engine_sql=_engine_text(parsed),
        is_ddl=True,
        is_dml=False,
        refusals=tuple(refusals),
        returns_rows=parsed.is_async,
        definition=definition,
    )


def _engine_text(parsed: Parsed) -> str:
    if parsed.name == "IndexStmt":
        return indexes.without_own_method(parsed.tree, parsed.engine_sql)
    return tables.default_precisions(_new_columns(parsed), parsed)


def _with_position(refusal: Refusal, parsed: Parsed) -> Refusal:
    """Count characters of the query text instead of the tree's bytes."""
    if refusal.position is None:
        return refusal
    return replace(refusal, position=parsed.start + parsed.index(refusal.position) + 1)


def _new_columns(parsed: Parsed) -> list[Node]:
    """Column definitions of CREATE TABLE and ALTER TABLE ADD COLUMN."""
    if parsed.name == "CreateStmt":
        elements = parsed.tree.get("tableElts", ())
    elif parsed.name == "AlterTableStmt":
        elements = [
            c["AlterTableCmd"]["def"]
            for c in parsed.tree.get("cmds", ())
            if c["AlterTableCmd"]["subtype"] == "AT_AddColumn"
        ]
    elif parsed.name == "CreateSchemaStmt":
        tables_of_schema = (e["CreateStmt"] for e in parsed.tree.get("schemaElts", ()) if "CreateStmt" in e)
        elements = [element for table in tables_of_schema for element in table.get("tableElts", ())]
    else:
        return []
    return [element["ColumnDef"] for element in elements if "ColumnDef" in element]


def _refuse_ddl(name: str, node: Node, parsed: Parsed) -> Iterator[Refusal]:
    if name == "IndexStmt":
        yield from indexes.refuse_create_index(node, parsed.is_async, parsed.engine_sql)
    elif name == "AlterTableStmt":
        yield from alterations.refuse_alter_table(node, parsed.is_async)
    elif name == "CreateSchemaStmt":
        for element in node.get("schemaElts", ()):
            yield from _refuse_ddl(*tag_of(element), parsed)
    elif name in _DDL:
        yield from _DDL[name](node)
    else:
        yield from commands.refuse_unsupported(name, node)


def _function_body(text: str) -> tuple[Statement, ...]:
    """The statements of an SQL function's text. Its errors of syntax are left to the engine."""
    try:
        return _classify(text, in_function=True)
    except SqlSyntaxError:
        return ()


def _refuse_body(body: tuple[Statement, ...]) -> Iterator[Refusal]:
    """A function runs queries only: nobody would see what else it does."""
    for statement in body:
        yield from statement.refusals
        if statement.kind not in _QUERIES.values():
            yield Refusal("0A000", f"{statement.tag} is not allowed in an SQL function")


def _command(found: Statement, parsed: Parsed, facts: Facts) -> Statement:
    name, node = parsed.name, parsed.tree
    if name == "TransactionStmt":
        kind = _TRANSACTION_KINDS.get(node["kind"], StatementKind.OTHER)
        refusals = (*commands.refuse_transaction(node), *facts.refusals)
        modes = commands.transaction_modes(node.get("options", [])) if kind is StatementKind.BEGIN else None
        return replace(found, kind=kind, refusals=refusals, transaction=modes, is_read_only=True)
    if name == "VariableSetStmt":
        return _set(found, node, facts)
    if name == "ExplainStmt":
        return _explain(found, parsed, facts)
    if name == "VacuumStmt" and not node.get("is_vacuumcmd"):
        columns = commands.analyzed_columns(node)
        return replace(found, kind=StatementKind.ANALYZE, refusals=tuple(facts.refusals), columns=columns)
    if name not in _OTHER:
        return replace(found, refusals=(*commands.refuse_unsupported(name, node), *facts.refusals))
    kind, refuse = _OTHER[name]
    copies_in = kind is StatementKind.COPY and bool(node.get("is_from"))
    return replace(
        found,
        kind=kind,
        refusals=(*refuse(node), *facts.refusals),
        is_dml=found.is_dml or copies_in,
        copies_in=copies_in,
        is_read_only=kind is not StatementKind.CALL and not copies_in and not facts.writes and facts.locking is None,
        targets=found.relations if copies_in and "relation" in node else found.targets,
        parameter=commands.parameter(node) if kind is StatementKind.SHOW else None,
        arguments=commands.call_arguments(node) if kind is StatementKind.CALL else (),
        returns_rows=kind in (StatementKind.SHOW, StatementKind.CALL),
    )


def _set(found: Statement, node: Node, facts: Facts) -> Statement:
    is_reset = node["kind"] in ("VAR_RESET", "VAR_RESET_ALL")
    characteristics = node["kind"] == "VAR_SET_MULTI"
    modes = commands.transaction_modes(node.get("args", [])) if characteristics else None
    parameter = None if characteristics else commands.parameter(node)
    nothing_to_run = parameter is not None and (parameter.name == indexes.SYNC_PARAMETER or commands.is_constant(node))
    return replace(
        found,
        kind=StatementKind.RESET if is_reset else StatementKind.SET,
        refusals=(*commands.refuse_set(node), *facts.refusals),
        engine_sql="" if nothing_to_run else commands.noted_characteristics(modes) or found.engine_sql,
        transaction=modes,
        parameter=parameter,
        is_read_only=True,
    )


def _explain(found: Statement, parsed: Parsed, facts: Facts) -> Statement:
    options = {o["DefElem"]["defname"]: constant(o["DefElem"].get("arg")) for o in parsed.tree.get("options", ())}
    on = frozenset(name for name, value in options.items() if (value or "on").lower() not in ("false", "off", "0"))
    name, node = tag_of(parsed.tree["query"])
    if name in _QUERIES:
        refusals: tuple[Refusal, ...] = tuple(facts.refusals)
    else:
        refusals = (*commands.refuse_unsupported(name, node), *facts.refusals)
    inner = None
    if name in _QUERIES:
        start = explained_text(found.text, bool(options))
        text = found.text[start:]
        engine_sql = found.engine_sql[start:]
        offset, tag = found.offset + start, command_tag(name, node)
        inner = replace(found, text=text, engine_sql=engine_sql, offset=offset, tag=tag)
        inner = _query(inner, replace(parsed, name=name, tree=node), facts)
    runs = "analyze" in on
    return replace(
        found,
        kind=StatementKind.EXPLAIN,
        refusals=refusals,
        is_dml=facts.writes > 0 and runs,
        is_read_only=(not facts.writes and facts.locking is None) or not runs,
        returns_rows=True,
        explained=inner,
        options=on,
    )
