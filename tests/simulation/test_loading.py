"""Finding a session while all nodes are up, and what is made of copies that cannot be used."""

import random
import struct
from collections.abc import Callable

import pytest

from msm_fast import CorruptRecord, SessionId
from msm_fast._core.record import encode_record
from msm_fast.engine.context import Clock, Context
from msm_fast.engine.effects import Exchange
from tests.reference import record as reference
from tests.reference.record import encode_frame
from tests.simulation.driver import SimulatedDriver
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


def key_of(session_id: str) -> bytes:
    parsed = SessionId.parse(session_id)
    assert parsed is not None
    return parsed.plain.encode()


def home_of(session_id: str) -> str:
    parsed = SessionId.parse(session_id)
    assert parsed is not None
    assert parsed.node is not None
    return parsed.node


def holders(driver: SimulatedDriver, session_id: str) -> set[str]:
    return {name for name, node in driver.nodes.items() if node.server.peek(key_of(session_id))}


def backup_of(driver: SimulatedDriver, session_id: str) -> str:
    (backup,) = holders(driver, session_id) - {home_of(session_id)}
    return backup


def test_a_stored_session_is_found_with_its_attributes(worker: Worker) -> None:
    session_id = worker.store(cart=["apple"], user="ada")
    session = worker.load(session_id)
    assert session is not None
    assert dict(session) == {"cart": ["apple"], "user": "ada"}
    assert not session.is_new
    assert not session.id_changed
    assert session.generation == 1


def test_another_worker_finds_it_too(make_worker: MakeWorker) -> None:
    session_id = make_worker().store(user="ada")
    session = make_worker().load(session_id)
    assert session is not None
    assert session["user"] == "ada"


def test_an_unknown_id_is_no_session(worker: Worker) -> None:
    assert worker.load(str(SessionId.generate("n1"))) is None
    assert worker.ctx.counters.snapshot().not_found == 1


@pytest.mark.parametrize("text", ["0123456789abcdef0123456789abcdef-n9", "0123456789abcdef0123456789abcdef-n9.w1"])
def test_an_id_that_names_no_node_of_ours_costs_no_round_trip(worker: Worker, text: str) -> None:
    assert worker.load(text) is None
    assert worker.driver.exchanges == 0
    assert worker.ctx.counters.snapshot().refused_ids == 1


