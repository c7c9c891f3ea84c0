"""The official connector's own tests: with their package, and with the imports changed to ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from official_suite import run

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        os.environ.get("DSQLKIT_FULL") != "1",
        reason="downloads the official package and its dependencies; set DSQLKIT_FULL=1",
    ),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("official")


@pytest.mark.parametrize(("whose", "suite"), [("theirs", "unit"), ("theirs", "integration"), ("ours", "integration")])
def test_official_suite(directory: Path, whose: str, suite: str) -> None:
    assert run(directory, whose, suite, []) == 0
