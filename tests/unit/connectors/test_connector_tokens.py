"""Tokens against botocore's own generator, and where credentials come from."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.session import Session
from scripted_server import ENDPOINT, REGION

from dsql_connectors import errors
from dsql_connectors.core import credentials, tokens
from dsql_connectors.core.credentials import SOURCES_MAX, CredentialsSource, credentials_source, region_of_profile
from dsql_connectors.core.settings import TokenRequest
from dsql_connectors.core.tokens import generate_token, generate_token_async

REQUEST = TokenRequest(ENDPOINT, REGION, "admin", 900)
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=timezone.utc)


@pytest.fixture
def fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: NOW)
    monkeypatch.setattr(tokens, "current_time", lambda: NOW)


@pytest.mark.usefixtures("fixed_time")
@pytest.mark.parametrize("user", ["admin", "reader"])
@pytest.mark.parametrize("session_token", [None, "a/session+token=="])
@pytest.mark.parametrize("duration_secs", [1, 900, 604800])
def test_tokens_are_byte_identical_with_botocores(
    monkeypatch: pytest.MonkeyPatch, user: str, session_token: str | None, duration_secs: int
) -> None:
    if session_token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", session_token)
    client = Session().create_client("dsql", region_name=REGION)
    generate = client.generate_db_connect_admin_auth_token if user == "admin" else client.generate_db_connect_auth_token
    expected = generate(ENDPOINT, REGION, duration_secs)
    client.close()
    assert generate_token(TokenRequest(ENDPOINT, REGION, user, duration_secs)) == expected


def refreshable(loaded: list[str], expires_in_s: float = 3600.0, delay_s: float = 0.0) -> RefreshableCredentials:
    def refresh() -> dict[str, str]:
        time.sleep(delay_s)
        loaded.append(threading.current_thread().name)
        expiry = datetime.now(timezone.utc) + timedelta(hours=1)
        return {"access_key": "NEW", "secret_key": "s", "token": "t", "expiry_time": expiry.isoformat()}

    return RefreshableCredentials(
        "OLD", "s", "t", datetime.now(timezone.utc) + timedelta(seconds=expires_in_s), refresh, "test"
    )


class Provider:
    """A custom botocore credential provider, as much of it as is used."""

    def __init__(self, found: Any) -> None:
        self.found = found
        self.loads = 0

    def load(self) -> Any:
        self.loads += 1
        return self.found


def test_a_provider_comes_first_and_its_refreshable_credentials_are_kept() -> None:
    provider = Provider(refreshable([]))
    for _ in range(3):
        assert "X-Amz-Credential=OLD%2F" in generate_token(REQUEST, provider=provider)
    assert provider.loads == 1


def test_a_providers_static_credentials_are_asked_for_each_time() -> None:
    """They may have been rotated: https://github.com/sqlpage/SQLPage/issues/1195"""
    provider = Provider(Credentials("ONE", "s"))
    generate_token(REQUEST, provider=provider)
    provider.found = Credentials("TWO", "s")
    assert "Credential=TWO%2F" in generate_token(REQUEST, provider=provider)


def test_a_provider_without_an_answer_leaves_it_to_the_chain() -> None:
    assert "Credential=AKIAEXAMPLE%2F" in generate_token(REQUEST, provider=Provider(None))


def test_a_session_is_used() -> None:
    session = Session()
    session.set_credentials("OFSESSION", "s")
    assert "Credential=OFSESSION%2F" in generate_token(REQUEST, session=session)


def test_expiring_credentials_are_refreshed_before_they_expire() -> None:
    loaded: list[str] = []
    provider = Provider(refreshable(loaded, expires_in_s=60))
    assert "Credential=NEW%2F" in generate_token(REQUEST, provider=provider)
    assert len(loaded) == 1


def test_an_event_loop_never_waits_for_a_refresh() -> None:
    loaded: list[str] = []
    provider = Provider(refreshable(loaded, expires_in_s=60, delay_s=0.05))

    async def main() -> tuple[str, float]:
        longest_s, done = 0.0, False

        async def watch() -> None:
            nonlocal longest_s
            while not done:
                before = time.monotonic()
                await asyncio.sleep(0.001)
                longest_s = max(longest_s, time.monotonic() - before)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        token = await generate_token_async(REQUEST, provider=provider)
        done = True
        await watching
        return token, longest_s

    token, _ = asyncio.run(main())
    assert "Credential=NEW%2F" in token
    assert loaded and loaded[0] != threading.main_thread().name


