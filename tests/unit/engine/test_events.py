import logging

import pytest

from msm_fast.engine.events import Event, Events


def test_each_listener_is_told_and_the_event_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    first: list[Event] = []
    second: list[Event] = []
    events.subscribe(first.append)
    events.subscribe(second.append)
    event = Event("node_down", "node n1 is down: refused", node="n1")
    with caplog.at_level(logging.INFO, "msm_fast"):
        events.tell(event)
    assert first == second == [event]
    assert caplog.messages == ["node n1 is down: refused"]


def test_a_listener_that_fails_is_logged_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("broken listener")

    events = Events()
    told: list[Event] = []
    events.subscribe(fail)
    events.subscribe(told.append)
    with caplog.at_level(logging.ERROR, "msm_fast"):
        events.tell(Event("node_up", "node n1 is up"))
    assert len(told) == 1
    assert "broken listener" in caplog.text
