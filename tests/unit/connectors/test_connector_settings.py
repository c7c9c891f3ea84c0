"""From connection strings and parameters to resolved settings."""

from __future__ import annotations

import pytest
from scripted_server import CLUSTER_ID, ENDPOINT

from dsql_connectors import errors
from dsql_connectors.core.conninfo import parse_conninfo
from dsql_connectors.core.settings import Settings, announced_name, resolve
from dsql_connectors.core.tls import apply_tls_defaults

NOWHERE: dict[str, str] = {}


def resolved(conninfo: str = "", environ: dict[str, str] = NOWHERE, **parameters: object) -> Settings:
    return resolve(conninfo, parameters, driver="psycopg", environ=environ)


@pytest.mark.parametrize(
    "conninfo",
    [
        f"aws-dsql://admin@{ENDPOINT}:5433/postgres?sslmode=require",
        f"aws-dsql:postgresql://{ENDPOINT}:5433/postgres?user=admin&sslmode=require",
        f"postgresql://admin@{ENDPOINT}:5433/postgres?sslmode=require",
        f"postgres://{ENDPOINT}:5433?sslmode=require",
        f"host={ENDPOINT} port = 5433 user='admin' sslmode=require",
        f"aws-dsql://{CLUSTER_ID}:5433/?region=us-east-1&sslmode=require",
    ],
)
def test_every_form_says_the_same(conninfo: str) -> None:
    settings = resolved(conninfo)
    assert (settings.host, settings.user, settings.dbname) == (ENDPOINT, "admin", "postgres")
    assert settings.parameters["port"] == "5433" and settings.parameters["sslmode"] == "require"
    assert (settings.token.signing_host, settings.token.region) == (ENDPOINT, "us-east-1")


def test_a_bare_host_and_a_bare_cluster_id() -> None:
    assert resolved(ENDPOINT).host == ENDPOINT
    assert resolved(f"{ENDPOINT}:6000").parameters["port"] == "6000"
    assert resolved(CLUSTER_ID, region="eu-west-1").host == f"{CLUSTER_ID}.dsql.eu-west-1.on.aws"
    assert resolved(host=CLUSTER_ID, environ={"AWS_REGION": "eu-west-2"}).token.region == "eu-west-2"
    assert resolved(cluster_id=CLUSTER_ID, region="us-east-1").host == ENDPOINT


def test_urls_are_percent_decoded() -> None:
    settings = resolved(f"aws-dsql://u%40x:p%2Fw@{ENDPOINT}/my%20db?application_name=caf%C3%A9&options=-c%20a%3Db")
    assert (settings.user, settings.password, settings.dbname) == ("u@x", "p/w", "my db")
    assert settings.parameters["options"] == "-c a=b"
    assert settings.parameters["application_name"] == "café:dsqlkit-psycopg/0.1.0"


def test_a_plus_is_a_plus() -> None:
    assert parse_conninfo("aws-dsql://a+b@h/?options=x+y")["options"] == "x+y"


def test_keyword_strings_take_quotes_and_escapes() -> None:
    found = parse_conninfo(r"host = h user='a b' password='it\'s' dbname=x\ y options=''")
    assert found == {"host": "h", "user": "a b", "password": "it's", "dbname": "x y"}


def test_ipv6_and_addresses() -> None:
    assert parse_conninfo("aws-dsql://admin@[::1]:5433/postgres")["host"] == "::1"
    settings = resolved("aws-dsql://[::1]:5433/postgres", cluster_id=CLUSTER_ID, region="us-east-1")
    assert settings.host == "::1" and settings.token.signing_host == ENDPOINT
    assert settings.parameters["options"] == f"-c amzn-cluster-id={CLUSTER_ID}"


def test_keyword_arguments_win_and_dashes_are_underscores() -> None:
    url = f"aws-dsql://admin@{ENDPOINT}/postgres?token-duration-secs=60&connect-timeout=3"
    settings = resolved(url, user="reader", database="other", **{"token-duration-secs": 120})
    assert (settings.user, settings.dbname, settings.token.duration_secs) == ("reader", "other", 120)
    assert settings.token.action == "DbConnect"
    assert settings.parameters["connect_timeout"] == "3"


def test_hostaddr_changes_the_socket_and_not_the_signature() -> None:
    settings = resolved(f"aws-dsql://admin@{ENDPOINT}/postgres?hostaddr=127.0.0.1")
    assert settings.parameters["hostaddr"] == "127.0.0.1" and settings.token.signing_host == ENDPOINT
    assert "options" not in settings.parameters, "the host names the cluster"


def test_privatelink_names() -> None:
    """https://github.com/hashicorp/terraform-provider-aws/issues/47596: the id alone does not give these names."""
    named = resolved(f"{CLUSTER_ID}.dsql-fnh4.eu-west-1.on.aws")
    assert named.token.region == "eu-west-1" and named.token.signing_host == named.host
    vpc = resolved("vpce-0a-b.dsql-fnh4.eu-west-1.vpce.amazonaws.com", cluster_id=CLUSTER_ID, options="-c x=1")
    assert vpc.token.signing_host == f"{CLUSTER_ID}.dsql.eu-west-1.on.aws"
    assert vpc.parameters["options"] == f"-c x=1 -c amzn-cluster-id={CLUSTER_ID}"