@pytest.mark.asyncio
async def test_a_ready_source_is_signed_with_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    await generate_token_async(REQUEST)

    def refuse(*_: object) -> None:
        raise AssertionError("a thread is needed for credentials only")

    monkeypatch.setattr(asyncio, "to_thread", refuse)
    assert (await generate_token_async(REQUEST)).startswith(ENDPOINT)


def test_one_source_serves_all_threads_and_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """https://github.com/awslabs/aurora-dsql-connectors/issues/644: a session and a client for every connection."""
    found: list[int] = []
    find = CredentialsSource._find

    def counting(self: CredentialsSource) -> Any:
        found.append(1)
        time.sleep(0.01)
        return find(self)

    monkeypatch.setattr(CredentialsSource, "_find", counting)
    monkeypatch.setattr(credentials, "_sources", type(credentials._sources)())
    threads = [threading.Thread(target=generate_token, args=(REQUEST,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1


def test_rotated_keys_are_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """https://github.com/awslabs/aurora-dsql-connectors/pull/155: tokens were cached, and then nothing was."""
    generate_token(REQUEST)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ROTATED")
    assert "Credential=ROTATED%2F" in generate_token(REQUEST)


def test_a_rewritten_credentials_file_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    path = Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"])
    for key in ("FIRST", "SECOND1"):
        path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n")
        assert f"Credential={key}%2F" in generate_token(REQUEST)


def test_sources_are_bounded() -> None:
    for _ in range(SOURCES_MAX * 2):
        credentials_source(provider=Provider(None))
    assert len(credentials._sources) == SOURCES_MAX


def test_missing_credentials_name_the_sources_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(errors.CredentialsError) as caught:
        generate_token(REQUEST)
    for name in ("env", "shared-credentials-file", "container-role", "AWS_ACCESS_KEY_ID"):
        assert name in str(caught.value)


def test_a_missing_profile_and_expired_credentials_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.CredentialsError, match="nobody"):
        generate_token(REQUEST._replace(profile="nobody"))
    with pytest.raises(errors.CredentialsError, match="nobody"):
        region_of_profile("nobody")

    def expired() -> dict[str, str]:
        return {"access_key": "A", "secret_key": "hunter2", "token": "t", "expiry_time": "2020-01-01T00:00:00+00:00"}

    provider = Provider(RefreshableCredentials("A", "hunter2", "t", NOW - timedelta(days=999), expired, "test"))
    with pytest.raises(errors.CredentialsError, match="renew the credentials") as caught:
        generate_token(REQUEST, provider=provider)
    assert "hunter2" not in str(caught.value)


def test_the_region_of_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(os.environ["AWS_CONFIG_FILE"])
    path.write_text("[profile p]\nregion = eu-north-1\n")
    assert region_of_profile("p") == "eu-north-1"
    assert region_of_profile(None) is None


def test_a_role_is_assumed_once_in_the_clusters_region(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    class Sts:
        def assume_role(self, **arguments: Any) -> dict[str, Any]:
            calls.append(("assume_role", arguments))
            expiry = datetime.now(timezone.utc) + timedelta(hours=1)
            found = {"AccessKeyId": "ROLE", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": expiry}
            return {"Credentials": found, "AssumedRoleUser": {"Arn": "arn:aws:sts::123456789012:assumed-role/r/s"}}

        def close(self) -> None:
            """Nothing was opened."""

    def create_client(self: Session, service: str, **arguments: Any) -> Sts:
        calls.append((service, arguments))
        return Sts()

    monkeypatch.setattr(Session, "create_client", create_client)
    request = REQUEST._replace(role_arn="arn:aws:iam::123456789012:role/r")
    for _ in range(2):
        assert "Credential=ROLE%2F" in generate_token(request)
    assert [name for name, _ in calls] == ["sts", "assume_role"]
    assert calls[0][1]["region_name"] == REGION
    assert calls[1][1]["RoleArn"] == request.role_arn
