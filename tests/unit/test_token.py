"""Token verification against botocore's signer, an independent implementation of the client's side."""

from __future__ import annotations

import calendar
import hashlib
import hmac
import time
from datetime import datetime, timezone
from urllib.parse import parse_qsl, quote

import botocore.session
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsql_server.frontend.token import (
    ACCESS_DENIED_MESSAGE,
    EXPIRES_SECONDS_MAX,
    AccessKey,
    TokenAccepted,
    TokenRefused,
    TokenVerifier,
    endpoint_hostnames,
)

REGION = "us-east-1"
CLUSTER = "abcdefghijklmnopqrstuvwxyz"
HOST = f"{CLUSTER}.dsql.{REGION}.on.aws"
HOSTS = endpoint_hostnames(CLUSTER, REGION)
ARN = "arn:aws:iam::123456789012:role/app"
KEY_ID = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SESSION = botocore.session.Session()
SESSION_TOKEN = "FwoGZXIvYXdzEBYaD/+=Zm9v//Yg=="


def botocore_token(
    *,
    host: str = HOST,
    region: str = REGION,
    admin: bool = False,
    expires: int = 900,
    key_id: str = KEY_ID,
    secret: str = SECRET,
    session_token: str | None = None,
) -> str:
    client = SESSION.create_client(
        "dsql",
        region_name=region,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        aws_session_token=session_token,
    )
    generate = client.generate_db_connect_admin_auth_token if admin else client.generate_db_connect_auth_token
    token: str = generate(host, Region=region, ExpiresIn=expires)
    return token


def verifier(**changes: object) -> TokenVerifier:
    return TokenVerifier({KEY_ID: AccessKey(SECRET, ARN)._replace(**changes)}, REGION)  # type: ignore[arg-type]


def verify(
    token: str, *, user: str = "app", at: float | None = None, by: TokenVerifier | None = None
) -> TokenAccepted | TokenRefused:
    return (by or verifier()).verify(token, hostnames=HOSTS, user=user, now=time.time() if at is None else at)


def hint(token: str, *, user: str = "app", at: float | None = None, by: TokenVerifier | None = None) -> str:
    outcome = verify(token, user=user, at=at, by=by)
    assert isinstance(outcome, TokenRefused)
    assert outcome.message == ACCESS_DENIED_MESSAGE
    return outcome.hint


def signed_at(token: str) -> float:
    date_time = dict(parse_qsl(token.partition("?")[2]))["X-Amz-Date"]
    return calendar.timegm(datetime.strptime(date_time, "%Y%m%dT%H%M%SZ").timetuple())


def own_token(
    date_time: str = "20261123T120000Z", *, service: str = "dsql", scope_date: str | None = None, **changes: str
) -> str:
    """A correctly signed token with parameters that botocore would not write."""
    date = scope_date or date_time[:8]
    region = changes.pop("region", REGION)
    parameters = {
        "Action": "DbConnect",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{KEY_ID}/{date}/{region}/{service}/aws4_request",
        "X-Amz-Date": date_time,
        "X-Amz-Expires": "900",
        "X-Amz-SignedHeaders": "host",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(parameters.items()))
    request = f"GET\n/\n{query}\nhost:{HOST}\n\nhost\n{hashlib.sha256(b'').hexdigest()}"
    scope = f"{date}/{region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{date_time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for part in (date, region, service, "aws4_request", to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{HOST}/?{query}&X-Amz-Signature={key.hex()}"


OWN_TIME = datetime(2026, 11, 23, 12, 0, 1, tzinfo=timezone.utc).timestamp()
# One token for the mutations: signing is botocore's slow part.
TOKEN = botocore_token(session_token=SESSION_TOKEN)
TOKEN_TIME = signed_at(TOKEN)
TEMPORARY = verifier(session_token=SESSION_TOKEN)


@pytest.mark.parametrize(("user", "admin"), [("app", False), ("admin", True)])
def test_accepts_what_botocore_signs(user: str, admin: bool) -> None:
    assert verify(botocore_token(admin=admin), user=user) == TokenAccepted(ARN, KEY_ID)


