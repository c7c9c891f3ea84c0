"""Optimistic concurrency control: what is worth replaying, how often, and how long to wait before.

A transaction that lost to a concurrent one ends with SQLSTATE 40001 (or OC000, OC001) and has changed nothing;
replaying it as a whole is right, replaying a part of it never is. This module only decides: :class:`RetryLoop` is told
of failures and answers with a delay or an exception. Who sleeps, and how, is the caller's affair, so that synchronous
and asynchronous code share it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from dsql_connectors.core import telemetry
from dsql_connectors.core.errors import (
    SERIALIZATION_FAILURE,
    AttemptFailure,
    CommitOutcomeUnknown,
    ConnectorError,
    DriverErrors,
    RetriesExhausted,
    first_line,
)

#: OC000: another transaction changed the data; OC001: another one changed the schema.
CONFLICT_SQLSTATES = frozenset({"OC000", "OC001", SERIALIZATION_FAILURE})

_CHAIN_LENGTH_MAX = 20


def conflict_sqlstate(error: BaseException | None) -> str | None:
    """The SQLSTATE if ``error``, or what it was raised from, is a lost transaction; else None.

    Looks through ``__cause__`` (Django, our own errors) and ``orig`` (SQLAlchemy), and reads ``sqlstate`` (psycopg,
    asyncpg) and ``pgcode`` (psycopg2).
    """
    for _ in range(_CHAIN_LENGTH_MAX):
        if error is None or isinstance(error, (CommitOutcomeUnknown, RetriesExhausted)):
            return None
        for name in ("sqlstate", "pgcode"):
            state = getattr(error, name, None)
            if isinstance(state, str) and state in CONFLICT_SQLSTATES:
                return state
        original = getattr(error, "orig", None)
        error = original if isinstance(original, BaseException) else error.__cause__
    return None


def is_occ_error(error: BaseException) -> bool:
    """Whether ``error`` says that a transaction lost to a concurrent one, so that replaying it is right."""
    return conflict_sqlstate(error) is not None


class RetryEvent(NamedTuple):
    """What ``on_retry`` is told before the wait."""

    attempt: int  #: that failed; counts from 1
    delay_s: float  #: until the next one
    elapsed_s: float  #: since the first attempt began
    sqlstate: str
    error: BaseException


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to replay. The delay before attempt n + 1 is random, between nothing and
    ``min(delay_s_max, delay_s_base * 2 ** (n - 1))`` (full jitter), so that competitors spread out.

    :raises ValueError: for a budget that allows nothing.
    """

    attempts_max: int = 30  #: the first one included
    time_budget_s: float = 30.0  #: no attempt begins later than this after the first
    delay_s_base: float = 0.01  #: the longest wait after the first attempt
    delay_s_max: float = 1.0  #: the longest wait of all
    on_retry: Callable[[RetryEvent], object] | None = None  #: called before each wait; must not block

    def __post_init__(self) -> None:
        if self.attempts_max < 1:
            raise ValueError(f"attempts_max is {self.attempts_max}; it counts the first attempt, so give 1 or more")
        if self.time_budget_s < 0 or self.delay_s_base < 0 or self.delay_s_max < self.delay_s_base:
            raise ValueError("a retry policy's times are seconds, not negative, and delay_s_base <= delay_s_max")

    def delay_s_limit(self, attempt: int) -> float:
        """The longest wait after the ``attempt``-th failure (counting from 1)."""
        # 2.0 ** 1024 overflows; beyond 2 ** 60 every sensible base is over its maximum.
        return min(self.delay_s_max, self.delay_s_base * 2.0 ** min(attempt - 1, 60))


DEFAULT_POLICY = RetryPolicy()

#: One attempt: nothing is replayed.
NO_RETRY = RetryPolicy(attempts_max=1)


class RetryLoop:
    """The state of one replayed transaction or statement: attempts made, time spent, what failed.

    :param idempotent: replay also after a connection lost during COMMIT.
    :param reconnects: whether the next attempt gets another connection; without, a lost one can't be replayed.
    :param clock: monotonic seconds.
    :param uniform: ``uniform(a, b)``, a random number between both.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        errors: DriverErrors,
        *,
        idempotent: bool = False,
        reconnects: bool = False,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._policy = policy
        self._errors = errors
        self._idempotent = idempotent
        self._reconnects = reconnects
        self._clock = clock
        self._uniform = uniform
        self._started_s = clock()
        self._history: list[AttemptFailure] = []

    @property
    def attempt(self) -> int:
        """The number of the attempt under way, counting from 1."""
        return len(self._history) + 1

    def delay_s_after(self, error: BaseException) -> float | None:
        """Seconds to wait before the next attempt; None if ``error`` is not to be retried and the caller re-raises it.

        :raises RetriesExhausted: if it is one to retry, but the policy's attempts or time are used up.
        """
        state = self._retryable_state(error)
        if state is None:
            return None
        elapsed_s = self._clock() - self._started_s
        delay_s = self._uniform(0.0, self._policy.delay_s_limit(self.attempt))
        spent = self.attempt >= self._policy.attempts_max
        late = elapsed_s + delay_s > self._policy.time_budget_s
        delay_s = 0.0 if spent or late else delay_s
        self._history.append(AttemptFailure(self.attempt, state, first_line(error), elapsed_s, delay_s))
        if spent or late:
            if self._policy.attempts_max == 1:
                return None
            raise self._exhausted(elapsed_s, late and not spent) from error
        self._announce(RetryEvent(len(self._history), delay_s, elapsed_s, state, error))
        return delay_s

    def _retryable_state(self, error: BaseException) -> str | None:
        if isinstance(error, CommitOutcomeUnknown):
            return "08006" if self._idempotent and self._reconnects else None
        return conflict_sqlstate(error)

    def _announce(self, event: RetryEvent) -> None:
        telemetry.counters.add("retries")
        telemetry.logger.debug(
            "attempt %d lost (%s), the next follows in %.1f ms", event.attempt, event.sqlstate, event.delay_s * 1000
        )
        telemetry.emit(
            "dsql.retry",
            {
                "db.system.name": "aurora-dsql",
                "db.response.status_code": event.sqlstate,
                "dsql.attempt": event.attempt,
                "dsql.delay_s": event.delay_s,
            },
        )
        if self._policy.on_retry is not None:
            self._policy.on_retry(event)

    def _exhausted(self, elapsed_s: float, late: bool) -> ConnectorError:
        attempts = len(self._history)
        telemetry.counters.add("retries_exhausted")
        telemetry.emit("dsql.retries_exhausted", {"db.system.name": "aurora-dsql", "dsql.attempt": attempts})
        policy = self._policy
        limit = f"{policy.time_budget_s:g} s" if late else f"{policy.attempts_max} attempts"
        error = RetriesExhausted(
            f"gave up after {attempts} attempts in {elapsed_s:.2f} s (the retry policy allows {limit}); nothing was "
            f"committed; the last conflict: {self._history[-1].message}; shorten the transaction, spread its keys, or "
            "raise attempts_max or time_budget_s"
        )
        error.history = tuple(self._history)
        return self._errors.translate(error)


def policy_of(retry: RetryPolicy | bool | None) -> RetryPolicy:
    """What a ``retry=`` argument means: None and True the default policy, False none at all."""
    if isinstance(retry, RetryPolicy):
        return retry
    return NO_RETRY if retry is False else DEFAULT_POLICY
