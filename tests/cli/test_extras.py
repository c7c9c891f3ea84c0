"""The command with some of its optional dependencies missing, each time in an interpreter of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

ENDPOINT = "abcdefghijklmnopqrstuvwxyz.dsql.eu-central-1.on.aws"
#: What the server extra brings, but for click.
SERVER_PACKAGES = ("cryptography", "pglast", "platformdirs", "psycopg", "rich", "rocksdict", "uvloop")


def run_without(hidden: Sequence[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    code = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {tuple(hidden)!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Hidden())
sys.argv = ["dsqlkit", *{arguments!r}]
from dsql_server.cli import main
main()
"""
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secretexample"}
    environment.pop("AWS_PROFILE", None)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("hidden", "arguments", "extra"),
    [
        ("click", ["--version"], "server"),
        ("platformdirs", ["start"], "server"),
        ("rich", ["demo"], "server"),
        ("rich", ["bench", "orders", "--url", "postgresql://x"], "server"),
        ("matplotlib", ["bench", "orders", "--url", "postgresql://x", "--plot", "x.png"], "plot"),
    ],
)
def test_the_missing_extra_is_named(hidden: str, arguments: list[str], extra: str) -> None:
    result = run_without([hidden], *arguments)
    sentence = f"Error: the Python package {hidden!r} is not installed: run pip install 'dsqlkit[{extra}]'\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", sentence)


def test_token_needs_only_click_of_the_server_extra() -> None:
    result = run_without(SERVER_PACKAGES, "token", "--host", ENDPOINT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(ENDPOINT + "/?Action=DbConnectAdmin&")
