"""The manager and the blocking driver on real memcached processes."""

import contextlib
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from msm_fast import (
    Node,
    Reconnect,
    Session,
    SessionId,
    SessionManager,
)
from msm_fast.engine.versions import cas_of
from tests.integration.conftest import Nodes, have_no_plain_sockets
from tests.memcached import Memcached
from tests.timeouts import UNHURRIED

pytestmark = pytest.mark.memcached

MakeManager = Callable[..., SessionManager]

MARGIN_S = 0.1
"""What scheduling on a busy machine may add to a deadline."""


def store(manager: SessionManager, **attributes: object) -> str:
    session = manager.create()
    session.update(attributes)
    assert manager.save(session).status == "stored"
    return session.id


def loaded(manager: SessionManager, session_id: str) -> Session:
    session = manager.load(session_id)
    assert session is not None
    return session


def home_of(session_id: str) -> str:
    parsed = SessionId.parse(session_id)
    assert parsed is not None
    assert parsed.node is not None
    return parsed.node


def _cas_values(session: Session) -> list[int]:
    assert session.state.stored is not None
    return [cas_of(version) for version in session.state.stored.copies.values()]


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_session_stored_by_one_worker_is_found_by_another(make_manager: MakeManager) -> None:
    session_id = store(make_manager(), user="ada", cart=["apple"])
    assert dict(loaded(make_manager(), session_id)) == {"user": "ada", "cart": ["apple"]}


def test_a_request_gets_stores_and_finds_its_session(manager: SessionManager) -> None:
    with manager.request(None, method="POST", uri="/cart") as session:
        assert session.is_new
        session["cart"] = [1]
    with manager.request(session.id, method="POST", uri="/cart") as again:
        again["cart"].append(2)
    with manager.request(session.id) as once_more:
        assert once_more["cart"] == [1, 2]
        assert not once_more.id_changed


def test_what_was_seen_before_a_node_lost_its_memory_is_not_taken_for_what_it_has_now(
    make_manager: MakeManager, nodes: Nodes
) -> None:
    slow, rival = make_manager(replicas=0), make_manager(replicas=0)
    session_id = store(slow, item="before")
    stale = loaded(slow, session_id)
    stale["slow"] = True
    home = nodes[home_of(session_id)]
    home.kill()
    home.start()
    wait_until(lambda: slow.load(session_id) is None and rival.load(session_id) is None)  # no breaker is open any more
    newer = rival.create()
    newer.state.session_id = stale.state.session_id
    newer["item"] = "after"
    assert rival.save(newer).status == "stored"
    assert _cas_values(newer) == _cas_values(stale), "memcached is expected to repeat CAS values after a restart"
    assert slow.save(stale).status == "merged"
    assert dict(loaded(rival, session_id)) == {"item": "after", "slow": True}
    assert slow.statistics().restarts == 1


def test_a_large_session_is_not_transferred_again_until_it_changes(make_manager: MakeManager) -> None:
    one, other = make_manager(), make_manager()
    session_id = store(one, text="x" * 200_000)
    for _ in range(2):
        assert len(loaded(one, session_id)["text"]) == 200_000
    assert one.statistics().validated == 2
    changed = loaded(other, session_id)
    changed["more"] = 1
    assert other.save(changed).status == "stored"
    assert loaded(one, session_id)["more"] == 1
    assert one.statistics().validated == 2


def test_a_request_that_fails_stores_nothing(manager: SessionManager) -> None:
    session_id = store(manager, step=1)
    with contextlib.suppress(RuntimeError), manager.request(session_id, "POST") as session:
        session["step"] = 2
        raise RuntimeError
    assert loaded(manager, session_id)["step"] == 1


