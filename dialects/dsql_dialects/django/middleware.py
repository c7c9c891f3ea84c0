"""Replays requests whose transaction lost, where the view says that it may."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import connections

from dsql_dialects.django.retry import retrying

V = TypeVar("V", bound=Callable[..., Any])


def replay_safe(view: V) -> V:
    """Mark a view that may run again from its beginning: outside of the database it does nothing but by ``on_commit``.

    For a class-based view: ``replay_safe(OrderView.as_view())``.
    """
    view.dsql_replay_safe = True  # type: ignore[attr-defined]
    return view


class RetryOnConflictMiddleware:
    """With ``ATOMIC_REQUESTS``, runs a view marked by :func:`replay_safe` again when its transaction loses.

    It must be the last in ``MIDDLEWARE``: it calls the view itself. Views that aren't marked, asynchronous ones and
    those of several ``ATOMIC_REQUESTS`` databases are left to Django.
    """

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Pass the request on."""
        return self._get_response(request)

    def process_view(
        self, request: Any, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The view's response, or None to let Django call the view.

        :raises RetriesExhausted: when the policy allows no further attempt; a django OperationalError.
        """
        if not getattr(view, "dsql_replay_safe", False) or inspect.iscoroutinefunction(view):
            return None
        alias = _replayed_alias(view)
        if alias is None:
            return None
        response = None
        for attempt in retrying(using=alias):
            with attempt:
                response = view(request, *args, **kwargs)
        return response


def _replayed_alias(view: Callable[..., Any]) -> str | None:
    """The one database in whose transaction Django would run the view, if it is one of ours."""
    exempt: set[str] = getattr(view, "_non_atomic_requests", set())
    atomic = [
        alias for alias, settings in connections.settings.items() if settings["ATOMIC_REQUESTS"] and alias not in exempt
    ]
    if len(atomic) != 1 or not hasattr(connections[atomic[0]], "isolation"):
        return None
    alias: str = atomic[0]
    return alias