def test_a_load_is_one_round_trip(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    session_id = make_worker().store(user="ada")
    for expect_write in (True, False):
        before = driver.exchanges
        assert make_worker().load(session_id, expect_write) is not None
        assert driver.exchanges == before + 1


def test_a_worker_that_has_seen_a_session_asks_only_its_home_to_read_it(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = worker.store(user="ada")
    before = sum(node.batches for node in driver.nodes.values())
    assert worker.load(session_id, expect_write=False) is not None
    assert sum(node.batches for node in driver.nodes.values()) == before + 1


def test_reading_keeps_a_session_and_its_backup_alive(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    for _ in range(20):
        driver.clock.advance(1700)
        assert worker.load(session_id, expect_write=False) is not None
    assert holders(driver, session_id) == {home_of(session_id), backup_of(driver, session_id)}


def test_a_session_expires_when_it_is_not_used(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    driver.clock.advance(1802)
    assert worker.load(session_id) is None


def test_a_lifetime_of_its_own_holds_from_the_first_read_on(driver: SimulatedDriver, worker: Worker) -> None:
    session = worker.create(user="ada")
    session.max_inactive = 7200
    worker.save(session)
    for _ in range(3):
        driver.clock.advance(7000)
        assert worker.load(session.id, expect_write=False) is not None
    driver.clock.advance(7202)
    assert worker.load(session.id) is None


@pytest.mark.parametrize("silent", ["home", "backup", "both"])
def test_it_is_stored_again_where_a_node_could_not_be_told_of_that(
    driver: SimulatedDriver, make_worker: MakeWorker, silent: str
) -> None:
    one, two = make_worker(), make_worker()
    session = one.create(user="ada")
    session.max_inactive = 24 * 3600
    one.save(session)
    before = driver.exchanges
    holders_by_name = {"home": home_of(session.id), "backup": backup_of(driver, session.id)}
    hanging = [driver.nodes[node] for name, node in holders_by_name.items() if silent in (name, "both")]

    def hang_once(exchange: Exchange) -> None:
        for node in hanging:
            node.fault = "timeout" if driver.exchanges == before + 1 else None

    driver.before_exchange = hang_once
    found = two.load(session.id)
    assert found is not None
    assert driver.exchanges == before + 2
    assert two.save(found).status == "stored"
    driver.clock.advance(23 * 3600)
    assert make_worker().load(found.id) is not None


def test_a_session_that_never_expires_stays(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(max_inactive=None)
    session_id = worker.store(user="ada")
    driver.clock.advance(400 * 24 * 3600)
    assert worker.load(session_id) is not None


def test_a_lifetime_over_thirty_days_is_kept(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(max_inactive=40 * 24 * 3600)
    session_id = worker.store(user="ada")
    driver.clock.advance(39 * 24 * 3600)
    assert worker.load(session_id) is not None


def test_the_absolute_lifetime_ends_a_session_that_is_used_all_the_time(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(absolute_lifetime=3600)
    session_id = worker.store(user="ada")
    for _ in range(3):
        driver.clock.advance(1000)
        assert worker.load(session_id) is not None
    driver.clock.advance(601)
    assert worker.load(session_id) is None


def test_reading_does_not_keep_for_ever_what_has_an_absolute_lifetime_only(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(max_inactive=None, absolute_lifetime=600)
    session_id = worker.store(user="ada")
    for reader in (worker, make_worker(max_inactive=None), make_worker()):
        driver.clock.advance(100)
        session = reader.load(session_id)
        assert session is not None
        assert session.accessed_at == pytest.approx(session.created_at, abs=1)
    driver.clock.advance(301)
    assert worker.load(session_id) is None
    driver.clock.advance(2)
    assert not holders(driver, session_id)


def test_nor_does_it_take_more_than_one_round_trip_to_find_such_a_session_ended(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(max_inactive=None)
    session_id = worker.store(user="ada")
    session = worker.load(session_id)
    assert session is not None
    session.invalidate()
    worker.save(session)
    before = driver.exchanges
    assert worker.load(session_id) is None
    assert driver.exchanges == before + 1


def test_accessed_at_is_when_it_was_last_used(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    driver.clock.advance(100)
    last_use = driver.clock.wall()
    assert worker.load(session_id) is not None
    driver.clock.advance(50)
    session = worker.load(session_id)
    assert session is not None
    assert session.accessed_at == pytest.approx(last_use, abs=2)
    assert session.created_at == pytest.approx(last_use - 100, abs=2)


@pytest.mark.parametrize("expect_write", [True, False], ids=["to write", "to read"])
def test_also_where_its_backup_was_peeked_at_before_its_home_had_no_answer(
    driver: SimulatedDriver, make_worker: MakeWorker, expect_write: bool
) -> None:
    session_id = make_worker().store(user="ada")
    stored_ms = driver.clock.wall() * 1000
    driver.clock.advance(600)
    driver.nodes[home_of(session_id)].fault = "refused"
    session = make_worker().load(session_id, expect_write)
    assert session is not None
    assert session.state.accessed_ms == pytest.approx(stored_ms, abs=1000)


def test_accessed_at_is_not_in_the_future_where_another_host_has_stored_the_session(
    driver: SimulatedDriver, worker: Worker
) -> None:
    ahead = Worker(driver, make_settings())
    ahead.ctx = Context(
        make_settings(), Clock(driver.clock.monotonic, lambda: driver.clock.wall() + 24 * 3600), random.Random(7)
    )
    session_id = ahead.store(user="ada")
    driver.clock.advance(100)
    session = worker.load(session_id)
    assert session is not None
    assert session.accessed_at <= driver.clock.wall()


def corrupt(driver: SimulatedDriver, node: str, session_id: str) -> None:
    item = driver.nodes[node].server.peek(key_of(session_id))
    assert item is not None
    item.value = item.value[:-1] + bytes([item.value[-1] ^ 1])


def test_a_corrupt_copy_is_counted_and_the_backup_serves(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    corrupt(driver, home_of(session_id), session_id)
    session = worker.load(session_id)
    assert session is not None
    assert session["user"] == "ada"
    assert worker.ctx.counters.snapshot().corrupt == 1
    worker.save(session)
    assert worker.load(session_id)["user"] == "ada"  # type: ignore[index]
    assert worker.ctx.counters.snapshot().corrupt == 1, "the corrupt copy was replaced"


TWICE = encode_frame("user", 0, b"\x01") * 2
NOT_UTF_8 = encode_frame("x", 0, b"\x01").replace(b"x", b"\xff")


def replace_body(driver: SimulatedDriver, node: str, session_id: str, body: bytes, n_attributes: int) -> None:
    """Give a node's copy another body, and a trailer that fits."""
    item = driver.nodes[node].server.peek(key_of(session_id))
    assert item is not None
    data = item.value[:40] + struct.pack("<II", n_attributes, len(body)) + item.value[48:84] + body
    item.value = data + struct.pack("<Q", reference.digest(data, key_of(session_id)))


@pytest.mark.parametrize(("body", "n_attributes"), [(TWICE, 2), (NOT_UTF_8, 1)], ids=["twice", "not UTF-8"])
def test_a_copy_of_which_not_all_names_can_be_read_is_corrupt_whatever_its_trailer_says(
    driver: SimulatedDriver, worker: Worker, make_worker: MakeWorker, body: bytes, n_attributes: int
) -> None:
    session_id = worker.store(user="ada")
    replace_body(driver, home_of(session_id), session_id, body, n_attributes)
    session = worker.load(session_id)
    assert session is not None
    assert dict(session) == {"user": "ada"}
    assert worker.ctx.counters.snapshot().corrupt == 1
    replace_body(driver, backup_of(driver, session_id), session_id, body, n_attributes)
    with pytest.raises(CorruptRecord):
        make_worker().load(session_id)
    assert make_worker(on_corrupt="local").load(session_id) is None


def test_so_is_one_that_names_no_write_which_only_a_forged_record_does(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    assert worker.load(session_id) is not None
    forged = encode_record(key_of(session_id), b"", generation=9, created_ms=0, accessed_ms=0, max_inactive_s=1800)
    for node in holders(driver, session_id):
        item = driver.nodes[node].server.peek(key_of(session_id))
        assert item is not None
        item.value = forged
        item.cas += 1
    with pytest.raises(CorruptRecord):
        worker.load(session_id)


def test_when_every_copy_is_corrupt_it_is_said_and_nothing_is_deleted(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    before = holders(driver, session_id)
    for node in before:
        corrupt(driver, node, session_id)
    with pytest.raises(CorruptRecord):
        worker.load(session_id)
    assert holders(driver, session_id) == before


def test_another_sessions_item_under_ones_key_is_corrupt_not_somebody_elses_session(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(replicas=0)
    mine, other = worker.store(user="ada"), worker.store(user="eve")
    theirs = driver.nodes[home_of(other)].server.peek(key_of(other))
    item = driver.nodes[home_of(mine)].server.peek(key_of(mine))
    assert item is not None
    assert theirs is not None
    item.value = theirs.value
    with pytest.raises(CorruptRecord):
        worker.load(mine)


def test_a_record_of_another_format_is_left_alone_and_the_session_moves_if_what_is_found_stands_on_it(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = worker.store(user="ada")
    item = driver.nodes[home_of(session_id)].server.peek(key_of(session_id))
    assert item is not None
    item.value = foreign = item.value[:4] + b"\x63" + item.value[5:]
    item.cas = 1000
    session = worker.load(session_id)
    assert session is not None
    assert session.id_changed
    assert worker.save(session).status == "stored"
    kept = driver.nodes[home_of(session_id)].server.peek(key_of(session_id))
    assert kept is not None
    assert kept.value == foreign


@pytest.mark.parametrize("expect_write", [False, True])
def test_a_copy_that_is_older_than_what_was_seen_before_is_not_believed(
    driver: SimulatedDriver, worker: Worker, expect_write: bool
) -> None:
    """A backup that was slow to be told of an older save may put that back where the home has lost its copy."""
    session_id = worker.store(step=1)
    for _ in range(2):  # until it takes for granted what the backup has
        assert worker.load(session_id) is not None
    home = driver.nodes[home_of(session_id)].server
    old = home.peek(key_of(session_id))
    assert old is not None
    session = worker.load(session_id)
    assert session is not None
    session["step"] = 2
    worker.save(session)
    home.evict(key_of(session_id))
    put_back = b"ms %s %d F%d T1800\r\n%s\r\n" % (key_of(session_id), len(old.value), old.client_flags, old.value)
    assert home.handle(put_back).startswith(b"HD")
    found = worker.load(session_id, expect_write)
    assert found is not None
    assert found["step"] == 2
    assert worker.save(found).status == "stored"
    item = home.peek(key_of(session_id))
    assert item is not None
    assert item.client_flags == driver.nodes[backup_of(driver, session_id)].server.peek(key_of(session_id)).client_flags
