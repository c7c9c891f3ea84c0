"""How a ``with attempt:`` block is left decides whether a lost COMMIT can be replayed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from dsql_connectors.core.leaving import leads_to_next_attempt


class Attempt:
    """Loses its first COMMIT if the block was left towards the next attempt; remembers what was told."""

    def __init__(self, told: list[bool]) -> None:
        self.told = told

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, *_: object) -> bool:
        caller = sys._getframe(1)
        self.told.append(leads_to_next_attempt(caller.f_code, caller.f_lasti))
        return True

    async def __aenter__(self) -> Attempt:
        return self

    async def __aexit__(self, *_: object) -> bool:
        caller = sys._getframe(1)
        code, offset = caller.f_code, caller.f_lasti
        await asyncio.sleep(0)
        self.told.append(leads_to_next_attempt(code, offset))
        return True


def two(told: list[bool]) -> Iterator[Attempt]:
    yield Attempt(told)
    yield Attempt(told)


async def two_async(told: list[bool]) -> AsyncIterator[Attempt]:
    for attempt in two(told):
        yield attempt


def falls_through(told: list[bool]) -> None:
    for attempt in two(told):
        with attempt:
            for _ in range(2):
                pass


def goes_on_after_the_block(told: list[bool]) -> None:
    for attempt in two(told):
        with attempt:
            pass
        for _ in range(2):
            pass
        if not told:
            break


def continues(told: list[bool]) -> None:
    for attempt in two(told):
        with attempt:
            if attempt:
                continue
            told.append(False)


def inside_other_loops(told: list[bool]) -> None:
    while not told:
        for _ in range(1):
            for attempt in two(told):
                with attempt:
                    pass


def ignores_an_error(told: list[bool]) -> None:
    for attempt in two(told):
        with attempt:
            raise ValueError


def returns(told: list[bool]) -> int:
    for attempt in two(told):
        with attempt:
            return 1
    return 2


def returns_under_a_condition(told: list[bool]) -> int:
    result = 0
    for attempt in two(told):
        with attempt:
            if attempt:
                return result
            result += 1
    return result


def returns_from_an_inner_loop(told: list[bool]) -> int:
    for attempt in two(told):
        with attempt:
            for number in range(3):
                if number:
                    return number
    return 0


def breaks(told: list[bool]) -> None:
    for _ in range(1):
        for attempt in two(told):
            with attempt:
                if attempt:
                    break


async def falls_through_async(told: list[bool]) -> None:
    async for attempt in two_async(told):
        async with attempt:
            async for _ in two_async([]):
                pass


async def continues_async(told: list[bool]) -> None:
    for _ in range(1):
        async for attempt in two_async(told):
            async with attempt:
                if attempt:
                    continue


async def returns_async(told: list[bool]) -> int:
    async for attempt in two_async(told):
        async with attempt:
            return 1
    return 2


async def breaks_async(told: list[bool]) -> None:
    async for _ in two_async([]):
        async for attempt in two_async(told):
            async with attempt:
                if attempt:
                    break
        return


@pytest.mark.parametrize(
    "function",
    [
        falls_through,
        goes_on_after_the_block,
        continues,
        inside_other_loops,
        ignores_an_error,
        falls_through_async,
        continues_async,
    ],
)
def test_another_attempt_can_follow(function: Callable[[list[bool]], Any]) -> None:
    told: list[bool] = []
    result = function(told)
    if asyncio.iscoroutine(result):
        asyncio.run(result)
    assert told == [True, True]


@pytest.mark.parametrize(
    "function",
    [returns, returns_under_a_condition, returns_from_an_inner_loop, breaks, returns_async, breaks_async],
)
def test_no_other_attempt_can_follow(function: Callable[[list[bool]], Any]) -> None:
    told: list[bool] = []
    result = function(told)
    if asyncio.iscoroutine(result):
        asyncio.run(result)
    assert told == [False]


def test_outside_of_a_loop_none_can_follow() -> None:
    told: list[bool] = []
    with Attempt(told):
        pass
    assert told == [False]
