"""Types of Aurora DSQL: which are stored, which may stand in a key, which exist only while a query runs."""

from __future__ import annotations

from facts import Fact, Witness, fact, parametrized, refusals, refused, rows, says

#: A type with a value of it that can be told from a default.
STORED = (
    ("smallint", "-7", "-7"),
    ("integer", "-70000", "-70000"),
    ("bigint", "9223372036854775807", "9223372036854775807"),
    ("real", "1.5", "1.5"),
    ("double precision", "1e300", "1e+300"),
    ("numeric(1000, 500)", "0.5", "0.5" + "0" * 499),
    ("decimal(10, 2)", "1.005", "1.01"),
    ("char(4096)", "'x'", "x"),
    ("varchar(65535)", "'x'", "x"),
    ("text", "'x'", "x"),
    ("date", "'2026-02-28'", "2026-02-28"),
    ("time", "'23:59:59.999999'", "23:59:59.999999"),
    ("timestamp", "'2026-02-28 12:00'", "2026-02-28 12:00:00"),
    ("timestamptz", "'2026-02-28 12:00+02'", "2026-02-28 10:00:00+00"),
    ("boolean", "true", "true"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
)
#: Declared longer than a key may be.
_SHORTER = {"char(4096)": "char(9)", "varchar(65535)": "varchar(9)"}
STORED_NOT_IN_KEYS = (
    ("timetz", "'12:00+02'", "12:00:00+02", "time with time zone"),
    ("interval", "'1 day 2 hours'", "1 day 02:00:00", "interval"),
    ("bytea", "'\\x00ff'", "\\x00ff", "bytea"),
    ("json", '\'{"b": 1, "a": 2}\'', '{"b": 1, "a": 2}', "json"),
    ("jsonb", '\'{"b": 1, "a": 2}\'', '{"a": 2, "b": 1}', "jsonb"),
)
NEVER_STORED = (
    *("money", "xml", "point", "line", "lseg", "box", "path", "polygon", "circle", "tsvector", "tsquery", "pg_lsn"),
    *("int4range", "numrange", "tstzrange", "int8multirange", "inet", "cidr", "macaddr", "oid", "regclass"),
)

STORABLE = [
    fact(
        f"stored-{name.split('(')[0].replace(' ', '-')}",
        f"{name} is stored, and stands in a primary key",
        says(
            f"CREATE TABLE t (v {name.replace('4096', '9').replace('65535', '9')} PRIMARY KEY, w {name})",
            "CREATE TABLE",
        ),
        says(f"INSERT INTO t VALUES ({value}, {value})", "INSERT 0 1"),
        says(f"SELECT rtrim(v::text), rtrim(w::text) FROM t WHERE v = {value}::{name}", rows((shown, shown))),
    )
    for name, value, shown in STORED
] + [
    fact(
        f"stored-{name}",
        f"{name} is stored, but never in a key",
        says(f"CREATE TABLE t (id int PRIMARY KEY, v {name})", "CREATE TABLE"),
        says(f"INSERT INTO t VALUES (1, {value})", "INSERT 0 1"),
        says("SELECT v FROM t", rows(shown)),
        says(f"CREATE TABLE k (v {name} PRIMARY KEY)", refused(f"datatype {message} is not supported in a key")),
        says(f"CREATE TABLE k (v {name} UNIQUE)", refused(f"datatype {message} is not supported in a key")),
        says("CREATE INDEX ASYNC ON t (v)", refused(f"datatype {message} is not supported in a key")),
    )
    for name, value, shown, message in STORED_NOT_IN_KEYS
]

REFUSED_TYPES = [
    *refusals(
        "never",
        "the type is no column's",
        *((f"CREATE TABLE t (v {name})", f"datatype {name} not supported") for name in NEVER_STORED),
        ("CREATE TABLE t (v bit(8))", "datatype bit not supported"),
        ("CREATE TABLE t (v varbit)", "datatype bit varying not supported"),
        ("ALTER TABLE nosuch ADD COLUMN v money", "datatype money not supported"),
        ("CREATE DOMAIN d AS money", "datatype money not supported"),
        ("SELECT '1'::money", "datatype money not supported"),
        ("SELECT line('{1,2,3}')", "datatype line not supported"),
        *(
            (f"CREATE FUNCTION f() RETURNS {name} LANGUAGE sql AS 'SELECT NULL'", f"datatype {name} not supported")
            for name in ("money", "xml", "point", "circle", "cidr", "macaddr", "jsonpath", "numrange", "int8multirange")
        ),
    ),
    *refusals(
        "array",
        "arrays exist at run time only",
        ("CREATE TABLE t (v int[])", "datatype integer[] not supported"),
        ("CREATE TABLE t (v text[])", "datatype text[] not supported"),
        ("CREATE TABLE t (v varchar(5)[])", "datatype character varying[] not supported"),
        ("CREATE TABLE t (v int ARRAY)", "datatype integer[] not supported"),
    ),
    *refusals(
        "length",
        "lengths and precisions have a limit",
        ("CREATE TABLE t (v char(4097))", "Datatype limit greater than 4096 bytes not supported for char"),
        ("CREATE TABLE t (v bpchar(4097))", "Datatype limit greater than 4096 bytes not supported for char"),
        ("CREATE TABLE t (v varchar(65536))", "Datatype limit greater than 65535 bytes not supported for varchar"),
        ("CREATE TABLE t (v numeric(1001))", "NUMERIC precision 1001 must be between 1 and 1000", "22023"),
        ("CREATE TABLE t (v numeric(0))", "NUMERIC precision 0 must be between 1 and 1000", "22023"),
        ("CREATE TABLE t (v numeric(5, -1001))", "NUMERIC scale -1001 must be between -1000 and 1000", "22023"),
        ("CREATE TABLE t (v numeric(5, 1001))", "NUMERIC scale 1001 must be between -1000 and 1000", "22023"),
    ),
]

RULES = [
    fact(
        "numeric-default",
        "numeric without precision is numeric(18,6)",
        says("CREATE TABLE t (v numeric, w decimal)", "CREATE TABLE"),
        says("INSERT INTO t VALUES (1.23456789, 1)", "INSERT 0 1"),
        says("SELECT v, w FROM t", rows(("1.234568", "1.000000"))),
        says(
            "INSERT INTO t (v) VALUES (1000000000000)",
            refused(
                "numeric field overflow",
                "22003",
                "A field with precision 18, scale 6 must round to an absolute value less than 10^12.",
            ),
        ),
        says("ALTER TABLE t ADD COLUMN x numeric", "ALTER TABLE"),
        says("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'x'", rows("numeric(18,6)")),
    ),
    fact(
        "numeric-bounds",
        "numeric has a precision up to 1000 and a scale from -1000 to 1000",
        says("CREATE TABLE t (v numeric(1000, 1000), w numeric(1000, -1000), x numeric(1000))", "CREATE TABLE"),
        says(
            "INSERT INTO t VALUES (('0.' || repeat('9', 1000))::numeric, '7e1000', repeat('9', 1000)::numeric)",
            "INSERT 0 1",
        ),
        says(
            "SELECT v::text = '0.' || repeat('9', 1000), w = 7 * 10::numeric ^ 1000, length(x::text) FROM t",
            rows(("t", "t", "1000")),
        ),
    ),
    fact(
        "numeric-key",
        "numeric stands in indexes: equal values are one key however they are written",
        says("CREATE TABLE t (v numeric(20, 5) PRIMARY KEY)", "CREATE TABLE"),
        says("INSERT INTO t VALUES (1.5), (-2), (100)", "INSERT 0 3"),
        says(
            "INSERT INTO t VALUES (1.50000)",
            refused('duplicate key value violates unique constraint "t_pkey"', "23505"),
        ),
        says("SELECT v FROM t ORDER BY v", rows("-2.00000", "1.50000", "100.00000")),
    ),
    fact(
        "row-types",
        "a table's or view's row type is no column's type, neither by itself nor under a domain; queries have it",
        says("CREATE TABLE pairs (a int, b int)", "CREATE TABLE"),
        says("CREATE VIEW seen AS SELECT 1 AS a", "CREATE VIEW"),
        says("CREATE DOMAIN pair AS pairs", "CREATE DOMAIN"),
        says("CREATE TABLE t (v pairs)", refused("datatype pairs not supported")),
        says("CREATE TABLE t (id int PRIMARY KEY, v seen)", refused("datatype seen not supported")),
        says("CREATE TABLE t (v pair)", refused("datatype pairs not supported")),
        says("CREATE TABLE t (v pairs[])", refused("datatype pairs[] not supported")),
        says("CREATE TABLE t (id int)", "CREATE TABLE"),
        says("ALTER TABLE t ADD COLUMN v pairs", refused("datatype pairs not supported")),
        says("INSERT INTO pairs VALUES (1, 2)", "INSERT 0 1"),
        says("SELECT p, (p).b, ROW(3, 4)::pairs FROM pairs p", rows(("(1,2)", "2", "(3,4)"))),
    ),
    fact(
        "domain-key",
        "a domain stands in a key where its type does",
        says("CREATE DOMAIN document AS jsonb", "CREATE DOMAIN"),
        says("CREATE DOMAIN code AS text CHECK (VALUE <> '')", "CREATE DOMAIN"),
        says("CREATE TABLE k (v document PRIMARY KEY)", refused("datatype jsonb is not supported in a key")),
        says("CREATE TABLE k (v code PRIMARY KEY)", "CREATE TABLE"),
    ),
    fact(
        "runtime-types",
        "arrays and inet exist while a query runs",
        says("SELECT string_to_array('1,2,3', ','), ARRAY[1, 2] || 3", rows(("{1,2,3}", "{1,2,3}"))),
        says(
            "SELECT '127.0.0.1'::inet, '10.1.2.3/8'::cidr >> '10.1.1.1'",
            refused('invalid cidr value: "10.1.2.3/8"', "22P02"),
        ),
        says("SELECT '127.0.0.1'::inet", rows("127.0.0.1")),
        says("SELECT array_agg(g) FROM generate_series(1, 3) g", rows("{1,2,3}")),
    ),
    fact(
        "ranges",
        "ranges exist in expressions and arguments, but are no function's result",
        says("SELECT int4range(1, 5) @> 3, '[1,5)'::int8range", rows(("t", "[1,5)"))),
        says("CREATE FUNCTION low(r int4range) RETURNS int LANGUAGE sql AS 'SELECT lower(r)'", "CREATE FUNCTION"),
        says("SELECT low('[7,9)')", rows("7")),
        says(
            "CREATE FUNCTION r() RETURNS int4range LANGUAGE sql AS 'SELECT int4range(1, 2)'",
            refused("datatype int4range not supported"),
        ),
        says("DROP FUNCTION low", "DROP FUNCTION"),
    ),
    fact(
        "function-types",
        "a function's arguments may be of any type, its result also an array or of a type for text search",
        *(
            says(f"CREATE FUNCTION a(v {name}) RETURNS int LANGUAGE sql AS 'SELECT {n}'", "CREATE FUNCTION")
            for n, name in enumerate(("money", "point", "bit", "int4range", "text[]"))
        ),
        *(
            says(f"CREATE FUNCTION r{n}() RETURNS {name} LANGUAGE sql AS 'SELECT NULL::{cast}'", "CREATE FUNCTION")
            for n, (name, cast) in enumerate((("int[]", "int[]"), ("inet", "inet"), ("regclass", "regclass")))
        ),
        says(
            "CREATE FUNCTION words(t text) RETURNS tsvector LANGUAGE sql AS $$SELECT to_tsvector('simple', t)$$",
            "CREATE FUNCTION",
        ),
        says("SELECT words('a b') @@ to_tsquery('simple', 'b')", rows("t")),
    ),
    fact(
        "aliases",
        "the short names of types are taken",
        says(
            "CREATE TABLE t (a int2, b int4, c int8, d float4, e float8, f bool, g dec, h timetz, i character varying)",
            "CREATE TABLE",
        ),
    ),
    fact(
        "collation",
        "only the C collation: text is ordered by bytes, in UTF8",
        says("SELECT v FROM (VALUES ('a'), ('B'), ('ä'), ('z')) x (v) ORDER BY v", rows("B", "a", "z", "ä")),
        says("SELECT 'a' COLLATE \"C\" < 'B'", rows("f")),
        says(
            "SELECT 'a' COLLATE \"de_DE\"",
            refused('collation "de_DE" for encoding "UTF8" does not exist', "42704"),
        ),
        says("SHOW server_encoding", rows("UTF8")),
        says("SELECT datname, datcollate FROM pg_database", rows(("postgres", "C"))),
    ),
    fact(
        "timezone",
        "the time zone is UTC, and can be set",
        says("SELECT '2026-07-01 12:00+00'::timestamptz::text", rows("2026-07-01 12:00:00+00")),
        says("SET timezone = 'Europe/Berlin'", "SET"),
        says("SELECT '2026-07-01 12:00+00'::timestamptz::text", rows("2026-07-01 14:00:00+02")),
    ),
    fact(
        "compressed-values",
        "text and JSON up to 1 MiB come back as they went in",
        says("CREATE TABLE t (id int PRIMARY KEY, v text, j jsonb)", "CREATE TABLE"),
        says("INSERT INTO t VALUES (1, repeat('ä', 524288), to_jsonb(repeat('x', 1000000)))", "INSERT 0 1"),
        says(
            "SELECT octet_length(v), length(j #>> '{}'), v = repeat('ä', 524288) FROM t",
            rows(("1048576", "1000000", "t")),
        ),
    ),
]


@parametrized(STORABLE)
def test_stored(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact)


@parametrized(REFUSED_TYPES)
def test_refused(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact)


@parametrized(RULES)
def test_rules(fact: Fact, witness: Witness) -> None:
    witness.confirm(fact)
