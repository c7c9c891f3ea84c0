"""Random sequences of messages, most of them damaged: no session hangs, none ends by a defect, none takes others along.

A failure names its seed and round; ``DSQLKIT_FUZZ_SEED`` runs the same rounds again.
"""

from __future__ import annotations

import contextlib
import os
import random
import struct
import time
from collections.abc import Iterator

import pytest
from raw_client import (
    COPY_DONE,
    FLUSH,
    SYNC,
    Message,
    RawClient,
    bind,
    close,
    connect,
    copy_data,
    copy_fail,
    describe,
    execute,
    message,
    parse,
    query,
    rows_of,
)

from dsql_server.testing import LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
BUDGET_S = 300.0 if FULL else 15.0
#: So many messages are sent however long it takes, if it is set.
MESSAGES = int(os.environ.get("DSQLKIT_FUZZ_MESSAGES", "0"))
#: The same rounds every day; new ones in full size.
SEED = int(os.environ.get("DSQLKIT_FUZZ_SEED", "0")) or (random.SystemRandom().randrange(1, 1 << 31) if FULL else 1)
#: A session that is spoken to properly again has answered after this, whatever came before, in seconds.
ANSWER_TIMEOUT_S = 15.0
#: Rounds between two looks at what a bystander sees.
BYSTANDER_ROUNDS = 100

#: Sessions that look at the table at the same time in the end: more than there are spare engine databases.
SESSIONS = 8

STATEMENTS = (
    "SELECT 1",
    "SELECT $1::int + 1",
    "SELECT $1",
    "SELECT * FROM protocol_rows",
    "SELECT * FROM protocol_rows WHERE id = $1",
    "SELECT * FROM protocol_rows WHERE id = ANY($1) FOR UPDATE",
    "INSERT INTO protocol_rows VALUES ($1, $2) RETURNING v",
    "INSERT INTO protocol_rows VALUES ($1, $2) ON CONFLICT DO NOTHING",
    "UPDATE protocol_rows SET v = $2 WHERE id = $1",
    "DELETE FROM protocol_rows WHERE id > $1",
    "WITH gone AS (DELETE FROM protocol_rows RETURNING id) SELECT count(*) FROM gone",
    "BEGIN",
    "BEGIN READ ONLY",
    "COMMIT",
    "ROLLBACK",
    "SET timezone TO 'Asia/Tokyo'",
    "SET LOCAL timezone TO 'Asia/Tokyo'",
    "RESET ALL",
    "SHOW timezone",
    "EXPLAIN SELECT * FROM protocol_rows",
    "COPY protocol_rows FROM STDIN",
    "COPY protocol_rows TO STDOUT",
    "DEALLOCATE ALL",
    "CREATE TABLE protocol_more (id int PRIMARY KEY)",
    "DROP TABLE protocol_more",
    "SELECT 1 / 0",
    "SAVEPOINT a",
    "SELECT generate_series(1, 10)",
    "",
    "SELEC",
)
NAMES = ("", "", "a", "b", "ü", "dsqlkit_own_0")
VALUES = (None, b"", b"1", b"2", b"99999999999", b"x", b"\x00\x00\x00\x01", b"{1,2}", b"\xff", b"a\x00b", b"y" * 5000)


