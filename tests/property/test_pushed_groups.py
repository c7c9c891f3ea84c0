"""Groups that storage gathers are PostgreSQL's: GROUP BY, SELECT DISTINCT and aggregates of distinct values."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import psycopg
import pytest
from two_servers import Parameter, Step, TwoServers

from dsql_server.processor.pushed_aggregates import GROUPED_ROWS_MIN
from dsql_server.testing import LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
QUERIES = 4000 if FULL else 300
ROWS = 2 * GROUPED_ROWS_MIN
#: Different queries of which storage must have answered at least so many.
PUSHED_MIN = 150

DEFINITION = (
    "CREATE TABLE grouped (id int PRIMARY KEY, small smallint, number int, big bigint, amount numeric(12,4), "
    "free numeric(60,20), ratio float8, name text, code varchar(8), padded char(5), day date, at timestamptz, "
    "clock time, flag boolean, tag uuid)"
)
FILL = f"""
INSERT INTO grouped SELECT i, nullif(i % 7, 3) - 3, nullif(i % 50, 9) * 1000, nullif(i % 11, 0) * 900000000000000000,
  nullif(i % 13, 1) * 1.2345, nullif(i % 17, 2) * 12345678901234567890.123456789, i % 4 / 3.0::float8,
  nullif('n' || i % 20, 'n4'), nullif('c' || i % 5, 'c1'), nullif('p' || i % 3, 'p0'), date '2024-01-31' + i % 40,
  timestamptz '2024-01-31 12:00Z' + i % 30 * interval '1 hour', time '08:00' + i % 24 * interval '1 minute',
  nullif(i % 3, 2) = 1, ('00000000-0000-0000-0000-0000000000' || 10 + i % 10)::uuid
