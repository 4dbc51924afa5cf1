"""Sessions that are stored under a digest of their ids."""

from collections.abc import Callable

import pytest

from msm_fast import SessionId
from msm_fast.drivers.sqlite_store import SqliteStore
from msm_fast.policies import NearCacheSettings
from tests.simulation.driver import SimulatedDriver
from tests.simulation.sticky_worker import StickyWorker
from tests.simulation.test_falling_back import LOCAL, REPLAY, change, heal, lose
from tests.simulation.test_loading import home_of, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


def stored_keys(driver: SimulatedDriver) -> set[bytes]:
    servers = [node.server for node in driver.nodes.values()]
    return {key for server in servers for key in server.keys()}  # noqa: SIM118 - it is no dict


def test_no_id_and_no_part_of_one_stands_in_the_cluster(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(hash_ids=True, key_prefix="shop:")
    session_id = worker.store(user="ada")
    assert read(make_worker(hash_ids=True, key_prefix="shop:"), session_id) == {"user": "ada"}
    (key,) = stored_keys(driver)
    assert key.startswith(b"shop:")
    assert len(key) == len("shop:") + 32
    plain = key_of(session_id)
    servers = [node.server for node in driver.nodes.values()]
    dump = b"".join(key + item.value for server in servers for key, item in server._items.items())
    assert not any(plain[i : i + 8] in dump for i in range(len(plain) - 7))


def test_the_key_is_always_the_same(make_worker: MakeWorker) -> None:
    """Another one would lose all sessions of a deployment that upgrades."""
    ctx = make_worker(hash_ids=True, key_prefix="s:").ctx
    for text in ("0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef-n1.w1"):
        session_id = SessionId.parse(text)
        assert session_id is not None
        assert ctx.storage_key(session_id) == b"s:9D35FD40D6107203C77375D084E06C76"


def test_a_session_without_this_setting_is_not_found_with_it_nor_the_other_way_round(make_worker: MakeWorker) -> None:
    assert make_worker(hash_ids=True).load(make_worker().store(user="ada")) is None
    assert make_worker().load(make_worker(hash_ids=True).store(user="ada")) is None


def test_a_key_that_somebody_reads_there_is_no_id_for_workers_without_this_setting(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    """As while they are restarted one after the other."""
    home = home_of(make_worker(hash_ids=True).store(user="ada"))
    (key,) = stored_keys(driver)
    assert make_worker().load(f"{key.decode()}-{home}") is None


def test_it_survives_the_loss_of_its_home(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(hash_ids=True)
    session_id = worker.store(user="ada")
    driver.nodes[home_of(session_id)].fault = "refused"
    assert read(worker, session_id) == {"user": "ada"}


@pytest.mark.parametrize("is_shared", [False, True], ids=["memory", "file"])
def test_what_was_changed_and_ended_in_an_outage_is_replayed(
    driver: SimulatedDriver, make_worker: MakeWorker, tmp_path: object, is_shared: bool
) -> None:
    store = None
    if is_shared:
        store = SqliteStore(f"{tmp_path}/sessions.db", NearCacheSettings(), driver.clock.as_clock().wall)
    worker = Worker(driver, make_settings(hash_ids=True, **REPLAY), 1, store)
    changed, ended = worker.store(n=0), worker.store(n=0)
    lose(driver, worker)
    change(worker, changed, n=1)
    session = loaded(worker, ended)
    session.invalidate()
    worker.save(session)
    made = worker.create(n=5)
    worker.save(made)
    heal(driver, worker)
    other = make_worker(hash_ids=True, **LOCAL)
    assert read(other, changed) == {"n": 1}
    assert read(other, made.id) == {"n": 5}
    assert other.load(ended) is None
    worker.ctx.local.close()


def test_a_sticky_session_is_replayed_too(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = StickyWorker(driver, make_settings(hash_ids=True, sticky=True, **REPLAY), seed=1)
    session_id = worker.store(n=0)
    worker.catch_up()
    lose(driver, worker)
    change(worker, session_id, n=1)
    heal(driver, worker)
    worker.catch_up()
    assert read(make_worker(hash_ids=True), session_id) == {"n": 1}
