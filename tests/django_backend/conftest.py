"""Django, configured once for all tests of its backend; ``django_connection`` is on the shared cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django.db import connections

if not settings.configured:
    settings.configure(
        DATABASES={"default": {"ENGINE": "dsql_dialects.django", "NAME": "postgres", "USER": "admin"}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        ROOT_URLCONF="django_views",
        SECRET_KEY="of no use",
        USE_TZ=True,
    )
    django.setup()


@pytest.fixture
def django_connection(dsql_url: str) -> Iterator[Any]:
    """Django's default connection, to an empty database."""
    from dsql_dialects.django import config

    connection = connections["default"]
    before = dict(connection.settings_dict)
    connection.settings_dict.update(config(dsql_url))
    yield connection
    connections.close_all()
    connection.settings_dict.clear()
    connection.settings_dict.update(before)
