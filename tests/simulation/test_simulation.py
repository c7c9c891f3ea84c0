"""Whole clusters on virtual time: every run must be snapshot isolation with first committer wins, whatever happens.

A failure names its seed; the same seed replays it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from dsql_server.adjudicator.adjudicator import Adjudicator, Recovered
from dsql_server.adjudicator.holds import Holds
from dsql_server.adjudicator.recent_claims import RecentClaims
from dsql_server.interfaces.messages import Appended, Release, Watermark
from dsql_server.journal.journal import Journal
from dsql_server.simulation import copies
from dsql_server.simulation.cluster import SimulatedCluster, SimulationResult, SimulationSettings
from dsql_server.simulation.network import NetworkSettings

FULL = os.environ.get("DSQLKIT_FULL") == "1"
TRANSACTIONS = 5000 if FULL else 400
SEEDS = range(1, 41) if FULL else range(1, 4)

RELIABLE = SimulationSettings()
FAULTY = SimulationSettings(fault_interval_s=0.15, clients=8)
LOSSY = SimulationSettings(fault_interval_s=0.5, network=NetworkSettings(loss_share=0.01, duplicate_share=0.03))
ONE_OF_EACH = SimulationSettings(adjudicators=1, storage_nodes=1)


def run(seed: int, settings: SimulationSettings = RELIABLE, transactions: int = TRANSACTIONS) -> SimulationResult:
    return SimulatedCluster(seed, settings).run(transactions)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "settings", [RELIABLE, FAULTY, LOSSY, ONE_OF_EACH], ids=["reliable", "faulty", "lossy", "one of each"]
)
def test_every_run_keeps_the_rules(seed: int, settings: SimulationSettings) -> None:
    result = run(seed, settings)
    assert result.violations == []
    assert result.committed > result.transactions // 10, "a cluster that refuses everything keeps the rules too"
    assert result.refused > 0, "on a few hot keys some must lose"


@pytest.mark.parametrize("seed", SEEDS)
def test_crashed_adjudicators_are_taken_over(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    crash_only(monkeypatch, SimulatedCluster._crash_adjudicator)
    result = run(seed, SimulationSettings(fault_interval_s=0.7, think_time_s=0.1, clients=8), TRANSACTIONS // 2)
    assert result.violations == []
    assert result.faults > 0
    assert result.committed > result.transactions // 10


def crash_only(monkeypatch: pytest.MonkeyPatch, crash: Callable[[SimulatedCluster], None]) -> None:
    """Make every fault the same one."""
    for fault in ("_crash_journal", "_crash_adjudicator", "_stall_disk", "_cut_off_adjudicator"):
        monkeypatch.setattr(SimulatedCluster, fault, crash)


def test_one_seed_is_one_run() -> None:
    first, second, other = run(7, LOSSY), run(7, LOSSY), run(8, LOSSY)
    assert first == second
    assert first.history_hash != other.history_hash


# The check itself: each of these breaks one rule of the commit path, and must be found out.


def violations_of_some_seed(settings: SimulationSettings = RELIABLE) -> list[str]:
    for seed in range(1, 9):
        found = run(seed, settings, 400).violations
        if found:
            return found
    return []


def test_forgetting_recent_claims_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RecentClaims, "conflict", lambda self, claims, t_start: None)
    assert any("both claimed" in violation for violation in violations_of_some_seed())


def test_ignoring_holds_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Holds, "conflict", lambda self, claims, t_start: None)
    assert any("both claimed" in violation for violation in violations_of_some_seed())


def test_dropping_committed_holds_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    on_release = Adjudicator._on_release

    def forget(self: Adjudicator, sender: str, release: Release) -> None:
        on_release(self, sender, Release(release.transaction_id, 0))

    monkeypatch.setattr(Adjudicator, "_on_release", forget)
    assert any("both claimed" in violation for violation in violations_of_some_seed())


def test_a_new_owner_without_a_floor_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows neither the claims committed before it nor the votes that are out."""
    crash_only(monkeypatch, SimulatedCluster._crash_adjudicator)
    on_ready = SimulatedCluster._start_adjudicator

    def forget_the_floor(self: SimulatedCluster, shard: int, recovered: Recovered) -> None:
        on_ready(self, shard, recovered._replace(floor=0, inherited=False))

    monkeypatch.setattr(SimulatedCluster, "_start_adjudicator", forget_the_floor)
    assert any(breaks_a_rule(seed, SimulationSettings(fault_interval_s=0.1)) for seed in range(1, 9))


def test_a_broken_promise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watermarks that run ahead: storage or the crossbar meets a transaction below one, or a read misses it."""

    def heartbeat(self: Adjudicator) -> Watermark:
        return Watermark(self.journal, 0, self._now()[1] + 5_000_000)

    monkeypatch.setattr(Adjudicator, "heartbeat", heartbeat)
    with pytest.raises(AssertionError, match="watermark"):
        run(1)


def test_answering_before_durability_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that acknowledges what it hasn't synced loses it in a crash."""
    crash_only(monkeypatch, SimulatedCluster._crash_journal)
    monkeypatch.setattr(copies, "SYNC_MIN_US", 5000)  # so that a crash finds something unsynced
    on_append = Journal._on_append

    def acknowledge_at_once(self: Any, sender: str, message: Any) -> None:
        before = self._sequence
        on_append(self, sender, message)
        if self._sequence > before:
            self._send(self.address, sender, Appended(message.epoch, self._sequence))

    monkeypatch.setattr(Journal, "_on_append", acknowledge_at_once)
    assert any(breaks_a_rule(seed, SimulationSettings(fault_interval_s=0.3)) for seed in range(1, 9))


def breaks_a_rule(seed: int, settings: SimulationSettings, transactions: int = 300) -> bool:
    """Whether a rule is broken, an assertion between roles fails, or the cluster hangs."""
    try:
        return run(seed, settings, transactions).violations != []
    except (AssertionError, TimeoutError):
        return True
