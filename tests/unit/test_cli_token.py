"""``dsqlkit token`` against botocore's own generator."""

import datetime as dt
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.session import Session
from click.testing import CliRunner, Result

from dsql_server.cli.commands import dsqlkit

HOST = "abcdefghijklmnopqrstuvwxyz.dsql.eu-central-1.on.aws"
NOW = dt.datetime(2026, 11, 23, 12, 0, 0)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secretexample")


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    # The signature covers the time, so equal tokens need equal seconds.
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *args, **kwargs: NOW)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(dsqlkit, ["token", *arguments])


def expected(*, admin: bool, region: str = "eu-central-1", expires_s: int = 900) -> str:
    client = Session().create_client("dsql", region_name=region)
    generate = client.generate_db_connect_admin_auth_token if admin else client.generate_db_connect_auth_token
    text: str = generate(HOST, region, expires_s)
    return text


@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize(
    ("arguments", "admin"),
    [((), True), (("--admin",), True), (("--user", "admin"), True), (("--user", "barista"), False)],
)
def test_token_is_botocores(arguments: tuple[str, ...], admin: bool) -> None:
    result = run("--host", HOST, *arguments)
    assert result.exit_code == 0
    assert result.output == expected(admin=admin) + "\n"


@pytest.mark.usefixtures("stopped_clock")
def test_region_and_expiry_are_signed() -> None:
    result = run("--hostname", HOST, "--region", "us-east-2", "--expires-in", "60")
    assert result.output == expected(admin=True, region="us-east-2", expires_s=60) + "\n"
    query = parse_qs(urlsplit("https://" + result.output.strip()).query)
    assert query["X-Amz-Expires"] == ["60"]
    assert query["X-Amz-Credential"][0].split("/")[2] == "us-east-2"


def test_region_from_the_environment_for_a_host_that_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    result = run("--host", "vpce-1.example.com")
    assert "%2Fus-west-2%2Fdsql" in result.output


def test_no_region_is_one_sentence() -> None:
    result = run("--host", "vpce-1.example.com")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Error: the region of 'vpce-1.example.com' is not known: give --region or set AWS_REGION"
    ]
    assert result.stdout == ""


def test_no_credentials_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    result = run("--host", HOST)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no AWS credentials found: set AWS_ACCESS_KEY_ID")


def test_an_unknown_profile_is_one_sentence() -> None:
    result = run("--host", HOST, "--profile", "nowhere")
    assert result.exit_code == 1
    assert "nowhere" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("seconds", ["0", "604801", "soon"])
def test_an_expiry_that_dsql_would_refuse_is_wrong_usage(seconds: str) -> None:
    assert run("--host", HOST, "--expires", seconds).exit_code == 2


def test_admin_and_another_user_exclude_each_other() -> None:
    result = run("--host", HOST, "--admin", "--user", "barista")
    assert result.exit_code == 2
    assert "give one of them" in result.stderr
