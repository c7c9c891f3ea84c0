"""Verify authentication tokens: SigV4 presigned ``DbConnect`` requests, sent as the password.

A token is accepted when one of the known access keys signed it for this cluster, this region, this moment and an
action that fits the database role. Nothing in a refusal quotes the token.
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

#: SQLSTATE and message of every refusal; the hint says why.
ACCESS_DENIED_SQLSTATE = "08006"
ACCESS_DENIED_MESSAGE = "unable to accept connection, access denied"

#: The predefined role, which only ``DbConnectAdmin`` may log in as.
ADMIN_ROLE = "admin"
ACTION_CONNECT = "DbConnect"
ACTION_CONNECT_ADMIN = "DbConnectAdmin"

SERVICE = "dsql"
ALGORITHM = "AWS4-HMAC-SHA256"
PRIVATE_LINK_SERVICE = "dsql-fnh4"

TOKEN_LENGTH_MAX = 16_384
PARAMETERS_MAX = 32
EXPIRES_SECONDS_MAX = 604_800
CLOCK_SKEW_SECONDS_MAX = 300
SIGNING_KEYS_MAX = 256

_HINT_MALFORMED = "The authentication token is malformed. Generate a new one with an AWS SDK or the AWS CLI."
_HINT_UNKNOWN_KEY = "The security token included in the request is invalid."
_HINT_SESSION_EXPIRED = "The security token included in the request has expired"
_HINT_SIGNATURE = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method."
)
_HINT_EXPIRES_MAX = (
    "X-Amz-Expires must be less than a week (in seconds); "
    f"that is, the given X-Amz-Expires must be less than {EXPIRES_SECONDS_MAX} seconds"
)
_HINT_SCOPE_DATE = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP"

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EMPTY_BODY_SHA256 = hashlib.sha256(b"").hexdigest()

# Escapes in upper case, none for unreserved characters: the form that signers sign.
_CANONICAL = re.compile(
    r"[A-Za-z0-9._~-]*"
    r"(?:%(?!2[DE]|3[0-9]|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])[0-9A-F]{2}[A-Za-z0-9._~-]*)*"
)
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?")
_DATE_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SECONDS = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")


class AccessKey(NamedTuple):
    """What the server knows of an access key.

    ``session_token`` is set for temporary credentials, ``expires_at`` (seconds since the Unix epoch) when they end.
    ``actions`` are the IAM actions that the principal may take on this cluster; None means both. Without an IAM
    beside it, a cluster has one access key for whoever develops against it: that key ``stands_for_any`` IAM identity.
    """

    secret: str
    principal_arn: str
    session_token: str | None = None
    expires_at: float | None = None
    actions: frozenset[str] | None = None
    stands_for_any: bool = False

    def __repr__(self) -> str:
        return f"AccessKey(principal_arn={self.principal_arn!r})"


class TokenAccepted(NamedTuple):
    """Who connects."""

    principal_arn: str
    access_key_id: str
    stands_for_any: bool = False  #: trusted by a role that trusts any IAM identity


class TokenRefused(NamedTuple):
    """Why nobody connects: the message and hint of the FATAL error."""

    message: str
    hint: str


class _Refusal(Exception):
    """Carries a hint out of the checks; never leaves this module."""


class _Token(NamedTuple):
    """A well-formed token, taken apart. ``canonical_query`` lacks the signature; ``parameters`` are decoded."""

    host: str
    canonical_query: str
    parameters: dict[str, str]
    signature: str


def endpoint_hostnames(
    cluster_id: str, region: str, private_link_services: Iterable[str] = (PRIVATE_LINK_SERVICE,)
) -> frozenset[str]:
    """The host names by which a cluster is reached: its public endpoint and its PrivateLink ones."""
    services = (SERVICE, *private_link_services)
    return frozenset(f"{cluster_id}.{service}.{region}.on.aws" for service in services)


class TokenVerifier:
    """Checks tokens against the access keys of one region. ``access_keys`` (by id) is read at every call."""

    def __init__(self, access_keys: Mapping[str, AccessKey], region: str) -> None:
        self._access_keys = access_keys
        self._region = region
        self._signing_keys: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()
        # Stands in for keys that we don't know, so that they take as long as those that we do.
        self._unknown_key = AccessKey(secrets.token_urlsafe(30), "")

    def verify(self, token: str, *, hostnames: Collection[str], user: str, now: float) -> TokenAccepted | TokenRefused:
        """Decide on a login as ``user`` at a cluster with these ``hostnames`` (lower case).

        ``now`` is in seconds since the Unix epoch. Never raises, whatever the token is.
        """
        assert not isinstance(hostnames, str), "a collection of host names"
        try:
            return self._verify(token, hostnames, user, now)
        except _Refusal as refusal:
            return TokenRefused(ACCESS_DENIED_MESSAGE, str(refusal))

    def _verify(self, text: str, hostnames: Collection[str], user: str, now: float) -> TokenAccepted:
        token = _parse(text)
        parameters = token.parameters
        date_time = parameters["X-Amz-Date"]
        access_key_id, date = self._check_scope(parameters["X-Amz-Credential"], date_time)
        key = self._authenticate(token, access_key_id, date)
        # From here on the caller holds the secret, so a hint may say what is wrong.
        _check_session(key, parameters.get("X-Amz-Security-Token"), now)
        _check_time(date_time, parameters["X-Amz-Expires"], now)
        if token.host not in hostnames:
            raise _Refusal(f"User: {key.principal_arn} is not authorized to access this resource")
        _check_action(key, parameters["Action"], user)
        return TokenAccepted(key.principal_arn, access_key_id, key.stands_for_any)

    def _check_scope(self, credential: str, date_time: str) -> tuple[str, str]:
        """The access key id and the date of ``<id>/<date>/<region>/dsql/aws4_request``."""
        parts = credential.split("/")
        if len(parts) != 5 or not parts[0] or parts[4] != "aws4_request":
            raise _Refusal(_HINT_MALFORMED)
        access_key_id, date, region, service, _ = parts
        if service != SERVICE:
            raise _Refusal(f"Credential should be scoped to correct service: '{SERVICE}'.")
        if region != self._region:
            raise _Refusal(f"Credential should be scoped to a valid region: '{self._region}'.")
        if date != date_time[:8]:
            raise _Refusal(_HINT_SCOPE_DATE)
        return access_key_id, date

    def _authenticate(self, token: _Token, access_key_id: str, date: str) -> AccessKey:
        key = self._access_keys.get(access_key_id)
        signing_key = self._signing_key(key or self._unknown_key, date)
        canonical_request = f"GET\n/\n{token.canonical_query}\nhost:{token.host}\n\nhost\n{_EMPTY_BODY_SHA256}"
        to_sign = (
            f"{ALGORITHM}\n{token.parameters['X-Amz-Date']}\n{date}/{self._region}/{SERVICE}/aws4_request\n"
            f"{hashlib.sha256(canonical_request.encode()).hexdigest()}"
        )
        expected = hmac.digest(signing_key, to_sign.encode(), "sha256").hex()
        matches = hmac.compare_digest(expected, token.signature)
        if key is None:
            raise _Refusal(_HINT_UNKNOWN_KEY)
        if not matches:
            raise _Refusal(_HINT_SIGNATURE)
        return key

    def _signing_key(self, key: AccessKey, date: str) -> bytes:
        """The day's signing key, remembered by secret: a rotated secret never meets an old signing key."""
        name = (key.secret, date, self._region)
        found = self._signing_keys.get(name)
        if found is not None:
            return found
        derived = f"AWS4{key.secret}".encode()
        for part in (date, self._region, SERVICE, "aws4_request"):
            derived = hmac.digest(derived, part.encode(), "sha256")
        if len(self._signing_keys) >= SIGNING_KEYS_MAX:
            self._signing_keys.popitem(last=False)
        self._signing_keys[name] = derived
        return derived


