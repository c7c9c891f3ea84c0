"""Which IAM identities a role trusts."""

from __future__ import annotations

import pytest

from dsql_server.catalog.state import IAM_MAPPINGS_RELATION_ID
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.keys import KeyEncoder
from dsql_server.encoding.rows import join
from dsql_server.interfaces.messages import Mutation
from dsql_server.processor.role_mappings import renamed_mappings, trusts
from dsql_server.simulation.memory_storage import MemoryNode

ROLE = "arn:aws:iam::123456789012:role/app"
OTHER = "arn:aws:iam::123456789012:role/other"
NOW = 10


def _storage(*mappings: tuple[str, str]) -> MemoryNode:
    encoder = KeyEncoder(IAM_MAPPINGS_RELATION_ID, [(3, oids.TEXT), (1, oids.TEXT)])
    rows = [[b"", arn.encode(), b"", role.encode(), b"", b""] for role, arn in mappings]
    storage = MemoryNode()
    storage.apply_batch([(NOW, [Mutation(encoder.from_fields(row), join(row)) for row in rows])], {})
    return storage


@pytest.mark.parametrize(
    ("principal", "trusted"),
    [
        (ROLE, True),
        ("arn:aws:sts::123456789012:assumed-role/app/session-1", True),
        ("arn:aws:sts::123456789012:assumed-role/other/app", False),
        ("arn:aws:sts::210987654321:assumed-role/app/session-1", False),
        (OTHER, False),
    ],
)
def test_an_identity_or_a_session_of_it(principal: str, trusted: bool) -> None:
    assert trusts("app", principal, False, _storage(("app", ROLE), ("appendix", OTHER)), NOW) is trusted


def test_the_cluster_s_own_key_stands_for_any_identity() -> None:
    storage = _storage(("app", ROLE))
    assert trusts("app", "arn:aws:iam::000000000000:user/dsqlkit", True, storage, NOW)
    assert not trusts("other", "arn:aws:iam::000000000000:user/dsqlkit", True, storage, NOW)
    assert not trusts("ap", ROLE, True, storage, NOW), "names are not prefixes"


def test_a_new_name_takes_the_mappings_along() -> None:
    storage = _storage(("before", ROLE), ("before", OTHER), ("bystander", ROLE))
    claims, mutations = renamed_mappings("before", "after", storage, NOW)
    assert {claim.key for claim in claims} == {mutation.key for mutation in mutations}
    storage.apply_batch([(NOW + 1, mutations)], {})
    for arn in (ROLE, OTHER):
        assert trusts("after", arn, False, storage, NOW + 1)
        assert not trusts("before", arn, False, storage, NOW + 1)
    assert trusts("bystander", ROLE, False, storage, NOW + 1)
