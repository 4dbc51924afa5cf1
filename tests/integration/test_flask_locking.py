"""Flask's sessions with locks in real memcached: whoever ends late or never, nobody keeps one."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from flask import Flask, copy_current_request_context, session, stream_with_context
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder

from tests.integration.meeting import PATIENCE_S
from tests.integration.test_flask import app, client, cookie_of, make, manager_of, meeting, twin
from tests.timeouts import UNHURRIED

__all__ = ["app", "client", "make", "meeting"]

pytestmark = pytest.mark.memcached


def test_requests_that_lock_let_their_lock_go(make: Callable[..., Flask], client: FlaskClient) -> None:
    locking = make(locking="all")
    client.post("/set/before")
    other = twin(client, locking)
    started = time.monotonic()
    for _ in range(3):
        other.post("/set/after")
        other.get("/everything")
        with other.session_transaction() as inside:
            inside["by"] = "test"
    assert time.monotonic() - started < 2, "a lock that is left behind is waited for"


LOCKED = {"locking": "all", "timeouts": replace(UNHURRIED, lock=0.1)}


def test_a_copy_of_the_context_that_ends_leaves_its_request_the_lock(
    make: Callable[..., Flask], client: FlaskClient
) -> None:
    client.post("/set/before")
    locking = make(**LOCKED)
    answers: list[int] = []

    @locking.post("/copied")
    def copied() -> str:
        session.get("before")
        copy_current_request_context(lambda: None)()
        answers.append(twin(client, locking).post("/set/between").status_code)
        return "done"

    assert twin(client, locking).post("/copied").status_code == 200
    assert answers == [503], "it is locked"
    assert twin(client, locking).post("/set/after").status_code == 200


def test_a_session_that_is_first_used_after_its_request_has_ended_is_not_locked(
    make: Callable[..., Flask], client: FlaskClient
) -> None:
    client.post("/set/before")
    locking = make(**LOCKED)
    left: list[Callable[[], object]] = []

    @locking.post("/leave")
    def leave() -> str:
        left.append(copy_current_request_context(lambda: session.get("before")))
        return "left"

    @locking.get("/stream")
    @stream_with_context
    def stream() -> Iterator[str]:
        yield "..."
        yield str(session.get("before"))
        assert twin(client, locking).post("/set/between").status_code == 200, "a body may stream for hours"
        yield "..."

    twin(client, locking).post("/leave")
    assert left[0]() is True
    assert twin(client, locking).post("/set/after").status_code == 200
    assert twin(client, locking).get("/stream").text == "...True..."


def test_a_websocket_is_open_for_hours_and_locks_nobody_out(make: Callable[..., Flask], client: FlaskClient) -> None:
    client.post("/set/before")
    locking = make(**LOCKED)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}

    @locking.route("/socket", websocket=True)
    def talk() -> str:  # as those of Flask-Sock do, until its client goes away
        assert session["before"] is True
        assert twin(client, locking).post("/set/between").status_code == 200
        session["said"] = True
        return ""

    assert twin(client, locking).get("/socket", headers=upgrade).status_code == 200
    assert twin(client, locking).get("/everything").json == {"before": True, "between": True, "said": True}


def test_a_lock_that_comes_after_its_request_has_ended_is_let_go(
    make: Callable[..., Flask], client: FlaskClient
) -> None:
    client.post("/set/before")
    app = make(locking="all")
    manager = manager_of(app)
    threads: list[threading.Thread] = []

    @app.post("/leave")
    def leave() -> str:
        threads.append(threading.Thread(target=copy_current_request_context(lambda: session.get("before"))))
        threads[0].start()
        deadline = time.monotonic() + PATIENCE_S
        while not manager.statistics().lock_waits:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return "left"

    with manager.request(cookie_of(client), "POST") as locked:
        locked.get("before")
        twin(client, app).post("/leave")
    threads[0].join(PATIENCE_S)
    assert twin(client, make(**LOCKED)).post("/set/after").status_code == 200


def test_of_two_contexts_over_one_environ_each_lets_its_own_lock_go(
    make: Callable[..., Flask], client: FlaskClient
) -> None:
    client.post("/set/before")
    app = make(**LOCKED)
    environ = EnvironBuilder(headers={"Cookie": f"session={cookie_of(client)}"}).get_environ()
    first, second = app.request_context(environ), app.request_context(environ)
    in_first, in_second = contextvars.copy_context(), contextvars.copy_context()
    in_first.run(first.push)
    assert in_first.run(lambda: session["before"]) is True
    in_second.run(second.push)
    in_first.run(first.pop)
    assert in_second.run(lambda: session["before"]) is True
    in_second.run(second.pop)