def _parse(text: str) -> _Token:
    """Take a token apart: ``<host>/?<query>`` with every parameter once, in any order and percent-encoding."""
    if len(text) > TOKEN_LENGTH_MAX or not text.isascii():
        raise _Refusal(_HINT_MALFORMED)
    address, question_mark, query = text.partition("?")
    host = address[:-1] if address.endswith("/") else address
    pairs = query.split("&", PARAMETERS_MAX)
    if not question_mark or not _HOST.fullmatch(host) or len(pairs) > PARAMETERS_MAX:
        raise _Refusal(_HINT_MALFORMED)
    encoded: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        name = _canonical(name)
        if name in encoded:
            raise _Refusal(_HINT_MALFORMED)
        encoded[name] = _canonical(value)
    signature = encoded.pop("X-Amz-Signature", "")
    parameters = {_decoded(name): _decoded(value) for name, value in encoded.items()}
    _check_form(parameters, signature)
    canonical_query = "&".join([f"{name}={value}" for name, value in sorted(encoded.items())])
    return _Token(host.lower(), canonical_query, parameters, signature)


def _canonical(encoded: str) -> str:
    """The one percent-encoding of a name or value that signers sign; a plus sign stands for itself."""
    if _CANONICAL.fullmatch(encoded):
        return encoded
    if _BROKEN_ESCAPE.search(encoded):
        raise _Refusal(_HINT_MALFORMED)
    return quote(unquote_to_bytes(encoded), safe="-_.~")