def test_a_request_that_never_looks_at_its_session_costs_no_round_trip(manager: SessionManager) -> None:
    session_id = store(manager, step=1)
    before = manager.statistics().round_trips
    with manager.request(session_id):
        pass
    assert manager.statistics().round_trips == before


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "x",
        "a b-n1",
        "abc\r\nset x 0 60 1\r\nZ-n1",
        "abc\\015\\012-n1",
        "0" * 300,
        "é-n1",
        "a-n9",
        "a-n1.b.c",
        "a-n1",
    ],
)
def test_a_malformed_cookie_costs_no_round_trip_and_gets_a_new_session(manager: SessionManager, cookie: str) -> None:
    before = manager.statistics().round_trips
    with manager.request(cookie) as session:
        assert session.is_new
        assert dict(session) == {}
        assert session.id != cookie
    assert manager.statistics().round_trips == before


def test_an_id_is_never_adopted(manager: SessionManager) -> None:
    chosen = str(SessionId.generate("n1"))
    with manager.request(chosen, "POST") as session:
        session["user"] = "eve"
    assert session.id.split("-")[0] != chosen.split("-")[0]
    assert manager.load(chosen) is None


@pytest.mark.parametrize(("own", "other"), [("", "shop_"), ("", "a"), ("shop", "shop2"), ("shop2", "shop")])
def test_an_application_never_serves_the_sessions_of_another_one_with_another_prefix(
    make_manager: MakeManager, own: str, other: str
) -> None:
    with make_manager(key_prefix=other).request(None) as session:
        session["user"] = "mallory"
    manager = make_manager(key_prefix=own)
    for forged in (session.id, other + session.id, other.removeprefix(own) + session.id, session.id[1:]):
        with manager.request(forged) as found:
            assert found.is_new
            assert dict(found) == {}


def test_the_application_starts_with_no_memcached_in_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with SessionManager(f"127.0.0.1:{port}") as manager:
        session = manager.create()
        session["user"] = "ada"
        assert manager.save(session).status == "local"
        assert loaded(manager, session.id)["user"] == "ada"


def test_sessions_live_on_a_single_node_without_an_id(nodes: Nodes) -> None:
    with SessionManager(nodes["n1"].address, timeouts=UNHURRIED) as manager:
        session_id = store(manager, user="ada")
        assert "-" not in session_id
        assert loaded(manager, session_id)["user"] == "ada"


def test_sessions_live_behind_a_unix_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "m.sock"
    path.parent.chmod(0o777)
    for parent in path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != parent.parent:
            parent.chmod(parent.stat().st_mode | 0o011)
    server = _UnixMemcached(str(path))
    try:
        with SessionManager(f"n1:{path}", timeouts=UNHURRIED) as manager:
            assert loaded(manager, store(manager, user="ada"))["user"] == "ada"
    finally:
        server.stop()


class _UnixMemcached:
    def __init__(self, path: str) -> None:
        import subprocess

        from tests.memcached import find_memcached

        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen([find_memcached(), "-s", path, "-a", "0777", *as_user])
        wait_until(lambda: os.path.exists(path))

    def stop(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)


# -- servers that are not what they should be


