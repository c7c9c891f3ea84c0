"""Which cluster, in which region, and the host name that a token must be signed for.

The host that the socket connects to and the host that the token names need not be the same: through a VPC endpoint or
to a server on this machine, the address says nothing about the cluster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dsql_connectors.core.errors import HostError, MissingRegionError, SettingsError

#: <cluster id>.dsql.<region>.on.aws, and .dsql-<service id>. for AWS PrivateLink.
_CLUSTER_HOST = re.compile(r"(?P<id>[a-z0-9]+)\.dsql(?:-[a-z0-9]+)?\.(?P<region>[a-z0-9-]+)\.on\.aws\.?")
_VPC_ENDPOINT_HOST = re.compile(r".+\.(?P<region>[a-z]{2}(?:-[a-z]+)+-\d+)\.vpce\.amazonaws\.com(?:\.cn)?\.?")
_CLUSTER_ID = re.compile(r"[a-z0-9]{26}")
_REGION = re.compile(r"[a-z]{2,}(?:-[a-z0-9]+)+")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")

REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


class Endpoint(NamedTuple):
    host: str  #: the name for TLS, and to resolve unless ``hostaddr`` is given
    signing_host: str  #: the name that the token is signed for
    region: str
    cluster_id: str | None  #: to be sent along, because ``host`` doesn't name the cluster; else None


def resolve_endpoint(
    host: str | None,
    cluster_id: str | None,
    region: str | None,
    *,
    environ: Mapping[str, str],
    profile: str | None = None,
    region_of_profile: Callable[[str | None], str | None] | None = None,
) -> Endpoint:
    """Complete what was given. The region is the argument's, the host's, the environment's or the profile's.

    :param host: a host name, an IP address or a bare cluster id.
    :param region_of_profile: reads the AWS configuration files; None leaves them out.
    :raises HostError: if no cluster can be told.
    :raises MissingRegionError: if no region can be told.
    :raises SettingsError: if host and cluster id contradict each other, or the region isn't one.
    """
    if cluster_id is not None and not _CLUSTER_ID.fullmatch(cluster_id):
        raise HostError(f"cluster_id {cluster_id!r} is not a cluster id (26 lower-case letters and digits)")
    if host is not None and _CLUSTER_ID.fullmatch(host):
        if cluster_id not in (None, host):
            raise SettingsError(f"the host names cluster {host!r}, but cluster_id is {cluster_id!r}; leave one out")
        host, cluster_id = None, host
    if host is None and cluster_id is None:
        raise HostError("no host: give the cluster's endpoint, as in aws-dsql://admin@<endpoint>/postgres")

    lowered = host.lower() if host is not None else ""
    named = _CLUSTER_HOST.fullmatch(lowered)
    found = region or _region_of_host(lowered) or _region_elsewhere(host, environ, profile, region_of_profile)
    if not _REGION.fullmatch(found):
        raise SettingsError(f"region {found!r} is not an AWS region such as us-east-1")
    cluster_host = f"{cluster_id}.dsql.{found}.on.aws"
    if host is None:
        return Endpoint(cluster_host, cluster_host, found, None)
    if named is not None:
        if cluster_id not in (None, named["id"]):
            raise SettingsError(f"the host names cluster {named['id']!r}, but cluster_id is {cluster_id!r}")
        return Endpoint(host, lowered, found, None)
    if cluster_id is not None:
        return Endpoint(host, cluster_host, found, cluster_id)
    _check_signable(host)
    return Endpoint(host, lowered, found, None)


def _region_of_host(host: str) -> str | None:
    match = _CLUSTER_HOST.fullmatch(host) or _VPC_ENDPOINT_HOST.fullmatch(host)
    return match["region"] if match else None


def _region_elsewhere(
    host: str | None,
    environ: Mapping[str, str],
    profile: str | None,
    region_of_profile: Callable[[str | None], str | None] | None,
) -> str:
    for variable in REGION_VARIABLES:
        if environ.get(variable):
            return environ[variable]
    region = region_of_profile(profile) if region_of_profile is not None else None
    if region:
        return region
    raise MissingRegionError(
        f"no AWS region: looked at the 'region' parameter, the host ({host or 'a bare cluster id'}), the environment "
        f"({', '.join(REGION_VARIABLES)}) and the AWS profile ({profile or environ.get('AWS_PROFILE') or 'default'}); "
        "give region=us-east-1, say"
    )


def _check_signable(host: str) -> None:
    """Other names are signed as they stand (a partition with another domain); an address can't be."""
    is_address = ":" in host or host.replace(".", "").isdigit()
    if is_address or "." not in host:
        raise HostError(
            f"host {host!r} is neither a cluster's endpoint nor a cluster id (26 lower-case letters and digits), so it "
            "doesn't say which cluster to sign for; give the endpoint as host and the address as hostaddr, or "
            "cluster_id"
        )
    if not _HOST.fullmatch(host):
        raise HostError(f"host {host!r} is not a host name")
