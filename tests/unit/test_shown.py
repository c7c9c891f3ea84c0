"""Which sessions share what statements have shown, and how much of it is kept."""

from __future__ import annotations

from typing import Any

import pytest

from dsql_server.frontend.shown import FORMATS_MAX, KINDS_MAX, STATEMENTS_MAX, SeenText, Shown, ShownStatements
from dsql_server.frontend.statements import Learned
from dsql_server.processor.plan import LoadPlan
from dsql_server.processor.planner import PlanSettings

SETTINGS = {"client_encoding": "UTF8", "application_name": "one", "dsqlkit.session": "a"}
KIND: dict[str, Any] = {"role": "admin", "settings": SETTINGS, "plan_settings": PlanSettings("public"), "dumps": False}


def learned(formats: bytes) -> Learned:
    return Learned(LoadPlan(1), 1, formats, b"", None)


@pytest.mark.parametrize(
    "other",
    [
        {"role": "reader"},
        {"settings": {**SETTINGS, "client_encoding": "SQL_ASCII"}},
        {"settings": {**SETTINGS, "default_transaction_read_only": "on"}},
        {"plan_settings": PlanSettings("aside")},
        {"plan_settings": PlanSettings("public", "Asia/Tokyo")},
        {"plan_settings": PlanSettings("public", date_style="German")},
        {"plan_settings": PlanSettings("public", interval_style="iso_8601")},
        {"dumps": True},
    ],
    ids=str,
)
def test_sessions_to_which_statements_may_mean_something_else_share_nothing(other: dict[str, Any]) -> None:
    statements = ShownStatements()
    assert statements.to(**KIND) is not statements.to(**{**KIND, **other})


def test_names_of_applications_and_sessions_are_of_no_consequence() -> None:
    statements = ShownStatements()
    others = {**SETTINGS, "application_name": "two", "dsqlkit.session": "b"}
    assert statements.to(**KIND) is statements.to(**{**KIND, "settings": others})


def test_only_so_much_is_kept() -> None:
    statements, shown = ShownStatements(), Shown()
    for number in range(2 * STATEMENTS_MAX):
        direct: Any = object()
        shown.note_text(SeenText(direct, 1, b"", None))
        shown.learn(f"SELECT {number}", (), learned(b""))
        statements.to(f"role {number}", {}, PlanSettings(), dumps=False)
    for number in range(2 * FORMATS_MAX):
        shown.learn("SELECT", (), learned(b"%d" % number))
    assert len(shown._texts) <= STATEMENTS_MAX and len(shown._learned) <= STATEMENTS_MAX
    assert len(statements._kinds) <= KINDS_MAX and len(shown.learned("SELECT", ())) <= FORMATS_MAX
    assert shown.learned("SELECT", ())[b"%d" % (2 * FORMATS_MAX - 1)].formats
    assert not shown.learned("SELECT", (23,))