class _Impostor:
    """Answers every request with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._answer = answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture(
    params=[b"VERSION 1.6.17\r\n", b"VERSION 1.4.39\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"ERROR\r\n"]
)
def impostor(request: pytest.FixtureRequest) -> Iterator[_Impostor]:
    server = _Impostor(request.param)
    yield server
    server.close()


def test_a_server_that_is_too_old_or_no_memcached_is_one_clear_error_naming_the_node(
    impostor: _Impostor, nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    with SessionManager(
        f"n1:{nodes['n1'].address},bad:127.0.0.1:{impostor.port}", reconnect=Reconnect(first=60)
    ) as manager:
        ids = [store(manager, n=n) for n in range(10)]
        assert {home_of(session_id) for session_id in ids[1:]} == {"n1"}
        for session_id in ids:
            loaded(manager, session_id)
        status = manager.nodes()[1]
        assert not status.is_up
        assert "not a memcached server" in status.last_failure or "install 1.6.18 or newer" in status.last_failure
    told = [message for message in caplog.messages if message.startswith("node bad") and "is down" in message]
    assert len(told) == 1
    assert f"127.0.0.1:{impostor.port}" in told[0]


# -- threads, processes, interruptions


def test_many_threads_share_a_manager(manager: SessionManager) -> None:
    session_id = store(manager, start=True)
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            for i in range(10):
                own = store(manager, n=n, i=i)
                assert dict(loaded(manager, own)) == {"n": n, "i": i}
            with manager.request(session_id, "POST") as shared:
                shared[f"by{n}"] = n
        except BaseException as error:  # noqa: BLE001 - reported in the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert dict(loaded(manager, session_id)) == {"start": True, **{f"by{n}": n for n in range(8)}}


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_makes_connections_of_its_own(manager: SessionManager) -> None:
    session_id = store(manager, user="ada")
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ok = all(loaded(manager, session_id)["user"] == "ada" for _ in range(50))
            os.write(write_end, b"ok" if ok else b"no")
        finally:
            os._exit(0)
    for _ in range(50):
        assert loaded(manager, session_id)["user"] == "ada"
    os.waitpid(child, 0)
    assert os.read(read_end, 2) == b"ok"
    os.close(read_end)
    os.close(write_end)


class _Interrupt(BaseException):
    """What gevent.Timeout, KeyboardInterrupt and the like are: no Exception."""


@pytest.mark.parametrize("manager_class", [SessionManager], ids=["threads"])
def test_an_interruption_at_any_moment_never_leaves_a_reply_for_the_next_request(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msm_fast.drivers.connection import Connection

    have_no_plain_sockets(monkeypatch)
    ids = [store(manager, n=n) for n in range(6)]
    go_on = Connection.go_on

    def go_on_and_break_off(self: Connection) -> None:
        go_on(self)
        raise _Interrupt

    for n, session_id in enumerate(ids):
        monkeypatch.setattr(Connection, "go_on", go_on_and_break_off)
        with pytest.raises(_Interrupt):
            manager.load(session_id)
        monkeypatch.setattr(Connection, "go_on", go_on)
        for m, other in enumerate(ids):
            assert loaded(manager, other)["n"] == m, n


def test_close_leaves_no_socket_and_no_thread_behind(nodes: Nodes) -> None:
    gc.collect()
    threads = set(threading.enumerate())
    files = set(os.listdir("/dev/fd"))
    manager = SessionManager(f"n1:{nodes['n1'].address},n2:{nodes['n2'].address}", reconnect=Reconnect(first=0.05))
    store(manager, user="ada")
    nodes["n2"].kill()
    while manager.nodes()[1].is_up:
        store(manager, user="ada")
    manager.close()
    assert set(threading.enumerate()) <= threads  # of another test some may have ended meanwhile
    assert len(os.listdir("/dev/fd")) <= len(files)


def test_idle_connections_that_the_server_closed_cost_no_request(nodes: Nodes) -> None:
    server = Memcached("-o", "idle_timeout=1")
    try:
        with SessionManager(server.address, timeouts=UNHURRIED) as manager:
            session_id = store(manager, n=1)
            time.sleep(3.2)  # the server's own clock: it looks for idle connections each second
            assert loaded(manager, session_id)["n"] == 1
            assert manager.statistics().node_failures == 0
    finally:
        server.stop()


class Text(str):
    """Text as some readers of configuration files give it."""

    __slots__ = ()

    def __str__(self) -> str:
        return "another text"


def test_settings_may_be_texts_of_a_subclass_of_str(nodes: Nodes) -> None:
    named = [Node(Text(name), Text("127.0.0.1"), server.port) for name, server in nodes.items()]
    with SessionManager(named, route=Text("w1"), key_prefix=Text("shop:")) as manager:
        session_id = store(manager, user="ada")
        assert dict(loaded(manager, session_id)) == {"user": "ada"}
        assert session_id.endswith(".w1")
