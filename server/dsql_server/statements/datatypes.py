"""Type names in statements: which columns can be stored, which types exist only while a query runs."""

from __future__ import annotations

from dsql_server.statements.model import Refusal
from dsql_server.statements.tree import Node, constant, strings

CHAR_LENGTH_MAX = 4096  #: characters of char(n)
VARCHAR_LENGTH_MAX = 65535  #: characters of varchar(n)

#: Storable types by PostgreSQL's catalog name, with the name that messages use.
STORABLE = {
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "numeric": "numeric",
    "bpchar": "character",
    "varchar": "character varying",
    "text": "text",
    "date": "date",
    "time": "time without time zone",
    "timetz": "time with time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "interval": "interval",
    "bool": "boolean",
    "bytea": "bytea",
    "uuid": "uuid",
    "json": "json",
    "jsonb": "jsonb",
}

#: Storable, but neither in a primary key nor in an index.
NOT_IN_KEYS = frozenset({"timetz", "interval", "bytea", "json", "jsonb"})

_NEVER = """
    money xml point line lseg box path polygon circle tsvector tsquery gtsvector pg_lsn
"""
#: Refused wherever a statement names them, also in a cast.
NEVER = {"bit": "bit", "varbit": "bit varying", **{name: name for name in _NEVER.split()}}

_RUNTIME_ONLY = """
    aclitem cid cidr inet int2vector jsonpath macaddr macaddr8 name oid oidvector pg_brin_bloom_summary
    pg_brin_minmax_multi_summary pg_dependencies pg_mcv_list pg_ndistinct pg_node_tree pg_snapshot refcursor
    regclass regcollation regconfig regdictionary regnamespace regoper regoperator regproc regprocedure regrole
    regtype tid txid_snapshot xid xid8
"""
_RANGES = """
    int4range int8range numrange daterange tsrange tstzrange
    int4multirange int8multirange nummultirange datemultirange tsmultirange tstzmultirange
"""
#: In expressions and as arguments of functions only.
RANGES = frozenset(_RANGES.split())

#: Never a function's result, by one report of August 2026 that tried them all.
_NO_RESULT = RANGES | {
    *("money", "xml", "bit", "varbit", "jsonpath", "txid_snapshot", "cidr", "macaddr", "macaddr8"),
    *("point", "line", "lseg", "box", "path", "polygon", "circle"),
}

#: Known to queries (casts, catalogs), never a column's type.
RUNTIME_ONLY = {"char": '"char"', **{name: name for name in (*_RUNTIME_ONLY.split(), *RANGES)}}

_SERIAL = frozenset({"serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"})


def base_name(type_name: Node) -> str | None:
    """The catalog name of a built-in type, or None for a type of a user's schema."""
    names = strings(type_name.get("names"))
    if not names or (len(names) > 1 and names[-2] != "pg_catalog"):
        return None
    return names[-1]


def display_name(type_name: Node) -> str:
    """The type as messages show it, without length or precision."""
    base = base_name(type_name)
    if base is None:
        shown = ".".join(strings(type_name.get("names")))
    else:
        shown = STORABLE.get(base) or NEVER.get(base) or RUNTIME_ONLY.get(base) or base
    return shown + "[]" if type_name.get("arrayBounds") else shown


def not_supported(type_name: Node) -> Refusal:
    return Refusal("0A000", f"datatype {display_name(type_name)} not supported")


def refuse_in_query(type_name: Node) -> Refusal | None:
    """For casts and type names in expressions. Arrays of supported types exist at run time."""
    return not_supported(type_name) if base_name(type_name) in NEVER else None


def refuse_result(type_name: Node) -> Refusal | None:
    """For what a function returns. Its arguments may be of any type."""
    return not_supported(type_name) if base_name(type_name) in _NO_RESULT else None


def refuse_column_type(type_name: Node) -> Refusal | None:
    """For the type of a column or of a domain. A name that isn't built in is the engine's to look up.

    A position among the results is still a location of the parse tree.
    """
    base = base_name(type_name)
    if base in _SERIAL and len(type_name["names"]) == 1:
        return Refusal("42704", f'type "{base}" does not exist', position=type_name.get("location"))
    if type_name.get("setof") or type_name.get("pct_type"):
        return None  # PostgreSQL's own error
    if type_name.get("arrayBounds") or base in NEVER or base in RUNTIME_ONLY:
        return not_supported(type_name)
    if base in ("bpchar", "varchar"):
        length = constant((type_name.get("typmods") or [None])[0])
        shown, limit = ("char", CHAR_LENGTH_MAX) if base == "bpchar" else ("varchar", VARCHAR_LENGTH_MAX)
        if length is not None and length.isdecimal() and int(length) > limit:
            return Refusal("0A000", f"Datatype limit greater than {limit} bytes not supported for {shown}")
    return None


def refuse_key_type(type_name: Node) -> Refusal | None:
    """For a column of a primary key or unique constraint."""
    if base_name(type_name) in NOT_IN_KEYS and not type_name.get("arrayBounds"):
        return Refusal("0A000", f"datatype {display_name(type_name)} is not supported in a key")
    return None
