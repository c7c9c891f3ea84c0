"""Damaged statements sent to a server: whatever the text is, the answer is PostgreSQL's, and soon.

A failure names its seed and its statement; ``DSQLKIT_FUZZ_SEED`` runs the same statements again.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from grammar_statements import SET_UP, STATEMENTS, TRANSACTION_STATEMENTS
from pglast import parser
from psycopg import Connection
from psycopg.pq import DiagnosticField, ExecStatus, TransactionStatus

from dsql_server.testing import LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
STATEMENTS_COUNT = 10_000 if FULL else 400
#: The same statements every day; new ones in full size.
SEED = int(os.environ.get("DSQLKIT_FUZZ_SEED", "0")) or (random.SystemRandom().randrange(1, 1 << 31) if FULL else 1)
#: No damaged statement takes longer on a busy machine, in seconds.
ANSWER_TIMEOUT_S = 60
#: Statements between two looks at what a bystander sees.
BYSTANDER_STATEMENTS = 200
DAMAGES_MAX = 4

_DATA = Path(__file__).parent.parent / "unit" / "data"
_JUNK = (
    "'",
    '"',
    "$1",
    "$$",
    "\\",
    "E'",
    "/*",
    "*/",
    "--",
    ";",
    "(",
    ")",
    ",",
    "::",
    "[",
    "]",
    "NULL",
    "*",
    "é",
    "0x",
    "1e9",
)
#: What a server under test would do for too long.
_SLOW = ("pg_sleep", "999999999", "1e9)")
#: What no answer may tell of.
_MACHINERY = ("dsqlkit", "dsql_qp", "dsql_loader", "dsql_planner", "dsql_engine", "internal error", "Traceback")

#: PostgreSQL 16's own answers with XX000, which it gives to texts that its grammar lets through.
_INTERNAL_OF_POSTGRESQL = ('option "logged" not recognized', 'option "unlogged" not recognized')


def _corpus() -> list[str]:
    recorded = [
        json.loads(line)["sql"]
        for name in ("statements_accepted.jsonl", "statements_refused.jsonl")
        for line in (_DATA / name).read_text(encoding="utf-8").splitlines()
    ]
    cases = [case for table in (STATEMENTS, TRANSACTION_STATEMENTS) for cases in table.values() for case in cases]
    texts = [*recorded, *(case if isinstance(case, str) else case[0] for case in cases)]
    return [sql for sql in texts if len(sql) < 1000 and not any(slow in sql for slow in _SLOW)]


class Fuzzer:
    """Makes damaged statements from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._corpus = [_tokens(sql) for sql in _corpus()]
        by_kind: dict[str, set[str]] = {}
        for kind, text in (token for tokens in self._corpus for token in tokens):
            by_kind.setdefault(kind, set()).add(text)
        self._by_kind = {kind: sorted(texts) for kind, texts in by_kind.items()}
        self._all = sorted({text for texts in by_kind.values() for text in texts})

    def statement(self) -> str:
        choice = self._random.choice
        tokens = list(choice(self._corpus))
        for _ in range(choice((1, 1, 1, 2, DAMAGES_MAX))):
            at = self._random.randrange(len(tokens) + 1)
            how = self._random.randrange(12)
            if how == 0:
                del tokens[at : at + 1]
            elif how == 1:
                tokens.insert(at, ("", choice(self._all)))
            elif how == 2:
                tokens.insert(at, ("", choice(_JUNK)))
            elif how == 3:
                other = choice(self._corpus)
                cut = self._random.randrange(len(other) + 1)
                tokens[at:] = other[cut:]
            elif how == 4:
                tokens[at:at] = tokens[at - 3 : at]
            elif at < len(tokens):
                # Another name, constant or word of the same kind: what only comes out when it is run.
                kind = tokens[at][0]
                tokens[at] = (kind, choice(self._by_kind.get(kind, [tokens[at][1]])))
        return " ".join(text for _, text in tokens)


def _tokens(sql: str) -> list[tuple[str, str]]:
    """Kind and text of each token; keywords are of the kind that says where they may stand."""
    return [(t.kind if t.kind != "NO_KEYWORD" else t.name, sql[t.start : t.end + 1]) for t in parser.scan(sql)]


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """A cluster of its own: statements may make roles and settings that stay."""
    with LocalCluster() as cluster:
        with cluster.connect(autocommit=True) as connection:
            for statement in SET_UP:
                connection.execute(statement)  # type: ignore[call-overload]
        yield cluster


def _connect(cluster: LocalCluster) -> Connection:
    return cluster.connect(autocommit=True, options="-c timezone=UTC", tcp_user_timeout=ANSWER_TIMEOUT_S * 1000)


def _answers(connection: Connection, sql: str, trace: str) -> Iterator[str]:
    """SQLSTATE of each answer to the text, or the status of those that are no errors."""
    pgconn = connection.pgconn
    pgconn.send_query(sql.encode())
    while (result := pgconn.get_result()) is not None:
        if result.status in (ExecStatus.COPY_IN, ExecStatus.COPY_BOTH):
            pgconn.put_copy_end(b"not now")
        elif result.status == ExecStatus.COPY_OUT:
            while pgconn.get_copy_data(0)[0] > 0:
                pass
        elif result.status == ExecStatus.FATAL_ERROR:
            sqlstate = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
            text = result.error_message.decode()
            is_internal = sqlstate == "XX000" and not any(known in text for known in _INTERNAL_OF_POSTGRESQL)
            assert len(sqlstate) == 5 and not is_internal, (trace, text)
            told = [word for word in _MACHINERY if word in text and word not in sql]
            assert not told, (trace, text)
            yield sqlstate
        else:
            yield ExecStatus(result.status).name


@pytest.mark.long
def test_damaged_statements(cluster: LocalCluster) -> None:
    fuzzer = Fuzzer(SEED)
    seen: Counter[str] = Counter()
    connection = _connect(cluster)
    with _connect(cluster) as bystander:
        bystander.execute("CREATE TABLE bystander (id int PRIMARY KEY)")
        bystander.execute("INSERT INTO bystander VALUES (1)")
        for number in range(1, STATEMENTS_COUNT + 1):
            sql = fuzzer.statement()
            trace = f"seed {SEED}, statement {number}: {sql}"
            seen.update(_answers(connection, sql, trace))
            assert connection.pgconn.transaction_status != TransactionStatus.UNKNOWN, f"connection lost: {trace}"
            if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                list(_answers(connection, "ROLLBACK", trace))
            if number % BYSTANDER_STATEMENTS == 0:
                connection.close()
                connection = _connect(cluster)
                try:
                    assert bystander.execute("SELECT count(*) FROM bystander").fetchone() in ((1,), (0,)), trace
                except psycopg.errors.UndefinedTable:
                    bystander.execute("CREATE TABLE bystander (id int PRIMARY KEY)")
    connection.close()
    assert seen["42601"] > STATEMENTS_COUNT / 10, "they are damaged"
    assert seen["TUPLES_OK"] + seen["COMMAND_OK"] > STATEMENTS_COUNT / 50, "not beyond understanding"
    print(f"{STATEMENTS_COUNT} statements, seed {SEED}: {dict(seen.most_common())}")
