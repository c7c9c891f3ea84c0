"""SQLAlchemy's pytest plugin, for ``pytest -p suite_plugin``, less the single tests that DSQL can't be asked for."""

from __future__ import annotations

import re

import pytest
from dsql_requirements import TESTS_ABSENT
from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: F403
from sqlalchemy.testing.plugin.pytestplugin import pytest_collection_modifyitems as _modify_items


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    _modify_items(session, config, items)
    for item in items:
        # suite.py::IsolationLevelTest_aws_dsql+psycopg_16::test_name[parameters]
        name = re.sub(r"^.*?::(\w+?)_aws_dsql\+\w+?_\d+::", r"\1::", item.nodeid)
        reason = TESTS_ABSENT.get(name)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
