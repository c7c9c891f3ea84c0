"""What the retry loop decides, on an injected clock; and the steps that both kinds of driver run."""

from __future__ import annotations

import asyncio

import pytest

from dsql_connectors import errors
from dsql_connectors.core import telemetry
from dsql_connectors.core.errors import CommitOutcomeUnknown, DriverErrors, RetriesExhausted, TokenRefusedError
from dsql_connectors.core.retry import RetryEvent, RetryLoop, RetryPolicy, conflict_sqlstate, is_occ_error, policy_of
from dsql_connectors.core.transaction import Call, Sleep, Steps, run, run_async


class Operational(Exception):
    """A driver's."""


class Interface(Exception):
    """A driver's."""


class Serialization(Operational):
    sqlstate = "40001"


DRIVER = DriverErrors(operational=Operational, interface=Interface, serialization=Serialization)
LOST = Serialization("change conflicts with another transaction (OC000)\nmore")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def loop_of(policy: RetryPolicy, clock: Clock | None = None, **options: bool) -> RetryLoop:
    return RetryLoop(policy, DRIVER, clock=clock or Clock(), uniform=lambda low, high: high, **options)


def test_delays_double_up_to_their_limit_with_full_jitter() -> None:
    loop = loop_of(RetryPolicy(attempts_max=6, delay_s_base=0.01, delay_s_max=0.05))
    assert [loop.delay_s_after(LOST) for _ in range(5)] == [0.01, 0.02, 0.04, 0.05, 0.05]
    ranges = []
    loop = RetryLoop(RetryPolicy(), DRIVER, uniform=lambda low, high: ranges.append((low, high)) or 0.0)  # type: ignore[func-returns-value]
    loop.delay_s_after(LOST)
    assert ranges == [(0.0, 0.01)]
    assert RetryPolicy().delay_s_limit(100_000) == RetryPolicy().delay_s_max


def test_the_budget_in_attempts() -> None:
    loop = loop_of(RetryPolicy(attempts_max=2))
    assert loop.delay_s_after(LOST) is not None
    with pytest.raises(RetriesExhausted, match="2 attempts") as caught:
        loop.delay_s_after(LOST)
    assert isinstance(caught.value, Serialization) and caught.value.__cause__ is LOST
    assert [failure.message for failure in caught.value.history] == [
        "change conflicts with another transaction (OC000)"
    ] * 2
    assert caught.value.history[-1].delay_s == 0.0 and caught.value.attempts == 2


def test_the_budget_in_time() -> None:
    clock = Clock()
    loop = loop_of(RetryPolicy(time_budget_s=1.0), clock)
    assert loop.delay_s_after(LOST) is not None
    clock.now += 0.995
    with pytest.raises(RetriesExhausted, match="allows 1 s"):
        loop.delay_s_after(LOST)


def test_one_attempt_leaves_the_error_as_it_is() -> None:
    assert loop_of(policy_of(False)).delay_s_after(LOST) is None
    assert policy_of(None) == policy_of(True) == RetryPolicy()


@pytest.mark.parametrize(
    "arguments", [{"attempts_max": 0}, {"time_budget_s": -1}, {"delay_s_base": 2.0, "delay_s_max": 1.0}]
)
def test_a_policy_that_allows_nothing_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"attempts_max|seconds"):
        RetryPolicy(**arguments)  # type: ignore[arg-type]


def test_conflicts_are_found_through_what_wraps_them() -> None:
    """https://github.com/awslabs/aurora-dsql-orms/pull/563: wrapped errors were never retried.

    https://github.com/aws-samples/aurora-dsql-samples/pull/1102: a class stood for SQLSTATE 40001, and the wrong one.
    """

    class OfPsycopg2(Exception):
        pgcode = "40001"

    class OfSqlalchemy(Exception):
        orig = OfPsycopg2()

    of_django = RuntimeError("wrapped")
    of_django.__cause__ = LOST
    for error in (LOST, OfPsycopg2(), OfSqlalchemy(), of_django):
        assert is_occ_error(error)
    for state in ("OC000", "OC001"):
        LOST_STATE = type("Lost", (Exception,), {"sqlstate": state})
        assert conflict_sqlstate(LOST_STATE()) == state
    assert not is_occ_error(ValueError("40001 OC000"))
    assert not is_occ_error(type("Deadlock", (Exception,), {"sqlstate": "40P01"})())