FROM generate_series(1, {ROWS}) i
"""
NUMBERS = ("small", "number", "big", "amount", "free", "id")
KEYS = ("small", "number", "big", "name", "code", "day", "at", "clock", "flag", "tag", "id")
#: Equal values of these may look different: they stay the engine's.
OTHER_KEYS = ("amount", "padded", "ratio")
EXTREMES = ("small", "number", "amount", "free", "id", "name", "code", "day", "at", "clock")
CONDITIONS = (
    "id < {n}", "id > {s}", "number > {n}", "number IN ({n}, 1000, 2000)", "small <> {s}", "small IS NULL",
    "name > 'n1'", "code = 'c{s}'", "flag", "flag IS NOT NULL", "amount >= 1.2345", "1 = 2", "name LIKE 'n1%'",
    "day > '2024-02-10'", "at <= '2024-02-01 00:00Z'", "number + small > {n}",
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
    found.define("DROP TABLE grouped")
    found.close()


class Queries:
    """Random queries of groups of one table's rows."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._number = 0

    def step(self) -> Step:
        rng = self._rng
        self._number += 1
        kind = rng.random()
        if kind < 0.15:
            head, tail = self._distinct_rows()
        elif kind < 0.3:
            head, tail = self._distinct_values()
        else:
            head, tail = self._groups()
        conditions = [self._condition() for _ in range(rng.choice((0, 0, 1, 2)))]
        parameters: tuple[Parameter, ...] | None = None if rng.random() < 0.5 else ()
        name = None
        if parameters is not None and rng.random() < 0.4:
            conditions.append("id > $1")
            parameters = (Parameter(str(rng.randint(-5, 300)).encode() if rng.random() < 0.9 else None),)
            name = rng.choice((None, f"q{self._number}"))
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = f"SELECT {head} FROM {rng.choice(('grouped', 'public.grouped', 'grouped AS g'))}{where}{tail}"
        return Step(sql, parameters, parameters is not None and rng.random() < 0.5, name)

    def _keys(self) -> list[str]:
        rng = self._rng
        keys = rng.sample(KEYS, rng.choice((1, 1, 1, 2, 2, 3)))
        if rng.random() < 0.06:
            keys[0] = rng.choice(OTHER_KEYS)
        return keys

    def _distinct_rows(self) -> tuple[str, str]:
        keys = self._keys()
        return "DISTINCT " + ", ".join(keys), self._rng.choice(("", f" ORDER BY {keys[0]}", " ORDER BY 1 DESC"))

    def _distinct_values(self) -> tuple[str, str]:
        rng = self._rng
        key = rng.choice((*KEYS, *OTHER_KEYS))
        calls = [f"count(DISTINCT {key})"]
        if key in NUMBERS:
            calls += rng.sample((f"sum(DISTINCT {key})", f"avg(DISTINCT {key}) AS mean", f"max(DISTINCT {key})"), 2)
        if rng.random() < 0.2:
            calls.append(rng.choice(("count(*)", "count(DISTINCT small)")))
        return ", ".join(calls), rng.choice(("", "", f" HAVING count(DISTINCT {key}) > 3"))

    def _groups(self) -> tuple[str, str]:
        rng = self._rng
        keys = self._keys()
        shown = list(keys)
        if rng.random() < 0.2:
            shown.pop()
        if rng.random() < 0.2:
            shown.append(f"coalesce({keys[0]}::text, '-') AS text_of")
        shown += [self._aggregate() for _ in range(rng.randint(0 if shown else 1, 4))]
        by = list(keys)
        if rng.random() < 0.15 and shown[0] == keys[0]:
            by[0] = "1"
        elif rng.random() < 0.15 and shown[0] == keys[0]:
            shown[0] += " AS renamed"
            by[0] = "renamed"
        tail = f" GROUP BY {', '.join(by)}"
        if rng.random() < 0.2:
            tail += rng.choice(
                (" HAVING count(*) > 50", f" HAVING {keys[0]} IS NOT NULL", " HAVING sum(number) > 9000")
            )
        order = rng.random()
        if order < 0.15:
            tail += f" ORDER BY {keys[0]}"
        elif order < 0.3:
            tail += " ORDER BY count(*) DESC, 1"
        elif order < 0.4:
            # All keys tell one group from another, so it is certain which come first.
            tail += f" ORDER BY {', '.join(keys)} LIMIT {rng.randint(0, 5)} OFFSET {rng.randint(0, 2)}"
        rng.shuffle(shown) if by == keys and " 1" not in tail else None
        return ", ".join(shown), tail

    def _condition(self) -> str:
        return self._rng.choice(CONDITIONS).format(n=self._rng.randint(0, ROWS), s=self._rng.randint(-3, 9))

    def _aggregate(self) -> str:
        rng = self._rng
        calls = (
            "count(*)", f"count({rng.choice(KEYS)})", f"{rng.choice(('sum', 'avg'))}({rng.choice(NUMBERS)})",
            f"{rng.choice(('min', 'max'))}({rng.choice(EXTREMES)})", "count(*) * 2 AS twice",
            "round(avg(amount), 2) AS mean", "max(number) - min(number) AS spread",
            "CASE WHEN count(*) > 100 THEN 'many' END AS size", "count(*) FILTER (WHERE flag)", "bool_or(flag)",
            f"count(*) FILTER (WHERE {self._condition()})",
            f"sum({rng.choice(NUMBERS)}) FILTER (WHERE {self._condition()} AND {self._condition()})",
            f"max({rng.choice(EXTREMES)}) FILTER (WHERE {self._condition()})",
        )  # fmt: skip
        return rng.choice(calls)


def pushed(cluster: LocalCluster) -> int:
    found: int = cluster.metrics()["planner"]["aggregates_pushed"]
    return found


def test_random_groups(servers: TwoServers, dsql_cluster: LocalCluster) -> None:
    before = pushed(dsql_cluster)
    queries = Queries(1)
    for _ in range(QUERIES):
        servers.run([queries.step()])
    assert pushed(dsql_cluster) - before > PUSHED_MIN