class Fuzzer:
    """Makes batches of messages from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def batch(self) -> list[bytes]:
        return [self._message() for _ in range(self.random.randrange(1, 9))]

    def _message(self) -> bytes:
        choice = self.random.choice
        name, portal = choice(NAMES), choice(NAMES)
        kind = self.random.randrange(12)
        if kind == 0:
            return query(
                "; ".join(choice(STATEMENTS).replace("$1", "1").replace("$2", "'v'") for _ in range(choice((1, 1, 3))))
            )
        if kind in (1, 2):
            return parse(choice(STATEMENTS), name, [choice((0, 23, 25, 20, 17)) for _ in range(choice((0, 0, 1, 2)))])
        if kind in (3, 4):
            formats = [choice((0, 1, 7)) for _ in range(choice((0, 0, 1, 2)))]
            values = [choice(VALUES) for _ in range(choice((0, 1, 1, 2)))]
            return bind(values, portal=portal, name=name, formats=formats, result_formats=choice(((), (0,), (1,))))
        if kind in (5, 6):
            return execute(portal, choice((0, 0, 1, 2, -1)))
        if kind == 7:
            return choice((describe, close))(choice("SP"), name)
        if kind == 8:
            return choice((SYNC, SYNC, FLUSH))
        if kind == 9:
            return choice((copy_data(b"7\tx\n"), copy_data(b"nonsense"), COPY_DONE, copy_fail("x")))
        if kind == 10:
            return parse(choice(STATEMENTS)) + bind([choice(VALUES)]) + describe("P") + execute() + SYNC
        return message(b"F", bytes(self.random.randrange(20)))

    def damage(self, sent: bytes) -> bytes:
        """Change a message's body; its length stays true, so that what follows can be read."""
        kind, body = sent[:1], bytearray(sent[5:])
        if len(sent) != 1 + int.from_bytes(sent[1:5], "big"):
            return sent  # several messages in one
        for _ in range(self.random.choice((1, 1, 2, 5))):
            how = self.random.randrange(6)
            at = self.random.randrange(len(body) + 1)
            if how == 0 and body:
                body[at % len(body)] ^= 1 << self.random.randrange(8)
            elif how == 1:
                del body[at:]
            elif how == 2:
                body[at:at] = self.random.randbytes(self.random.choice((1, 2, 50)))
            elif how == 3:
                del body[at : at + self.random.choice((1, 2, 4))]
            elif how == 4:
                body[at : at + 2] = struct.pack("!h", self.random.choice((-1, 0, 1, 0x7FFF, -0x8000)))
            else:
                body[at : at + 4] = struct.pack("!i", self.random.choice((-2, -1, 0, 1, 0x7FFFFFFF)))
        return message(kind, bytes(body))

    def derail(self, sent: bytes) -> bytes:
        """Damage anything, the lengths too."""
        data = bytearray(sent)
        for _ in range(self.random.choice((1, 2, 8))):
            if data:
                at = self.random.randrange(len(data))
                data[at : at + self.random.choice((0, 1, 3))] = self.random.randbytes(self.random.choice((0, 1, 2)))
        return bytes(data)


def check(messages: Iterator[Message], trace: str) -> None:
    for received in messages:
        if received.kind == "E":
            assert received.fields["M"] != "internal error", trace


def received_until(client: RawClient, marker: bytes) -> Iterator[Message]:
    """Everything up to the ReadyForQuery behind the row that holds ``marker``, or the end of the connection."""
    seen = False
    while (received := client.receive()) is not None:
        yield received
        seen = seen or (received.kind == "D" and marker in received.body)
        if seen and received.kind == "Z":
            return
    client.socket.close()


@pytest.mark.long
def test_damaged_messages(cluster: LocalCluster, table: str) -> None:
    assert table == "protocol_rows"
    fuzzer = Fuzzer(SEED)
    deadline_s = time.monotonic() + BUDGET_S
    client: RawClient | None = None
    rounds = answered = messages = 0
    with connect(cluster) as bystander:
        bystander.ask(query("INSERT INTO protocol_rows VALUES (-1, 'kept')"))
        while messages < MESSAGES if MESSAGES else time.monotonic() < deadline_s:
            rounds += 1
            trace = f"seed {SEED}, round {rounds}"
            if client is None or client.socket.fileno() < 0:
                client = connect(cluster)
                client.socket.settimeout(ANSWER_TIMEOUT_S)
            batch = fuzzer.batch()
            messages += len(batch)
            try:
                if fuzzer.random.random() < 0.9:
                    damaged = [fuzzer.damage(m) if fuzzer.random.random() < 0.3 else m for m in batch]
                    marker = b"marker %d" % rounds
                    client.send(
                        *damaged, copy_fail("end"), SYNC, query("ROLLBACK"), query(f"SELECT '{marker.decode()}'")
                    )
                    check(received_until(client, marker), trace)
                    answered += client.socket.fileno() >= 0
                else:
                    client.send(fuzzer.derail(b"".join(batch)))
                    client.abort()
            except TimeoutError:
                client.socket.close()
                pytest.fail(f"the session hangs: {trace}, sent {batch}")
            except (ConnectionError, BrokenPipeError):
                client.socket.close()  # closed by the server while more was being sent
            if rounds % BYSTANDER_ROUNDS == 0:
                assert rows_of(bystander.ask(query("SELECT count(*) > -1 FROM protocol_rows"))) == [[b"t"]], trace
    if client is not None:
        client.socket.close()
    with contextlib.ExitStack() as stack:
        # Whichever engine database a session gets, what the rounds left in it is nothing.
        sessions = [stack.enter_context(connect(cluster)) for _ in range(SESSIONS)]
        contents = [rows_of(s.ask(query("SELECT * FROM protocol_rows ORDER BY id, v"))) for s in sessions]
    assert all(content == contents[0] for content in contents), f"seed {SEED}"
    assert answered > rounds / 2, (answered, rounds)
    print(f"{messages} messages in {rounds} rounds, {answered} answered to the end, seed {SEED}")