def test_accepts_temporary_credentials() -> None:
    assert verify(TOKEN, at=TOKEN_TIME, by=TEMPORARY) == TokenAccepted(ARN, KEY_ID)


def test_accepts_the_private_link_name() -> None:
    assert isinstance(verify(botocore_token(host=f"{CLUSTER}.dsql-fnh4.{REGION}.on.aws")), TokenAccepted)


def test_accepts_a_week() -> None:
    assert isinstance(verify(botocore_token(expires=EXPIRES_SECONDS_MAX)), TokenAccepted)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda query: "&".join(reversed(query.split("&"))),
        lambda query: query.replace("%2F", "/"),
        lambda query: query.replace("%2F", "%2f"),
        lambda query: query.replace("%3D", "="),
        lambda query: query.replace("DbConnect", "%44bConnect"),
    ],
    ids=["order", "raw slash", "lower-case escapes", "raw equals sign", "needless escape"],
)
def test_accepts_other_spellings_of_the_query(rewrite) -> None:  # type: ignore[no-untyped-def]
    host, _, query = TOKEN.partition("?")
    changed = f"{host}?{rewrite(query)}"
    assert changed != TOKEN
    assert isinstance(verify(changed, at=TOKEN_TIME, by=TEMPORARY), TokenAccepted)


def test_accepts_further_signed_parameters() -> None:
    assert isinstance(verify(own_token(X_Amz_User_Agent="sdk/1 (x)"), at=OWN_TIME), TokenAccepted)


def test_own_token_is_what_the_refusals_below_vary() -> None:
    assert isinstance(verify(own_token(), at=OWN_TIME), TokenAccepted)


def test_expiry() -> None:
    assert isinstance(verify(TOKEN, at=TOKEN_TIME + 899.9, by=TEMPORARY), TokenAccepted)
    assert hint(own_token(), at=OWN_TIME + 3600) == (
        "Signature expired: 20261123T121500Z is now earlier than 20261123T130001Z"
    )


def test_clock_skew() -> None:
    assert isinstance(verify(TOKEN, at=TOKEN_TIME - 299, by=TEMPORARY), TokenAccepted)
    assert hint(own_token(), at=OWN_TIME - 601) == (
        "Signature not yet current: 20261123T120000Z is still later than 20261123T115500Z (20261123T115000Z + 5 min.)"
    )


def test_more_than_a_week_is_refused() -> None:
    token = botocore_token(expires=EXPIRES_SECONDS_MAX + 1)
    assert "X-Amz-Expires must be less than a week (in seconds)" in hint(token)


@pytest.mark.parametrize(("user", "admin"), [("app", True), ("admin", False)])
def test_action_has_to_fit_the_role(user: str, admin: bool) -> None:
    action = "DbConnectAdmin" if admin else "DbConnect"
    assert hint(botocore_token(admin=admin), user=user) == (
        f"Wrong user to action mapping. user: {user}, action: {action}"
    )


def test_principal_without_the_action() -> None:
    limited = verifier(actions=frozenset({"DbConnect"}))
    assert isinstance(verify(botocore_token(), by=limited), TokenAccepted)
    assert hint(botocore_token(admin=True), user="admin", by=limited) == (
        f"User: {ARN} is not authorized to perform: dsql:DbConnectAdmin"
    )


@pytest.mark.parametrize("host", [f"other.dsql.{REGION}.on.aws", "localhost", f"{HOST}:5432", f"{HOST}.evil.example"])
def test_another_host_is_refused(host: str) -> None:
    assert "is not authorized to access this resource" in hint(botocore_token(host=host))


def test_another_region_service_or_day_is_refused() -> None:
    assert "valid region" in hint(botocore_token(region="eu-west-1"))
    assert "correct service" in hint(own_token(service="rds-db"), at=OWN_TIME)
    assert "Credential scope" in hint(own_token(scope_date="20261122"), at=OWN_TIME)