def test_an_endless_chain_ends() -> None:
    first, second = RuntimeError(), RuntimeError()
    first.__cause__, second.__cause__ = second, first
    assert not is_occ_error(first)


def test_an_unknown_commit_is_replayed_only_if_idempotent_and_elsewhere() -> None:
    unknown = CommitOutcomeUnknown("lost")
    unknown.__cause__ = LOST
    assert loop_of(RetryPolicy()).delay_s_after(unknown) is None
    assert loop_of(RetryPolicy(), idempotent=True).delay_s_after(unknown) is None
    assert loop_of(RetryPolicy(), reconnects=True).delay_s_after(unknown) is None
    assert loop_of(RetryPolicy(), idempotent=True, reconnects=True).delay_s_after(unknown) is not None


def test_an_inner_loop_that_gave_up_is_not_replayed_by_an_outer_one() -> None:
    inner = loop_of(RetryPolicy(attempts_max=2))
    inner.delay_s_after(LOST)
    with pytest.raises(RetriesExhausted) as caught:
        inner.delay_s_after(LOST)
    assert not is_occ_error(caught.value)


def test_hooks_and_counters_are_told() -> None:
    seen: list[RetryEvent] = []
    events: list[telemetry.Event] = []
    before = telemetry.counters.snapshot().get("retries", 0)
    remove = telemetry.add_listener(events.append)
    failing = telemetry.add_listener(lambda event: 1 / 0)
    try:
        loop_of(RetryPolicy(on_retry=seen.append)).delay_s_after(LOST)
    finally:
        remove()
        failing()
    loop_of(RetryPolicy()).delay_s_after(LOST)
    assert [(event.attempt, event.sqlstate, event.error) for event in seen] == [(1, "40001", LOST)]
    assert [event.name for event in events] == ["dsql.retry"]
    assert events[0].attributes["db.response.status_code"] == "40001"
    assert telemetry.counters.snapshot()["retries"] == before + 2


def test_errors_are_of_the_driver_too() -> None:
    cause = OSError("x")
    plain = errors.MissingRegionError("no region")
    plain.__cause__ = cause
    bound = DRIVER.translate(plain)
    assert isinstance(bound, Interface) and isinstance(bound, errors.MissingRegionError)
    assert isinstance(bound, ValueError) and str(bound) == "no region" and bound.__cause__ is cause
    assert type(bound).__qualname__ == "MissingRegionError" and DRIVER.translate(bound) is bound
    refused = DRIVER.wrap(TokenRefusedError, "refused; do this", Operational("refused"))
    assert isinstance(refused, Operational) and str(refused) == "refused; do this"
    unreachable = DRIVER.wrap(errors.EndpointUnreachableError, "closed; do this", ConnectionRefusedError(111, "closed"))
    assert isinstance(unreachable, Operational) and isinstance(unreachable, ConnectionRefusedError)
    assert unreachable.args == (111, "closed") and str(unreachable) == "closed; do this"


def steps(log: list[object]) -> Steps[str]:
    try:
        yield Call(lambda: 1 / 0)
    except ZeroDivisionError:
        log.append("thrown in")
    yield Sleep(0.25)
    value = yield Call(lambda: "value")
    return str(value)


def test_the_same_steps_run_at_once_and_awaited() -> None:
    log: list[object] = []
    assert run(steps(log), sleep=log.append) == "value"

    async def sleep(seconds: float) -> None:
        log.append(seconds)

    assert asyncio.run(run_async(steps(log), sleep=sleep)) == "value"
    assert log == ["thrown in", 0.25] * 2


def test_a_coroutine_in_a_synchronous_transaction_is_refused() -> None:
    async def body() -> None:
        """Never runs."""

    def one() -> Steps[object]:
        return (yield Call(body))

    with pytest.raises(TypeError, match="asynchronous connection"):
        run(one())
