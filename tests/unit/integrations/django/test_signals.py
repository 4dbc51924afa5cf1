"""What happens to sessions is told to receivers, as Django's own signals are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from msm_fast import AsyncSessionManager, SessionManager
from msm_fast.engine.events import Event
from msm_fast.integrations.django import SessionStore
from msm_fast.integrations.django.signals import session_event
from tests.django_site import serve

NOBODY = "n1:127.0.0.1:1"
"""A node's address where nothing listens."""


@pytest.fixture
def told() -> Iterator[list[tuple[object, Event]]]:
    """What a receiver is sent, while a site is served whose only node cannot be reached."""
    told: list[tuple[object, Event]] = []

    def note(sender: object, event: Event, **_: object) -> None:
        told.append((sender, event))

    session_event.connect(note)
    with serve("threads", MSM_FAST={"nodes": NOBODY}):
        yield told
    session_event.disconnect(note)


def store_something() -> None:
    store = SessionStore()
    store["user"] = "ada"
    store.save()


def test_receivers_are_sent_what_happens_in_threads(told: list[tuple[object, Event]]) -> None:
    store_something()
    assert [(sender, event.kind, event.node) for sender, event in told][:2] == [
        (SessionManager, "node_down", "n1"),
        (SessionManager, "state_changed", None),
    ]
    assert "127.0.0.1:1" in told[0][1].detail


def test_receivers_are_sent_what_happens_in_an_event_loop(told: list[tuple[object, Event]]) -> None:
    async def store_in_loop() -> None:
        store = SessionStore()
        await store.aset("user", "ada")
        await store.asave()

    asyncio.run(store_in_loop())
    assert (AsyncSessionManager, "node_down") in [(sender, event.kind) for sender, event in told]


def test_no_signal_carries_an_id(told: list[tuple[object, Event]]) -> None:
    store = SessionStore()
    store["user"] = "ada"
    store.save()
    assert told
    assert store.session_key is not None
    assert not any(store.session_key in repr(event) for _, event in told)


def test_a_receiver_that_fails_harms_neither_the_request_nor_other_receivers(
    told: list[tuple[object, Event]], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("the receiver's fault")

    session_event.connect(fail)
    try:
        store_something()
    finally:
        session_event.disconnect(fail)
    assert [event.kind for _, event in told][:2] == ["node_down", "state_changed"]
    assert "the receiver's fault" in caplog.text
