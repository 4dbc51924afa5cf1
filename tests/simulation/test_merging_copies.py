"""Saves that meet while the copies of their session differ: one lags behind, was lost, or names another home."""

from collections.abc import Callable

import pytest

from msm_fast._core import wire
from msm_fast.engine.attempts import BEATS_THE_OLD_HOME
from msm_fast.engine.copies import encode_state
from msm_fast.engine.effects import Exchange, Flow, Outcome
from msm_fast.policies import SaveResult
from msm_fast.session import SessionState
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import backup_of, home_of, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]


def test_changes_that_another_has_built_on_already_are_not_laid_over_it(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(count=0)
    backup = driver.nodes[backup_of(driver, session_id)]
    old = dict(backup.server._items)
    first = loaded(one, session_id)
    first["count"] = 1
    one.save(first)
    second = loaded(one, session_id)
    second["count"] = 2
    backup.server._items.update(old)
    exchanges = 0

    def build_on_it(exchange: Exchange) -> None:
        nonlocal exchanges
        exchanges += 1
        if exchanges == 2:  # the home has it, the backup is still to be mended
            driver.before_exchange = None
            backup.fault = "refused"
            third = loaded(two, session_id)
            third["count"] += 1
            two.save(third)
            backup.fault = None

    driver.before_exchange = build_on_it
    one.save(second)
    assert read(make_worker(), session_id) == {"count": 3}


def test_nor_are_those_whose_answer_was_lost(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(count=0)
    first = loaded(one, session_id)
    first["count"] = 1
    home = driver.nodes[home_of(session_id)]
    home.fault, home.carries_out_before_failing = "timeout", True

    def build_on_it(exchange: Exchange) -> None:
        if home.server.peek(key_of(session_id)).client_flags != stored:  # type: ignore[union-attr]
            driver.before_exchange = None
            home.fault = None
            second = loaded(two, session_id)
            second["count"] += 1
            assert two.save(second).status == "stored"

    stored = home.server.peek(key_of(session_id)).client_flags  # type: ignore[union-attr]
    driver.before_exchange = build_on_it
    assert one.save(first).node != home_of(session_id)
    assert read(make_worker(), session_id) == read(make_worker(), first.id) == {"count": 2}


@pytest.mark.parametrize("lagging", [0, 1])
def test_what_another_has_built_on_a_save_survives_the_corruption_of_its_home(
    driver: SimulatedDriver, make_worker: MakeWorker, lagging: int
) -> None:
    one, two = make_worker(replicas=2), make_worker(replicas=2)
    session_id = one.store(count=0)
    home = driver.nodes[home_of(session_id)]
    ranked = one.ctx.topology.ranked(key_of(session_id).decode(), lambda _: True)
    backups = [driver.nodes[name] for name in ranked if name != home_of(session_id)]
    old = [dict(backup.server._items) for backup in backups]
    first = loaded(one, session_id)
    first["count"] = 1
    one.save(first)
    second = loaded(one, session_id)
    second["count"] = 2
    for backup, items in zip(backups, old, strict=True):
        backup.server._items.update(items)
    exchanges = 0

    def build_on_it(exchange: Exchange) -> None:
        nonlocal exchanges
        exchanges += 1
        if exchanges == 2:  # the home has it, the backups are still to be mended
            driver.before_exchange = None
            backups[lagging].fault = "refused"
            third = loaded(two, session_id)
            third["count"] += 1
            two.save(third)
            backups[lagging].fault = None
            item = home.server.peek(key_of(session_id))
            assert item is not None
            item.value = item.value[:-20] + bytes([item.value[-20] ^ 1]) + item.value[-19:]

    driver.before_exchange = build_on_it
    one.save(second)
    backups[1 - lagging].fault = "refused"
    assert read(make_worker(replicas=2), session_id) == {"count": 3}


def with_a_slow_backup(flow: Flow[SaveResult], meanwhile: Callable[[], None]) -> Flow[SaveResult]:
    """Carry a save out whose first batch is answered some time before the other arrives at its node."""
    return _with_one_slow(flow, meanwhile, 0, 1)


def with_a_slow_home(flow: Flow[SaveResult], meanwhile: Callable[[], None]) -> Flow[SaveResult]:
    """Carry a save out whose second batch is answered some time before the first arrives at its node."""
    return _with_one_slow(flow, meanwhile, 1, 0)


def _with_one_slow(flow: Flow[SaveResult], meanwhile: Callable[[], None], soon: int, late: int) -> Flow[SaveResult]:
    exchange = next(flow)
    assert isinstance(exchange, Exchange)
    assert len(exchange.batches) == 2
    outcomes: dict[int, Outcome] = {}
    (outcomes[soon],) = yield Exchange([exchange.batches[soon]])
    meanwhile()
    (outcomes[late],) = yield Exchange([exchange.batches[late]])
    try:
        effect = flow.send([outcomes[0], outcomes[1]])
        while True:
            effect = flow.send((yield effect))
    except StopIteration as stop:
        result: SaveResult = stop.value
        return result


@pytest.mark.parametrize("n_writes", [0, 1, 6, 7, 8, 9, 20])
def test_a_save_whose_backup_is_slow_undoes_nothing_that_was_built_on_it_meanwhile(
    driver: SimulatedDriver, make_worker: MakeWorker, n_writes: int
) -> None:
    one, two = make_worker(on_conflict="error"), make_worker()
    session_id = one.store(count=0)
    slow = loaded(one, session_id)
    slow["count"] = 1

    def count_up() -> None:
        for _ in range(n_writes):
            other = loaded(two, session_id)
            other["count"] += 1
            two.save(other)

    result = driver.run(with_a_slow_backup(one.keep(slow.state), count_up))
    assert result.status == "stored"
    assert read(make_worker(), session_id) == {"count": 1 + n_writes}
    assert one.save(slow).status == "unchanged"


def test_a_save_that_its_home_has_lost_in_a_restart_is_not_taken_for_built_on(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(count=0)
    slow = loaded(one, session_id)
    slow["mine"] = True

    def restart_and_count_up() -> None:
        driver.nodes[home_of(session_id)].server.restart()
        for _ in range(10):
            other = loaded(two, session_id)
            other["count"] += 1
            two.save(other)

    assert driver.run(with_a_slow_backup(one.keep(slow.state), restart_and_count_up)).status == "merged"
    assert read(make_worker(), session_id) == {"count": 10, "mine": True}


def test_a_save_that_has_not_won_yet_at_the_home_is_not_built_on(make_worker: MakeWorker) -> None:
    """It may lose there: then what it was based on would come back with it."""
    one, two, three = make_worker(), make_worker(), make_worker()
    session_id = one.store(step=0, draft=True)
    slow = loaded(one, session_id)
    slow["slow"] = True
    winner = loaded(two, session_id)
    winner["step"] = 1
    del winner["draft"]

    def lose_to_the_winner() -> None:
        session = loaded(three, session_id)
        session["third"] = True
        assert two.save(winner).status == "stored"
        assert three.save(session).status == "merged"

    assert one.driver.run(with_a_slow_home(one.keep(slow.state), lose_to_the_winner)).status == "merged"
    assert read(make_worker(), session_id) == {"step": 1, "slow": True, "third": True}


def put_copy(driver: SimulatedDriver, worker: Worker, node: str, state: SessionState, generation: int) -> None:
    """Let a node have a copy that a worker has stored there alone before it died."""
    key, nonce = worker.ctx.storage_key(state.session_id), worker.ctx.nonce()
    assert state.stored is not None
    lineage = (nonce, *state.stored.lineage)
    body, _ = state.attributes.encode()
    record = encode_state(worker.ctx.essentials, worker.ctx.records, key, state, body, generation, lineage)
    driver.nodes[node].server.handle(wire.encode([wire.store(key, record, nonce, 60)], 1))


@pytest.mark.parametrize("on_conflict", ["merge", "error"])
def test_two_copies_that_each_name_the_others_node_as_their_home_become_one(
    driver: SimulatedDriver, make_worker: MakeWorker, on_conflict: str
) -> None:
    one, two, three = make_worker(), make_worker(), make_worker(on_conflict=on_conflict)
    session_id = one.store(start=True)
    home, backup = home_of(session_id), backup_of(driver, session_id)
    (third,) = set(driver.nodes) - {home, backup}
    left, moved = loaded(one, session_id).state, loaded(two, session_id).state
    left.attributes["left"] = moved.attributes["moved"] = True
    left.session_id = left.session_id.with_node(third)
    put_copy(driver, one, home, left, 2)
    put_copy(driver, two, third, moved, 2 + BEATS_THE_OLD_HOME)
    driver.nodes[backup].server.evict(key_of(session_id))
    session = loaded(three, session_id)
    session["mine"] = True
    assert three.save(session).status == "merged"
    assert read(make_worker(), session.id) == {"start": True, "left": True, "moved": True, "mine": True}
