"""The command line without a server: usage, missing extras, what is printed on start, the control channel."""

import json
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict

from dsql_server.cli import connection_help, control
from dsql_server.cli.commands import dsqlkit
from dsql_server.cli.extras import MissingExtra, extra_required

INFO: Any = SimpleNamespace(
    cluster_id="abc",
    endpoint="abc.dsql.us-east-1.on.aws",
    host="127.0.0.1",
    port=5433,
    region="us-east-1",
    user="admin",
    database="postgres",
    ca_file="/home/it's me/ca.pem",
    access_key_id="AKID",
    secret_access_key="a+b/c d",
    url="aws-dsql://admin@abc.dsql.us-east-1.on.aws:5433/postgres",
)


def test_version_is_the_distributions() -> None:
    result = CliRunner().invoke(dsqlkit, ["--version"], prog_name="dsqlkit")
    assert result.output == f"dsqlkit {version('dsqlkit')}\n"


@pytest.mark.parametrize("command", [["start"], ["token"], ["demo"], ["bench"], ["bench", "orders"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(dsqlkit, [*command, "--help"])
    assert result.exit_code == 0
    assert "--control" not in result.output


def test_ephemeral_and_data_dir_exclude_each_other(tmp_path: Path) -> None:
    result = CliRunner().invoke(dsqlkit, ["start", "--ephemeral", "--data-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "give one of them" in result.stderr


def test_a_defect_of_our_own_is_not_taken_for_a_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError, match="dsql_server"), extra_required("server"):
        raise ModuleNotFoundError("No module named 'dsql_server.nowhere'", name="dsql_server.nowhere")
    with pytest.raises(MissingExtra, match="dsqlkit\\[plot\\]"), extra_required("plot"):
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere.at.all")


def test_environment_lines_survive_the_shell() -> None:
    script = "\n".join(
        [*connection_help.environment_lines(INFO), "printf '%s|' $AWS_REGION \"$AWS_SECRET_ACCESS_KEY\""]
    )
    result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "us-east-1|a+b/c d|"


def test_psql_line_names_everything_that_libpq_needs() -> None:
    line = connection_help.psql_line(INFO)
    password, command, conninfo = shlex.split(line)
    assert password == "PGPASSWORD=$(dsqlkit token --admin --host abc.dsql.us-east-1.on.aws --region us-east-1)"
    assert command == "psql"
    assert conninfo_to_dict(conninfo) == {
        "host": INFO.endpoint,
        "hostaddr": "127.0.0.1",
        "port": "5433",
        "user": "admin",
        "dbname": "postgres",
        "sslmode": "verify-full",
        "sslrootcert": INFO.ca_file,
    }


def test_connection_help_is_printed_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    connection_help.print_connection_help(INFO, data_dir=Path("/data/[bold]dir"))
    lines = capsys.readouterr().out.splitlines()
    assert INFO.url in lines
    assert connection_help.psql_line(INFO) in lines
    assert "Its data is in /data/[bold]dir; Ctrl-C stops it." in lines
    assert all(line in lines for line in connection_help.environment_lines(INFO))


class FakeServer:
    def metrics(self) -> dict[str, object]:
        return {"journals": [{"records": 3}], "last": b"\x01\xff"}

    def recent_transactions(self) -> list[bytes]:
        return [b"\x00" * 16, b"\xff" * 16]

    def trace(self, transaction_id: bytes) -> dict[str, object] | None:
        return {"t_start": 1} if transaction_id == b"\xff" * 16 else None


SERVER: Any = FakeServer()


@pytest.mark.parametrize(
    ("question", "result"),
    [
        ({"command": "metrics"}, {"journals": [{"records": 3}], "last": "01ff"}),
        ({"command": "recent_transactions"}, ["00" * 16, "ff" * 16]),
        ({"command": "trace", "transaction_id": "ff" * 16}, {"t_start": 1}),
        ({"command": "trace", "transaction_id": "00" * 16}, None),
    ],
)
def test_control_answers(question: dict[str, str], result: object) -> None:
    reply = control.answer(SERVER, json.dumps(question).encode())
    assert reply.endswith(b"\n") and reply.count(b"\n") == 1
    assert json.loads(reply) == {"result": result}


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"{}", b'{"command": "stop"}', b'{"command": "trace", "transaction_id": "xyz"}']
)
def test_control_answers_nonsense_with_an_error(line: bytes) -> None:
    reply = json.loads(control.answer(SERVER, line))
    assert set(reply) == {"error"}


def test_control_reads_lines_however_they_are_cut() -> None:
    text = b'{"a": 1}\n\n{"b": 2}\nrest'
    for step in range(1, len(text)):
        buffer = control.LineBuffer()
        lines = [line for at in range(0, len(text), step) for line in buffer.feed(text[at : at + step])]
        assert lines == [b'{"a": 1}', b"", b'{"b": 2}']
    with pytest.raises(ValueError, match="longer than"):
        control.LineBuffer().feed(b"x" * (control.LINE_BYTES_MAX + 1))
