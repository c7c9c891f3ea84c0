"""What isolating a Django ``TestCase`` costs: ``python tests/measurements/django_test_cases.py [ROUNDS]``.

The same test cases run on a local cluster and, by Django's own backend, on a plain PostgreSQL 16, in turns. Each class
has data of its own and tests that do nothing, one INSERT, or what a view does: read, and write in an ``atomic`` block.
The backends take turns class by class, so that whatever else the machine does meets both alike. Prints what a test's
set-up and tear-down take, and what the whole test takes: the median of the classes and the least in parentheses, and
the median of the rounds' quotients with the range in which half of them lie.
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
from typing import Any, NamedTuple

import django
from django.conf import settings

from dsql_server.engine import EngineInstance, find_binaries
from dsql_server.testing import LocalCluster

ROUNDS = 30
TESTS_IN_A_CLASS = 10


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
        inside_s = 0.0  #: seconds spent in tests themselves

        def test(self) -> None:
            started_s = time.perf_counter()
            self.work()
            type(self).inside_s += time.perf_counter() - started_s

        def work(self) -> None:
            raise NotImplementedError

        @classmethod
        def setUpTestData(cls) -> None:
            for number in range(5):
                Group.objects.create(name=f"group {number}")

    class Nothing(Base):
        def work(self) -> None:
            pass

    class OneInsert(Base):
        def work(self) -> None:
            Group.objects.create(name="another")

    class AsAView(Base):
        def work(self) -> None:
            self.assertEqual(Group.objects.count(), 5)
            with transaction.atomic():
                Group.objects.create(name="another")
            self.assertEqual(Group.objects.count(), 6)

    return {"nothing": Nothing, "one insert": OneInsert, "as a view": AsAView}


class Batch(NamedTuple):
    """The mean time of one test, in milliseconds; the class's own set-up is not counted."""

    around: float  #: set-up and tear-down
    whole: float


def measure(case: Any, tests: int) -> Batch:
    """Run one test so often, in one class."""
    case.setUpClass()
    try:
        case.inside_s = passed_s = 0.0
        for _ in range(tests):
            result = unittest.TestResult()
            started_s = time.perf_counter()
            case("test")(result)
            passed_s += time.perf_counter() - started_s
            assert result.wasSuccessful(), result
    finally:
        case.tearDownClass()
    return Batch((passed_s - case.inside_s) / tests * 1000, passed_s / tests * 1000)


def row(label: str, kind: str, found: list[list[Batch]]) -> str:
    """A line of the table: both backends' times, and their quotient."""
    ours, theirs = ([getattr(batch, kind) for batch in batches] for batches in found)
    low, middle, high = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
    times = " | ".join(f"{statistics.median(ms):.2f} ({min(ms):.2f})" for ms in (ours, theirs))
    return f"| {label} | {times} | {middle:.1f} ({low:.1f} to {high:.1f}) |"


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
        print(f"| milliseconds | {' | '.join(wrappers)} | quotient |\n|---|--:|--:|--:|")
        for label, case in cases().items():
            found: list[list[Batch]] = [[] for _ in wrappers]
            for _ in range(rounds):
                for batches, wrapper in zip(found, wrappers.values(), strict=True):
                    connections["default"] = wrapper
                    batches.append(measure(case, TESTS_IN_A_CLASS))
            print(row(f"{label}: set-up and tear-down", "around", found))
            print(row(f"{label}: with the test itself", "whole", found), flush=True)
        for wrapper in wrappers.values():
            connections["default"] = wrapper
            wrapper.creation.destroy_test_db(wrapper.settings_dict["NAME"], verbosity=0)
            wrapper.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
