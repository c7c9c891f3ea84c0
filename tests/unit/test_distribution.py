"""What installing the distribution brings along."""

import re
from importlib.metadata import entry_points, requires

import pytest


def requirements(extra: str | None) -> set[str]:
    """Names of what is required, without or with one extra."""
    names = set()
    for requirement in requires("dsqlkit") or ():
        text, _, marker = requirement.partition(";")
        wanted = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if (wanted.group(1) if wanted else None) == extra:
            names.add(re.split(r"[\[<>=!~ ]", text.strip())[0])
    return names


@pytest.mark.parametrize(
    ("extra", "names"), [(None, {"botocore"}), ("psycopg", {"psycopg"}), ("psycopg2", {"psycopg2-binary"})]
)
def test_a_production_app_gets_nothing_of_the_server(extra: str | None, names: set[str]) -> None:
    assert requirements(extra) == names


def test_the_command_and_the_pytest_plugin_are_registered() -> None:
    (command,) = entry_points(group="console_scripts", name="dsqlkit")
    (plugin,) = entry_points(group="pytest11", name="dsqlkit")
    assert (command.value, plugin.value) == ("dsql_server.cli:main", "dsql_server.testing.plugin")
