"""Where a manager of an event loop lives."""

import asyncio

import pytest

from msm_fast import WrongEventLoop
from msm_fast.drivers.event_loop import LoopHome


@pytest.fixture
def moves() -> list[asyncio.AbstractEventLoop]:
    return []


@pytest.fixture
def home(moves: list[asyncio.AbstractEventLoop]) -> LoopHome:
    return LoopHome(lambda: moves.append(asyncio.get_running_loop()))


async def enter(home: LoopHome) -> asyncio.AbstractEventLoop:
    return home.enter()


def test_without_a_loop_nothing_is_called(home: LoopHome) -> None:
    calls: list[int] = []
    home.call(lambda: calls.append(1))
    asyncio.run(enter(home))
    home.call(lambda: calls.append(2))
    assert calls == []


def test_in_its_own_loop_it_is_called_at_once_and_from_elsewhere_when_the_loop_comes_to_it(home: LoopHome) -> None:
    calls: list[int] = []

    async def call() -> None:
        home.enter()
        home.call(lambda: calls.append(1))
        assert calls == [1]
        await asyncio.to_thread(home.call, lambda: calls.append(2))
        await asyncio.sleep(0)
        assert calls == [1, 2]

    asyncio.run(call())


def test_it_moves_to_another_loop_only_when_the_first_is_closed(
    home: LoopHome, moves: list[asyncio.AbstractEventLoop]
) -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    assert [first.run_until_complete(enter(home)) for _ in range(2)] == [first, first]
    with pytest.raises(WrongEventLoop, match="another event loop"):
        second.run_until_complete(enter(home))
    first.close()
    assert second.run_until_complete(enter(home)) is second
    second.close()
    assert moves == [first, second]


def test_a_forked_child_has_a_loop_of_its_own_though_that_of_its_parent_is_open(home: LoopHome) -> None:
    of_parent, of_child = asyncio.new_event_loop(), asyncio.new_event_loop()
    of_parent.run_until_complete(enter(home))
    home.leave()
    assert of_child.run_until_complete(enter(home)) is of_child
    of_parent.close()
    of_child.close()