def test_the_region_comes_from_argument_host_environment_profile() -> None:
    environ = {"AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "eu-west-3"}
    assert resolved(ENDPOINT, environ, region="eu-west-1").token.region == "eu-west-1"
    assert resolved(ENDPOINT, environ).token.region == "us-east-1"
    assert resolved("db.example.org", environ).token.region == "eu-west-2"
    asked = []

    def of_profile(profile: str | None) -> str:
        asked.append(profile)
        return "eu-north-1"

    settings = resolve(CLUSTER_ID, {"profile": "p"}, driver="x", environ=NOWHERE, region_of_profile=of_profile)
    assert settings.token.region == "eu-north-1" and asked == ["p"]


def test_the_environment_of_libpq_counts() -> None:
    environ = {"PGHOST": ENDPOINT, "PGUSER": "reader", "PGDATABASE": "other", "PGAPPNAME": "app"}
    settings = resolved("", environ)
    assert (settings.host, settings.user, settings.dbname) == (ENDPOINT, "reader", "other")
    assert settings.parameters["application_name"].startswith("app:dsqlkit-psycopg/")


@pytest.mark.parametrize(
    ("conninfo", "parameters", "kind", "says"),
    [
        ("", {}, errors.HostError, "aws-dsql://admin@<endpoint>"),
        ("mysql://h/db", {}, errors.ConninfoError, "unknown URL scheme"),
        ("jdbc:aws-dsql:postgresql://h/db", {}, errors.ConninfoError, "leave out the leading 'jdbc:'"),
        (f"aws-dsql://{ENDPOINT}/a/b", {}, errors.ConninfoError, "one database name"),
        (f"aws-dsql://{ENDPOINT}/a?region", {}, errors.ConninfoError, "no value"),
        (f"aws-dsql://{ENDPOINT}/a?region=a&region=b", {}, errors.ConninfoError, "twice"),
        (f"aws-dsql://{ENDPOINT}/%ff", {}, errors.ConninfoError, "percent-encoded"),
        ("aws-dsql://[::1/a", {}, errors.ConninfoError, "bracket"),
        ("aws-dsql://a:1,b:2/a", {}, errors.ConninfoError, "several hosts"),
        ("::1", {}, errors.ConninfoError, "brackets"),
        ("host='h", {}, errors.ConninfoError, "unterminated"),
        ("nonsense host=h", {}, errors.ConninfoError, "missing '='"),
        (f"aws-dsql://{ENDPOINT}/a?regoin=x", {}, errors.UnknownParameterError, "did you mean 'region'"),
        (ENDPOINT, {"token_duration": 5}, errors.UnknownParameterError, "did you mean 'token_duration_secs'"),
        (ENDPOINT, {"zzzzqq": 5}, errors.UnknownParameterError, "cluster_id"),
        (ENDPOINT, {"token_duration_secs": "soon"}, errors.SettingsError, "whole number"),
        (ENDPOINT, {"token_duration_secs": 0}, errors.SettingsError, "whole number"),
        (ENDPOINT, {"port": 70000}, errors.SettingsError, "65535"),
        (ENDPOINT, {"region": "Frankfurt"}, errors.SettingsError, "us-east-1"),
        (ENDPOINT, {"cluster_id": "z" * 26}, errors.SettingsError, "but cluster_id is"),
        ("localhost", {"region": "us-east-1"}, errors.HostError, "hostaddr"),
        ("127.0.0.1", {"region": "us-east-1"}, errors.HostError, "hostaddr"),
        (CLUSTER_ID, {}, errors.MissingRegionError, "AWS_DEFAULT_REGION"),
        ("db..example/org", {"region": "us-east-1"}, errors.HostError, "not a host name"),
    ],
)
def test_bad_input_says_what_and_what_to_do(
    conninfo: str, parameters: dict[str, object], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind) as caught:
        resolved(conninfo, **parameters)
    assert says in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_errors_never_repeat_a_password() -> None:
    for conninfo in (f"aws-dsql://u:hunter2@{ENDPOINT}/a/b", "password=hunter2 host='h", "foo://u:hunter2@h/"):
        with pytest.raises(errors.SettingsError) as caught:
            resolved(conninfo)
        assert "hunter2" not in str(caught.value)


def test_the_announced_name_fits_and_keeps_ours() -> None:
    """Servers cut names off after 63 bytes."""
    name = announced_name("é" * 100, "psycopg")
    assert len(name.encode()) <= 63 and name.endswith(":dsqlkit-psycopg/0.1.0")
    assert announced_name(name, "psycopg") == name
    assert announced_name(None, "asyncpg") == "dsqlkit-asyncpg/0.1.0"


def test_tls_verifies_everything_by_default() -> None:
    parameters: dict[str, str] = {}
    apply_tls_defaults(parameters, libpq_version=180000, environ={"SSL_CERT_FILE": "/roots.pem"})
    assert parameters == {
        "sslmode": "verify-full",
        "sslrootcert": "/roots.pem",
        "sslnegotiation": "direct",
        "gssencmode": "disable",
    }
    older: dict[str, str] = {}
    apply_tls_defaults(older, libpq_version=160000, environ={})
    assert older["sslmode"] == "verify-full" and "sslnegotiation" not in older


def test_what_is_chosen_about_tls_stays() -> None:
    given = {"sslmode": "disable", "gssencmode": "prefer"}
    parameters = dict(given)
    apply_tls_defaults(parameters, libpq_version=180000, environ={})
    assert parameters == given
    parameters = {"sslrootcert": "/mine.pem"}
    environ = {"PGSSLMODE": "verify-ca", "PGSSLNEGOTIATION": "postgres", "PGGSSENCMODE": "disable"}
    apply_tls_defaults(parameters, libpq_version=180000, environ=environ)
    assert parameters == {"sslrootcert": "/mine.pem"}
