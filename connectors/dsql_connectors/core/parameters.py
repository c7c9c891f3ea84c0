"""The names of connection parameters: the connector's own, libpq's, and what a near miss probably meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dsql_connectors.core.errors import ConninfoError, UnknownParameterError

#: Understood by the connector and never passed to the driver.
OWN_PARAMETERS = frozenset({"region", "profile", "token_duration_secs", "cluster_id", "role_arn"})

#: Connection parameters of libpq 18. They are passed on; the libpq in use refuses the ones that it is too old for.
LIBPQ_PARAMETERS = frozenset(
    {
        "application_name",
        "channel_binding",
        "client_encoding",
        "connect_timeout",
        "dbname",
        "fallback_application_name",
        "gssdelegation",
        "gssencmode",
        "gsslib",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_issuer",
        "oauth_scope",
        "options",
        "passfile",
        "password",
        "port",
        "replication",
        "require_auth",
        "requirepeer",
        "requiressl",
        "scram_client_key",
        "scram_server_key",
        "service",
        "servicefile",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcertmode",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslkeylogfile",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    }
)

_ALIASES = {"database": "dbname", "amzn_cluster_id": "cluster_id"}


def canonical_name(name: str) -> str:
    """``token-duration-secs`` is ``token_duration_secs``, ``database`` is ``dbname``."""
    underscored = name.replace("-", "_")
    return _ALIASES.get(underscored, underscored)


def canonical_parameters(given: Mapping[str, object], driver_parameters: Collection[str]) -> dict[str, object]:
    """``given`` under canonical names, without those that are None.

    :param driver_parameters: names that only the driver in use knows, beside libpq's.
    :raises UnknownParameterError: for a name that nobody knows.
    :raises ConninfoError: for one parameter given twice, as with ``-`` and with ``_``.
    """
    found: dict[str, object] = {}
    for name, value in given.items():
        canonical = canonical_name(name)
        if not (canonical in OWN_PARAMETERS or canonical in LIBPQ_PARAMETERS or canonical in driver_parameters):
            raise UnknownParameterError(_unknown(name, canonical, driver_parameters))
        if value is None:
            continue
        if canonical in found and found[canonical] != value:
            raise ConninfoError(f"connection parameter {canonical!r} is given twice, with different values; keep one")
        found[canonical] = value
    return found


def _unknown(name: str, canonical: str, driver_parameters: Collection[str]) -> str:
    import difflib

    known = sorted(OWN_PARAMETERS | LIBPQ_PARAMETERS | set(driver_parameters))
    near = difflib.get_close_matches(canonical.lower(), known, n=1, cutoff=0.5)
    if near:
        return f"unknown connection parameter {name!r}; did you mean {near[0]!r}?"
    own = ", ".join(sorted(OWN_PARAMETERS))
    return f"unknown connection parameter {name!r}; the connector's own are {own}, the others are libpq's"
