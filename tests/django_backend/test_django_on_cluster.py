"""The backend on the shared cluster: replayed transactions, flush, isolation, old connections, the pool."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.cache.backends.db import DatabaseCache
from django.core.management import call_command
from django.db import IntegrityError, InterfaceError, NotSupportedError, OperationalError, connections, transaction
from django.db.models import Value
from django.db.models.functions import SHA1, SHA224, SHA256, SHA512
from django.http import HttpResponse
from django.test import RequestFactory

from dsql_connectors.errors import NestedTransactionError, RetriesExhausted
from dsql_dialects.django import replay_safe, retry_on_conflict, retrying
from dsql_dialects.django.flush import ROWS_AT_A_TIME
from dsql_dialects.django.isolation import Isolation
from dsql_dialects.django.middleware import RetryOnConflictMiddleware


def execute(connection: Any, *statements: str) -> list[Any]:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def counters(django_connection: Any) -> Any:
    execute(
        django_connection,
        "CREATE TABLE counter (id int PRIMARY KEY, n int NOT NULL)",
        "INSERT INTO counter VALUES (1, 0)",
    )
    return django_connection


def count(connection: Any) -> int:
    number: int = execute(connection, "SELECT n FROM counter WHERE id = 1")[0][0]
    return number


def elsewhere(work: Callable[[Any], object]) -> None:
    """Do something on a connection of another thread."""

    def run() -> None:
        try:
            work(connections["default"])
        finally:
            connections["default"].close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def add_and_lose(connection: Any, losses: int) -> Callable[[], int]:
    """Adds 1, and loses to another thread that adds 10, so often."""
    attempts = 0

    def add() -> int:
        nonlocal attempts
        attempts += 1
        execute(connection, "UPDATE counter SET n = n + 1 WHERE id = 1")
        if attempts <= losses:
            elsewhere(lambda other: execute(other, "UPDATE counter SET n = n + 10 WHERE id = 1"))
        return attempts

    return add


def test_a_lost_function_runs_again(counters: Any) -> None:
    assert retry_on_conflict(add_and_lose(counters, 2))() == 3
    assert count(counters) == 21


def test_hooks_of_the_committed_attempt_run_once(counters: Any) -> None:
    hooks: list[int] = []
    add = add_and_lose(counters, 1)
    for attempt in retrying():
        with attempt:
            number = add()
            transaction.on_commit(lambda number=number: hooks.append(number))
            assert hooks == []
    assert hooks == [2]


def test_a_failing_hook_is_no_reason_to_run_again(counters: Any) -> None:
    add = add_and_lose(counters, 0)

    def fail() -> None:
        raise OperationalError("the hook")

    @retry_on_conflict
    def work() -> None:
        add()
        transaction.on_commit(fail)

    with pytest.raises(OperationalError, match="the hook"):
        work()
    assert count(counters) == 1


def test_attempts_are_used_up(counters: Any) -> None:
    with pytest.raises(OperationalError) as caught:
        retry_on_conflict(retry=connections_policy(2))(add_and_lose(counters, 9))()
    assert isinstance(caught.value, RetriesExhausted)
    assert caught.value.attempts == 2


def connections_policy(attempts: int) -> Any:
    from dsql_connectors.core.retry import RetryPolicy

    return RetryPolicy(attempts_max=attempts, delay_s_base=0.001, delay_s_max=0.001)


def test_another_error_rolls_back_and_is_raised(counters: Any) -> None:
    @retry_on_conflict
    def work() -> None:
        execute(counters, "UPDATE counter SET n = 5 WHERE id = 1", "INSERT INTO counter VALUES (1, 1)")

    with pytest.raises(IntegrityError):
        work()
    assert count(counters) == 0


def test_a_violation_at_commit_is_no_unknown_outcome(django_connection: Any) -> None:
    execute(
        django_connection,
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )
    with pytest.raises(IntegrityError):
        retry_on_conflict(lambda: execute(django_connection, "INSERT INTO child VALUES (1, 1)"))()


def test_inside_another_transaction_it_is_refused(counters: Any) -> None:
    with transaction.atomic(), pytest.raises(InterfaceError) as caught:
        retry_on_conflict(add_and_lose(counters, 0))()
    assert isinstance(caught.value, NestedTransactionError)


def test_a_coroutine_function_is_refused() -> None:
    async def work() -> None: ...

    with pytest.raises(InterfaceError, match="sync_to_async"):
        retry_on_conflict(work)


def test_nested_blocks_without_savepoints(counters: Any) -> None:
    with transaction.atomic():
        with transaction.atomic(savepoint=False):
            execute(counters, "UPDATE counter SET n = 1 WHERE id = 1")
        with transaction.atomic():
            execute(counters, "UPDATE counter SET n = n + 1 WHERE id = 1")
    assert count(counters) == 2


def test_a_changed_schema_costs_a_new_transaction_at_most_its_first_statement(counters: Any) -> None:
    count(counters)
    elsewhere(lambda other: execute(other, "CREATE TABLE other (id int PRIMARY KEY)"))
    with transaction.atomic():
        assert count(counters) == 0


def test_marked_views_are_replayed(counters: Any) -> None:
    counters.settings_dict["ATOMIC_REQUESTS"] = True
    add = add_and_lose(counters, 1)

    @replay_safe
    def view(request: Any) -> HttpResponse:
        return HttpResponse(str(add()))

    middleware = RetryOnConflictMiddleware(lambda request: HttpResponse())
    request = RequestFactory().get("/")
    assert middleware.process_view(request, view, (), {}).content == b"2"
    assert middleware.process_view(request, lambda request: HttpResponse(), (), {}) is None
    counters.settings_dict["ATOMIC_REQUESTS"] = False
    assert middleware.process_view(request, view, (), {}) is None


def test_flush_takes_more_rows_than_a_transaction(counters: Any) -> None:
    rows = 3500
    execute(counters, "DELETE FROM counter")
    for start in range(0, rows, 2500):
        end = min(start + 2500, rows) - 1
        execute(counters, f"INSERT INTO counter SELECT i, 0 FROM generate_series({start}, {end}) i")
    assert rows > 3000 > ROWS_AT_A_TIME
    counters.ops.execute_sql_flush(counters.ops.sql_flush(None, ["counter"]))
    assert execute(counters, "SELECT count(*) FROM counter") == [(0,)]


def test_a_test_case_is_undone(counters: Any) -> None:
    counters.isolation = Isolation(counters)
    counters.close()
    try:
        outer, inner = transaction.atomic(), transaction.atomic()
        outer._from_testcase = inner._from_testcase = True
        outer.__enter__()
        execute(counters, "INSERT INTO counter VALUES (2, 0)")  # as setUpTestData does
        inner.__enter__()
        execute(counters, "UPDATE counter SET n = 7 WHERE id = 1", "DELETE FROM counter WHERE id = 2")
        with pytest.raises(IntegrityError), transaction.atomic():
            execute(counters, "INSERT INTO counter VALUES (1, 1)")
        assert execute(counters, "SELECT * FROM counter") == [(1, 7)]
        transaction.set_rollback(True)
        inner.__exit__(None, None, None)
        assert execute(counters, "SELECT * FROM counter ORDER BY 1") == [(1, 0), (2, 0)]
        transaction.set_rollback(True)
        outer.__exit__(None, None, None)
        assert execute(counters, "SELECT * FROM counter") == [(1, 0)]
    finally:
        counters.close()
        counters.isolation.close()
        counters.isolation = None


def test_a_test_case_may_change_more_rows_than_a_transaction(counters: Any) -> None:
    counters.isolation = Isolation(counters)
    counters.close()
    try:
        outer = transaction.atomic()
        outer._from_testcase = True
        with outer:
            for first in (1000, 3000, 5000):
                with transaction.atomic(savepoint=False):
                    execute(
                        counters, f"INSERT INTO counter SELECT n, 0 FROM generate_series({first}, {first + 1999}) n"
                    )
            assert execute(counters, "SELECT count(*) FROM counter") == [(6001,)]
            transaction.set_rollback(True)
        assert execute(counters, "SELECT * FROM counter") == [(1, 0)]
    finally:
        counters.close()
        counters.isolation.close()
        counters.isolation = None


def test_constraints_are_deferred_again_after_a_check(counters: Any) -> None:
    execute(
        counters,
        "CREATE TABLE owner (id int PRIMARY KEY)",
        "CREATE TABLE owned (id int PRIMARY KEY, owner int REFERENCES owner DEFERRABLE INITIALLY DEFERRED)",
    )
    counters.isolation = Isolation(counters)
    counters.close()
    try:
        outer = transaction.atomic()
        outer._from_testcase = True
        with outer:
            execute(counters, "INSERT INTO owned VALUES (1, NULL)")
            counters.check_constraints()
            execute(counters, "INSERT INTO owned VALUES (2, 2)")
            assert counters.is_usable()
            with pytest.raises(IntegrityError):
                counters.check_constraints()
            assert not counters.is_usable()  # as Django asks before it checks constraints
            transaction.set_rollback(True)
    finally:
        counters.close()
        counters.isolation.close()
        counters.isolation = None


def test_what_breaks_a_transaction_keeps_its_kind(counters: Any) -> None:
    with pytest.raises(IntegrityError, match=r"no savepoints.*duplicate key") as caught, transaction.atomic():
        try:
            with transaction.mark_for_rollback_on_error(counters.alias):
                execute(counters, "INSERT INTO counter VALUES (1, 1)")
        except IntegrityError:
            execute(counters, "SELECT 1")
    assert isinstance(caught.value, transaction.TransactionManagementError)


def test_the_cache_in_the_database(counters: Any) -> None:
    call_command("createcachetable", "cached", verbosity=0)
    call_command("createcachetable", "cached", verbosity=0)  # which finds it
    index = "SELECT indexdef FROM pg_indexes WHERE tablename = 'cached' AND indexname = 'cached_expires'"
    assert "(expires)" in execute(counters, index)[0][0]
    cache = DatabaseCache("cached", {})
    cache.set("key", [1, 2])
    assert cache.get("key") == [1, 2]


def test_hashes_need_no_extension(django_connection: Any) -> None:
    values = {name: kind(Value("dsql")) for name, kind in (("sha224", SHA224), ("sha256", SHA256), ("sha512", SHA512))}
    found = ContentType.objects.none().query.get_compiler(connection=django_connection)
    for name, expression in values.items():
        sql, parameters = found.compile(expression.resolve_expression(found.query))
        with django_connection.cursor() as cursor:
            cursor.execute(f"SELECT {sql}", parameters)
            assert cursor.fetchone() == (hashlib.new(name, b"dsql").hexdigest(),)
    with pytest.raises(NotSupportedError, match="use SHA256"):
        found.compile(SHA1(Value("dsql")).resolve_expression(found.query))


def test_what_is_nested_in_a_test_cases_block_has_no_savepoint(counters: Any) -> None:
    counters.isolation = Isolation(counters)
    counters.close()
    try:
        outer = transaction.atomic()
        outer._from_testcase = True
        with outer:
            with transaction.atomic():
                assert connections["default"].savepoint_ids[-1] is not None
                with transaction.atomic():
                    assert connections["default"].savepoint_ids[-1] is None
            transaction.set_rollback(True)
    finally:
        counters.close()
        counters.isolation.close()
        counters.isolation = None


def test_an_old_connection_is_replaced_outside_of_transactions(counters: Any) -> None:
    counters.ensure_connection()
    first = counters.connection
    counters._expires_s = time.monotonic() - 1
    with transaction.atomic():
        pass
    second = counters.connection
    assert second is not first
    with transaction.atomic():
        count(counters)
        counters._expires_s = time.monotonic() - 1
        count(counters)
        assert counters.connection is second


def test_conn_max_age_is_capped(counters: Any) -> None:
    counters.close()
    counters.settings_dict["CONN_MAX_AGE"] = None
    counters.ensure_connection()
    assert counters.close_at is not None
    assert counters.close_at - time.monotonic() <= 3300


def test_the_pool_gives_connections(counters: Any) -> None:
    counters.close()
    counters.settings_dict["OPTIONS"] = {**counters.settings_dict["OPTIONS"], "pool": {"min_size": 1, "max_size": 2}}
    try:
        assert count(counters) == 0
        assert counters.pool.get_stats()["pool_size"] >= 1
    finally:
        counters.close()
        counters.close_pool()


def test_a_schema_of_its_own(counters: Any) -> None:
    execute(counters, "CREATE SCHEMA apart")
    counters.close()
    counters.settings_dict["OPTIONS"] = {**counters.settings_dict["OPTIONS"], "schema": "apart"}
    execute(counters, "CREATE TABLE here (id int PRIMARY KEY)")
    assert counters.introspection.table_names() == ["here"]
