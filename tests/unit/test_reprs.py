"""What stands for an object where local variables are shown, as by services that gather errors: never the session."""

from random import Random

from msm_fast.engine.behind import Job
from msm_fast.engine.locking import SessionLock
from msm_fast.local_store import LocalRecord

PLAIN = f"{Random(0).getrandbits(128):032x}"


def test_a_record_of_the_local_store_shows_neither_its_sessions_id_nor_what_that_holds() -> None:
    shown = repr(LocalRecord(3, b"ada", 7, "tagged", base=b"bob", live={"user": "eve"}, plain=PLAIN))
    assert "generation=3" in shown
    assert "tagged" in shown
    assert not any(secret in shown for secret in (PLAIN, "ada", "bob", "eve"))


def test_a_lock_shows_neither_its_token_nor_the_id_of_its_session() -> None:
    key = PLAIN.encode()
    shown = repr(SessionLock(token=b"a token", key=b"msm:lock:" + key, session_key=key, session="d1gest", node="n1"))
    assert "d1gest" in shown
    assert "n1" in shown
    assert not any(secret in shown for secret in (PLAIN, "a token"))


def test_what_is_left_to_the_background_does_not_show_the_id_of_its_session() -> None:
    def run() -> None:
        raise AssertionError

    assert PLAIN not in repr(Job(PLAIN.encode(), run, is_write=True, size=1))  # type: ignore[arg-type]
