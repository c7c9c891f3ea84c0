"""An entry of Django's ``DATABASES`` from a URL."""

from __future__ import annotations

from typing import Any

from dsql_connectors.core.conninfo import parse_conninfo
from dsql_connectors.core.parameters import canonical_parameters

ENGINE = "dsql_dialects.django"

#: What Django has a setting of its own for.
_SETTINGS = {"host": "HOST", "port": "PORT", "user": "USER", "dbname": "NAME", "password": "PASSWORD"}


def config(url: str, **settings: Any) -> dict[str, Any]:
    """``DATABASES = {"default": config("aws-dsql://admin@<endpoint>/postgres")}``.

    :param url: as the connectors take it: a URL, ``name=value`` pairs, an endpoint or a cluster id.
    :param settings: further entries, such as ``CONN_MAX_AGE=600``; those of ``OPTIONS`` are added to the URL's.
    :raises dsql_connectors.errors.SettingsError: if the URL can't be read or names an unknown parameter.
    """
    given = canonical_parameters(parse_conninfo(url), ())
    options = {name: value for name, value in given.items() if name not in _SETTINGS}
    options.update(settings.pop("OPTIONS", {}))
    entry: dict[str, Any] = {"ENGINE": ENGINE, "NAME": "postgres", "USER": "admin"}
    entry.update({_SETTINGS[name]: value for name, value in given.items() if name in _SETTINGS})
    return {**entry, "OPTIONS": options, **settings}
