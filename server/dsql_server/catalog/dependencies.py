"""Which columns an index's expressions and predicate depend on."""

from __future__ import annotations

from functools import lru_cache

from pglast import ast, parser
from pglast.visitors import Visitor

EXPRESSIONS_CACHED_MAX = 4096


class _Columns(Visitor):
    """Collects the names of columns; ``is_clear`` is False where an expression may depend on others, too."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.is_clear = True

    def visit_ColumnRef(self, _ancestors: object, node: ast.ColumnRef) -> None:
        fields = node.fields or ()
        if len(fields) == 1 and isinstance(fields[0], ast.String) and fields[0].sval is not None:
            self.names.add(fields[0].sval)
        else:
            self.is_clear = False


@lru_cache(maxsize=EXPRESSIONS_CACHED_MAX)
def expression_columns(expression: str) -> frozenset[str] | None:
    """The names of the columns in an expression as PostgreSQL prints it; None: it may depend on any."""
    try:
        tree = parser.parse_sql(f"SELECT {expression}")
    except parser.ParseError:
        return None
    columns = _Columns()
    columns(tree)
    return frozenset(columns.names) if columns.is_clear else None
