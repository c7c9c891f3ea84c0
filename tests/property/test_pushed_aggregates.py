"""Aggregates that storage computes are PostgreSQL's: values, types, names, NULLs and errors."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import psycopg
import pytest
from two_servers import Parameter, Step, TwoServers

from dsql_server.testing import LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
QUERIES = 4000 if FULL else 500
ROWS = 300
#: Different queries of which storage must have answered at least so many.
PUSHED_MIN = 150
ROLE_ARN = "arn:aws:iam::123456789012:role/counting"

DEFINITION = (
    "CREATE TABLE measured (id int PRIMARY KEY, small smallint, number int, big bigint, amount numeric(12,4), "
    "free numeric(60,20), ratio float8, name text, code varchar(8), padded char(5), day date, at timestamptz, "
    "clock time, flag boolean, tag uuid, note jsonb)"
)
FILL = f"""
INSERT INTO measured SELECT i, nullif(i % 7, 3) - 3, nullif(i % 50, 9) * 1000, nullif(i % 11, 0) * 900000000000000000,
  nullif(i % 13, 1) * 1.2345, nullif(i % 17, 2) * 12345678901234567890.123456789, i / 3.0::float8,
  nullif('n' || i % 20, 'n4'), nullif('c' || i % 5, 'c1'), nullif('p' || i % 3, 'p0'), date '2024-01-31' + i % 40,
  timestamptz '2024-01-31 12:00Z' + i % 30 * interval '1 hour', time '08:00' + i % 24 * interval '1 minute',
  nullif(i % 3, 2) = 1, ('00000000-0000-0000-0000-0000000000' || 10 + i % 10)::uuid, jsonb_build_object('i', i)
FROM generate_series(1, {ROWS}) i
"""
NUMBERS = ("small", "number", "big", "amount", "free")
COLUMNS = (*NUMBERS, "id", "name", "code", "padded", "day", "at", "clock", "flag", "tag", "note", "ratio")
EXTREMES = (*NUMBERS, "id", "name", "code", "padded", "day", "at", "clock", "ratio")
CONDITIONS = (
    "id < {n}", "id BETWEEN {n} AND {m}", "number > {n}", "number IN ({n}, 1000, 2000)", "small <> {s}",
    "small IS NULL",
    "name = 'n{s}'", "name IN ('n1', 'n2')", "name > 'n1'", "code = 'c{s}'", "padded = 'p1'", "flag", "NOT flag",
    "flag IS NOT NULL", "amount < {s}", "amount >= 1.2345", "day > '2024-02-10'", "at <= '2024-02-01 00:00Z'",
    "tag = '00000000-0000-0000-0000-000000000011'", "ratio < {n}", "name LIKE 'n1%'", "number + small > {n}", "1 = 2",
    "id = {n}", "clock < '08:10'",
)  # fmt: skip


@pytest.fixture
def servers(
    dsql_cluster: LocalCluster, dsql_url: str, reference: psycopg.Connection[tuple[object, ...]]
) -> Iterator[TwoServers]:
    found = TwoServers(dsql_cluster, reference)
    found.define(DEFINITION)
    found.run([Step(FILL)])
    yield found
    found.reset()
    found.define("DROP TABLE measured")
    found.close()


class Queries:
    """Random queries of one table's aggregates."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._number = 0

    def step(self) -> Step:
        rng = self._rng
        self._number += 1
        targets = [self._target() for _ in range(rng.randint(1, 4))]
        if rng.random() < 0.2:
            targets[0] += " AS named"
        alias = rng.choice(("", "", " AS m", " m"))
        sql = f"SELECT {', '.join(targets)} FROM {rng.choice(('measured', 'measured', 'public.measured'))}{alias}"
        conditions = [self._condition() for _ in range(rng.choice((0, 0, 1, 1, 2)))]
        if conditions:
            sql += " WHERE " + " AND ".join(conditions)
        if rng.random() < 0.15:
            sql += f" HAVING count(*) > {rng.randint(0, 40)}"
        if rng.random() < 0.1:
            sql += rng.choice((" ORDER BY 1", " LIMIT 1", " LIMIT 0", " OFFSET 1", " ORDER BY count(*) LIMIT 3"))
        binary = rng.random() < 0.5
        how = rng.random()
        if how < 0.4:
            return Step(sql)
        if how < 0.7:
            return Step(sql, (), binary)
        joined = " AND " if conditions else " WHERE "
        if "HAVING" in sql or "ORDER" in sql or "LIMIT" in sql or "OFFSET" in sql:
            return Step(sql, (), binary)
        number = Parameter(str(rng.randint(0, 300)).encode() if rng.random() < 0.9 else None)
        return Step(f"{sql}{joined}id > $1", (number,), binary, rng.choice((None, f"q{self._number}")))

    def _condition(self) -> str:
        rng = self._rng
        low = rng.randint(0, 300)
        return rng.choice(CONDITIONS).format(n=low, m=low + rng.randint(0, 200), s=rng.randint(-3, 9))

    def _aggregate(self) -> str:
        rng = self._rng
        kind = rng.random()
        if kind < 0.25:
            return "count(*)" if rng.random() < 0.8 else "count(1)"
        if kind < 0.45:
            return f"count({rng.choice(COLUMNS)})"
        if kind < 0.7:
            return f"{rng.choice(('sum', 'avg'))}({rng.choice(NUMBERS)})"
        return f"{rng.choice(('min', 'max'))}({rng.choice(EXTREMES)})"

    def _target(self) -> str:
        rng = self._rng
        found = self._aggregate()
        if rng.random() < 0.25:
            conditions = [self._condition() for _ in range(rng.choice((1, 1, 2)))]
            found += f" FILTER (WHERE {' AND '.join(conditions)})"
        kind = rng.random()
        if kind < 0.7:
            return found
        if kind < 0.75:
            return f"CASE WHEN {found} IS NULL THEN -1 ELSE count(*) FILTER (WHERE {self._condition()}) END"
        around = (
            "count(*) + {n}", "coalesce(sum(number), {n})", "round(avg(amount), 2)", "sum(small)::text",
            "CASE WHEN count(*) > {n} THEN 'many' ELSE 'few' END", "pg_catalog.count(*)",
            "count(*) FILTER (WHERE flag)",
            "count(DISTINCT small)", "sum(number + small)", "max(number) - min(number)", "now() IS NOT NULL", "{n}",
            "-sum(big)", "sum(big) / nullif(count(big), 0)", "bool_or(flag)", "length(max(name))", "count(*) > {n}",
        )  # fmt: skip
        return rng.choice(around).format(n=rng.randint(0, 100))


