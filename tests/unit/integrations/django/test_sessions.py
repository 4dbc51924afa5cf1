"""The SessionStore by itself, on the embedded local store; Django's own tests of it are run by make conformance."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from enum import Enum

import pytest
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.test import override_settings
from django.utils.safestring import SafeString, mark_safe

from msm_fast.integrations.django import SessionStore, process_manager
from tests.django_site import serve


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with serve("threads"):
        yield


def stored(**content: object) -> SessionStore:
    store = SessionStore()
    store.update(content)
    store.save()
    return store


def lives_of(store: SessionStore) -> tuple[float | None, float | None]:
    session = process_manager().load(store.session_key)
    assert session is not None
    return session.max_inactive, session.absolute_lifetime


def test_a_session_lives_unused_for_as_long_as_its_cookie() -> None:
    with serve("threads", SESSION_COOKIE_AGE=90):
        assert lives_of(stored(user="ada")) == (90, None)


def test_the_settings_may_give_sessions_another_life_than_the_cookie() -> None:
    with serve("threads", SESSION_COOKIE_AGE=90, MSM_FAST={"max_inactive": 30, "absolute_lifetime": 3600}):
        assert lives_of(stored(user="ada")) == (30, 3600)


def test_another_cookie_age_in_a_test_ends_no_session_and_holds_for_those_that_are_stored_then() -> None:
    before = stored(user="ada")
    with override_settings(SESSION_COOKIE_AGE=60):
        assert SessionStore(before.session_key)["user"] == "ada"
        assert lives_of(stored(user="grace")) == (60, None)


def test_seconds_count_from_the_last_use() -> None:
    store = stored(user="ada")
    store.set_expiry(45)
    store.save()
    assert lives_of(store) == (45, None)
    store.set_expiry(None)
    store.save()
    assert lives_of(store) == (1209600, None)


@pytest.mark.parametrize("kind", ["timedelta", "datetime"])
def test_a_moment_is_the_end_whether_the_session_is_used_or_not(kind: str) -> None:
    store = stored(user="ada")
    from_now = timedelta(seconds=100)
    store.set_expiry(from_now if kind == "timedelta" else datetime.now(timezone.utc) + from_now)
    store.save()
    max_inactive, lifetime = lives_of(store)
    assert lifetime in (100, 101)
    assert max_inactive == 1209600


def test_a_moment_further_off_than_the_cookie_keeps_an_unused_session() -> None:
    store = stored(user="ada")
    store.set_expiry(timedelta(days=100))
    store.save()
    max_inactive, lifetime = lives_of(store)
    assert max_inactive == lifetime
    assert max_inactive is not None
    assert max_inactive > 99 * 86400


@pytest.mark.parametrize("expiry", [100 * 86400, timedelta(days=100)])
def test_an_expiry_further_off_than_the_settings_say_keeps_an_unused_session(expiry: int | timedelta) -> None:
    with serve("threads", MSM_FAST={"max_inactive": 1800}):
        store = stored(user="ada")
        store.set_expiry(expiry)
        store.save()
        max_inactive, _ = lives_of(store)
        assert max_inactive is not None
        assert max_inactive > 99 * 86400


def test_a_moment_gives_no_end_to_how_long_a_session_may_be_unused_where_the_settings_give_none() -> None:
    with serve("threads", MSM_FAST={"max_inactive": None}):
        store = stored(user="ada")
        store.set_expiry(timedelta(seconds=100))
        store.save()
        max_inactive, lifetime = lives_of(store)
        assert max_inactive is None
        assert lifetime in (100, 101)


@pytest.mark.parametrize("expiry", [-1, -timedelta(seconds=10), datetime(2020, 1, 1, tzinfo=timezone.utc)])
def test_an_expiry_in_the_past_ends_the_session(expiry: int | timedelta | datetime) -> None:
    store = stored(user="ada")
    key = store.session_key
    store.set_expiry(expiry)
    store.save()
    assert not SessionStore().exists(key)
    assert store["user"] == "ada"


def test_must_create_refuses_a_key_that_is_taken() -> None:
    taken = stored(user="ada")
    with pytest.raises(CreateError):
        SessionStore(taken.session_key).save(must_create=True)


def test_must_create_adopts_no_key() -> None:
    store = SessionStore("0123456789abcdef0123456789abcdef")
    store.save(must_create=True)
    assert store.session_key not in (None, "0123456789abcdef0123456789abcdef")


def test_saving_an_ended_session_is_an_update_error() -> None:
    store = stored(user="ada")
    slow = SessionStore(store.session_key)
    slow["colour"] = "red"
    store.delete()
    with pytest.raises(UpdateError):
        slow.save()
    with pytest.raises(UpdateError):
        slow.save()
    assert slow["colour"] == "red"


@pytest.mark.parametrize("is_in_loop", [False, True])
def test_what_a_session_held_can_still_be_read_once_it_is_deleted(is_in_loop: bool) -> None:
    store = stored(user="ada")
    key = store.session_key
    asyncio.run(store.adelete()) if is_in_loop else store.delete()
    assert not store.exists(key)
    assert store["user"] == "ada"


@pytest.mark.parametrize("is_in_loop", [False, True])
def test_a_session_of_a_key_that_is_not_known_is_stored_when_that_is_cycled(is_in_loop: bool) -> None:
    unknown = "0123456789abcdef0123456789abcdef"
    store = SessionStore(unknown)
    store["user"] = "ada"
    asyncio.run(store.acycle_key()) if is_in_loop else store.cycle_key()
    assert store.session_key not in (None, unknown)
    assert dict(SessionStore(store.session_key).items()) == {"user": "ada"}


@pytest.mark.parametrize("is_in_loop", [False, True])
def test_a_session_that_was_just_made_is_one_that_the_client_is_told_of(is_in_loop: bool) -> None:
    store = SessionStore()
    asyncio.run(store.acreate()) if is_in_loop else store.create()
    assert store.modified
    assert store.exists(store.session_key)


def test_what_is_written_over_a_session_that_has_ended_is_stored_under_no_other_key() -> None:
    store = stored(user="ada")
    key = store.session_key
    slow = SessionStore(key)
    slow.clear()
    slow["colour"] = "red"
    store.delete()
    for _ in range(2):
        with pytest.raises(UpdateError):
            slow.save()
        assert slow.session_key == key


def test_a_loop_is_asked_which_sessions_there_are() -> None:
    store = stored(user="ada")
    assert asyncio.run(store.aexists(store.session_key))
    assert not asyncio.run(store.aexists("0123456789abcdef0123456789abcdef"))
    assert not asyncio.run(store.aexists(None))
    with pytest.raises(CreateError):
        asyncio.run(SessionStore(store.session_key).asave(must_create=True))


def test_after_a_flush_a_new_session_begins() -> None:
    store = stored(user="ada")
    old = store.session_key
    store.flush()
    store["user"] = "grace"
    store.save()
    assert store.session_key != old
    assert not store.exists(old)
    assert dict(SessionStore(store.session_key).items()) == {"user": "grace"}


@pytest.mark.parametrize("is_in_loop", [False, True])
def test_what_was_cleared_is_replaced_by_what_is_written_then(is_in_loop: bool) -> None:
    store = stored(user="ada", cart=[1])
    again = SessionStore(store.session_key)
    again.clear()
    again["user"] = "grace"
    asyncio.run(again.asave()) if is_in_loop else again.save()
    assert dict(SessionStore(store.session_key).items()) == {"user": "grace"}


def test_a_key_is_cycled_without_a_look_at_what_is_cleared() -> None:
    store = stored(user="ada")
    again = SessionStore(store.session_key)
    again.clear()
    again.cycle_key()
    assert not again.exists(store.session_key)
    assert dict(SessionStore(again.session_key).items()) == {}


def test_text_that_django_calls_safe_comes_back_as_it_was() -> None:
    found = SessionStore(stored(text=mark_safe("<b>")).session_key)["text"]
    assert type(found) is SafeString
    assert found == "<b>"


class Colour(str, Enum):
    RED = "red"


def test_what_only_json_knows_is_stored_as_json() -> None:
    assert SessionStore(stored(colour=Colour.RED).session_key)["colour"] == "red"


def test_one_store_may_be_used_from_both_worlds() -> None:
    store = stored(user="ada")

    async def go_on() -> None:
        again = SessionStore(store.session_key)
        assert await again.aget("user") == "ada"
        await again.aset("colour", "red")
        await asyncio.to_thread(again.save)
        again["colour"] = "blue"
        await again.asave()
        assert (await SessionStore(store.session_key).aget("colour")) == "blue"
        await again.acycle_key()
        assert not await again.aexists(store.session_key)
        await again.aflush()

    asyncio.run(go_on())
    assert store.load() == {}


def test_who_looks_for_djangos_own_attribute_finds_the_content_once_it_was_looked_up() -> None:
    store = SessionStore(stored(user="ada").session_key)
    assert not hasattr(store, "_session_cache")
    assert store["user"] == "ada"
    assert store._session_cache["user"] == "ada"
    other = SessionStore(store.session_key)
    other["user"] = "eve"
    other.save()
    del store._session_cache
    assert store["user"] == "eve", "it is looked up again"


def test_a_manager_is_used_again_when_its_loop_has_ended() -> None:
    from msm_fast.integrations.django.managers import managers

    async def ask() -> object:
        return managers().for_loop()

    assert asyncio.run(ask()) is asyncio.run(ask())
    assert len(managers()._for_loops) == 1


def test_one_manager_that_stops_stops_them_all() -> None:
    from msm_fast import ApplicationStopped, SerializationError

    async def spoil() -> None:
        store = SessionStore()
        await store.aset("bad", object())
        with pytest.raises(SerializationError):
            await store.asave()

    asyncio.run(spoil())
    with pytest.raises(ApplicationStopped):
        stored(user="ada")


def test_sticky_sessions_live_in_one_manager() -> None:
    with serve("threads", MSM_FAST={"sticky": True}):
        store = stored(cart=[1])

        async def append() -> None:
            again = SessionStore(store.session_key)
            (await again.aget("cart")).append(2)
            await again.asave()

        asyncio.run(append())
        assert SessionStore(store.session_key)["cart"] == [1, 2]


def test_an_old_record_needs_no_cleaning_up() -> None:
    SessionStore.clear_expired()
    asyncio.run(SessionStore.aclear_expired())
