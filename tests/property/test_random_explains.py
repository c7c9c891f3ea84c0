"""EXPLAIN takes every query that runs: no plan is too odd to be shown as DSQL shows it."""

from __future__ import annotations

import json
import os
import random
import re
from typing import Any

import psycopg
import pytest
from random_schema import SchemaGenerator
from random_writes import ScriptGenerator
from two_servers import Client, Step

from dsql_server.testing import LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
SCHEMAS = 40 if FULL else 4
STATEMENTS = 300 if FULL else 60
OPTIONS = ("", "VERBOSE", "ANALYZE", "ANALYZE VERBOSE", "(COSTS off)", "(FORMAT JSON)",
           "(ANALYZE, VERBOSE, FORMAT JSON)", "(ANALYZE, TIMING off, SUMMARY off)", "(SETTINGS, VERBOSE)")  # fmt: skip
_EXPLAINED = re.compile(r"(?i)\s*(SELECT|WITH|INSERT|UPDATE|DELETE|VALUES)\b")
#: What only PostgreSQL's own tables have.
_ENGINES_OWN = ("Seq Scan", "Bitmap", "Heap Fetches", "Memoize", "random_page_cost")


@pytest.mark.parametrize("seed", range(SCHEMAS))
def test_every_statement_is_explained(dsql_cluster: LocalCluster, dsql_url: str, seed: int) -> None:
    rng = random.Random(seed)
    schema = SchemaGenerator(rng, f"x{seed}_", foreign_keys=seed % 2 == 1).schema()
    generator = ScriptGenerator(rng, schema)
    shown = 0
    with dsql_cluster.connect(autocommit=True) as connection:
        client = Client(connection)
        for sql in schema.before:
            connection.execute(sql.encode())
        dsql_cluster.wait_for_jobs()
        try:
            for table in schema.tables:
                for step in generator.fill(table, 25):
                    client.run(step)
            while shown < STATEMENTS:
                for step in generator.statement():
                    shown += explain(client, connection, step, rng.choice(OPTIONS))
        finally:
            connection.execute("ROLLBACK")
            for sql in schema.drops:
                connection.execute(sql.encode())


def explain(client: Client, connection: psycopg.Connection[Any], step: Step, options: str) -> bool:
    """Explain the statement and check the plan; False where the statement itself is refused."""
    if not _EXPLAINED.match(step.sql):
        client.run(step)
        return False
    connection.execute("BEGIN")
    ran = client.run(Step(step.sql, step.parameters, step.binary_results))
    connection.execute("ROLLBACK")
    connection.execute("BEGIN")
    answer = client.run(Step(f"EXPLAIN {options} {step.sql}", step.parameters))
    connection.execute("ROLLBACK")
    if ran.error is not None:
        return False
    assert answer.error is None, (options, step.sql, answer.error)
    texts = [(row[0] or b"").decode() for row in answer.rows]
    assert not any(name in text for text in texts for name in _ENGINES_OWN), (step.sql, texts)
    if "JSON" in options:
        (document,) = json.loads(texts[0])
        assert "Plan" in document
    else:
        assert texts and not texts[0].startswith(" "), (step.sql, texts)
    return True
