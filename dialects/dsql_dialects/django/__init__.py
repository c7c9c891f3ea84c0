"""Django on Aurora DSQL: ``ENGINE = "dsql_dialects.django"``.

``config("aws-dsql://…")`` makes an entry of ``DATABASES`` out of a URL. ``retry_on_conflict`` and ``retrying`` replay
transactions that lose to concurrent ones; ``replay_safe`` marks views for
:class:`dsql_dialects.django.middleware.RetryOnConflictMiddleware`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsql_dialects.django.configuration import config

if TYPE_CHECKING:
    from dsql_dialects.django.middleware import replay_safe
    from dsql_dialects.django.retry import retry_on_conflict, retrying

#: Imported when first used: ``config`` is for settings files, which Django reads before anything else of it works.
_MODULES = {"replay_safe": "middleware", "retry_on_conflict": "retry", "retrying": "retry"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = ["config", "replay_safe", "retry_on_conflict", "retrying"]
