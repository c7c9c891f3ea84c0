"""What is known of EXPLAIN on Aurora DSQL: the shapes of plans, what storage does in them, and estimates in DPU."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from dsql_server.processor.explain_formats import format_of
from dsql_server.testing import LocalCluster

Connection = psycopg.Connection[tuple[Any, ...]]
_NUMBERS = re.compile(r"  ?\((?:cost=[\d.]+ rows=\d+ width=\d+[^)]*|actual [^)]*)\)| ?\(never executed\)")

DEFINITIONS = (
    "CREATE TABLE account (customer_id uuid, balance numeric, status varchar, created_at timestamp)",
    "CREATE TABLE parts (id int PRIMARY KEY, kind int, name text)",
)


@pytest.fixture(scope="module")
def connection(dsql_cluster: LocalCluster) -> Iterator[Connection]:
    with dsql_cluster.connect(autocommit=True) as opened:
        for sql in DEFINITIONS:
            opened.execute(sql)
        for sql in (
            "CREATE INDEX ASYNC by_customer ON account (customer_id) INCLUDE (balance, status)",
            "CREATE INDEX ASYNC by_kind ON parts (kind)",
        ):
            (job,) = opened.execute(sql).fetchone() or ("",)
            opened.execute("CALL sys.wait_for_job(%s)", [job])
        opened.execute("INSERT INTO parts SELECT i, mod(i, 10), 'part ' || i FROM generate_series(1, 100) i")
        yield opened
        opened.execute("DROP TABLE account")
        opened.execute("DROP TABLE parts")


def plan(connection: Connection, sql: str, options: str = "") -> list[str]:
    return [line for (line,) in connection.execute(f"EXPLAIN {options} {sql}".encode())]


def shape(connection: Connection, sql: str, options: str = "") -> list[str]:
    """The plan without its numbers."""
    return [_NUMBERS.sub("", line) for line in plan(connection, sql, options)]


def test_a_table_without_a_key_is_scanned_in_full(connection: Connection) -> None:
    sql = "SELECT status FROM account WHERE created_at > '2025-01-01' AND status LIKE '%external%'"
    assert shape(connection, sql) == [
        "Full Scan (btree-table) on account",
        "  Filter: ((status)::text ~~ '%external%'::text)",
        "  -> Storage Scan on account",
        "      Projections: status",
        "      Filters: (created_at > '2025-01-01 00:00:00'::timestamp without time zone)",
        "      -> B-Tree Scan on account",
    ]


def test_the_primary_key_has_all_columns(connection: Connection) -> None:
    assert shape(connection, "SELECT * FROM parts") == [
        "Index Only Scan using parts_pkey on parts",
        "  -> Storage Scan on parts_pkey",
        "      Projections: id, kind, name",
        "      -> B-Tree Scan on parts_pkey",
    ]
    assert shape(connection, "SELECT name FROM parts p WHERE id = 3", "VERBOSE")[:-1] == [
        "Index Only Scan using parts_pkey on public.parts p",
        "  Output: name",
        "  Index Cond: (p.id = 3)",
        "  -> Storage Scan on parts_pkey",
        "      Projections: name",
        "      -> B-Tree Scan on parts_pkey",
        "          Index Cond: (p.id = 3)",
    ]


def test_filters_on_other_columns_are_applied_by_storage(connection: Connection) -> None:
    assert shape(connection, "SELECT id FROM parts WHERE name = 'part 7'", "ANALYZE")[:-2] == [
        "Full Scan (btree-table) on parts",
        "  -> Storage Scan on parts",
        "      Projections: id",
        "      Filters: (name = 'part 7'::text)",
        "      Rows Filtered: 99",
        "      -> B-Tree Scan on parts",
    ]


def test_what_storage_does_not_apply_is_filtered_behind_it(connection: Connection) -> None:
    """Functions and patterns are the query processor's; what it takes out has PostgreSQL's own words."""
    assert shape(connection, "SELECT id FROM parts WHERE lower(name) = 'part 7'", "ANALYZE")[:-2] == [
        "Full Scan (btree-table) on parts",
        "  Filter: (lower(name) = 'part 7'::text)",
        "  Rows Removed by Filter: 99",
        "  -> Storage Scan on parts",
        "      Projections: id, name",
        "      -> B-Tree Scan on parts",
    ]
    assert "  Filter: (name ~~ 'part%'::text)" in shape(connection, "SELECT id FROM parts WHERE name LIKE 'part%'")


def test_what_an_index_includes_is_read_from_it_alone(connection: Connection) -> None:
    sql = (
        "SELECT balance FROM account WHERE customer_id = '4b18a761-5870-4d7c-95ce-0a48eca3fceb' AND status = 'pending'"
    )
    assert shape(connection, sql) == [
        "Index Only Scan using by_customer on account",
        "  Index Cond: (customer_id = '4b18a761-5870-4d7c-95ce-0a48eca3fceb'::uuid)",
        "  -> Storage Scan on by_customer",
        "      Projections: balance",
        "      Filters: ((status)::text = 'pending'::text)",
        "      -> B-Tree Scan on by_customer",
        "          Index Cond: (customer_id = '4b18a761-5870-4d7c-95ce-0a48eca3fceb'::uuid)",
    ]


def test_what_was_read_of_an_index_is_told_once(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO account (customer_id, balance) SELECT gen_random_uuid(), i FROM generate_series(1, 9) i"
    )
    (some,) = connection.execute("SELECT min(customer_id::text) FROM account").fetchone() or ("",)
    lines = plan(connection, f"SELECT balance FROM account WHERE customer_id = '{some}'", "ANALYZE")
    assert [line.partition("(actual ")[2].partition(")")[0][-14:] for line in lines if "->" in line] == [
        "rows=1 loops=1"
    ] * 2
    connection.execute("DELETE FROM account")


def test_the_rest_of_a_row_is_looked_up(connection: Connection) -> None:
    assert shape(connection, "SELECT * FROM parts WHERE kind = 3 AND name > 'part 5' AND lower(name) <> 'x'") == [
        "Index Scan using by_kind on parts",
        "  Index Cond: (kind = 3)",
        "  Filter: (lower(name) <> 'x'::text)",
        "  -> Storage Scan on by_kind",
        "      -> B-Tree Scan on by_kind",
        "          Index Cond: (kind = 3)",
        "  -> Storage Lookup on parts",
        "      Projections: id, kind, name",
        "      Filters: (name > 'part 5'::text)",
        "      -> B-Tree Lookup on parts",
    ]


def test_count_projects_nothing(connection: Connection) -> None:
    assert shape(connection, "SELECT count(*) FROM parts", "ANALYZE")[:-2] == [
        "Aggregate",
        "  ->  Index Only Scan using parts_pkey on parts",
        "        -> Storage Scan on parts_pkey",
        "            -> B-Tree Scan on parts_pkey",
    ]


def test_a_limit_goes_down_to_storage(connection: Connection) -> None:
    assert shape(connection, "SELECT id FROM parts ORDER BY id DESC LIMIT 5") == [
        "Limit",
        "  ->  Index Only Scan Backward using parts_pkey on parts",
        "        -> Storage Scan on parts_pkey",
        "            Projections: id",
        "            Limit: 5",
        "            -> B-Tree Scan on parts_pkey",
    ]


def test_nested_loops_ask_storage_in_batches(connection: Connection) -> None:
    sql = (
        "SELECT a.balance, p.name FROM account a LEFT JOIN parts p ON p.id = a.balance::int WHERE a.created_at IS NULL"
    )
    expected = [
        "Nested Loop (Batched Join)",
        "  Join Type: Left",
        "  Recheck Cond: (id = (a.balance)::integer)",
        "  ->  Full Scan (btree-table) on account a",
        "        -> Storage Scan on account a",
        "            Projections: balance",
        "            Filters: (created_at IS NULL)",
        "            -> B-Tree Scan on account a",
        "  ->  Index Only Scan using parts_pkey on parts p",
        "        Index Cond: (id = (a.balance)::integer)",
        "        -> Storage Scan on parts_pkey",
        "            Projections: id, name",
        "            -> B-Tree Scan on parts_pkey",
        "                Index Cond: (id = (a.balance)::integer)",
    ]
    assert shape(connection, sql) == expected
    connection.execute("SET dsql.enable_batched_nestloop = off")
    assert shape(connection, sql)[0] == "Nested Loop Left Join"
    connection.execute("SET dsql.enable_batched_nestloop = on")


def test_costs_begin_with_a_trip_to_storage(connection: Connection) -> None:
    (line, *rest) = plan(connection, "SELECT * FROM parts")
    assert line == "Index Only Scan using parts_pkey on parts  (cost=112.52..117.52 rows=100 width=40)"
    assert rest[0] == "  -> Storage Scan on parts_pkey  (cost=112.52..117.52 rows=100 width=40 loops=1)"


def test_what_was_done_is_told(connection: Connection) -> None:
    lines = plan(connection, "SELECT name FROM parts WHERE kind = 3", "ANALYZE")
    assert re.search(r"on parts  \(cost=.*\) \(actual time=.* rows=10 loops=1\)$", lines[0])
    assert re.search(r"Storage Scan on by_kind  \(cost=.* loops=1\) \(actual rows=10 loops=1\)$", lines[2])
    assert re.search(r"B-Tree Lookup on parts  \(cost=.* loops=1\) \(actual rows=10 loops=1\)$", lines[7])
    assert [line.partition(":")[0] for line in lines[-2:]] == ["Planning Time", "Execution Time"]


def dpu(lines: list[str]) -> dict[str, float]:
    at = lines.index("Statement DPU Estimate:")
    found = [
        re.fullmatch(r"  (\w+): (\d+\.\d{5}) DPU(?: \(Transaction minimum: 0.\d{5}\))?", line)
        for line in lines[at + 1 :]
    ]
    assert all(found)
    return {match[1]: float(match[2]) for match in found if match is not None}


def test_analyze_verbose_ends_with_dpu(connection: Connection) -> None:
    lines = plan(connection, "SELECT * FROM parts", "ANALYZE VERBOSE")
    assert re.fullmatch(r"Query Identifier: [0-9a-z]{13}", lines[-8])
    assert [line.split(":")[0] for line in lines[-7:]] == [
        "Planning Time", "Execution Time", "Statement DPU Estimate", "  Compute", "  Read", "  Write", "  Total",
    ]  # fmt: skip
    found = dpu(lines)
    assert found["Compute"] > 0 and found["Read"] > 0.0175 and found["Write"] == 0
    assert found["Total"] == pytest.approx(sum(found.values()) - found["Total"], abs=0.00002)
    one = dpu(plan(connection, "SELECT * FROM parts WHERE id = 3", "(ANALYZE, VERBOSE)"))
    assert 0 < one["Read"] < found["Read"] / 50
    for options in ("", "VERBOSE", "ANALYZE"):
        assert not any("DPU" in line for line in plan(connection, "SELECT * FROM parts", options))


def test_writes_cost_dpu(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        lines = plan(connection, "INSERT INTO parts VALUES (201), (202), (203)", "ANALYZE VERBOSE")
        assert dpu(lines)["Write"] == 0.0375, "three rows, each with an entry of an index"
        assert "  Write: 0.01875 DPU (Transaction minimum: 0.05000)" in plan(
            connection, "UPDATE parts SET kind = 4 WHERE id = 7", "ANALYZE VERBOSE"
        )
        assert dpu(plan(connection, "UPDATE parts SET name = 'x' WHERE id = 7", "ANALYZE VERBOSE"))["Write"] == 0.00625
        assert connection.execute("SELECT kind, name FROM parts WHERE id = 7").fetchone() == (4, "x")
    assert connection.execute("SELECT kind FROM parts WHERE id = 7").fetchone() == (7,)


def test_what_a_with_query_hands_on_is_projected(connection: Connection) -> None:
    sql = "WITH x AS MATERIALIZED (SELECT id, kind FROM parts) SELECT count(*) FROM x"
    assert "Projections: id, kind" in [line.strip() for line in shape(connection, sql)]


def test_a_generic_plan_has_the_same_nodes(connection: Connection) -> None:
    lines = connection.pgconn.exec_(b"EXPLAIN (GENERIC_PLAN, COSTS OFF) SELECT name FROM parts WHERE id = $1")
    assert [(lines.get_value(row, 0) or b"").decode() for row in range(lines.ntuples)] == [
        "Index Only Scan using parts_pkey on parts",
        "  Index Cond: (id = $1)",
        "  -> Storage Scan on parts_pkey",
        "      Projections: name",
        "      -> B-Tree Scan on parts_pkey",
        "          Index Cond: (id = $1)",
    ]


def test_json_has_the_same_nodes(connection: Connection) -> None:
    ((document,),) = connection.execute(
        "EXPLAIN (ANALYZE, VERBOSE, FORMAT JSON) SELECT name FROM parts WHERE name > 'part 9'"
    )
    (top,) = document if isinstance(document, list) else json.loads(document)
    scan = top["Plan"]
    assert (scan["Node Type"], scan["Actual Rows"]) == ("Full Scan (btree-table)", 10)
    (storage,) = scan["Plans"]
    assert (storage["Node Type"], storage["Filters"], storage["Rows Filtered"]) == (
        "Storage Scan",
        "(parts.name > 'part 9'::text)",
        90,
    )
    assert storage["Plans"][0]["Node Type"] == "B-Tree Scan" and storage["Plans"][0]["Actual Rows"] == 100
    assert set(top["Statement DPU Estimate"]) == {"Compute", "Read", "Write", "Total"}


def test_costs_and_batches_in_json(connection: Connection) -> None:
    sql = "SELECT count(*) FROM account a JOIN parts p ON p.id = a.balance::int WHERE a.created_at IS NULL"
    ((document,),) = connection.execute(f"EXPLAIN (FORMAT JSON) {sql}".encode())
    aggregate = document[0]["Plan"]
    (join,) = aggregate["Plans"]
    assert (join["Node Type"], join["Recheck Cond"]) == ("Nested Loop (Batched Join)", "(id = (a.balance)::integer)")
    assert aggregate["Total Cost"] > join["Total Cost"] > 200
    first = plan(connection, sql)[0]
    assert f"cost={aggregate['Startup Cost']:.2f}..{aggregate['Total Cost']:.2f} " in first


def test_parameters_and_blocks(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("INSERT INTO parts VALUES (300, 3, 'new')")
        lines = [line for (line,) in connection.execute("EXPLAIN ANALYZE SELECT name FROM parts WHERE id = %s", [300])]
        assert lines[0].startswith("Index Only Scan using parts_pkey on parts") and "rows=1 loops=1" in lines[0]
        connection.execute("DELETE FROM parts WHERE id = 300")
    cursor = connection.cursor(binary=True)
    (line,), *_ = cursor.execute("EXPLAIN SELECT name FROM parts WHERE kind = %s", [3])
    assert line.startswith("Index Scan using by_kind on parts")


def test_plans_stay_as_they_are_in_long_sessions(connection: Connection) -> None:
    sql = "SELECT a.balance, p.name FROM account a JOIN parts p ON p.kind = a.balance::int WHERE a.created_at IS NULL"
    first = shape(connection, sql)
    for _ in range(8):  # the engine vacuums its tables in between
        connection.execute("SELECT sum(length(name)) FROM parts")
    assert shape(connection, sql) == first


def test_prepared_statements_are_explained_each_time(connection: Connection) -> None:
    sql = b"EXPLAIN ANALYZE SELECT name FROM parts WHERE id = %s"
    for number in (1, 2, 3, 4):
        lines = [line for (line,) in connection.execute(sql, [number], prepare=True)]
        assert lines[0].startswith("Index Only Scan using parts_pkey on parts")
        counted = connection.execute(
            b"EXPLAIN ANALYZE SELECT count(*) FROM parts WHERE id > %s", [number], prepare=True
        )
        assert str(next(counted)[0]).startswith("Aggregate")


def test_other_roles_explain_what_they_may_read(dsql_cluster: LocalCluster, connection: Connection) -> None:
    connection.execute("CREATE ROLE explainer WITH LOGIN")
    connection.execute("AWS IAM GRANT explainer TO 'arn:aws:iam::123456789012:role/explainer'")
    try:
        connection.execute("GRANT SELECT ON parts TO explainer")
        with dsql_cluster.connect("explainer", autocommit=True) as reader:
            for options in ("", "ANALYZE VERBOSE"):
                assert shape(reader, "SELECT * FROM parts", options)[0].startswith("Index Only Scan using parts_pkey")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                plan(reader, "SELECT * FROM account")
    finally:
        connection.execute("REVOKE SELECT ON parts FROM explainer")
        connection.execute("AWS IAM REVOKE explainer FROM 'arn:aws:iam::123456789012:role/explainer'")
        connection.execute("DROP ROLE explainer")


def test_all_formats_tell_the_same_plan(connection: Connection) -> None:
    sql = "SELECT p.id FROM parts p JOIN parts q ON q.id = p.id WHERE p.id < 5 ORDER BY 1"
    documents = []
    for name in ("JSON", "YAML", "XML"):
        (text,) = plan(connection, sql, f"(VERBOSE, SETTINGS, FORMAT {name})")
        format_ = format_of(text if isinstance(text, str) else json.dumps(text))
        assert format_ is not None
        documents.append(format_.read(text if isinstance(text, str) else json.dumps(text)))
    shown = [[re.sub("[^a-z]", "", str(d).lower()) for d in document] for document in documents]
    assert shown[0] == shown[1] == shown[2]
    assert "storagescan" in shown[0][0]
    assert "randompagecost" not in shown[0][0], "the engine's own settings"


def test_what_is_no_scan_of_a_table_stays_postgresqls(connection: Connection) -> None:
    assert plan(connection, "SELECT 1") == ["Result  (cost=0.00..0.01 rows=1 width=4)"]
    assert plan(connection, "VALUES (1), (2)") == ['Values Scan on "*VALUES*"  (cost=0.00..0.03 rows=2 width=4)']
    assert not any("Storage" in line for line in plan(connection, "SELECT * FROM pg_class WHERE relname = 'x'"))
    with pytest.raises(psycopg.errors.UndefinedTable):
        plan(connection, "SELECT * FROM nowhere")
