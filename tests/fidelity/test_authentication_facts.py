"""What is known of how Aurora DSQL lets clients in: IAM identities, roles and the mappings between them."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection

from dsql_server.testing import LocalCluster

ROLE_ARN = "arn:aws:iam::123456789012:role/app"
USER_ARN = "arn:aws:iam::123456789012:user/somebody"


@pytest.fixture
def admin(dsql_cluster: LocalCluster, dsql_url: str) -> Iterator[Connection]:
    with dsql_cluster.connect(autocommit=True) as connection:
        yield connection
        for role, arn in connection.execute("SELECT pg_role_name, arn FROM sys.iam_pg_role_mappings").fetchall():
            connection.execute(f"AWS IAM REVOKE \"{role}\" FROM '{arn}'")
        for (role,) in connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'fact%'").fetchall():
            connection.execute(f'DROP ROLE "{role}"')


def _is_let_in(cluster: LocalCluster, role: str) -> bool:
    """Whether a client may connect as the role; a refusal has the recorded words."""
    try:
        cluster.connect(role, autocommit=True).close()
    except psycopg.OperationalError as error:
        assert f'FATAL:  IAM authentication failed for user "{role}"' in str(error)
        assert "AWS IAM GRANT" in str(error), "the hint names the remedy"
        return False
    return True


def test_a_role_without_a_mapping_is_not_let_in(dsql_cluster: LocalCluster, admin: Connection) -> None:
    admin.execute("CREATE ROLE fact_login WITH LOGIN")
    assert not _is_let_in(dsql_cluster, "fact_login")
    admin.execute(f"AWS IAM GRANT fact_login TO '{ROLE_ARN}'")
    assert _is_let_in(dsql_cluster, "fact_login")
    admin.execute(f"AWS IAM REVOKE fact_login FROM '{ROLE_ARN}'")
    assert not _is_let_in(dsql_cluster, "fact_login")


def test_a_mapping_follows_its_role_to_another_name(dsql_cluster: LocalCluster, admin: Connection) -> None:
    admin.execute("CREATE ROLE fact_before WITH LOGIN")
    admin.execute(f"AWS IAM GRANT fact_before TO '{ROLE_ARN}'")
    admin.execute("ALTER ROLE fact_before RENAME TO fact_after")
    mapped = admin.execute("SELECT pg_role_name, pg_role_oid::regrole::text FROM sys.iam_pg_role_mappings").fetchall()
    assert mapped == [("fact_after", "fact_after")]
    assert _is_let_in(dsql_cluster, "fact_after") and not _is_let_in(dsql_cluster, "fact_before")


def test_several_identities_may_connect_as_one_role(dsql_cluster: LocalCluster, admin: Connection) -> None:
    admin.execute("CREATE ROLE fact_shared WITH LOGIN")
    for arn in (ROLE_ARN, USER_ARN):
        admin.execute(f"AWS IAM GRANT fact_shared TO '{arn}'")
    arns = admin.execute("SELECT arn FROM sys.iam_pg_role_mappings ORDER BY arn").fetchall()
    assert arns == [(ROLE_ARN,), (USER_ARN,)]
    admin.execute(f"AWS IAM REVOKE fact_shared FROM '{ROLE_ARN}'")
    assert _is_let_in(dsql_cluster, "fact_shared"), "the other one is still trusted"


def test_what_a_mapping_tells(admin: Connection) -> None:
    admin.execute("CREATE ROLE fact_listed WITH LOGIN")
    admin.execute(f"AWS IAM GRANT fact_listed TO '{ROLE_ARN}'")
    listed = admin.execute("SELECT * FROM sys.iam_pg_role_mappings")
    assert [c.name for c in listed.description or ()] == [
        "iam_oid",
        "arn",
        "pg_role_oid",
        "pg_role_name",
        "grantor_pg_role_oid",
        "grantor_pg_role_name",
    ]
    (_, arn, role_oid, role, grantor_oid, grantor) = listed.fetchone() or ()
    assert (arn, role, grantor_oid, grantor) == (ROLE_ARN, "fact_listed", 15579, "admin")
    assert admin.execute("SELECT oid FROM pg_roles WHERE rolname = 'fact_listed'").fetchone() == (role_oid,)


@pytest.mark.parametrize(
    ("id_", "statement", "sqlstate", "message"),
    [
        (
            "needs-login",
            f"AWS IAM GRANT fact_group TO '{ROLE_ARN}'",
            "0A000",
            "role fact_group must have the LOGIN attribute",
        ),
        ("arn-form", "AWS IAM GRANT fact_login TO 'app'", "22023", "IAM role must look like an IAM ARN"),
        ("not-admin", f"AWS IAM GRANT admin TO '{ROLE_ARN}'", "0A000", "Role admin not supported"),
        (
            "predefined-role",
            f"AWS IAM GRANT pg_read_all_data TO '{ROLE_ARN}'",
            "0A000",
            "Cannot establish trust with role pg_read_all_data",
        ),
        ("unknown-role", f"AWS IAM GRANT fact_missing TO '{ROLE_ARN}'", "42704", 'role "fact_missing" does not exist'),
        (
            "drop-mapped",
            "DROP ROLE fact_mapped",
            "2BP01",
            'role "fact_mapped" cannot be dropped because some objects depend on it',
        ),
        ("admin-stays", "DROP ROLE admin", "0A000", "feature not supported on system entity"),
        ("admin-rename", "ALTER ROLE admin RENAME TO root", "0A000", "feature not supported on system entity"),
        ("admin-alter", "ALTER ROLE admin NOLOGIN", "0A000", "feature not supported on system entity"),
        ("superuser", "CREATE ROLE fact_root SUPERUSER", "0A000", "role option SUPERUSER not supported"),
        ("password", "CREATE ROLE fact_pw PASSWORD 'x'", "0A000", "role option PASSWORD not supported"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.count(" ") == 0 else "",
)
def test_refused(admin: Connection, id_: str, statement: str, sqlstate: str, message: str) -> None:
    admin.execute("CREATE ROLE fact_login WITH LOGIN")
    admin.execute("CREATE ROLE fact_group")
    admin.execute("CREATE ROLE fact_mapped WITH LOGIN")
    admin.execute(f"AWS IAM GRANT fact_mapped TO '{ROLE_ARN}'")
    with pytest.raises(psycopg.Error) as refused:
        admin.execute(statement)  # type: ignore[call-overload]
    assert (refused.value.sqlstate, refused.value.diag.message_primary) == (sqlstate, message), id_


def test_only_admin_trusts_and_creates(dsql_cluster: LocalCluster, admin: Connection) -> None:
    admin.execute("CREATE ROLE fact_clerk WITH LOGIN")
    admin.execute(f"AWS IAM GRANT fact_clerk TO '{ROLE_ARN}'")
    with dsql_cluster.connect("fact_clerk", autocommit=True) as clerk:
        for statement, message in (
            (f"AWS IAM GRANT fact_clerk TO '{USER_ARN}'", "permission denied to grant IAM trust with role fact_clerk"),
            ("CREATE SCHEMA mine", "permission denied for database postgres"),
            ("CREATE TABLE mine (id int PRIMARY KEY)", "permission denied for schema public"),
            ("CREATE ROLE fact_other", "permission denied to create role"),
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
                clerk.execute(statement)  # type: ignore[call-overload]
            assert refused.value.diag.message_primary == message
        assert clerk.execute("SELECT current_user, session_user, user").fetchone() == ("fact_clerk",) * 3


def test_the_session_knows_its_iam_identity(dsql_cluster: LocalCluster, admin: Connection) -> None:
    (arn,) = admin.execute("SELECT sys.iam_session_user()").fetchone() or ("",)
    assert arn.startswith("arn:aws:iam::")