def test_unknown_key_and_wrong_secret_are_refused() -> None:
    assert hint(botocore_token(key_id="AKIDOTHER")) == "The security token included in the request is invalid."
    assert "signature we calculated does not match" in hint(botocore_token(secret="x" * 40))


def test_session_token_has_to_be_the_one_issued() -> None:
    invalid = "The security token included in the request is invalid."
    assert hint(botocore_token(), by=TEMPORARY) == invalid
    assert hint(TOKEN, at=TOKEN_TIME) == invalid
    assert hint(botocore_token(session_token="other"), by=TEMPORARY) == invalid


def test_expired_session_is_refused() -> None:
    ended = verifier(expires_at=time.time() - 1)
    assert hint(botocore_token(), by=ended) == "The security token included in the request has expired"


def test_rotated_secret_takes_effect_at_once() -> None:
    keys = {KEY_ID: AccessKey(SECRET, ARN)}
    rotating = TokenVerifier(keys, REGION)
    token = botocore_token()
    assert isinstance(verify(token, by=rotating), TokenAccepted)
    keys[KEY_ID] = AccessKey("another secret", ARN)
    assert isinstance(verify(token, by=rotating), TokenRefused)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "password",
        f"{HOST}/",
        f"{HOST}/?",
        f"https://{TOKEN}",
        f"{TOKEN}&Action=DbConnect",
        TOKEN.replace("/?", "/path?"),
        TOKEN.replace("%2F", "%2", 1),
        TOKEN.replace("X-Amz-Expires=900", "X-Amz-Expires=-1"),
        TOKEN.replace("X-Amz-Expires=900", "X-Amz-Expires=\u0669"),
        TOKEN.replace("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=host%3Bx"),
        TOKEN.replace("Action=DbConnect", "Action=DeleteCluster"),
        f"{TOKEN}&x={'y' * 20_000}",
        TOKEN + "".join(f"&x{number}=" for number in range(40)),
    ],
)
def test_malformed_tokens_are_refused(token: str) -> None:
    assert "malformed" in hint(token, at=TOKEN_TIME, by=TEMPORARY)


def test_a_signed_but_impossible_date_is_refused() -> None:
    assert "malformed" in hint(own_token("20261399T990000Z"), at=OWN_TIME)


def meaning(token: str) -> object:
    """What a token says, apart from its spelling; only for comparing two tokens."""
    address, _, query = token.partition("?")
    pairs = [pair.partition("=")[::2] for pair in query.split("&")]
    decoded = sorted(parse_qsl(f"{n}={v}".replace("+", "%2B"), keep_blank_values=True) for n, v in pairs)
    return address.removesuffix("/").lower(), decoded


@settings(max_examples=400, deadline=None)
@given(
    position=st.integers(0, len(TOKEN) - 1),
    replacement=st.one_of(st.characters(), st.sampled_from(["%", "&", "=", "/", "?", "+", ""])),
)
def test_any_changed_character_is_refused(position: int, replacement: str) -> None:
    changed = TOKEN[:position] + replacement + TOKEN[position + 1 :]
    outcome = verify(changed, at=TOKEN_TIME, by=TEMPORARY)
    if isinstance(outcome, TokenAccepted):
        assert meaning(changed) == meaning(TOKEN)
    else:
        assert SECRET not in outcome.hint
        assert changed[len(HOST) :] not in outcome.hint


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")), st.text("ab%&=?/.-X0", max_size=80)))
def test_arbitrary_text_is_refused(text: str) -> None:
    outcome = verify(text, at=TOKEN_TIME)
    assert isinstance(outcome, TokenRefused)
    assert not text or len(text) < 20 or text not in outcome.hint


def test_secrets_are_not_shown() -> None:
    assert SECRET not in repr(AccessKey(SECRET, ARN, SESSION_TOKEN))
    assert SESSION_TOKEN not in repr(AccessKey(SECRET, ARN, SESSION_TOKEN))
