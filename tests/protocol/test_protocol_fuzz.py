"""Random sequences of messages, most of them damaged: no session hangs, none ends by a defect, none takes others along.

A failure names its seed and round; ``DSQLKIT_FUZZ_SEED`` runs the same rounds again.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from raw_client import (
    COPY_DONE,
    FLUSH,
    PROTOCOL_3_0,
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
    secured,
    startup,
)

from dsql_server.testing import LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
BUDGET_S = 300.0 if FULL else 15.0
#: So many damaged messages are sent, however long it takes, if it is set.
MESSAGES = int(os.environ.get("DSQLKIT_FUZZ_MESSAGES", "0"))
#: The same rounds every day; new ones in full size.
SEED = int(os.environ.get("DSQLKIT_FUZZ_SEED", "0")) or (random.SystemRandom().randrange(1, 1 << 31) if FULL else 1)
#: A session that is spoken to properly again has answered after this, whatever came before, in seconds.
ANSWER_TIMEOUT_S = 60.0
#: Rounds between two looks at what a bystander sees.
BYSTANDER_ROUNDS = 100
#: Shares of the messages of a round that are damaged: with few, what follows a damaged one is understood.
SHARES_DAMAGED = (0.1, 0.3, 0.6, 1.0)
#: Rounds that keep the frames whole, and those of the others whose client vanishes instead of waiting for the end.
SHARE_FRAMED, SHARE_ABORTED = 0.9, 0.5
#: Connections that begin with a damaged startup packet or password.
SHARE_BAD_LOGINS = 0.2
#: What a message of the server's may not name: errors of the machinery aren't PostgreSQL's.
_MACHINERY = ("internal error", "dsql_engine", "dsql_loader", "dsql_planner", "dsql_qp", "Traceback")
#: PostgreSQL's own answer to a parameter of a type that isn't there.
UNKNOWN_TYPE = "cache lookup failed for type"

#: Sessions that look at the table at the same time in the end: more than there are spare engine databases.
SESSIONS = 8
#: Rounds after which the server holds all it needs: caches are full, spare databases made.
WARM_UP_ROUNDS = 3000
#: What the server may hold beyond that when all is over.
SOCKETS_GROWTH_MAX, MEMORY_GROWTH_MAX_BYTES = 16, 96 * 1024 * 1024
_KIB = 1024

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

    def login(self) -> tuple[bytes, bytes]:
        """A startup packet and a password, of which at least one is damaged."""
        packet = startup({"user": "admin", "database": "postgres"}, PROTOCOL_3_0)
        password = message(b"p", b"no token\x00")
        if self.random.random() < 0.7:
            body = self.damage(b"?" + packet)[5:]
            packet = struct.pack("!i", len(body) + 4) + body
        if self.random.random() < 0.3:
            packet = self.derail(packet)
        return packet, self.damage(password)


def check(messages: Iterator[Message], trace: str) -> None:
    """Every error is one of PostgreSQL's, whole and without a word about the machinery."""
    for received in messages:
        if received.kind == "E":
            fields = received.fields
            assert fields["S"] == fields["V"] and fields["V"] in ("ERROR", "FATAL"), (trace, fields)
            is_internal = fields["C"][:2] == "XX" and not fields["M"].startswith(UNKNOWN_TYPE)
            assert len(fields["C"]) == 5 and not is_internal, (trace, fields)
            assert not any(word in fields["M"] for word in _MACHINERY), (trace, fields)


def received_until(client: RawClient, marker: bytes) -> Iterator[Message]:
    """Everything up to the ReadyForQuery behind the row that holds ``marker``, or the end of the connection."""
    seen = False
    while (received := client.receive()) is not None:
        yield received
        seen = seen or (received.kind == "D" and marker in received.body)
        if seen and received.kind == "Z":
            return
    client.socket.close()


