"""How a task of a manager in an event loop ends."""

import asyncio

from msm_fast.drivers.background import _Task
from msm_fast.drivers.event_loop import LoopHome


def test_what_a_task_is_doing_is_broken_off_when_it_takes_longer_than_its_end_may() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("broken off")

    async def start_and_close() -> None:
        home = LoopHome(lambda: None)
        home.enter()
        task = _Task(home, "a task of a test", work)
        task.start()
        await asyncio.sleep(0)
        await asyncio.wait_for(task.close(0.01), 10)
        assert ended == ["broken off"]
        task.start()
        await asyncio.sleep(0)
        assert ended == ["broken off"], "what is closed is not started again"

    asyncio.run(start_and_close())