def _decoded(canonical: str) -> str:
    if "%" not in canonical:
        return canonical
    return unquote_to_bytes(canonical).decode("utf-8", "replace")


def _check_form(parameters: Mapping[str, str], signature: str) -> None:
    """Every parameter that a token has to have is there and looks like it; dates are checked later."""
    well_formed = (
        parameters.get("X-Amz-Algorithm") == ALGORITHM
        and parameters.get("X-Amz-SignedHeaders") == "host"
        and parameters.get("Action") in (ACTION_CONNECT, ACTION_CONNECT_ADMIN)
        and "X-Amz-Credential" in parameters
        and _DATE_TIME.fullmatch(parameters.get("X-Amz-Date", ""))
        and _SECONDS.fullmatch(parameters.get("X-Amz-Expires", ""))
        and _SIGNATURE.fullmatch(signature)
    )
    if not well_formed:
        raise _Refusal(_HINT_MALFORMED)


def _check_session(key: AccessKey, session_token: str | None, now: float) -> None:
    if not hmac.compare_digest((key.session_token or "").encode(), (session_token or "").encode()):
        raise _Refusal(_HINT_UNKNOWN_KEY)
    if key.expires_at is not None and now >= key.expires_at:
        raise _Refusal(_HINT_SESSION_EXPIRED)


def _check_time(date_time: str, expires: str, now: float) -> None:
    expires_seconds = int(expires)
    if expires_seconds > EXPIRES_SECONDS_MAX:
        raise _Refusal(_HINT_EXPIRES_MAX)
    signed_at = _epoch_seconds(date_time)
    if now >= signed_at + expires_seconds:
        ended = _iso_basic(signed_at + expires_seconds)
        raise _Refusal(f"Signature expired: {ended} is now earlier than {_iso_basic(now)}")
    if now < signed_at - CLOCK_SKEW_SECONDS_MAX:
        latest = _iso_basic(now + CLOCK_SKEW_SECONDS_MAX)
        raise _Refusal(
            f"Signature not yet current: {date_time} is still later than {latest} "
            f"({_iso_basic(now)} + {CLOCK_SKEW_SECONDS_MAX // 60} min.)"
        )


def _check_action(key: AccessKey, action: str, user: str) -> None:
    if (action == ACTION_CONNECT_ADMIN) != (user == ADMIN_ROLE):
        raise _Refusal(f"Wrong user to action mapping. user: {user}, action: {action}")
    if key.actions is not None and action not in key.actions:
        raise _Refusal(f"User: {key.principal_arn} is not authorized to perform: {SERVICE}:{action}")


def _epoch_seconds(date_time: str) -> int:
    """Seconds since the Unix epoch of ``YYYYMMDDTHHMMSSZ``."""
    try:
        fields = (date_time[:4], date_time[4:6], date_time[6:8], date_time[9:11], date_time[11:13], date_time[13:15])
        year, month, day, hour, minute, second = map(int, fields)
        return calendar.timegm(datetime(year, month, day, hour, minute, second).timetuple())
    except ValueError:
        raise _Refusal(_HINT_MALFORMED) from None


def _iso_basic(seconds: float) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y%m%dT%H%M%SZ")
