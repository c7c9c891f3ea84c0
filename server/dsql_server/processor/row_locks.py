"""How strongly a statement locks rows: PostgreSQL's plan shows that it does, and the statement's text how."""

from __future__ import annotations

from pglast import ast
from pglast.enums import LockClauseStrength

from dsql_server.catalog.state import Table
from dsql_server.interfaces.messages import LockMode
from dsql_server.processor.parse_tree import Node, is_a, walk
from dsql_server.processor.plan import Scan


def clause_mode(clause: Node) -> LockMode:
    """Of a locking clause. Aurora DSQL has no others than FOR UPDATE and FOR KEY SHARE."""
    return LockMode.KEY_SHARE if clause.strength == LockClauseStrength.LCS_FORKEYSHARE else LockMode.UPDATE


def strongest_lock(statement: Node) -> LockMode | None:
    """The strongest lock that a clause in the statement or in one of its queries asks for; None: there is no clause."""
    return max((clause_mode(node) for node in walk(statement) if is_a(node, ast.LockingClause)), default=None)


def scanned_locks(
    scans: list[Scan], statement: Node, views: frozenset[str], view_mode: LockMode | None
) -> list[tuple[Table, LockMode]]:
    """The scanned tables, each with how strongly the rows are locked that the statement locks of it.

    ``view_mode`` is the strongest lock that a view in the statement takes. Where clauses differ and what one of them
    names can't be told, every table gets the strongest: rather a conflict too many than one too few.
    """
    modes = [mode for mode in (strongest_lock(statement), view_mode) if mode is not None]
    strongest = max(modes, default=LockMode.UPDATE)
    by_name = _modes_by_name(statement, views) if view_mode is None and strongest > LockMode.KEY_SHARE else None
    found = {scan.table.relation_id: scan.table for scan in scans}
    return [(table, (by_name or {}).get(table.name, strongest)) for table in found.values()]


def _modes_by_name(statement: Node, views: frozenset[str]) -> dict[str, LockMode] | None:
    """By names of tables without their schemas; None: a clause locks something else than a table."""
    found: dict[str, LockMode] = {}
    for select in walk(statement):
        if not is_a(select, ast.SelectStmt) or not select.lockingClause:
            continue
        sources = _sources(select.fromClause or ())
        if sources is None:
            return None
        for clause in select.lockingClause:
            mode = clause_mode(clause)
            for alias in [named.relname for named in clause.lockedRels or ()] or list(sources):
                name = sources.get(alias)
                if name is None or name in views:
                    return None  # the tables of a view or of a query in FROM are locked likewise
                found[name] = max(mode, found.get(name, mode))
    return found


def _sources(items: tuple[Node, ...]) -> dict[str, str | None] | None:
    """What stands in FROM: aliases with the tables' names, None for anything else. None: two have the same alias."""
    found: dict[str, str | None] = {}
    pending = list(items)
    while pending:
        item = pending.pop()
        if is_a(item, ast.JoinExpr):
            pending += [item.larg, item.rarg]
            continue
        name = item.relname if is_a(item, ast.RangeVar) else None
        alias = item.alias.aliasname if item.alias is not None else name
        if alias is None or alias in found:
            return None
        found[alias] = name
    return found
