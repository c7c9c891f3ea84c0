"""The official connector's own tests: with their package, and with the imports changed to ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from official_suite import run

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the package, its sources and its dependencies lie while these tests run."""
    directory = tmp_path_factory.mktemp("official")
    yield directory
    # Pytest would keep it for three more runs.
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("whose", "suite", "passed"), [("theirs", "unit", 93), ("theirs", "integration", 69), ("ours", "integration", 69)]
)
def test_official_suite(
    directory: Path, capfd: pytest.CaptureFixture[str], whose: str, suite: str, passed: int
) -> None:
    status = run(directory, whose, suite, ["-o", "addopts="])
    output = capfd.readouterr().out
    assert status == 0, output
    assert f"{passed} passed" in output, f"a suite that collects less than it has proves less:\n{output}"
