"""Many clients at once, spread over processes so that they don't wait for one another's interpreter lock."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

from dsql_server.cli.workload.client import OPERATIONS, Client, Plan, Result, Round

CONNECT_TIMEOUT_S = 60.0
#: Beyond a round's own time: for what runs when it ends.
ROUND_GRACE_S = 120.0
EXIT_TIMEOUT_S = 10.0

T = TypeVar("T")


class LoadFailed(Exception):
    """A client could not connect, or met an error that no retry mends."""


class Fleet:
    """Clients for one or several targets; each client holds one session a target for the fleet's whole life.

    :param targets: for each target the plans of its clients; as many for one target as for another.
    """

    def __init__(self, targets: Sequence[Sequence[Plan]]) -> None:
        assert targets and len({len(plans) for plans in targets}) == 1, "every target has the same number of clients"
        self._targets = targets
        self._processes: list[tuple[BaseProcess, Connection]] = []

    def __enter__(self) -> Fleet:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> Fleet:
        """Start the processes and connect all clients; harmless when that is done.

        :raises LoadFailed: a client could not connect.
        """
        if not self._processes:
            try:
                self._start()
            except BaseException:
                self.close()
                raise
        return self

    def run(self, target: int, round_: Round) -> Result:
        """One round of all clients against one target; the results merged, ``seconds`` from first start to last end.

        :raises LoadFailed: with the first client's error.
        """
        for _, pipe in self._processes:
            pipe.send((target, round_))
        timeout_s = (round_.seconds or 0.0) + ROUND_GRACE_S
        return merge([_result(answer) for answer in self._answers(timeout_s)])

    def close(self) -> None:
        """Disconnect all clients and end their processes."""
        for _, pipe in self._processes:
            pipe.close()
        for process, _ in self._processes:
            process.join(EXIT_TIMEOUT_S)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        self._processes = []

    def _start(self) -> None:
        # Spawned, not forked: a fork would inherit locks of threads that it doesn't have.
        context = multiprocessing.get_context("spawn")
        clients = len(self._targets[0])
        for group in _groups(clients, min(clients, os.cpu_count() or 1)):
            pipe, other_end = context.Pipe()
            process = context.Process(
                target=serve_clients,
                args=(other_end, [[plans[client] for client in group] for plans in self._targets]),
                daemon=True,
            )
            process.start()
            other_end.close()
            self._processes.append((process, pipe))
        for answer in self._answers(CONNECT_TIMEOUT_S):
            assert answer is None, "a client process says that it is connected, and no more"

    def _answers(self, timeout_s: float) -> Iterator[object]:
        pending = {pipe for _, pipe in self._processes}
        while pending:
            ready = wait(list(pending), timeout_s)
            if not ready:
                raise LoadFailed(f"{len(pending)} client processes did not answer in {timeout_s:g} s")
            for pipe in ready:
                assert isinstance(pipe, Connection)
                pending.remove(pipe)
                try:
                    answer = pipe.recv()
                except EOFError:
                    raise LoadFailed("a client process ended unexpectedly") from None
                if isinstance(answer, str):
                    raise LoadFailed(answer)
                yield answer


def serve_clients(pipe: Connection, targets: list[list[Plan]]) -> None:
    """Body of a client process: connect, then run rounds until the other end of the pipe is closed."""
    # Ctrl-C reaches every process of the terminal; it is the parent that ends this one, by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pipe, contextlib.ExitStack() as stack:
        try:
            clients: list[list[Client]] = []
            for plans in targets:
                clients.append([])
                for plan in plans:
                    clients[-1].append(client := Client(plan))
                    stack.callback(client.close)
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=len(clients[0])))
            pipe.send(None)
            while True:
                target, round_ = pipe.recv()
                results = pool.map(Client.run, clients[target], itertools.repeat(round_))
                pipe.send(merge(list(results)))
        except EOFError:
            return
        except Exception as error:
            # To the parent as text: not every driver's exception survives pickling.
            pipe.send(f"{type(error).__name__}: {error}".strip())


def merge(results: Sequence[Result]) -> Result:
    """Results of clients that ran at the same time, as one."""
    assert results
    return Result(
        latencies_s={name: [s for result in results for s in result.latencies_s[name]] for name in OPERATIONS},
        acknowledged=[order_id for result in results for order_id in result.acknowledged],
        increments=sum(result.increments for result in results),
        conflicts=sum(result.conflicts for result in results),
        seconds=max(result.seconds for result in results),
    )


def _result(answer: object) -> Result:
    assert isinstance(answer, Result)
    return answer


def _groups(clients: int, processes: int) -> list[range]:
    """Consecutive numbers of clients, split as evenly as possible."""
    bounds = [clients * process // processes for process in range(processes + 1)]
    return [range(first, end) for first, end in itertools.pairwise(bounds)]