def pushed(cluster: LocalCluster) -> int:
    found: int = cluster.metrics()["planner"]["aggregates_pushed"]
    return found


def test_random_aggregates(servers: TwoServers, dsql_cluster: LocalCluster) -> None:
    before = pushed(dsql_cluster)
    queries = Queries(1)
    for _ in range(QUERIES):
        servers.run([queries.step()])
    assert pushed(dsql_cluster) - before > PUSHED_MIN


@pytest.mark.parametrize(
    ("query", "is_pushed"),
    [
        ("SELECT count(*) FILTER (WHERE number > 3000), count(*) FILTER (WHERE number <= 3000) FROM measured", True),
        ("SELECT sum(big) FILTER (WHERE name = 'n3') - sum(big) FILTER (WHERE flag) AS least FROM measured", True),
        ("SELECT count(*) FILTER (WHERE m.id < 9), avg(big) FILTER (WHERE day > '2024-02-10') FROM measured m", True),
        ("SELECT count(*) FROM measured HAVING count(*) FILTER (WHERE small = 1) > 3", True),
        ("SELECT count(*) FILTER (WHERE id > 5 AND NOT flag) FROM measured WHERE id < 100", True),
        ("SELECT max(code) FILTER (WHERE code = 'c2'), min(id) FILTER (WHERE tag IS NULL) FROM measured", True),
        ("SELECT count(*) FILTER (WHERE number > small) FROM measured", False),
        ("SELECT count(*) FILTER (WHERE name LIKE 'n1%') FROM measured", False),
        ("SELECT count(*) FILTER (WHERE id > 5 OR flag) FROM measured", False),
        ("SELECT count(*) FILTER (WHERE id = (SELECT 7)) FROM measured", False),
        ("SELECT count(DISTINCT small) FILTER (WHERE flag) FROM measured", False),
        ("SELECT count(*) FILTER (WHERE nothing) FROM measured", False),
        ("SELECT count(*) FILTER (WHERE 1 / (id - 7) > 0) FROM measured", False),
    ],
)  # fmt: skip
def test_filters(servers: TwoServers, dsql_cluster: LocalCluster, query: str, is_pushed: bool) -> None:
    before = pushed(dsql_cluster)
    servers.run([Step(query), Step(query, (), binary_results=True)])
    assert (pushed(dsql_cluster) > before) is is_pushed


