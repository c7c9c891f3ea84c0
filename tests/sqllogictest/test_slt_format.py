"""The runner itself: what it reads, how it writes values down, and that it sees wrong answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from slt_format import FormatError, Query, Statement, parse
from slt_runner import INSERTS_PER_TRANSACTION_MAX, Report, run
from slt_values import Answer, are_expected, formatted

INT, TEXT, FLOAT, BOOL = 23, 25, 701, 16

FILE = """\
# about the file
hash-threshold 8

# about the statement
statement ok
CREATE TABLE t
  (a INTEGER)

statement error
CREATE TABLE t (a INTEGER)

onlyif mysql # DIV
query I nosort
SELECT 1 DIV 1
----
1

skipif mysql # not compatible
query IT rowsort label-1
SELECT a, b
FROM t
----
1
x

query I
SELECT a FROM t WHERE false
----

skipif postgresql
halt

onlyif postgresql
halt

statement ok
never read
"""


def _query(types: str = "I", sort_mode: str = "nosort", expected: tuple[str, ...] = ()) -> Query:
    assert sort_mode in ("nosort", "rowsort", "valuesort")
    return Query(1, "SELECT", types, sort_mode, None, expected)  # type: ignore[arg-type]


def test_parse() -> None:
    script = parse(FILE, "postgresql")
    assert script.records == (
        Statement(5, "CREATE TABLE t\n  (a INTEGER)", fails=False),
        Statement(9, "CREATE TABLE t (a INTEGER)", fails=True),
        Query(19, "SELECT a, b\nFROM t", "IT", "rowsort", "label-1", ("1", "x")),
        Query(26, "SELECT a FROM t WHERE false", "I", "nosort", None, ()),
    )
    assert (script.skipped, script.hash_threshold) == (1, 8)


def test_windows_line_ends() -> None:
    assert parse(FILE.replace("\n", "\r\n"), "postgresql") == parse(FILE, "postgresql")


@pytest.mark.parametrize("text", ["statement maybe\nSELECT", "query X\nSELECT", "query I upsidedown\nSELECT", "loop 3"])
def test_what_is_no_record(text: str) -> None:
    with pytest.raises(FormatError, match="line 1"):
        parse(text, "postgresql")


@pytest.mark.parametrize(
    ("value", "type_", "oid", "written"),
    [
        (None, "I", INT, "NULL"),
        ("-12", "I", INT, "-12"),
        ("2.9", "I", FLOAT, "2"),
        ("t", "I", BOOL, "1"),
        ("many", "I", TEXT, "0"),
        ("1", "R", INT, "1.000"),
        ("2.0005", "R", FLOAT, "2.001"),
        ("", "T", TEXT, "(empty)"),
        ("a\tb", "T", TEXT, "a@b"),
    ],
)
def test_values(value: str | None, type_: str, oid: int, written: str) -> None:
    assert formatted(Answer(((value,),), (oid,)), _query(type_)) == [written]


def test_sort_modes() -> None:
    answer = Answer((("9", "1"), ("10", "2"), ("10", "0")), (INT, INT))
    assert formatted(answer, _query("II")) == ["9", "1", "10", "2", "10", "0"]
    assert formatted(answer, _query("II", "rowsort")) == ["10", "0", "10", "2", "9", "1"]
    assert formatted(answer, _query("II", "valuesort")) == ["0", "1", "10", "10", "2", "9"]
    assert formatted(answer, _query("I")) is None, "another number of columns"


def test_hash() -> None:
    # printf '1\n2\n3\n' | md5sum
    hashed = ("3 values hashing to c0710d6b4f15dfa88f600b0e6b624077",)
    assert are_expected(["1", "2", "3"], hashed)
    assert not are_expected(["1", "2", "4"], hashed)
    assert not are_expected(["1", "2"], hashed)


@dataclass
class _Scripted:
    """A server that answers what it is told to."""

    answers: dict[str, Answer] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def clear(self) -> None:
        self.log.clear()

    def run(self, sql: str) -> Answer:
        self.log.append(sql)
        return self.answers.get(sql, Answer())

    def run_together(self, statements: list[str]) -> bool:
        self.batches.append(len(statements))
        done = all(self.answers.get(sql, Answer()).sqlstate is None for sql in statements)
        self.log += statements if done else []
        return done


ONE, TWO = Answer((("1",),), (INT,)), Answer((("2",),), (INT,))
REFUSED, DUPLICATE = Answer(sqlstate="0A000", message="no"), Answer(sqlstate="23505", message="twice")


def _judge(text: str, ours: Answer, theirs: Answer) -> Report:
    sql = text.splitlines()[1]
    return run(parse(text, "postgresql"), _Scripted({sql: ours}), _Scripted({sql: theirs}))


@pytest.mark.parametrize(
    ("text", "ours", "theirs", "judgement"),
    [
        ("query I\nSELECT\n----\n1", ONE, ONE, "passed"),
        ("query I\nSELECT\n----\n1", ONE, TWO, "passed"),
        ("query I\nSELECT\n----\n1", TWO, TWO, "dialect"),
        ("query I\nSELECT\n----\n1", TWO, ONE, "wrong"),
        ("query I\nSELECT\n----\n1", REFUSED, ONE, "refused"),
        ("query I\nSELECT\n----\n1", DUPLICATE, ONE, "wrong"),
        ("query I\nSELECT\n----\n1", DUPLICATE, DUPLICATE, "dialect"),
        ("query II\nSELECT\n----\n1\n1", ONE, ONE, "dialect"),
        ("query II\nSELECT\n----\n1\n1", ONE, TWO, "wrong"),
        ("statement ok\nINSERT", Answer(), Answer(), "passed"),
        ("statement ok\nINSERT", DUPLICATE, Answer(), "wrong"),
        ("statement ok\nINSERT", REFUSED, Answer(), "refused"),
        ("statement error\nINSERT", DUPLICATE, DUPLICATE, "passed"),
        ("statement error\nINSERT", Answer(), DUPLICATE, "wrong"),
        ("statement error\nINSERT", Answer(), Answer(), "dialect"),
    ],
)
def test_judgement(text: str, ours: Answer, theirs: Answer, judgement: str) -> None:
    report = _judge(text, ours, theirs)
    counts = {
        "passed": report.passed,
        "dialect": report.dialect,
        "refused": report.refused.total(),
        "wrong": len(report.wrong),
    }
    assert counts == {**dict.fromkeys(counts, 0), judgement: 1}


def test_labels_bind_queries_to_each_other() -> None:
    text = "query I nosort same\nSELECT 1\n----\n1\n\nquery I nosort same\nSELECT 2\n----\n2"
    answers = {"SELECT 1": ONE, "SELECT 2": TWO}
    report = run(parse(text, "postgresql"), _Scripted(answers), _Scripted({"SELECT 1": ONE, "SELECT 2": ONE}))
    assert (report.passed, [w.record.sql for w in report.wrong]) == (1, ["SELECT 2"])


def test_inserts_share_transactions_unless_one_fails() -> None:
    count = INSERTS_PER_TRANSACTION_MAX + 2
    text = "\n\n".join(f"statement ok\nINSERT {n}" for n in range(count))
    ours, theirs = _Scripted(), _Scripted()
    report = run(parse(text, "postgresql"), ours, theirs)
    assert (report.passed, ours.batches) == (count, [INSERTS_PER_TRANSACTION_MAX, 2])
    assert ours.log == theirs.log == [f"INSERT {n}" for n in range(count)]
    report = run(parse(text, "postgresql"), _Scripted({"INSERT 3": DUPLICATE}), theirs)
    assert [wrong.record.sql for wrong in report.wrong] == ["INSERT 3"]
    assert report.passed == count - 1
