"""What the README shows is what works: its snippets run, and CI runs its very commands."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from dsql_server.testing import LocalCluster

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SNIPPETS: list[str] = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
DRIVERS = ("psycopg", "psycopg2", "asyncpg")


def snippet(words: str) -> str:
    (found,) = [text for text in SNIPPETS if words in text]
    return found


async def run(text: str, namespace: dict[str, Any]) -> None:
    """Execute a snippet as an asyncio REPL would, and close the connection that it leaves open."""
    result = eval(compile(text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), namespace)
    if inspect.isawaitable(result):
        await result
    closed = namespace["connection"].close()
    if inspect.isawaitable(closed):
        await closed


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_snippet_of_a_driver_works(driver: str, dsql_cluster: LocalCluster, dsql_url: str) -> None:
    with dsql_cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE stock (product text PRIMARY KEY, left_over integer)")
        connection.execute("INSERT INTO stock VALUES ('Margherita', 10), ('Diavola', 10)")
        asyncio.run(run(snippet(f"import dsql_connectors.{driver} as {driver}\n"), {"url": dsql_url}))
        rows = connection.execute("SELECT product, left_over FROM stock ORDER BY 1").fetchall()
    assert rows == [("Diavola", 10), ("Margherita", 9)]


def test_the_snippet_of_a_test_works(dsql_url: str) -> None:
    import dsql_connectors.psycopg as psycopg

    namespace: dict[str, Any] = {"psycopg": psycopg}
    exec(snippet("def test_orders(dsql_url)"), namespace)
    namespace["test_orders"](dsql_url)
    with psycopg.connect(dsql_url) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def test_ci_runs_the_commands_of_the_readme() -> None:
    install, tests = re.findall(r"^    (pip install -e '\.\[all,dev\]') && (\S.*)$", README, re.MULTILINE)[0]
    steps = re.findall(r"^step (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert steps[0] == install.replace("install", "install --quiet")
    assert steps[1] == tests
    assert steps[-3:] == ["ruff check", "ruff format --check", "mypy"]


def test_the_snippet_of_sqlalchemy_works(dsql_cluster: LocalCluster, dsql_url: str) -> None:
    with dsql_cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE product (name text PRIMARY KEY, left_over integer NOT NULL)")
        connection.execute("INSERT INTO product VALUES ('Margherita', 10)")
        namespace: dict[str, Any] = {"url": dsql_url, "__name__": "readme"}
        exec(compile(snippet("class Product(Base)"), "README.md", "exec", dont_inherit=True), namespace)
        namespace["engine"].dispose()
        assert connection.execute("SELECT left_over FROM product").fetchall() == [(9,)]


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links), links
