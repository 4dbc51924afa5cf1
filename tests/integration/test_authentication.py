"""Servers that want to know who asks (memcached -Y)."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from msm_fast import Reconnect, SessionManager, SessionUnavailable, Timeouts, Tls
from msm_fast.drivers.access import Credentials
from tests.certificates import Authority
from tests.memcached import Memcached
from tests.proxy import Link, Proxy
from tests.threaded import drop_connections

pytestmark = pytest.mark.memcached

PASSWORD = "correct-horse:battery#staple"
CREDENTIALS = f"ada:{PASSWORD}"
MakeManager = Callable[..., SessionManager]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that a server may read when it has dropped its rights."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def authfile(folder: Path) -> Path:
    file = folder / "authfile"
    file.write_text(f"eve:something-else\n{CREDENTIALS}\n")
    return file


@pytest.fixture(scope="module")
def server(authfile: Path) -> Iterator[Memcached]:
    server = Memcached("-Y", str(authfile))
    yield server
    server.stop()


@pytest.fixture
def make(manager_class: Any, start: Callable[..., Any]) -> MakeManager:
    """Return a function that makes a manager of the node at an address, which tells the right password."""

    def make(address: str, **settings: Any) -> SessionManager:
        timeouts = Timeouts(connect=2, operation=2, request=5)
        settings = {"credentials": CREDENTIALS, "timeouts": timeouts, "on_cluster_lost": "error", **settings}
        manager: SessionManager = start(manager_class(f"n1:{address}", **settings))
        return manager

    return make


def keep(manager: SessionManager, **attributes: object) -> str:
    with manager.request(None) as session:
        session.update(attributes)
    return session.id


def reason(manager: SessionManager) -> str:
    """Return why a manager cannot use its only node."""
    with pytest.raises(SessionUnavailable):
        keep(manager, user="ada")
    (node,) = manager.nodes()
    assert not node.is_up
    return node.last_failure


def test_each_connection_begins_with_the_password(server: Memcached, make: MakeManager) -> None:
    manager = make(server.address)
    session_id = keep(manager, user="ada")
    drop_connections(manager)
    assert manager.load(session_id) == {"user": "ada"}
    assert manager.statistics().node_failures == 0


def test_a_password_goes_over_tls_too(
    make: MakeManager, authfile: Path, folder: Path, start: Callable[..., Any]
) -> None:
    authority = Authority(folder)
    certificate = authority.sign("127.0.0.1")
    options = f"ssl_chain_cert={certificate},ssl_key={certificate}"
    server = start(Memcached("-Y", str(authfile), "-Z", "-o", options))
    proxy = start(Listener(server.port))
    manager = make(proxy.address, tls=Tls(ca_file=authority.file))
    assert manager.load(keep(manager, user="ada")) == {"user": "ada"}
    assert PASSWORD.encode() not in proxy.heard


class Listener(Proxy):
    """Keeps what clients say."""

    def __init__(self, target_port: int) -> None:
        self.heard = b""
        super().__init__(target_port)

    def carry(self, data: bytes, link: Link, *, is_reply: bool) -> None:
        if not is_reply:
            self.heard += data
        super().carry(data, link, is_reply=is_reply)


def test_a_wrong_password_is_one_clear_error_that_names_the_node_and_not_the_password(
    server: Memcached, make: MakeManager, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        manager = make(server.address, credentials="ada:wrong-horse")
        assert "does not accept the setting credentials" in reason(manager)
    assert f"n1 ({server.address})" in caplog.text
    assert len([r for r in caplog.records if "does not accept the setting credentials" in r.getMessage()]) == 1
    assert "wrong-horse" not in caplog.text


def test_a_wrong_password_is_not_told_again_by_every_request(
    server: Memcached, make: MakeManager, start: Callable[..., Any]
) -> None:
    proxy = start(Proxy(server.port))
    manager = make(proxy.address, credentials="ada:wrong", reconnect=Reconnect(first=0.2, factor=2, cap=60))
    until = time.monotonic() + 1
    n_requests = 0
    while time.monotonic() < until:
        with pytest.raises(SessionUnavailable):
            keep(manager, user="ada")
        n_requests += 1
    assert n_requests > 20
    assert 2 <= proxy.n_connections <= 6, "the probes, each later than the one before"


def test_a_password_that_was_put_right_at_the_server_is_taken_without_a_restart(
    make: MakeManager, folder: Path, start: Callable[..., Any]
) -> None:
    file = folder / "late"
    file.write_text("ada:not-yet\n")
    server = start(Memcached("-Y", str(file)))
    manager = make(server.address, reconnect=Reconnect(first=0.1, cap=0.1))
    assert reason(manager)
    file.write_text(f"{CREDENTIALS}\n")
    server.kill()
    server.start()
    until = time.monotonic() + 10
    while not manager.nodes()[0].is_up:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert manager.load(keep(manager, user="ada")) == {"user": "ada"}


def test_a_server_that_wants_a_password_and_is_given_none_says_so(server: Memcached, make: MakeManager) -> None:
    assert "give it one with the setting credentials" in reason(make(server.address, credentials=None))


def test_a_server_that_wants_no_password_does_not_keep_the_one_it_is_told(
    make: MakeManager, start: Callable[..., Any]
) -> None:
    server = start(Memcached())
    manager = make(server.address)
    assert manager.load(keep(manager, user="ada")) == {"user": "ada"}
    key = Credentials(CREDENTIALS).command().split()[1]
    with server.client() as client:
        assert client.get(key) is None


def test_credentials_show_themselves_nowhere() -> None:
    credentials = Credentials(CREDENTIALS)
    assert PASSWORD not in repr(credentials)
    assert PASSWORD not in str(credentials)
    assert credentials.command() == b"set msm_fast:auth: 0 -1 32\r\nada correct-horse:battery#staple\r\n"