class Attack:
    """Rounds of messages against one cluster, on one connection as long as it lasts."""

    def __init__(self, cluster: LocalCluster, seed: int) -> None:
        self._cluster = cluster
        self._fuzzer = Fuzzer(seed)
        self._random = self._fuzzer.random
        self._client: RawClient | None = None
        self.rounds = self.answered = self.messages = self.damaged = 0

    @property
    def trace(self) -> str:
        return f"seed {SEED}, round {self.rounds}"

    def round(self) -> None:
        """Send a batch and check what is answered, up to the end of the batch or of the connection."""
        self.rounds += 1
        batch = self._fuzzer.batch()
        try:
            client = self._connected()
            if self._random.random() < SHARE_FRAMED:
                self._framed(client, batch)
            else:
                self._derailed(client, batch)
        except TimeoutError:
            self.close()
            pytest.fail(f"the session hangs: {self.trace}, sent {batch}")
        except (ConnectionError, BrokenPipeError):
            self.close()  # by the server, while more was being sent

    def _connected(self) -> RawClient:
        if self._client is None or self._client.socket.fileno() < 0:
            if self._random.random() < SHARE_BAD_LOGINS:
                self._bad_login()
            self._client = connect(self._cluster)
            self._client.socket.settimeout(ANSWER_TIMEOUT_S)
        return self._client

    def _bad_login(self) -> None:
        packet, password = self._fuzzer.login()
        with secured(self._cluster) as client, contextlib.suppress(ConnectionError):
            client.socket.settimeout(ANSWER_TIMEOUT_S)
            self.messages += 2
            self.damaged += 2
            client.send(packet, password)
            _say_no_more(client)
            check(iter(client.rest()), f"{self.trace}, login {packet!r} {password!r}")

    def _framed(self, client: RawClient, batch: list[bytes]) -> None:
        share = self._random.choice(SHARES_DAMAGED)
        sent = [self._fuzzer.damage(m) if self._random.random() < share else m for m in batch]
        self.messages += len(batch)
        self.damaged += sum(one != other for one, other in zip(batch, sent, strict=True))
        marker = f"marker {self.rounds}"
        client.send(*sent, copy_fail("end"), SYNC, query("ROLLBACK"), query(f"SELECT '{marker}'"))
        check(received_until(client, marker.encode()), self.trace)
        self.answered += client.socket.fileno() >= 0

    def _derailed(self, client: RawClient, batch: list[bytes]) -> None:
        self.messages += len(batch)
        self.damaged += 1  # behind the first damaged length everything is one
        client.send(self._fuzzer.derail(b"".join(batch)))
        if self._random.random() < SHARE_ABORTED:
            client.abort()
            return
        _say_no_more(client)
        check(iter(client.rest()), self.trace)
        client.socket.close()

    def __enter__(self) -> Attack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.socket.close()


def _say_no_more(client: RawClient) -> None:
    """Close our half of the connection, as a client that crashed does, but go on to read."""
    with contextlib.suppress(OSError):  # the server was faster
        socket.socket.shutdown(client.socket, socket.SHUT_WR)


def held_by(pid: int) -> tuple[int, int]:
    """Open sockets and bytes of memory of a process; zeros where there is no /proc."""
    process = Path(f"/proc/{pid}")
    if not process.exists():
        return 0, 0
    status = (process / "status").read_text().splitlines()
    (resident,) = (line.split()[1] for line in status if line.startswith("VmRSS"))
    sockets = 0
    for descriptor in os.listdir(process / "fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            sockets += os.readlink(process / "fd" / descriptor).startswith("socket:")
    return sockets, int(resident) * _KIB


@pytest.mark.long
def test_damaged_messages(cluster: LocalCluster, table: str) -> None:
    assert table == "protocol_rows"
    deadline_s = time.monotonic() + BUDGET_S
    warm = held_by(cluster.pid)
    with Attack(cluster, SEED) as attack, connect(cluster) as bystander:
        bystander.ask(query("INSERT INTO protocol_rows VALUES (-1, 'kept')"))
        while attack.damaged < MESSAGES if MESSAGES else time.monotonic() < deadline_s:
            attack.round()
            if attack.rounds % BYSTANDER_ROUNDS == 0:
                assert rows_of(bystander.ask(query("SELECT count(*) > -1 FROM protocol_rows"))) == [[b"t"]], (
                    attack.trace
                )
            if attack.rounds == WARM_UP_ROUNDS:
                warm = held_by(cluster.pid)
    with contextlib.ExitStack() as stack:
        # Whichever engine database a session gets, what the rounds left in it is nothing.
        sessions = [stack.enter_context(connect(cluster)) for _ in range(SESSIONS)]
        contents = [rows_of(s.ask(query("SELECT * FROM protocol_rows ORDER BY id, v"))) for s in sessions]
    assert all(content == contents[0] for content in contents), f"seed {SEED}"
    assert attack.answered > attack.rounds / 2, (attack.answered, attack.rounds)
    sockets, memory_bytes = (now - before for now, before in zip(held_by(cluster.pid), warm, strict=True))
    print(
        f"{attack.damaged} damaged among {attack.messages} messages in {attack.rounds} rounds, "
        f"{attack.answered} answered to the end, seed {SEED}; since the warm-up the server holds "
        f"{sockets:+} sockets and {memory_bytes / _KIB / _KIB:+.0f} MiB"
    )
    if attack.rounds > 2 * WARM_UP_ROUNDS:
        assert sockets <= SOCKETS_GROWTH_MAX and memory_bytes <= MEMORY_GROWTH_MAX_BYTES
