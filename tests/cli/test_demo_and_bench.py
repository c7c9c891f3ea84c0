"""``dsqlkit demo``, ``dsqlkit bench`` and the example, against a real local cluster."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import dsql_connectors.psycopg as dsql
from dsql_server.testing import LocalCluster

TIMEOUT_S = 100
EXAMPLES = Path(__file__).parents[2] / "examples"


def dsqlkit(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsql_server.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment,
    )


def test_demo_reports_every_role_and_verifies_itself() -> None:
    result = dsqlkit("demo", "--orders", "40", "--clients", "3", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["orders"], report["clients"], report["acknowledged"]) == (40, 3, 40)
    # Each contended create meets its rival once, so the connector must have replayed something.
    assert report["conflicts_retried"] >= report["latencies"]["contended"]["samples"] > 0
    assert sum(report["latencies"][name]["samples"] for name in ("create", "contended")) == 40
    assert report["latencies"]["get"]["samples"] == report["latencies"]["list"]["samples"] == 40
    assert len(report["checks"]) == 2
    assert {"adjudicators", "journals", "storage", "crossbar", "processors"} <= set(report["metrics"])
    assert report["trace"]["t_start"] < report["trace"]["t_commit"]


def test_demo_shows_the_path_of_a_transaction() -> None:
    result = dsqlkit("demo", "--orders", "12", "--clients", "2")
    assert result.returncode == 0, result.stderr
    for words in ("T_start", "T_commit", "Adjudicators", "Journals", "Storage", "p99 ms", "every one is there"):
        assert words in result.stdout, f"{words!r} is not in the report"


def test_bench_measures_and_leaves_no_table(dsql_cluster: LocalCluster, dsql_url: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'plot' is optional")
    result = dsqlkit(
        *("bench", "orders", "--url", dsql_url, "--compare", dsql_url, "--clients", "2", "--seconds", "1"),
        *("--conflicts", "0.5", "--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")),
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    first, second = report["targets"]
    for target in (first, second):
        assert 0.9 < target["seconds"] < 10
        operations = target["operations"]
        assert operations["get"]["samples"] == operations["list"]["samples"] > 0
        for summary in operations.values():
            assert 0 < summary["p50_ms"] <= summary["p90_ms"] <= summary["p95_ms"] <= summary["p99_ms"]
    assert report["ratio"]["get"]["p50_ms"] == pytest.approx(
        first["operations"]["get"]["p50_ms"] / second["operations"]["get"]["p50_ms"]
    )
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG\r\n")
    with dsql_cluster.connect() as connection:
        assert connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall() == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://u:topsecret@h/d", "not an aws-dsql:// or postgresql:// URL"),
        ("postgresql://u:topsecret@127.0.0.1:1/d", "127.0.0.1"),
    ],
)
def test_bench_without_a_database_is_a_sentence_without_a_secret(url: str, words: str) -> None:
    result = dsqlkit("bench", "orders", "--url", url, "--seconds", "0.1")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ") and words in result.stderr
    assert "topsecret" not in result.stderr and "Traceback" not in result.stderr


@pytest.fixture
def pizza_orders(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("pizza_orders.orders")


def test_the_example_creates_gets_and_lists(pizza_orders: Any, dsql_url: str) -> None:
    items = [pizza_orders.Item("Diavola", 2, Decimal("10.00")), pizza_orders.Item("Margherita", 1, Decimal("8.50"))]
    with dsql.connect(dsql_url, autocommit=True) as connection:
        pizza_orders.create_schema(connection)
        pizza_orders.create_schema(connection)  # harmless the second time
        order_id = pizza_orders.create_order(connection, "Ada", items)
        order, stored = pizza_orders.get_order(connection, order_id)
        assert (order.order_id, order.customer, order.total) == (order_id, "Ada", Decimal("28.50"))
        assert stored == items
        minute = dt.timedelta(minutes=1)
        assert pizza_orders.list_orders(connection, order.created_at - minute, order.created_at + minute) == [order]
        assert pizza_orders.list_orders(connection, order.created_at - minute, order.created_at) == []
        valid = connection.execute("SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'orders'::regclass")
        assert valid.fetchone() == (True,)


def test_the_example_stores_all_or_nothing(pizza_orders: Any, dsql_url: str) -> None:
    with dsql.connect(dsql_url, autocommit=True) as connection:
        pizza_orders.create_schema(connection)
        with pytest.raises(dsql.Error):
            pizza_orders.create_order(connection, "Ada", [pizza_orders.Item("Diavola", 2**40, Decimal("10.00"))])
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)
