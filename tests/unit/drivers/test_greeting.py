"""The first words with a server, without one: what is made of what it says."""

import pytest

from msm_fast.drivers.access import Credentials
from msm_fast.drivers.failures import ConnectionFailed
from msm_fast.drivers.greeting import greet

PASSWORD = "correct-horse"
TOKEN_IS_THERE = b"VERSION 1.6.18\r\nVA 2 c1 f0 t-1 O1\r\nxy\r\n"
NO_TOKEN_IS_THERE = b"VERSION 1.6.18\r\nEN O1\r\n"


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
    with pytest.raises(ConnectionFailed, match="TLS, or only the binary protocol, or is it a proxy") as caught:
        dialogue.throw(ConnectionFailed("reset", True, "the server closed the connection"))
    assert caught.value.kind == "reset"


def test_a_server_that_tells_which_life_it_is_in_is_given_no_token() -> None:
    dialogue = greet()
    assert next(dialogue).split(b" ")[0] == b"version\r\nmg"
    assert dialogue.send(TOKEN_IS_THERE) == b"stats settings\r\n"
    with pytest.raises(StopIteration) as greeted:
        dialogue.send(b"END\r\n")
    assert greeted.value.value.token == b"xy"


@pytest.mark.parametrize(
    ("answer", "token"),
    [
        (b"HD c1 O2\r\nVA 2 c1 f0 t-1 O3\r\nab\r\n", b"ab"),
        (b"NS c0 O2\r\nVA 2 c1 f0 t-1 O3\r\ncd\r\n", b"cd"),
        (b"SERVER_ERROR out of memory storing object\r\nEN O3\r\n", None),
    ],
    ids=["ours", "that of another", "none"],
)
def test_one_that_has_no_token_is_given_one_and_that_which_is_there_then_counts(
    answer: bytes, token: bytes | None
) -> None:
    dialogue = greet()
    next(dialogue)
    asked = dialogue.send(NO_TOKEN_IS_THERE)
    assert b" ME O2\r\n" in asked
    assert b"mg " in asked
    assert dialogue.send(answer) == b"stats settings\r\n"
    with pytest.raises(StopIteration) as greeted:
        dialogue.send(b"END\r\n")
    assert greeted.value.value.token == token


def test_a_server_without_passwords_that_has_no_memory_for_what_it_takes_for_a_store_is_asked_further() -> None:
    dialogue = greet(Credentials(f"ada:{PASSWORD}"))
    next(dialogue)
    assert dialogue.send(b"SERVER_ERROR out of memory storing object\r\n").startswith(b"version\r\n")
