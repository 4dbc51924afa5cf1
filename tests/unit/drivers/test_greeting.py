"""The first words with a server, without one: what is made of what it says."""

import pytest

from msm_fast.drivers.access import Credentials
from msm_fast.drivers.failures import ConnectionFailed
from msm_fast.drivers.greeting import greet

PASSWORD = "correct-horse"


def refusal(*said: bytes) -> str:
    """Return why a server that answers the password with this cannot be used."""
    dialogue = greet(Credentials(f"ada:{PASSWORD}"))
    next(dialogue)
    for part in said[:-1]:
        dialogue.send(part)
    with pytest.raises(ConnectionFailed) as caught:
        dialogue.send(said[-1])
    assert caught.value.kind == "unsupported"
    return caught.value.detail


def test_what_no_memcached_says_to_a_password_stands_in_the_reason_on_one_line_of_plain_text() -> None:
    said = b"421 busy\r\n\x1b[2J\x00ERROR root: all is well \xe2\x80\xae\x7f\n"
    assert refusal(said) == "this is not a memcached server: 421 busy???[2J?ERROR root: all is well ????"
    assert refusal(b"421 ", b"busy", b"\n") == "this is not a memcached server: 421 busy"
    assert len(refusal(b"x" * 10_000 + b"\n")) < 300


def test_a_server_that_repeats_the_password_does_not_bring_it_into_the_reason() -> None:
    command = Credentials(f"ada:{PASSWORD}").command()
    for said in (command, b"what is " + PASSWORD.encode() + b"?\n", b"x" * 195 + PASSWORD.encode() + b"\n"):
        reason = refusal(said)
        assert "not a memcached server" in reason
        assert PASSWORD[:5] not in reason


def test_what_memcached_says_to_a_wrong_password_is_explained() -> None:
    assert "does not accept the setting credentials" in refusal(b"CLIENT_ERROR authentication failure\r\n")


def test_a_connection_that_is_lost_before_a_word_may_have_been_meant_for_another_protocol() -> None:
    dialogue = greet()
    next(dialogue)
    with pytest.raises(ConnectionFailed, match="before it said anything: does it want TLS") as caught:
        dialogue.throw(ConnectionFailed("reset", True, "the server closed the connection"))
    assert caught.value.kind == "reset"


def test_a_server_without_passwords_that_has_no_memory_for_what_it_takes_for_a_store_is_asked_further() -> None:
    dialogue = greet(Credentials(f"ada:{PASSWORD}"))
    next(dialogue)
    assert dialogue.send(b"SERVER_ERROR out of memory storing object\r\n").startswith(b"version\r\n")
