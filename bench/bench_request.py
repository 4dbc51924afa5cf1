"""A whole request of a session of 20 attributes: load, read 2, write 1, save, ours with a backup copy.

The rivals write one copy, and two requests at once overwrite each other's changes. Each is taken at its best: Django's
connections are kept from one request to the next, Flask-Session sets no cookie.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient

from bench.attributes import mixed_attributes
from bench.conftest import Measure
from bench.rivals import rival
from bench.servers import PATIENT, connect, nodes_setting, pymemcache_client, receive
from bench.targets import REQUEST, timed
from msm_fast import AttributeMap, SessionManager
from msm_fast._core import wire
from msm_fast._core.record import encode_record
from tests.memcached import Memcached

KEY = "0123456789abcdef0123456789abcdef"
LIFETIME_S = 1800
FLOOR = "floor: two bare round trips, with backup"
Run = Callable[[], Any]
Contender = Callable[[list[Memcached], ExitStack], Run]


def by_manager(servers: list[Memcached], stack: ExitStack) -> Run:
    manager = stack.enter_context(SessionManager(nodes_setting(servers), replicas=1, timeouts=PATIENT))
    session = manager.create()
    session.update(mixed_attributes())
    assert manager.save(session).backups
    numbers = count(1)

    def run() -> Any:
        with manager.request(session.id, method="POST", uri="/cart") as live:
            read = live["user_id"], live["cart"]
            live["score"] = next(numbers)
        return read

    n_round_trips = manager.statistics().round_trips
    run()
    assert manager.statistics().round_trips == n_round_trips + 2
    loaded = manager.load(session.id)
    assert loaded is not None
    assert (loaded["score"], loaded.generation) == (1, session.generation + 1)
    scope = manager.request(session.id, method="POST")
    scope.session["score"] = next(numbers)
    assert scope.save().backups
    return run


def by_pickle(kind: Callable[..., Any]) -> Contender:
    """Return what one might write without a framework."""

    def contender(servers: list[Memcached], stack: ExitStack) -> Run:
        client = pymemcache_client(kind, servers[0], stack)
        client.set(KEY, pickle.dumps(mixed_attributes()), LIFETIME_S)
        numbers = count(1)

        def run() -> Any:
            attributes = pickle.loads(client.get(KEY))
            read = attributes["user_id"], attributes["cart"]
            attributes["score"] = next(numbers)
            client.set(KEY, pickle.dumps(attributes, pickle.HIGHEST_PROTOCOL), LIFETIME_S)
            return read

        return run

    return contender


def by_django(backend: str) -> Contender:
    """Return Django's sessions in a cache. backend: its class for one of the clients."""

    def contender(servers: list[Memcached], stack: ExitStack) -> Run:
        rival("pylibmc" if "PyLibMC" in backend else "pymemcache")
        configure_django(servers)
        from django.conf import settings
        from django.contrib.sessions.backends.cache import SessionStore
        from django.core.cache import caches

        settings.SESSION_CACHE_ALIAS = backend
        stack.callback(caches[backend].close)
        first = SessionStore()
        first.update(mixed_attributes())
        first.create()
        first.update(mixed_attributes())
        first.save()
        numbers = count(1)

        def run() -> Any:
            session = SessionStore(first.session_key)
            read = session["user_id"], session["cart"]
            session["score"] = next(numbers)
            session.save()
            return read

        run()
        assert SessionStore(first.session_key)["score"] == 1
        return run

    return contender


def configure_django(servers: list[Memcached]) -> None:
    settings = rival("django.conf").settings
    if not settings.configured:
        backends = ("PyMemcacheCache", "PyLibMCCache")
        settings.configure(
            CACHES={
                name: {"BACKEND": f"django.core.cache.backends.memcached.{name}", "LOCATION": servers[0].address}
                for name in backends
            },
            SESSION_COOKIE_AGE=LIFETIME_S,
        )


def by_flask_session(make_client: Callable[[Memcached, ExitStack], Any]) -> Contender:
    def contender(servers: list[Memcached], stack: ExitStack) -> Run:
        flask, memcached = rival("flask"), rival("flask_session.memcached")

        class WithoutCookie(memcached.MemcachedSessionInterface):  # type: ignore[misc, name-defined]
            def should_set_cookie(self, app: object, session: object) -> bool:
                return False

        app = flask.Flask("bench")
        app.config["PERMANENT_SESSION_LIFETIME"] = LIFETIME_S
        interface = WithoutCookie(app, make_client(servers[0], stack))
        request = app.request_class({"HTTP_COOKIE": f"session={KEY}", "REQUEST_METHOD": "POST", "PATH_INFO": "/cart"})
        response = app.response_class()
        session = interface.session_class(mixed_attributes(), sid=KEY)
        interface.save_session(app, session, response)
        numbers = count(1)

        def run() -> Any:
            session = interface.open_session(app, request)
            read = session["user_id"], session["cart"]
            session["score"] = next(numbers)
            interface.save_session(app, session, response)
            return read

        run()
        assert interface.open_session(app, request)["score"] == 1
        return run

    return contender


def pylibmc_client(server: Memcached, stack: ExitStack) -> Any:
    client = rival("pylibmc").Client([server.address], behaviors={"tcp_nodelay": True})
    stack.callback(client.disconnect_all)
    return client


def two_bare_round_trips(servers: list[Memcached], stack: ExitStack) -> Run:
    """Send a record's bytes to both nodes and wait for both; then get them back from one."""
    socks = [connect(server, stack) for server in servers]
    key = KEY.encode()
    body = AttributeMap(mixed_attributes()).encode()[0]
    record = encode_record(key, body, generation=1, created_ms=1, accessed_ms=1, lineage=(1,))
    get_command = wire.encode([wire.get(key)], 0)
    store_command = wire.encode([wire.store(key, record, 1, LIFETIME_S)], 0)

    def run() -> list[bytes]:
        replies = []
        for sock in socks:
            sock.send(store_command)
        for sock in socks:
            replies.append(receive(sock))
        socks[0].send(get_command)
        replies.append(receive(socks[0], len(record)))
        return replies

    *stored, got = run()
    assert all(reply.startswith(b"HD") for reply in stored)
    assert record in got
    return run


CONTENDERS: dict[str, Contender] = {
    "msm_fast": by_manager,
    "Django's cache sessions on pymemcache": by_django("PyMemcacheCache"),
    "Django's cache sessions on pylibmc": by_django("PyLibMCCache"),
    "Flask-Session on pymemcache": by_flask_session(lambda server, stack: pymemcache_client(Client, server, stack)),
    "Flask-Session on pylibmc": by_flask_session(pylibmc_client),
    "pickle over pymemcache Client": by_pickle(Client),
    "pickle over pymemcache HashClient": by_pickle(HashClient),
    FLOOR: two_bare_round_trips,
}


@pytest.mark.parametrize("contender", CONTENDERS)
def test_request(clock: str, contender: str, measure: Measure, servers: list[Memcached], stack: ExitStack) -> None:
    run = CONTENDERS[contender](servers, stack)
    if contender != FLOOR:
        expected = mixed_attributes()
        assert run() == (expected["user_id"], expected["cart"])
    measure(timed(REQUEST, clock), contender, run)