@pytest.mark.parametrize(
    "query",
    [
        "SELECT number AS small, count(*) FROM grouped GROUP BY number ORDER BY small",
        "SELECT small AS number, number AS small, count(*) FROM grouped GROUP BY grouped.small, grouped.number",
        "SELECT small AS number, sum(big) AS small FROM grouped GROUP BY small ORDER BY number",
        "SELECT g.name FROM grouped AS g GROUP BY g.name ORDER BY g.name DESC NULLS LAST",
        "SELECT name, name || 'x' FROM grouped GROUP BY name ORDER BY name || 'y'",
        "SELECT code, max(code), min(name) FROM grouped GROUP BY code",
        "SELECT id, name FROM grouped GROUP BY id",
        "SELECT count(*) FROM grouped GROUP BY ()",
        "SELECT small, flag, count(*) FROM grouped GROUP BY ROLLUP (small, flag)",
        "SELECT DISTINCT ON (small) small FROM grouped",
        "SELECT DISTINCT small, count(*) FROM grouped GROUP BY small, flag",
        "SELECT count(DISTINCT (small, flag)) FROM grouped",
        "SELECT count(DISTINCT name), count(DISTINCT name) + 1 AS more FROM grouped WHERE id < 1500",
        "SELECT small, count(DISTINCT number) FROM grouped GROUP BY small",
        "SELECT * FROM (SELECT small, count(*) FROM grouped GROUP BY small) AS x WHERE x.count > 100",
        "SELECT nothing, count(*) FROM grouped GROUP BY nothing",
        "SELECT name, count(*) FROM grouped GROUP BY small",
        "SELECT grouped.*, count(*) FROM grouped GROUP BY id LIMIT 0",
        "SELECT small, sum(big) FROM grouped GROUP BY small, 9",
        "SELECT small, avg(free), avg(amount), sum(free) FROM grouped WHERE false GROUP BY small",
    ],
)
def test_names_and_forms(servers: TwoServers, query: str) -> None:
    servers.run([Step(query), Step(query, ())])


def test_a_transaction_groups_its_own_rows(servers: TwoServers) -> None:
    query = Step("SELECT flag, count(*), sum(number) FROM grouped GROUP BY flag")
    servers.run(
        [
            Step("BEGIN"),
            query,
            Step("DELETE FROM grouped WHERE id > 290"),
            query,
            Step("SELECT DISTINCT flag FROM grouped", ()),
            Step("ROLLBACK"),
            query,
        ]
    )


def test_who_may_not_read_may_not_group(dsql_cluster: LocalCluster, servers: TwoServers) -> None:
    role_arn = "arn:aws:iam::123456789012:role/grouping"
    with dsql_cluster.connect(autocommit=True) as admin:
        admin.execute("CREATE ROLE grouping_reader WITH LOGIN")
        admin.execute(f"AWS IAM GRANT grouping_reader TO '{role_arn}'")
        try:
            admin.execute("GRANT SELECT (small, number) ON grouped TO grouping_reader")
            before = pushed(dsql_cluster)
            with dsql_cluster.connect("grouping_reader", autocommit=True) as reader:
                found = reader.execute("SELECT small, sum(number) FROM grouped GROUP BY small").fetchall()
                assert len(found) == 7
                for query in (
                    "SELECT flag, sum(number) FROM grouped GROUP BY flag",
                    "SELECT small, sum(big) FROM grouped GROUP BY small",
                    "SELECT small FROM grouped WHERE big = 1 GROUP BY small",
                    "SELECT count(DISTINCT tag) FROM grouped",
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        reader.execute(query)
            assert pushed(dsql_cluster) == before + 5, "storage would have answered them"
        finally:
            admin.execute("REVOKE SELECT (small, number) ON grouped FROM grouping_reader")
            admin.execute(f"AWS IAM REVOKE grouping_reader FROM '{role_arn}'")
            admin.execute("DROP ROLE grouping_reader")
