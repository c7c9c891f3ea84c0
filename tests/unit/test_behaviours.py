"""Every test that docs/behaviours.md names exists, and every fact of tests/fidelity is named there."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent.parent
LIST = TESTS.parent / "docs" / "behaviours.md"
#: path, function, and the pattern of its cases' names
REFERENCE = re.compile(r"`([\w/]+\.py)::(\w+|\*)(?:\[([^`]+)\])?`")
REFERENCES = sorted(set(REFERENCE.findall(LIST.read_text())))


@pytest.fixture(scope="module", autouse=True)
def facts_can_be_imported() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TESTS / "fidelity"))
        yield


@cache
def _functions(path: str) -> frozenset[str]:
    """The module's tests, as its text has them."""
    tree = ast.parse((TESTS / path).read_text())
    return frozenset(n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_"))


def _cases(path: str, function: str) -> list[str]:
    """The names of a test's cases, as far as the module gives them names."""
    test = getattr(importlib.import_module(Path(path).stem), function)
    return [case.id for mark in getattr(test, "pytestmark", ()) for case in mark.args[1] if hasattr(case, "id")]


def test_the_list_is_one() -> None:
    rows = [line for line in LIST.read_text().splitlines() if line.startswith("| ") and "behaviour | test" not in line]
    assert len(rows) > 150
    for row in rows:
        behaviour, tests = row.strip("| ").split(" | ")
        assert behaviour and REFERENCE.sub("", tests).strip(", ") == "", row


@pytest.mark.parametrize("path", sorted({path for path, _, _ in REFERENCES}))
def test_what_is_named_exists(path: str) -> None:
    for _, function, cases in (found for found in REFERENCES if found[0] == path):
        assert function == "*" or function in _functions(path), f"{path} has no {function}"
        if cases and path.startswith("fidelity/") and _cases(path, function):
            assert fnmatch.filter(_cases(path, function), cases), f"{function} has no case {cases}"


@pytest.mark.parametrize("path", [f"fidelity/{path.name}" for path in sorted((TESTS / "fidelity").glob("test_*.py"))])
def test_what_exists_is_named(path: str) -> None:
    named = [(function, cases) for found, function, cases in REFERENCES if found == path]
    for function in _functions(path):
        patterns = [cases or "*" for found, cases in named if found in (function, "*")]
        assert patterns, f"{path}::{function} is in no row"
        for case in _cases(path, function) if "*" not in patterns else ():
            assert any(fnmatch.fnmatch(case, p) for p in patterns), f"{path}::{function}[{case}] is in no row"
