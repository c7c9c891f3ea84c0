"""Authentication tokens: presigned ``DbConnect`` and ``DbConnectAdmin`` requests, as botocore makes them.

Signing takes 0.02 ms and no network, so that every physical connect gets a token of its own and none is stored.
"""

from __future__ import annotations

from datetime import datetime, timezone

from dsql_connectors.core import telemetry
from dsql_connectors.core.credentials import AwsSession, CredentialsProvider, CredentialsSource, credentials_source
from dsql_connectors.core.settings import TokenRequest
from dsql_connectors.core.sigv4 import presign


def generate_token(
    request: TokenRequest,
    *,
    provider: CredentialsProvider | None = None,
    session: AwsSession | None = None,
) -> str:
    """A new token. Blocks while credentials are found or refreshed, which the first one always does.

    :param provider: a botocore credential provider to ask before the default chain.
    :param session: a botocore or boto3 session to take the credentials from.
    :raises CredentialsError: if there are no usable credentials.
    """
    return sign(request, _source(request, provider, session))


async def generate_token_async(
    request: TokenRequest,
    *,
    provider: CredentialsProvider | None = None,
    session: AwsSession | None = None,
) -> str:
    """As :func:`generate_token`, but finds and refreshes credentials in a thread: the event loop never waits."""
    source = _source(request, provider, session)
    if source.ready():
        return sign(request, source)
    import asyncio

    return await asyncio.to_thread(sign, request, source)


def sign(request: TokenRequest, source: CredentialsSource) -> str:
    """Sign one request with credentials of ``source``."""
    credentials = source.frozen()
    token = presign(
        request.signing_host, request.action, request.region, credentials, request.duration_secs, current_time()
    )
    telemetry.counters.add("tokens")
    return token


def current_time() -> datetime:
    """Now, in UTC."""
    return datetime.now(timezone.utc)


def _source(
    request: TokenRequest, provider: CredentialsProvider | None, session: AwsSession | None
) -> CredentialsSource:
    return credentials_source(request.profile, request.role_arn, request.region, provider, session)