@pytest.mark.parametrize("value", [b"100", b"-1", None])
def test_filters_with_parameters(servers: TwoServers, dsql_cluster: LocalCluster, value: bytes | None) -> None:
    before = pushed(dsql_cluster)
    query = "SELECT count(*) FILTER (WHERE id > $1), sum(number) FILTER (WHERE id <= $1), count(*) FROM measured"
    servers.run([Step(query, (Parameter(value),), False, name) for name in (None, "filtered", "filtered")])
    assert pushed(dsql_cluster) > before


def test_a_transaction_sees_its_own_rows(servers: TwoServers) -> None:
    query = Step("SELECT count(*), sum(number), avg(amount) FROM measured WHERE id > 100")
    servers.run(
        [
            Step("BEGIN"),
            query,
            Step("DELETE FROM measured WHERE id > 290"),
            query,
            Step("SELECT count(*) FROM measured", ()),
            Step("INSERT INTO measured (id, number) VALUES (1000, 5)"),
            query,
            Step("ROLLBACK"),
            query,
        ]
    )


def test_sums_out_of_range_are_refused(servers: TwoServers) -> None:
    servers.define("CREATE TABLE huge (id int PRIMARY KEY, b bigint)")
    fill = Step("INSERT INTO huge SELECT i, 9223372036854775807 FROM generate_series(1, 3) i")
    servers.run([fill, Step("SELECT sum(b), avg(b), max(b) FROM huge"), Step("SELECT sum(b)::bigint FROM huge")])
    servers.define("DROP TABLE huge")


def test_names_that_users_took(servers: TwoServers) -> None:
    """Views of the table's name and functions called like aggregates don't mislead."""
    servers.define("CREATE SCHEMA other")
    servers.define("CREATE VIEW other.measured AS SELECT id AS number, number AS id FROM public.measured WHERE id > 7")
    servers.define("CREATE FUNCTION other.count(text) RETURNS bigint LANGUAGE SQL IMMUTABLE AS 'SELECT 7::bigint'")
    servers.run(
        [
            Step("SELECT sum(id), sum(number), count(*) FROM other.measured"),
            Step("SELECT sum(measured.id), count(number) FROM other.measured"),
            Step("SELECT other.count('x') FROM measured WHERE id < 3"),
            Step("SELECT count(name) FROM measured"),
            Step("SELECT sum(number) FROM measured AS m(number, small, id)"),
        ]
    )
    servers.define("DROP FUNCTION other.count(text)")
    servers.define("DROP VIEW other.measured")
    servers.define("DROP SCHEMA other")


def test_who_may_not_read_may_not_count(dsql_cluster: LocalCluster, servers: TwoServers) -> None:
    before = pushed(dsql_cluster)
    with dsql_cluster.connect(autocommit=True) as admin:
        admin.execute("CREATE ROLE counting_reader WITH LOGIN")
        admin.execute(f"AWS IAM GRANT counting_reader TO '{ROLE_ARN}'")
        try:
            admin.execute("GRANT SELECT (id, number) ON measured TO counting_reader")
            with dsql_cluster.connect("counting_reader", autocommit=True) as reader:
                assert reader.execute("SELECT sum(number) FROM measured WHERE id < 3").fetchone() == (3000,)
                for query in (
                    "sum(small) FROM measured",
                    "count(*) FROM measured WHERE small = 1",
                    "count(*) FILTER (WHERE small = 1) FROM measured",
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        reader.execute(f"SELECT {query}")
        finally:
            admin.execute("REVOKE SELECT (id, number) ON measured FROM counting_reader")
            admin.execute(f"AWS IAM REVOKE counting_reader FROM '{ROLE_ARN}'")
            admin.execute("DROP ROLE counting_reader")
    assert pushed(dsql_cluster) == before + 4, "storage would have answered them"
