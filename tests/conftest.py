"""Shared by all tests. The clusters come from the distribution's own pytest plugin (``dsql_server.testing``)."""

from __future__ import annotations

import os

import hypothesis
import pytest

# The same examples every day, so that a failure is the change's; new ones in full size.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("default" if os.environ.get("DSQLKIT_FULL") == "1" else "repeatable")

# The plugin's own tests run pytest inside pytest.
pytest_plugins = ["pytester"]


def pytest_report_header() -> str:
    """Which size of the long tests runs."""
    full = os.environ.get("DSQLKIT_FULL") == "1"
    return "dsqlkit: long tests in " + ("full size" if full else "reduced size (DSQLKIT_FULL=1 for the full one)")


@pytest.fixture(autouse=True)
def _no_aws_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests: their AWS profile, region and metadata service are not a test's business."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
