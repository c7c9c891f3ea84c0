"""What isolating a Django ``TestCase`` costs: ``python tests/measurements/django_test_cases.py [ROUNDS]``.

The same test cases run on a local cluster and, by Django's own backend, on a plain PostgreSQL 16, in turns. Each class
has data of its own and tests that do nothing, one INSERT, or what a view does: read, and write in an ``atomic`` block.
Prints the median time from the beginning of a test's set-up to the end of its tear-down, and the quotient.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import time
import unittest
from collections.abc import Iterator
from typing import Any

import django
from django.conf import settings

from dsql_server.engine import EngineInstance, find_binaries
from dsql_server.testing import LocalCluster

ROUNDS = 40


@contextlib.contextmanager
def postgresql() -> Iterator[dict[str, Any]]:
    """An entry of DATABASES for a plain PostgreSQL 16."""
    engine = EngineInstance(find_binaries(None))
    asyncio.run(engine.start())
    try:
        yield {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "HOST": str(engine.socket_directory),
            "PORT": str(engine.port),
            "USER": engine.superuser,
        }
    finally:
        asyncio.run(engine.stop())


def cases() -> dict[str, type[unittest.TestCase]]:
    """Made after Django is set up."""
    from django.contrib.auth.models import Group
    from django.db import transaction
    from django.test import TestCase

    class Base(TestCase):
        databases = {"default"}

        @classmethod
        def setUpTestData(cls) -> None:
            for number in range(5):
                Group.objects.create(name=f"group {number}")

    class Nothing(Base):
        def test(self) -> None:
            pass

    class OneInsert(Base):
        def test(self) -> None:
            Group.objects.create(name="another")

    class AsAView(Base):
        def test(self) -> None:
            self.assertEqual(Group.objects.count(), 5)
            with transaction.atomic():
                Group.objects.create(name="another")
            self.assertEqual(Group.objects.count(), 6)

    return {"nothing": Nothing, "one insert": OneInsert, "as a view": AsAView}


def median_ms(case: type[unittest.TestCase], rounds: int) -> float:
    """Of one test with its set-up and tear-down; the class's is not counted."""
    times: list[float] = []
    case.setUpClass()
    try:
        for _ in range(rounds):
            result = unittest.TestResult()
            started_s = time.perf_counter()
            case("test")(result)
            times.append(time.perf_counter() - started_s)
            assert result.wasSuccessful(), result
    finally:
        case.tearDownClass()
    return statistics.median(times) * 1000


def main(rounds: int) -> None:
    """Print the table."""
    from dsql_dialects.django import config

    with LocalCluster() as cluster, postgresql() as plain:
        os.environ.update(cluster.environ())
        entries = {"Aurora DSQL": config(cluster.url, TEST={"NAME": "measured"}), "PostgreSQL": plain}
        settings.configure(
            DATABASES={"default": entries["PostgreSQL"]},
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        )
        django.setup()
        from django.db import connections
        from django.test.utils import setup_test_environment

        setup_test_environment()
        wrappers = {}
        for name, entry in entries.items():
            handler = connections.__class__({"default": entry})
            wrappers[name] = handler["default"]
            connections["default"] = wrappers[name]
            wrappers[name].creation.create_test_db(verbosity=0, serialize=False)
        for label, case in cases().items():
            medians = {}
            for name, wrapper in wrappers.items():
                connections["default"] = wrapper
                median_ms(case, 5)
                medians[name] = median_ms(case, rounds)
            quotient = medians["Aurora DSQL"] / medians["PostgreSQL"]
            print(
                f"{label:12}" + "".join(f"{name} {ms:.2f} ms  " for name, ms in medians.items()) + f"{quotient:.1f} x"
            )
        for wrapper in wrappers.values():
            connections["default"] = wrapper
            wrapper.creation.destroy_test_db(wrapper.settings_dict["NAME"], verbosity=0)
            wrapper.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
