"""A simulated cluster, its workload and its faults."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from dsql_server.adjudicator.adjudicator import Adjudicator, Recovered
from dsql_server.adjudicator.takeover import Takeover
from dsql_server.crossbar.crossbar import Crossbar
from dsql_server.interfaces.messages import CommittedTransaction
from dsql_server.interfaces.shard_map import even_shard_map
from dsql_server.journal.journal import Journal
from dsql_server.journal.record import JournalTail, decode_own_record
from dsql_server.simulation.check import violations
from dsql_server.simulation.client import Attempt, SimulatedClient
from dsql_server.simulation.copies import SimulatedCopies
from dsql_server.simulation.memory_storage import MemoryRouter
from dsql_server.simulation.network import NetworkSettings, SimulatedEnvironment, SimulatedNetwork
from dsql_server.simulation.storage_node import SimulatedStorage
from dsql_server.simulation.virtual_time import EPOCH_NS, SkewedClock, VirtualTime

HEARTBEAT_S = 0.002
TICK_S = 0.05
#: How long a run goes on, in virtual time, if faults hardly let it begin as many transactions as it should,
RUN_MAX_S = 30.0
#: and how long everybody has to finish once there are no more faults.
FINISH_MAX_S = 30.0


@dataclass(frozen=True)
class SimulationSettings:
    adjudicators: int = 3
    storage_nodes: int = 2
    clients: int = 16
    keys: int = 24  #: few, so that transactions meet
    think_time_s: float = 0.001  #: at most, between a client's transactions
    clock_error_us: int = 200
    network: NetworkSettings = field(default_factory=NetworkSettings)
    #: Mean time between faults (journals and adjudicators crash, disks stall, partitions); 0 for none.
    fault_interval_s: float = 0.0


@dataclass(frozen=True)
class SimulationResult:
    seed: int
    transactions: int
    committed: int
    refused: int
    faults: int
    messages: int
    virtual_s: float
    history_hash: str
    violations: list[str]


class SimulatedCluster:
    """One run: build it, :meth:`run` it once."""

    def __init__(self, seed: int, settings: SimulationSettings | None = None) -> None:
        self.seed = seed
        self.settings = settings = settings or SimulationSettings()
        self._random = random.Random(seed)  # noqa: S311 (a simulation must be repeatable)
        self.time = VirtualTime()
        self.network = SimulatedNetwork(self.time, self._random.getrandbits(32), settings.network)
        self.faults = 0
        self._faults_end = False
        self.shard_map = even_shard_map(settings.adjudicators)
        self.journals = [f"journal-{i}" for i in range(settings.adjudicators)]
        self.addresses = tuple(f"adjudicator-{i}" for i in range(settings.adjudicators))
        self.router = MemoryRouter(settings.storage_nodes)
        self._copies: dict[str, SimulatedCopies] = {}
        self._journal_environments: dict[str, SimulatedEnvironment] = {}
        for journal in self.journals:
            self._start_journal(journal, SimulatedCopies(self.time, self._random.getrandbits(32)), JournalTail(epoch=1))
        self._adjudicator_environments: dict[int, SimulatedEnvironment] = {}
        self._epochs = [1] * settings.adjudicators
        for shard in range(settings.adjudicators):
            # Nothing has been committed yet, so nothing is forgotten.
            self._start_adjudicator(shard, Recovered(1, 0, 0, EPOCH_NS // 2))
        self._start_crossbar_and_storage()
        self.clients = [self._start_client(number) for number in range(settings.clients)]

    def run(self, transactions: int) -> SimulationResult:
        """Let the clients begin ``transactions`` transactions, end all faults, finish, and check the run.

        Raises :class:`TimeoutError` if some client never gets an answer even without faults.
        """
        for client in self.clients:
            self.time.call_later(self._random.random() * 0.001, client.begin)
        if self.settings.fault_interval_s:
            self._schedule_fault()
        self.time.run_until(lambda: self._attempted() >= transactions, RUN_MAX_S)
        self._faults_end = True
        self.network.heal()
        for client in self.clients:
            client.stopping = True
        self._run_until(lambda: all(client.idle for client in self.clients))
        last = max((t.t_commit for log in self._logs().values() for t in log), default=0)
        self._run_until(lambda: all(storage.watermark >= last for storage in self.storage))
        return self._result()

    def _attempted(self) -> int:
        return sum(len(client.attempts) for client in self.clients)

    def _run_until(self, finished: Callable[[], bool]) -> None:
        if not self.time.run_until(finished, FINISH_MAX_S):
            waiting = [client.address for client in self.clients if not client.idle]
            raise TimeoutError(f"seed {self.seed}: nothing moves any more; waiting: {', '.join(waiting) or 'storage'}")

    # -- roles --------------------------------------------------------------------------------------------------------

    def _environment(self) -> SimulatedEnvironment:
        error_ns = self.settings.clock_error_us * 1000
        clock = SkewedClock(self.time, self._random.randint(-error_ns, error_ns), error_ns)
        return SimulatedEnvironment(self.network, clock, self._random.getrandbits(32))

    def _start_journal(self, name: str, copies: SimulatedCopies, tail: JournalTail) -> None:
        environment = self._environment()
        self._copies[name] = copies
        self._journal_environments[name] = environment
        self.network.add(Journal(name, environment, copies, tail, ("crossbar",)))

    def _start_adjudicator(self, shard: int, recovered: Recovered) -> None:
        environment = self._environment()
        self._adjudicator_environments[shard] = environment
        adjudicator = Adjudicator(shard, self.addresses, self.journals[shard], environment, self.shard_map, recovered)
        self.network.add(adjudicator)

        def heartbeat() -> None:
            environment.send(adjudicator.address, "crossbar", adjudicator.heartbeat())

        environment.every(HEARTBEAT_S, heartbeat)
        environment.every(TICK_S, adjudicator.tick)

    def _start_crossbar_and_storage(self) -> None:
        addresses = [f"storage-{i}" for i in range(self.settings.storage_nodes)]
        environment = self._environment()
        positions = dict.fromkeys(self.journals, 0)
        self.crossbar = Crossbar("crossbar", environment, positions, addresses, self.router.split, keep_deliveries=True)
        self.network.add(self.crossbar)
        environment.every(TICK_S, lambda: self.crossbar.subscribe(dict(zip(self.journals, self.journals, strict=True))))
        self.storage = []
        for address, node in zip(addresses, self.router.nodes, strict=True):
            environment = self._environment()
            storage = SimulatedStorage(address, "crossbar", environment, node)
            environment.every(TICK_S, storage.tick)
            self.network.add(storage)
            self.storage.append(storage)

    def _start_client(self, number: int) -> SimulatedClient:
        keys = [b"\0\0\0\1key%04d" % i for i in range(self.settings.keys)]
        client = SimulatedClient(
            f"client-{number}",
            self._environment(),
            self.shard_map,
            self.addresses,
            lambda key: f"storage-{self.router.index(key)}",
            lambda: self.time.now_ns,
            keys,
            self.settings.think_time_s,
        )
        self.network.add(client)
        return client

    # -- faults -------------------------------------------------------------------------------------------------------

    def _schedule_fault(self) -> None:
        delay_s = self._random.expovariate(1.0) * self.settings.fault_interval_s
        self.time.call_later(delay_s, self._fault)

    def _fault(self) -> None:
        if self._faults_end:
            return
        self.faults += 1
        faults = (self._crash_journal, self._crash_adjudicator, self._stall_disk, self._cut_off_adjudicator)
        self._random.choice(faults)()
        self._schedule_fault()

    def _crash_journal(self) -> None:
        """Gone at once with what it hadn't synced; back after a while with what recovery finds."""
        name = self._random.choice(self.journals)
        self.network.remove(name)
        self._journal_environments[name].stop()
        copies, tail = self._copies[name].crash()
        self._copies[name] = copies
        self.time.call_later(self._random.random() * 0.1, lambda: self._restart_journal(name, copies, tail))

    def _restart_journal(self, name: str, copies: SimulatedCopies, tail: JournalTail) -> None:
        if self._copies[name] is copies:  # and hasn't crashed again meanwhile
            self._start_journal(name, copies, tail)

    def _crash_adjudicator(self) -> None:
        """Gone with everything it knew; a new owner takes over after a while."""
        shard = self._random.randrange(len(self.addresses))
        self.network.remove(self.addresses[shard])
        self._adjudicator_environments[shard].stop()
        self._epochs[shard] += 1
        epoch = self._epochs[shard]
        self.time.call_later(self._random.random() * 0.1, lambda: self._take_over(shard, epoch))

    def _take_over(self, shard: int, epoch: int) -> None:
        if self._epochs[shard] != epoch:
            return  # crashed again meanwhile
        environment = self._environment()
        self._adjudicator_environments[shard] = environment

        def on_ready(recovered: Recovered) -> None:
            environment.stop()
            self._start_adjudicator(shard, recovered)

        takeover = Takeover(self.addresses[shard], self.journals[shard], "crossbar", environment, epoch, on_ready)
        self.network.add(takeover)
        environment.every(HEARTBEAT_S, takeover.tick)

    def _stall_disk(self) -> None:
        disk = self._random.choice(self._copies[self._random.choice(self.journals)].disks)
        disk.stalled = True

        def go_on() -> None:
            disk.stalled = False

        self.time.call_later(0.3, go_on)

    def _cut_off_adjudicator(self) -> None:
        self.network.cut_off(self._random.choice(self.addresses))
        self.time.call_later(self._random.random() * 0.3, self.network.heal)

    # -- the result ---------------------------------------------------------------------------------------------------

    def _logs(self) -> dict[str, list[CommittedTransaction]]:
        """Everything that is durable, journal by journal."""
        logs: dict[str, list[CommittedTransaction]] = {}
        for name, copies in self._copies.items():
            logs[name] = [t for data in copies.read(1) for t in decode_own_record(data).transactions]
        return logs

    def _result(self) -> SimulationResult:
        attempts: list[Attempt] = [attempt for client in self.clients for attempt in client.attempts]
        stored = {key: versions for node in self.router.nodes for key, versions in node.versions.items()}
        logs = self._logs()
        committed = sum(len(log) for log in logs.values())
        return SimulationResult(
            self.seed,
            len(attempts),
            committed,
            len(attempts) - committed,
            self.faults,
            self.network.delivered,
            (self.time.now_ns - EPOCH_NS) / 1e9,
            self.network.history_hash(),
            violations(logs, attempts, stored),
        )
