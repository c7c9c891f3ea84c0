"""Authentication tokens: presigned ``DbConnect`` and ``DbConnectAdmin`` requests, as botocore's generator makes them.

Signing takes 0.1 ms and no network, so that every physical connect gets a token of its own and none is stored.
"""

from __future__ import annotations

import asyncio

from dsql_connectors.core import telemetry
from dsql_connectors.core.credentials import AwsSession, CredentialsProvider, CredentialsSource, credentials_source
from dsql_connectors.core.settings import TokenRequest

SIGNING_NAME = "dsql"
_SCHEME = "https://"


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
    return await asyncio.to_thread(sign, request, source)


def sign(request: TokenRequest, source: CredentialsSource) -> str:
    """Sign one request with credentials of ``source``."""
    credentials = source.frozen()
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    signed = AWSRequest(method="GET", url=f"{_SCHEME}{request.signing_host}/", params={"Action": request.action})
    SigV4QueryAuth(credentials, SIGNING_NAME, request.region, request.duration_secs).add_auth(signed)
    telemetry.counters.add("tokens")
    url: str = signed.url
    assert url.startswith(_SCHEME)
    return url[len(_SCHEME) :]


def _source(
    request: TokenRequest, provider: CredentialsProvider | None, session: AwsSession | None
) -> CredentialsSource:
    return credentials_source(request.profile, request.role_arn, request.region, provider, session)
