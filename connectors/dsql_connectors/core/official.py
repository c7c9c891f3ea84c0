"""Names of the official connector (aurora-dsql-python-connector), so that an application changes its imports only."""

from __future__ import annotations

from dsql_connectors.core.retry import RetryPolicy

_MS = 0.001


def OCCRetryConfig(  # the official name
    max_retries: int = 3, base_delay_ms: float = 1, max_delay_ms: float = 100, jitter_factor: float = 0.25
) -> RetryPolicy:
    """The retry policy that the official connector's configuration means.

    :param max_retries: after the first attempt.
    :param jitter_factor: accepted and unused: the delay is random from nothing to its limit (full jitter).
    """
    return RetryPolicy(attempts_max=max_retries + 1, delay_s_base=base_delay_ms * _MS, delay_s_max=max_delay_ms * _MS)
