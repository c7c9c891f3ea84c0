"""Random statements give the same answers as on a plain PostgreSQL 16 that holds the same data.

An example is a schema, some rows, and a script of transactions, all made from one seed. A failure prints the seed and
the shortest script found that still differs; put it into ``known_differences.py``, where it stays.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from known_differences import KNOWN, Case
from random_schema import SchemaGenerator
from random_writes import ScriptGenerator
from two_servers import Difference, Parameter, Step, TwoServers

from dsql_server.testing import LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
#: Examples of each kind, and transactions in each of them.
EXAMPLES = 400 if FULL else 45
TRANSACTIONS = 60 if FULL else 35
#: Rows that tables begin with; one of these.
FIRST_ROWS = (0, 3, 10, 25, 60)

#: What the examples must have covered, so that the test can't pass on trivial ones; for each example.
STATEMENTS_MIN = 60
ROWS_MIN = 60
#: Share of base scans that didn't read their whole table.
NARROWED_MIN = 0.4

_seeds = st.integers(min_value=0, max_value=2**32 - 1)
_size = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=not FULL,  # the same examples every day; new ones in full size
    phases=(Phase.explicit, Phase.generate),  # scripts are shortened here, statement by statement
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def servers(dsql_cluster: LocalCluster, reference: psycopg.Connection[tuple[object, ...]]) -> Iterator[TwoServers]:
    found = TwoServers(dsql_cluster, reference)
    yield found
    found.close()


class Example:
    """One seed's schema and script."""

    def __init__(self, seed: int, foreign_keys: bool) -> None:
        rng = random.Random(seed)
        self.schema = SchemaGenerator(rng, f"s{seed}_", foreign_keys).schema()
        generator = ScriptGenerator(rng, self.schema)
        self.first = [step for table in self.schema.tables for step in generator.fill(table, rng.choice(FIRST_ROWS))]
        self.then = [step for _ in range(TRANSACTIONS) for step in generator.transaction()]
        self.contents = generator.contents()

    def run(self, servers: TwoServers, keep: frozenset[int] | None = None) -> None:
        """Run the script, or only the statements of it with these numbers. Raises Difference."""
        steps = [*self.first, *self.then]
        kept = steps if keep is None else [step for at, step in enumerate(steps) if at in keep]
        split = len(self.first) if keep is None else sum(at < len(self.first) for at in keep)
        for sql in self.schema.before:
            servers.define(sql)
        try:
            servers.run(kept[:split])
            for sql in self.schema.after:
                servers.define(sql)
            servers.run(kept[split:])
            servers.reset()
            servers.run(self.contents)
        finally:
            servers.reset()
            for sql in self.schema.drops:
                servers.define(sql)

    def shortened(self, servers: TwoServers, found: Difference) -> Difference:
        """The difference again, from as few statements as leaving out halves, quarters … of them gets to."""
        keep = list(range(len(self.first) + len(self.then)))
        size = len(keep)
        while size:
            at = 0
            while at < len(keep):
                fewer = keep[:at] + keep[at + size :]
                try:
                    self.run(servers, frozenset(fewer))
                    at += size
                except Difference as difference:
                    keep, found = fewer, difference
            size //= 2
        return found


def check(servers: TwoServers, seed: int, foreign_keys: bool) -> None:
    example = Example(seed, foreign_keys)
    try:
        example.run(servers)
    except Difference as difference:
        shortest = example.shortened(servers, difference)
        definitions = "\n".join(f"    {sql!r}," for sql in (*example.schema.before, *example.schema.after))
        steps = "\n".join(f"    {step!r}," for step in shortest.steps)
        pytest.fail(f"seed {seed}: {shortest}\ndefinitions:\n{definitions}\nsteps:\n{steps}", pytrace=False)


def assert_covered(servers: TwoServers, cluster: LocalCluster, before: dict[str, int]) -> None:
    """The examples were no trivial ones."""
    after = planner_counters(cluster)
    scans, narrowed = after["scans"] - before["scans"], after["scans_narrowed"] - before["scans_narrowed"]
    print(f"{servers.statements.total()} statements, {servers.rows} rows, {narrowed} of {scans} scans narrowed")
    print(dict(servers.statements.most_common()))
    assert servers.statements.total() > STATEMENTS_MIN * EXAMPLES
    assert servers.rows > ROWS_MIN * EXAMPLES
    assert {"SELECT", "INSERT", "UPDATE", "DELETE", "COMMIT", "ROLLBACK", "23505"} <= servers.statements.keys()
    assert narrowed > NARROWED_MIN * scans


def planner_counters(cluster: LocalCluster) -> dict[str, int]:
    counters: dict[str, int] = cluster.metrics()["planner"]
    return counters


@pytest.mark.long
def test_random_statements(servers: TwoServers, dsql_cluster: LocalCluster) -> None:
    before = planner_counters(dsql_cluster)

    @_size
    @given(seed=_seeds)
    def run(seed: int) -> None:
        check(servers, seed, foreign_keys=False)

    run()
    assert_covered(servers, dsql_cluster, before)


@pytest.mark.long
def test_random_statements_with_foreign_keys(servers: TwoServers, dsql_cluster: LocalCluster) -> None:
    before = planner_counters(dsql_cluster)

    @_size
    @given(seed=_seeds)
    def run(seed: int) -> None:
        check(servers, seed, foreign_keys=True)

    run()
    assert_covered(servers, dsql_cluster, before)
    assert servers.statements["23503"] > EXAMPLES


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case.name)
def test_what_differed_once(servers: TwoServers, case: Case) -> None:
    try:
        for sql in case.definitions:
            servers.define(sql)
        servers.run(list(case.steps))
        servers.reset()
        servers.run([Step(f"SELECT * FROM {name}") for name in case.tables])
    finally:
        servers.reset()
        for name in reversed(case.tables):
            servers.define(f"DROP TABLE {name} CASCADE")


def test_a_difference_is_noticed(servers: TwoServers) -> None:
    with pytest.raises(Difference, match="after 1 statements"):
        servers.run([Step("SELECT current_user"), Step("SELECT 1")])
    servers.run([Step("SELECT $1::int + 1", (Parameter(b"41"),))])
