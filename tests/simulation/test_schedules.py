"""What must hold whatever happens to one node, over many seeded schedules.

A failing seed is named in the error; `python -m tests.simulation.test_schedules 4711` runs it alone and prints every
exchange.
"""

import sys

import pytest

from tests.simulation.schedules import Schedule

SEEDS = 2000
SEEDS_PER_TEST = 100


def check(seed: int) -> Schedule:
    return judge(Schedule(seed))


def judge(schedule: Schedule) -> Schedule:
    """Run a schedule; what it did to the cluster must not have lost anything."""
    schedule.run()
    for without_victim in (True, False):
        attributes = schedule.read(without_victim=without_victim)
        if schedule.browser.logout_ended_at is not None:
            assert attributes is None, "a session that was ended is back"
        elif not schedule.browser.logout_began:
            assert attributes is not None, "the session is lost"
            missing = schedule.browser.acknowledged.keys() - attributes.keys()
            assert not missing, f"acknowledged writes are lost: {missing}"
    return schedule


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_no_acknowledged_write_is_lost_and_no_ended_session_comes_back(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        try:
            check(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("seed", [3119, 31070, 39686, 45574, 57239, 63242, 73246])
def test_what_once_lost_a_write_does_so_no_more(seed: int) -> None:
    check(seed)


def main() -> None:
    """Run one seed and print what happened in it."""
    schedule = Schedule(int(sys.argv[1]))
    try:
        schedule.run()
    finally:
        print("\n".join(schedule.log))
        print(f"acknowledged: {schedule.browser.acknowledged}, cookie on {schedule.browser.cookie[-2:]}")
    for without_victim in (True, False):
        print(f"read, without {schedule.victim_id}={without_victim}: {schedule.read(without_victim=without_victim)}")


if __name__ == "__main__":
    main()
