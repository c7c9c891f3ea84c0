"""Authentication tokens, made by botocore's own generator."""

from __future__ import annotations

import functools
import re
from typing import Any

#: botocore clients kept for tokens of given credentials: one a local cluster.
CLIENTS_MAX = 8
#: ``<id>.dsql.<region>.on.aws`` and, over PrivateLink, ``<id>.dsql-<suffix>.<region>.on.aws``.
_ENDPOINT = re.compile(r"[a-z0-9]+\.dsql(?:-[a-z0-9]+)?\.(?P<region>[a-z0-9-]+)\.on\.aws")


class TokenError(Exception):
    """No token could be made; the text says what is missing and how to give it."""


def generate_token(
    host: str,
    region: str | None,
    *,
    admin: bool,
    expires_s: int,
    profile: str | None = None,
    credentials: tuple[str, str] | None = None,
) -> str:
    """A presigned token for one cluster, valid for ``expires_s`` seconds from now.

    :param host: the cluster's endpoint, without a port.
    :param region: None takes it from the endpoint's name, else from the AWS configuration.
    :param admin: for the role admin; otherwise for any other database role.
    :param profile: AWS profile; None for the default credential chain.
    :param credentials: access key id and secret access key, in place of the chain.
    :raises TokenError: no region, no credentials, or botocore's refusal.
    """
    from botocore.exceptions import BotoCoreError

    region = region or _region_of(host)
    try:
        if credentials is not None and region and profile is None:
            client = _client_with(*credentials, region)
        else:
            client, region = _client_of(host, region, profile, credentials)
        generate = client.generate_db_connect_admin_auth_token if admin else client.generate_db_connect_auth_token
        text: str = generate(host, region, expires_s)
    except BotoCoreError as error:
        raise TokenError(f"botocore made no token: {error}") from error
    return text


@functools.lru_cache(maxsize=CLIENTS_MAX)
def _client_with(access_key_id: str, secret_access_key: str, region: str) -> Any:
    """A botocore client with these credentials, made once: it costs 40 ms, and each token from it 0.1 ms."""
    from botocore.session import Session

    session = Session()
    session.set_credentials(access_key_id, secret_access_key)
    return session.create_client("dsql", region_name=region)


def _client_of(
    host: str, region: str | None, profile: str | None, credentials: tuple[str, str] | None
) -> tuple[Any, str]:
    """A botocore client and its region, both from the AWS configuration where they aren't given."""
    from botocore.session import Session

    session = Session(profile=profile)
    if credentials is not None:
        session.set_credentials(*credentials)
    elif session.get_credentials() is None:
        raise TokenError("no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile")
    region = region or session.get_config_variable("region")
    if not region:
        raise TokenError(f"the region of {host!r} is not known: give --region or set AWS_REGION")
    return session.create_client("dsql", region_name=region), region


def _region_of(host: str) -> str | None:
    match = _ENDPOINT.fullmatch(host)
    return match["region"] if match else None
