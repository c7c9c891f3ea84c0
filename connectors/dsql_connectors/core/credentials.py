"""AWS credentials from botocore's chain, found once per source and shared between threads and event loops.

botocore is imported when the first token is signed: it costs 70 ms, which an import of a connector must not.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Protocol

from dsql_connectors.core.errors import ConnectorError, CredentialsError

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

#: Sources remembered at once, the least recently used dropped first: an application that makes a new provider object
#: for every connection must not grow without bound.
SOURCES_MAX = 64

_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_FILES = (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config"))


class CredentialsProvider(Protocol):
    """As botocore's ``CredentialProvider``: ``load`` hands back botocore credentials, or None for the default chain."""

    def load(self) -> Any: ...


class AwsSession(Protocol):
    """A botocore or boto3 session."""

    def get_credentials(self) -> Any: ...


class CredentialsSource:
    """Where credentials come from. Safe to share between threads; refreshable credentials refresh themselves."""

    def __init__(
        self,
        profile: str | None = None,
        role_arn: str | None = None,
        region: str | None = None,
        provider: CredentialsProvider | None = None,
        session: AwsSession | None = None,
    ) -> None:
        """:param region: where to reach STS, for ``role_arn`` only."""
        self._profile = profile
        self._role_arn = role_arn
        self._region = region
        self._provider = provider
        self._session = session
        self._lock = threading.Lock()
        self._credentials: Any = None

    def ready(self) -> bool:
        """Whether :meth:`frozen` answers at once, without reading files or asking a network service."""
        credentials = self._credentials
        if credentials is None:
            return False
        refresh_needed = getattr(credentials, "refresh_needed", None)
        return refresh_needed is None or not refresh_needed()

    def frozen(self) -> ReadOnlyCredentials:
        """The access key, secret key and session token valid now. Blocks while they are found or refreshed.

        :raises CredentialsError: naming the sources tried.
        """
        try:
            return self._resolved().get_frozen_credentials()
        except ConnectorError:
            raise
        except Exception as error:
            raise CredentialsError(self._failure(error)) from error

    def _resolved(self) -> Any:
        credentials = self._credentials
        if credentials is not None:
            return credentials
        with self._lock:
            if self._credentials is None:
                found = self._find()
                # A provider of its own making may rotate keys that don't refresh themselves: ask it each time.
                if self._provider is not None and not hasattr(found, "refresh_needed"):
                    return found
                self._credentials = found
            return self._credentials

    def _find(self) -> Any:
        if self._provider is not None:
            loaded = self._provider.load()
            if loaded is not None:
                return loaded
        session = self._session
        if session is None:
            from botocore.session import Session

            session = Session(profile=self._profile)
        found = session.get_credentials()
        if found is None:
            raise CredentialsError(
                f"no AWS credentials found; tried {self._tried(session)}; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, run 'aws configure' or 'aws sso login', or give profile or credentials_provider"
            )
        return found if self._role_arn is None else self._assumed(session, found)

    def _assumed(self, session: Any, found: Any) -> Any:
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

        botocore_session = getattr(session, "_session", session)  # a boto3 session wraps one of botocore
        region = self._region

        def client(service: str, **arguments: Any) -> Any:
            arguments.setdefault("region_name", region)
            return botocore_session.create_client(service, **arguments)

        fetcher = AssumeRoleCredentialFetcher(client, found, self._role_arn)
        return DeferredRefreshableCredentials(fetcher.fetch_credentials, method="assume-role")

    def _tried(self, session: Any) -> str:
        try:
            resolver = getattr(session, "_session", session).get_component("credential_provider")
            names = [str(provider.METHOD) for provider in resolver.providers]
        except Exception:
            names = ["the given session"]
        if self._provider is not None:
            names.insert(0, "the given credentials provider")
        where = f" (profile {self._profile!r})" if self._profile else ""
        return ", ".join(names) + where

    def _failure(self, error: Exception) -> str:
        parts = ["the given credentials provider"] if self._provider is not None else []
        if self._session is not None:
            parts.append("the given session")
        if self._role_arn is not None:
            parts.append(f"assuming role {self._role_arn}")
        if self._profile is not None:
            parts.append(f"profile {self._profile!r}")
        if not parts:
            parts.append("the default AWS credential chain")
        remedy = "renew the credentials ('aws sso login', or new keys) or name another profile, provider or role"
        return f"no usable AWS credentials from {', '.join(parts)}: {type(error).__name__}: {error}; {remedy}"


_sources: OrderedDict[Hashable, CredentialsSource] = OrderedDict()
_sources_lock = threading.Lock()


def credentials_source(
    profile: str | None = None,
    role_arn: str | None = None,
    region: str | None = None,
    provider: CredentialsProvider | None = None,
    session: AwsSession | None = None,
) -> CredentialsSource:
    """The source shared by everybody who asks for the same; a new one when the environment or AWS files changed."""
    surroundings = _surroundings() if provider is None and session is None else 0
    # The source keeps provider and session alive, so that their ids stay theirs.
    key = (profile, role_arn, region if role_arn is not None else None, id(provider), id(session), surroundings)
    with _sources_lock:
        source = _sources.get(key)
        if source is not None:
            _sources.move_to_end(key)
            return source
        source = _sources[key] = CredentialsSource(profile, role_arn, region, provider, session)
        while len(_sources) > SOURCES_MAX:
            _sources.popitem(last=False)
        return source


def _surroundings() -> int:
    """A fingerprint of what the default chain reads, so that rotated keys are taken up without a restart."""
    environ = os.environ
    found: list[Hashable] = [environ.get(name) for name in _ENVIRONMENT]
    for variable, default in _FILES:
        try:
            status = os.stat(os.path.expanduser(environ.get(variable) or default))
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            found.append(None)
    return hash(tuple(found))


def region_of_profile(profile: str | None) -> str | None:
    """The region that the AWS configuration files give for a profile. Reads files.

    :raises CredentialsError: if there is no such profile.
    """
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        region = Session(profile=profile).get_config_variable("region")
    except BotoCoreError as error:
        raise CredentialsError(
            f"can't read the AWS profile: {error}; 'aws configure list-profiles' lists yours"
        ) from error
    return str(region) if region else None
