"""What is known of how a connection to Aurora DSQL is made: tokens, hosts, TLS and the words of refusals."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from typing import Any

import botocore.session
import psycopg
import pytest

from dsql_server.testing import LocalCluster

DENIED = "unable to accept connection, access denied"
WEEK_S = 604_800
EXPIRED_S_MAX = 90


def _token(cluster: LocalCluster, user: str = "admin", host: str | None = None, expires_s: int = 900) -> str:
    client = botocore.session.Session().create_client(
        "dsql",
        region_name=cluster.region,
        aws_access_key_id=cluster.access_key_id,
        aws_secret_access_key=cluster.secret_access_key,
    )
    admin, other = client.generate_db_connect_admin_auth_token, client.generate_db_connect_auth_token
    token: str = (admin if user == "admin" else other)(host or cluster.endpoint, cluster.region, expires_s)
    return token


def _connect(cluster: LocalCluster, **changes: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(**{**cluster.libpq_parameters(), **changes}, autocommit=True)


def _refusal(cluster: LocalCluster, **changes: Any) -> str:
    with pytest.raises(psycopg.OperationalError) as refused:
        _connect(cluster, **changes).close()
    return str(refused.value)


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_the_token_is_a_presigned_request_without_its_scheme(dsql_cluster: LocalCluster) -> None:
    token = _token(dsql_cluster)
    assert token.startswith(f"{dsql_cluster.endpoint}/?Action=DbConnectAdmin&X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert "%2Fdsql%2Faws4_request&" in token and "&X-Amz-SignedHeaders=host&" in token
    with _connect(dsql_cluster, password=token) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("admin",)


def test_a_token_lasts_a_week_at_most(dsql_cluster: LocalCluster) -> None:
    _connect(dsql_cluster, password=_token(dsql_cluster, expires_s=WEEK_S)).close()
    assert f"FATAL:  {DENIED}" in _refusal(dsql_cluster, password=_token(dsql_cluster, expires_s=WEEK_S + 1))


def test_a_token_counts_when_the_connection_is_made_and_never_again(dsql_cluster: LocalCluster) -> None:
    # A busy machine may need longer to connect than a short token lasts.
    for lifetime_s in (2, 10, 30):
        token = _token(dsql_cluster, expires_s=lifetime_s)
        with contextlib.suppress(psycopg.OperationalError):
            opened = _connect(dsql_cluster, password=token)
            break
    with opened as connection:
        deadline_s = time.monotonic() + EXPIRED_S_MAX
        while "HINT:  Signature expired: " not in (refusal := _refusal_or_nothing(dsql_cluster, token)):
            assert not refusal and time.monotonic() < deadline_s
        assert connection.execute("SELECT 1").fetchone() == (1,), "whoever is connected stays"


def _refusal_or_nothing(cluster: LocalCluster, token: str) -> str:
    try:
        _connect(cluster, password=token).close()
    except psycopg.OperationalError as error:
        return str(error)
    time.sleep(0.1)
    return ""


@pytest.mark.parametrize(
    ("id_", "user", "signed_for", "hint"),
    [
        ("admin-needs-its-action", "admin", "somebody", "Wrong user to action mapping. user: admin, action: DbConnect"),
        (
            "others-need-theirs",
            "somebody",
            "admin",
            "Wrong user to action mapping. user: somebody, action: DbConnectAdmin",
        ),
    ],
    ids=lambda value: value if "-" in value else "",
)
def test_the_action_fits_the_role(dsql_cluster: LocalCluster, id_: str, user: str, signed_for: str, hint: str) -> None:
    told = _refusal(dsql_cluster, user=user, password=_token(dsql_cluster, signed_for))
    assert f"FATAL:  {DENIED}\nHINT:  {hint}" in told, id_


def test_a_token_of_another_cluster(dsql_cluster: LocalCluster) -> None:
    host = dsql_cluster.endpoint.replace(dsql_cluster.cluster_id, "a" * 26)
    told = _refusal(dsql_cluster, password=_token(dsql_cluster, host=host))
    assert DENIED in told and "is not authorized to access this resource" in told


def test_a_role_that_there_is_not(dsql_cluster: LocalCluster) -> None:
    told = _refusal(dsql_cluster, user="nobody_here", password=_token(dsql_cluster, "nobody_here"))
    assert 'FATAL:  IAM authentication failed for user "nobody_here"' in told


# -- the way there ----------------------------------------------------------------------------------------------------


def test_the_endpoint_names_cluster_and_region(dsql_cluster: LocalCluster) -> None:
    """A cluster's identifier has 26 characters of 5 bits."""
    assert re.fullmatch("[a-z2-7]{26}", dsql_cluster.cluster_id)
    assert dsql_cluster.endpoint == f"{dsql_cluster.cluster_id}.dsql.{dsql_cluster.region}.on.aws"


def test_the_only_database_is_postgres(dsql_cluster: LocalCluster) -> None:
    assert 'FATAL:  database "app" does not exist' in _refusal(dsql_cluster, dbname="app")


def test_tls_is_mandatory(dsql_cluster: LocalCluster) -> None:
    assert "SSL is mandatory" in _refusal(dsql_cluster, sslmode="disable")


def test_the_server_must_be_named(dsql_cluster: LocalCluster) -> None:
    assert "unable to accept connection, sni was not received" in _refusal(
        dsql_cluster, sslsni="0", sslmode="require", password=_token(dsql_cluster)
    )


def test_tls_at_once_for_clients_that_ask_for_postgresql(dsql_cluster: LocalCluster) -> None:
    context = ssl.create_default_context(cafile=dsql_cluster.ca_file)
    context.set_alpn_protocols(["postgresql"])
    with (
        socket.create_connection((dsql_cluster.host, dsql_cluster.port)) as raw,
        context.wrap_socket(raw, server_hostname=dsql_cluster.endpoint) as inside,
    ):
        assert inside.selected_alpn_protocol() == "postgresql"


def test_a_private_link_host_is_the_cluster_too(dsql_cluster: LocalCluster) -> None:
    host = dsql_cluster.endpoint.replace(".dsql.", ".dsql-fnh4.")
    _connect(dsql_cluster, host=host, password=_token(dsql_cluster, host=host)).close()


def test_a_cluster_may_be_named_by_an_option(dsql_cluster: LocalCluster) -> None:
    """Behind a plain endpoint name no certificate fits, and the token is for the cluster's own name."""
    option = f"-c amzn-cluster-id={dsql_cluster.cluster_id}"
    with _connect(dsql_cluster, host="localhost", sslmode="require", options=option) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
