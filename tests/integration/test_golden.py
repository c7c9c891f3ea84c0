"""Answers that a real Aurora DSQL cluster gave: the same statements in the same order get the same answers here.

All cases run once, in the order of the recording, on one set of fixtures: later cases see what earlier ones left.
Each case is then a test of its own. Compared are SQLSTATE and message of errors; tag, column names and rows of results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection, OperationalError
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from dsql_server.testing import LocalCluster

Answer = dict[str, Any]
Case = dict[str, Any]

RECORDED = Path(__file__).parent.parent / "data" / "golden"
FIXTURES = json.loads((RECORDED / "fixtures.json").read_text())
CASES: dict[str, Case] = {
    case["name"]: {**case, "topic": path.stem}
    for path in sorted(RECORDED.glob("*.json"))
    if path.name != "fixtures.json"
    for case in json.loads(path.read_text())["cases"]
}
#: A tag that only says how many rows came back.
COUNT_TAG = re.compile(r"SELECT \d+")


def _answer(result: PGresult) -> Answer:
    if result.status == ExecStatus.FATAL_ERROR:
        state, message = (
            (result.error_field(field) or b"").decode()
            for field in (DiagnosticField.SQLSTATE, DiagnosticField.MESSAGE_PRIMARY)
        )
        return {"sqlstate": state, "message": message}
    answer: Answer = {"tag": (result.command_status or b"").decode()}
    if result.nfields:
        answer["columns"] = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
        answer["rows"] = [
            [None if (v := result.get_value(r, c)) is None else v.decode() for c in range(result.nfields)]
            for r in range(result.ntuples)
        ]
    return answer


def _run(pgconn: PGconn, step: Answer) -> Answer:
    sql = step["sql"].encode()
    if not step.get("simple"):
        return _answer(pgconn.exec_params(sql, []))
    pgconn.send_query(sql)
    results = []
    while (result := pgconn.get_result()) is not None:
        results.append(_answer(result))
    failed = [r for r in results if "sqlstate" in r]
    return failed[0] if failed else {"answers": results}


def _run_sessions(cluster: LocalCluster, case: Case) -> list[list[Answer]]:
    """The steps of several sessions in turn: no statement waits for another session."""
    cluster.wait_for_jobs()
    connections = [cluster.connect(autocommit=True) for _ in case["sessions"]]
    try:
        answers: list[list[Answer]] = [[] for _ in connections]
        for turn in range(max(len(steps) for steps in case["sessions"])):
            for connection, steps, got in zip(connections, case["sessions"], answers, strict=True):
                if turn < len(steps):
                    got.append(_run(connection.pgconn, steps[turn]))
        return answers
    finally:
        for connection in connections:
            connection.close()


def _run_case(cluster: LocalCluster, connection: Connection, case: Case) -> list[list[Answer]]:
    if "sessions" in case:
        return _run_sessions(cluster, case)
    for statement in case.get("setup", ()):  # what a case did that isn't in the selection
        connection.execute(statement.encode())
    try:
        return [[_run(connection.pgconn, step) for step in case["steps"]]]
    finally:
        connection.pgconn.exec_(b"ROLLBACK")


def _set_up(connection: Connection) -> None:
    for statement in FIXTURES["setup"]:
        connection.execute(statement.encode())


@pytest.fixture(scope="module")
def answers() -> Iterator[dict[str, list[list[Answer]]]]:
    """What every case was answered here, by name: a list for each of its sessions."""
    got: dict[str, list[list[Answer]]] = {}
    with LocalCluster() as cluster:
        connection = cluster.connect(autocommit=True)
        _set_up(connection)
        for name in FIXTURES["order"]:
            try:
                got[name] = _run_case(cluster, connection, CASES[name])
            except OperationalError as lost:
                got[name] = [[{"message": f"the connection was lost: {lost}"}]]
                connection.close()
                connection = cluster.connect(autocommit=True)
        connection.close()
        yield got


def _comparable(answer: Answer, case: Case) -> Answer:
    kept = {k: answer[k] for k in ("sqlstate", "message", "tag", "columns", "rows") if k in answer}
    if "answers" in answer:
        return {"answers": [_comparable(a, case) for a in answer["answers"]]}
    if case.get("ignore_rows"):
        kept.pop("rows", None)
        if COUNT_TAG.fullmatch(kept.get("tag", "")):
            kept["tag"] = "SELECT n"
    return kept


@pytest.mark.parametrize("name", [pytest.param(n, id=f"{CASES[n]['topic']}-{n}") for n in FIXTURES["order"]])
def test_answer(name: str, answers: dict[str, list[list[Answer]]]) -> None:
    case = CASES[name]
    if "not_compared" in case:
        pytest.skip(f"recorded but not compared: {case['not_compared']}")
    recorded = [[_comparable(s, case) for s in steps] for steps in case.get("sessions", [case.get("steps")])]
    got = [[_comparable(a, case) for a in session] for session in answers[name]]
    if not case.get("race"):
        assert got == recorded
        return
    assert [session[:-1] for session in got] == [session[:-1] for session in recorded]
    # Which session loses is up to the race, but that one does, and how.
    assert sorted(json.dumps(session[-1]) for session in got) == sorted(json.dumps(s[-1]) for s in recorded)


def test_every_recorded_case_is_in_the_order() -> None:
    assert sorted(CASES) == sorted(FIXTURES["order"])
    assert len(CASES) > 150
